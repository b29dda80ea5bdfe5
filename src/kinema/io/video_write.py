"""Frames into a video file that every player shows alike, encoded while they are drawn.

The suffix names the format: .mp4 and .mov (H.264), .webm (VP9), .mkv (FFV1, lossless), .gif, .webp, a
single .png or .jpg, or `folder/%04d.png` for one picture per frame. Frames with alpha become ProRes 4444
in .mov and keep it in .webm, .mkv, .gif, .webp and .png. Memory does not grow with length: one frame is
held at a time.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, MediaError, unknown_name
from kinema.io import containers, ffmpeg
from kinema.io.atomic import check_target, publish, staging, sync
from kinema.io.formats import CODECS, QUALITIES, STILLS, Codec, Container, Quality, choose_codec, container_of
from kinema.io.image import check_frame, check_image_target, encode_image, flatten
from kinema.io.mux import CODECS as AUDIO_CODECS
from kinema.io.mux import AudioPart, mux
from kinema.io.record import ffmetadata, record_text, sidecar_path

OnNote = Callable[[str], None]
FrameRate = Fraction | int | float | str

_NUMBERED = re.compile(r"%(0[1-9])?d")
_MAX_FPS = 1000
_MAX_FPS_GIF = 50
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
) -> Path:
    """Encode frames as they come into a file that appears under its name only when it is complete.

    Args:
        path: the file to make; its suffix is the format.
        frames: uint8 arrays `[H, W, 3 or 4]`, all of one shape; drawn once, in order.
        fps: frames per second, 24, 23.976 or "30000/1001".
        size: the (width, height) that the frames must have; None takes the first frame's.
        record: what the file remembers of its making.
        overwrite: whether existing files may be replaced.
        sidecar: also write the record beside the file, as `name.json`.
        quality: `small`, `medium`, `high`, or `lossless` where the codec can.
        codec: another codec than the format's first: `h264`, `av1`, `vp9`, `prores`, `ffv1`.
        audio: what is heard: parts of sound files; AAC in .mp4 and .mov, Opus in .webm, FLAC in .mkv. It is
            exactly as long as the pictures. Formats without sound leave it out, with a note.
        on_note: told, in one line, what was changed to fit the format (a padded odd size, dropped alpha);
            None writes it to the log.

    Returns:
        The path.

    Raises:
        MediaError, ConfigError: before the first frame is drawn, when the target cannot be; later, when a
            frame has the wrong shape or the encoder fails. Nothing is left behind, whatever was raised.
    """
    path = Path(path)
    rate = parse_fps(fps)
    note = on_note or _log.warning
    targets = [sidecar_path(path)] if sidecar and record is not None else []
    for target in targets:
        check_target(target, overwrite=overwrite)
    text = record_text(record) if record is not None else ""
    writer = _writer_for(path, rate, record, overwrite=overwrite, quality=quality, codec=codec, note=note)
    if audio and isinstance(writer, _Encoded) and writer.container.muxer in AUDIO_CODECS:
        writer.audio = audio
    elif audio:
        note(f"{path.name}: this format has no sound; .mp4, .mov, .webm and .mkv have.")
    with ExitStack() as stack:
        work = stack.enter_context(staging(_home(path)))
        if targets:
            (work / "record.json").write_text(text, "utf-8")
        writer.write(_checked(frames, size), work)
        for target in targets:
            publish(work / "record.json", target)
    return path


def check_output(
    path: str | Path,
    *,
    fps: FrameRate,
    overwrite: bool = False,
    quality: Quality = "high",
    codec: str | None = None,
) -> None:
    """Refuse, as `write_video` would, a target that cannot be; nothing stays written."""
    path = Path(path)
    _writer_for(
        path, parse_fps(fps), None, overwrite=overwrite, quality=quality, codec=codec, note=_log.warning
    )
    # A folder that takes no files is found out by trying.
    with staging(_home(path)):
        pass


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
    if not 0 < rate <= _MAX_FPS:
        raise ConfigError(f"fps={fps!r} is out of range; it is above 0 and at most {_MAX_FPS}.")
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
) -> _Encoded | _Still | _Sequence:
    """The writer of this path, after every check that needs no frame."""
    suffix = path.suffix.lower()
    if quality not in QUALITIES:
        raise unknown_name("quality", quality, QUALITIES)
    if suffix in STILLS and codec is not None:
        raise ConfigError(f"codec={codec!r} does not go with {suffix}; leave it out.")
    if suffix == ".png" and _NUMBERED.search(path.name):
        _check_sequence(path, overwrite=overwrite)
        return _Sequence(path, record)
    if suffix in STILLS:
        check_image_target(path, overwrite=overwrite, quality=quality)
        return _Still(path, record, quality)
    container = container_of(path.suffix)
    choose_codec(container, codec, quality)
    if suffix == ".gif" and rate > _MAX_FPS_GIF:
        raise ConfigError(
            f"fps={rate} is above {_MAX_FPS_GIF}, the most that players show of a GIF; use .webp or .mp4."
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
        self._path = path
        self._rate = rate
        self._record = record
        self._quality = quality
        self._codec = codec
        self._note = note

    def write(self, frames: Iterator[np.ndarray], work: Path) -> None:
        first = next(frames)
        name = choose_codec(self.container, self._codec, self._quality, alpha=first.shape[2] == 4)
        codec = CODECS[name]
        prepare = self._preparation(codec, first)
        size = prepare(first).shape[1::-1]
        count = itertools.count()
        shown = (prepare(frame) for frame, _ in zip(itertools.chain([first], frames), count, strict=False))
        if name == "gif":
            result = self._gif(shown, size, work, alpha=first.shape[2] == 4)
        else:
            result = work / f"video{self._path.suffix.lower()}"
            self._encode(shown, size, codec, self.container, result, work)
            if self.audio:
                result = self._with_audio(result, next(count), work)
        publish(self._with_record(result, size, work), self._path)

    def _preparation(self, codec: Codec, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """What every frame goes through: onto black without alpha, to even sides by one repeated pixel."""
        height, width, channels = first.shape
        pad = ((0, height % 2), (0, width % 2), (0, 0)) if codec.even else ((0, 0),) * 3
        drop = channels == 4 and codec.pixels_alpha is None
        if drop:
            self._note(
                f"{self._path.name}: transparency is laid on black; .mov, .webm, .gif and .webp keep it."
            )
        if codec.even and (height % 2 or width % 2):
            even = f"{width + width % 2}x{height + height % 2}"
            self._note(
                f"{self._path.name}: {width}x{height} is padded to {even}, as 4:2:0 video needs even sides."
            )

        def prepare(frame: np.ndarray) -> np.ndarray:
            flat = flatten(frame) if drop else frame
            return np.pad(flat, pad, mode="edge") if pad != ((0, 0),) * 3 else flat

        return prepare

    def _encode(
        self,
        frames: Iterator[np.ndarray],
        size: tuple[int, ...],
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
            *codec.encode_arguments(self._quality, alpha=alpha),
            "-fflags",
            "+bitexact",
        ]
        arguments += [*container.arguments, "-f", container.muxer, ffmpeg.url(result)]
        with ffmpeg.FrameSink(arguments, self._path) as sink:
            for frame in itertools.chain([first], frames):
                sink.write(frame)

    def _tags(self, work: Path, index: int) -> list[str]:
        """A further input, number `index`, that carries the record's tags."""
        assert self._record is not None
        (work / "tags.txt").write_bytes(ffmetadata(self._record))
        return ["-f", "ffmetadata", "-i", ffmpeg.url(work / "tags.txt"), "-map_metadata", str(index)]

    def _with_audio(self, video: Path, frames: int, work: Path) -> Path:
        """The same pictures and tags, with sound."""
        result = work / f"sound{self._path.suffix.lower()}"
        tagged = self._record is not None and self.container.tags
        metadata = self._tags(work, 1 + len(self.audio)) if tagged else []
        mux(video, self.audio, frames / self._rate, self.container, result, metadata=metadata)
        return result

    def _gif(self, frames: Iterator[np.ndarray], size: tuple[int, ...], work: Path, *, alpha: bool) -> Path:
        """One palette for all frames; by way of a lossless file, since one ffmpeg would hold them all."""
        master, palette, result = work / "master.mkv", work / "palette.png", work / "video.gif"
        self._encode(frames, size, CODECS["ffv1"], Container("matroska", ("ffv1",), tags=False), master, work)
        what = f"cannot write {str(self._path)!r}"
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

    def _with_record(self, result: Path, size: tuple[int, ...], work: Path) -> Path:
        """The finished file with the record inside, for the containers in which ffmpeg cannot put it."""
        if self._record is None or self.container.tags:
            return result
        if self.container.muxer == "webp":
            packet = containers.xmp_packet(record_text(self._record))
            containers.add_webp_xmp(result, packet, (size[0], size[1]))
            return result
        containers.add_gif_comment(result, work / "commented.gif", record_text(self._record, ascii_only=True))
        return work / "commented.gif"


class _Still:
    """A single picture."""

    def __init__(self, path: Path, record: Record | None, quality: Quality) -> None:
        self._path = path
        self._record = record
        self._quality = quality

    def write(self, frames: Iterator[np.ndarray], work: Path) -> None:
        frame = next(frames)
        if next(frames, None) is not None:
            raise MediaError(
                f"{self._path.name} holds one frame and the clip has more; use .mp4 or a folder/%04d.png."
            )
        (work / "image").write_bytes(
            encode_image(frame, self._path.suffix.lower(), self._record, self._quality)
        )
        publish(work / "image", self._path)


class _Sequence:
    """One PNG per frame, numbered from 1; the first carries the record."""

    def __init__(self, path: Path, record: Record | None) -> None:
        self._path = path
        self._record = record

    def write(self, frames: Iterator[np.ndarray], work: Path) -> None:
        folder = work / "frames"
        folder.mkdir()
        for index, frame in enumerate(frames, start=1):
            target = folder / (self._path.name % index)
            target.write_bytes(encode_image(frame, ".png", self._record if index == 1 else None))
            sync(target)
        if not self._path.parent.exists():
            publish(folder, self._path.parent)
            return
        for old in numbered(self._path):  # a longer, older sequence must not continue the new one
            old.unlink()
        for new in sorted(folder.iterdir()):
            publish(new, self._path.parent / new.name)


def numbered(pattern: Path) -> list[Path]:
    """The files that match `folder/name%04d.png`, in the order of their numbers."""
    before, after = (re.escape(part) for part in re.split(_NUMBERED, pattern.name)[::2])
    name = re.compile(f"{before}([0-9]+){after}")
    found = ((name.fullmatch(entry.name), entry) for entry in pattern.parent.iterdir())
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in found if match)]


def _check_sequence(path: Path, *, overwrite: bool) -> None:
    if len(_NUMBERED.findall(path.name)) != 1 or path.name.count("%") != 1:
        raise MediaError(f"{path.name!r} is no numbered name; write one %d or %04d, as in frames/%04d.png.")
    if not path.parent.exists():
        check_target(path.parent, overwrite=True)
    elif not path.parent.is_dir():
        raise MediaError(f"cannot write in {str(path.parent)!r}: it is not a folder.")
    elif numbered(path) and not overwrite:
        raise MediaError(
            f"{str(path.parent)!r} already holds frames; choose another folder or allow overwriting."
        )
