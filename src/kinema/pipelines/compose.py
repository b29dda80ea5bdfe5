"""Shots become one clip: cuts, dissolves, wipes, fades and matched frames, drawn frame by frame.

    frame = (1 - m) before + m after,    m = mask(e((i + 1) / (n + 1)))    in frame i of n that show both

Mixed as stored (gamma-coded), as editors do. Only the frames of one overlap are held in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from kinema.io.image import How, fit_image
from kinema.story.easing import easing
from kinema.story.transition import Direction, Transition

_LEAST_SOFTNESS = 1e-6  # a hard edge, without a division by zero


@dataclass(frozen=True, slots=True)
class Join:
    """How a shot begins after the one before it, in frames.

    Attributes:
        kind: what it is.
        overlap: frames of both shots that are shown as one (dissolve, wipe; 1 for a match).
        before, after: frames at the end of the one and the beginning of the other that a fade takes.
        ease: how it runs.
        color: of a fade.
        direction, softness: of a wipe.
    """

    kind: Literal["cut", "dissolve", "wipe", "fade", "match"] = "cut"
    overlap: int = 0
    before: int = 0
    after: int = 0
    ease: str = "linear"
    color: tuple[int, int, int] = (0, 0, 0)
    direction: Direction = "right"
    softness: float = 0.1

    @property
    def leaving(self) -> int:
        """Frames of the shot before that the join takes part in."""
        return self.overlap + self.before

    @property
    def arriving(self) -> int:
        """Frames of the shot after that the join takes part in."""
        return self.overlap + self.after


CUT = Join()


def join(transition: Transition | None, fps: Fraction, *, first: bool = False, end: bool = False) -> Join:
    """A transition at a frame rate.

    Args:
        transition: of the shot that begins; None is a cut.
        fps: of the clip.
        first: nothing comes before: a fade is all on the shot's own frames.
        end: nothing comes after.
    """
    if transition is None:
        return CUT
    frames, kind = transition.frames(fps), transition.kind
    fade = frames if kind == "fade" else 0
    half = (fade + 1) // 2
    return Join(
        kind=kind,
        overlap=frames - fade,
        before=0 if first else fade if end else half,
        after=0 if end else fade if first else fade - half,
        ease=transition.ease,
        color=transition.rgb,
        direction=transition.direction,
        softness=transition.softness,
    )


def compose(
    shots: Iterable[Iterable[np.ndarray]],
    joins: Sequence[Join],
    end: Join = CUT,
    *,
    size: tuple[int, int],
    fits: Sequence[How] | None = None,
) -> Iterator[np.ndarray]:
    """Draw the shots one after the other into one clip.

    A shot's frames are first asked for when all frames of the shot before have been drawn.

    Args:
        shots: the frames of each, uint8 `[H, W, 3]`, with at least as many as its joins take.
        joins: how each of them begins.
        end: how the last one ends.
        size: (width, height) of the clip.
        fits: how frames of another size are brought to it, for each shot; None where all have it.
    """
    held: deque[np.ndarray] = deque()
    after_joins = [*joins[1:], end]
    for k, (shot, begin, follow) in enumerate(zip(shots, joins, after_joins, strict=True)):
        waiting = held
        held = deque()
        for i, frame in enumerate(shot):
            fitted = frame if fits is None else fit_image(frame, *size, fits[k])
            held.append(begun(begin, i, fitted, waiting))
            if len(held) > follow.leaving:
                yield held.popleft()
        assert not waiting, "a shot is shorter than its dissolve"
        if follow.before:
            yield from (ended(follow, i, frame) for i, frame in enumerate(held))
            held = deque()


def begun(join: Join, index: int, frame: np.ndarray, waiting: deque[np.ndarray]) -> np.ndarray:
    """Frame `index` of a shot as its beginning shows it; an overlap takes from the frames `waiting`."""
    if index < join.overlap:
        return mixed(waiting.popleft(), frame, mask(join, index, frame.shape[:2]))
    if index < join.after:
        return mixed(frame, _plain(frame, join), 1 - _eased(join, index / join.after))
    return frame


def ended(join: Join, index: int, frame: np.ndarray) -> np.ndarray:
    """Frame `index` of the last frames of a shot that fades: the last of all is the colour itself."""
    return mixed(frame, _plain(frame, join), _eased(join, (index + 1) / join.before))


def mask(join: Join, index: int, shape: tuple[int, ...]) -> np.ndarray | float:
    """How much of the new shot frame `index` of an overlap shows: a number, or `[H, W, 1]` for a wipe."""
    if join.kind == "match":
        return 0.0
    share = _eased(join, (index + 1) / (join.overlap + 1))
    if join.kind == "dissolve":
        return share
    along = shape[1] if join.direction in ("left", "right") else shape[0]
    way = (np.arange(along) + 0.5) / along
    way = 1 - way if join.direction in ("left", "up") else way
    softness = max(join.softness, _LEAST_SOFTNESS)
    edge = np.clip((share * (1 + softness) - way) / softness, 0.0, 1.0)
    return edge[None, :, None] if join.direction in ("left", "right") else edge[:, None, None]


def mixed(one: np.ndarray, other: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """`(1 - share) one + share other`, rounded; bit for bit `one` or `other` at the ends."""
    sum_HWC = one + (other.astype(np.float32) - one) * np.asarray(share, np.float32)
    return np.rint(sum_HWC).astype(np.uint8)


def _eased(join: Join, u: float) -> float:
    return float(np.clip(easing(join.ease)(np.array([u]))[0], 0.0, 1.0))


def _plain(frame: np.ndarray, join: Join) -> np.ndarray:
    return np.broadcast_to(np.array(join.color, np.uint8), frame.shape)
