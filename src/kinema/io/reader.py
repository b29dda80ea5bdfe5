"""What every source of frames offers, and picking frames from it at another rate.

Output frame k of a clip resampled to r frames per second shows the source frame whose start is nearest to
k / r; of a clip that is gone on from, the frames are counted from its last moment instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.errors import MediaError
from kinema.io.image import flatten

MAX_FRAMES = 1_000_000


class VideoReader(ABC):
    """A clip on disk; iterating yields its frames, uint8 `[H, W, 3]` RGB, in order, as often as wanted.

    Transparency is laid on black, or kept where `keeps_alpha` says so: then all frames of a file that has
    any are `[H, W, 4]`. `read` always gives RGB.

    Attributes:
        path: the file or folder.
        size: (width, height) of the frames, after rotation.
        fps: the nominal rate; for a variable rate the mean.
        has_sound: whether the file says that sound goes with the pictures.
        keeps_alpha: set before the first frame is drawn.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    has_sound: bool = False
    keeps_alpha: bool = False

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.times)

    @property
    @abstractmethod
    def times(self) -> np.ndarray:
        """Start of every frame in seconds, float64 `[F]`, the first at 0."""

    @property
    @abstractmethod
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]: ...

    def __len__(self) -> int:
        return self.frames

    def check(self) -> None:  # noqa: B027 (most formats tell while they are read)
        """Refuse a clip in which pictures are missing or damaged, at the cost of a decoding pass.

        Raises:
            MediaError: the decoder says so, or finds another number of frames than another decoder.
        """

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames with these indices, in the order asked for: uint8 `[N, H, W, 3]`.

        Raises:
            MediaError: an index is not in 0..frames-1, or the file is damaged.
        """
        wanted = self._checked(indices)
        found: dict[int, np.ndarray] = {}
        last = max(wanted, default=-1)
        for index, frame in enumerate(self):
            if index in wanted:
                found[index] = flatten(frame)
            if index >= last:
                break
        width, height = self.size
        out = np.empty((len(wanted), height, width, 3), np.uint8)
        for row, index in enumerate(wanted):
            out[row] = found[index]
        return out

    def _checked(self, indices: Sequence[int]) -> list[int]:
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self.frames:
                raise MediaError(
                    f"{str(self.path)!r} has no frame {index}; it has frames 0 to {self.frames - 1}."
                )
        return wanted

    def _one_size(self, frame: np.ndarray, index: int) -> np.ndarray:
        """The frame, after a check that it has the clip's size."""
        if frame.shape[1::-1] != self.size:
            found = f"{frame.shape[1]}x{frame.shape[0]}"
            wanted = f"{self.size[0]}x{self.size[1]}"
            raise MediaError(
                f"frame {index} of {str(self.path)!r} is {found}, the first {wanted}; make all one size."
            )
        return frame


def resample(reader: VideoReader, fps: Fraction) -> Iterator[np.ndarray]:
    """The clip at another rate, by repeating and leaving out frames; its duration stays.

    One pass over the reader, one frame held at a time.
    """
    return picked(reader, nearest_frames(reader.times, reader.duration, fps))


def leading_up(reader: VideoReader, fps: Fraction) -> np.ndarray:
    """Indices of the frames that lead up to a clip's last moment at another rate, int64 `[at least 1]`.

    Output frame k of n lies (n - 1 - k) / fps before the end, less one frame at the clip's own rate. The last
    is always the clip's last, which is what goes on; the first may lie a quarter of a frame before the clip's
    first, since files round their times (a GIF to centiseconds). A steady clip at its own rate is all of its
    frames.
    """
    own, times = float(reader.fps), reader.times
    if fps == reader.fps and float(np.abs(times * own - np.arange(len(times))).max()) < 0.5:
        return np.arange(len(times))
    end = max(reader.duration - 1 / own, 0.0)
    slack = 0.25 * min(1.0, float(fps) / own)
    count = int(end * float(fps) + slack) + 1
    _check_count(count, reader.duration, fps)
    indices = _nearest(times, np.maximum(end - np.arange(count)[::-1] / float(fps), 0.0))
    indices[-1] = len(times) - 1
    return indices


def picked(reader: VideoReader, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The frames with these indices, which never fall; one pass over the reader, one frame held at a time."""
    for frame, count in zip(reader, np.bincount(indices, minlength=reader.frames), strict=False):
        for _ in range(count):
            yield frame


def nearest_frames(times: np.ndarray, duration: float, fps: Fraction) -> np.ndarray:
    """For each output frame, the index of the source frame that starts nearest to it (the earlier on a tie).

    Args:
        times: start of every source frame in seconds, rising, float64 `[F]`.
        duration: seconds from the first start to the last end.
        fps: output frames per second.

    Returns:
        int64 `[max(1, round(duration * fps))]`, never falling.
    """
    count = max(1, round(duration * float(fps)))
    _check_count(count, duration, fps)
    return _nearest(times, np.arange(count) / float(fps))


def _check_count(count: int, duration: float, fps: Fraction) -> None:
    if count > MAX_FRAMES:
        raise MediaError(f"{duration:.0f} s at {fps} fps are {count} frames; the limit is {MAX_FRAMES}.")


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the frame whose start is nearest to each wanted time, the earlier on a tie."""
    slack = min(1e-3, float(np.diff(times).min(initial=1.0)) / 4)  # Matroska rounds to milliseconds
    borders = (times[1:] + times[:-1]) / 2 + slack
    return np.searchsorted(borders, wanted, side="left")
