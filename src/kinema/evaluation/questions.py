"""The fixed list of shots: what is asked of a model, one factor at a time, everything else at its default.

Question i of a factor depends on (seed, factor, seen or held out, i) only; every one is sampled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from kinema.evaluation.prompts import Prompt
from kinema.training.captions import caption
from kinema.training.full_drawing import CROSSINGS, HUES, Actor, Draft, coherent, settle
from kinema.training.grammar import Grammar
from kinema.training.jitter import jittered
from kinema.training.scenes import COLOURS, PLACES, VIEWS, Background, Identity, Layout, held_out

TRIES = 3000  # a handful of identities may have no held-out combination of some kind

Change = Callable[[Draft, Random, Grammar], Draft]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask.

    Attributes:
        factor: what is judged.
        prompt: the caption, the scene that it means, whether it is held out, and the seed of the noise.
        plain: of a question that is judged by comparison: the same without the factor, with the same noise.
    """

    factor: str
    prompt: Prompt
    plain: Prompt | None = None


def _background(draft: Draft, rng: Random, grammar: Grammar) -> Draft:
    if grammar.gradient == 0 or rng.random() < 0.5:
        return draft
    names = tuple(rng.sample(tuple(COLOURS), 2))
    layout: Layout = rng.choice(("vertical", "horizontal"))
    rgb = tuple(jittered(rng, name, grammar.colour_jitter) for name in names)
    return replace(draft, background=Background(layout, names, rgb))


def _camera(draft: Draft, rng: Random, grammar: Grammar) -> Draft:
    """The camera moves over checks, or a sprite does, small enough to leave the ground in sight."""
    names = tuple(rng.sample(tuple(COLOURS), 2))
    rgb = tuple(COLOURS[name] for name in names)
    ground = Background("checks", names, rgb, turns=4.0, shift=rng.random())
    if rng.random() < 0.5:
        return replace(draft, background=ground, motion=rng.choice(CROSSINGS), size="small")
    return replace(draft, background=ground, view=rng.choice(VIEWS[1:]))


def _count(draft: Draft, rng: Random, grammar: Grammar) -> Draft:
    count = rng.choice((1, 2, 3))
    actors = tuple(replace(draft.actors[0], phase=rng.random()) for _ in range(count))
    return replace(draft, actors=actors, relation="alone" if count == 1 else "beside")


CHANGES: dict[str, Change] = {
    "identity": lambda draft, rng, grammar: draft,
    "background": _background,
    "sprite colour": lambda draft, rng, grammar: replace(draft, hue=rng.choice(HUES)),
    "place": lambda draft, rng, grammar: replace(draft, place=rng.choice(PLACES[1:])),
    "size": lambda draft, rng, grammar: replace(draft, size=rng.choice(("small", "big"))),
    "direction": lambda draft, rng, grammar: replace(draft, motion=rng.choice(CROSSINGS)),
    "spin": lambda draft, rng, grammar: replace(draft, motion=rng.choice(("spin-right", "spin-left"))),
    "camera": _camera,
    "count": _count,
}
FACTORS = tuple(CHANGES)
NEEDS = {  # settings of the grammar above 0 that mean a model has seen the factor
    "sprite colour": "hued",
    "place": "placed",
    "size": "resized",
    "direction": "moving",
    "spin": "acting",
    "camera": "viewed",
    "count": "company",
}


def known_factors(grammar: Grammar) -> tuple[str, ...]:
    """The factors that a model trained with this grammar has seen."""
    return tuple(f for f in FACTORS if f not in NEEDS or getattr(grammar, NEEDS[f]) > 0)


def questions(
    factor: str,
    identities: Sequence[Identity],
    grammar: Grammar,
    *,
    seen: int,
    unseen: int,
    seed: int = 0,
) -> tuple[Question, ...]:
    """`seen` questions about trained combinations, then up to `unseen` about held-out ones.

    Args:
        factor: one of `FACTORS`.
        identities: whom the model knows.
        grammar: what it was trained with.
        seen: how many trained combinations.
        unseen: how many held-out ones; fewer come when the identities have none.
        seed: names the list.
    """
    plan = [(False, i) for i in range(seen)] + [(True, i) for i in range(unseen if grammar.held_out else 0)]
    found = (_question(factor, identities, grammar, is_unseen, i, seed) for is_unseen, i in plan)
    return tuple(question for question in found if question is not None)


def _question(
    factor: str, identities: Sequence[Identity], grammar: Grammar, unseen: bool, index: int, seed: int
) -> Question | None:
    rng = Random(f"question/{seed}/{factor}/{'unseen' if unseen else 'seen'}/{index}")
    for _ in range(TRIES):
        plain = _plain(rng, identities, grammar)
        draft = CHANGES[factor](plain, rng, grammar)
        if coherent(draft) and held_out(settle(draft), grammar.held_out) == unseen:
            noise = rng.getrandbits(32)
            asked = _prompt(draft, rng, grammar, unseen, noise)
            return Question(
                factor, asked, _prompt(plain, rng, grammar, unseen, noise) if factor == "size" else None
            )
    return None


def _prompt(draft: Draft, rng: Random, grammar: Grammar, unseen: bool, seed: int) -> Prompt:
    scene = settle(draft)
    return Prompt(caption(scene, rng, full=grammar.full), scene, unseen, seed)


def _plain(rng: Random, identities: Sequence[Identity], grammar: Grammar) -> Draft:
    """Somebody in the middle of a flat colour, playing."""
    identity = rng.choice(identities)
    name = rng.choice(tuple(COLOURS))
    actor = Actor(identity, identity.name, "plays" if identity.animated else "frozen", rng.random())
    return Draft(
        actors=(actor,),
        relation="alone",
        mover=0,
        motion="none",
        pace="normal",
        hue="",
        size="normal",
        place="middle",
        background=Background("flat", (name,), (jittered(rng, name, grammar.colour_jitter),)),
        view="still",
        offset=(0.0, 0.0),
        stretch=1.0,
    )
