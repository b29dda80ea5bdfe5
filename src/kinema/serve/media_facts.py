"""What an upload is, by its content: a picture, a clip or a sound, with its size; all else is refused.

Everything is bounded before it is decoded: bytes, pixels, frames, seconds. Run it in a process that may be
stopped, on bytes of strangers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kinema.core.errors import MediaError
from kinema.io.audio_source import open_audio
from kinema.io.image import read_image
from kinema.io.reader import VideoReader
from kinema.io.sniff import PICTURES, known_as, open_regular, sniff
from kinema.io.video_read import open_video

HEAD = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaLimits:
    """The most that an upload may have.

    Attributes:
        bytes: of the file.
        side: pixels a side.
        frames: of a clip.
        pixels: of all frames together.
        seconds: of a clip or a sound.
    """

    bytes: int = 2_000_000_000
    side: int = 16_384
    frames: int = 20_000
    pixels: int = 40_000_000_000
    seconds: float = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFacts:
    """What a file holds; None where a kind has no such thing.

    Attributes:
        kind: of medium.
        width: pixels.
        height: pixels.
        frames: of a clip; 1 for an image.
        fps: frames per second, as a fraction's text.
        seconds: of a clip or a sound, where it is known.
    """

    kind: Literal["image", "video", "audio"]
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: str | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def measure(path: Path, limits: MediaLimits | None = None) -> MediaFacts:
    """Look into a file.

    Raises:
        MediaError: it is no picture, clip or sound that is read here, damaged, or above a limit.
    """
    limits = limits or MediaLimits()
    with open_regular(path, limit=limits.bytes) as file:
        head = file.read(HEAD)
    kind, other = sniff(head), _refused(head)
    if other is not None:
        raise MediaError(f"the file is {other}.")
    if kind in PICTURES:
        return _picture(path, limits)
    if kind is not None and (clip := _clip(path, limits)) is not None:
        return clip
    return _sound(path, limits)


def _refused(head: bytes) -> str | None:
    """The name of what is not read here, where it has one."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, which can run programs when it is opened; give a picture, a clip or a sound"
    if head[:4] == b"PK\3\4":
        return "a zip archive or PyTorch file; give a picture, a clip or a sound"
    if head[7:9] == b"\0{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "weights (safetensors); the server is started with the LoRAs that may be named"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<script", b"<svg")):
        return "a web page or SVG; export it as PNG"
    name = known_as(head)
    return None if name is None or name.startswith("sound") else name


def _picture(path: Path, limits: MediaLimits) -> MediaFacts:
    clip = open_video(path)
    if clip.frames > 1:
        return _of_clip(clip, limits)
    height, width = read_image(path).shape[:2]  # decodes all of it
    _within("pixels a side", max(width, height), limits.side)
    return MediaFacts(kind="image", width=width, height=height, frames=1)


def _clip(path: Path, limits: MediaLimits) -> MediaFacts | None:
    """Facts of a clip; None for a container that holds only sound."""
    try:
        return _of_clip(open_video(path), limits)
    except MediaError as error:
        if "no picture stream" in str(error) or "only picture is a cover" in str(error):
            return None
        raise


def _of_clip(clip: VideoReader, limits: MediaLimits) -> MediaFacts:
    width, height = clip.size
    _within("pixels a side", max(width, height), limits.side)
    _within("frames", clip.frames, limits.frames)
    _within("pixels in all frames", clip.frames * width * height, limits.pixels)
    _within("seconds", clip.duration, limits.seconds)
    seconds = round(clip.duration, 6)
    return MediaFacts(
        kind="video", width=width, height=height, frames=clip.frames, fps=str(clip.fps), seconds=seconds
    )


def _sound(path: Path, limits: MediaLimits) -> MediaFacts:
    try:
        sound = open_audio(path)
    except MediaError as error:
        if "no sound by its content" in str(error):
            raise MediaError(
                "the file is no picture, clip or sound that is read here; give PNG, JPEG, WebP, GIF, MP4, "
                "MOV, WebM, WAV, FLAC, MP3 or the like."
            ) from None
        raise
    if sound.seconds is not None:
        _within("seconds", sound.seconds, limits.seconds)
    return MediaFacts(kind="audio", seconds=sound.seconds)


def _within(what: str, value: float, most: float) -> None:
    if value > most:
        raise MediaError(
            f"the file has {value:g} {what}, above the {most:g} that are taken here; make it less."
        )
