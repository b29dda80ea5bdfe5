"""Winograd's convolutions on the CPU: 3 x 3 over space with 36 products for 16 outputs, in compiled code.

    y = A^T [ sum_C (G g G^T) * (B^T d B) ] A        (https://arxiv.org/abs/1509.09308)

A quarter of the multiplications, or a sixth where frames come in pairs and time is treated alike. Float32
only; results agree with the direct convolution within 5e-5 for values of size one. They do not depend on the
number of threads, nor on how a clip is cut into chunks of even length. `winograd.cpp` holds the loops.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.models.native import Native, library

POINTS, TIMES = 36, 4  # of F(4 x 4, 3 x 3), and of F(2, 3) along time
BLOCK = 4  # outputs along rows and columns that are computed together
GROWTH = POINTS * TIMES / 27  # prepared numbers for each of a 3 x 3 x 3 weight, at most
FEWEST = 16  # channels that go in; below, the direct convolution is as fast
ERROR = 1e-4  # what the self-test allows
LAST = torch.channels_last_3d

_allowed: ContextVar[bool] = ContextVar("winograd allowed", default=True)


class Plane(ctypes.Structure):
    """The arguments of `kinema_convolve`, in the order of `Plane` in winograd.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("inputs", "weight", "bias", "residual", "output")),
        *((name, ctypes.c_int64) for name in ("frames", "rows", "columns", "channels", "outputs")),
        *((name, ctypes.c_int64) for name in ("taps", "weight_taps", "paired", "doubled", "threads")),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The weights of one convolution at Winograd's points.

    Attributes:
        values: as winograd.cpp orders them.
        shape: `[K, C, taps]`.
        paired: for outputs in pairs of frames.
        source: `stamp` of the weights they were made of.
    """

    values: Tensor
    shape: tuple[int, int, int]
    paired: bool
    source: tuple[int, int]

    def last(self) -> Packed:
        """Of the last tap in time alone: the last of the four points along time."""
        assert self.paired
        outputs, channels, _ = self.shape
        return Packed(
            self.values[3 * len(self.values) // TIMES :], (outputs, channels, 1), False, self.source
        )


def stamp(weight: Tensor) -> tuple[int, int]:
    """Where weights lie and how often they were changed: others have another stamp."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


class Kernels:
    """The functions of winograd.cpp for tensors: float32, on the CPU, channels last; no gradients."""

    def __init__(self, code: ctypes.CDLL) -> None:
        """Give the functions of the library their types."""
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        code.kinema_packed_size.argtypes = [integer] * 4
        code.kinema_packed_size.restype = integer
        code.kinema_pack.argtypes = [pointer, pointer, *[integer] * 4]
        code.kinema_pack.restype = None
        code.kinema_convolve.argtypes = [pointer]
        code.kinema_convolve.restype = ctypes.c_int
        code.kinema_activate.argtypes = [*[pointer] * 3, integer, integer, ctypes.c_float, integer]
        code.kinema_activate.restype = None
        self.code = code

    def pack(self, weight: Tensor, *, paired: bool) -> Packed:
        """Transform weights `[K, C, taps, 3, 3]` or `[K, C, 3, 3]`; four to five times as many numbers."""
        outputs, channels = weight.shape[:2]
        taps = weight.shape[2] if weight.ndim == 5 else 1
        sizes = (outputs, channels, taps, paired)
        values = torch.empty(self.code.kinema_packed_size(*sizes), dtype=torch.float32)
        plain = weight.detach().contiguous()
        self.code.kinema_pack(plain.data_ptr(), values.data_ptr(), *sizes)
        return Packed(values, (outputs, channels, taps), paired, stamp(weight))

    def convolve(
        self,
        x_BCFYX: Tensor,
        past_BCPYX: Tensor | None,
        packed: Packed,
        bias_K: Tensor | None,
        *,
        plus: Tensor | None = None,
        doubled: bool = False,
    ) -> Tensor:
        """`conv(x) + bias + plus` after the frames of the past, zeros around each frame: `[B, K, F, Y, X]`.

        Args:
            x_BCFYX: new frames, as many come out.
            past_BCPYX: the `taps - 1` frames before them; None for zeros.
            packed: the weights; `paired` needs an even number of frames, or a first one alone.
            bias_K: one number for each channel that comes out.
            plus: as large as the result.
            doubled: of `x` at twice its rows and columns, each position repeated.

        Raises:
            MemoryError: there is no room for a few megabytes of scratch.
        """
        batch, _, frames, rows, columns = x_BCFYX.shape
        if packed.paired and past_BCPYX is None and frames == 1:
            packed = packed.last()
        scale = 2 if doubled else 1
        shape = (batch, packed.shape[0], frames, rows * scale, columns * scale)
        out = torch.empty(shape, dtype=torch.float32, memory_format=LAST)
        x = x_BCFYX.contiguous(memory_format=LAST)
        past = None if past_BCPYX is None else past_BCPYX.contiguous(memory_format=LAST)
        added = None if plus is None else plus.contiguous(memory_format=LAST)
        for clip in range(batch):
            inputs, taps = _frames(x[clip], None if past is None else past[clip], packed.shape[2])
            pointers = (ctypes.c_void_p * len(inputs))(*inputs)
            plane = Plane(
                ctypes.cast(pointers, ctypes.c_void_p),
                packed.values.data_ptr(),
                None if bias_K is None else bias_K.data_ptr(),
                None if added is None else added[clip].data_ptr(),
                out[clip].data_ptr(),
                *(*out.shape[2:], packed.shape[1], packed.shape[0]),
                *(taps, packed.shape[2], packed.paired, doubled, torch.get_num_threads()),
            )
            if self.code.kinema_convolve(ctypes.byref(plane)):
                raise MemoryError("no memory for the scratch of a convolution")
        return out

    def activate(self, x_BCFYX: Tensor, gain_C: Tensor, floor: float, *, over: bool = False) -> Tensor:
        """`silu(gain * x / max(norm(x), floor))`, the norm over channels, in one pass; `over` x if wanted."""
        x, gain = x_BCFYX.contiguous(memory_format=LAST), gain_C.contiguous()
        out, channels = x if over else torch.empty_like(x), x.shape[1]
        self.code.kinema_activate(
            *(x.data_ptr(), out.data_ptr(), gain.data_ptr()),
            *(x.numel() // channels, channels, floor, torch.get_num_threads()),
        )
        return out


def _frames(x_CFYX: Tensor, past_CPYX: Tensor | None, taps: int) -> tuple[list[int | None], int]:
    """Addresses of the input frames (None: zeros), and how many taps in time they need."""
    new: list[int | None] = [frame.data_ptr() for frame in x_CFYX.unbind(1)]
    if past_CPYX is not None:
        return [*(frame.data_ptr() for frame in past_CPYX.unbind(1)), *new], taps
    if len(new) == 1:  # all frames before are zeros: only the last tap counts
        return new, 1
    return [*[None] * (taps - 1), *new], taps


@cache
def native() -> Native:
    """The compiled code, or why there is none."""
    return library(Path(__file__).with_name("winograd.cpp"), _wrong)


@cache
def _kernels() -> Kernels | None:
    loaded = native().loaded
    return None if loaded is None else Kernels(loaded)


@contextmanager
def without() -> Iterator[None]:
    """No compiled code inside: to compare with, and to measure against."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def kernels(x: Tensor) -> Kernels | None:
    """The compiled functions, if there are any for tensors like `x`."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and _allowed.get()
    return _kernels() if fits else None


def kernels_for(x: Tensor, weight: Tensor) -> Kernels | None:
    """The compiled functions, if a stride 1 convolution of `weight` `[K, C, (taps,) 3, 3]` gains by them."""
    large = weight.shape[-2:] == (3, 3) and weight.shape[1] >= FEWEST
    return kernels(x) if large and weight.dtype == torch.float32 else None


def _wrong(code: ctypes.CDLL) -> str | None:
    """What the functions of a fresh library get wrong against torch; None if nothing."""
    found, generator = Kernels(code), torch.Generator().manual_seed(0)
    x, past, plus = (torch.randn(1, 20, 2, 5, 9, generator=generator) for _ in range(3))
    weight, bias = torch.randn(20, 20, 3, 3, 3, generator=generator) / 23, torch.zeros(20)
    direct = F.conv3d(torch.cat((past, x), dim=2), weight, bias, padding=(0, 1, 1)) + plus
    errors = [
        (found.convolve(x, past, found.pack(weight, paired=paired), bias, plus=plus) - direct).abs().max()
        for paired in (False, True)
    ]
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    errors.append((found.activate(x, torch.ones(20), 1e-12) - F.silu(x / norm)).abs().max())
    worst = float(torch.stack(errors).max())
    return None if worst <= ERROR else f"computes with an error of {worst:.1e}"
