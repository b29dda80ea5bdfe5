"""Forwards of a transformer under several texts, in stages that a step cache can leave out.

tokens = embed()                     of every text
tokens = blocks(tokens, 0, 1)        the first block
tokens = blocks(tokens, 1, None)     the rest, of some texts
v      = finish(k, tokens[k])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from kinema.models.attention import kernels
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.models.inference import (
    TOGETHER_TOKENS,
    InferenceDiT,
    InferenceExperts,
    OneByOne,
    Several,
    alike,
)
from kinema.models.shelved_inference import ShelvedInference


class Staged(Protocol):
    """See `diffusion.cache.Stages`."""

    @property
    def transformer(self) -> int:
        """0, or 1 for the second of two that share the noise levels."""
        ...

    def embed(self) -> list[Tensor]:
        """For each text its tokens `[B, N, D]`."""
        ...

    def blocks(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        """The tokens of some texts after these blocks."""
        ...

    def finish(self, number: int, x_BND: Tensor) -> Tensor:
        """The velocity."""
        ...


def staged(several: Several, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[Any]) -> Staged | None:
    """The forwards in stages; None for a network that has none."""
    number, contexts = 0, tuple(contexts)
    if isinstance(several, InferenceExperts):
        high = float(timestep_BT.max()) >= 1000 * several.boundary
        number, several = (0, several.high) if high else (1, several.low)
        contexts = tuple(context.high if high else context.low for context in contexts)
    elif isinstance(several, OneByOne) and isinstance(several.dit, Experts):
        experts = several.dit
        works = experts.at(timestep_BT)
        number, several = int(works is experts.low), OneByOne(works)
        contexts = tuple(context.low if number else context.high for context in contexts)
    if isinstance(several, ShelvedInference):
        several = several.ready()
    if isinstance(several, InferenceDiT):
        return FastStages(several, x_BCTYX, timestep_BT, contexts, number)
    if isinstance(several, OneByOne) and isinstance(several.dit, VideoDiT):
        return PlainStages(several.dit, x_BCTYX, timestep_BT, contexts, number)
    return None


class PlainStages:
    """A transformer as it is, one text after the other."""

    def __init__(
        self, dit: VideoDiT, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: tuple[Any, ...], number: int
    ) -> None:
        self.dit, self.contexts, self.transformer = dit, contexts, number
        embedded = [dit.embed(x_BCTYX, timestep_BT, context) for context in contexts]
        self._x, self._tokens = [x for x, _ in embedded], [tokens for _, tokens in embedded]

    def embed(self) -> list[Tensor]:
        """For each text its tokens."""
        return self._x

    def blocks(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        """The tokens of some texts after these blocks."""
        return {
            k: self.dit.trunk(x_BND, self._tokens[k], self.contexts[k], first, last) for k, x_BND in x.items()
        }

    def finish(self, number: int, x_BND: Tensor) -> Tensor:
        """The velocity."""
        return self.dit.unembed(x_BND, self._tokens[number])


class FastStages:
    """A transformer made ready for inference; few tokens of several texts are one batch."""

    def __init__(
        self, fast: InferenceDiT, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: tuple[Any, ...], number: int
    ) -> None:
        self.fast, self.contexts, self.transformer = fast, contexts, number
        with torch.no_grad():
            self._x_BND, self._tokens = fast.embed(x_BCTYX, timestep_BT, contexts)

    def embed(self) -> list[Tensor]:
        """For each text its tokens; they are the same."""
        return [self._x_BND] * len(self.contexts)

    @torch.no_grad()
    def blocks(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        """The tokens of some texts after these blocks."""
        with kernels(self.fast.device, self.fast.dtype):
            return self._blocks(x, first, last)

    def _blocks(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        count, rows = len(self.contexts), self._x_BND.shape[0] * self._x_BND.shape[1]
        if len(x) == count > 1 and count * rows <= TOGETHER_TOKENS and alike(self.contexts):
            # before the first block all texts have the same tokens, which the trunk repeats where they part
            given = x[0].clone() if first == 0 else torch.cat([x[k] for k in range(count)])
            out = self.fast.trunk(given, self._tokens, self.contexts, start=first, stop=last)
            return dict(enumerate(out.chunk(count)))
        return self._apart(x, first, last)

    def _apart(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        """Text beside text in every block: blocks that are streamed come once for all of them."""
        parts = {k: x_BND.clone() for k, x_BND in x.items()}
        own = {k: self._tokens.entries(k, len(self.contexts)) for k in parts}
        for index, block in enumerate(self.fast.blocks[first:last] if parts else (), first):
            for k, tokens in own.items():
                if index in self.contexts[k].skipped:
                    continue
                rows, context = tokens.rows.modulation_BTMD, self.contexts[k].of_block(index)
                mixed = self.fast.mix(block, parts[k], rows, tokens.place)
                parts[k] = self.fast.finish(block, mixed, rows, tokens.place, (context,))
        return parts

    @torch.no_grad()
    def finish(self, number: int, x_BND: Tensor) -> Tensor:
        """The velocity."""
        return self.fast.unembed(x_BND, self._tokens.entries(number, len(self.contexts)))
