"""A clip through a video VAE tile by tile, in the order in which frames are shown.

    for a few latent frames:    whole frames as far as the attention, then each tile's rows and columns

A tile remembers its own earlier frames, as a small clip does. What the tiles of a picture remember together
is as large as what whole pictures leave behind, so that one tile's memory is at hand and the others' waits
elsewhere; where a clip goes through each tile at once, nothing has to wait. Every second time tiles come in
the reverse order: the last one is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kinema.models.vae_layers import CHANNELS_LAST, StreamState
from kinema.models.vae_tiles import Tile
from kinema.models.vae_waiting import Waiting

Half = Callable[[Tensor, StreamState], Tensor]
"""A chunk of frames in, a chunk of frames out; the state moves on."""


@dataclass(frozen=True, slots=True)
class Coder:
    """The two halves of an encoder or a decoder.

    Attributes:
        whole: what sees whole frames.
        local: what sees neighbouring positions.
        tiles: the parts of a picture for `local`.
        beginning: the state before the first frame.
    """

    whole: Half
    local: Half
    tiles: Sequence[Tile]
    beginning: Callable[..., StreamState]

    def waiting(self, device: torch.device, *, returns: bool) -> Waiting:
        """The states of the tiles."""
        return Waiting([partial(self.beginning, tile.cuts) for tile in self.tiles], device, returns=returns)


def decode_tiles(
    coder: Coder, parts: Sequence[Sequence[Tensor]], canvas: Callable[[int], Tensor]
) -> Iterator[Tensor]:
    """The frames of one chunk of latents after the other.

    Args:
        coder: of a decoder.
        parts: the chunks of a clip; those of a part go through one tile after the other.
        canvas: room for the frames of a part, of which it is given the index.
    """
    seen, order = coder.beginning(), list(range(len(coder.tiles)))
    with coder.waiting(parts[0][0].device, returns=len(parts) > 1) as states:
        for index, part in enumerate(parts):
            chunks = (coder.whole(z, seen) for z in part)
            yield from _one_part(coder, tuple(chunks), states, order, canvas(index))
            order.reverse()


def _one_part(
    coder: Coder, chunks: Sequence[Tensor], states: Waiting, order: Sequence[int], canvas: Tensor
) -> Iterator[Tensor]:
    """The frames of each chunk as soon as the last tile has passed it."""
    for index in order:
        tile, state, start = coder.tiles[index], states.take(index), 0
        for chunk in chunks:
            frames = coder.local(cut(chunk, tile), state)
            stop = start + frames.shape[2]
            canvas[:, :, start:stop, *tile.target] = frames
            if index == order[-1]:
                yield canvas[:, :, start:stop]
            start = stop


def encode_tiles(coder: Coder, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
    """What comes of one chunk of frames after the other.

    Each tile takes the whole clip. What lies between the halves is held for all of it: in Wan's layouts less
    than the clip's own pixels.
    """
    last = coder.tiles[-1].target
    between: list[Tensor] = []
    with coder.waiting(chunks[0].device, returns=False) as states:
        for index, tile in enumerate(coder.tiles):
            for place, chunk in enumerate(chunks):
                part = coder.local(cut(chunk, tile), states.take(index))
                if not index:
                    shape = (*part.shape[:3], *(side.stop for side in last))
                    between.append(part.new_empty(shape).contiguous(memory_format=CHANNELS_LAST))
                between[place][..., *tile.target] = part
    seen = coder.beginning()
    while between:
        yield coder.whole(between.pop(0), seen)


def cut(x_BCFYX: Tensor, tile: Tile) -> Tensor:
    """A tile's own rows and columns."""
    return x_BCFYX[..., *tile.source].contiguous(memory_format=CHANNELS_LAST)
