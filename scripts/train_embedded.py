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
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.text import EmbeddedTextEncoder
from kinema.training.captions import Grammar
from kinema.training.captions_cache import CaptionCache
from kinema.training.data import ClipSource, SpriteBank
from kinema.training.dit import ObjectiveSettings, draw_held, matrices, objective, step_generator
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
    parser.add_argument("--start", type=Path, help="checkpoint whose averaged weights to begin with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="instead of the stage's own number")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (resumably) after this long")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--sheets", type=int, default=600, help="steps between sample sheets")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Batches:
    """Latents and captions of step i, for clips that begin a video and for clips from its middle."""

    def __init__(
        self, args: argparse.Namespace, stage: dict[str, Any], codec: PatchCodec, *, seed: int
    ) -> None:
        bank = SpriteBank.open(args.data)
        grammar = replace(Grammar.load(args.grammar), **stage.get("grammar", {}))
        frames, fps = stage["frames"], stage["fps"]

        def source(frames: int, seed: int) -> ClipSource:
            return ClipSource(bank, grammar, frames=frames, fps=fps, size=bank.size, seed=seed)

        groups = 1 + (frames - 1) // codec.stride.time
        self.starts = source(frames, 2 * seed)
        self.middles = source(groups * codec.stride.time, 2 * seed + 1)
        self.codec, self.batch = codec, stage["batch"]

    @torch.no_grad()
    def draw(self, step: int, *, middle: bool, device: str) -> tuple[Tensor, list[str]]:
        """The batch of step `step`; `middle` gives clips without a special first frame."""
        source = self.middles if middle else self.starts
        frames_BCFHW, captions, _ = source.draw(self.batch, index=step)
        return self.codec.encode(frames_BCFHW.to(device), first=not middle), captions


def train(args: argparse.Namespace) -> None:
    config = yaml.safe_load(args.config.read_text())
    stage, seed = config["stages"][args.stage], config["seed"]
    steps = args.steps or stage["steps"]
    torch.manual_seed(seed)
    model = VideoDiT(VideoDiTConfig.from_mapping(config["model"])).to(args.device)
    with torch.no_grad():
        model.proj_out.weight.zero_()
    codec = PatchCodec.from_folder(args.codec).to(args.device)
    text = CaptionCache(EmbeddedTextEncoder.from_folder(args.text))
    settings = ObjectiveSettings(**stage["objective"])
    trainer = Trainer(model, matrices(model), OptimiserSettings(**stage["optimiser"]), steps=steps)
    checkpoint = args.out / f"{args.stage}.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif args.start:
        trainer.load(args.start, moments=False)
    batches, log, began, done = (
        Batches(args, stage, codec, seed=seed),
        Log(args.out),
        time.time(),
        trainer.step,
    )
    losses: list[float] = []
    while trainer.step < steps and time.time() - began < 60 * args.minutes:
        rng = step_generator(seed, trainer.step)
        held = draw_held(settings, rng)
        latents, captions = batches.draw(trainer.step, middle=held == "continue", device=args.device)
        with torch.autocast(args.device, torch.bfloat16) if stage.get("bf16", True) else nullcontext():
            loss = objective(model, latents, captions, text, settings, held=held, rng=rng)
        losses.append(float(loss.detach()))
        norm = trainer.update(loss)
        if trainer.step % 20 == 0:
            rate = (trainer.step - done) * stage["batch"] / (time.time() - began)
            log.write(
                stage=args.stage, step=trainer.step, loss=sum(losses) / len(losses), norm=norm, rate=rate
            )
            print(
                f"{args.stage} {trainer.step}/{steps} loss {sum(losses) / len(losses):.4f} {rate:.1f}/s",
                flush=True,
            )
            losses.clear()
        if trainer.step % args.every == 0:
            trainer.save(checkpoint)
        if trainer.step % args.sheets == 0:
            sample_sheet(trainer, codec, text, batches.starts, args.out / f"{args.stage}-{trainer.step}.png")
    trainer.save(checkpoint)


if __name__ == "__main__":
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)
