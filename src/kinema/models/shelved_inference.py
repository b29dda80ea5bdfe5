"""A shelved transformer made ready for a run, with the very numbers of one in memory.

In memory for its turn, it is `InferenceDiT`, made when its turn comes and dropped when it leaves. Streamed,
each block is made ready as it arrives; where texts are not one batch, every block does its work for all of
them before it leaves, so that a step reads the file once, not once for each side of the guidance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from kinema.models.dit import Context
from kinema.models.experts import Experts
from kinema.models.fast_block import FastBlock
from kinema.models.inference import (
    COPIED_BYTES,
    InferenceDiT,
    InferenceExperts,
    OneByOne,
    Several,
    Tokens,
    for_inference,
    rows_of,
    unhooked,
)
from kinema.models.rotary import Turn
from kinema.models.shelved import ShelvedDiT


def made_ready(
    dit: nn.Module,
    *,
    timesteps: Iterable[float] = (),
    shape_TYX: Sequence[int] = (5, 16, 16),
    compiled: bool = False,
) -> Several:
    """As `inference.for_inference`, wherever the transformer's weights are."""
    timesteps = tuple(timesteps)
    if isinstance(dit, Experts):
        high, low = (
            made_ready(part, timesteps=timesteps, shape_TYX=shape_TYX, compiled=compiled)
            for part in (dit.high, dit.low)
        )
        return InferenceExperts(high, low, dit.boundary)
    if not isinstance(dit, ShelvedDiT):
        return for_inference(dit, timesteps=timesteps, shape_TYX=shape_TYX, compiled=compiled)
    if not unhooked(dit):
        return OneByOne(dit)
    rows = rows_of(dit.config, shape_TYX)
    options = {"timesteps": timesteps, "rows": rows, "compiled": compiled}
    return ShelvedInference(dit, {**options, "copies": dit.size <= COPIED_BYTES})


class ShelvedInference:
    """A shelved transformer, made ready when it is asked and its turn comes.

    Args:
        dit: what is asked.
        options: of `InferenceDiT`.
    """

    def __init__(self, dit: ShelvedDiT, options: dict[str, Any]) -> None:
        self._dit, self._options = dit, options
        self._fast: InferenceDiT | None = None
        dit.followers.add(self)

    def several(self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[Any]) -> tuple[Tensor, ...]:
        """One velocity for each context."""
        return self.ready().several(x_BCTYX, timestep_BT, contexts)

    def ready(self) -> InferenceDiT:
        """The transformer with its matrices, or with those that are not streamed."""
        self._dit.take_steps()
        if self._fast is None:
            kind = StreamedInference if self._dit.streamed else InferenceDiT
            with torch.inference_mode(False), torch.no_grad():
                self._fast = kind(self._dit, **self._options)
        return self._fast

    def drop(self) -> None:
        """Hold no weights any more."""
        self._fast = None


class FastBlocks(Sequence[FastBlock]):
    """The blocks of a streamed transformer, each made ready when the iteration comes to it."""

    def __init__(self, dit: ShelvedDiT, turn: Turn, *, copies: bool, rows: int, part: range) -> None:
        self._dit, self._turn, self._copies, self._rows, self._part = dit, turn, copies, rows, part

    def __len__(self) -> int:
        return len(self._part)

    def __iter__(self) -> Iterator[FastBlock]:
        """One block in memory at a time; the part's blocks alone are read."""
        for block in self._dit.blocks_of(self._part):
            with torch.inference_mode(False), torch.no_grad():
                made = FastBlock.of(block, self._turn, copies=self._copies, rows=self._rows)
            yield made
            del made

    @overload
    def __getitem__(self, index: int) -> FastBlock: ...

    @overload
    def __getitem__(self, index: slice) -> FastBlocks: ...

    def __getitem__(self, index: int | slice) -> FastBlock | FastBlocks:
        if isinstance(index, int):
            return next(iter(self[index : index + 1]))
        part = self._part[index]
        return FastBlocks(self._dit, self._turn, copies=self._copies, rows=self._rows, part=part)


class StreamedInference(InferenceDiT):
    """`InferenceDiT` with its blocks streamed."""

    dit: ShelvedDiT

    def made_blocks(self, *, copies: bool, rows: int) -> Sequence[FastBlock]:
        """None of them yet."""
        part = range(self.config.num_layers)
        return FastBlocks(self.dit, self.turn, copies=copies, rows=rows, part=part)

    def apart(self, x_BND: Tensor, tokens: Tokens, contexts: tuple[Context, ...]) -> tuple[Tensor, ...]:
        """Text beside text in every block; the sums are those of one text after the other."""
        own = [tokens.entries(i, len(contexts)) for i in range(len(contexts))]
        shared = not self.rows.pooled and not any(0 in context.skipped for context in contexts)
        parts: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index == 0 and shared:
                rows = tokens.rows.modulation_BTMD[: x_BND.shape[0]]
                x_BND = self.mix(block, x_BND, rows, tokens.place)
            parts = parts or [x_BND.clone() for _ in contexts]
            for i, context in enumerate(contexts):
                if index in context.skipped:
                    continue
                rows, place = own[i].rows.modulation_BTMD, own[i].place
                if index or not shared:
                    parts[i] = self.mix(block, parts[i], rows, place)
                parts[i] = self.finish(block, parts[i], rows, place, (context.of_block(index),))
        return tuple(self.unembed(part, mine) for part, mine in zip(parts, own, strict=True))
