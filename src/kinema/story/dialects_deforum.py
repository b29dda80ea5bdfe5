"""Deforum's schedule strings with Deforum's values, frame by frame: `0:(1), 30:(2*sin(t)), max_f:(5)`.

The reader of the web UI's extension splits at every comma; where it fails, deforum-studio's reader, which
leaves commas in parentheses alone and knows more variables, is followed. From either one,

- a plain number is a key that values tween to and from, in straight lines;
- anything else (`1/2`, `( 1 )`, `1e-3`) is a formula, evaluated at every frame until the next key, never
  tweened out of;
- keys past the last frame are dropped before that, keys below 0 are never reached, of two keys on one frame
  the later written counts, and what follows a second colon is ignored;
- NaN is filled in by tweening, infinities stay.

Of the formulas only those are read whose frames are in the clip. Quadratic and cubic tweening are splines
through all values. Keys of words (`0: ("Euler a"), max_f/2: ("Heun")`) are read alike; each holds on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name
from kinema.story.caret import Place
from kinema.story.dialects_numexpr import Formula, Value
from kinema.story.splines import spline

Array = NDArray[np.float64]
Interpolation = Literal["linear", "quadratic", "cubic"]
DEGREES: Mapping[str, int] = {"linear": 1, "quadratic": 2, "cubic": 3}

MAX_TEXT = 100_000
MAX_FORMULAS = 1000

_NUMBER = re.compile(r"(?=.)[+-]?[0-9]*(?:\.[0-9]+)?\n?")
_DROPPED = str.maketrans("", "", "'\"()")
_KEY_NAMES = frozenset(("max_f", "s"))


def clip_variables(frames: int, fps: float | Fraction, seed: int, bpm: float) -> dict[str, Value]:
    """What a formula may name: arrays of F values, or of 1 for what does not change."""
    t_F = np.arange(frames)
    rate = float(fps)
    per_beat = rate * 60 / bpm
    beat_F = t_F / per_beat
    phase_F = beat_F % 1
    last = frames - 1
    # there are no events here, so the one before is the first frame and the next one the last
    to_last = {"frames": last - t_F, "beats": (last - t_F) / per_beat, "seconds": (last - t_F) / rate}
    return {
        "t": t_F, "f": t_F, "i": t_F, "max_f": np.full(1, last), "s": np.full(1, seed),
        "pi": np.full(1, np.pi), "fps": np.full(1, rate), "bpm": np.full(1, bpm), "sec": t_F / rate,
        "beat_offset_s": np.zeros(1, np.int64), "beat_offset_f": np.zeros(1, np.int64),
        "beat": beat_F, "whole_beat": np.floor(beat_F).astype(np.int64),
        "progress_until_beat": phase_F,
        "frames_until_beat": ((1 - phase_F) * per_beat).astype(np.int64),
        "frames_since_beat": (phase_F * per_beat).astype(np.int64),
        "second_until_beat": (1 - phase_F) / bpm * 60,
        "seconds_since_beat": phase_F / bpm * 60,
        **{f"{unit}_to_go": value_F for unit, value_F in to_last.items()},
        **{f"events_{what}": np.zeros(1, np.int64) for what in ("passed", "to_go", "total")},
        "progress_until_next_event": t_F / max(last, 1),
        **{f"{unit}_until_next_event": value_F for unit, value_F in to_last.items()},
        "frames_since_prev_event": t_F,
        # deforum-studio gives the time until the next event for these two
        "beats_since_prev_event": to_last["beats"], "seconds_since_prev_event": to_last["seconds"],
    }  # fmt: skip


_NAMES = frozenset(clip_variables(1, 24, 0, 120.0))


@dataclass(frozen=True, slots=True)
class _Key:
    """One key as written.

    Attributes:
        place: a frame, or a formula over `max_f` and `s`.
        value: a number, a formula, words, or what is wrong with it, which matters once it is reached.
        written: the key, for messages.
        column: where it begins.
    """

    place: int | Formula
    value: float | Formula | str | ConfigError
    written: str
    column: int


@dataclass(frozen=True, slots=True)
class DeforumText:
    """A schedule string, taken apart."""

    text: str
    keys: tuple[_Key, ...]

    @staticmethod
    def parse(text: str, *, words: bool = False) -> DeforumText:
        """Take a string apart; `ConfigError` with key, column and caret when neither reader could.

        Args:
            text: the string.
            words: its values are texts, such as names of samplers.
        """
        if len(text) > MAX_TEXT:
            raise Place(text).error(f"a schedule of {len(text)} characters; the most is {MAX_TEXT}")
        plain, grouped = text.split(","), _outside_parentheses(text)
        try:
            read = DeforumText(text, _read(text, plain, words))
            read.check()
        except ConfigError:
            if plain == grouped:
                raise
            read = DeforumText(text, _read(text, grouped, words))
            read.check()
        return read

    def check(self) -> None:
        """Raise what is wrong with a key that every clip reaches: the one at frame 0."""
        if any(isinstance(key.place, Formula) for key in self.keys):
            return  # it may fall on frame 0 and replace what is there
        last = {key.place: key for key in self.keys}
        problem = last[0].value if 0 in last else None
        if isinstance(problem, ConfigError):
            raise problem

    @property
    def constant(self) -> float | None:
        """The value, when it is one number from frame 0 on."""
        (key, *more) = self.keys
        return key.value if not more and key.place == 0 and isinstance(key.value, float) else None

    def values(
        self,
        frames: int,
        fps: float | Fraction,
        seed: int,
        bpm: float = 120.0,
        interpolation: Interpolation = "linear",
    ) -> Array:
        """The value at each frame, float64 `[F]`; may be infinite.

        Raises:
            ConfigError: a key or formula that has no value, or no key inside the clip.
        """
        found = self._by_frame(frames, seed)
        inside = self.places(frames, seed)
        scope = clip_variables(frames, fps, seed, bpm)
        value_F = np.full(frames, np.nan)
        for start, end in pairwise([*inside, frames]):
            self._fill(value_F, found[start].value, scope, start, end)
        return self._tween(value_F, min(DEGREES[interpolation], max(1, len(found) - 1)))

    def texts(self, frames: int, seed: int) -> dict[int, str]:
        """Of words, the text at each key inside the clip, by frame rising; it holds until the next.

        Before the first key the extension has an error; the first text is meant to hold there.

        Raises:
            ConfigError: a key that has no value, or no key inside the clip.
        """
        found = self._by_frame(frames, seed)
        return {frame: str(found[frame].value) for frame in self.places(frames, seed)}

    def _fill(self, value_F: Array, value: Any, scope: Mapping[str, Value], start: int, end: int) -> None:
        if isinstance(value, ConfigError):
            raise value
        if isinstance(value, float):
            value_F[start] = value
            return
        frames = len(value_F)
        local = {name: held[start:end] if len(held) == frames else held for name, held in scope.items()}
        value_F[start:end] = value.evaluate(local, end - start)

    def _tween(self, value_F: Array, degree: int) -> Array:
        known = np.flatnonzero(~np.isnan(value_F))
        if not len(known):
            raise Place(self.text).error("the values are not numbers at any frame; guard the formula")
        value_F[0], value_F[-1] = value_F[known[0]], value_F[known[-1]]
        known, missing = np.flatnonzero(~np.isnan(value_F)), np.flatnonzero(np.isnan(value_F))
        if degree == 1 or not len(missing):
            value_F[missing] = np.interp(missing, known, value_F[known])
        elif len(known) <= degree:
            raise Place(self.text).error(f"a curve of degree {degree} needs {degree + 1} values")
        else:
            value_F[missing] = spline(
                known.astype(np.float64), value_F[known], missing.astype(np.float64), degree
            )
        return value_F

    def places(self, frames: int, seed: int) -> list[int]:
        """The frames of the keys inside the clip, rising; `ConfigError` when there are none."""
        inside = sorted(frame for frame in self._by_frame(frames, seed) if 0 <= frame < frames)
        if not inside:
            raise Place(self.text).error(f"no key is inside the clip of {frames} frames; write one at 0")
        return inside

    def _by_frame(self, frames: int, seed: int) -> dict[int, _Key]:
        """The key of each frame; the last written of several."""
        found = {}
        for key in self.keys:
            if isinstance(key.place, int):
                found[key.place] = key
                continue
            place = key.place.evaluate({"max_f": np.full(1, frames - 1), "s": np.full(1, seed)}, 1)[0]
            if not np.isfinite(place):
                raise key.place.error(f"a key at frame {place}; write a whole number")
            found[int(place)] = key
        return found

    def surprises(self, frames: int, seed: int) -> Iterator[str]:
        """What this dialect does with this string that its writer may not expect."""
        for frame, key in sorted(self._by_frame(frames, seed).items()):
            if frame >= frames:
                yield f"key {key.written} is past the end: it and the way to it are dropped"
            if frame < 0:
                yield f"key {key.written} is before the first frame: it is never reached"
        if len(self._by_frame(frames, seed)) > 1:
            yield from self._held()

    def _held(self) -> Iterator[str]:
        for key in self.keys:
            if isinstance(key.value, Formula) and not re.search(r"[A-Za-df-z_]", key.value.text):
                yield f"key {key.written}: {key.value.text} is a formula here, held and not tweened from"


def check_interpolation(name: str) -> Interpolation:
    """The name itself; `ConfigError` when there is no such tweening."""
    if name not in DEGREES:
        raise unknown_name("interpolation", name, DEGREES)
    return name  # type: ignore[return-value]


def _outside_parentheses(text: str) -> list[str]:
    """The parts between commas that stand in no parentheses."""
    cuts, depth = [-1], 0
    for match in re.finditer(r"[(),]", text):
        depth += {"(": 1, ")": -1, ",": 0}[match[0]]
        if match[0] == "," and depth == 0:
            cuts.append(match.start())
    return [text[a + 1 : b] for a, b in pairwise([*cuts, len(text)])]


def _read(text: str, parts: list[str], words: bool) -> tuple[_Key, ...]:
    keys, start, formulas = [], 0, dict[str, None]()
    for part in parts:
        key = _key(text, part, start, words)
        keys.append(key)
        start += len(part) + 1
        for formula in (key.place, key.value):
            if isinstance(formula, Formula):
                formulas[formula.text] = None
        if len(formulas) > MAX_FORMULAS:
            raise Place(text).error(f"more than {MAX_FORMULAS} formulas in one schedule; use numbers", start)
    return tuple(keys)


def _key(text: str, part: str, start: int, words: bool) -> _Key:
    place, colon, rest = part.partition(":")
    written = place.strip()
    at = start + len(place) - len(place.lstrip())
    position = _position(text, place, written, at)
    if not colon:
        raise Place(text, at).error("no ':' between a frame and its value; write 30:(2)", len(written))
    value = rest.partition(":")[0]
    column = start + len(place) + 1 + len(value) - len(value.lstrip())
    if words:
        return _Key(position, value.strip().translate(_DROPPED), written, at)
    return _Key(position, _value(Place(text, column, written), value.strip()), written, at)


def _position(text: str, place: str, written: str, at: int) -> int | Formula:
    spot = Place(text, at)
    if not written:
        raise spot.error(
            "a key is missing; write a frame before each value, as in 30:(2), or remove the comma"
        )
    if _NUMBER.fullmatch(written.translate(_DROPPED)):
        try:
            return int(place.translate(_DROPPED))
        except ValueError:
            raise spot.error(f"a key at {written[:20]}; write a whole frame, such as 2") from None
    formula = written
    for quote in "'\"":
        formula = formula.replace(quote, "", 1)
    for quote in "'\"":
        formula = formula[::-1].replace(quote, "", 1)[::-1]
    return Formula(formula, _KEY_NAMES, Place(text, at + written.find(formula[:1] or written)))


def _value(spot: Place, written: str) -> float | Formula | ConfigError:
    plain = written.translate(_DROPPED)
    try:
        if _NUMBER.fullmatch(plain):
            return float(plain)
        return Formula(written, _NAMES, spot)
    except ConfigError as error:
        return error
    except ValueError:
        return spot.error(f"{written[:20]} is a sign without a number; write one behind it")
