"""More frames a second: frames at any times of a clip, drawn from two neighbours at a time.

    frame j lies at p = j / ratio;   i = floor(p), t = p - i;   out_j = between(frame_i, frame_i+1, t)

Frames of a clip of variable rate have starts s_i of their own: i is the last with s_i <= p, and
t = (p - s_i) / (s_i+1 - s_i). At t = 0 a frame is the clip's own, byte for byte. Between the two frames of a
cut nothing is mixed: the nearer one is shown. Memory holds two frames, whatever the clip's length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.animation.interpolate_between import agreement, between
from kinema.animation.interpolate_flow import FlowSettings, flow_between, read
from kinema.core.errors import unknown_name

METHODS = ("flow", "blend")
# A cut, as measured on cuts, motion and fades: the share of the change that motion leaves, the mean agreement
# of the flows, and the mean change of a colour in 0..1 that neither motion nor light explains.
LEFT, AGREED, CHANGE = 0.6, 0.35, 0.05


def count(
    frames: int, ratio: Fraction, *, loop: bool = False, starts: Sequence[Fraction] | None = None
) -> int:
    """How many frames `interpolated` makes of `frames`.

    A clip keeps its first and last times, so that nothing is made up after its end; a loop its duration.
    """
    if loop:
        return max(1, -(-frames * ratio.numerator // ratio.denominator))
    return math.floor((starts[-1] if starts else frames - 1) * ratio) + 1


def interpolated(
    frames: Iterable[np.ndarray],
    ratio: Fraction,
    method: str = "flow",
    *,
    loop: bool = False,
    starts: Sequence[Fraction] | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[np.ndarray]:
    """The clip at `ratio` times its rate.

    Args:
        frames: uint8 `[H, W, 3 or 4]`.
        ratio: new frames per second over old ones, above 0.
        method: `flow`, or `blend` (the plain mean of the two frames).
        loop: the last frame goes on into the first.
        starts: of every frame, in frames of the old rate, rising from 0; by default 0, 1, 2, ...
        device: where flow is computed.

    Raises:
        ConfigError: an unknown method.
    """
    if method not in METHODS:
        raise unknown_name("interpolation method", method, METHODS)
    source, step, j = iter(frames), 1 / ratio, 0
    first = next(source, None)
    if first is None:
        return
    last = first
    ends, end = iter(starts[1:]) if starts else itertools.count(1), Fraction(0)
    for i, (one, last) in enumerate(pairwise(chain([first], source, [first] * loop))):
        pair = Pair(one, last, method, device)
        begin, end = end, Fraction(next(ends, i + 1))  # a loop ends where its mean rate has it
        while j * step < end:
            yield pair.at(float((j * step - begin) / (end - begin)))
            j += 1
    if not loop and j * step == end:
        yield last


@dataclass(eq=False)
class Pair:
    """Two neighbouring frames, and the motion between them, found when it is first needed.

    Attributes:
        first, second: uint8 `[H, W, 3 or 4]`.
        method: `flow` or `blend`.
        device: where flow is computed.
    """

    first: np.ndarray
    second: np.ndarray
    method: str = "flow"
    device: str | torch.device = "cpu"

    def at(self, t: float) -> np.ndarray:
        """The frame at `t` in 0..1."""
        if t == 0 or np.array_equal(self.first, self.second):
            return self.first
        if self.cut:
            return self.first if t < 0.5 else self.second
        with torch.inference_mode():
            one, other = self._pictures
            if self.method == "blend":
                return to_bytes((1 - t) * one + t * other)
            return to_bytes(between(one, other, *self._flow, t))

    @cached_property
    def cut(self) -> bool:
        """The second frame does not follow from the first by motion or a change of light."""
        one, other = (picture[:, :3] for picture in self._pictures)
        plain = float((one - other).abs().mean())
        if plain < CHANGE:
            return False
        there, back = self._flow
        moved = read(other, there)
        left = float((one - moved).abs().mean())
        agreed = float(agreement(there, back).mean())
        return left > LEFT * plain and agreed < AGREED and beside_light(one, moved) > CHANGE

    @cached_property
    def _pictures(self) -> tuple[Tensor, Tensor]:
        one, other = (torch.from_numpy(np.array(f)).to(self.device) for f in (self.first, self.second))
        return picture(one), picture(other)

    @cached_property
    def _flow(self) -> tuple[Tensor, Tensor]:
        one, other = self._pictures
        with torch.inference_mode():
            return flow_between(one[:, :3], other[:, :3], FlowSettings())


def beside_light(one: Tensor, other: Tensor) -> float:
    """Mean difference that is left when the light may change: one gain and one offset for all colours."""
    x, y = one.flatten().double(), other.flatten().double()
    gain = ((x - x.mean()) * (y - y.mean())).mean() / (x - x.mean()).square().mean().clamp(min=1e-9)
    return float((y - y.mean() - gain * (x - x.mean())).abs().mean())


def picture(frame_HWC: Tensor) -> Tensor:
    """uint8 as float32 `[1, C, H, W]` in 0..1; colours times alpha where there is one, so that edges mix."""
    x: Tensor = rearrange(frame_HWC, "H W C -> 1 C H W").float() / 255
    return x if x.shape[1] == 3 else torch.cat((x[:, :3] * x[:, 3:], x[:, 3:]), dim=1)


def to_bytes(picture_BCHW: Tensor) -> np.ndarray:
    """The reverse of `picture`."""
    x = picture_BCHW[0].clamp(0, 1)
    if len(x) == 4:
        x = torch.cat(((x[:3] / x[3:].clamp(min=1 / 255)).clamp(0, 1), x[3:]))
    array: np.ndarray = rearrange(x.mul(255).round().byte(), "C H W -> H W C").contiguous().cpu().numpy()
    return array
