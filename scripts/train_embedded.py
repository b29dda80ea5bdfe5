"""Train the embedded model, one stage of a recipe at a time, by one command on a CPU and on a GPU.

    python scripts/train_embedded.py --config configs/embedded-v2.yaml --pack data/emoji-128.zip \\
        --data data/emoji-128 --out runs/v2 --stage codec --minutes 6 --plan 6
    python scripts/train_embedded.py --config configs/embedded-v2.yaml --data data/emoji-128 --out runs/v2 \\
        --codec runs/v2/codec --stage video --minutes 9 --plan 18
    python scripts/train_embedded.py --config configs/embedded-v2.yaml --data data/emoji-128 --out runs/v2 \\
        --codec runs/v2/codec --stage fast --start runs/v2/video.safetensors

Two processes on two cores: `OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -- scripts/train_embedded.py ...`;
each step is then two batches. The codec stage has one process.

Writes to --out: `STAGE.safetensors` (gone on from bit for bit when it exists), `metrics.jsonl`, `curves.png`
and `STAGE-STEP.png` sample sheets; the codec stage writes `codec/`, a stage of low-rank
additions `STAGE-lora.safetensors`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.models.codec import PatchCodec
from kinema.models.text import EmbeddedTextEncoder
from kinema.models.weights import load_state
from kinema.training.attention import attend_by_samples
from kinema.training.captions_cache import CaptionCache
from kinema.training.codec_stage import codec_stage
from kinema.training.curves import draw_curves
from kinema.training.data import SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.live_text import LiveText
from kinema.training.loop import Log
from kinema.training.low_rank import save_additions
from kinema.training.pace import Pace
from kinema.training.pack import unpack
from kinema.training.ranks import Ranks
from kinema.training.recipe import read_recipe
from kinema.training.shards import load_shards, save_shards
from kinema.training.sheet import averaged
from kinema.training.stage import Stage, Workshop
from kinema.training.stream import batches, sprites_on

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"
REPORT = 20  # steps between reports


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0.yaml"))
    parser.add_argument("--grammar", type=Path, help="file with a `grammar`, where the recipe has none")
    parser.add_argument("--pack", type=Path, help="from prepare_emoji.py --pack; decoded into --data")
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--codec", type=Path, help="its folder; needed by every stage but 'codec'")
    parser.add_argument("--text", type=Path, default=ASSETS, help="folder with text_encoder/ and tokenizer/")
    parser.add_argument("--stage", required=True, help="'codec' or a stage of the config")
    parser.add_argument("--start", type=Path, help="checkpoint or packed model to begin with")
    parser.add_argument("--additions", type=Path, help="file of low-rank additions to begin with")
    parser.add_argument("--resume", type=Path, help="folder of shards to go on from, where no checkpoint is")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="folder for shards of the averaged weights, at the end")
    parser.add_argument("--seed", type=int, help="instead of the config's")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (resumably) after this long")
    parser.add_argument(
        "--plan", type=float, help="minutes of this stage still to come; the schedule then ends with them"
    )
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--sheets", type=int, default=600, help="steps between sample sheets; 0 for none")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--workers", type=int, help="processes that draw batches; 0 on a CPU")
    parser.add_argument("--eager", action="store_true", help="do not compile on a GPU")
    return parser.parse_args()


class Run:
    """A stage of the recipe, ready to go or to go on."""

    def __init__(
        self, args: argparse.Namespace, config: Mapping[str, Any], device: torch.device, ranks: Ranks
    ) -> None:
        bank, codec = SpriteBank.open(args.data), PatchCodec.from_folder(args.codec)
        encoder = EmbeddedTextEncoder.from_folder(args.text, device)
        text = CaptionCache(encoder) if device.type == "cpu" else LiveText(encoder)
        workshop = Workshop.of(config, bank, codec, text, device, ranks)
        seed = config["seed"] if args.seed is None else args.seed
        self.stage = Stage(workshop, args.stage, grammar(args, config), seed=seed, steps=args.steps)
        self.out, self.checkpoint = args.out, args.out / f"{args.stage}.safetensors"
        if self.stage.rank is None:
            self.open(args.start, args.resume)
        else:
            self.add(args.start, args.resume, args.additions)
        self.trainer = self.stage.trainer
        if device.type == "cuda" and not args.eager:
            self.stage.compile()

    def open(self, start: Path | None, resume: Path | None) -> None:
        """Weights: of the stage's own checkpoint, of shards, or those to begin with."""
        trainer = self.stage.trainer
        if self.checkpoint.exists():
            trainer.load(self.checkpoint)
        elif resume:
            weights, facts = load_shards(resume, self.stage.name)
            trainer.begin(weights, resume)
            trainer.step = int(facts["step"])
        elif start and start.is_dir():
            trainer.begin(load_state(start / "transformer", dtype=torch.float32), start)
        elif start:
            trainer.load(start, moments=False)

    def add(self, start: Path | None, resume: Path | None, additions: Path | None) -> None:
        """Load the model that stays as it is, then begin its additions or go on with them."""
        teacher = self.stage.trainer
        if resume and not (start and start.exists()):
            teacher.begin(load_shards(resume, start.stem if start else "video")[0], resume)
        elif start and start.is_dir():
            teacher.begin(load_state(start / "transformer", dtype=torch.float32), start)
        elif start:
            teacher.load(start, moments=False)
        self.stage.add(None if self.checkpoint.exists() else additions)
        if self.checkpoint.exists():
            self.stage.trainer.load(self.checkpoint)

    def finish(self, export: Path | None) -> None:
        """What others need of a finished sitting: adapters, shards, curves."""
        if self.stage.rank is not None:
            with averaged(self.trainer):
                save_additions(self.stage.model, self.out / f"{self.stage.name}-lora.safetensors")
        elif export:
            save_shards(self.trainer.average, export, self.stage.name, step=self.trainer.step)


def grammar(args: argparse.Namespace, config: Mapping[str, Any]) -> Grammar:
    if args.grammar:
        return Grammar.load(args.grammar)
    if "grammar" in config:
        return Grammar.from_mapping(config["grammar"])
    return Grammar.load(Path("configs/embedded-v0-data.yaml"))


def train(args: argparse.Namespace) -> None:
    config, device = read_recipe(args.config), device_of(args.device)
    pace, workers = Pace(args.minutes, args.plan), args.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else max(1, min(12, (os.cpu_count() or 2) - 2))
    if args.pack:
        unpack(args.pack, args.data, workers=max(1, workers))
        print(f"sprites ready after {pace.seconds:.0f} s", flush=True)
    ranks = Ranks.from_environment(device)
    if device.type == "cpu":
        attend_by_samples()
    if args.stage == "codec":
        if ranks.count > 1:
            raise ConfigError(
                f"the codec stage has one process, not {ranks.count}; start it without torchrun."
            )
        bank = SpriteBank.open(args.data)
        codec_stage(config, bank, sprites_on(bank, device), args.out, device, pace=pace, workers=workers)
    else:
        sit(args, Run(args, config, device, ranks), pace, workers, ranks)
    if ranks.leads:
        draw_curves(args.out / "metrics.jsonl", args.out / "curves.png")
    ranks.leave()


def sit(args: argparse.Namespace, run: Run, pace: Pace, workers: int, ranks: Ranks) -> None:
    """Steps until the stage or the time is over."""
    stage, trainer, log = run.stage, run.trainer, Losses(run.stage, args.out, ranks)
    first = ranks.batch(trainer.step)
    coming = batches(stage.drawer, first, apart=ranks.count, workers=workers)
    while trainer.step < trainer.steps and not ranks.told(pace.over()):
        batch = next(coming)
        loss, norm = stage.step(batch)
        log.add(batch.part, loss)
        pace.stepped(trainer)
        trainer.steps = ranks.told(trainer.steps)
        if trainer.step % REPORT == 0:
            log.report(norm, pace)
        if trainer.step % args.every == 0:
            trainer.save(run.checkpoint)
        if ranks.leads and args.sheets and trainer.step % args.sheets == 0:
            stage.sheet(args.out / f"{args.stage}-{trainer.step}.png")
    coming.close()
    trainer.save(run.checkpoint)
    if ranks.leads:
        run.finish(args.export)
        print(f"{args.stage}: {trainer.step} of {trainer.steps} steps, {pace.seconds:.0f} s", flush=True)


class Losses:
    """Means of the losses since the last report, of every kind of batch, over all processes."""

    def __init__(self, stage: Stage, out: Path, ranks: Ranks) -> None:
        self.stage, self.log, self.ranks = stage, Log(out), ranks
        self.first = stage.trainer.step
        self.sums = torch.zeros(len(stage.parts), 2)

    def add(self, part: int, loss: Tensor) -> None:
        """One batch's."""
        self.sums = self.sums.to(loss.device)
        self.sums[part] += torch.stack((loss.float(), torch.ones_like(loss.float())))

    def report(self, norm: Tensor, pace: Pace) -> None:
        """Write and print, and begin anew."""
        sums, trainer = self.ranks.total(self.sums), self.stage.trainer
        self.sums = torch.zeros_like(sums)
        if not self.ranks.leads:
            return
        means = [round(float(total / count), 4) for total, count in sums if count]
        seconds = pace.seconds / (trainer.step - self.first)
        self.log.write(
            stage=self.stage.name, step=trainer.step, loss=means, norm=float(norm), seconds=round(seconds, 4)
        )
        head = f"{self.stage.name} {trainer.step}/{trainer.steps}"
        print(f"{head} loss {means} {seconds:.3f} s a step", flush=True)


def device_of(name: str) -> torch.device:
    """The named device, "auto" being a GPU where there is one; matrices there may use TF32."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    return torch.device(name)


if __name__ == "__main__":
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)
