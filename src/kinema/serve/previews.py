"""What a clip will be, while it is sampled: a small animation of the clean estimate.

    decoded    by the model's own decoder, where one in `PATIENCE` seconds costs at most `SHARE` of it
    linear     rgb = a . latent + b, fitted by least squares to the decoder's first frame of this very
               estimate; costs one frame whatever the clip's length
    drawn      the last frames, of a clip that is made frame by frame

Pictures are small, few and at most two a second; a preview is never a reason to wait.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from torch import Tensor

from kinema.core.contracts import Progress
from kinema.pipelines.model import Decoder
from kinema.pipelines.render import to_uint8

EVERY = 0.5
SHARE = 0.1
PATIENCE = 1.5
MOST_FRAMES = 9
MOST_SIDE = 256
CROP = 16  # latents a side that the fit looks at


class Previewer:
    """Makes a preview of an event where there is time for one.

    Args:
        vae: the decoder; None for a model without one of ours.
        fps: of the clip.
        clock: seconds that only grow.
    """

    def __init__(self, vae: Decoder | None, fps: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._vae, self._fps, self._clock = vae, fps, clock
        self._last = clock()
        self._costs: dict[str, float] = {}
        self._tried = False

    def __call__(self, event: Progress) -> bytes | None:
        """An animated WebP, or None where there is nothing to show, or no time."""
        since = self._clock() - self._last
        if event.clean is None or self._vae is None or since < EVERY:
            return None
        how = "decoded" if self._costs.get("decoded", PATIENCE) <= SHARE * PATIENCE else "linear"
        if not self._affordable(how, since):
            return None
        began = self._clock()
        latents_CTYX = event.clean[0].detach()
        if how == "decoded":
            frames = decoded(self._vae, latents_CTYX)
        else:
            crop_CYX = middle(latents_CTYX)
            frame_CHW = first_frame(self._vae, crop_CYX)
            parts = latents_CTYX[0].numel() / crop_CYX[0].numel()  # of the clip, each as large as this one
            self._guess((self._clock() - began) * parts)
            frames = linear(latents_CTYX, crop_CYX, frame_CHW, self._vae.stride.space)
        picture = animation(frames, self._fps)
        self._last = self._clock()
        self._costs[how] = self._last - began
        self._tried |= how == "decoded"
        return picture

    def _guess(self, seconds: float) -> None:
        """What decoding may cost, until it was done once; the first guess has a decoder's start in it."""
        if not self._tried:
            self._costs["decoded"] = min(seconds, self._costs.get("decoded", seconds))

    def drawn(self, frames: Callable[[], Iterable[np.ndarray]]) -> bytes | None:
        """The last of the frames that are finished, for a clip that is drawn one frame after the other."""
        began = self._clock()
        if began - self._last < EVERY or not self._affordable("drawn", began - self._last):
            return None
        shown = list(deque(frames(), maxlen=MOST_FRAMES))
        picture = animation(shown, self._fps) if shown else None
        self._last = self._clock()
        self._costs["drawn"] = self._last - began
        return picture

    def _affordable(self, how: str, since: float) -> bool:
        return self._costs.get(how, 0.0) <= SHARE * since


def decoded(vae: Decoder, latents_CTYX: Tensor) -> list[np.ndarray]:
    """Frames uint8 `[H, W, 3]` of the whole estimate."""
    with torch.inference_mode():
        return [f for part in vae.stream(latents_CTYX[None]) for f in to_uint8(part)]


def middle(latents_CTYX: Tensor) -> Tensor:
    """Of the first latent frame what lies in the middle, `[C, Y, X]`."""
    top, left = ((side - min(side, CROP)) // 2 for side in latents_CTYX.shape[2:])
    return latents_CTYX[:, 0, top : top + CROP, left : left + CROP]


def first_frame(vae: Decoder, crop_CYX: Tensor) -> Tensor:
    """It decoded, `[3, H, W]` in -1..1."""
    with torch.inference_mode():
        return next(iter(vae.stream(crop_CYX[None, :, None])))[0, :, 0].float()


def linear(latents_CTYX: Tensor, crop_CYX: Tensor, frame_CHW: Tensor, stride: int) -> list[np.ndarray]:
    """One small frame per latent frame: colours by a fit to a piece of one that was decoded."""
    seen_NC = rearrange(
        reduce(frame_CHW, "C (Y y) (X x) -> C Y X", "mean", y=stride, x=stride), "C Y X -> (Y X) C"
    )
    known_NC = _with_one(rearrange(crop_CYX.float(), "C Y X -> (Y X) C"))
    # a little ridge: 16x16 points may be fewer than a model has channels
    width = known_NC.shape[1]
    ridge = 1e-2 * known_NC.square().mean() * len(known_NC)
    gram = known_NC.T @ known_NC + ridge * torch.eye(width, device=known_NC.device)
    table = torch.linalg.solve(gram.cpu(), (known_NC.T @ seen_NC).cpu()).to(known_NC.device)
    flat = _with_one(rearrange(latents_CTYX.float(), "C T Y X -> (T Y X) C")) @ table
    _, _, rows, columns = latents_CTYX.shape
    frames_BCfHW = rearrange(flat, "(T Y X) C -> 1 C T Y X", Y=rows, X=columns)
    return list(to_uint8(frames_BCfHW))


def _with_one(values_NC: Tensor) -> Tensor:
    return torch.cat([values_NC, torch.ones_like(values_NC[:, :1])], dim=1)


def animation(frames: Sequence[np.ndarray], fps: float) -> bytes:
    """An animated WebP of at most `MOST_FRAMES` of the frames, at the clip's own pace."""
    chosen = [frames[i] for i in evenly(len(frames), MOST_FRAMES)]
    pictures = [_small(frame) for frame in chosen]
    milliseconds = max(20, round(1000 * len(frames) / fps / len(chosen)))
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds,
        loop=0,
        quality=70,
        method=0,
    )
    return buffer.getvalue()


def _small(frame_HWC: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame_HWC[:, :, :3])
    scale = MOST_SIDE / max(picture.size)
    if scale >= 4:  # a linear preview has as many pixels as there are latents
        scale = 4
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
