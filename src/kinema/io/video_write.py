"""Frames into a video file that every player shows alike, encoded while they are drawn.

The suffix names the format: .mp4 and .mov (H.264), .webm (VP9), .mkv (FFV1, lossless), .gif, .webp, a
single .png or .jpg, or `folder/%04d.png` for one picture per frame. Frames with alpha become ProRes 4444
in .mov and keep it in .webm, .mkv, .gif, .webp and .png. Memory does not grow with length: one frame is
held at a time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, KinemaError, MediaError, unknown_name
from kinema.core.failpoints import reach
from kinema.io import ffmpeg
from kinema.io.atomic import (
    TakenError,
    cannot_write,
    check_target,
    publish_all,
    set_aside,
    staging,
    taken,
)
from kinema.io.encoded_write import Encoded
from kinema.io.formats import QUALITIES, STILLS, Quality, choose_codec, container_of
from kinema.io.frame_sink import EncoderError
from kinema.io.hidden import lock_of
from kinema.io.image import check_frame, check_image_target
from kinema.io.mux import CODECS as AUDIO_CODECS
from kinema.io.mux import AudioPart
from kinema.io.names import is_numbered, sidecar_path
from kinema.io.picture_write import PictureSequence, Still, check_sequence, is_still, not_one
from kinema.io.probe import SLOWEST
from kinema.io.record import check_sidecar, record_text

OnNote = Callable[[str], None]
OnReady = Callable[[Mapping[Path, Path]], None]
FrameRate = Fraction | int | float | str

MAX_FPS = 1000
ATTEMPTS = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
MAX_FPS_GIF = 50
_SLOWEST = {".gif": Fraction(1, 655), ".webp": Fraction(1, 16_777)}  # by the bits of a frame's duration
_log = logging.getLogger("kinema.io")


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    *,
    fps: FrameRate,
    size: tuple[int, int] | None = None,
    record: Record | None = None,
    overwrite: bool = False,
    sidecar: bool = False,
    quality: Quality = "high",
    codec: str | None = None,
    audio: Sequence[AudioPart] = (),
    on_note: OnNote | None = None,
    on_ready: OnReady | None = None,
    claimed: bool = False,
) -> Path:
    """Encode frames as they come into a file that appears under its name only when it is complete.

    An encoder that dies, hangs or loses frames is started again, up to `ATTEMPTS` times in all, if the frames
    can be drawn again: an array, a list, a clip that is not a stream.

    Args:
        path: the file to make; its suffix is the format.
        frames: uint8 arrays `[H, W, 3 or 4]`, all of one shape; drawn in order.
        fps: frames per second, 24, 23.976 or "30000/1001"; at least 0.1 in .mp4, .mov, .webm and .mkv.
        size: the (width, height) that the frames must have; None takes the first frame's.
        record: what the file remembers of its making.
        overwrite: whether existing files may be replaced.
        sidecar: also write the record beside the file, as `clip.mp4.json`.
        quality: `small`, `medium`, `high`, or `lossless` where the codec can.
        codec: another codec than the format's first: `h264`, `av1`, `vp9`, `prores`, `ffv1`.
        audio: what is heard: parts of sound files; AAC in .mp4 and .mov, Opus in .webm, FLAC in .mkv. It is
            exactly as long as the pictures. Formats without sound leave it out, with a note.
        on_note: told, in one line, what was changed to fit the format (a padded odd size, dropped alpha);
            None writes it to the log.
        on_ready: told the finished files, from where they are to their final names, before they get them.
        claimed: whether the caller holds `lock_of(path)`; else it is held meanwhile.

    Returns:
        The path.

    Raises:
        BusyError: another process is writing this file.
        TakenError: without `overwrite`, the target has appeared meanwhile; the finished file is beside it,
            under a free name that the message tells.
        MediaError, ConfigError: before the first frame is drawn, when the target cannot be; later, when a
            frame has the wrong shape or the encoder fails. Nothing is left behind, whatever was raised.
    """
    path = Path(path)
    rate = parse_fps(fps)
    note = on_note or _log.warning
    if sidecar and record is not None:
        check_sidecar(path, overwrite=overwrite)
    if record is not None:
        record_text(record)  # refused now where it is too long
    writer = _writer_for(path, rate, record, overwrite=overwrite, quality=quality, codec=codec, note=note)
    if audio and isinstance(writer, Encoded) and writer.container.muxer in AUDIO_CODECS:
        writer.audio = audio
    elif audio:
        note(f"{path.name}: this format has no sound; .mp4, .mov, .webm and .mkv have.")
    with staging(_home(path)) as work, nullcontext() if claimed else lock_of(path):
        ready = dict(_encoded(writer, frames, size, work, note))
        try:
            reach("encode.done")
            if sidecar and record is not None:
                ready |= _beside(ready, sidecar_path(path), record, work)
            if on_ready is not None:
                on_ready(ready)
            publish_all(ready, overwrite=overwrite)
            writer.clear(ready.values())
            reach("publish.done")
        except TakenError:
            raise TakenError(taken(path, _aside(ready, path))) from None
        except OSError as error:
            raise error if isinstance(error, KinemaError) else cannot_write(path, error) from None
    return path


def _encoded(
    writer: Encoded | Still | PictureSequence,
    frames: Iterable[np.ndarray],
    size: tuple[int, int] | None,
    work: Path,
    note: OnNote,
) -> Iterable[tuple[Path, Path]]:
    """What the writer makes of the frames; again where the encoder failed and they can be drawn again."""
    for attempt in range(1, ATTEMPTS + 1):
        place = work / f"{attempt}"
        try:
            place.mkdir()
            return writer.write(_checked(frames, size), place)
        except EncoderError as error:
            if attempt == ATTEMPTS or isinstance(frames, Iterator) or getattr(frames, "is_stream", False):
                raise
            note(f"{error} It is tried again.")
            shutil.rmtree(place, ignore_errors=True)
        except OSError as error:
            if isinstance(error, KinemaError) or error.errno not in _NO_ROOM:
                raise
            raise cannot_write(writer.path, error) from None
    raise AssertionError("the last attempt returns or raises")


def _beside(ready: Mapping[Path, Path], target: Path, record: Record, work: Path) -> dict[Path, Path]:
    """The record beside the file: where it is, and where it belongs; in a new folder it is part of that."""
    new = next((staged for staged, place in ready.items() if place == target.parent), None)
    staged = (new or work) / target.name
    staged.write_text(record_text(record), "utf-8")
    return {} if new else {staged: target}


def _aside(ready: Mapping[Path, Path], path: Path) -> Path:
    """Keep what was made, since its own name is taken; the name that it has instead."""
    made, *more = ready
    if is_numbered(path):
        if made.is_dir():
            return set_aside(made, path.parent) / path.name
        for beside in (staged for staged in more if staged.parent != made.parent):
            beside.replace(made.with_name(beside.name))
        return set_aside(made.parent, path.parent / "frames") / path.name
    free = set_aside(made, path)
    for beside in more:
        with contextlib.suppress(MediaError):  # the file has its record inside, too
            publish_all({beside: sidecar_path(free)}, overwrite=False)
    return free


def check_output(
    path: str | Path,
    *,
    fps: FrameRate,
    frames: int | None = None,
    overwrite: bool = False,
    quality: Quality = "high",
    codec: str | None = None,
    sidecar: bool = False,
) -> None:
    """Refuse, as `write_video` would, a target that cannot be for this many frames; nothing stays written."""
    path = Path(path)
    if frames is not None and frames > 1 and is_still(path):
        raise not_one(path)
    _writer_for(
        path, parse_fps(fps), None, overwrite=overwrite, quality=quality, codec=codec, note=_log.warning
    )
    if sidecar:
        check_sidecar(path, overwrite=overwrite)
    # A folder that takes no files is found out by trying.
    with staging(_home(path)):
        pass


def fastest(path: Path) -> int:
    """Frames a second that a file with this suffix has at most."""
    return MAX_FPS_GIF if path.suffix.lower() == ".gif" else MAX_FPS


def parse_fps(fps: FrameRate) -> Fraction:
    """A rational frame rate; decimals near 24000/1001, 30000/1001, ... mean exactly those.

    Raises:
        ConfigError: not a number, or not above 0 and at most 1000.
    """
    try:
        rate = Fraction(fps)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise ConfigError(
            f'fps={fps!r} is no frame rate; give a number or a fraction such as "30000/1001".'
        ) from None
    if isinstance(fps, float) or (isinstance(fps, str) and "/" not in fps):
        ntsc = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
        near = [candidate for candidate in ntsc if abs(rate - candidate) < Fraction(1, 200)]
        rate = near[0] if near else rate.limit_denominator(1001)
    if not 0 < rate <= MAX_FPS:
        raise ConfigError(f"fps={fps!r} is out of range; it is above 0 and at most {MAX_FPS}.")
    return rate


def _writer_for(
    path: Path,
    rate: Fraction,
    record: Record | None,
    *,
    overwrite: bool,
    quality: Quality,
    codec: str | None,
    note: OnNote,
) -> Encoded | Still | PictureSequence:
    """The writer of this path, after every check that needs no frame."""
    suffix = path.suffix.lower()
    if quality not in QUALITIES:
        raise unknown_name("quality", quality, QUALITIES)
    if suffix in STILLS and codec is not None:
        raise ConfigError(f"codec={codec!r} does not go with {suffix}; leave it out.")
    if is_numbered(path):
        check_sequence(path, overwrite=overwrite)
        return PictureSequence(path, record)
    if suffix in STILLS:
        check_image_target(path, overwrite=overwrite, quality=quality)
        return Still(path, record, quality)
    container = container_of(path)
    choose_codec(container, codec, quality)
    if rate > fastest(path):
        raise ConfigError(
            f"fps={rate} is above {MAX_FPS_GIF}, the most that players show of a GIF; use .webp or .mp4."
        )
    if rate < (least := _SLOWEST.get(suffix, SLOWEST)):
        raise ConfigError(
            f"fps={rate} is below {least}, the least at which a {suffix} is read back; use folder/%04d.png, "
            "or a higher rate with each frame more than once."
        )
    check_target(path, overwrite=overwrite)
    ffmpeg.executable()
    return Encoded(path, container, rate, record, quality, codec, note)


def _home(path: Path) -> Path:
    """The existing folder in which to stage: for a sequence into a new folder, the one around it."""
    return path.parent if path.parent.is_dir() else path.parent.parent


def _checked(frames: Iterable[np.ndarray], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    """The frames, each checked against the shape of the first."""
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        check_frame(frame, index)
        shape = shape or frame.shape
        if size is not None and frame.shape[:2] != (size[1], size[0]):
            raise MediaError(
                f"frame {index} is {frame.shape[1]}x{frame.shape[0]}; size={size[0]}x{size[1]} was given."
            )
        if frame.shape != shape:
            raise MediaError(
                f"frame {index} has shape {list(frame.shape)}, frame 0 {list(shape)}; all must be equal."
            )
        yield frame
    if shape is None:
        raise MediaError("there are no frames to write; a clip has at least one.")
