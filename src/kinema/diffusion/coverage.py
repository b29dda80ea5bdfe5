"""Which latent frames each forward sees when a clip is longer than its model, and what it counts for.

    v_f = sum_i share_i(f) v_i(f),    sum_i share_i(f) = 1

over the windows i that hold frame f. Shares are multiples of 2^-16 that add up to 1 to the last bit, so a sum
in float64 gives back what windows agree on. There is no torch here: a plan prints its windows without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

Weights = Literal["pyramid", "linear", "flat"]
Places = Literal["static", "uniform"]

PARTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Window:
    """One forward's view of the clip.

    Attributes:
        frames: latent frames of the clip in the order the network sees them; in a loop they go around.
        shares: how much of the fused velocity at each of them is this window's, 0..1.
    """

    frames: tuple[int, ...]
    shares: tuple[float, ...]

    def shares_over(self, total: int) -> list[float]:
        """The share at each of the clip's frames, 0 where the window does not look."""
        shares = [0.0] * total
        for frame, share in zip(self.frames, self.shares, strict=True):
            shares[frame] += share
        return shares


class Coverage(Protocol):
    """A way to cover a clip with windows."""

    @property
    def turns(self) -> tuple[tuple[int, ...], ...]:
        """Frames that are sampled together, turn after turn; every turn takes all the steps."""
        ...

    def windows(self, turn: int, index: int) -> tuple[Window, ...]:
        """The windows of one step of one turn; those that hold a frame of the turn have shares of sum 1."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Fused:
    """Overlapping windows over the whole clip at every step, averaged before the solver moves.

    Attributes:
        total: latent frames of the clip.
        length: of a window; in a loop at most `total + 1`, whose last frame is its first again.
        overlap: frames that neighbouring windows share at least, 0 to `length - 1`.
        weights: `pyramid` counts a window's middle most, `linear` fades over the overlap, `flat` is the mean.
        places: `static`, or `uniform`, which shifts the windows at every step so that seams never add up.
        lead: first frames of a window that are seen but do not count, except at the clip's own beginning. A
            causal video VAE's first latent frame stands for one pixel frame and not for a group; a model that
            learned such clips makes every window begin like that.
        loop: the last frame is followed by the first.
    """

    kind: ClassVar[str] = "fuse"
    total: int
    length: int
    overlap: int
    weights: Weights = "pyramid"
    places: Places = "uniform"
    lead: int = 0
    loop: bool = False

    def __post_init__(self) -> None:
        assert 1 <= self.length <= self.total + self.loop, f"{self.length} of {self.total} frames"
        assert self.lead <= self.overlap < self.length, f"overlap {self.overlap} of {self.length}"

    @property
    def stride(self) -> int:
        """The most frames between two windows' beginnings."""
        return self.length - self.overlap

    @property
    def turns(self) -> tuple[tuple[int, ...], ...]:
        """All frames in one turn."""
        return (tuple(range(self.total)),)

    def windows(self, turn: int, index: int) -> tuple[Window, ...]:
        """The windows of step `index`."""
        shift = int(van_der_corput(index) * self.stride) if self.places == "uniform" else 0
        starts = self._around(shift) if self.loop else self._along(shift)
        views = [tuple((start + p) % self.total for p in range(self.length)) for start in starts]
        raw = [self._raw(start) for start in starts]
        return _shared(views, raw)

    def _along(self, shift: int) -> list[int]:
        """From the first frame to the last; never more than a stride apart."""
        last = self.total - self.length
        if self.places == "static":
            count = math.ceil(last / self.stride)
            return [round(k * last / count) for k in range(count + 1)] if count else [0]
        return sorted(
            {min(max(at - shift, 0), last) for at in range(0, last + shift + self.stride, self.stride)}
        )

    def _around(self, shift: int) -> list[int]:
        count = math.ceil(self.total / self.stride)
        return sorted({(round(k * self.total / count) + shift) % self.total for k in range(count)})

    def _raw(self, start: int) -> list[int]:
        """A window's weight at each of its places, before they are shared out."""
        begins = start == 0 and not self.loop
        ends = start + self.length == self.total and not self.loop
        lead = 0 if begins else self.lead
        inner = self.length - lead
        rising = [p + 1 for p in range(inner)]
        if self.weights == "pyramid":
            return [0] * lead + [min(up, down) for up, down in zip(rising, rising[::-1], strict=True)]
        full = 1 if self.weights == "flat" else self.overlap - self.lead + 1
        fades = [full] * inner if begins else [min(up, full) for up in rising]
        falls = [full] * inner if ends else [min(down, full) for down in rising[::-1]]
        return [0] * lead + [min(pair) for pair in zip(fades, falls, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Continued:
    """One window after the other: each is sampled to the end, held to the last frames of the one before.

    Attributes:
        total: latent frames of the clip.
        length: of a window, at most `total`.
        overlap: finished frames that a window is held to, 1 to `length - 1`.
    """

    kind: ClassVar[str] = "continue"
    total: int
    length: int
    overlap: int

    def __post_init__(self) -> None:
        assert 1 <= self.overlap < self.length <= self.total, f"{self.overlap}, {self.length}, {self.total}"

    @property
    def turns(self) -> tuple[tuple[int, ...], ...]:
        """The new frames of each window."""
        ends = [*range(self.length, self.total, self.length - self.overlap), self.total]
        return tuple(tuple(range(a, b)) for a, b in zip([0, *ends], ends, strict=False))

    def windows(self, turn: int, index: int) -> tuple[Window, ...]:
        """The turn's own window, the same at every step."""
        end = self.turns[turn][-1] + 1
        frames = tuple(range(end - self.length, end))
        return (Window(frames, (1.0,) * self.length),)


def van_der_corput(index: int) -> float:
    """The bits of `index` behind the point, last first: 0, 1/2, 1/4, 3/4, 1/8, ...; even at any length."""
    value, place = 0.0, 0.5
    while index:
        value, index, place = value + place * (index & 1), index >> 1, place / 2
    return value


def _shared(views: list[tuple[int, ...]], raw: list[list[int]]) -> tuple[Window, ...]:
    """Raw weights as shares of `PARTS` that add up at every frame; rounding goes to the largest."""
    owners: dict[int, list[tuple[int, int]]] = {}
    for i, frames in enumerate(views):
        for p, frame in enumerate(frames):
            if raw[i][p]:
                owners.setdefault(frame, []).append((i, p))
    shares = [[0.0] * len(frames) for frames in views]
    for places in owners.values():
        whole = sum(raw[i][p] for i, p in places)
        parts = [PARTS * raw[i][p] // whole for i, p in places]
        largest = max(range(len(parts)), key=lambda k: parts[k])
        parts[largest] += PARTS - sum(parts)
        for (i, p), part in zip(places, parts, strict=True):
            shares[i][p] = part / PARTS
    return tuple(Window(frames, tuple(share)) for frames, share in zip(views, shares, strict=True))
