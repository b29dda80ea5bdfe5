"""Frames into a video file that every player shows alike, encoded while they are drawn.

The suffix names the format: .mp4 and .mov (H.264), .webm (VP9), .mkv (FFV1, lossless), .gif, .webp, a
single .png or .jpg, or `folder/%04d.png` for one picture per frame. Frames with alpha become ProRes 4444
in .mov and keep it in .webm, .mkv, .gif, .webp and .png. Memory does not grow with length: one frame is
held at a time.
"""

from __future__ import annotations

import errno
import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, KinemaError, MediaError, unknown_name
from kinema.core.failpoints import reach
from kinema.io import containers, ffmpeg
from kinema.io.atomic import check_target, publish, staging
from kinema.io.count import count_frames
from kinema.io.formats import CODECS, QUALITIES, STILLS, Codec, Container, Quality, choose_codec, container_of
from kinema.io.frame_sink import EncoderError, FrameSink
from kinema.io.image import check_frame, check_image_target, flatten
from kinema.io.mux import CODECS as AUDIO_CODECS
from kinema.io.mux import AudioPart, mux
from kinema.io.names import is_numbered, sidecar_path
from kinema.io.picture_write import PictureSequence, Still, check_sequence, is_still, not_one
from kinema.io.record import check_sidecar, ffmetadata, record_text

OnNote = Callable[[str], None]
OnReady = Callable[[Mapping[Path, Path]], None]
FrameRate = Fraction | int | float | str

MAX_FPS = 1000
ATTEMPTS = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
MAX_FPS_GIF = 50
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
) -> Path:
    """Encode frames as they come into a file that appears under its name only when it is complete.

    An encoder that dies, hangs or loses frames is started again, up to `ATTEMPTS` times in all, if the frames
    can be drawn again: an array, a list, a clip that is not a stream.

    Args:
        path: the file to make; its suffix is the format.
        frames: uint8 arrays `[H, W, 3 or 4]`, all of one shape; drawn in order.
        fps: frames per second, 24, 23.976 or "30000/1001".
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

    Returns:
        The path.

    Raises:
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
    if audio and isinstance(writer, _Encoded) and writer.container.muxer in AUDIO_CODECS:
        writer.audio = audio
    elif audio:
        note(f"{path.name}: this format has no sound; .mp4, .mov, .webm and .mkv have.")
    with staging(_home(path)) as work:
        ready = dict(_encoded(writer, frames, size, work, note))
        reach("encode.done")
        if sidecar and record is not None:
            ready |= _beside(ready, sidecar_path(path), record, work)
        if on_ready is not None:
            on_ready(ready)
        writer.clear()
        for staged, target in ready.items():
            publish(staged, target)
        reach("publish.done")
    return path


def _encoded(
    writer: _Encoded | Still | PictureSequence,
    frames: Iterable[np.ndarray],
    size: tuple[int, int] | None,
    work: Path,
    note: OnNote,
) -> Iterable[tuple[Path, Path]]:
    """What the writer makes of the frames; again where the encoder failed and they can be drawn again."""
    for attempt in range(1, ATTEMPTS + 1):
        place = work / f"{attempt}"
        place.mkdir()
        try:
            return writer.write(_checked(frames, size), place)
        except EncoderError as error:
            if attempt == ATTEMPTS or isinstance(frames, Iterator) or getattr(frames, "is_stream", False):
                raise
            note(f"{error} It is tried again.")
            shutil.rmtree(place, ignore_errors=True)
        except OSError as error:
            if isinstance(error, KinemaError) or error.errno not in _NO_ROOM:
                raise
            raise MediaError(f"cannot write {str(writer.path)!r}: {error.strerror}.") from None
    raise AssertionError("the last attempt returns or raises")


def _beside(ready: Mapping[Path, Path], target: Path, record: Record, work: Path) -> dict[Path, Path]:
    """The record beside the file: where it is, and where it belongs; in a new folder it is part of that."""
    new = next((staged for staged, place in ready.items() if place == target.parent), None)
    staged = (new or work) / target.name
    staged.write_text(record_text(record), "utf-8")
    return {} if new else {staged: target}


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
) -> _Encoded | Still | PictureSequence:
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
    container = container_of(path.suffix)
    choose_codec(container, codec, quality)
    if rate > fastest(path):
        raise ConfigError(
            f"fps={rate} is above {MAX_FPS_GIF}, the most that players show of a GIF; use .webp or .mp4."
        )
    check_target(path, overwrite=overwrite)
    ffmpeg.executable()
    return _Encoded(path, container, rate, record, quality, codec, note)


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


class _Encoded:
    """A container that ffmpeg writes."""

    def __init__(
        self,
        path: Path,
        container: Container,
        rate: Fraction,
        record: Record | None,
        quality: Quality,
        codec: str | None,
        note: OnNote,
    ) -> None:
        self.audio: Sequence[AudioPart] = ()
        self.container = container
        self.path = path
        self._rate = rate
        self._record = record
        self._quality = quality
        self._codec = codec
        self._note = note

    def clear(self) -> None:
        """Nothing is in the way that the new file does not replace."""

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        first = next(frames)
        name = choose_codec(self.container, self._codec, self._quality, alpha=first.shape[2] == 4)
        codec = CODECS[name]
        prepare = self._preparation(codec, first)
        height, width = prepare(first).shape[:2]
        size = (width, height)
        count = itertools.count()
        shown = (prepare(frame) for frame, _ in zip(itertools.chain([first], frames), count, strict=False))
        if name == "gif":
            result = self._gif(shown, size, work, alpha=first.shape[2] == 4)
        else:
            result = work / f"video{self.path.suffix.lower()}"
            self._encode(shown, size, codec, self.container, result, work)
            if self.audio:
                result = self._with_audio(result, next(count), work)
        return [(self._with_record(result, size, work), self.path)]

    def _preparation(self, codec: Codec, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """What every frame goes through: onto black without alpha, to even sides by one repeated pixel."""
        height, width, channels = first.shape
        pad = ((0, height % 2), (0, width % 2), (0, 0)) if codec.even else ((0, 0),) * 3
        drop = channels == 4 and codec.pixels_alpha is None
        if drop:
            self._note(
                f"{self.path.name}: transparency is laid on black; .mov, .webm, .gif and .webp keep it."
            )
        if codec.even and (height % 2 or width % 2):
            even = f"{width + width % 2}x{height + height % 2}"
            self._note(
                f"{self.path.name}: {width}x{height} is padded to {even}, as 4:2:0 video needs even sides."
            )

        def prepare(frame: np.ndarray) -> np.ndarray:
            flat = flatten(frame) if drop else frame
            return np.pad(flat, pad, mode="edge") if pad != ((0, 0),) * 3 else flat

        return prepare

    def _encode(
        self,
        frames: Iterator[np.ndarray],
        size: tuple[int, int],
        codec: Codec,
        container: Container,
        result: Path,
        work: Path,
    ) -> None:
        first = next(frames)
        alpha = first.shape[2] == 4
        arguments = ["-f", "rawvideo", "-pixel_format", "rgba" if alpha else "rgb24"]
        arguments += ["-video_size", f"{size[0]}x{size[1]}", "-framerate", str(self._rate), "-i", "pipe:0"]
        if container.tags and self._record is not None:
            arguments += self._tags(work, 1)
        # bitexact: the same frames give the same bytes (Matroska would draw a random identity)
        arguments += [
            "-map",
            "0:v:0",
            *codec.encode_arguments(self._quality, size=size, alpha=alpha),
            "-fflags",
            "+bitexact",
        ]
        arguments += [*container.arguments, "-f", container.muxer, ffmpeg.url(result)]
        sent = 0
        with FrameSink(arguments, self.path, result) as sink:
            reach("encode.begun")
            for frame in itertools.chain([first], frames):
                sink.write(frame)
                sent += 1
                reach("encode.frame")
        if (found := count_frames(result, container.muxer)) not in (None, sent):
            raise EncoderError(
                f"cannot write {str(self.path)!r}: the encoder took {sent} frames and wrote {found}."
            )

    def _tags(self, work: Path, index: int) -> list[str]:
        """A further input, number `index`, that carries the record's tags."""
        assert self._record is not None
        (work / "tags.txt").write_bytes(ffmetadata(self._record))
        return ["-f", "ffmetadata", "-i", ffmpeg.url(work / "tags.txt"), "-map_metadata", str(index)]

    def _with_audio(self, video: Path, frames: int, work: Path) -> Path:
        """The same pictures and tags, with sound."""
        result = work / f"sound{self.path.suffix.lower()}"
        tagged = self._record is not None and self.container.tags
        metadata = self._tags(work, 1 + len(self.audio)) if tagged else []
        mux(video, self.audio, frames / self._rate, self.container, result, metadata=metadata)
        return result

    def _gif(self, frames: Iterator[np.ndarray], size: tuple[int, int], work: Path, *, alpha: bool) -> Path:
        """One palette for all frames; by way of a lossless file, since one ffmpeg would hold them all."""
        master, palette, result = work / "master.mkv", work / "palette.png", work / "video.gif"
        self._encode(frames, size, CODECS["ffv1"], Container("matroska", ("ffv1",), tags=False), master, work)
        what = f"cannot write {str(self.path)!r}"
        source = ["-i", ffmpeg.url(master)]
        transparent = f"reserve_transparent={int(alpha)}"
        made = ["-vf", f"palettegen={transparent}", "-frames:v", "1", "-update", "1", "-f", "image2"]
        ffmpeg.run([*source, *made, ffmpeg.url(palette)], seconds=86_400).check(what)
        used = [
            "-i",
            ffmpeg.url(palette),
            "-lavfi",
            "paletteuse=dither=sierra2_4a",
            "-loop",
            "0",
            "-f",
            "gif",
        ]
        ffmpeg.run([*source, *used, ffmpeg.url(result)], seconds=86_400).check(what)
        return result

    def _with_record(self, result: Path, size: tuple[int, int], work: Path) -> Path:
        """The finished file with the record inside, for the containers in which ffmpeg cannot put it."""
        if self._record is None or self.container.tags:
            return result
        if self.container.muxer == "webp":
            packet = containers.xmp_packet(record_text(self._record))
            containers.add_webp_xmp(result, packet, (size[0], size[1]))
            return result
        containers.add_gif_comment(result, work / "commented.gif", record_text(self._record, ascii_only=True))
        return work / "commented.gif"
