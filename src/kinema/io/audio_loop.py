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
        """A feature over each frame, `[F]`; a frame in which a turn ends hears that end.

        Args:
            name, arguments: as `Recording.feature`.
            edges_F: the borders of the F frames in seconds, `[F + 1]`; before 0 there is silence.
        """
        seconds = self.recording.seconds
        turn_F = np.maximum(np.floor(edges_F[:-1] / seconds + 1e-9), 0).astype(int)
        value_F = np.empty(len(turn_F))
        for turn in np.unique(turn_F):
            rows = np.flatnonzero(turn_F == turn)
            edges = edges_F[rows[0] : rows[-1] + 2] - turn * seconds
            value_F[rows] = self.recording.feature(name, arguments, edges)
        return value_F
