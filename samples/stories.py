"""Render the storyboards of samples/storyboards and the page that shows them, docs/gallery.md.

python samples/stories.py              # all of them
python samples/stories.py loop music   # some
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import kinema
from kinema.io import ffmpeg
from kinema.io.clip import Clip
from kinema.pipelines.job import make_job
from kinema.pipelines.preview import preview
from kinema.pipelines.run import stream
from kinema.story.storyboard import load

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent / "docs" / "figures" / "gallery"
PAGE = HERE.parent / "docs" / "gallery.md"
ORDER = (
    "words", "still", "keyframes", "travel", "restyle", "inside", "onward", "camera-2d", "camera-3d",
    "redrawn", "music", "loop",
)  # fmt: skip
SHOWN = 128  # pixels a side on the page
RATE, BPM = 16_000, 120
HEAD = """# Gallery

Every way to make a clip, once: the storyboard, and what the model inside the package makes of it. The clips
are 64x64 pixels, as the model is small; the same files with another `model` give larger ones.
`python samples/stories.py` renders them all, and this page with them.
"""


def main() -> None:
    names = sys.argv[1:] or ORDER
    os.chdir(HERE / "storyboards")  # a record says where its pictures were: beside it, on every machine
    inputs()
    FIGURES.mkdir(parents=True, exist_ok=True)
    model = kinema.load()
    for name in names:
        job = make_job(load(f"{name}.yaml"))
        clip = stream(job, model=model)
        frames = clip.array()
        clip.save(HERE / "clips" / f"story-{name}.mp4", overwrite=True)
        shown = Clip(np.stack(list(enlarged(frames))), clip.fps)
        shown.save(FIGURES / f"{name}.webp", overwrite=True, quality="small")
        print(f"{name}: {len(frames)} frames", flush=True)
    preview(make_job(load("music.yaml"))).save(FIGURES.parent / "preview.png", overwrite=True)
    PAGE.write_text(page(ORDER), encoding="utf-8")


def enlarged(frames: np.ndarray) -> Iterator[np.ndarray]:
    for frame in frames:
        yield np.asarray(Image.fromarray(frame).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC))


def page(names: Sequence[str]) -> str:
    """The gallery: each storyboard's comment as its words, the rest as it is written."""
    parts = [HEAD]
    for name in names:
        comment, _, body = Path(f"{name}.yaml").read_text("utf-8").partition("\n")
        title, _, words = comment.removeprefix("# ").partition(": ")
        if not words or len(title) > 40:
            title, words = name.replace("-", " ").capitalize(), comment.removeprefix("# ")
        path = f"../samples/storyboards/{name}.yaml"
        clip = f"[MP4](../samples/clips/story-{name}.mp4)"
        parts.append(
            f"## {title}\n\n{words[:1].upper()}{words[1:]}\n\n![{title}](figures/gallery/{name}.webp)\n\n"
            f"```yaml\n{body.strip()}\n```\n\n[{name}.yaml]({path}), {clip}\n"
        )
    return "\n".join(parts)


def inputs() -> None:
    """What is around the rooster, frame by frame; a bar of drums, and how far away the snowman is, once."""
    folder = HERE / "inputs"
    rooster = Clip.open(HERE / "clips" / "rooster.mp4")
    masks = Clip(around(rooster.array()), rooster.fps)
    masks.save(folder / "around-rooster.mkv", overwrite=True, quality="lossless")
    if not (folder / "beat.flac").exists():
        write_sound(folder / "beat.flac", drums())
    if not (folder / "snowman-depth.png").exists():
        depth_of(folder / "snowman.png").save(folder / "snowman-depth.png")


def around(frames_FHWC: np.ndarray) -> np.ndarray:
    """White where a clip shows the colour of its corners, nearly."""
    corners = frames_FHWC[:, [0, 0, -1, -1], [0, -1, 0, -1]].reshape(-1, 3)
    near_FHW = np.abs(frames_FHWC.astype(int) - np.median(corners, axis=0)).max(axis=-1) < 90
    return np.repeat(255 * near_FHW[..., None].astype(np.uint8), 3, axis=-1)


def drums() -> np.ndarray:
    """One bar, -1..1 `[S]`: a low drum on one and three, a snare on two and four, a hat on every half."""
    rng = np.random.default_rng(0)
    beat = 60 / BPM
    bar = np.zeros(round(4 * beat * RATE))
    t = np.arange(round(0.3 * RATE)) / RATE
    low = np.sin(2 * np.pi * (45 * t + 30 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14)
    snare = 0.5 * rng.standard_normal(len(t)) * np.exp(-t * 22) + 0.3 * np.sin(360 * np.pi * t) * np.exp(
        -t * 30
    )
    hat = 0.25 * np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * 70)
    for half in range(8):
        hits = [hat, *([low] if half in (0, 4) else []), *([snare] if half in (2, 6) else [])]
        at = round(half * beat / 2 * RATE)
        for hit in hits:
            room = bar[at : at + len(hit)]
            room += hit[: len(room)]
    return 0.8 * bar / np.abs(bar).max()


def write_sound(path: Path, sound: np.ndarray) -> None:
    raw = path.with_suffix(".raw")
    raw.write_bytes((sound * 32_000).astype("<i2").tobytes())
    arguments = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", ffmpeg.url(raw), "-fflags", "+bitexact"]
    ffmpeg.run([*arguments, "-f", "flac", ffmpeg.url(path)]).check("cannot write the drums")
    raw.unlink()


def depth_of(path: Path) -> Image.Image:
    """Brighter is nearer: what is not the background's colour bulges towards the viewer."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    inside = np.abs(pixels - pixels[0, 0]).sum(axis=2) > 40
    shape = Image.fromarray((inside * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(5))
    bulge = np.asarray(shape.filter(ImageFilter.GaussianBlur(6))).astype(float) / 255
    near = np.asarray(shape).astype(float) / 255 * (0.55 + 0.45 * bulge)
    soft = Image.fromarray(np.round(255 * near).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return soft


if __name__ == "__main__":
    main()
