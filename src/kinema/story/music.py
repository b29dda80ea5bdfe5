"""What a schedule can hear: the tempo of a shot, and the features of its sound.

    beat(t) = t bpm / 60                        with a tempo
    beat(t) = i + (t - t_i) / (t_{i+1} - t_i)   with a sound whose beats are at t_0, t_1, ...

for t in seconds from the shot's first frame, and t_0 the first beat that is not before it. Without either,
120 beats a minute are assumed, and said. What rounding leaves of a 48th of a beat is taken away, so that a
frame on a beat, or on a half or a third of one, is on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError

Array = NDArray[np.float64]

DEFAULT_BPM = 120.0
_SAME_BEAT = 1e-6  # of a beat: what the sum of the earlier shots' seconds is off by
_PARTS = 48  # of a beat: halves to sixteenths, thirds to twelfths
_ROUNDED = 1e-9  # of a beat: what a product of seconds and tempo is off by

FEATURES: Mapping[str, tuple[int, str]] = {
    "audio.rms": (0, "loudness, 1 at its loudest"),
    "audio.onset": (0, "how much begins here, 1 at the strongest beginning"),
    "audio.beat": (0, "1 on a frame with a beat, else 0"),
    "audio.tempo": (0, "beats per minute"),
    "audio.band": (2, "loudness between two frequencies in Hz, on the scale of audio.rms"),
    "audio.level": (2, "the same, 1 at its own loudest"),
}
"""Name -> how many numbers it takes in parentheses, and what it is."""


class Recording(Protocol):
    """A sound that was listened to; `kinema.io.audio` makes them."""

    @property
    def tempo(self) -> float:
        """Beats per minute; 0 when there is no beat in it."""

    @property
    def beats(self) -> Array:
        """Seconds of each beat, rising, float64."""

    def feature(self, name: str, arguments: tuple[float, ...], edges_F: Array) -> Array:
        """A feature of `FEATURES` over each frame, whose borders in seconds are `edges_F` `[F + 1]`."""


@dataclass(frozen=True, slots=True)
class Music:
    """Tempo and sound of a shot.

    Attributes:
        bpm: beats per minute; None takes the sound's beats.
        audio: None for silence.
        start: where in the sound the shot's first frame is, in seconds.
    """

    bpm: float | None = None
    audio: Recording | None = None
    start: float = 0.0

    @property
    def assumed(self) -> bool:
        """Nobody said how fast the beats are."""
        return self.bpm is None and (self.audio is None or len(self.audio.beats) < 2)

    @property
    def tempo(self) -> float:
        """Beats per minute."""
        if self.bpm is not None:
            return self.bpm
        return DEFAULT_BPM if self.audio is None or self.assumed else self.audio.tempo

    def beat_at(self, seconds_F: Array) -> Array:
        """How many beats have passed at each second; the shot's first is 0, what is before it negative."""
        if self.bpm is not None or self.audio is None or self.assumed:
            return _on_beat(seconds_F * self.tempo / 60.0)
        return self._heard(self.audio, seconds_F + self.start) - self._earlier(self.audio)

    def seconds_of(self, beat: Fraction) -> Fraction:
        """When this beat is, in seconds from the shot's first frame."""
        if self.bpm is not None or self.audio is None or self.assumed:
            return beat * 60 / Fraction(self.tempo).limit_denominator(1_000_000)
        beats = self.audio.beats - self.start
        count = len(beats) - 1
        position = float(beat) + self._earlier(self.audio)
        beyond = max(position - count, 0.0) * 60.0 / self.tempo
        seconds = float(np.interp(position, np.arange(count + 1), beats)) + beyond
        return Fraction(max(seconds, 0.0)).limit_denominator(1_000_000)

    def _heard(self, audio: Recording, seconds_F: Array) -> Array:
        """Beats of the sound since its own first, which go on at its tempo after the last."""
        inside = np.interp(seconds_F, audio.beats, np.arange(len(audio.beats), dtype=np.float64))
        before = np.minimum(seconds_F - audio.beats[0], 0.0)
        after = np.maximum(seconds_F - audio.beats[-1], 0.0)
        return inside + (before + after) * self.tempo / 60.0

    def _earlier(self, audio: Recording) -> int:
        """How many beats of the sound are over when the shot begins."""
        begun = float(self._heard(audio, np.array([self.start]))[0])
        return max(math.ceil(begun - _SAME_BEAT), 0)

    def feature(self, name: str, arguments: tuple[float, ...], edges_F: Array) -> Array:
        """A feature of the sound over each frame; `ConfigError` without a sound."""
        if self.audio is None:
            raise ConfigError(f"{name} needs a sound; add audio: music.mp3 to the shot")
        return self.audio.feature(name, arguments, edges_F + self.start)


def _on_beat(beat_F: Array) -> Array:
    """The same beats without what rounding leaves between them and the nearest 48th."""
    part_F = np.round(beat_F * _PARTS) / _PARTS
    return np.asarray(np.where(np.abs(beat_F - part_F) < _ROUNDED, part_F, beat_F))
