"""The transformer as inference runs it: the same numbers as `VideoDiT` to rounding, sooner.

    fast = for_inference(dit, timesteps=...)
    context = fast.prepare(conditioning)
    v_cond, v_uncond = fast.several(x, timestep, (context, negative))

Made from a transformer for one run and thrown away with it: nothing is left in the transformer, and what
changes its weights afterwards (a LoRA merged or taken off) does not reach what was made before. Layers that
are more than their weights, such as those under a LoRA laid over, are called as they are.

Several texts are asked at once: what does not depend on the text (embedding, time, the first block's
self-attention) is computed once, and with few tokens they share every product.

Letters beside the package's: H heads, E width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.models.attention import kernels
from kinema.models.condense import condense
from kinema.models.dit import Conditioning, Context, VideoDiT, VideoDiTConfig
from kinema.models.experts import ExpertContext, Experts
from kinema.models.fast_block import FastBlock, Place
from kinema.models.layers import foretold, place_waves
from kinema.models.linears import linear, untouched
from kinema.models.rotary import Turn, turn_for
from kinema.models.rows import RowMaker, Rows

COPIED_BYTES = 256 * 2**20
"""Weights up to this size are held a second time, in the layout that is fastest; larger ones are shared."""

Half = Callable[..., Tensor]
"""One of `FastBlock`'s, perhaps compiled."""

TOGETHER_TOKENS = 2048
"""Tokens of all texts up to which they are one batch; beyond, products are full and memory counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What `embed` hands on beside the tokens.

    Attributes:
        grid_TYX: tokens along time, rows and columns.
        rows: of time.
        place: what self-attention knows of places.
        foretold_BCTYX: what the latents alone tell of the velocity, for models with `noise_skip`.
    """

    grid_TYX: tuple[int, int, int]
    rows: Rows
    place: Place
    foretold_BCTYX: Tensor | None = None

    def entries(self, index: int, count: int) -> Tokens:
        """For one of `count` equal parts of the batch."""
        return replace(self, rows=self.rows.entries(index, count))


class InferenceDiT:
    """A `VideoDiT` made ready; see the module. Use `for_inference`.

    Args:
        dit: whose weights are read, now.
        timesteps: that will be asked for, where known.
        copies: hold fused and reordered copies of the weights.
        rows: about how many tokens a call has.
        compiled: compile the repeated block (seconds to a minute, once per shape; pays on GPUs).
    """

    def __init__(
        self,
        dit: VideoDiT,
        *,
        timesteps: Iterable[float] = (),
        copies: bool = True,
        rows: int = 512,
        compiled: bool = False,
    ) -> None:
        self.dit, self.config = dit, dit.config
        self.device, self.dtype = dit.proj_out.weight.device, dit.dtype
        # Residuals add up in float32 where that costs nothing but memory traffic.
        self.stream_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        self.rows = RowMaker(dit)
        self.rows.foresee(timesteps)
        self.turn: Turn = turn_for(self.device, complex_numbers=self.device.type == "cpu" and not compiled)
        self.blocks = self.made_blocks(copies=copies, rows=rows)
        self.proj_out = linear(dit.proj_out, rows=rows, copies=copies)
        self.compiled = compiled
        self.mix: Half = _compiled()[0] if compiled else FastBlock.mix
        self.finish: Half = _compiled()[1] if compiled else FastBlock.finish

    def made_blocks(self, *, copies: bool, rows: int) -> Sequence[FastBlock]:
        """The blocks, made ready."""
        return [FastBlock.of(block, self.turn, copies=copies, rows=rows) for block in self.dit.each_block()]

    def prepare(self, conditioning: Conditioning) -> Context:
        """What depends on the prompts alone, as `VideoDiT.prepare`; equal padding rows are merged."""
        return self.dit.prepare(condense(conditioning))

    def __call__(self, x_BCTYX: Tensor, timestep_BT: Tensor, context: Context) -> Tensor:
        """The velocity at `x`, as `VideoDiT.forward`."""
        return self.several(x_BCTYX, timestep_BT, (context,))[0]

    @torch.no_grad()
    def several(
        self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[Context]
    ) -> tuple[Tensor, ...]:
        """The velocities at `x` under several texts.

        Args:
            x_BCTYX, timestep_BT: as for `VideoDiT.forward`.
            contexts: from `prepare`, one or more.

        Returns:
            One `[B, out_channels, T, Y, X]` for each context.
        """
        contexts, count = tuple(contexts), len(contexts)
        if self.compiled:
            _any_length(contexts)
        with kernels(self.device, self.dtype):
            x_BND, tokens = self.embed(x_BCTYX, timestep_BT, contexts)
            few = count * x_BND.shape[0] * x_BND.shape[1] <= TOGETHER_TOKENS
            if count == 1 or (few and alike(contexts)):
                out = self.unembed(self.trunk(x_BND, tokens, contexts), tokens)
                return out.chunk(count)
            return self.apart(x_BND, tokens, contexts)

    def apart(self, x_BND: Tensor, tokens: Tokens, contexts: tuple[Context, ...]) -> tuple[Tensor, ...]:
        """Text after text, from the point where they part."""
        shared = not self.rows.pooled and not any(0 in context.skipped for context in contexts)
        if shared:
            rows = tokens.rows.modulation_BTMD[: x_BND.shape[0]]
            x_BND = self.mix(self.blocks[0], x_BND, rows, tokens.place)
        parts = []
        for index, context in enumerate(contexts):
            own = tokens.entries(index, len(contexts))
            out = self.trunk(x_BND.clone(), own, (context,), mixed=shared)
            parts.append(self.unembed(out, own))
        return tuple(parts)

    def embed(
        self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: tuple[Context, ...]
    ) -> tuple[Tensor, Tokens]:
        """Latents to tokens `[B, N, D]`, the same for all contexts, and what blocks need beside them."""
        t, y, x = self.config.patch_size
        layer = self.dit.patch_embedding
        given = x_BCTYX.to(self.dtype)
        T, Y, X = given.shape[2] // t, given.shape[3] // y, given.shape[4] // x
        if untouched(layer):
            pattern = "B C (T t) (Y y) (X x) -> B (T Y X) (C t y x)"
            patches = rearrange(given, pattern, t=t, y=y, x=x).contiguous()
            x_BND = torch.nn.functional.linear(patches, layer.weight.flatten(1), layer.bias)
        else:
            x_BND = rearrange(layer(given), "B D T Y X -> B (T Y X) D").contiguous()
        if self.config.position_waves:
            waves_ND = place_waves((T, Y, X), self.config.position_waves).to(x_BND)
            x_BND = x_BND + self.dit.position_embedding(waves_ND)
        place = Place(T, self.turn.table(self.config.attention_head_dim, (T, Y, X), self.device))
        known = foretold(x_BCTYX, timestep_BT) if self.config.noise_skip else None
        tokens = Tokens((T, Y, X), self.rows(timestep_BT, contexts), place, known)
        return x_BND.to(self.stream_dtype), tokens

    def trunk(
        self,
        x_BND: Tensor,
        tokens: Tokens,
        contexts: tuple[Context, ...],
        *,
        start: int = 0,
        stop: int | None = None,
        mixed: bool = False,
    ) -> Tensor:
        """Blocks `start` up to `stop` (all, by default); `x_BND` is theirs to overwrite.

        Args:
            x_BND: from `embed`, or an earlier block's output, in which every context has its entries.
            tokens: from `embed`, with rows for every context.
            contexts: whose entries follow each other in the batch; all skip the same blocks.
            start, stop: which blocks.
            mixed: whether block `start` has done its self-attention.
        """
        count = len(contexts)
        parted = count == 1 or start > 0 or mixed
        if not parted and self.rows.pooled:
            x_BND, parted = x_BND.repeat(count, 1, 1), True
        for index, block in enumerate(self.blocks[start:stop], start):
            if index in contexts[0].skipped:
                continue
            if index > start or not mixed:
                rows = tokens.rows.modulation_BTMD
                rows = rows if parted else rows[: x_BND.shape[0]]
                x_BND = self.mix(block, x_BND, rows, tokens.place)
            if not parted:
                x_BND, parted = x_BND.repeat(count, 1, 1), True
            own = tuple(context.of_block(index) for context in contexts)
            x_BND = self.finish(block, x_BND, tokens.rows.modulation_BTMD, tokens.place, own)
        return x_BND

    def unembed(self, x_BND: Tensor, tokens: Tokens) -> Tensor:
        """Tokens back to velocities shaped like the latents."""
        table_BT2D = self.dit.scale_shift_table + tokens.rows.time_BTD[:, :, None]
        shift_BTD, scale_BTD = table_BT2D.unbind(dim=2)
        normed = FastBlock.modulated(x_BND, shift_BTD, scale_BTD, self.config.eps, self.dtype)
        T, Y, X = tokens.grid_TYX
        t, y, x = self.config.patch_size
        pattern = "B (T Y X) (t y x C) -> B C (T t) (Y y) (X x)"
        v_BCTYX = rearrange(self.proj_out(normed), pattern, T=T, Y=Y, X=X, t=t, y=y, x=x)
        known = tokens.foretold_BCTYX
        if known is None:
            return v_BCTYX
        return v_BCTYX + known.repeat(len(v_BCTYX) // len(known), 1, 1, 1, 1)


def alike(contexts: Sequence[Context]) -> bool:
    """Whether all of them skip the same blocks."""
    return len({context.skipped for context in contexts}) == 1


@cache
def _compiled() -> tuple[Any, Any]:
    """The halves of a block, compiled once for all models of a process."""
    return torch.compile(FastBlock.mix), torch.compile(FastBlock.finish)


def _any_length(contexts: tuple[Context, ...]) -> None:
    """Tell the compiler that texts differ in length, so that another prompt does not compile again."""
    from torch._dynamo import maybe_mark_dynamic  # seconds, and only here

    for context in (*contexts, *(c.negative for c in contexts if c.negative is not None)):
        for tensor in (*context.keys, *context.values):
            maybe_mark_dynamic(tensor, 3)
        if context.bias_BKL is not None:
            maybe_mark_dynamic(context.bias_BKL, 2)


class Several(Protocol):
    """A transformer that is asked for the velocities under several texts at once."""

    def several(self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[Any]) -> tuple[Tensor, ...]:
        """One velocity for each context."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OneByOne:
    """Any transformer, asked for one text after the other.

    Attributes:
        dit: is called with latents, timesteps and a context.
    """

    dit: Any

    def several(self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[Any]) -> tuple[Tensor, ...]:
        """One velocity for each context."""
        return tuple(self.dit(x_BCTYX, timestep_BT, context) for context in contexts)


@dataclass(frozen=True, slots=True, eq=False)
class InferenceExperts:
    """Two that share the noise levels, as `Experts`.

    Attributes:
        high, low: either side of the boundary.
        boundary: noise level, in 0..1, from which `high` works.
    """

    high: Several
    low: Several
    boundary: float

    def several(
        self, x_BCTYX: Tensor, timestep_BT: Tensor, contexts: Sequence[ExpertContext]
    ) -> tuple[Tensor, ...]:
        """One velocity for each context."""
        if float(timestep_BT.max()) >= 1000 * self.boundary:
            return self.high.several(x_BCTYX, timestep_BT, [context.high for context in contexts])
        return self.low.several(x_BCTYX, timestep_BT, [context.low for context in contexts])


def for_inference(
    dit: nn.Module,
    *,
    timesteps: Iterable[float] = (),
    shape_TYX: Sequence[int] = (5, 16, 16),
    compiled: bool = False,
    copies: bool | None = None,
) -> Several:
    """A transformer made ready for one run.

    Args:
        dit: `VideoDiT` or `Experts`; anything else, or one whose modules somebody hooked beyond its linear
            layers, is asked as it is.
        timesteps: that will be asked for, where known.
        shape_TYX: about what latents a call has; oneDNN picks its layout by it.
        compiled: compile the repeated block.
        copies: hold fused and reordered copies of the weights; None where they are small.
    """
    timesteps = tuple(timesteps)
    if isinstance(dit, Experts):
        high, low = (
            for_inference(part, timesteps=timesteps, shape_TYX=shape_TYX, compiled=compiled, copies=copies)
            for part in (dit.high, dit.low)
        )
        return InferenceExperts(high, low, dit.boundary)
    if not isinstance(dit, VideoDiT) or not _simple(dit):
        return OneByOne(dit)
    if copies is None:
        copies = sum(p.nbytes for p in dit.parameters()) <= COPIED_BYTES
    rows = rows_of(dit.config, shape_TYX)
    with torch.inference_mode(False), torch.no_grad():
        return InferenceDiT(dit, timesteps=timesteps, copies=copies, rows=rows, compiled=compiled)


def _simple(dit: VideoDiT) -> bool:
    """Whether all that is not a linear layer or the patch embedding is itself, on one device."""
    devices = {p.device for p in dit.parameters()}
    return len(devices) == 1 and "meta" not in {d.type for d in devices} and unhooked(dit)


def rows_of(config: VideoDiTConfig, shape_TYX: Sequence[int]) -> int:
    """How many rows a product of a guided step has, at latents of this shape."""
    tokens = math.prod(shape_TYX) // math.prod(config.patch_size)
    return 2 * tokens if 2 * tokens <= TOGETHER_TOKENS else tokens


def unhooked(dit: VideoDiT) -> bool:
    """Whether all that is not a linear layer or the patch embedding is itself."""
    leaves = (nn.Linear, nn.Conv3d)
    return all(untouched(m) or isinstance(m, leaves) for m in dit.modules())
