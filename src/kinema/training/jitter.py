"""The small random pieces that every way of drawing scenes shares."""

from __future__ import annotations

from random import Random

from kinema.training.scenes import COLOURS, Identity, Rgb


def jitter(rng: Random, width: float) -> float:
    """A number in -width..width."""
    return rng.uniform(-width, width)


def jittered(rng: Random, name: str, width: float) -> Rgb:
    """A named colour with each channel moved by at most `width`, sRGB in 0..1."""
    red, green, blue = (min(1.0, max(0.0, value + jitter(rng, width))) for value in COLOURS[name])
    return red, green, blue


def word_for(rng: Random, identity: Identity, synonym: float) -> str:
    """The identity's name, or with probability `synonym` one of its synonyms."""
    if identity.synonyms and rng.random() < synonym:
        return rng.choice(identity.synonyms)
    return identity.name


def phase_for(rng: Random, from_start: float) -> float:
    """Where in its loop an animation begins, 0..1; with probability `from_start` at 0.

    Where all begin alike, a caption says nearly all of a clip: less is left to guess where noise is highest.
    """
    phase = rng.random()
    return 0.0 if from_start and rng.random() < from_start else phase
