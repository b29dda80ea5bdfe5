"""What ffmpeg says of a video file before any of its frames is used: size, rate, codec, colour, alpha.

ffmpeg decodes the first frame, which proves that it can be decoded; its YUV4MPEG2 header gives exact size and
rate after rotation, and the log's line about the stream gives the rest. What would give wrong pictures is
refused here by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.sniff import demuxers
from kinema.io.tone import HDR, WIDE, ToSRGB

MAX_PIXELS = 100_000_000
MAX_SIDE = 16_384
SLOWEST, FASTEST = Fraction(1, 10), Fraction(1000)
_PRINTED = Fraction(5, 1000)  # ffmpeg prints two decimals of a rate
_ALPHA = re.compile(r"yuva|ya\d|rgba|bgra|argb|abgr|gbrap|ayuv|vuya|pal8")
_NO_MATRIX = re.compile(r"rgb|bgr|gbr|gray|ya\d|mono|pal8|xyz|bayer")
_DECODERS_WITH_ALPHA = {"vp9": "libvpx-vp9", "vp8": "libvpx"}
_SWS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_KNOWN_MATRICES = {
    "unknown", "gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc",
}  # fmt: skip
_KNOWN_CURVES = {
    "unknown", "bt709", "gamma22", "bt470m", "gamma28", "bt470bg", "smpte170m", "smpte240m",
    "iec61966-2-1", "iec61966-2-4", "bt2020-10", "bt2020-12", *HDR,
}  # fmt: skip
_KNOWN_PRIMARIES = {
    "unknown", "bt709", "bt470bg", "smpte170m", "smpte240m", "ebu3213", "jedec-p22", *WIDE
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Colour:
    """How a stream's numbers mean colours, in ffmpeg's words; `unknown` where it says nothing.

    Attributes:
        matrix: between YCbCr and RGB.
        primaries: what red, green and blue are.
        transfer: the curve from codes to light.
    """

    matrix: str = "unknown"
    primaries: str = "unknown"
    transfer: str = "unknown"

    @property
    def convert(self) -> ToSRGB | None:
        """The conversion that such frames need; None when they are sRGB as they are."""
        if self.transfer in HDR or self.primaries in WIDE:
            return ToSRGB(self.transfer, self.primaries)
        return None

    def problem(self) -> str | None:
        """What kinema cannot convert."""
        for what, value, known in (
            ("matrix", self.matrix, _KNOWN_MATRICES),
            ("transfer", self.transfer, _KNOWN_CURVES),
            ("primaries", self.primaries, _KNOWN_PRIMARIES),
        ):
            if value not in known:
                return f"its colour {what} {value!r} has no conversion here; convert it to BT.709 first."
        return None


@dataclass(frozen=True, slots=True)
class Stream:
    """The line of ffmpeg's log about the video stream that is read.

    Attributes:
        codec: ffmpeg's name of it.
        pixels: ffmpeg's name of the pixel format.
        colour: its colours.
        interlaced: whether its frames are two fields each.
        alpha: whether it has transparency.
        mean_rate: frames per second that ffmpeg prints; None when it prints none.
    """

    codec: str
    pixels: str
    colour: Colour
    interlaced: bool
    alpha: bool
    mean_rate: Fraction | None

    @staticmethod
    def find(log: str) -> Stream | None:
        """The first video stream that is no cover picture."""
        lines = re.finditer(r"^ *Stream #0:\d+.*?: Video: (\w+)(.*)$((?:\n {4,}.*)*)", log, re.MULTILINE)
        for codec, line, tags in (match.groups() for match in lines):
            if "(attached pic)" not in line:
                return _stream(codec, line, tags)
        return None


def _stream(codec: str, line: str, tags: str) -> Stream:
    found = re.search(r", ([a-z][a-z0-9_]*)(?:\(([^)]*)\))?, \d+x\d+", line)
    pixels, notes = (found[1], (found[2] or "").split(", ")) if found else ("", [])
    printed = re.search(r"([\d.]+)(k?) fps", line)
    mean = Fraction(printed[1]) * (1000 if printed[2] else 1) if printed else None
    return Stream(
        codec=codec,
        pixels=pixels,
        colour=_colour(notes),
        interlaced=any("first" in note for note in notes),
        alpha=_ALPHA.match(pixels) is not None
        or re.search(r"(?i)^ *alpha_mode *: 1", tags, re.M) is not None,
        mean_rate=mean or None,
    )


def _colour(notes: list[str]) -> Colour:
    """From `bt709`, or `bt2020nc/bt2020/smpte2084`, among a pixel format's notes."""
    for note in notes:
        if note.count("/") == 2:
            return Colour(*note.split("/"))
        if note in _KNOWN_MATRICES:
            return Colour(note, note, note) if note != "gbr" else Colour(note)
    return Colour()


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file that ffmpeg can decode.

    Attributes:
        path: the file.
        kind: what its bytes say it is.
        size: (width, height) as shown: rotated, with square pixels.
        fps: nominal rate, or the mean where the two differ.
        seconds: the length that the container states; 0 when it states none.
        stream: the stream that is read.
        plain: whether stored frames are the shown ones: upright, of square pixels, progressive, opaque, sRGB.
        has_sound: whether there is a stream of sound; nothing of it was decoded.
    """

    path: Path
    kind: str
    size: tuple[int, int]
    fps: Fraction
    seconds: float
    stream: Stream
    plain: bool
    has_sound: bool

    @staticmethod
    def probe(path: Path, kind: str) -> VideoFile:
        """Let ffmpeg decode the first frame.

        Raises:
            MediaError: no frame can be decoded, or the frames are too large, too fast or of unknown colours.
        """
        y4m = ["-frames:v", "1", "-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "pipe:1"]
        result = ffmpeg.run(
            [*source(path, kind), *y4m], loglevel="info", limit=512, seconds=60, stranger=True
        )
        stream = Stream.find(result.log)
        if stream is not None and (problem := _unknown_colours(stream, result.log)):
            raise MediaError(f"cannot read {str(path)!r}: {problem}")
        header = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) .*?A(\d+):(\d+)", result.output)
        if header is None or stream is None:
            raise MediaError(f"cannot read {str(path)!r}: {_why_not(result.log, stream is not None)}")
        width, height, top, bottom, across, down = (int(number) for number in header.groups())
        square = across == down or not across or not down
        size = (width if square else max(1, round(width * across / down)), height)
        rate = _rate(Fraction(top, bottom or 1), stream.mean_rate)
        if problem := _out_of_range(size, rate):
            raise MediaError(f"cannot read {str(path)!r}: {problem}")
        turned = re.search(r"(?i)display ?matrix: rotation of", result.log) is not None
        special = turned or stream.interlaced or stream.alpha or stream.colour.convert is not None
        return VideoFile(
            path,
            kind,
            size,
            rate,
            _seconds(result.log),
            stream,
            square and not special and _matrix(stream, size) is None,
            re.search(r"^ *Stream #0:\d+.*?: Audio: ", result.log, re.MULTILINE) is not None,
        )

    def arguments(self) -> list[str]:
        """ffmpeg's options up to the raw frames on its standard output, `sample_bytes` per sample."""
        decoder = _DECODERS_WITH_ALPHA.get(self.stream.codec) if self.stream.alpha else None
        scale = f"scale={self.size[0]}:{self.size[1]}:{_SWS}"
        if matrix := _matrix(self.stream, self.size):
            scale += f":in_color_matrix={matrix}"
        filters = ["bwdif=mode=send_frame:parity=auto:deint=interlaced"] if self.stream.interlaced else []
        deep = self.stream.colour.convert is not None
        pixels = ("rgba64le" if deep else "rgba") if self.stream.alpha else ("rgb48le" if deep else "rgb24")
        return [
            *(["-c:v", decoder] if decoder else []),
            *source(self.path, self.kind),
            *("-vf", ",".join([*filters, scale, "setsar=1"]), "-fps_mode", "passthrough"),
            *("-pix_fmt", pixels, "-f", "rawvideo", "pipe:1"),
        ]

    def clock_arguments(self) -> list[str]:
        """ffmpeg's options to print when each frame is shown, and nothing of the pictures."""
        # in microseconds: ffmpeg's own choice counts in frames of a rate that it guesses
        fine = ["-fps_mode", "passthrough", "-enc_time_base", "1:1000000"]
        return [*source(self.path, self.kind), *fine, "-f", "framecrc", "pipe:1"]


def source(path: Path, kind: str) -> list[str]:
    """ffmpeg's input options: this file, this kind of container, no other file or host, its pictures."""
    guard = ["-protocol_whitelist", "file,pipe", "-format_whitelist", str(demuxers(kind))]
    return [*guard, "-max_pixels", str(MAX_PIXELS), "-i", ffmpeg.url(path), "-map", "0:V:0"]


def _matrix(stream: Stream, size: tuple[int, int]) -> str | None:
    """The matrix of a stream that names none: as players do, BT.709 above standard definition, else BT.601.

    None where ffmpeg's own reading is right: by the tag, for RGB and gray, and for BT.601.
    """
    if stream.colour.matrix != "unknown" or not stream.pixels or _NO_MATRIX.search(stream.pixels):
        return None
    if stream.colour.primaries == "bt2020":
        return "bt2020"
    return "bt709" if stream.colour.primaries == "bt709" or size[0] >= 1280 or size[1] > 576 else None


def _rate(nominal: Fraction, mean: Fraction | None) -> Fraction:
    """The nominal rate where it agrees with the mean that ffmpeg prints; else (variable rate) the mean."""
    if mean is None or abs(nominal - mean) <= max(mean / 100, _PRINTED):
        return nominal
    return mean.limit_denominator(1001)


def _out_of_range(size: tuple[int, int], rate: Fraction) -> str | None:
    if max(size) > MAX_SIDE:
        return f"{size[0]}x{size[1]} is above {MAX_SIDE} pixels a side; scale it down first."
    if not SLOWEST <= rate <= FASTEST:
        return (
            f"its rate of {float(rate):.3g} frames a second is not {float(SLOWEST):g} to {float(FASTEST):g}; "
            "re-time it first."
        )
    return None


def _unknown_colours(stream: Stream, log: str) -> str | None:
    if re.search(r"DOVI configuration record:.*profile: 5", log):
        return "it is Dolby Vision without a common base (profile 5); export it as HDR10, HLG or SDR."
    return stream.colour.problem()


def _seconds(log: str) -> float:
    """The length that the container states; 0 when it states none."""
    found = re.search(r"^ *Duration: (\d+):(\d+):([\d.]+)", log, re.MULTILINE)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _why_not(log: str, has_picture: bool) -> str:
    if "matches no streams" in log or not has_picture:
        if "Input #0" in log and "Stream #0" not in log:
            return "there are no streams in it; it is cut off, or no video."
        if "(attached pic)" in log:
            return "its only picture is a cover; give a file with video."
        return (
            "it has no picture stream; give a file with video."
            if "Audio:" in log
            else f"{ffmpeg.reason(log)}; it is damaged, or no video."
        )
    if "max_pixels" in log or "Picture size" in log:
        return "its frames are above 100 megapixels; scale it down first."
    return (
        f"no frame can be decoded ({ffmpeg.reason(log, last=True)}); it is damaged, or of an unknown codec."
    )
