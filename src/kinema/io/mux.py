"""Sound under a finished video file, without touching its pictures: parts of files, placed to the sample.

Each part is decoded to 48 kHz stereo, repeated if it loops, cut to its place, faded at its ends and laid at
its time; between parts there is silence. The sound is exactly as long as the pictures:

    samples = round(48000 frames / fps)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from kinema.io import ffmpeg
from kinema.io.audio_source import ahead_of_pictures, open_audio
from kinema.io.formats import Container
from kinema.io.frame_sink import failure

RATE = 48_000
PEAK_RATE = 8_000

CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("-c:a", "aac", "-b:a", "192k"),
    "mov": ("-c:a", "aac", "-b:a", "192k"),
    "webm": ("-c:a", "libopus", "-b:a", "128k"),
    "matroska": ("-c:a", "flac"),
}
"""The sound of each muxer that has one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioPart:
    """A stretch of a sound file under a clip.

    Attributes:
        path: the file.
        at: seconds into the clip where the part begins.
        seconds: how long it is.
        start: seconds into the file that play at `at`; negative for silence until the file begins.
        loop: begin the file again when it ends, instead of silence.
        volume: factor on the samples.
        fade_in, fade_out: seconds at the ends of the part in which it comes and goes.
    """

    path: str
    at: Fraction
    seconds: Fraction
    start: float = 0.0
    loop: bool = False
    volume: float = 1.0
    fade_in: float = 0.0
    fade_out: float = 0.0


def sound_of(path: str | Path, seconds: Fraction) -> tuple[AudioPart, ...]:
    """What is heard in a clip on disk, whose sound may begin before its first picture or after it.

    Args:
        path: of the clip.
        seconds: of its pictures.

    Raises:
        MediaError: it has no sound that can be decoded.
    """
    start = float(ahead_of_pictures(open_audio(path)))
    return (AudioPart(path=str(path), at=Fraction(0), seconds=seconds, start=start),)


def mux(
    video: Path,
    parts: Sequence[AudioPart],
    seconds: Fraction,
    container: Container,
    result: Path,
    *,
    metadata: Sequence[str] = (),
    target: Path,
) -> None:
    """Write `result`: the pictures of `video` as they are, with the parts, if any, as its sound.

    Args:
        video: a finished file.
        parts: in any order; where two are at the same time they are added.
        seconds: of the pictures.
        container: of both files.
        result: the file to make.
        metadata: ffmpeg's arguments for a further input that carries the tags, and their mapping.
        target: what the user calls the file, for messages.

    Raises:
        EncoderError: ffmpeg was ended, or failed where there is no sound to blame.
        MediaError: a sound file that cannot be decoded, or a full disk.
    """
    arguments = ["-i", ffmpeg.url(video), *_inputs(parts)]
    # a sound file's chapters and tags are none of the clip's; streams keep theirs, as alpha_mode in WebM
    arguments += [*(metadata or ["-map_metadata:g", "-1"]), "-map_chapters", "-1"]
    arguments += ["-filter_complex", graph(parts, seconds)] if parts else []
    arguments += ["-map", "0:v:0", "-c:v", "copy"]
    arguments += ["-map", "[sound]", *CODECS[container.muxer], "-flags:a", "+bitexact"] if parts else []
    arguments += ["-fflags", "+bitexact", *container.arguments, "-f", container.muxer, ffmpeg.url(result)]
    made = ffmpeg.run(arguments, seconds=86_400)
    if made.code != 0:
        raise failure(target, made.code, made.log, again=not parts)


def _inputs(parts: Sequence[AudioPart]) -> list[str]:
    """ffmpeg's arguments that open each part's file."""
    arguments: list[str] = []
    for part in parts:
        loop = ["-stream_loop", "-1"] if part.loop else []
        arguments += [*loop, *open_audio(part.path).arguments]
    return arguments


def graph(parts: Sequence[AudioPart], seconds: Fraction, *, first: int = 1) -> str:
    """ffmpeg's filter graph from inputs `first`, ... to `[sound]`."""
    chains = [f"[{i}:a:0]{_chain(part)}[part{i}]" for i, part in enumerate(parts, start=first)]
    inputs = "".join(f"[part{i}]" for i in range(first, first + len(parts)))
    whole = samples(seconds)
    mix = f"{inputs}amix=inputs={len(parts)}:normalize=0:duration=longest,"
    return ";".join([*chains, f"{mix}apad=whole_len={whole},atrim=end_sample={whole}[sound]"])


def samples(seconds: Fraction) -> int:
    """Samples in so many seconds, rounded."""
    return round(seconds * RATE)


def _chain(part: AudioPart) -> str:
    """One part: whole samples throughout, time counted anew after a loop's seam."""
    length, begin = samples(part.seconds), samples(Fraction(part.start))
    late = min(max(0, -begin), length)
    steps = [f"aresample={RATE}", "aformat=sample_fmts=fltp:channel_layouts=stereo", "asetpts=N/SR/TB"]
    steps += [f"atrim=start_sample={max(0, begin)}:end_sample={max(1, max(0, begin) + length - late)}"]
    steps += ["asetpts=N/SR/TB", f"adelay={late}S:all=1", f"apad=whole_len={length}"]
    steps += [f"atrim=end_sample={length}", f"volume={part.volume:.6f}"]
    if part.fade_in > 0:
        steps.append(f"afade=t=in:ss=0:ns={max(1, samples(Fraction(part.fade_in)))}")
    if part.fade_out > 0:
        fade = min(length, max(1, samples(Fraction(part.fade_out))))
        steps.append(f"afade=t=out:ss={length - fade}:ns={fade}")
    return ",".join([*steps, f"adelay={samples(part.at)}S:all=1"])


def peaks(parts: Sequence[AudioPart], seconds: Fraction, columns: int) -> np.ndarray:
    """The loudest sample, 0..1, in each of `columns` equal stretches of the sound that `mux` would write."""
    mixed = f"{graph(parts, seconds, first=0)};[sound]aresample={PEAK_RATE}[low]"
    wanted = ["-filter_complex", mixed, "-map", "[low]", "-ac", "1", "-f", "f32le", "pipe:1"]
    run = ffmpeg.run([*_inputs(parts), *wanted], limit=1 << 28)
    level = np.abs(np.frombuffer(run.check("cannot read the sound").output, np.float32))
    edges = np.linspace(0, max(1, len(level)), columns + 1).astype(int)
    return np.array([level[a : max(b, a + 1)].max(initial=0.0) for a, b in pairwise(edges)])
