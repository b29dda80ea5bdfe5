"""Words for every factor, two to four of each, and the sentence that holds them together."""

from __future__ import annotations

import re
from random import Random

from kinema.training.scenes import (
    Background,
    Layout,
    Motion,
    Native,
    Pace,
    Place,
    Relation,
    Scene,
    Size,
    View,
)

# What follows the head of a name: "face | in clouds", "globe | showing americas".
QUALIFIER = re.compile(r" (?:with|without|of|in|on|over|behind|from|blowing|holding|showing|lifting) ")
SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge"),
}
NATIVE_PHRASES: dict[Native, tuple[str, ...]] = {
    "frozen": ("in a frozen pose", "standing stiff", "motionless"),
    "fast": ("in fast motion", "with hurried movements"),
    "slow": ("in slow motion", "with slow movements"),
}
PLAYING_PHRASES = ("dancing", "moving", "that is alive")  # may be said, may be left out
PLAYING_SAID = 0.15
STILL_SAID = 0.3  # a sprite without an animation of its own need not be called motionless
ACTION_PHRASES: dict[Motion, tuple[str, ...]] = {
    "left": ("slides left", "moves to the left", "flying left"),
    "right": ("slides right", "moves to the right", "flying right"),
    "up": ("slides up", "moves upwards", "flying up"),
    "down": ("slides down", "moves downwards", "falling down"),
    "enter-left": ("slides in from the left", "enters from the left", "coming in from the left side"),
    "enter-right": ("slides in from the right", "enters from the right", "coming in from the right side"),
    "enter-top": ("slides in from the top", "enters from above", "dropping in from the top"),
    "enter-bottom": ("slides in from the bottom", "enters from below", "rising in from the bottom"),
    "exit-left": ("slides out to the left", "leaves to the left", "going off on the left"),
    "exit-right": ("slides out to the right", "leaves to the right", "going off on the right"),
    "exit-top": ("slides out at the top", "leaves upwards", "going off at the top"),
    "exit-bottom": ("slides out at the bottom", "leaves downwards", "going off at the bottom"),
    "bounce": ("bounces", "jumps up and down", "jumps", "hopping"),
    "spin-right": ("spins clockwise", "turns clockwise", "rotating clockwise"),
    "spin-left": ("spins counterclockwise", "turns anticlockwise", "rotating counterclockwise"),
    "shake": ("shakes", "trembles", "shaking from side to side"),
    "sway": ("sways", "rocks gently", "swaying from side to side"),
    "grow": ("grows", "gets bigger", "growing larger"),
    "shrink": ("shrinks", "gets smaller", "shrinking away"),
    "orbit-right": ("circles clockwise", "goes round in a clockwise circle"),
    "orbit-left": ("circles counterclockwise", "goes round in a counterclockwise circle"),
    "fade-in": ("fades in", "slowly appears", "appearing out of nothing"),
    "fade-out": ("fades out", "slowly vanishes", "fading away"),
}
PACE_WORDS: dict[Pace, tuple[str, ...]] = {"slow": ("slowly", "at a slow pace"), "fast": ("quickly", "fast")}
PLACE_PHRASES: dict[Place, tuple[str, ...]] = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
    "top": ("at the top", "near the upper edge"),
    "bottom": ("at the bottom", "near the lower edge"),
    "top left": ("in the top left corner", "at the upper left"),
    "top right": ("in the top right corner", "at the upper right"),
    "bottom left": ("in the bottom left corner", "at the lower left"),
    "bottom right": ("in the bottom right corner", "at the lower right"),
}
VIEW_PHRASES: dict[View, tuple[str, ...]] = {
    "pan-left": ("the camera pans left", "camera pan to the left", "pan left"),
    "pan-right": ("the camera pans right", "camera pan to the right", "pan right"),
    "tilt-up": ("the camera tilts up", "camera tilt upwards", "tilt up"),
    "tilt-down": ("the camera tilts down", "camera tilt downwards", "tilt down"),
    "zoom-in": ("the camera zooms in", "zoom in", "slow zoom in"),
    "zoom-out": ("the camera zooms out", "zoom out", "slow zoom out"),
}
GROUND_PHRASES: dict[Layout, tuple[str, ...]] = {
    "flat": ("a {0} background", "a plain {0} background", "{0}"),
    "vertical": (
        "a background that fades from {0} at the top to {1} at the bottom",
        "a vertical gradient from {0} to {1}",
        "a {0} to {1} gradient",
    ),
    "horizontal": (
        "a background that fades from {0} on the left to {1} on the right",
        "a horizontal gradient from {0} to {1}",
    ),
    "columns": ("vertical {0} and {1} stripes", "a background of vertical stripes in {0} and {1}"),
    "rows": ("horizontal {0} and {1} stripes", "a background of horizontal stripes in {0} and {1}"),
    "slanted": ("diagonal {0} and {1} stripes", "a background of slanted stripes in {0} and {1}"),
    "checks": ("a {0} and {1} checkerboard", "a background of {0} and {1} checks"),
    "dots": ("a {0} background with {1} dots", "{1} dots on {0}"),
    "clouds": ("a mottled {0} and {1} background", "soft clouds of {0} and {1}"),
    "horizon": ("{1} ground under a {0} sky", "a {0} sky over {1} ground"),
}
COUNTS = {2: ("two", "a pair of"), 3: ("three",)}
ORDINALS = {2: ("the left one", "the right one"), 3: ("the left one", "the middle one", "the right one")}
BESIDE = {2: ("{0} and {1} side by side", "{0} next to {1}"), 3: ("{0}, {1} and {2} in a row",)}
ABOVE, BEFORE = ("{0} above {1}", "{0} over {1}"), ("{0} in front of {1}", "{0} before {1}")
ALIKE: dict[Relation, dict[int, tuple[str, ...]]] = {
    "beside": {2: ("side by side", "next to each other"), 3: ("in a row", "side by side")},
    "above": {2: ("one above the other",)},
    "before": {2: ("one in front of the other",)},
}
STACKED = {"above": ("the upper one", "the lower one"), "before": ("the one in front", "the one behind")}
IRREGULAR = {"mouse": "mice", "goose": "geese", "man": "men", "woman": "women", "person": "people"}
IRREGULAR |= {"child": "children", "fish": "fish", "sheep": "sheep", "deer": "deer", "ox": "oxen"}


def full_caption(scene: Scene, rng: Random) -> str:
    """A sentence that names every factor that is not at its default."""
    who = _alone(scene, rng) if not scene.others else _company(scene, rng)
    text = rng.choice(("{w} on {b}", "{w} in front of {b}")) if scene.background.layout != "horizon" else ""
    text = text or rng.choice(("{w}, {b}", "{w} with {b}"))
    text = text.format(w=who, b=ground_phrase(scene.background, rng))
    if scene.view != "still":
        view = rng.choice(VIEW_PHRASES[scene.view])
        return rng.choice((f"{text}, {view}", f"{text}, {view}", f"{view}: {text}"))
    return text


def ground_phrase(background: Background, rng: Random) -> str:
    """The background in words, with its article."""
    phrase = rng.choice(GROUND_PHRASES[background.layout]).format(*background.names)
    return phrase.replace("a orange", "an orange", 1)


def with_article(noun: str) -> str:
    """The noun with "a" or "an"; plurals ("grapes", "people hugging") stand alone."""
    if _is_plural(noun):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """More than one: the head of the name takes the ending ("faces in clouds")."""
    if _is_plural(noun):
        return noun
    found = QUALIFIER.search(noun)
    head, rest = (noun[: found.start()], noun[found.start() :]) if found else (noun, "")
    *words, last = head.split(" ")
    return " ".join([*words, _plural_word(last)]) + rest


def _is_plural(noun: str) -> bool:
    head = QUALIFIER.split(noun)[0].split()[-1]
    return (head.endswith("s") and not head.endswith(("ss", "us", "is", "os"))) or noun.startswith("people ")


def _plural_word(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def _alone(scene: Scene, rng: Random) -> str:
    words = [scene.word]
    if scene.hue:
        words.insert(0, scene.hue)
    if scene.size != "normal":
        words.insert(0, rng.choice(SIZE_WORDS[scene.size]))
    parts = [with_article(" ".join(words)), *_native(scene.native, animated=scene.identity.animated, rng=rng)]
    if scene.motion != "none":
        parts.append(_action(scene.motion, scene.pace, rng))
    if scene.place != "middle":
        parts.append(rng.choice(PLACE_PHRASES[scene.place]))
    return " ".join(parts)


def _company(scene: Scene, rng: Random) -> str:
    """Two or three subjects, how they stand, and what one of them does."""
    subjects, count = scene.subjects, len(scene.subjects)
    names = [subject.word for subject in subjects]
    alike = len(set(names)) == 1
    natives = [" ".join(_native(s.native, animated=s.identity.animated, rng=rng)) for s in subjects]
    if alike:
        group = f"{rng.choice(COUNTS[count])} {plural(names[0])}"
        group = f"{group} {natives[0]}".strip()
        text = f"{group} {rng.choice(ALIKE[scene.relation][count])}"
    else:
        each = [f"{with_article(n)} {native}".strip() for n, native in zip(names, natives, strict=True)]
        frames = {"beside": BESIDE.get(count, ()), "above": ABOVE, "before": BEFORE}
        text = rng.choice(frames[scene.relation]).format(*each)
    mover = next((i for i, subject in enumerate(subjects) if subject.motion != "none"), None)
    if mover is None:
        return text
    ones = ORDINALS[count] if scene.relation == "beside" else STACKED[scene.relation]
    called = ones[mover] if alike else rng.choice((ones[mover], f"the {names[mover]}"))
    return f"{text}, {called} {_action(subjects[mover].motion, subjects[mover].pace, rng)},"


def _native(native: Native, *, animated: bool, rng: Random) -> list[str]:
    """How the sprite's own animation plays; a sprite that has none says nothing or is called still."""
    if native in NATIVE_PHRASES:
        said = animated or rng.random() < STILL_SAID
        return [rng.choice(NATIVE_PHRASES[native])] if said else []
    return [rng.choice(PLAYING_PHRASES)] if animated and rng.random() < PLAYING_SAID else []


def _action(motion: Motion, pace: Pace, rng: Random) -> str:
    phrase = rng.choice(ACTION_PHRASES[motion])
    return phrase if pace == "normal" else f"{phrase} {rng.choice(PACE_WORDS[pace])}"
