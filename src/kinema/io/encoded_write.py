"""Frames into a container that ffmpeg writes: encoded as they come, then completed by sound and record."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.contracts import Record
from kinema.core.failpoints import reach
from kinema.io import containers, ffmpeg
from kinema.io.count import count_frames
from kinema.io.formats import CODECS, Codec, Container, Quality, choose_codec
from kinema.io.frame_sink import EncoderError, FrameSink, failure
from kinema.io.image import flatten
from kinema.io.mux import AudioPart, mux
from kinema.io.record import ffmetadata, record_text


class Encoded:
    """A container that ffmpeg writes.

    Attributes:
        path: the file.
        container: its format.
        audio: what is heard.
    """

    def __init__(
        self,
        path: Path,
        container: Container,
        rate: Fraction,
        record: Record | None,
        quality: Quality,
        codec: str | None,
        note: Callable[[str], None],
    ) -> None:
        self.audio: Sequence[AudioPart] = ()
        self.container = container
        self.path = path
        self._rate = rate
        self._record = record
        self._quality = quality
        self._codec = codec
        self._note = note

    def clear(self, published: Collection[Path]) -> None:
        """Nothing is left that the new file does not replace."""

    def write(self, frames: Iterator[np.ndarray], work: Path) -> list[tuple[Path, Path]]:
        """Make the file in `work`: where it is, and where it belongs."""
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
            more = bool(self.audio) or self._tagged
            container = replace(self.container, arguments=()) if more else self.container
            self._encode(shown, size, codec, container, result)
            if more:
                result = self._completed(result, next(count), work)
            elif name == "webp" and (sent := next(count)) > 1:
                containers.time_webp_still(result, size, sent / self._rate)
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
    ) -> None:
        first = next(frames)
        alpha = first.shape[2] == 4
        arguments = ["-f", "rawvideo", "-pixel_format", "rgba" if alpha else "rgb24"]
        arguments += ["-video_size", f"{size[0]}x{size[1]}", "-framerate", str(self._rate), "-i", "pipe:0"]
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
        self._count(result, sent, container)

    def _count(self, result: Path, frames: int, container: Container) -> None:
        """Refuse a file that holds another number of frames."""
        if (found := count_frames(result, container.muxer)) not in (None, frames):
            raise EncoderError(
                f"cannot write {str(self.path)!r}: the encoder took {frames} frames and wrote {found}."
            )

    @property
    def _tagged(self) -> bool:
        """Whether ffmpeg puts the record in."""
        return self._record is not None and self.container.tags

    def _tags(self, work: Path, index: int) -> list[str]:
        """A further input, number `index`, that carries the record's tags."""
        assert self._record is not None
        (work / "tags.txt").write_bytes(ffmetadata(self._record))
        return ["-f", "ffmetadata", "-i", ffmpeg.url(work / "tags.txt"), "-map_metadata", str(index)]

    def _completed(self, video: Path, frames: int, work: Path) -> Path:
        """The same pictures with sound and record, which tells what happened until the last frame."""
        result = work / f"complete{self.path.suffix.lower()}"
        metadata = self._tags(work, 1 + len(self.audio)) if self._tagged else []
        seconds = frames / self._rate
        mux(video, self.audio, seconds, self.container, result, metadata=metadata, target=self.path)
        if not self.audio:  # Matroska's blocks of sound would be counted too
            self._count(result, frames, self.container)
        video.unlink()
        return result

    def _gif(self, frames: Iterator[np.ndarray], size: tuple[int, int], work: Path, *, alpha: bool) -> Path:
        """One palette for all frames; by way of a lossless file, since one ffmpeg would hold them all."""
        master, palette, result = work / "master.mkv", work / "palette.png", work / "video.gif"
        self._encode(frames, size, CODECS["ffv1"], Container("matroska", ("ffv1",), tags=False), master)
        source = ["-i", ffmpeg.url(master)]
        transparent = f"reserve_transparent={int(alpha)}"
        made = ["-vf", f"palettegen={transparent}", "-frames:v", "1", "-update", "1", "-f", "image2"]
        self._run([*source, *made, ffmpeg.url(palette)])
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
        self._run([*source, *used, ffmpeg.url(result)])
        return result

    def _run(self, arguments: list[str]) -> None:
        made = ffmpeg.run(arguments, seconds=86_400)
        if made.code != 0:
            raise failure(self.path, made.code, made.log)

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
