"""What each suffix means: the container, the codec in it, and the arguments that make players show it right.

RGB is converted to, and tagged as, BT.709 limited range: an untagged file is guessed to be BT.601 by some
players and BT.709 by others, which turns saturated colours by up to 30/255. The `setparams` filter is
what makes the tags stick; ffmpeg's `-color_primaries` and `-color_trc` output flags alone leave them
unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kinema.core.errors import ConfigError, MediaError, unknown_name

Quality = Literal["small", "medium", "high", "lossless"]
QUALITIES = ("small", "medium", "high", "lossless")

_CONVERT = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
)
_TAG = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoder.

    Attributes:
        arguments: encoder name and fixed options.
        by_quality: the options of each quality that it has.
        pixels: pixel format of opaque frames.
        pixels_alpha: pixel format of frames with alpha; None when it cannot keep alpha.
        rgb: whether it codes RGB as it is, without the conversion to BT.709.
        even: whether width and height must be even.
        one_slice: (width, height) up to which frames are to be in one slice. ffmpeg's own choice is none for
            frames one pixel wide, which it then refuses, and above 352x288 it refuses one.
    """

    arguments: tuple[str, ...]
    by_quality: Mapping[Quality, tuple[str, ...]]
    pixels: str
    pixels_alpha: str | None = None
    rgb: bool = False
    even: bool = False
    one_slice: tuple[int, int] = (0, 0)

    def encode_arguments(self, quality: Quality, *, size: tuple[int, int], alpha: bool) -> list[str]:
        """ffmpeg output options from the filter to the codec, for frames of a (width, height)."""
        pixels = self.pixels_alpha if alpha else self.pixels
        assert pixels is not None
        steps = [f"format={pixels}"] if self.rgb else [_CONVERT, f"format={pixels}", _TAG]
        alt_ref = ["-auto-alt-ref", "0"] if pixels == "yuva420p" else []  # libvpx cannot do both
        single = size[0] <= self.one_slice[0] and size[1] <= self.one_slice[1]
        slices = ["-slices", "1"] if single else []
        return ["-vf", ",".join(steps), *self.arguments, *slices, *self.by_quality[quality], *alt_ref]


def _crf(small: int, medium: int, high: int, *extra: str) -> dict[Quality, tuple[str, ...]]:
    return {
        "small": ("-crf", f"{small}", *extra),
        "medium": ("-crf", f"{medium}", *extra),
        "high": ("-crf", f"{high}", *extra),
    }


def _any(*extra: str) -> dict[Quality, tuple[str, ...]]:
    return {"small": extra, "medium": extra, "high": extra}


_WEBP: dict[Quality, tuple[str, ...]] = {
    "small": ("-quality", "60"),
    "medium": ("-quality", "80"),
    "high": ("-quality", "95"),
    "lossless": ("-lossless", "1"),
}

CODECS: dict[str, Codec] = {
    "h264": Codec(("-c:v", "libx264", "-preset", "medium"), _crf(28, 22, 17), "yuv420p", even=True),
    "vp9": Codec(
        ("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1"),
        _crf(40, 31, 20, "-b:v", "0"),
        "yuv420p",
        "yuva420p",
    ),
    "av1": Codec(("-c:v", "libsvtav1", "-preset", "8"), _crf(45, 35, 20), "yuv420p", even=True),
    "prores": Codec(
        ("-c:v", "prores_ks", "-profile:v", "4444", "-vendor", "apl0", "-alpha_bits", "16"),
        _any(),
        "yuv444p10le",
        "yuva444p10le",
    ),
    "ffv1": Codec(
        ("-c:v", "ffv1", "-level", "3", "-slicecrc", "1"),
        {**_any(), "lossless": ()},
        "bgr0",
        "bgra",
        rgb=True,
        one_slice=(352, 288),
    ),
    "webp": Codec(("-c:v", "libwebp_anim", "-loop", "0"), _WEBP, "bgra", "bgra", rgb=True),
    "gif": Codec((), _any(), "bgr0", "bgra", rgb=True),
}


@dataclass(frozen=True, slots=True)
class Container:
    """One file format: ffmpeg's name of it, its codecs (the first is the default), its options."""

    muxer: str
    codecs: tuple[str, ...]
    alpha_codec: str | None = None
    arguments: tuple[str, ...] = ()
    tags: bool = True  # whether ffmpeg itself can store the record


_MOVFLAGS = ("-movflags", "+faststart+use_metadata_tags")

CONTAINERS: dict[str, Container] = {
    ".mp4": Container("mp4", ("h264", "av1"), None, _MOVFLAGS),
    ".mov": Container("mov", ("h264", "prores"), "prores", _MOVFLAGS),
    ".webm": Container("webm", ("vp9", "av1"), "vp9"),
    ".mkv": Container("matroska", ("ffv1", "h264", "vp9", "av1"), "ffv1"),
    ".gif": Container("gif", ("gif",), "gif", tags=False),
    ".webp": Container("webp", ("webp",), "webp", tags=False),
}
STILLS = (".png", ".jpg", ".jpeg")


def container_of(path: Path) -> Container:
    """The container that a file's suffix names; one line that says what to write when it names none."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        raise MediaError(_no_format(path)) from None


def _no_format(path: Path) -> str:
    name, known = str(path), ", ".join([*CONTAINERS, *STILLS])
    if path.suffix:
        return f"unknown file suffix {path.suffix!r} for a video; use one of {known}, or folder/%04d.png."
    if path.is_dir():
        return f"{name!r} is a folder; name a file in it, such as {str(path / 'clip.mp4')!r}."
    if name == "-":
        return "'-' is no file, and clips are not written to standard output; write clip.mp4."
    if path.name.lower() in (*CONTAINERS, *STILLS):
        return f"{name!r} is a suffix without a name; write {str(path.with_name(f'clip{path.name}'))!r}."
    return (
        f"{name!r} has no suffix, which says what is written; write {f'{name}.mp4'!r}, or one of {known}, or "
        "folder/%04d.png."
    )


def choose_codec(container: Container, name: str | None, quality: Quality, *, alpha: bool = False) -> str:
    """The codec's name, by default the container's own for frames with or without alpha; checked."""
    if quality not in QUALITIES:
        raise unknown_name("quality", quality, QUALITIES)
    if name is not None and name not in container.codecs:
        raise unknown_name(f"codec of {container.muxer}", name, container.codecs)
    name = name or (container.alpha_codec if alpha and container.alpha_codec else container.codecs[0])
    if quality not in CODECS[name].by_quality:
        raise ConfigError(
            f"quality={quality!r} is not possible with {name}; use .mkv (ffv1), .webp or folder/%04d.png."
        )
    return name
