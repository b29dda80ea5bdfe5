"""Pictures of a training run: a sheet of samples to look at while it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from kinema.core.runtime import generator
from kinema.diffusion.flow import TIMESTEPS, sigmas
from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT
from kinema.training.dit import TextSource, conditioning
from kinema.training.loop import Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How samples for a sheet are made.

    Attributes:
        steps: Euler steps.
        guidance: 1 calls the network once a step.
        shift: of the levels.
    """

    steps: int = 16
    guidance: float = 3.0
    shift: float = 1.0


@contextmanager
def averaged(trainer: Trainer) -> Iterator[None]:
    """Put the averaged weights in the model for a while."""
    kept = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            p.copy_(trainer.average[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in trainer.model.named_parameters():
                p.copy_(kept[name])


@torch.no_grad()
def guided_euler(
    model: VideoDiT, noise_BCTYX: Tensor, captions: Sequence[str], text: TextSource, look: Look
) -> Tensor:
    """Clean latents by Euler steps with classifier-free guidance; enough for a look."""
    device = noise_BCTYX.device
    prompt = model.prepare(conditioning(text(captions).to(device)))
    empty = model.prepare(conditioning(text([""] * len(captions)).to(device)))
    B, T = noise_BCTYX.shape[0], noise_BCTYX.shape[2]
    grid = sigmas(look.steps, look.shift, "wan-euler")
    x_BCTYX = noise_BCTYX
    for sigma, after in pairwise(grid.tolist()):
        level_BT = torch.full((B, T), TIMESTEPS * sigma, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            v = model(x_BCTYX, level_BT, prompt).float()
            if look.guidance != 1:
                u = model(x_BCTYX, level_BT, empty).float()
                v = u + look.guidance * (v - u)
        x_BCTYX = x_BCTYX + (after - sigma) * v
    return x_BCTYX


@torch.no_grad()
def sample_sheet(
    trainer: Trainer,
    codec: PatchCodec,
    text: TextSource,
    clips: tuple[Tensor, Sequence[str]],
    path: Path,
    look: Look | None = None,
) -> None:
    """Real clips in one column of rows, samples of the same captions beside them; five frames of each.

    Args:
        trainer: its averaged weights are shown.
        codec: makes frames of latents.
        text: token states of captions.
        clips: frames `[B, 3, F, H, W]` in -1..1 on the model's device, and their captions.
        path: of the picture; the captions go to a text file beside it.
        look: how samples are made.
    """
    assert isinstance(trainer.model, VideoDiT)
    frames_BCFHW, captions = clips
    shape = codec.encode(frames_BCFHW[:1]).shape[1:]
    noise = torch.randn((len(captions), *shape), generator=generator(0, "sheet")).to(frames_BCFHW.device)
    with averaged(trainer):
        latents = guided_euler(trainer.model, noise, captions, text, look or Look())
        made_BCFHW = codec.decode(latents)
    shown = sorted({round(i * (frames_BCFHW.shape[2] - 1) / 4) for i in range(5)})
    rows = [rearrange(clip[:, :, shown], "B C F H W -> (B H) (F W) C") for clip in (frames_BCFHW, made_BCFHW)]
    sheet = torch.cat(rows, dim=1).clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().numpy()
    Image.fromarray(np.ascontiguousarray(sheet)).save(path)
    path.with_suffix(".txt").write_text("\n".join(captions) + "\n")
