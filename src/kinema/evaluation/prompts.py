"""The fixed prompts: scenes and captions that depend on a seed only, with their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kinema.core.errors import ConfigError
from kinema.training.captions import caption
from kinema.training.drawing import draw_scene
from kinema.training.grammar import Grammar
from kinema.training.scenes import Identity, Scene

TRIES = 5000


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask the generator for.

    Attributes:
        text: the caption.
        scene: what it means, and what a real clip of it is rendered from.
        unseen: whether training never showed this combination of identity and colour, or identity and motion.
        seed: of the noise; every prompt has its own, and only one.
    """

    text: str
    scene: Scene
    unseen: bool
    seed: int


def prompt_set(
    identities: Sequence[Identity],
    grammar: Grammar,
    *,
    seen: int,
    unseen: int,
    still: bool = False,
    seed: int = 0,
) -> tuple[Prompt, ...]:
    """`seen` prompts from the training combinations, then `unseen` held-out ones.

    Clips alternate between sprites in place and sprites that cross the frame, where the grammar has both.
    Prompt i does not depend on the counts.

    Args:
        identities: who can be asked for.
        grammar: what training drew from.
        seen: how many trained combinations.
        unseen: how many held-out combinations; needs `grammar.held_out > 0`.
        still: ask for single frames, in which nothing moves.
        seed: names the set.
    """
    plan = [(False, index) for index in range(seen)] + [(True, index) for index in range(unseen)]
    return tuple(_prompt(identities, grammar, is_unseen, index, still, seed) for is_unseen, index in plan)


def _prompt(
    identities: Sequence[Identity], grammar: Grammar, unseen: bool, index: int, still: bool, seed: int
) -> Prompt:
    name = f"prompt/{seed}/{'still' if still else 'clip'}/{'unseen' if unseen else 'seen'}/{index}"
    rng, crosses = Random(name), not still and index % 2 == 1
    odds = (grammar.moving, grammar.acting)
    alternates = still or (any(odds) and 1 not in odds)  # else all of them move, or none does
    for _ in range(TRIES):
        scene = draw_scene(rng, grammar, identities, still=still, unseen=unseen)
        if (scene.motion != "none") == crosses or not alternates:
            return Prompt(caption(scene, rng, full=grammar.full), scene, unseen, rng.getrandbits(32))
    raise ConfigError(
        f"{TRIES} scenes of this grammar had none that {'moves' if crosses else 'stays'}"
        f"{' and is held out' if unseen else ''}; ask with another grammar, or leave out held-out ones."
    )
