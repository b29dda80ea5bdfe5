"""Sound files, judged by their bytes: how ffmpeg is told to open one, and what it finds in it.

As with pictures, a file is handed to ffmpeg only when its first bytes are those of a format that holds its
own sound, and with that demuxer alone, so that a playlist in disguise opens nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.sniff import demuxers, open_regular, sniff

_PREFIXES = {b"fLaC": "flac", b"ID3": "mp3", b"FORM": "aiff", b".snd": "au", b"caff": "caf", b"RF64": "wav"}
# of ffmpeg's framecrc: how long a stream's tick is, and when its first piece is shown
_TICK = re.compile(r"^#tb (\d+): (\d+)/([1-9]\d*)", re.MULTILINE)
_FIRST = re.compile(r"^(\d+), *-?\d+, *(-?\d+),", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AudioSource:
    """A sound file that can be decoded.

    Attributes:
        path: of it.
        arguments: ffmpeg's input options up to the file, without the stream.
        seconds: its length, as its header says; None when it does not say.
    """

    path: Path
    arguments: tuple[str, ...]
    seconds: float | None


def open_audio(path: str | Path) -> AudioSource:
    """Check that a file has sound that can be decoded: WAV, FLAC, MP3, AAC, Ogg, AIFF, or that of a clip.

    Raises:
        MediaError: missing, not a sound file by its content, without sound, or damaged at its beginning.
    """
    path = Path(path)
    with open_regular(path) as file:
        kind = _kind(file.read(4096))
    if kind is None:
        raise MediaError(f"{str(path)!r} is no sound by its content; give WAV, FLAC, MP3, M4A or Ogg.")
    guard = ("-protocol_whitelist", "file,pipe", "-format_whitelist", kind, "-i", ffmpeg.url(path))
    # counted from the first sample: sound may begin long after the pictures of a clip
    begin = ["-map", "0:a:0", "-af", "asetpts=N/SR/TB", "-t", "0.25", "-f", "s16le", "pipe:1"]
    result = ffmpeg.run([*guard, *begin], loglevel="info", limit=1 << 20, seconds=60, stranger=True)
    if "Audio:" not in result.log:
        raise MediaError(f"{str(path)!r} has no sound; give a file with an audio stream.")
    result.check(f"cannot read {str(path)!r}")
    if not result.output:
        raise MediaError(f"cannot read {str(path)!r}: no sound can be decoded; it may be cut off.")
    return AudioSource(path, guard, _seconds(result.log))


def ahead_of_pictures(source: AudioSource) -> Fraction:
    """Seconds by which a clip's sound begins before its first picture; negative where it begins later.

    Raises:
        MediaError: no picture, or nothing of the sound, can be decoded.
    """
    # by filters: ffmpeg's -frames would end the sound with the one picture
    firsts = ["-map", "0:V:0", "-vf", "trim=end_frame=1", "-map", "0:a:0", "-af", "atrim=end_sample=1"]
    fine = ["-fps_mode", "passthrough", "-enc_time_base:v", "1:1000000", "-f", "framecrc", "pipe:1"]
    result = ffmpeg.run([*source.arguments, *firsts, *fine], stranger=True)
    text = result.check(f"cannot read {str(source.path)!r}").output.decode("ascii", "replace")
    ticks = {m[1]: Fraction(int(m[2]), int(m[3])) for m in _TICK.finditer(text)}
    begins = {m[1]: int(m[2]) * ticks[m[1]] for m in _FIRST.finditer(text) if m[1] in ticks}
    if len(begins) != 2:
        raise MediaError(f"cannot read {str(source.path)!r}: its sound or its pictures cannot be decoded.")
    return begins["0"] - begins["1"]


def _kind(head: bytes) -> str | None:
    """ffmpeg's demuxers for a file that begins with these bytes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    for prefix, kind in _PREFIXES.items():
        if head.startswith(prefix):
            return kind
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0:  # the sync word of a stream
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    video = sniff(head)
    return None if video is None else demuxers(video)


def _seconds(log: str) -> float | None:
    found = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", log)
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
