"""Put a trained transformer and codec into the package, in the layout that every kinema checkpoint has.

    python scripts/pack_embedded.py --checkpoint runs/v0/video.safetensors --codec data/codec-v0 \
        --out src/kinema/assets/embedded

The averaged weights are stored in float16. pack_text_encoder.py puts the text encoder and tokenizer there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiTConfig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0.yaml"))
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def pack(args: argparse.Namespace) -> None:
    config = yaml.safe_load(args.config.read_text())
    folder = args.out / "transformer"
    folder.mkdir(parents=True, exist_ok=True)
    with safe_open(args.checkpoint, "pt") as file:
        names = [key for key in file.keys() if key.startswith("average/")]  # noqa: SIM118
        weights = {name.removeprefix("average/"): file.get_tensor(name).half().contiguous() for name in names}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    shape = asdict(VideoDiTConfig.from_mapping(config["model"]))
    write_json(folder / "config.json", {"_class_name": "VideoDiT", **shape})
    PatchCodec.from_folder(args.codec).save(args.out / "vae")
    parts = {
        "transformer": ["kinema", "VideoDiT"],
        "vae": ["kinema", "PatchCodec"],
        "text_encoder": ["kinema", "MiniLM"],
        "tokenizer": ["tokenizers", "Tokenizer"],
    }
    write_json(
        args.out / "model_index.json",
        {"_class_name": "KinemaPipeline", **parts, "defaults": config["defaults"]},
    )


def write_json(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    pack(arguments())
