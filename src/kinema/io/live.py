"""A clip that can be watched while it is made: a fragmented MP4 that grows by a fragment per frame.

A plain MP4 has its index at the end, so one that was cut off shows nothing. This one is whole up to the last
frame that was written, whatever ends the writer. It is a draft beside the result, quicker to encode and
larger, and never stands under the result's name. A file that was there before is never taken for it.
"""

from __future__ import annotations

import contextlib
import os
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
    """Where the draft of an output is: `fox.mp4.live.mp4` beside `fox.mp4`."""
    if out.parent.is_dir():
        return out.with_name(f"{out.name}.live.mp4")
    # a sequence whose folder is made with it
    return out.parent.with_name(f"{out.parent.name}-{out.name}.live.mp4")


class Draft:
    """The file of a draft, which is written and removed only if it was made for one.

    Args:
        path: the file.
        inode: what the file system called it when an earlier process made it; None when none did.
        made: told that, when this process has made it.
    """

    def __init__(
        self, path: Path, inode: int | None = None, made: Callable[[int], None] = lambda _: None
    ) -> None:
        self.path = path
        self._inode, self._made = inode, made

    @property
    def ours(self) -> bool:
        """Whether the file is there, and is the one that was made."""
        try:
            return self._inode is not None and self.path.lstat().st_ino == self._inode
        except OSError:
            return False

    def check(self) -> None:
        """Refuse a file that somebody else has put there."""
        if os.path.lexists(self.path) and not self.ours:
            raise MediaError(
                f"{str(self.path)!r} exists, where the live draft would be; move it away, or do without the "
                "draft."
            )

    def claim(self) -> None:
        """Make the file, unless it is ours already; `MediaError` when it cannot be made."""
        if self.ours:
            return
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise MediaError(f"cannot write {str(self.path)!r}: {error.strerror}.") from None
        try:
            self._inode = os.fstat(handle).st_ino
        finally:
            os.close(handle)
        self._made(self._inode)

    def remove(self) -> None:
        """Remove the file if it is ours."""
        if self.ours:
            self.path.unlink(missing_ok=True)


class Live:
    """Frames that are also written to a draft as they are drawn.

    A draft that cannot be written is given up with a note; the frames go on.

    Args:
        frames: to be drawn.
        draft: written anew when the frames are drawn again.
        fps: frames per second.
        note: told why a draft was given up.
    """

    def __init__(
        self, frames: Iterable[np.ndarray], draft: Draft, fps: Fraction, note: Callable[[str], None]
    ) -> None:
        self._frames, self._draft, self._fps, self._note = frames, draft, fps, note

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
        self._draft.claim()
        path = self._draft.path
        height, width, _ = frame.shape
        arguments = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
        arguments += ["-framerate", str(self._fps), "-probesize", "32", "-i", "pipe:0"]
        arguments += [*CODECS["h264"].encode_arguments("medium", size=(width, height), alpha=False)]
        arguments += [*_AT_ONCE, *_FRAGMENTS]
        return FrameSink([*arguments, "-f", "mp4", ffmpeg.url(path)], path, path)


def _finish(sink: FrameSink) -> None:
    """Let the encoder write what it has, however the drawing of frames has ended."""
    with contextlib.suppress(MediaError):
        sink.__exit__(None, None, None)


def _even(frame_HWC: np.ndarray) -> np.ndarray:
    height, width, _ = frame_HWC.shape
    if height % 2 == 0 and width % 2 == 0:
        return frame_HWC
    return np.pad(frame_HWC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
