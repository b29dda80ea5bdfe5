"""Where tiles of a clip keep what they remember while another tile is at work.

One tile's memory is at hand. That of the others lies in the host's memory where an accelerator computes, and
on disk, in the folder for temporary files, where the host does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO, Protocol, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.core.errors import ResourceError
from kinema.models.vae_layers import StreamState

Past = dict[nn.Module, Tensor]


class Place(Protocol):
    """Holds the memory of one tile."""

    def put(self, past: Past) -> None:
        """Keep it; the tensors may be overwritten afterwards."""
        ...

    def get(self) -> Past:
        """What was put last."""
        ...


class OnHost:
    """In the host's memory."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._held = device, Past()

    def put(self, past: Past) -> None:
        """See `Place`."""
        self._held = {layer: frames.to("cpu") for layer, frames in past.items()}

    def get(self) -> Past:
        """See `Place`."""
        return {layer: frames.to(self._device) for layer, frames in self._held.items()}


class OnDisk:
    """In a file without a name, which is gone with this object."""

    def __init__(self, stack: ExitStack) -> None:
        opened = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the stack closes it
        self._file: IO[bytes] = stack.enter_context(opened)
        self._held: dict[nn.Module, tuple[torch.Size, torch.dtype]] = {}

    def put(self, past: Past) -> None:
        """See `Place`; `ResourceError` where the disk is full."""
        self._file.seek(0)
        self._held = {}
        for layer, frames in past.items():
            lying = rearrange(frames, "B C F Y X -> B F Y X C").contiguous()  # as it lies: no copy
            self._held[layer] = lying.shape, lying.dtype
            self._write(_bytes(lying))

    def get(self) -> Past:
        """See `Place`."""
        self._file.seek(0)
        return {layer: self._read(*kind) for layer, kind in self._held.items()}

    def _write(self, rest: memoryview) -> None:
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise ResourceError(
                f"tiles keep what they remember in {tempfile.gettempdir()}, where {len(rest) / 1e6:.0f} MB "
                f"do not fit ({error.strerror}); make room there, or set TMPDIR to a folder on another disk."
            ) from None

    def _read(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        frames = torch.empty(shape, dtype=dtype)
        rest = _bytes(frames)
        while rest:
            rest = rest[self._file.readinto(rest) :]  # type: ignore[attr-defined]
        back: Tensor = rearrange(frames, "B F Y X C -> B C F Y X")
        return back


class Waiting:
    """The states of a clip's tiles, of which one is at hand; a context manager.

    Args:
        beginnings: makes the state of each tile before its first frame.
        device: where tiles are computed.
        returns: whether a tile comes again after others; if not, its memory is dropped.
    """

    def __init__(
        self, beginnings: list[Callable[[], StreamState]], device: torch.device, *, returns: bool
    ) -> None:
        self._stack = ExitStack()
        self._beginnings, self._device, self._returns = beginnings, device, returns
        self._states: dict[int, StreamState] = {}
        self._places: dict[int, Place] = {}
        self._here: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._states.clear()

    def take(self, tile: int) -> StreamState:
        """The state of a tile; the one before leaves."""
        if self._here != tile:
            if self._here is not None:
                self._leave(self._here)
            self._here = tile
            self._come(tile)
        return self._states[tile]

    def _leave(self, tile: int) -> None:
        if self._returns:
            if tile not in self._places:
                host = self._device.type == "cpu"
                self._places[tile] = OnDisk(self._stack) if host else OnHost(self._device)
            self._places[tile].put(self._states[tile].past)
        self._states[tile].past.clear()

    def _come(self, tile: int) -> None:
        if tile not in self._states:
            self._states[tile] = self._beginnings[tile]()
        elif tile in self._places:
            self._states[tile].past.update(self._places[tile].get())


def _bytes(lying: Tensor) -> memoryview:
    return lying.flatten().view(torch.uint8).numpy().data
