"""Drawing scenes with every factor: a draft of names first, then the numbers that fit them together.

A twin shares all of another draft but one factor, so that a batch shows what that factor alone changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from kinema.core.errors import ConfigError
from kinema.training.grammar import Grammar
from kinema.training.jitter import jitter, jittered, phase_for, word_for
from kinema.training.scenes import (
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    PATTERNS,
    PLACES,
    SIZE_FACTORS,
    VIEWS,
    Background,
    Identity,
    Layout,
    Motion,
    Native,
    Pace,
    Place,
    Point,
    Relation,
    Scene,
    Size,
    Subject,
    View,
    held_out,
)

HUES = tuple(name for name in COLOURS if name != "black")  # a black sprite is a silhouette
CROSSINGS: tuple[Motion, ...] = tuple(DIRECTIONS)
ACTIONS = tuple(motion for motion in MOTIONS if motion != "none" and motion not in DIRECTIONS)
PASSAGES: dict[Motion, tuple[Point, Point]] = {
    "enter-left": ((-1.6, 0.0), (0.0, 0.0)),
    "enter-right": ((1.6, 0.0), (0.0, 0.0)),
    "enter-top": ((0.0, -1.6), (0.0, 0.0)),
    "enter-bottom": ((0.0, 1.6), (0.0, 0.0)),
    "exit-left": ((0.0, 0.0), (-1.6, 0.0)),
    "exit-right": ((0.0, 0.0), (1.6, 0.0)),
    "exit-top": ((0.0, 0.0), (0.0, -1.6)),
    "exit-bottom": ((0.0, 0.0), (0.0, 1.6)),
}
UNSEEN_VIEWS = (("rows", "pan"), ("columns", "til"))  # a pan along stripes shows nothing
IN_PLACE = tuple(motion for motion in ACTIONS if motion not in PASSAGES and not motion.startswith("orbit"))
CROSSING_REACH = 0.95
ALONE, PLACED, FILMED = 0.9, 0.5, 0.8  # scales of a sprite at rest, off the middle, and under a camera's
SCALES: dict[Motion, float] = {"bounce": 0.6, "orbit-right": 0.5, "orbit-left": 0.5}
MOVING_SCALE = 0.75
COMPANY_SCALES = {2: 0.46, 3: 0.3}
PLACE_POINTS: dict[Place, Point] = {
    place: (
        (place.endswith("right") - place.endswith("left")) * 1.0,
        (place.startswith("bottom") - place.startswith("top")) * 1.0,
    )
    for place in PLACES
}


@dataclass(frozen=True, slots=True)
class Actor:
    """One subject of a draft."""

    identity: Identity
    word: str
    native: Native
    phase: float


@dataclass(frozen=True, slots=True)
class Draft:
    """The names of a scene, and its jitters.

    Attributes:
        actors: one to three subjects.
        relation: how they stand.
        mover: which of them has the motion.
        offset: the jitter of the place.
        stretch: the jitter of the scale.
    """

    actors: tuple[Actor, ...]
    relation: Relation
    mover: int
    motion: Motion
    pace: Pace
    hue: str
    size: Size
    place: Place
    background: Background
    view: View
    offset: Point
    stretch: float


def propose_full(rng: Random, grammar: Grammar, identities: Sequence[Identity], still: bool) -> Scene:
    """A scene of every factor, held out or not."""
    while not coherent(draft := draw_draft(rng, grammar, identities, still)):
        pass
    return settle(draft)


def draw_draft(rng: Random, grammar: Grammar, identities: Sequence[Identity], still: bool) -> Draft:
    """Each factor by itself; those that cannot be seen in a still stay at their defaults there."""
    count = 1
    while count < 3 and rng.random() < grammar.company:
        count += 1
    relation = _draw_relation(rng, count)
    first = _draw_actor(rng, grammar, identities, still)
    actors = [first]
    alike = rng.random() < 0.5
    while len(actors) < count:
        other = _draw_actor(rng, grammar, identities, still)
        actors.append(replace(first, phase=other.phase) if alike else other)
    motion = "none" if still else _draw_motion(rng, grammar, count)
    placed = count == 1 and motion in ("none", *IN_PLACE) and rng.random() < grammar.placed
    view: View = "still"
    if not still and rng.random() < grammar.viewed:
        view = rng.choice(VIEWS[1:])
    return Draft(
        actors=tuple(actors),
        relation=relation,
        mover=rng.randrange(count),
        motion=motion,
        pace=rng.choice(("slow", "fast")) if motion != "none" and rng.random() < grammar.paced else "normal",
        hue=rng.choice(HUES) if count == 1 and rng.random() < grammar.hued else "",
        size=rng.choice(("small", "big")) if count == 1 and rng.random() < grammar.resized else "normal",
        place=rng.choice(PLACES[1:]) if placed else "middle",
        background=_draw_background(rng, grammar, textured=view != "still"),
        view=view,
        offset=(jitter(rng, grammar.place_jitter), jitter(rng, grammar.place_jitter)),
        stretch=1 + jitter(rng, grammar.scale_jitter),
    )


def coherent(draft: Draft) -> bool:
    """Whether every named factor can be seen beside the others."""
    company, motion = len(draft.actors) > 1, draft.motion
    names = {actor.word for actor in draft.actors}
    identities = {actor.identity.name for actor in draft.actors}
    return (
        (draft.view == "still" or draft.background.layout in PATTERNS)
        and (draft.background.layout, draft.view[:3]) not in UNSEEN_VIEWS
        and draft.hue not in draft.background.names
        and (draft.place == "middle" or (not company and motion in ("none", *IN_PLACE)))
        and (not company or motion in ("none", *IN_PLACE))
        and not (draft.size == "big" and (draft.place != "middle" or draft.view != "still"))
        and not (company and (draft.hue or draft.size != "normal"))
        and len(names) == len(identities) in (1, len(draft.actors))
    )


def settle(draft: Draft) -> Scene:
    """The scene of a draft: where everything stands and how large it is."""
    scale = _scale(draft) * SIZE_FACTORS[draft.size] * draft.stretch
    subjects = [
        Subject(
            identity=actor.identity,
            word=actor.word,
            native=actor.native,
            motion=draft.motion if index == draft.mover else "none",
            size=draft.size,
            scale=scale * (1.3 if draft.relation == "before" and index == 0 else 1.0),
            start=path[0],
            end=path[1],
            phase=actor.phase,
            hue=draft.hue,
            pace=draft.pace if index == draft.mover else "normal",
        )
        for index, (actor, path) in enumerate(zip(draft.actors, _paths(draft, scale), strict=True))
    ]
    first = subjects[0]
    return Scene(
        first.identity,
        first.word,
        draft.background,
        first.native,
        first.motion,
        first.size,
        first.scale,
        first.start,
        first.end,
        first.phase,
        hue=draft.hue,
        place=draft.place,
        pace=first.pace,
        view=draft.view,
        others=tuple(subjects[1:]),
        relation=draft.relation,
    )


def twin(scene: Scene, other: Scene, rng: Random, fraction: float) -> Scene:
    """`scene` with one factor of `other`; `other` itself when no factor can be exchanged.

    The exchanged factor differs, the result is coherent, and it is not held out.
    """
    one, two = draft_of(scene), draft_of(other)
    groups: list[dict[str, object]] = [
        {"hue": two.hue},
        {"size": two.size},
        {"place": two.place},
        {"motion": two.motion, "pace": two.pace if two.motion != "none" else "normal"},
        {"pace": two.pace if one.motion != "none" else "normal"},
        {"view": two.view},
        {"background": two.background},
        {"actors": two.actors} if len(one.actors) == len(two.actors) else {},
    ]
    rng.shuffle(groups)
    for group in groups:
        changed = replace(one, **group)  # type: ignore[arg-type]
        if changed != one and coherent(changed) and not held_out(settle(changed), fraction):
            return settle(changed)
    return other


def draft_of(scene: Scene) -> Draft:
    """The draft that `settle` made the scene from."""
    subjects = scene.subjects
    mover = next((i for i, s in enumerate(subjects) if s.motion != "none"), 0)
    bare = Draft(
        actors=tuple(Actor(s.identity, s.word, s.native, s.phase) for s in subjects),
        relation=scene.relation,
        mover=mover,
        motion=subjects[mover].motion,
        pace=subjects[mover].pace,
        hue=scene.hue,
        size=scene.size,
        place=scene.place,
        background=scene.background,
        view=scene.view,
        offset=(0.0, 0.0),
        stretch=1.0,
    )
    plain = settle(bare)
    stretch = scene.scale / plain.scale
    plain = settle(replace(bare, stretch=stretch))
    offset = (scene.end[0] - plain.end[0], scene.end[1] - plain.end[1])
    return replace(bare, stretch=stretch, offset=offset)


def _draw_relation(rng: Random, count: int) -> Relation:
    if count == 1:
        return "alone"
    return rng.choice(("beside", "beside", "above", "before")) if count == 2 else "beside"


def _draw_actor(rng: Random, grammar: Grammar, identities: Sequence[Identity], still: bool) -> Actor:
    identity = rng.choice(identities)
    word = word_for(rng, identity, grammar.synonym)
    native: Native = "plays"
    if not still:
        if not identity.animated or rng.random() < grammar.frozen:
            native = "frozen"
        elif rng.random() < grammar.paced:
            native = rng.choice(("fast", "slow"))
    return Actor(identity, word, native, phase_for(rng, grammar.from_start))


def _draw_motion(rng: Random, grammar: Grammar, count: int) -> Motion:
    if rng.random() < grammar.acting:
        return rng.choice(ACTIONS if count == 1 else IN_PLACE)
    if count == 1 and rng.random() < grammar.moving:
        return rng.choice(CROSSINGS)
    return "none"


def _draw_background(rng: Random, grammar: Grammar, *, textured: bool) -> Background:
    layout: Layout = "flat"
    if textured:
        layout = rng.choice(PATTERNS)
    elif rng.random() < grammar.patterned:
        layout = rng.choice((*PATTERNS, "horizon", "horizon"))
    elif rng.random() < grammar.gradient:
        layout = rng.choice(("vertical", "horizontal"))
    names = tuple(rng.sample(tuple(COLOURS), 1 if layout == "flat" else 2))
    rgb = tuple(jittered(rng, name, grammar.colour_jitter) for name in names)
    shift = rng.uniform(0.45, 0.7) if layout == "horizon" else rng.random()
    return Background(layout, names, rgb, turns=float(rng.choice((3, 4, 5))), shift=shift)


def _scale(draft: Draft) -> float:
    """The width of a sprite of normal size over the frame's."""
    if len(draft.actors) > 1:
        base = COMPANY_SCALES[len(draft.actors)]
    elif draft.motion == "none":
        base = ALONE
    else:
        base = SCALES.get(draft.motion, MOVING_SCALE)
    base = min(base, PLACED) if draft.place != "middle" else base
    return base if draft.view == "still" else FILMED * base


def _paths(draft: Draft, scale: float) -> list[tuple[Point, Point]]:
    """First and last centre of every subject."""
    x, y = draft.offset
    if len(draft.actors) > 1:
        return [((px + x, py + y),) * 2 for px, py in _stands(draft.relation, len(draft.actors), scale)]
    if draft.motion in DIRECTIONS:
        dx, dy = (CROSSING_REACH * step for step in DIRECTIONS[draft.motion])
        return [((x - dx, y - dy), (x + dx, y + dy))]
    if draft.motion in PASSAGES:
        (sx, sy), (ex, ey) = PASSAGES[draft.motion]
        return [((x + sx, y + sy), (x + ex, y + ey))]
    px, py = PLACE_POINTS[draft.place]
    reach = max(0.35, 0.98 - scale)
    return [((reach * px + x, reach * py + y),) * 2]


def _stands(relation: Relation, count: int, scale: float) -> list[Point]:
    """Centres of several subjects: from left to right, from top to bottom, or one before the other."""
    if relation == "beside":
        gap = 2.0 / count
        return [(gap * (i + 0.5) - 1, 0.0) for i in range(count)]
    if relation == "above":
        return [(0.0, -0.47), (0.0, 0.47)]
    if relation == "before":
        return [(0.55 * scale, 0.5 * scale), (-0.55 * scale, -0.5 * scale)]
    raise ConfigError(f"relation={relation!r} needs one subject; use 'beside', 'above' or 'before'.")
