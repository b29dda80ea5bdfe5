"""The codec's stage of a recipe: fit the linear encoder, freeze it, train the decoder beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec, PatchCodecConfig
from kinema.training.codec import DecoderSettings, fidelity, fit_linear, train_decoder, vary
from kinema.training.data import SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.loop import OptimiserSettings
from kinema.training.pace import Pace
from kinema.training.recipe import made
from kinema.training.render import Gather, compose
from kinema.training.stream import Drawer, PartSettings, batches

STREAMS = {"linear": 1000, "decoder": 2000, "check": 3000}


class Frames:
    """Batch i of a stream of clips, on the device; every other one mirrored, turned and recoloured.

    Asked for in order, batches come drawn ahead; asked for out of order, the stream starts anew there.

    Args:
        bank: the sprites.
        gather: looks them up on the device.
        config: the recipe, whose `clip` and `codec_grammar` are used.
        part: frames and batch of a clip.
        stream: names the stream.
        device: where frames are wanted.
        workers: processes that draw.
    """

    def __init__(
        self,
        bank: SpriteBank,
        gather: Gather,
        config: Mapping[str, Any],
        part: Mapping[str, int],
        stream: str,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self.gather, self.device, self.size, self.workers = gather, device, config["clip"]["size"], workers
        self.seed = config["seed"] + STREAMS[stream]
        grammar = Grammar.from_mapping({**config["grammar"], **config.get("codec_grammar", {})})
        kind = PartSettings(frames=part["frames"], fps=config["clip"]["fps"], batch=part["batch"])
        self.drawer = Drawer(bank, grammar, [kind], seed=self.seed)
        self.next, self.coming = -1, batches(self.drawer, 0)

    def draw(self, index: int) -> Tensor:
        """Frames `[B, 3, F, H, W]` in -1..1 of batch `index`."""
        if index != self.next:
            self.coming.close()
            self.coming = batches(self.drawer, index, workers=self.workers)
        self.next = index + 1
        batch = next(self.coming)
        frames_BCFHW = compose(batch.values.to(self.device), self.gather, size=self.size)
        if index % 2 == 0:
            return frames_BCFHW
        return vary(frames_BCFHW, generator(self.seed, f"vary/{index}"))

    def close(self) -> None:
        """Let the processes go."""
        self.coming.close()


def codec_stage(
    config: Mapping[str, Any],
    bank: SpriteBank,
    gather: Gather,
    folder: Path,
    device: torch.device,
    *,
    pace: Pace,
    workers: int = 0,
    say: Callable[[str], None] = print,
) -> PatchCodec:
    """Fit, train and write the codec to `folder / "codec"`; goes on where an earlier sitting stopped.

    Args:
        config: the recipe.
        bank: the sprites.
        gather: looks them up on the device.
        folder: of the run.
        device: where to train.
        pace: the sitting's time.
        workers: processes that draw.
        say: told what is being done.
    """
    linear = folder / "codec-linear"
    if not (linear / "config.json").exists():
        say("fitting the linear codec")
        fitted = PatchCodec(PatchCodecConfig(**config["codec"])).requires_grad_(False).to(device)
        section = config["linear"]
        source = Frames(bank, gather, config, section, "linear", device, workers)
        fit_linear(fitted, (source.draw(i) for i in range(section["batches"])))
        source.close()
        fitted.save(linear)
    codec = PatchCodec.from_folder(linear).to(device)
    section = dict(config["decoder"])
    optimiser = made(OptimiserSettings, section.pop("optimiser", {}), "optimiser")
    settings = made(DecoderSettings, {**section, "optimiser": optimiser}, "decoder")
    shape = {"frames": settings.frames, "batch": settings.batch}
    source = Frames(bank, gather, config, shape, "decoder", device, workers)
    train_decoder(codec, source.draw, settings, folder, seed=config["seed"], pace=pace)
    source.close()
    codec.save(folder / "codec")
    check = Frames(bank, gather, config, shape, "check", device)
    for kind, is_linear in (("linear", True), ("decoder", False)):
        first, later = fidelity(codec, (check.draw(2 * i) for i in range(6)), linear=is_linear)
        say(f"codec {kind}: first frames {first:.2f} dB, later {later:.2f} dB")
    return codec
