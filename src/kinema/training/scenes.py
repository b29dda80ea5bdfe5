"""What a clip shows: a scene is one draw of every factor, as names that a caption says and numbers to render.

Places are in a frame that spans -1..1, with y pointing down; a scale is a sprite's width over the frame's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

Native = Literal["plays", "frozen", "fast", "slow"]
Motion = Literal[
    "none",
    "left",
    "right",
    "up",
    "down",
    "enter-left",
    "enter-right",
    "enter-top",
    "enter-bottom",
    "exit-left",
    "exit-right",
    "exit-top",
    "exit-bottom",
    "bounce",
    "spin-right",
    "spin-left",
    "shake",
    "sway",
    "grow",
    "shrink",
    "orbit-right",
    "orbit-left",
    "fade-in",
    "fade-out",
]
Size = Literal["normal", "small", "big"]
Layout = Literal[
    "flat", "vertical", "horizontal", "columns", "rows", "slanted", "checks", "dots", "clouds", "horizon"
]
Place = Literal[
    "middle", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right"
]
Pace = Literal["normal", "slow", "fast"]
View = Literal["still", "pan-left", "pan-right", "tilt-up", "tilt-down", "zoom-in", "zoom-out"]
Relation = Literal["alone", "beside", "above", "before"]
Rgb = tuple[float, float, float]
Point = tuple[float, float]

MOTIONS: tuple[Motion, ...] = get_args(Motion)
PLACES: tuple[Place, ...] = get_args(Place)
VIEWS: tuple[View, ...] = get_args(View)
PATTERNS: tuple[Layout, ...] = ("columns", "rows", "slanted", "checks", "dots", "clouds")

# sRGB in 0..1, spread out so that the nearest name in Oklab survives the jitter.
COLOURS: dict[str, Rgb] = {
    "red": (0.85, 0.11, 0.12),
    "orange": (0.97, 0.54, 0.10),
    "yellow": (0.98, 0.88, 0.18),
    "green": (0.14, 0.64, 0.24),
    "cyan": (0.32, 0.86, 0.90),
    "blue": (0.12, 0.27, 0.83),
    "purple": (0.50, 0.17, 0.68),
    "pink": (0.98, 0.62, 0.79),
    "brown": (0.44, 0.27, 0.15),
    "black": (0.04, 0.04, 0.04),
    "gray": (0.50, 0.50, 0.50),
    "white": (0.96, 0.96, 0.96),
}
DIRECTIONS: dict[Motion, Point] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
SIZE_FACTORS: dict[Size, float] = {"normal": 1.0, "small": 0.6, "big": 1.35}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who can appear.

    Attributes:
        name: the canonical name, lower case, distinct within a bank.
        synonyms: other words that mean this one and no other identity.
        animated: whether the sprite has more than one frame.
        index: the sprite's number in its bank.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    animated: bool = True
    index: int = 0


@dataclass(frozen=True, slots=True)
class Background:
    """A flat colour (one name), or two colours that lie as the layout says.

    Gradients and the horizon run from the first colour at the top or left to the second; in patterns the two
    take turns.

    Attributes:
        layout: how the colours lie.
        names: keys of `COLOURS`.
        rgb: the jittered sRGB values in 0..1, one for each name.
        turns: how often a pattern repeats across the frame.
        shift: where the pattern starts, 0..1; the height of a horizon; of clouds it names the draw.
    """

    layout: Layout
    names: tuple[str, ...]
    rgb: tuple[Rgb, ...]
    turns: float = 4.0
    shift: float = 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """One sprite of a scene: who, how it looks and how it moves. The fields are those of `Scene`."""

    identity: Identity
    word: str
    native: Native
    motion: Motion
    size: Size
    scale: float
    start: Point
    end: Point
    phase: float
    hue: str = ""
    pace: Pace = "normal"


@dataclass(frozen=True, slots=True)
class Scene:
    """One draw of every factor, with the numbers that a renderer needs.

    Attributes:
        identity: who is shown.
        word: how the caption calls it: the name or a synonym.
        background: what lies behind.
        native: how the sprite's own animation plays.
        motion: how the sprite moves as a whole.
        size: the named size.
        scale: sprite width over frame width.
        start, end: the sprite's centre at the first and the last frame; -1..1 spans the frame, y points down.
        phase: where in its loop the animation starts, 0..1.
        hue: the colour that the sprite has been dyed, or "" for its own.
        place: where it stands, as the caption says.
        pace: of the motion.
        view: how the camera moves; sprites and ground move together.
        others: the second and third subject.
        relation: how the subjects stand to each other; "beside" counts from the left.
    """

    identity: Identity
    word: str
    background: Background
    native: Native
    motion: Motion
    size: Size
    scale: float
    start: Point
    end: Point
    phase: float
    hue: str = ""
    place: Place = "middle"
    pace: Pace = "normal"
    view: View = "still"
    others: tuple[Subject, ...] = ()
    relation: Relation = "alone"

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All sprites; of "before" the first stands in front and is drawn last."""
        first = Subject(
            self.identity,
            self.word,
            self.native,
            self.motion,
            self.size,
            self.scale,
            self.start,
            self.end,
            self.phase,
            self.hue,
            self.pace,
        )
        return (first, *self.others)


def held_out(scene: Scene, fraction: float) -> bool:
    """Whether any pair of the scene is kept from training: (identity, colour), (identity, motion), and so on.

    Pairs are an identity with a colour of the background, with its motion or with its own colour, and two
    identities. Decided by a hash of the names, so it is the same for every seed, order, machine and version.
    """
    return any(unit_hash(pair) < fraction for pair in _pairs(scene))


def _pairs(scene: Scene) -> list[str]:
    pairs = []
    for subject in scene.subjects:
        name = subject.identity.name
        pairs += [f"colour/{name}/{colour}" for colour in scene.background.names]
        if subject.motion != "none":
            pairs.append(f"motion/{name}/{subject.motion}")
        if subject.hue:
            pairs.append(f"hue/{name}/{subject.hue}")
    names = sorted({subject.identity.name for subject in scene.subjects})
    return pairs + [f"pair/{one}/{other}" for one, other in combinations(names, 2)]


def unit_hash(text: str) -> float:
    """A number in 0..1 that depends on the text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
