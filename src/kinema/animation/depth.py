"""How far away each pixel of a frame is: flat, given, or estimated by a network.

    disparity v in 0..1:  1/d = 1/far + v (1/near - 1/far)
    distance v in 0..1:   d = near + v (far - near)

Distances are in units of the flat picture's: 1 is as far as the whole picture would be without depth. A
source keeps one scale for a whole shot: a network's relative disparities are placed by the spread of the
first frame, which later frames only nudge, and metric distances by the first frame's median. Depth that is
scaled anew for every frame makes a camera stumble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.animation.holes import fill
from kinema.animation.splat import distances_after
from kinema.animation.steps import SpaceStep
from kinema.core.errors import ModelError

Means = Literal["disparity", "distance"]
Network = Callable[[Tensor], Tensor]
NEAREST, FARTHEST = 1e-3, 1e4
_SPREAD = (0.02, 0.98)  # quantiles that relative disparities are placed by
_NUDGE = 0.05  # of the way to a new frame's spread
_HALF = (0.5, 0.5, 0.5)  # mean and deviation that transformers' depth processors take unless told
_GLPN_STEP = 32
_BILINEAR = 2  # of the filters by Pillow's numbers


class DepthSource(Protocol):
    """Gives distances of frames, in order.

    Attributes:
        means: what it measures.
        still: it knows the first frame only; carry its distances along with `carry_depth`.
        state: what it remembers between frames, plain numbers; put back to go on from there.
    """

    means: Means
    still: bool
    state: tuple[float, ...]

    def __call__(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """Distances `[1, 1, H, W]` of frame `index`, which shows `frame_BCHW` (sRGB in 0..1)."""

    def measured(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """The same as the source has it: disparities or distances up to a straight line, nothing clipped."""


@dataclass
class FlatDepth:
    """Everything at distance 1."""

    means: Means = "distance"
    still: bool = False
    state: tuple[float, ...] = ()

    def __call__(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """Ones."""
        return torch.ones_like(frame_BCHW[:1, :1])

    measured = __call__


@dataclass
class GivenDepth:
    """Values that were given, 0..1.

    Attributes:
        values: frame index to values `[h, w]` or `[1, 1, h, w]`, of any size.
        near, far: distances that 0 and 1 stand for.
        means: what larger values mean.
        still: there is one frame only.
        state: nothing to remember.
    """

    values: Callable[[int], Tensor]
    near: float
    far: float
    means: Means = "disparity"
    still: bool = False
    state: tuple[float, ...] = ()

    def __call__(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """The given values as distances at the frame's size."""
        values = self.values(index).to(frame_BCHW)
        values = values.reshape(1, 1, *values.shape[-2:])
        return _resized(distances(values, self.means, self.near, self.far), frame_BCHW)

    def measured(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """1/d where values are disparities."""
        return as_measured(self(frame_BCHW, index), self.means)


@dataclass
class EstimatedDepth:
    """Distances from a network that looks at each frame.

    Attributes:
        network: prepared pixels `[1, 3, h, w]` to depth `[1, h', w']`.
        preparation: how a frame becomes the network's input.
        means: `disparity` up to scale and shift, or `distance` up to scale.
        near, far: where relative disparities are placed.
        still: never.
        state: the spread of disparities and the last frame that moved it, or the unit of distances; empty
            before the first frame.
    """

    network: Network
    preparation: Preparation
    means: Means
    near: float
    far: float
    still: bool = False
    state: tuple[float, ...] = ()

    @torch.no_grad()
    def __call__(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """The network's view of the frame, on the shot's scale.

        Raises:
            ModelError: the network gave values that are no numbers.
        """
        found = self._seen(frame_BCHW, index)
        placed = self._relative(found, index) if self.means == "disparity" else self._metric(found)
        return _resized(placed, frame_BCHW).to(frame_BCHW)

    @torch.no_grad()
    def measured(self, frame_BCHW: Tensor, index: int) -> Tensor:
        """What the network says; disparities of this frame alone, on no scale of the shot's.

        Raises:
            ModelError: as above.
        """
        if self.means == "distance":
            return self(frame_BCHW, index)
        found, size = self._seen(frame_BCHW, index), frame_BCHW.shape[-2:]
        return F.interpolate(found, size, mode="bilinear", align_corners=False, antialias=True).to(frame_BCHW)

    def _seen(self, frame_BCHW: Tensor, index: int) -> Tensor:
        found = self.network(self.preparation(frame_BCHW[:1])).float()[:, None]
        found = self.preparation.unpadded(found, *frame_BCHW.shape[-2:])
        if not bool(torch.isfinite(found).all()):
            raise ModelError(f"the depth model gave values that are not finite at frame {index}.")
        return found

    def _relative(self, found: Tensor, index: int) -> Tensor:
        """Placed by the spread, which every frame moves once, however often it is looked at."""
        low, high = (float(q) for q in found.flatten().quantile(found.new_tensor(_SPREAD)))
        if self.state:
            last = int(self.state[2]) if len(self.state) > 2 else -1  # renders begun earlier kept no frame
            rate = _NUDGE if index > last else 0.0
            low, high = (a + rate * (b - a) for a, b in zip(self.state[:2], (low, high), strict=True))
            index = max(index, last)
        self.state = (low, high, float(index))
        if high - low < 1e-12:  # a wall: all at the flat picture's distance
            return torch.ones_like(found)
        return distances((found - low) / (high - low), "disparity", self.near, self.far)

    def _metric(self, found: Tensor) -> Tensor:
        if not self.state:
            self.state = (max(float(found.median()), 1e-6),)
        return (found / self.state[0]).clamp(NEAREST, FARTHEST)


def distances(values: Tensor, means: Means, near: float, far: float) -> Tensor:
    """Values as distances between `near` and `far`; outside 0..1 they are clipped."""
    share = values.clamp(0, 1)
    if means == "disparity":
        return 1 / (1 / far + share * (1 / near - 1 / far))
    return near + share * (far - near)


def as_measured(depth_B1HW: Tensor, means: Means) -> Tensor:
    """Distances as what they came from, up to a straight line."""
    return 1 / depth_B1HW if means == "disparity" else depth_B1HW


def _resized(depth_B1HW: Tensor, like_BCHW: Tensor) -> Tensor:
    """Read between pixels by 1/d, in which planes are straight."""
    if depth_B1HW.shape[-2:] == like_BCHW.shape[-2:]:
        return depth_B1HW
    size = like_BCHW.shape[-2:]
    return 1 / F.interpolate(1 / depth_B1HW, size, mode="bilinear", align_corners=False, antialias=True)


def carry_depth(depth_B1HW: Tensor, step: SpaceStep) -> Tensor:
    """The distances that the camera sees after a step, of the surfaces that it saw before.

    What comes into view takes the distance of what is around it, from behind.
    """
    z_B1HW, holes_B1HW = distances_after(step, depth_B1HW)
    return fill(z_B1HW, holes_B1HW, z_B1HW).clamp(NEAREST, FARTHEST).to(depth_B1HW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a frame becomes a depth network's input; names are those of `preprocessor_config.json`.

    Attributes:
        size: height and width to aim at; None for the frame's own, rounded down to whole multiples.
        keep_aspect_ratio: scale by the side that changes less.
        ensure_multiple_of: sides are whole multiples of this.
        image_mean, image_std: of each channel.
        resample: `bicubic` or `bilinear`.
        align_corners: from corner to corner and without a filter, as ZoeDepth is shown its pictures.
        do_pad: mirror the frame beyond its edges first, where ZoeDepth is wrong about distances; what it says
            of them is cut off again.
    """

    size: tuple[int, int] | None = (384, 384)
    keep_aspect_ratio: bool = False
    ensure_multiple_of: float = 1
    image_mean: tuple[float, ...] = _HALF
    image_std: tuple[float, ...] = _HALF
    resample: str = "bicubic"
    align_corners: bool = False
    do_pad: bool = False

    @staticmethod
    def from_dict(config: Mapping[str, Any]) -> Preparation:
        """Read a `preprocessor_config.json`; missing entries are those of the processor that it names, of
        GLPN, ZoeDepth and DPT, or else DPT's."""
        name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
        glpn = name.startswith("GLPN")  # has no size to aim at, and normalises only when told to
        zoe = name.startswith("ZoeDepth")
        size = config.get("size") or {}
        wide = 512 if zoe else 384
        sides = (size, size) if isinstance(size, int) else (size.get("height", 384), size.get("width", wide))
        step = config.get("size_divisor") or _GLPN_STEP if glpn else config.get("ensure_multiple_of") or 1
        bilinear = config.get("resample", _BILINEAR if glpn or zoe else None) == _BILINEAR
        normal = config.get("do_normalize")
        plain = not normal if glpn else normal is False
        return Preparation(
            size=None if glpn else sides,
            keep_aspect_ratio=bool(config.get("keep_aspect_ratio", zoe)),
            ensure_multiple_of=float(step),
            image_mean=(0.0,) * 3 if plain else tuple(config.get("image_mean") or _HALF),
            image_std=(1.0,) * 3 if plain else tuple(config.get("image_std") or _HALF),
            resample="bilinear" if bilinear else "bicubic",
            align_corners=zoe,
            do_pad=zoe and bool(config.get("do_pad", True)),
        )

    def __call__(self, frame_BCHW: Tensor) -> Tensor:
        """sRGB in 0..1 as the network's pixels."""
        if self.do_pad:
            high, wide = _beyond(*frame_BCHW.shape[-2:])
            frame_BCHW = F.pad(frame_BCHW, (wide, wide, high, high), mode="reflect")
        corners, size = self.align_corners, self.sides(*frame_BCHW.shape[-2:])
        pixels = F.interpolate(
            frame_BCHW.float(), size, mode=self.resample, align_corners=corners, antialias=not corners
        ).clamp(0, 1)
        mean, std = (pixels.new_tensor(v)[None, :, None, None] for v in (self.image_mean, self.image_std))
        return (pixels - mean) / std

    def unpadded(self, depth_B1HW: Tensor, height: int, width: int) -> Tensor:
        """Depth of the frame alone, `[B, 1, height, width]`, where it was padded; else as it is."""
        if not self.do_pad:
            return depth_B1HW
        high, wide = _beyond(height, width)
        whole = (height + 2 * high, width + 2 * wide)
        depth_B1HW = F.interpolate(depth_B1HW, whole, mode="bicubic", align_corners=False)
        return depth_B1HW[..., high : high + height, wide : wide + width]

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the network sees."""
        if self.size is None:
            step = int(self.ensure_multiple_of)
            return max(step, height // step * step), max(step, width // step * step)
        scale_h, scale_w = self.size[0] / height, self.size[1] / width
        if self.keep_aspect_ratio:
            scale_h = scale_w = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
        return self._whole(height * scale_h), self._whole(width * scale_w)

    def _whole(self, side: float) -> int:
        step = self.ensure_multiple_of  # 1/32 where a ZoeDepth processor was written with its defaults
        return int(max(step, round(side / step) * step, 1))


def _beyond(height: int, width: int) -> tuple[int, int]:
    """Rows and columns that ZoeDepth's frames are mirrored beyond each edge."""
    high, wide = (min(int(3 * (side / 2) ** 0.5), side - 1) for side in (height, width))
    return high, wide
