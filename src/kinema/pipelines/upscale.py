"""The last step of all: a clip's frames made larger, after they are brought to their rate.

file <- upscale <- interpolate <- compose <- the shots

Motion is found and followed among few pixels, and what that softens a network sharpens again; interpolating
large frames would take the square of the scale as long.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import ConfigError, GeometryError, KinemaError, NumericError, ResourceError
from kinema.io.probe import MAX_PIXELS, MAX_SIDE
from kinema.models.upscaler_file import UpscalerFile, read_upscaler
from kinema.story.shot import Shot
from kinema.story.upscale import MAX_SCALE, Resampling, Upscale, write_scale

if TYPE_CHECKING:
    from torch import Tensor, nn

OnFrame = Callable[[int], None]
_ROOM = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Enlargement:
    """How the frames of a clip are made larger.

    Attributes:
        size, new_size: (width, height) before and after.
        method: of plain resampling; with a network, of what brings its result to the new size.
        network: that makes them larger, if any.
        sha256: of its file.
    """

    size: tuple[int, int]
    new_size: tuple[int, int]
    method: Resampling
    network: UpscalerFile | None = None
    sha256: str | None = None

    @property
    def operations(self) -> float:
        """Floating-point operations of the network for one frame; 0 without one."""
        return 0.0 if self.network is None else self.network.operations(*self.size)

    def weights(self) -> dict[str, Any]:
        """What a record says of the network."""
        assert self.network is not None
        return {"file": self.network.path.name, "sha256": self.sha256}

    def words(self) -> str:
        """`4 times as large by lanczos`, for a person."""
        scale = write_scale(Fraction(self.new_size[0], self.size[0]))
        how = self.method if self.network is None else f"{self.network.path.name} ({self.network.kind})"
        return f"{scale} times as large by {how}"


def plan_upscale(shots: Sequence[Shot], size: tuple[int, int]) -> Enlargement | None:
    """What the shots of one file ask for, None where it is nothing.

    Args:
        shots: of the file; all ask for the same.
        size: (width, height) in which they are made.

    Raises:
        ConfigError: shots that ask for different things.
        GeometryError, ModelError: as in `enlargement`.
    """
    asked = {shot.upscale for shot in shots}
    if len(asked) > 1:
        raise ConfigError("one clip has one size: write upscale beside the shots, for all of them.")
    (wanted,) = asked
    try:
        return None if wanted is None else enlargement(wanted, size)
    except GeometryError as error:
        raise GeometryError(f"upscale: {error}") from None


def enlargement(wanted: Upscale, size: tuple[int, int]) -> Enlargement:
    """How frames of one size are made larger; of a network's file only the header is read.

    Raises:
        GeometryError: the new size is not one of whole pixels, odd by a fraction, or too large.
        ModelError: the file is no network that is read here.
    """
    network = None if wanted.model is None else read_upscaler(wanted.model)
    scale = wanted.scale or Fraction(network.scale if network is not None else 1)
    new_size = _sides(size, scale, whole=wanted.method == "nearest")
    if network is None:
        return Enlargement(size=size, new_size=new_size, method=wanted.method)
    with network.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Enlargement(size=size, new_size=new_size, method=wanted.method, network=network, sha256=sha256)


def _sides(size: tuple[int, int], scale: Fraction, *, whole: bool) -> tuple[int, int]:
    """The new size: pixels stay square, and a fraction gives even sides, which most video needs.

    Where it is none, the error names the nearest that are, `whole` ones if need be.
    """
    width, height = (side * scale for side in size)
    shown = f"scale={write_scale(scale)} makes {size[0]}x{size[1]}"
    if scale.denominator != 1 and (width % 2 or height % 2):
        step = _even_step(size)
        near = sorted({max(n * step, Fraction(1)) for n in (scale // step, scale // step + 1)} - {1})
        ways = " or ".join(
            f"{write_scale(n)} ({size[0] * n}x{size[1] * n})" for n in near if _can_be_read(size, n)
        )
        made = f"{float(width):g}x{float(height):g}"
        way = f"write {ways}" if ways else "leave it out"
        raise GeometryError(f"{shown} into {made}, which is not of whole even sides; {way}.")
    if not _can_be_read(size, scale):
        most = _largest(size, (Fraction(1),) if whole else (Fraction(1), _even_step(size)))
        way = "leave it out" if most is None else f"write {write_scale(most)}"
        raise GeometryError(
            f"{shown} into {width}x{height}; a side has at most {MAX_SIDE} pixels, and a picture "
            f"{MAX_PIXELS // 1_000_000} million: {way}."
        )
    return int(width), int(height)


def _even_step(size: tuple[int, int]) -> Fraction:
    """Scales that are multiples of this give whole even sides."""
    return Fraction(2, math.gcd(*size))


def _can_be_read(size: tuple[int, int], scale: Fraction) -> bool:
    """Whether a file of this many times the size can be opened again.

    ffmpeg counts the pixels that its decoders have room for, whose sides are multiples of 64.
    """
    width, height = (int(side * scale) for side in size)
    room = math.prod(-(-side // _ROOM) * _ROOM for side in (width, height))
    return max(width, height) <= MAX_SIDE and room <= MAX_PIXELS


def _largest(size: tuple[int, int], steps: Sequence[Fraction]) -> Fraction | None:
    """The largest scale whose result can be read, of the first step that has one; None for none."""
    for step in steps:
        above = range(int(1 / step) + 1, int(MAX_SCALE / step) + 1)
        found = bisect_left([not _can_be_read(size, n * step) for n in above], True)
        if found:
            return above[found - 1] * step
    return None


def told(on_progress: OnProgress | None, total: int) -> OnFrame:
    """A listener of frames that passes events of this phase on."""
    return lambda done: None if on_progress is None else on_progress(Progress("upscale", done, total))


def upscaled(
    frames: Iterator[np.ndarray], how: Enlargement | None, device: str, on_frame: OnFrame | None = None
) -> Iterator[np.ndarray]:
    """The frames of the file, one at a time.

    Args:
        frames: uint8 `[H, W, 3 or 4]`.
        how: they are made larger; None passes them on.
        device: where a network runs, as the shot asks for it.
        on_frame: told how many are done, where a network takes its time.

    Raises:
        ResourceError: the device has not enough memory.
    """
    if how is None:
        return frames
    return _upscaled(frames, how, device, on_frame if how.network is not None else None)


def _upscaled(
    frames: Iterator[np.ndarray], how: Enlargement, device: str, on_frame: OnFrame | None
) -> Iterator[np.ndarray]:
    from kinema.animation.enlarge import enlarged

    network: Network | None = None
    before = after = np.empty(0)
    for done, frame in enumerate(frames, start=1):
        if not np.array_equal(before, frame):  # a frame that is held is made once
            with _told_of_memory(how):
                if how.network is not None and network is None:
                    network = Network(how.network, device)
                made = frame if network is None else network(frame)
                before, after = frame, enlarged(made, how.new_size, how.method)
        if on_frame is not None:
            on_frame(done)
        yield after


@contextmanager
def _told_of_memory(how: Enlargement) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from kinema.core.runtime import out_of_memory

        if isinstance(error, KinemaError) or not out_of_memory(error):
            raise
        way = "write a smaller scale" if how.network is None else "use device cpu, a smaller network"
        raise ResourceError(
            f"there is not enough memory to make {how.size[0]}x{how.size[1]} {how.words()}; {way}, or close "
            "other programs."
        ) from error


class Network:
    """A network in memory, applied to frames.

    Args:
        file: of it.
        device: as the shot asks for it.
    """

    def __init__(self, file: UpscalerFile, device: str) -> None:
        import torch

        from kinema.core.runtime import resolve_device

        self._file, self._device = file, resolve_device(device)
        # bfloat16 has fewer steps than a byte of colour
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._net = self._loaded()

    def __call__(self, frame_HWC: np.ndarray) -> np.ndarray:
        """A frame, as many times as large as the network makes it; transparency by lanczos.

        Args:
            frame_HWC: uint8 `[H, W, 3 or 4]`.
        """
        from kinema.animation.enlarge import enlarged

        if frame_HWC.shape[2] == 3:
            return self._bytes(_picture(frame_HWC))
        size = (frame_HWC.shape[1] * self._file.scale, frame_HWC.shape[0] * self._file.scale)
        colours = self._bytes(_filled(frame_HWC))
        alpha = enlarged(frame_HWC[..., 3:].repeat(3, axis=2), size)[..., :1]
        return np.concatenate((colours, alpha), axis=2)

    def _bytes(self, x_BCHW: Tensor) -> np.ndarray:
        import torch
        from einops import rearrange

        from kinema.animation.enlarge import BAND

        with torch.inference_mode():
            made_CHW = self._net(x_BCHW.to(self._device, self._dtype))[0]
            array = np.empty((*made_CHW.shape[1:], 3), np.uint8)
            rows = max(1, BAND // made_CHW.shape[2])
            for top in range(0, len(array), rows):
                part = made_CHW[:, top : top + rows].float()
                if not bool(torch.isfinite(part).all()):
                    break
                part = rearrange(part.clamp(0, 1).mul(255).round().byte(), "C H W -> H W C")
                array[top : top + rows] = part.cpu().numpy()
            else:
                return array
        if self._dtype == torch.float32:
            raise NumericError(f"{self._file.path} gave values that are not finite; use another.")
        self._dtype = torch.float32  # some networks leave the range of halves
        self._net = self._loaded()
        return self._bytes(x_BCHW)

    def _loaded(self) -> nn.Module:
        from kinema.models.upscaler import load_upscaler

        return load_upscaler(self._file, self._device, self._dtype)


def _picture(frame_HWC: np.ndarray) -> Tensor:
    """uint8 `[H, W, 3]` as float32 `[1, 3, H, W]` in 0..1."""
    import torch
    from einops import rearrange

    return rearrange(torch.from_numpy(np.array(frame_HWC)), "H W C -> 1 C H W").float() / 255


def _filled(frame_HWC: np.ndarray) -> Tensor:
    """The colours of a frame, those of hidden pixels from around them, so that none bleeds into an edge."""
    import torch

    from kinema.animation.holes import fill

    hidden = torch.from_numpy(frame_HWC[..., 3] == 0)[None, None]
    return fill(_picture(frame_HWC[..., :3]), hidden)
