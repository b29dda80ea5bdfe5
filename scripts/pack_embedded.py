"""Put a trained transformer and codec into the package, in the layout that every kinema checkpoint has.

    python scripts/pack_embedded.py --checkpoint runs/v0/video.safetensors --codec data/codec-v0 \
        --out src/kinema/assets/embedded

The averaged weights are stored in float16; with --int8, matrices as int8 rows with a float16 scale each.
--checkpoint may be a folder of shards (`--export` of train_embedded.py), with --stage. The text encoder and
tokenizer come from pack_text_encoder.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import Tensor

from kinema.evaluation.training_facts import TrainingFacts
from kinema.models import minilm
from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiTConfig
from kinema.pipelines import sums
from kinema.pipelines.card import STUDENT
from kinema.training.blends import finished
from kinema.training.data import SpriteBank
from kinema.training.distill import DistillSettings
from kinema.training.grammar import Grammar
from kinema.training.shards import load_shards


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--stage", default="video", help="of shards")
    parser.add_argument("--int8", action="store_true", help="matrices as int8 rows")
    parser.add_argument("--fast", type=Path, help="low-rank additions of the few-step student")
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0.yaml"))
    parser.add_argument("--data", type=Path, help="sprites it was trained on; writes training.json")
    parser.add_argument("--grammar", type=Path, help="where the recipe has no grammar of its own")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def pack(args: argparse.Namespace) -> None:
    config = yaml.safe_load(args.config.read_text())
    folder = args.out / "transformer"
    folder.mkdir(parents=True, exist_ok=True)
    weights = averages(args)
    halves = {name: weight.half().contiguous() for name, weight in weights.items()}
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file(minilm.pack(weights) if args.int8 else halves, path, {"format": "pt"})
    path.chmod(0o644)  # safetensors leaves the file private to its writer
    if args.fast:
        (args.out / STUDENT).parent.mkdir(exist_ok=True)
        shutil.copy(args.fast, args.out / STUDENT)
        (args.out / STUDENT).chmod(0o644)
    shape = asdict(VideoDiTConfig.from_mapping(config["model"]))
    write_json(folder / "config.json", {"_class_name": "VideoDiT", **shape})
    PatchCodec.from_folder(args.codec).save(args.out / "vae")
    if args.data:
        grammar = Grammar.load(args.grammar or args.config)
        TrainingFacts.of(SpriteBank.open(args.data), grammar).write(args.out)
    parts = {
        "transformer": ["kinema", "VideoDiT"],
        "vae": ["kinema", "PatchCodec"],
        "text_encoder": ["kinema", "MiniLM"],
        "tokenizer": ["tokenizers", "Tokenizer"],
    }
    index = {"_class_name": "KinemaPipeline", **parts, "defaults": config["defaults"]}
    if "few" in config:
        index["few"] = config["few"]
    if args.fast:
        distil = DistillSettings(**config["stages"]["fast"]["distil"])
        index["student"] = {name: getattr(distil, name) for name in ("steps", "solver", "grid", "shift")}
        if distil.own_guidance != 1:
            index["student"] |= {
                "guidance": distil.own_guidance,
                "guidance_interval": list(distil.own_interval),
            }
    write_json(args.out / "model_index.json", index)
    sums.write(args.out)


def averages(args: argparse.Namespace) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint or of shards."""
    if args.checkpoint.is_dir():
        return load_shards(args.checkpoint, args.stage)[0]
    return finished(args.checkpoint)


def write_json(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    pack(arguments())
