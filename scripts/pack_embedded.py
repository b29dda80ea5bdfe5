"""Put a trained transformer and codec into the package, in the layout that every kinema checkpoint has.

    python scripts/pack_embedded.py --checkpoint runs/v0/video.safetensors --codec data/codec-v0 \
        --out src/kinema/assets/embedded

The averaged weights are stored in float16; with --int8 PREFIX, matrices whose names begin so as int8 rows
with a float16 scale each; without a prefix, all matrices.
--checkpoint may be a folder of shards (`--export` of train_embedded.py), with --stage. The text encoder and
tokenizer (pack_text_encoder.py) are copied from --text where --out has none.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from kinema.core.errors import ConfigError, ModelError
from kinema.evaluation.training_facts import FILE, TrainingFacts
from kinema.models import minilm
from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.weights import bare
from kinema.pipelines import sums
from kinema.pipelines.card import STUDENT
from kinema.training.blends import finished
from kinema.training.data import SpriteBank
from kinema.training.distill import DistillSettings
from kinema.training.files import whole
from kinema.training.grammar import Grammar
from kinema.training.recipe import entry, read_recipe
from kinema.training.script import run_script
from kinema.training.shards import load_shards
from kinema.training.stage_settings import StageSettings

ASSETS = Path(__file__).resolve().parents[1] / "src/kinema/assets/embedded"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--stage", default="video", help="of shards")
    parser.add_argument("--int8", nargs="?", const="", metavar="PREFIX", help="these matrices as int8 rows")
    parser.add_argument("--fast", type=Path, help="low-rank additions of the few-step student")
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0.yaml"))
    parser.add_argument("--data", type=Path, help="sprites it was trained on; writes training.json")
    parser.add_argument("--grammar", type=Path, help="where the recipe has no grammar of its own")
    parser.add_argument("--text", type=Path, default=ASSETS, help="folder with text_encoder/ and tokenizer/")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def pack(args: argparse.Namespace) -> None:
    """Read and check everything, then write the folder."""
    config = read_recipe(args.config)
    shape, codec = VideoDiTConfig.from_mapping(entry(config, "model")), PatchCodec.from_folder(args.codec)
    weights = averages(args)
    check_fit(args, shape, codec, weights)
    tensors = stored(weights, args.int8)
    grammar = Grammar.load(args.grammar or args.config) if args.data else None
    facts = TrainingFacts.of(SpriteBank.open(args.data), grammar) if grammar else None
    index = model_index(config, StageSettings.of(config, "fast").distil if args.fast else None)

    folder = args.out / "transformer"
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "diffusion_pytorch_model.safetensors") as part:
        save_file(tensors, part, {"format": "pt"})
    if not args.fast:
        (args.out / STUDENT).unlink(missing_ok=True)  # an earlier model's
    elif args.fast.resolve() != (args.out / STUDENT).resolve():
        with whole(args.out / STUDENT) as part:
            shutil.copy(args.fast, part)
    write_json(folder / "config.json", {"_class_name": "VideoDiT", **asdict(shape)})
    codec.save(args.out / "vae")
    (args.out / FILE).unlink(missing_ok=True)  # an earlier model's
    if facts:
        facts.write(args.out)
    for name in ("text_encoder", "tokenizer"):
        if not (args.out / name).exists():
            shutil.copytree(args.text / name, args.out / name)
    write_json(args.out / "model_index.json", index)
    sums.write(args.out)


def stored(weights: dict[str, Tensor], prefix: str | None) -> dict[str, Tensor]:
    """What is written: float16, and as int8 rows the matrices whose names begin with `prefix`."""
    if prefix is None:
        return {name: weight.half().contiguous() for name, weight in weights.items()}
    coded = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
    if not coded:
        raise ConfigError(f"--int8 {prefix} begins no weight's name; give a module's, such as blocks.0.ffn.")
    halves = stored({name: weights[name] for name in weights if name not in coded}, None)
    return halves | minilm.pack(coded)


def check_fit(
    args: argparse.Namespace, shape: VideoDiTConfig, codec: PatchCodec, weights: dict[str, Tensor]
) -> None:
    """Refuse weights, a codec or a student that are not of the recipe's model."""
    with bare():
        own = dict(VideoDiT(shape).named_parameters())
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise ModelError(
            f"{args.checkpoint} does not fit the model of {args.config}: {len(wrong)} weights differ, "
            f"{wrong[0]!r} first; name the recipe that it was trained with."
        )
    if codec.latent_channels != shape.in_channels:
        raise ConfigError(
            f"{args.codec} has {codec.latent_channels} channels and the model of {args.config} "
            f"{shape.in_channels}; name the codec that it was trained with."
        )
    if args.fast and not args.fast.is_file():
        raise ModelError(f"--fast {args.fast}: there is no such file.")


def model_index(config: dict[str, Any], distil: DistillSettings | None) -> dict[str, object]:
    """What `model_index.json` says."""
    parts = {
        "transformer": ["kinema", "VideoDiT"],
        "vae": ["kinema", "PatchCodec"],
        "text_encoder": ["kinema", "MiniLM"],
        "tokenizer": ["tokenizers", "Tokenizer"],
    }
    index = {"_class_name": "KinemaPipeline", **parts, "defaults": entry(config, "defaults")}
    if "few" in config:
        index["few"] = config["few"]
    if distil:
        index["student"] = {name: getattr(distil, name) for name in ("steps", "solver", "grid", "shift")}
        if distil.own_guidance != 1:
            index["student"] |= {
                "guidance": distil.own_guidance,
                "guidance_interval": list(distil.own_interval),
            }
    return index


def averages(args: argparse.Namespace) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint or of shards."""
    if args.checkpoint.is_dir():
        return load_shards(args.checkpoint, args.stage)[0]
    return finished(args.checkpoint)


def write_json(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_script(lambda: pack(arguments())))
