"""A clip that can be watched while it is made: a fragmented MP4 that grows by a fragment per frame.

A plain MP4 has its index at the end, so one that was cut off shows nothing. This one is whole up to the last
frame that was written, whatever ends the writer. It is a draft beside the result, quicker to encode and
larger, and never stands under the result's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.formats import CODECS
from kinema.io.frame_sink import FrameSink
from kinema.io.image import flatten

_AT_ONCE = ("-preset", "veryfast", "-tune", "zerolatency")
_FRAGMENTS = ("-movflags", "+empty_moov+default_base_moof+frag_every_frame", "-flush_packets", "1")


def live_path(out: Path) -> Path:
    """Where the draft of an output is: `fox.live.mp4` beside `fox.mp4`."""
    stem = out.name.replace("%", "") if "%" in out.name else out.stem
    folder = out.parent if out.parent.is_dir() else out.parent.parent
    return folder / f"{Path(stem).stem}.live.mp4"


class Live:
    """Frames that are also written to a draft as they are drawn.

    A draft that cannot be written is given up with a note; the frames go on.

    Args:
        frames: to be drawn.
        path: the draft; replaced when the frames are drawn again.
        fps: frames per second.
        note: told why a draft was given up.
    """

    def __init__(
        self, frames: Iterable[np.ndarray], path: Path, fps: Fraction, note: Callable[[str], None]
    ) -> None:
        self._frames, self._path, self._fps, self._note = frames, path, fps, note

    def __iter__(self) -> Iterator[np.ndarray]:
        sink: FrameSink | None = None
        with contextlib.ExitStack() as stack:
            for index, frame in enumerate(self._frames):
                shown = _even(flatten(frame) if frame.shape[2] == 4 else frame)
                try:
                    if index == 0:
                        sink = self._sink(shown)
                        stack.callback(_finish, sink)
                    if sink is not None:
                        sink.write(shown)
                except MediaError as error:
                    self._note(f"the draft is given up: {error}")
                    sink = None
                yield frame

    def _sink(self, frame: np.ndarray) -> FrameSink:
        height, width, _ = frame.shape
        arguments = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
        arguments += ["-framerate", str(self._fps), "-probesize", "32", "-i", "pipe:0"]
        arguments += [*CODECS["h264"].encode_arguments("medium", size=(width, height), alpha=False)]
        arguments += [*_AT_ONCE, *_FRAGMENTS]
        return FrameSink([*arguments, "-f", "mp4", ffmpeg.url(self._path)], self._path, self._path)


def _finish(sink: FrameSink) -> None:
    """Let the encoder write what it has, however the drawing of frames has ended."""
    with contextlib.suppress(MediaError):
        sink.__exit__(None, None, None)


def _even(frame_HWC: np.ndarray) -> np.ndarray:
    height, width, _ = frame_HWC.shape
    if height % 2 == 0 and width % 2 == 0:
        return frame_HWC
    return np.pad(frame_HWC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
