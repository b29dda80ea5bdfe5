"""A sound that begins again when it ends, as `sound: {loop: true}` plays it.

feature(t + seconds) = feature(t)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinema.io.audio import Recording

Array = NDArray[np.float64]

MAX_TURNS = 10_000
MAX_SECONDS = 3600.0  # of a shot


class Looped:
    """A recording without an end.

    Args:
        recording: of one turn.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    @property
    def tempo(self) -> float:
        """Beats per minute of one turn."""
        return self.recording.tempo

    @property
    def beats(self) -> Array:
        """Seconds of each beat of as many turns as fill the longest shot."""
        turns = min(MAX_TURNS, int(np.ceil(MAX_SECONDS / self.recording.seconds)))
        begins_N = np.arange(turns) * self.recording.seconds
        return np.add.outer(begins_N, self.recording.beats).ravel()

    def feature(self, name: str, arguments: tuple[float, ...], edges_F: Array) -> Array:
        """A feature over each frame, `[F]`; a frame in which a turn ends hears that end and what follows it.

        Args:
            name, arguments: as `Recording.feature`.
            edges_F: the borders of the F frames in seconds, `[F + 1]`; before 0 there is silence.
        """
        if name == "audio.tempo":
            return self.recording.feature(name, arguments, edges_F)
        seconds, value_F = self.recording.seconds, np.zeros(len(edges_F) - 1)
        for turn in range(max(int(edges_F[0] // seconds) - 1, 0), max(int(edges_F[-1] // seconds), 0) + 1):
            begin = turn * seconds
            # with a frame to either side: what begins is told by the nearest one
            first = max(int(np.searchsorted(edges_F, begin)) - 2, 0)
            last = min(int(np.searchsorted(edges_F, begin + seconds)) + 1, len(value_F))
            if first < last:
                heard = self.recording.feature(name, arguments, edges_F[first : last + 1] - begin)
                value_F[first:last] = _together(name, value_F[first:last], heard)
        return value_F


def _together(name: str, one_F: Array, other_F: Array) -> Array:
    """A feature of two parts of a frame, each 0 outside its own part."""
    if name in ("audio.beat", "audio.onset"):
        return np.maximum(one_F, other_F)
    return np.hypot(one_F, other_F)  # of loudness the squares add up
