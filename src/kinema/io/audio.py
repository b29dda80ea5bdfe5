"""`listen`: a sound file as numbers over frames, for schedules such as `1 + audio.band(60, 200)`.

The file is decoded once by the bundled ffmpeg to one channel of 22,050 samples per second, and known by its
content from then on, so that the same file gives the same numbers and is not listened to twice.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, MediaError
from kinema.io import ffmpeg
from kinema.io.audio_features import (
    FINE_HOP,
    HOP,
    LATE,
    RATE,
    WINDOW,
    beats,
    energies,
    heard_between,
    onsets,
    steady_tempo,
    tempo,
)
from kinema.io.audio_source import open_audio

Array = NDArray[np.float64]

MAX_SECONDS = 3600
_QUIET = 1e-3  # of the loudest moment: -60 dB
_KEPT = 4
_known: OrderedDict[str, Recording] = OrderedDict()
_lock = Lock()


def listen(path: str | Path) -> Recording:
    """The sound of a file: WAV, FLAC, MP3, AAC, Ogg, AIFF, or that of a clip; its first hour.

    Raises:
        MediaError: missing, no sound by its content, or damaged.
    """
    source = open_audio(path)
    with source.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with _lock:
        if digest in _known:
            _known.move_to_end(digest)
            return _known[digest]
    recording = Recording(_decode(source.path, source.arguments))
    with _lock:
        _known[digest] = recording
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return recording


def _decode(path: Path, arguments: tuple[str, ...]) -> NDArray[np.float32]:
    """One channel, -1 to 1, `[N]`."""
    form = ["-map", "0:a:0", "-t", str(MAX_SECONDS), "-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"]
    limit = (MAX_SECONDS + 1) * RATE * 2
    result = ffmpeg.run([*arguments, *form], limit=limit, stranger=True).check(f"cannot read {str(path)!r}")
    samples = np.frombuffer(result.output[: len(result.output) // 2 * 2], "<i2")
    if not len(samples):
        raise MediaError(f"cannot read {str(path)!r}: no sound can be decoded; it may be cut off.")
    return samples.astype(np.float32) / np.float32(32768.0)


class Recording:
    """A sound that was listened to; what it holds is worked out when it is first asked for.

    Attributes:
        samples: one channel of 22,050 samples per second, float32, -1 to 1, `[N]`.
    """

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self.samples = samples
        self._energies: dict[tuple[float, float], Array] = {}

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE

    @property
    def tempo(self) -> float:
        """Beats per minute; 0 when there is no beat in it."""
        return self._rhythm[0]

    @property
    def beats(self) -> Array:
        """Seconds of each beat, rising, float64."""
        return self._rhythm[1]

    def feature(self, name: str, arguments: tuple[float, ...], edges_F: Array) -> Array:
        """A feature over each frame, 0 outside the sound.

        Args:
            name: `audio.rms`, `audio.onset`, `audio.beat`, `audio.tempo`, `audio.band` or `audio.level`.
            arguments: for the last two, the lower and the upper frequency in Hz.
            edges_F: the borders of the F frames in seconds, `[F + 1]`.

        Returns:
            float64 `[F]`, in 0..1 but for the tempo.

        Raises:
            ConfigError: an unknown name, or a band in which no frequency is told from others.
        """
        half = np.diff(edges_F, append=2 * edges_F[-1] - edges_F[-2]) / 2 if len(edges_F) > 1 else 0.0
        if name == "audio.tempo":
            return np.full(len(edges_F) - 1, self.tempo)
        if name == "audio.beat":  # the frame whose beginning is nearest
            return (np.diff(np.searchsorted(self.beats, edges_F - half)) > 0).astype(np.float64)
        if name == "audio.onset":
            return _highest(self._onsets, edges_F - half)
        if name == "audio.rms":
            return np.sqrt(self._mean(self._energy(0.0, RATE), edges_F)) / self._loudest
        if name in ("audio.band", "audio.level"):
            return self._band(name, arguments, edges_F)
        raise ConfigError(f"unknown feature {name!r} of a sound.")

    def _band(self, name: str, arguments: tuple[float, ...], edges_F: Array) -> Array:
        low, high = arguments
        if not heard_between(low, high).any():
            raise ConfigError(
                f"nothing is heard from {low:g} to {high:g} Hz: frequencies are told {RATE / WINDOW:.3g} Hz "
                f"apart, up to {RATE / 2:g}; write a wider band, or a lower one"
            )
        energy_H = self._energy(*arguments)
        own = float(np.sqrt(energy_H.max(initial=0.0)))
        if name == "audio.level" and own < _QUIET * self._loudest:
            return np.zeros(len(edges_F) - 1)
        scale = self._loudest if name == "audio.band" else own
        return np.sqrt(self._mean(energy_H, edges_F)) / scale

    def _energy(self, low: float, high: float) -> Array:
        """Mean square between two frequencies, around each multiple of `HOP`."""
        if (low, high) not in self._energies:
            self._energies[low, high] = energies(self.samples, low, high)
        return self._energies[low, high]

    def _mean(self, energy_H: Array, edges_F: Array) -> Array:
        """The mean over each frame of what is known around each multiple of `HOP`, straight in between."""
        at_H = np.arange(len(energy_H)) * HOP / RATE
        total_H = np.concatenate([np.zeros(1), np.cumsum((energy_H[1:] + energy_H[:-1]) / 2 * HOP / RATE)])
        inside_F = np.clip(edges_F, 0.0, at_H[-1])
        # the integral of a polygon is a parabola in between; its nodes are enough at 43 a second
        node_H = np.searchsorted(at_H, inside_F, side="right").clip(1, max(len(at_H) - 1, 1)) - 1
        since = inside_F - at_H[node_H]
        slope = np.append(np.diff(energy_H), 0.0)[node_H] * RATE / HOP
        area_F = total_H[node_H] + since * (energy_H[node_H] + slope * since / 2)
        return np.maximum(np.diff(area_F) / np.diff(edges_F), 0.0)

    @cached_property
    def _loudest(self) -> float:
        return max(float(np.sqrt(self._energy(0.0, RATE).max(initial=0.0))), 1e-9)

    @cached_property
    def _onsets(self) -> Array:
        return onsets(self.samples)

    @cached_property
    def _rhythm(self) -> tuple[float, Array]:
        guess = tempo(self._onsets)
        found = beats(self._onsets, guess)
        return (steady_tempo(found, guess), found) if len(found) > 1 else (0.0, np.zeros(0))


def _highest(onset_H: Array, edges_F: Array) -> Array:
    """The highest onset in each frame; the first is at 0, where only a part of its window is heard."""
    index = np.ceil((edges_F - LATE) * RATE / FINE_HOP)
    index = np.clip(index, edges_F > 0, len(onset_H)).astype(np.intp)
    return np.array([onset_H[a:b].max(initial=0.0) for a, b in pairwise(index)])
