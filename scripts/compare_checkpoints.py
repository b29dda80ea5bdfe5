"""Losses of finished weights and of blends between them, on the same fresh batches of a recipe.

    python scripts/compare_checkpoints.py runs/v1.7/video.safetensors runs/v1.6/video.safetensors \\
        runs/v1.7/video.safetensors:0.6+runs/v1.6/video.safetensors:0.4 \\
        --config configs/embedded-v1.7.yaml --data data/emoji-64-all --codec data/codec-v0

The batches are drawn as in training, by a seed that no training used; noise and clips are the same for all,
so differences are much surer than the losses themselves. Prints, for every kind of batch, the loss and its
difference from the first one's with one standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from kinema.models.codec import PatchCodec
from kinema.models.text import EmbeddedTextEncoder
from kinema.training.attention import attend_by_samples
from kinema.training.blends import read_blend
from kinema.training.captions_cache import CaptionCache
from kinema.training.data import SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.recipe import read_recipe
from kinema.training.script import run_script
from kinema.training.stage import Stage, Workshop

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="+", metavar="FILE[:SHARE+FILE:SHARE...]")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--text", type=Path, default=ASSETS, help="folder with text_encoder/ and tokenizer/")
    parser.add_argument("--stage", default="video")
    parser.add_argument("--rounds", type=int, default=8, help="how often through the parts of the stage")
    parser.add_argument("--seed", type=int, default=99)
    return parser.parse_args()


def workshop(args: argparse.Namespace) -> Workshop:
    device = torch.device("cpu")
    encoder = EmbeddedTextEncoder.from_folder(args.text, device)
    bank, codec = SpriteBank.open(args.data), PatchCodec.from_folder(args.codec)
    return Workshop.of(read_recipe(args.config), bank, codec, CaptionCache(encoder), device)


def losses(args: argparse.Namespace) -> tuple[Tensor, list[int]]:
    """Of each weights in each batch, `[W, N]`, and the batches' kinds."""
    shop, candidates = workshop(args), [read_blend(text) for text in args.weights]
    stage = Stage(shop, args.stage, Grammar.from_mapping(shop.config["grammar"]), seed=args.seed)
    kinds = [stage.parts.index(part) for part in stage.parts]  # parts that are alike are one kind
    found_WN = torch.zeros(len(candidates), args.rounds * len(kinds))
    for step in range(found_WN.shape[1]):
        batch = stage.drawer.draw(step)
        for number, weights in enumerate(candidates):
            stage.model.load_state_dict(weights)
            found_WN[number, step] = stage.loss(batch)
    return found_WN, kinds * args.rounds


def main() -> None:
    args = arguments()
    attend_by_samples()
    with torch.no_grad():
        found_WN, kinds = losses(args)
    kind_N = torch.tensor(kinds)
    for text, own_N in zip(args.weights, found_WN, strict=True):
        print(text)
        for kind in sorted(set(kinds)):
            chosen = kind_N == kind
            change = (own_N - found_WN[0])[chosen]
            error = f"{change.std() / len(change) ** 0.5:.4f}" if len(change) > 1 else "one batch"
            print(f"  part {kind}: {own_N[chosen].mean():.4f}  {change.mean():+.4f} ({error})")
        print(f"  all: {own_N.mean():.4f}  {(own_N - found_WN[0]).mean():+.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
