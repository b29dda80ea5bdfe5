"""What a decode needs, before it runs: bytes of tensors that are alive at once, and products.

    bytes = what is remembered + the most that a layer works in + frames that wait for the other tiles

Counted layer by layer, by the sizes that a tile has there, margins included, for all ways to cut a picture at
once. Weights and latents are not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor, nn

from kinema.core.contracts import Stride
from kinema.core.errors import ResourceError
from kinema.models.vae_coders import Decoder, UpBlock
from kinema.models.vae_layers import CausalConv3d, ResidualBlock, Upsample, compiled_for, plain_short_cut
from kinema.models.vae_tiles import Tiles, upwards

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

COLOURS = 3
ATTENTION = 9  # tensors of a latent frame alive in the attention, its input included
MOVED = 1000  # products in the time in which one byte goes to the disk, or through the bus to the host


@dataclass(frozen=True, slots=True)
class Sides:
    """Positions along one axis that is cut into tiles.

    Attributes:
        size: latent positions of a tile, at most.
        count: tiles.
        most: what each step is given in the largest tile, and what the last gives.
        total: the same of all tiles together.
    """

    size: int
    count: int
    most: Counts
    total: Counts


@dataclass(slots=True)
class Ledger:
    """Numbers, not bytes, of a pass in several ways, as its layers are gone through; areas are positions.

    Attributes:
        like: a tensor of the device and type that the pass has.
        held: remembered between chunks.
        peak: the most that is alive at work, without what is held.
        products: of the direct convolutions, for one chunk.
    """

    like: Tensor
    held: Counts
    peak: Counts
    products: Counts

    @classmethod
    def empty(cls, like: Tensor, areas: Counts) -> Ledger:
        """For as many ways as `areas[0]` has."""
        return cls(like, *(np.zeros_like(areas[0]) for _ in range(3)))

    def work(self, *tensors: Counts) -> None:
        """These are alive together."""
        self.peak = np.maximum(self.peak, sum(tensors))

    def convolve(self, layer: CausalConv3d, frames: int, area: Counts, *others: Counts) -> None:
        """A convolution of a chunk while others are alive."""
        fast = compiled_for(self.like, layer.weight) is not None
        joined = 0 if fast else layer.in_channels * (frames + layer.reach)
        self.held = self.held + layer.in_channels * layer.reach * area
        self.products = self.products + layer.weight.numel() * frames * area
        self.work((layer.in_channels * frames + joined + layer.out_channels * frames) * area, *others)

    def block(self, layer: ResidualBlock, frames: int, area: Counts, cut: Counts, outside: Counts) -> None:
        """A residual block, given one area and cut to another, while `outside` is alive."""
        given, made = layer.conv1.in_channels * frames * area, layer.conv1.out_channels * frames * area
        beside = given + outside + (made if layer.conv_shortcut is not None else 0)
        over = compiled_for(self.like, layer.conv1.weight) is not None  # the norm is written over its input
        self.convolve(layer.conv1, frames, area, beside)
        self.convolve(layer.conv2, frames, area, beside, made * (not over))
        self.work(beside, 2 * made, layer.conv1.out_channels * frames * cut * (cut < area))

    def up(self, layer: Upsample, frames: int, area: Counts, cut: Counts, outside: Counts) -> int:
        """A step up, given one area and cut to another; how many frames come out."""
        double = cast(nn.Conv2d, layer.resample["1"])
        given = double.in_channels * frames * area
        beside, copies = outside + given, 0
        if layer.time_conv is not None:
            self.convolve(layer.time_conv, frames, area, outside)
            frames, copies = 2 * frames, 1
            self.work(beside, 4 * given)  # both kinds of frames, then one after the other
            beside = beside + 2 * given
        small, made = double.in_channels * frames * area, double.out_channels * frames * 4 * area
        self.products = self.products + double.weight.numel() * frames * 4 * area
        if compiled_for(self.like, double.weight):
            self.work(beside, small * copies, made)
        elif plain_short_cut(self.like, double.weight):
            self.work(beside, 2 * made)  # the four kinds, then in their places
        else:
            self.work(beside, 4 * small, made)  # at twice the size
        self.work(beside, made, double.out_channels * frames * cut)
        return frames


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of decodes, and what they cost.

    Attributes:
        fixed: whatever the number of latent frames that pass a tile in one go.
        each: for each of these.
        moved: what all tiles but one remember, which waits elsewhere.
        products: for one latent frame.
    """

    fixed: Counts
    each: Counts
    moved: Counts
    products: Counts


@dataclass(frozen=True, slots=True)
class Budget:
    """Counts what decodes with one decoder need.

    Attributes:
        decoder: with its weights.
        stride: pixels and frames of a latent.
    """

    decoder: Decoder
    stride: Stride

    def need(self, shape_BCTYX: Sequence[int], tiles: Tiles | None = None, *, at_once: int = 1) -> int:
        """Bytes for decoding latents of this shape."""
        length, rows, columns = shape_BCTYX[2:]
        cut = tiles or Tiles(frames=1)
        needs = self._needs(
            shape_BCTYX, [self._sides(rows, cut.rows)], [self._sides(columns, cut.columns)], at_once
        )
        return int(needs.fixed[0, 0] + needs.each[0, 0] * min(cut.frames or length, length))

    def choose(self, shape_BCTYX: Sequence[int], room: int) -> Tiles | None:
        """The tiles that take least time of those that need `room` bytes or less; None for the whole.

        Raises:
            ResourceError: not even the smallest fit.
        """
        if self.need(shape_BCTYX) <= room:
            return None
        length = shape_BCTYX[2]
        tall, wide = ([self._sides(n, size) for size in _sizes(n)] for n in shape_BCTYX[3:])
        needs = self._needs(shape_BCTYX, tall, wide, 1)
        together = np.clip((room - needs.fixed) // needs.each, 0, length)
        if not together.any():
            raise ResourceError(
                _refusal(shape_BCTYX, self.stride, int((needs.fixed + needs.each).min()), room)
            )
        again = -(-length // np.maximum(together, 1)) - 1
        cost = np.where(together > 0, needs.products * length + 2 * MOVED * needs.moved * again, np.inf)
        y, x = np.unravel_index(int(cost.argmin()), cost.shape)
        frames = int(together[y, x])
        return Tiles(tall[y].size, wide[x].size, None if frames == length else frames)

    def _sides(self, length: int, most: int | None) -> Sides:
        parts = upwards(self.decoder).parts(length, most, latent=length)
        sizes = np.array([[len(span) for span in spans] for spans in parts])
        return Sides(-(-length // len(parts)), len(parts), sizes.max(axis=0), sizes.sum(axis=0))

    def _needs(
        self, shape_BCTYX: Sequence[int], tall: Sequence[Sides], wide: Sequence[Sides], at_once: int
    ) -> Needs:
        """Of every way to cut rows with every way to cut columns, `[tall, wide]`."""
        batch, _, _, rows, columns = shape_BCTYX
        size = batch * self.decoder.conv_in.weight.element_size()
        most = np.einsum("ys, xs -> syx", [s.most for s in tall], [s.most for s in wide])
        total = np.einsum("ys, xs -> syx", [s.total for s in tall], [s.total for s in wide])
        count = np.outer([s.count for s in tall], [s.count for s in wide])
        first, tile, every = (
            self._head(at_once, rows * columns),
            self._tail(at_once, most),
            self._tail(at_once, total),
        )
        pixels = COLOURS * self.stride.time * self.stride.space**2 * rows * columns
        features = self.decoder.conv_in.out_channels * rows * columns
        handed = 2 * pixels * at_once  # frames that are given out, and those that were before
        return Needs(
            fixed=size * (first.held + tile.held + np.maximum(first.peak, tile.peak) + handed),
            each=size * (pixels + features * (count > 1)),
            moved=size * (every.held - tile.held),
            products=batch * every.products // at_once,
        )

    def _head(self, frames: int, positions: int) -> Ledger:
        """What sees whole frames."""
        area = np.array([[positions]])
        ledger = Ledger.empty(self.decoder.conv_in.weight.detach()[:0], area[None])
        width = self.decoder.conv_in.out_channels * frames * area
        ledger.convolve(self.decoder.conv_in, frames, area)
        for layer in self.decoder.mid_block.resnets:
            ledger.block(cast(ResidualBlock, layer), frames, area, area, width)
        ledger.work(ATTENTION * width)
        return ledger

    def _tail(self, frames: int, areas: Counts) -> Ledger:
        """What sees neighbours, given `areas[step]` before each step, and after the last."""
        ledger, step = Ledger.empty(self.decoder.conv_in.weight.detach()[:0], areas), 0
        for block in cast(Iterable[UpBlock], self.decoder.up_blocks):
            resnets = [cast(ResidualBlock, layer) for layer in block.resnets]
            outside, begin = 0 * areas[step], step
            for layer in resnets:
                ledger.block(layer, frames, areas[step], areas[step + 1], outside)
                outside = resnets[0].conv1.in_channels * frames * areas[begin]  # the block's input stays
                step += 1
            if block.up:
                rise = cast(Upsample, block.upsampler if block.residual else block.upsamplers[0])
                frames = ledger.up(rise, frames, areas[step], areas[step + 1], outside)
                step += 1
                if block.residual:  # the shortcut at full size, made and put in order
                    full = block.channels_out * frames
                    ledger.work(outside, full * areas[step], 2 * full * 4 * areas[begin])
        last = self.decoder.conv_out
        ledger.convolve(last, frames, areas[step], last.in_channels * frames * areas[step])
        return ledger


def _sizes(length: int) -> list[int]:
    """Sizes of tiles that cut an axis into different numbers of them."""
    return sorted({-(-length // count) for count in range(1, length + 1)}, reverse=True)


def _refusal(shape_BCTYX: Sequence[int], stride: Stride, least: int, room: int) -> str:
    height, width = (side * stride.space for side in shape_BCTYX[3:])
    return (
        f"decoding {width}x{height} takes at least {least / 1e6:.0f} MB, in the smallest tiles, and there is "
        f"room for {room / 1e6:.0f} MB; use a smaller size, or free memory."
    )
