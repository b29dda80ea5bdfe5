"""A grammar over sprites: a scene is one draw of every factor, and its caption names what was drawn.

A factor is either named in the caption or sits in a narrow default range, so that caption and clip never
disagree: an unnamed size is normal, an unnamed object motion is none, an unnamed native motion plays.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml

from kinema.core.errors import ConfigError, unknown_name

Native = Literal["plays", "frozen"]
Motion = Literal["none", "left", "right", "up", "down"]
Size = Literal["normal", "small", "big"]
Layout = Literal["flat", "vertical", "horizontal"]
Rgb = tuple[float, float, float]

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
DIRECTIONS: dict[Motion, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
SIZE_FACTORS: dict[Size, float] = {"normal": 1.0, "small": 0.6, "big": 1.35}
STILL_SCALE = 0.95
CROSSING_SCALE = 0.75  # a crossing sprite must leave room to cross
CROSSING_REACH = 0.95  # distance of the sprite's centre from the middle, at the first and at the last frame

# What follows the head of a name: "face | in clouds", "globe | showing americas".
QUALIFIER = re.compile(r" (?:with|without|of|in|on|over|behind|from|blowing|holding|showing|lifting) ")
SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge"),
}
FROZEN_PHRASES = ("in a frozen pose", "standing stiff")
MOTION_PHRASES: dict[Motion, tuple[str, ...]] = {
    "left": ("slides left", "moves to the left"),
    "right": ("slides right", "moves to the right"),
    "up": ("slides up", "moves upwards"),
    "down": ("slides down", "moves downwards"),
}
FLAT_PHRASES = ("a {0} background", "a plain {0} background")
GRADIENT_PHRASES: dict[Layout, tuple[str, ...]] = {
    "vertical": (
        "a background that fades from {0} at the top to {1} at the bottom",
        "a vertical gradient from {0} to {1}",
    ),
    "horizontal": (
        "a background that fades from {0} on the left to {1} on the right",
        "a horizontal gradient from {0} to {1}",
    ),
}


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
    """A flat colour (one name) or a gradient (two names, from top or left to bottom or right).

    Attributes:
        layout: how the colours lie.
        names: keys of `COLOURS`.
        rgb: the jittered sRGB values in 0..1, one for each name.
    """

    layout: Layout
    names: tuple[str, ...]
    rgb: tuple[Rgb, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """One draw of every factor, with the numbers that a renderer needs.

    Attributes:
        identity: who is shown.
        word: how the caption calls it: the name or a synonym.
        background: what lies behind.
        native: whether the sprite's own animation plays.
        motion: the direction in which the sprite crosses the frame.
        size: the named size.
        scale: sprite width over frame width.
        start, end: the sprite's centre at the first and the last frame; -1..1 spans the frame, y points down.
        phase: where in its loop the animation starts, 0..1.
    """

    identity: Identity
    word: str
    background: Background
    native: Native
    motion: Motion
    size: Size
    scale: float
    start: tuple[float, float]
    end: tuple[float, float]
    phase: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """How often each factor leaves its default, and how narrow the defaults are.

    Attributes:
        synonym: probability that a synonym replaces the name, where there is one.
        gradient: probability of a two-colour gradient instead of a flat colour.
        frozen: probability that the sprite's own animation does not play (a still sprite never plays).
        moving: probability that the sprite crosses the frame.
        resized: probability that the sprite is small or big.
        colour_jitter: largest change of a background channel, of a range of 1.
        scale_jitter: largest relative change of the scale.
        place_jitter: largest shift of the centre, where the frame spans -1..1.
        held_out: share of (identity, colour) and of (identity, motion) pairs that training never shows.
    """

    synonym: float = 0.05
    gradient: float = 0.1
    frozen: float = 0.1
    moving: float = 0.5
    resized: float = 0.2
    colour_jitter: float = 0.03
    scale_jitter: float = 0.04
    place_jitter: float = 0.04
    held_out: float = 0.05

    def __post_init__(self) -> None:
        for field in fields(self):
            high = 0.5 if field.name == "held_out" or field.name.endswith("jitter") else 1.0
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not 0 <= value <= high:
                raise ConfigError(
                    f"grammar.{field.name}={value!r} is outside 0..{high:g}; choose one inside."
                )

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Grammar:
        """A grammar from parsed YAML; an unknown key is a `ConfigError`."""
        names = [field.name for field in fields(Grammar)]
        for key in values:
            if key not in names:
                raise unknown_name("setting of the grammar", key, names)
        return Grammar(**values)

    @staticmethod
    def load(path: Path) -> Grammar:
        """The `grammar` section of a YAML file; `ConfigError` when there is none."""
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        section = document.get("grammar") if isinstance(document, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(f"{path} has no 'grammar' section; add one, with settings like 'moving: 0.5'.")
        return Grammar.from_mapping(section)


def draw_scene(
    rng: Random,
    grammar: Grammar,
    identities: Sequence[Identity],
    *,
    still: bool = False,
    unseen: bool = False,
) -> Scene:
    """One scene from the training combinations, or with `unseen` from the held-out ones.

    Args:
        rng: the stream to draw from; the same state gives the same scene.
        grammar: probabilities and ranges.
        identities: who can appear, each equally often.
        still: draw for a single frame, in which neither kind of motion can be seen.
        unseen: draw only held-out combinations; needs `grammar.held_out > 0`.
    """
    if not identities:
        raise ConfigError("identities is empty, and a scene needs one; pass the identities of a sprite bank.")
    if unseen and grammar.held_out == 0:
        raise ConfigError("grammar.held_out=0 holds nothing out; set it above 0 to draw unseen scenes.")
    while True:
        scene = _propose(rng, grammar, identities, still)
        if held_out(scene, grammar.held_out) == unseen:
            return scene


def held_out(scene: Scene, fraction: float) -> bool:
    """Whether any (identity, colour) or (identity, motion) pair of the scene is kept from training.

    Decided by a hash of the names, so it is the same for every seed, order, machine and version.
    """
    pairs = [f"colour/{scene.identity.name}/{name}" for name in scene.background.names]
    if scene.motion != "none":
        pairs.append(f"motion/{scene.identity.name}/{scene.motion}")
    return any(_unit_hash(pair) < fraction for pair in pairs)


def caption(scene: Scene, rng: Random) -> str:
    """A sentence that names every factor of the scene that is not at its default."""
    backdrop = _backdrop_phrase(scene.background, rng)
    subject = _subject_phrase(scene, rng)
    if scene.motion == "none":
        return rng.choice(("{s} on {b}", "{s} in front of {b}")).format(s=subject, b=backdrop)
    verb = rng.choice(MOTION_PHRASES[scene.motion])
    template = rng.choice(("{s} {v} on {b}", "{s} {v} in front of {b}"))
    return template.format(s=subject, v=verb, b=backdrop)


def with_article(noun: str) -> str:
    """The noun with "a" or "an"; plurals ("grapes", "people hugging") stand alone."""
    head = QUALIFIER.split(noun)[0].split()[-1]
    if (head.endswith("s") and not head.endswith(("ss", "us", "is", "os"))) or noun.startswith("people "):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _propose(rng: Random, grammar: Grammar, identities: Sequence[Identity], still: bool) -> Scene:
    """A scene, held out or not."""
    identity = rng.choice(identities)
    word = identity.name
    if identity.synonyms and rng.random() < grammar.synonym:
        word = rng.choice(identity.synonyms)
    background = _draw_background(rng, grammar)
    native: Native = "plays"
    motion: Motion = "none"
    if not still:
        native = "frozen" if not identity.animated or rng.random() < grammar.frozen else "plays"
        motion = rng.choice(tuple(DIRECTIONS)) if rng.random() < grammar.moving else "none"
    size: Size = rng.choice(("small", "big")) if rng.random() < grammar.resized else "normal"
    base = STILL_SCALE if motion == "none" else CROSSING_SCALE
    scale = base * SIZE_FACTORS[size] * (1 + _jitter(rng, grammar.scale_jitter))
    start, end = _draw_path(rng, motion, grammar.place_jitter)
    return Scene(identity, word, background, native, motion, size, scale, start, end, rng.random())


def _draw_background(rng: Random, grammar: Grammar) -> Background:
    layout: Layout = "flat"
    names: tuple[str, ...] = (rng.choice(tuple(COLOURS)),)
    if rng.random() < grammar.gradient:
        layout = rng.choice(("vertical", "horizontal"))
        names = tuple(rng.sample(tuple(COLOURS), 2))
    return Background(layout, names, tuple(_jittered(rng, name, grammar.colour_jitter) for name in names))


def _jittered(rng: Random, name: str, width: float) -> Rgb:
    red, green, blue = (min(1.0, max(0.0, value + _jitter(rng, width))) for value in COLOURS[name])
    return red, green, blue


def _draw_path(rng: Random, motion: Motion, width: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centres at the first and the last frame: one place, or from one side to the other."""
    x, y = _jitter(rng, width), _jitter(rng, width)
    if motion == "none":
        return (x, y), (x, y)
    dx, dy = (CROSSING_REACH * step for step in DIRECTIONS[motion])
    return (x - dx, y - dy), (x + dx, y + dy)


def _jitter(rng: Random, width: float) -> float:
    return rng.uniform(-width, width)


def _unit_hash(text: str) -> float:
    """A number in 0..1 that depends on the text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _subject_phrase(scene: Scene, rng: Random) -> str:
    noun = scene.word
    if scene.size != "normal":
        noun = f"{rng.choice(SIZE_WORDS[scene.size])} {noun}"
    phrase = with_article(noun)
    return f"{phrase} {rng.choice(FROZEN_PHRASES)}" if scene.native == "frozen" else phrase


def _backdrop_phrase(background: Background, rng: Random) -> str:
    if background.layout == "flat":
        name = background.names[0]
        phrase = rng.choice(FLAT_PHRASES).format(name)
        return phrase.replace("a orange", "an orange", 1)
    return rng.choice(GRADIENT_PHRASES[background.layout]).format(*background.names)
