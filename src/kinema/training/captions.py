"""A scene in words: every factor that was drawn is named, and one that is not named is at its default.

The simple grammar (who, background, size, frozen, crossings) has phrases of its own, kept as they were; all
other scenes are put into words by `kinema.training.phrases`.
"""

from __future__ import annotations

from random import Random

from kinema.training.phrases import SIZE_WORDS, full_caption, with_article
from kinema.training.scenes import Background, Layout, Motion, Scene

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


def caption(scene: Scene, rng: Random, *, full: bool = False) -> str:
    """A sentence that names every factor of the scene that is not at its default.

    Args:
        scene: what to say.
        rng: chooses among paraphrases.
        full: with the richer phrases of a grammar that is `full`; the scene must be simple otherwise.
    """
    if full:
        return full_caption(scene, rng)
    backdrop = _backdrop_phrase(scene.background, rng)
    subject = _subject_phrase(scene, rng)
    if scene.motion == "none":
        return rng.choice(("{s} on {b}", "{s} in front of {b}")).format(s=subject, b=backdrop)
    verb = rng.choice(MOTION_PHRASES[scene.motion])
    template = rng.choice(("{s} {v} on {b}", "{s} {v} in front of {b}"))
    return template.format(s=subject, v=verb, b=backdrop)


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
