"""Parts of a model that are in memory one at a time.

    encoder -> transformer -> VAE        each comes when it is asked, and those before it leave

Whoever asks a part for something does not know: the part takes its turn, and the others give up their memory.
A decode that is under way keeps its weights until it is done, whoever comes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinema.core.contracts import Stride
from kinema.core.errors import ResourceError
from kinema.models.text import Prompt, TextStates
from kinema.models.vae import CausalVideoVAE, Tiles
from kinema.models.vision import CheckpointImageEncoder
from kinema.pipelines.model import TextEncoder, VideoVAE
from kinema.pipelines.residency.machine import free_on

T = TypeVar("T")
SHARE = 0.75  # of the free memory, for a decode; the C library keeps holes between tensors
SMALLEST = Tiles(rows=4, columns=4, frames=1)


class Turns:
    """Who is in memory.

    Args:
        together: parts that may be there at the same time, for loops that go back and forth between them.
    """

    def __init__(self, together: frozenset[str] = frozenset()) -> None:
        self.together = together
        self._leave: dict[str, Callable[[], None]] = {}
        self._here: set[str] = set()

    def join(self, name: str, leave: Callable[[], None]) -> Callable[[], None]:
        """Take part; what comes back is to be called before the part takes memory."""
        self._leave[name] = leave

        def take() -> None:
            apart = self._here - {name} - (self.together if name in self.together else frozenset())
            for other in sorted(apart):
                self._leave[other]()
            self._here = (self._here - apart) | {name}

        return take

    def clear(self) -> None:
        """Everyone leaves."""
        for name in sorted(self._here):
            self._leave[name]()
        self._here.clear()


class Part(Generic[T]):
    """A part that is loaded when it is asked for, and dropped when another's turn comes."""

    def __init__(self, name: str, turns: Turns, load: Callable[[], T]) -> None:
        self._load = load
        self._loaded: list[T] = []
        self._take = turns.join(name, self._loaded.clear)

    def get(self) -> T:
        """The part, in memory."""
        self._take()
        if not self._loaded:
            self._loaded.append(self._load())
        return self._loaded[0]


class VAEInTurn:
    """A VAE that is there when it is asked; see `VideoVAE`."""

    def __init__(self, stride: Stride, turns: Turns, load: Callable[[], VideoVAE]) -> None:
        self._stride, self._part = stride, Part("vae", turns, load)

    @property
    def stride(self) -> Stride:
        """Pixels and pixel frames per latent."""
        return self._stride

    @property
    def memory(self) -> int:
        """How many earlier latent frames a decoded frame depends on, at most."""
        return self._part.get().memory

    def encode(self, frames_BCFHW: Tensor) -> Tensor:
        """`[B, 3, F, H, W] -> [B, C, T, Y, X]`."""
        return self._part.get().encode(frames_BCFHW)

    def encode_parts(self, parts: Iterable[Tensor]) -> Tensor:
        """The same of a clip's first frame, then `stride.time` frames each."""
        return self._part.get().encode_parts(parts)

    def stream(self, latents_BCTYX: Tensor) -> Iterator[Tensor]:
        """Frames of one latent frame after the other; in tiles where a whole picture does not fit."""
        vae = self._part.get()
        if isinstance(vae, CausalVideoVAE):
            return vae.stream(latents_BCTYX, tiles=fitting(vae, latents_BCTYX))
        return vae.stream(latents_BCTYX)

    def to(self, device: torch.device | str) -> Self:
        """It comes to where it was loaded for."""
        return self


def fitting(vae: CausalVideoVAE, latents_BCTYX: Tensor) -> Tiles | None:
    """The tiles that the free memory asks for; None for whole pictures.

    Where not even the smallest are said to fit, these are tried: the latents have cost hours.
    """
    room = int(SHARE * free_on(latents_BCTYX.device)) - vae.unprepared
    try:
        return vae.tiles(latents_BCTYX.shape, room)
    except ResourceError:
        return SMALLEST


class TextInTurn:
    """A text encoder that is there when it is asked; see `TextEncoder`."""

    def __init__(self, turns: Turns, load: Callable[[], TextEncoder]) -> None:
        self._part = Part("text", turns, load)

    @property
    def model(self) -> Any:
        """The network inside, in memory."""
        return getattr(self._part.get(), "model", None)

    def encode(self, prompts: Sequence[Prompt], max_length: int | None = None) -> TextStates:
        """States of each prompt, cut to `max_length` tokens."""
        given = {} if max_length is None else {"max_length": max_length}
        return self._part.get().encode(prompts, **given)

    def to(self, device: torch.device | str) -> Self:
        """It comes to where it was loaded for."""
        return self


class ImageInTurn(CheckpointImageEncoder):
    """An image encoder that is there when it is asked."""

    def __init__(self, turns: Turns, load: Callable[[], CheckpointImageEncoder]) -> None:
        self._part = Part("image", turns, load)

    def encode(self, images_HWC: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Image tokens `[B, N, D]`."""
        return self._part.get().encode(images_HWC)

    def to(self, device: torch.device | str) -> Self:
        """It comes to where it was loaded for."""
        return self
