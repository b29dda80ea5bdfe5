"""Drawing scenes: the simple grammar's factors here, all of them in `kinema.training.full_drawing`.

The simple draws use the random stream exactly as they always did, so that a seed names the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from kinema.core.errors import ConfigError
from kinema.training.full_drawing import propose_full, twin
from kinema.training.grammar import Grammar
from kinema.training.jitter import jitter, jittered, phase_for, word_for
from kinema.training.scenes import (
    COLOURS,
    DIRECTIONS,
    SIZE_FACTORS,
    Background,
    Identity,
    Layout,
    Motion,
    Native,
    Point,
    Scene,
    Size,
    held_out,
)

TRIES = 20_000  # a handful of identities may have no combination of some kind
STILL_SCALE = 0.95
CROSSING_SCALE = 0.75  # a crossing sprite must leave room to cross
CROSSING_REACH = 0.95  # distance of the sprite's centre from the middle, at the first and at the last frame


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
    propose = propose_full if grammar.full else propose_simple
    for _ in range(TRIES):
        scene = propose(rng, grammar, identities, still)
        if held_out(scene, grammar.held_out) == unseen:
            return scene
    kind = "is held out" if unseen else "is for training"
    raise ConfigError(
        f"of {TRIES} scenes of {len(identities)} identities with held_out: {grammar.held_out:g} none {kind}; "
        "few identities have few combinations: write held_out: 0, or name more."
    )


def draw_scenes(
    rng: Random, grammar: Grammar, identities: Sequence[Identity], count: int, *, still: bool = False
) -> list[Scene]:
    """Training scenes, some of them followed by a twin that differs in one factor (`grammar.paired`)."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = draw_scene(rng, grammar, identities, still=still)
        scenes.append(scene)
        if grammar.paired and len(scenes) < count and rng.random() < grammar.paired:
            other = draw_scene(rng, grammar, identities, still=still)
            scenes.append(twin(scene, other, rng, grammar.held_out))
    return scenes


def propose_simple(rng: Random, grammar: Grammar, identities: Sequence[Identity], still: bool) -> Scene:
    """A scene, held out or not."""
    identity = rng.choice(identities)
    word = word_for(rng, identity, grammar.synonym)
    background = simple_background(rng, grammar)
    native: Native = "plays"
    motion: Motion = "none"
    if not still:
        native = "frozen" if not identity.animated or rng.random() < grammar.frozen else "plays"
        motion = rng.choice(tuple(DIRECTIONS)) if rng.random() < grammar.moving else "none"
    size: Size = rng.choice(("small", "big")) if rng.random() < grammar.resized else "normal"
    base = STILL_SCALE if motion == "none" else CROSSING_SCALE
    scale = base * SIZE_FACTORS[size] * (1 + jitter(rng, grammar.scale_jitter))
    start, end = _draw_path(rng, motion, grammar.place_jitter)
    phase = phase_for(rng, grammar.from_start)
    return Scene(identity, word, background, native, motion, size, scale, start, end, phase)


def simple_background(rng: Random, grammar: Grammar) -> Background:
    """A flat colour or a gradient."""
    layout: Layout = "flat"
    names: tuple[str, ...] = (rng.choice(tuple(COLOURS)),)
    if rng.random() < grammar.gradient:
        layout = rng.choice(("vertical", "horizontal"))
        names = tuple(rng.sample(tuple(COLOURS), 2))
    return Background(layout, names, tuple(jittered(rng, name, grammar.colour_jitter) for name in names))


def _draw_path(rng: Random, motion: Motion, width: float) -> tuple[Point, Point]:
    """Centres at the first and the last frame: one place, or from one side to the other."""
    x, y = jitter(rng, width), jitter(rng, width)
    if motion == "none":
        return (x, y), (x, y)
    dx, dy = (CROSSING_REACH * step for step in DIRECTIONS[motion])
    return (x - dx, y - dy), (x + dx, y + dy)
