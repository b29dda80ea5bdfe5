"""Tiles of the local layers of a video VAE that equal the whole: each sees what its result depends on.

    spans[k] = reach_k(spans[k + 1])        from what a tile is to give back to what it is given

Norms act at each position by itself and convolutions on neighbours, so a part of a result needs the same part
of the input and a margin around it. The margin follows from the layers, and shrinks on the way: after each
layer only what the later ones need goes on. At the picture's own edge nothing is added, and layers pad with
zeros as they do for the whole.

Spans begin and end at multiples of four positions, the blocks in which the compiled convolutions work: their
sums are then the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from torch import nn

from kinema.core.errors import ConfigError
from kinema.models.vae_coders import Decoder, DownBlock, Encoder, UpBlock
from kinema.models.vae_layers import Downsample, ResidualBlock, Upsample
from kinema.models.winograd import BLOCK

Cuts = Mapping[nn.Module, tuple[slice, slice]]
Slice = slice  # the built-in one, where a class has a property of this name


@dataclass(frozen=True, slots=True)
class Tiles:
    """How large a tile is at most; None is no limit. The result is the same whatever the size.

    Attributes:
        rows: latent rows.
        columns: latent columns.
        frames: latent frames that go through one tile after the other, before the next begin.
    """

    rows: int | None = None
    columns: int | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        """Refuse tiles of nothing."""
        for name in ("rows", "columns", "frames"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ConfigError(f"tiles: {name}={size} must be at least 1; leave it out for no limit.")


@dataclass(frozen=True, slots=True)
class Span:
    """Positions `start` to `stop`, without `stop`, along one axis."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __mul__(self, scale: int) -> Span:
        return Span(scale * self.start, scale * self.stop)

    @property
    def slice(self) -> Slice:
        """For indexing."""
        return slice(self.start, self.stop)

    def within(self, length: int) -> Span:
        """In whole blocks, and inside the axis."""
        return Span(max(self.start // BLOCK * BLOCK, 0), min(-(-self.stop // BLOCK) * BLOCK, length))

    def inside(self, other: Span) -> Slice:
        """Where it lies in another that holds it."""
        assert other.start <= self.start <= self.stop <= other.stop, f"{self} is not inside {other}"
        return slice(self.start - other.start, self.stop - other.start)


@dataclass(frozen=True, slots=True)
class Step:
    """A layer as far as it moves positions about.

    Attributes:
        layer: whose result is cut.
        reach: how many positions beyond its own place a result sees, of the larger of its two sizes.
        up: how many times the positions come out.
        down: what share of them comes out.
    """

    layer: nn.Module
    reach: int
    up: int = 1
    down: int = 1

    def needs(self, wanted: Span) -> Span:
        """The input that a part of the result depends on; may go beyond the picture."""
        if self.down > 1:  # windows begin at their own place and reach to the right
            return Span(self.down * wanted.start, self.down * wanted.stop + self.reach)
        return Span((wanted.start - self.reach) // self.up, -(-(wanted.stop + self.reach) // self.up))

    def gives(self, given: Span) -> Span:
        """The positions that come out."""
        return Span(given.start * self.up // self.down, given.stop * self.up // self.down)


@dataclass(frozen=True, slots=True)
class Tile:
    """One part of a picture.

    Attributes:
        source: rows and columns of the first layer's input.
        target: rows and columns of the last layer's result, which no other tile gives.
        cuts: rows and columns of each layer's result that go on; see `StreamState`.
    """

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    cuts: Cuts


@dataclass(frozen=True, slots=True)
class Route:
    """Local layers in the order in which a picture goes through them.

    Attributes:
        steps: the layers.
        shortcuts: blocks whose input is added to their result, with their first step and the one after
            their last.
        given: side of the square of the input that the first step has for one position.
        made: side of the square of the result that the last step has for one position.
    """

    steps: tuple[Step, ...]
    shortcuts: tuple[tuple[nn.Module, int, int], ...]
    given: int = 1
    made: int = 1

    def lengths(self, length: int) -> list[int]:
        """Positions along an axis before each step, and after the last."""
        found = [length]
        for step in self.steps:
            found.append(found[-1] * step.up // step.down)
        return found

    def spans(self, own: Span, length: int) -> list[Span]:
        """What each step is given so that the last gives `own`, and `own`."""
        found = [own]
        for step, whole in zip(self.steps[::-1], self.lengths(length)[-2::-1], strict=True):
            found.append(step.needs(found[-1]).within(whole))
        return found[::-1]

    def parts(self, length: int, most: int | None, *, latent: int) -> list[list[Span]]:
        """The spans of each tile along an axis: as many tiles as needed, of about the same size.

        Args:
            length: positions before the first step.
            most: latent positions of a tile.
            latent: latent positions of the axis.
        """
        count = -(-latent // min(most or latent, latent))
        scale = self.lengths(length)[-1] // latent
        borders = [scale * (index * latent // count) for index in range(count + 1)]
        return [self.spans(Span(start, stop), length) for start, stop in pairwise(borders)]

    def tiles(self, tiles: Tiles, shape_YX: Sequence[int], latent_YX: Sequence[int]) -> list[Tile]:
        """The tiles of a picture that has `shape_YX` positions before the first step."""
        tall = self.parts(shape_YX[0], tiles.rows, latent=latent_YX[0])
        wide = self.parts(shape_YX[1], tiles.columns, latent=latent_YX[1])
        return [self._tile(spans_Y, spans_X) for spans_Y, spans_X in product(tall, wide)]

    def _tile(self, spans_Y: list[Span], spans_X: list[Span]) -> Tile:
        tall, wide = self._cuts(spans_Y), self._cuts(spans_X)
        cuts = {layer: (tall[layer], wide[layer]) for layer in tall}
        return Tile(
            source=((spans_Y[0] * self.given).slice, (spans_X[0] * self.given).slice),
            target=((spans_Y[-1] * self.made).slice, (spans_X[-1] * self.made).slice),
            cuts={k: (y[0], x[0]) for k, (y, x) in cuts.items() if y[1] or x[1]},
        )

    def _cuts(self, spans: list[Span]) -> dict[nn.Module, tuple[slice, bool]]:
        """What of each layer's result goes on along an axis, and whether that is less than all."""
        found = {}
        single = [(step.layer, index, index + 1) for index, step in enumerate(self.steps)]
        for layer, first, last in (*single, *self.shortcuts):
            given, wanted = spans[first], spans[last]
            for step in self.steps[first:last]:
                given = step.gives(given)
            found[layer] = wanted.inside(given), wanted != given
        return found


def upwards(decoder: Decoder, patch: int = 1) -> Route:
    """The way through a decoder after its attention, `Decoder.rise`."""
    steps: list[Step] = []
    shortcuts = []
    for block in decoder.up_blocks:
        assert isinstance(block, UpBlock)
        first = len(steps)
        steps += [_step(layer) for layer in block.resnets]
        if block.up:
            steps.append(_step(block.upsampler if block.residual else block.upsamplers[0]))
            shortcuts += [(block, first, len(steps))] if block.residual else []
    steps.append(Step(decoder.conv_out, margin(decoder.conv_out)))
    return Route(tuple(steps), tuple(shortcuts), made=patch)


def downwards(encoder: Encoder, patch: int = 1) -> Route:
    """The way through an encoder before its first attention, `Encoder.descend`."""
    steps: list[Step] = [Step(encoder.conv_in, margin(encoder.conv_in))]
    shortcuts = []
    for block in encoder.down_blocks[: encoder.local]:
        if not isinstance(block, DownBlock):
            steps.append(_step(block))
            continue
        first, down = len(steps), block.downsampler
        steps += [_step(layer) for layer in (*block.resnets, *(() if down is None else (down,)))]
        shortcuts.append((block, first, len(steps)))
    return Route(tuple(steps), tuple(shortcuts), given=patch)


def _step(layer: nn.Module) -> Step:
    if isinstance(layer, Upsample):
        return Step(layer, margin(layer.resample["1"]), up=2)
    if isinstance(layer, Downsample):
        kernel, stride = _window(layer.resample["1"])
        return Step(layer, kernel - stride, down=stride)
    assert isinstance(layer, ResidualBlock)
    return Step(layer, margin(layer.conv1) + margin(layer.conv2))


def margin(layer: nn.Module) -> int:
    """How many positions beyond its own place a result of a convolution sees."""
    return _window(layer)[0] // 2


def _window(layer: nn.Module) -> tuple[int, int]:
    """Side and stride over space; both axes have the same."""
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    return layer.kernel_size[-1], layer.stride[-1]
