"""Train the embedded model, one stage of a recipe at a time, by one command on a CPU and on a GPU.

    python scripts/train_embedded.py --config configs/embedded-v2.yaml --pack data/emoji-128.zip \\
        --data data/emoji-128 --out runs/v2 --stage codec --minutes 6 --plan 6
    python scripts/train_embedded.py --config configs/embedded-v2.yaml --data data/emoji-128 --out runs/v2 \\
        --codec runs/v2/codec --stage video --minutes 9 --plan 18
    python scripts/train_embedded.py --config configs/embedded-v2.yaml --data data/emoji-128 --out runs/v2 \\
        --codec runs/v2/codec --stage fast --start runs/v2/video.safetensors

Two processes on two cores: `OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -- scripts/train_embedded.py ...`;
each step is then two batches. The codec stage has one process.

Writes to --out: `STAGE.safetensors` (gone on from bit for bit when it exists, with the same sprites, codec,
seed and number of processes), `metrics.jsonl`, `curves.png` and `STAGE-STEP.png` sample sheets; the codec
stage writes `codec/`, a stage of low-rank additions `STAGE-lora.safetensors`. Ctrl-C and SIGTERM let the step
end and save it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.core.errors import ConfigError, ModelError
from kinema.models.codec import PatchCodec
from kinema.models.text import EmbeddedTextEncoder
from kinema.models.weights import load_state
from kinema.training.attention import attend_by_samples
from kinema.training.captions_cache import CaptionCache
from kinema.training.codec_stage import codec_stage
from kinema.training.curves import draw_curves
from kinema.training.data import SpriteBank
from kinema.training.files import read_facts
from kinema.training.grammar import Grammar
from kinema.training.live_text import LiveText
from kinema.training.loop import Log
from kinema.training.low_rank import save_additions
from kinema.training.pace import Pace
from kinema.training.pack import unpack
from kinema.training.ranks import Ranks
from kinema.training.recipe import entry, read_recipe
from kinema.training.script import Stop, run_script
from kinema.training.shards import load_shards, save_shards
from kinema.training.sheet import averaged
from kinema.training.stage import Stage, Workshop
from kinema.training.stage_settings import StageSettings
from kinema.training.stream import batches, sprites_on

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"
REPORT = 20  # steps between reports
FEW = 40  # names that an adapter's header holds


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


def check(args: argparse.Namespace, config: Mapping[str, Any]) -> None:
    """Refuse what cannot be before anything is loaded."""
    least = {"steps": 1, "every": 1, "sheets": 0, "workers": 0}
    for name, low in least.items():
        if (value := getattr(args, name)) is not None and value < low:
            raise ConfigError(f"--{name} {value} is below {low}.")
    for name in ("minutes", "plan"):
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name} {value:g} is no number of minutes above 0.")
    if args.stage == "codec":
        return
    rank = StageSettings.of(config, args.stage).rank
    if args.codec is None:
        raise ConfigError("--codec is missing; name its folder, such as src/kinema/assets/embedded/vae.")
    for name in ("start", "resume", "additions"):
        if (path := getattr(args, name)) is not None and not path.exists():
            raise ModelError(f"--{name} {path}: there is nothing of that name.")
    begins = not (args.out / f"{args.stage}.safetensors").exists()
    if rank is not None and begins and args.start is None and args.resume is None:
        raise ConfigError(
            f"stage {args.stage!r} trains additions to a finished model; name one with --start, such as "
            "src/kinema/assets/embedded."
        )
    if rank is None and args.additions is not None:
        raise ConfigError(f"stage {args.stage!r} trains the weights and no additions; leave out --additions.")


class Run:
    """A stage of the recipe, ready to go or to go on."""

    def __init__(
        self, args: argparse.Namespace, config: Mapping[str, Any], device: torch.device, ranks: Ranks
    ) -> None:
        bank, codec = SpriteBank.open(args.data), PatchCodec.from_folder(args.codec)
        encoder = EmbeddedTextEncoder.from_folder(args.text, device)
        text = CaptionCache(encoder) if device.type == "cpu" else LiveText(encoder)
        workshop = Workshop.of(config, bank, codec, text, device, ranks)
        seed = entry(config, "seed") if args.seed is None else args.seed
        drawn = grammar(args, config)
        self.stage = Stage(workshop, args.stage, drawn, seed=seed, steps=args.steps)
        self.facts = {
            "data": bank.data_hash,
            "codec": codec.encoder_sha256(),
            "seed": seed,
            "processes": ranks.count,
            "steps": None if args.plan else self.stage.steps,  # that of a plan follows the clock
            "recipe": digest([config["stages"][args.stage], asdict(drawn), config.get("clip")]),
        }
        self.out, self.checkpoint = args.out, args.out / f"{args.stage}.safetensors"
        if self.stage.rank is None:
            self.open(args.start, args.resume)
        else:
            self.add(args.start, args.resume, args.additions)
        self.trainer = self.stage.trainer
        self.trainer.facts = self.facts
        if ranks.leads:
            Log(args.out).go_on(self.trainer.step, args.stage)
        if device.type == "cuda" and not args.eager:
            self.stage.compile()

    def open(self, start: Path | None, resume: Path | None) -> None:
        """Weights: of the stage's own checkpoint, of shards, or those to begin with."""
        trainer = self.stage.trainer
        if self.checkpoint.exists():
            self.go_on()
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
            self.go_on()

    def go_on(self) -> None:
        """Take up the stage's own checkpoint.

        Raises:
            ConfigError: it is of other sprites, another codec or another seed.
        """
        before = read_facts(self.checkpoint)
        for name, what in (("data", "sprites"), ("codec", "codec"), ("seed", "seed")):
            if name in before and before[name] != self.facts[name]:
                raise ConfigError(
                    f"{self.checkpoint} was trained with another {what} ({str(before[name])[:12]}, now "
                    f"{str(self.facts[name])[:12]}); name another --out, or delete it to begin anew."
                )
        self.stage.trainer.load(self.checkpoint)
        changed = [
            n for n in ("processes", "steps", "recipe") if before.get(n, self.facts[n]) != self.facts[n]
        ]
        trainer = self.stage.trainer
        if not self.stage.workshop.ranks.leads:
            return
        if changed:
            print(
                f"note: other {', '.join(changed)} than before step {trainer.step}: not the same run",
                flush=True,
            )
        print(f"{self.stage.name}: goes on from step {trainer.step} of {self.checkpoint}", flush=True)

    def finish(self, export: Path | None) -> None:
        """What others need of a finished sitting: adapters, shards, curves."""
        if self.stage.rank is not None:
            with averaged(self.trainer):
                path = self.out / f"{self.stage.name}-lora.safetensors"
                save_additions(self.stage.model, path, self.told())
        elif export:
            save_shards(self.trainer.average, export, self.stage.name, step=self.trainer.step)

    def told(self) -> dict[str, str]:
        """What adapters say of themselves."""
        bank = self.stage.workshop.bank
        names = [identity.name for identity in bank.identities]
        told = {"steps": str(self.trainer.step), "data_sha256": bank.data_hash}
        told |= {"licence": bank.licence} if bank.licence else {}
        return told | ({"shows": ", ".join(names)} if len(names) <= FEW else {})


def grammar(args: argparse.Namespace, config: Mapping[str, Any]) -> Grammar:
    if args.grammar:
        return Grammar.load(args.grammar)
    if "grammar" in config:
        return Grammar.from_mapping(config["grammar"])
    return Grammar.load(Path("configs/embedded-v0-data.yaml"))


def digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def train(args: argparse.Namespace) -> int:
    """The exit code."""
    config, device = read_recipe(args.config), device_of(args.device)
    check(args, config)
    args.out.mkdir(parents=True, exist_ok=True)
    pace, workers = Pace(args.minutes, args.plan), args.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else max(1, min(12, (os.cpu_count() or 2) - 2))
    ranks = Ranks.from_environment(device)
    if args.pack and ranks.leads:
        unpack(args.pack, args.data, workers=max(1, workers))
        print(f"sprites ready after {pace.seconds:.0f} s", flush=True)
    ranks.told(0)  # the others wait for the sprites
    if device.type == "cpu":
        attend_by_samples()
    if args.stage == "codec":
        if ranks.count > 1:
            raise ConfigError(
                f"the codec stage has one process, not {ranks.count}; start it without torchrun."
            )
        bank, code = SpriteBank.open(args.data), 0
        codec_stage(config, bank, sprites_on(bank, device), args.out, device, pace=pace, workers=workers)
    else:
        with Stop() as stop:
            sit(args, Run(args, config, device, ranks), pace, stop, workers, ranks)
        code = stop.code
    if ranks.leads:
        draw_curves(args.out / "metrics.jsonl", args.out / "curves.png")
    ranks.leave()
    return code


def sit(args: argparse.Namespace, run: Run, pace: Pace, stop: Stop, workers: int, ranks: Ranks) -> None:
    """Steps until the stage or the time is over, or somebody asks to stop."""
    stage, trainer, log = run.stage, run.trainer, Losses(run.stage, args.out, ranks)
    first, done = ranks.batch(trainer.step), trainer.step
    coming = batches(stage.drawer, first, apart=ranks.count, workers=workers)
    while trainer.step < trainer.steps and not ranks.told(pace.over() or stop.asked is not None):
        batch = next(coming)
        loss, norm = stage.step(batch)
        log.add(batch.part, loss)
        pace.stepped(trainer)
        trainer.steps = ranks.told(trainer.steps)
        if trainer.step % REPORT == 0:
            log.report(norm)
        if trainer.step % args.every == 0:
            trainer.save(run.checkpoint)
        if ranks.leads and args.sheets and trainer.step % args.sheets == 0:
            stage.sheet(args.out / f"{args.stage}-{trainer.step}.png")
    coming.close()
    if trainer.step > done or not run.checkpoint.exists():
        trainer.save(run.checkpoint)
    elif ranks.leads and trainer.step >= trainer.steps:
        print(f"{args.stage}: it was finished before; delete {run.checkpoint} to train anew", flush=True)
    if ranks.leads:
        run.finish(args.export)
        more = "; the same command goes on" if trainer.step < trainer.steps else ""
        print(
            f"{args.stage}: {trainer.step} of {trainer.steps} steps, {pace.seconds:.0f} s{more}", flush=True
        )


class Losses:
    """Means of the losses since the last report, of every kind of batch, over all processes."""

    def __init__(self, stage: Stage, out: Path, ranks: Ranks) -> None:
        self.stage, self.log, self.ranks = stage, Log(out), ranks
        self.first, self.began = stage.trainer.step, time.monotonic()
        self.sums = torch.zeros(len(stage.parts), 2)

    def add(self, part: int, loss: Tensor) -> None:
        """One batch's."""
        self.sums = self.sums.to(loss.device)
        self.sums[part] += torch.stack((loss.float(), torch.ones_like(loss.float())))

    def report(self, norm: Tensor) -> None:
        """Write and print, and begin anew."""
        sums, trainer = self.ranks.total(self.sums), self.stage.trainer
        self.sums = torch.zeros_like(sums)
        if not self.ranks.leads:
            return
        means = [round(float(total / count), 4) for total, count in sums if count]
        seconds = (time.monotonic() - self.began) / (trainer.step - self.first)
        self.log.write(
            stage=self.stage.name, step=trainer.step, loss=means, norm=float(norm), seconds=round(seconds, 4)
        )
        head = f"{self.stage.name} {trainer.step}/{trainer.steps}"
        print(f"{head} loss {means} {seconds:.3f} s a step", flush=True)


def device_of(name: str) -> torch.device:
    """The named device, "auto" being a GPU where there is one; matrices there may use TF32."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name} is not one of auto, cpu, cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: torch finds no GPU here; use cpu.")
    if name.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    return torch.device(name)


if __name__ == "__main__":
    sys.exit(run_script(lambda: train(arguments())))
