"""Train the embedded model's codec: first its linear encoder, which is then frozen, then its decoder.

    python scripts/train_codec.py linear --data data/emoji-64 --data data/emoji-64-all --out data/codec-linear
    python scripts/train_codec.py decoder --data data/emoji-64 --data data/emoji-64-all \\
        --start data/codec-linear --out data/codec-v0

The decoder's run resumes from RUN/decoder.safetensors when that exists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.training.codec import (
    DecoderSettings,
    fidelity,
    fit_linear,
    train_decoder,
    vary,
)
from kinema.training.data import ClipSource, SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.loop import OptimiserSettings
from kinema.training.pace import Pace
from kinema.training.recipe import made, read_recipe
from kinema.training.script import run_script

STREAMS = {"linear": 1000, "decoder": 2000, "check": 3000}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["linear", "decoder"])
    parser.add_argument("--config", type=Path, default=Path("configs/embedded-v0-codec.yaml"))
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="folder from prepare_emoji.py; repeatable",
    )
    parser.add_argument("--start", type=Path, help="decoder: the folder of the fitted linear codec")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/codec"),
        help="decoder: checkpoint and curves",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=1e9,
        help="decoder: stop (resumably) after this long",
    )
    return parser.parse_args()


class Clips:
    """Batch i of the clips: the folders in turn, first as the transformer sees them, then varied and wider.

    Args:
        folders: sprites; one named twice comes twice as often.
        config: the codec's YAML.
        frames: pixel frames of a clip.
        batch: clips of a batch.
        stream: names the stream of clips.
        plain: what every other batch is drawn with; without it the wider grammar.
    """

    def __init__(
        self,
        folders: list[Path],
        config: dict[str, Any],
        *,
        frames: int,
        batch: int,
        stream: int,
        plain: Grammar | None = None,
    ) -> None:
        wide = Grammar.from_mapping(config["grammar"])
        self.seed, self.batch, self.stream = config["seed"], batch, stream
        banks = {folder: SpriteBank.open(folder) for folder in folders}
        self.sources = [
            [
                ClipSource(
                    banks[folder],
                    grammar,
                    frames=frames,
                    seed=self.seed + stream + turn,
                    **config["clip"],
                )
                for turn, folder in enumerate(folders)
            ]
            for grammar in (plain or wide, wide)
        ]

    def draw(self, index: int) -> Tensor:
        """Frames `[B, 3, F, H, W]` of batch `index`."""
        turn, place = divmod(index, len(self.sources[0]))
        frames_BCFHW, _, _ = self.sources[turn % 2][place].draw(self.batch, index=turn)
        if turn % 2 == 0:
            return frames_BCFHW
        return vary(frames_BCFHW, generator(self.seed, f"vary/{self.stream}/{index}"))


def held_out(folder: Path, config: dict[str, Any], batches: int) -> Iterator[Tensor]:
    """Clips of the combinations that the transformer never sees; the codec may have, in other clips."""
    bank, seed = SpriteBank.open(folder), config["seed"] + STREAMS["check"]
    source = ClipSource(bank, Grammar(), frames=17, seed=seed, unseen=True, **config["clip"])
    for index in range(batches):
        yield source.draw(8, index=index)[0]


def fit(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Fit the principal axes and write a codec whose decoder is still the plain inverse."""
    settings = config["linear"]
    clips = Clips(
        args.data,
        config,
        frames=settings["frames"],
        batch=settings["batch"],
        stream=STREAMS["linear"],
    )
    codec = PatchCodec(PatchCodecConfig(**config["codec"]), seed=config["seed"]).requires_grad_(False)

    def batches() -> Iterator[Tensor]:
        for index in range(settings["batches"]):
            yield clips.draw(index)

    patches = fit_linear(codec, batches())
    codec.save(args.out)
    print(f"{args.out}  {patches} patches, encoder {codec.encoder_sha256()}")


def train(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Train the decoder beside the frozen encoder, then print how well held-out clips come back."""
    section = dict(config["decoder"])
    optimiser = made(OptimiserSettings, section.pop("optimiser", {}), "optimiser")
    settings = made(DecoderSettings, {**section, "optimiser": optimiser}, "decoder")
    codec = PatchCodec.from_folder(args.start)
    encoder = codec.encoder_sha256()
    if encoder != config["encoder_sha256"]:
        raise ModelError(
            f"{args.start}: encoder {encoder[:12]} is not the config's; fit it with this config."
        )
    clips = Clips(
        args.data,
        config,
        frames=settings.frames,
        batch=settings.batch,
        stream=STREAMS["decoder"],
        plain=Grammar(),
    )
    done = train_decoder(codec, clips.draw, settings, args.run, seed=config["seed"], pace=Pace(args.minutes))
    codec.save(args.out)
    for folder in dict.fromkeys(args.data):
        for linear in (True, False):
            first, later = fidelity(codec, held_out(folder, config, 12), linear=linear)
            print(f"{folder} {'linear' if linear else 'decoder'}: first {first:.2f} dB, later {later:.2f} dB")
    print(f"{args.out}  finished={done}, encoder {codec.encoder_sha256()}")


def main() -> None:
    args = arguments()
    config = read_recipe(args.config)
    if args.stage == "decoder" and args.start is None:
        raise ConfigError("the decoder needs the fitted linear codec; name its folder with --start.")
    (fit if args.stage == "linear" else train)(args, config)


if __name__ == "__main__":
    sys.exit(run_script(main))
