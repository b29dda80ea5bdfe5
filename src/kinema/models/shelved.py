"""A video transformer whose matrices are on a shelf: all of them in memory while it works, or block by block.

    prepare      the matrices that read texts and pictures, once per clip
    embed ...    the others, at every step

The numbers are those of the transformer in memory, to the last bit: only where the weights are differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from kinema.models.dit import Block, Conditioning, Context, Tokens, VideoDiT, VideoDiTConfig
from kinema.models.supply import Slots, StreamedBlocks, Supply, load_small
from kinema.models.weights import bare

TEXTS = (
    "attn2.to_k.",
    "attn2.to_v.",
    "attn2.add_k_proj.",
    "attn2.add_v_proj.",
    "text_embedder.",
    "image_embedder.",
)
BLOCKS = "blocks."


def reads_texts(name: str) -> bool:
    """Whether a matrix is used by `prepare` alone."""
    return any(part in name for part in TEXTS)


def steps_on(name: str) -> bool:
    """Whether a matrix is used at every step."""
    return not reads_texts(name)


class Follower(Protocol):
    """What was made of a transformer's matrices and holds them too."""

    def drop(self) -> None:
        """Hold them no longer."""
        ...


class ShelvedDiT(VideoDiT):
    """A `VideoDiT` with its matrices on a shelf.

    Args:
        config: its shape.
        supply: of its tensors.
        origin: where they are from, for errors.
        streamed: block by block, instead of all while it works.
        on_work: called before it takes its matrices, so that others can leave.
    """

    def __init__(
        self,
        config: VideoDiTConfig,
        supply: Supply,
        *,
        origin: object,
        streamed: bool,
        on_work: Callable[[], None] = lambda: None,
    ) -> None:
        with bare():
            super().__init__(config)
        self.size = sum(p.numel() * supply.precision(n).itemsize for n, p in self.named_parameters())
        load_small(self, supply, origin=origin)
        self._on_work, self._supply = on_work, supply
        if streamed:
            self.blocks = StreamedBlocks(self.blocks, supply, prefix=BLOCKS)
        self._slots = Slots(self, supply, coded_inside=BLOCKS)
        self.followers: WeakSet[Follower] = WeakSet()
        self.streamed = streamed
        self._own = [n for n in self._slots.names if not (streamed and n.startswith(BLOCKS))]
        self.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the large matrices, whether they are there or not."""
        return self._supply.given("proj_out.weight")

    def prepare(self, conditioning: Conditioning) -> Context:
        """As `VideoDiT.prepare`, with the matrices that it needs."""
        self._take(reads_texts)
        return super().prepare(conditioning)

    def embed(self, x_BCTYX: Tensor, timestep_BT: Tensor, context: Context) -> tuple[Tensor, Tokens]:
        """As `VideoDiT.embed`; from here on the matrices of the steps are there."""
        self._take(steps_on)
        return super().embed(x_BCTYX, timestep_BT, context)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Matrices come in float32 in place of half precision."""
        self.leave()
        with self._slots.lifted():
            yield

    def take_steps(self) -> None:
        """Have the matrices of the steps, or, streamed, those outside the blocks."""
        self._take(steps_on)

    def blocks_of(self, part: range) -> Iterator[Block]:
        """Some of the blocks, in order; each is filled until the next is asked for."""
        blocks = self.blocks.part(part) if isinstance(self.blocks, StreamedBlocks) else self.each_block()
        for block in blocks:
            assert isinstance(block, Block)
            yield block

    def leave(self) -> None:
        """Give all matrices back, whoever was made of them."""
        self._slots.clear()
        for follower in self.followers:
            follower.drop()

    def _take(self, wanted: Callable[[str], bool]) -> None:
        self._on_work()
        self._slots.hold(name for name in self._own if wanted(name))
        if isinstance(self.blocks, StreamedBlocks):
            self.blocks.wanted = wanted
