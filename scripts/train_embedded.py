"""Train the embedded model's transformer, one stage at a time.

    python scripts/train_embedded.py --data data/emoji-64 --codec data/codec-v0 --stage image --out runs/v0
    python scripts/train_embedded.py --data data/emoji-64 --codec data/codec-v0 --stage video --out runs/v0 \
        --start runs/v0/image.safetensors

Writes `STAGE.safetensors` (resumed from when it exists), `metrics.jsonl` and `STAGE-STEP.png` sample
sheets to --out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.text import EmbeddedTextEncoder
from kinema.models.weights import load_state
from kinema.training.captions_cache import CaptionCache
from kinema.training.data import ClipSource, SpriteBank
from kinema.training.dit import ObjectiveSettings, draw_held, matrices, objective, step_generator
from kinema.training.grammar import Grammar
from kinema.training.loop import Log, OptimiserSettings, Trainer
from kinema.training.sheet import sample_sheet

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0.yaml"))
    parser.add_argument("--grammar", type=Path, default=Path("configs/embedded-v0-data.yaml"))
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--codec", type=Path, required=True, help="folder from train_codec.py")
    parser.add_argument("--text", type=Path, default=ASSETS, help="folder with text_encoder/ and tokenizer/")
    parser.add_argument("--stage", required=True, help="a stage of the config")
    parser.add_argument("--start", type=Path, help="checkpoint or packed model to begin with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, help="instead of the config's")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (resumably) after this long")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--sheets", type=int, default=600, help="steps between sample sheets")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Part:
    """One kind of batch of a stage: stills or clips, and how they are noised.

    A stage with several parts takes them in turn, so that cheap stills go on teaching who is who while clips
    teach how things move.
    """

    def __init__(
        self, settings: dict[str, Any], bank: SpriteBank, grammar: Grammar, codec: PatchCodec, *, seed: int
    ) -> None:
        grammar = replace(grammar, **settings.get("grammar", {}))
        frames, fps = settings["frames"], settings["fps"]

        def source(frames: int, seed: int) -> ClipSource:
            return ClipSource(bank, grammar, frames=frames, fps=fps, size=bank.size, seed=seed)

        groups = 1 + (frames - 1) // codec.stride.time
        self.starts = source(frames, 2 * seed)
        self.middles = source(groups * codec.stride.time, 2 * seed + 1)
        self.codec, self.batch = codec, settings["batch"]
        self.objective = ObjectiveSettings(**settings["objective"])

    @torch.no_grad()
    def draw(self, step: int, *, middle: bool, device: str) -> tuple[Tensor, list[str]]:
        """Latents and captions of step `step`; `middle` gives clips without a special first frame."""
        source = self.middles if middle else self.starts
        frames_BCFHW, captions, _ = source.draw(self.batch, index=step)
        return self.codec.encode(frames_BCFHW.to(device), first=not middle), captions


class Run:
    """A stage of the recipe, ready to go or to go on."""

    def __init__(self, args: argparse.Namespace) -> None:
        config = yaml.safe_load(args.config.read_text())
        stage, self.seed = config["stages"][args.stage], config["seed"] if args.seed is None else args.seed
        self.name, self.device, self.out = args.stage, args.device, args.out
        torch.manual_seed(self.seed)
        self.model = VideoDiT(VideoDiTConfig.from_mapping(config["model"])).to(args.device)
        with torch.no_grad():
            self.model.proj_out.weight.zero_()
        self.codec = PatchCodec.from_folder(args.codec).to(args.device)
        self.text = CaptionCache(EmbeddedTextEncoder.from_folder(args.text))
        bank, grammar = SpriteBank.open(args.data), Grammar.load(args.grammar)
        self.parts = [Part(p, bank, grammar, self.codec, seed=self.seed) for p in stage["parts"]]
        self.trainer = Trainer(
            self.model,
            matrices(self.model),
            OptimiserSettings(**stage["optimiser"]),
            steps=args.steps or stage["steps"],
        )
        self.checkpoint = args.out / f"{args.stage}.safetensors"
        if self.checkpoint.exists():
            self.trainer.load(self.checkpoint)
        elif args.start and args.start.is_dir():
            self.trainer.begin(load_state(args.start / "transformer", dtype=torch.float32), args.start)
        elif args.start:
            self.trainer.load(args.start, moments=False)

    def step(self) -> tuple[float, float]:
        """One update; the loss and the gradient's norm."""
        step, part = self.trainer.step, self.parts[self.trainer.step % len(self.parts)]
        rng = step_generator(self.seed, step)
        held = draw_held(part.objective, rng)
        latents, captions = part.draw(step, middle=held == "continue", device=self.device)
        with torch.autocast(self.device, torch.bfloat16):
            loss = objective(self.model, latents, captions, self.text, part.objective, held=held, rng=rng)
        return float(loss.detach()), self.trainer.update(loss)

    def sheet(self) -> None:
        """Samples beside real clips, as a picture."""
        path = self.out / f"{self.name}-{self.trainer.step}.png"
        sample_sheet(self.trainer, self.codec, self.text, self.parts[-1].starts, path)


def train(args: argparse.Namespace) -> None:
    run, log, began = Run(args), Log(args.out), time.time()
    trainer, losses, first = run.trainer, [[] for _ in run.parts], run.trainer.step
    while trainer.step < trainer.steps and time.time() - began < 60 * args.minutes:
        loss, norm = run.step()
        losses[(trainer.step - 1) % len(run.parts)].append(loss)
        if trainer.step % 20 == 0:
            means = [round(sum(part) / len(part), 4) for part in losses]
            seconds = (time.time() - began) / (trainer.step - first)
            log.write(stage=args.stage, step=trainer.step, loss=means, norm=norm, seconds=seconds)
            print(
                f"{args.stage} {trainer.step}/{trainer.steps} loss {means} {seconds:.2f} s a step", flush=True
            )
            losses = [[] for _ in run.parts]
        if trainer.step % args.every == 0:
            trainer.save(run.checkpoint)
        if trainer.step % args.sheets == 0:
            run.sheet()
    trainer.save(run.checkpoint)


if __name__ == "__main__":
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)
