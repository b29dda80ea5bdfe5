"""Pictures of a training run: a sheet of samples to look at while it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT
from kinema.training.data import ClipSource
from kinema.training.dit import TextSource, conditioning
from kinema.training.loop import Trainer

ROWS, STEPS, GUIDANCE = 12, 16, 3.0


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
def guided_euler(model: VideoDiT, noise_BCTYX: Tensor, captions: Sequence[str], text: TextSource) -> Tensor:
    """Clean latents by Euler steps with classifier-free guidance; enough for a look."""
    device = noise_BCTYX.device
    prompt = model.prepare(conditioning(text(captions).to(device)))
    empty = model.prepare(conditioning(text([""] * len(captions)).to(device)))
    B, T = noise_BCTYX.shape[0], noise_BCTYX.shape[2]
    grid = torch.linspace(1, 0, STEPS + 1)
    x_BCTYX = noise_BCTYX
    for sigma, after in pairwise(grid.tolist()):
        level_BT = torch.full((B, T), 1000 * sigma, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            v, u = model(x_BCTYX, level_BT, prompt).float(), model(x_BCTYX, level_BT, empty).float()
        x_BCTYX = x_BCTYX + (after - sigma) * (u + GUIDANCE * (v - u))
    return x_BCTYX


def sample_sheet(
    trainer: Trainer, codec: PatchCodec, text: TextSource, source: ClipSource, path: Path
) -> None:
    """Real clips in one column of rows, samples of the same captions beside them; five frames of each."""
    assert isinstance(trainer.model, VideoDiT)
    index = source.index
    frames_BCFHW, captions, _ = source.draw(ROWS, index=10**9)
    source.index = index
    device = trainer.model.proj_out.weight.device
    shape = codec.encode(frames_BCFHW[:1].to(device)).shape[1:]
    noise = torch.randn((ROWS, *shape), generator=generator(0, "sheet")).to(device)
    with averaged(trainer):
        made_BCFHW = codec.decode(guided_euler(trainer.model, noise, captions, text)).cpu()
    shown = sorted({round(i * (frames_BCFHW.shape[2] - 1) / 4) for i in range(5)})
    rows = [rearrange(clip[:, :, shown], "B C F H W -> (B H) (F W) C") for clip in (frames_BCFHW, made_BCFHW)]
    sheet = torch.cat(rows, dim=1).clamp(-1, 1).add(1).mul(127.5).round().byte().numpy()
    Image.fromarray(np.ascontiguousarray(sheet)).save(path)
    path.with_suffix(".txt").write_text("\n".join(captions) + "\n")
