"""Begin a larger embedded model as a smaller one: write the weights that a recipe of more blocks starts from.

    python scripts/grow_model.py --config configs/embedded-v1.10.yaml --data data/emoji-64-all \\
        --start src/kinema/assets/embedded --out runs/v1.10/start.safetensors

The recipe's model may have more blocks than the one in --start, and `noise_skip` that it lacks; all else is
the same. What comes out is read by train_embedded.py --start.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from kinema.models.codec import PatchCodec
from kinema.models.text import EmbeddedTextEncoder
from kinema.models.weights import read_config
from kinema.training.blends import finished
from kinema.training.captions_cache import CaptionCache
from kinema.training.data import SpriteBank
from kinema.training.files import write_tensors
from kinema.training.grammar import Grammar
from kinema.training.growth import LastLayer, deepened, sources
from kinema.training.loop import AVERAGE
from kinema.training.recipe import read_recipe
from kinema.training.script import run_script
from kinema.training.stage import Stage, Workshop

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="recipe of the larger model")
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--codec", type=Path, default=ASSETS / "vae")
    parser.add_argument("--text", type=Path, default=ASSETS, help="folder with text_encoder/ and tokenizer/")
    parser.add_argument("--start", type=Path, default=ASSETS, help="packed model to begin as")
    parser.add_argument("--stage", default="video", help="whose batches the last layer is fitted on")
    parser.add_argument("--batches", type=int, default=57, help="how many of them")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    config, device = read_recipe(args.config), torch.device("cpu")
    text = CaptionCache(EmbeddedTextEncoder.from_folder(args.text, device))
    codec = PatchCodec.from_folder(args.codec)
    workshop = Workshop.of(config, SpriteBank.open(args.data), codec, text, device)
    grammar = Grammar.from_mapping(config["grammar"])
    stage = Stage(workshop, args.stage, grammar, seed=config["seed"])
    model, old = stage.model, read_config(args.start / "transformer")
    copied = sources(old["num_layers"], model.config.num_layers)
    model.load_state_dict(deepened(finished(args.start), copied))
    if model.config.noise_skip and not old.get("noise_skip"):
        last = LastLayer(model)
        for number in range(args.batches):
            last.see(stage.task(stage.drawer.draw(number)))
        last.fit()
    tensors = {AVERAGE + name: weight for name, weight in model.state_dict().items()}
    write_tensors(args.out, tensors, {"step": 0})
    print(f"{args.out}: blocks {copied}")


if __name__ == "__main__":
    sys.exit(run_script(main))
