"""Train the embedded model's codec: first its linear encoder, which is then frozen, then its decoder.

python scripts/train_codec.py linear --data data/emoji-64 --data data/emoji-64-all --out data/codec-linear
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.training.captions import Grammar
from kinema.training.codec import fit_linear, vary
from kinema.training.data import ClipSource, SpriteBank


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["linear"])
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0-codec.yaml"))
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder from prepare_emoji.py; repeatable"
    )
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


class Clips:
    """Batch i of the training clips: the banks in turn, every other batch varied beyond the grammar."""

    def __init__(
        self, folders: list[Path], config: dict[str, Any], *, frames: int, batch: int, name: str
    ) -> None:
        grammar = replace(Grammar(), **config["grammar"])
        offset = {"linear": 1000, "decoder": 2000, "check": 3000}[name]
        self.seed, self.name, self.batch = config["seed"], name, batch
        self.sources = [
            ClipSource(
                SpriteBank.open(folder), grammar, frames=frames, seed=self.seed + offset, **config["clip"]
            )
            for folder in folders
        ]

    def draw(self, index: int) -> Tensor:
        """Frames `[B, 3, F, H, W]` of batch `index`."""
        turn, rest = divmod(index, len(self.sources))
        frames_BCFHW, _, _ = self.sources[rest].draw(self.batch, index=turn)
        if turn % 2 == 0:
            return frames_BCFHW
        return vary(frames_BCFHW, generator(self.seed, f"vary/{self.name}/{index}"))


def fit(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Fit the principal axes and write a codec whose decoder is still the plain inverse."""
    settings = config["linear"]
    clips = Clips(args.data, config, frames=settings["frames"], batch=settings["batch"], name="linear")
    codec = PatchCodec(PatchCodecConfig(**config["codec"]), seed=config["seed"]).requires_grad_(False)

    def batches() -> Iterator[Tensor]:
        for index in range(settings["batches"]):
            yield clips.draw(index)

    patches = fit_linear(codec, batches())
    codec.save(args.out)
    print(f"{args.out}  {patches} patches, encoder {codec.encoder_sha256()}")


def main() -> None:
    args = arguments()
    config = yaml.safe_load(args.config.read_text())
    torch.manual_seed(config["seed"])
    fit(args, config)


if __name__ == "__main__":
    main()
