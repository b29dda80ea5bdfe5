"""Render every clip of gallery.yaml, the storyboard, and the picture that the README shows.

python samples/make.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

import kinema
from kinema.io.video_write import write_video

HERE = Path(__file__).resolve().parent
COLUMNS, SIDE, LABEL, GAP = 4, 160, 40, 12
PAPER, INK = (250, 250, 248), (40, 40, 44)


def words_of(fields: dict[str, Any]) -> str:
    prompt = fields["prompt"]
    if isinstance(prompt, dict):
        prompt = ", then ".join(text for key, text in prompt.items() if key != "ease")
    held = len(fields.get("keyframes", []))
    return prompt + (
        "" if not held else " (first frame given)" if held == 1 else " (first and last frame given)"
    )


def wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any) -> str:
    lines = [""]
    for word in text.split():
        if draw.textlength(f"{lines[-1]} {word}".strip(), font=font) > SIDE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])


def gallery(clips: dict[str, tuple[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Frames `[H, W, 3]` with all clips side by side, their words underneath."""
    rows = -(-len(clips) // COLUMNS)
    width, height = GAP + COLUMNS * (SIDE + GAP), GAP + rows * (SIDE + LABEL + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    places = [
        (GAP + (i % COLUMNS) * (SIDE + GAP), GAP + (i // COLUMNS) * (SIDE + LABEL + GAP))
        for i in range(len(clips))
    ]
    for (x, y), (words, _) in zip(places, clips.values(), strict=True):
        draw.multiline_text((x, y + SIDE + 4), wrapped(draw, words, font), fill=INK, font=font, spacing=1)
    for frame in range(max(len(frames) for _, frames in clips.values())):
        for (x, y), (_, frames) in zip(places, clips.values(), strict=True):
            picture = Image.fromarray(frames[min(frame, len(frames) - 1)])
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        yield np.asarray(sheet).copy()


def main() -> None:
    os.chdir(HERE)  # a record says where its pictures were; here that is beside it, on every machine
    wanted = yaml.safe_load(Path("gallery.yaml").read_text())
    Path("clips").mkdir(exist_ok=True)
    model = kinema.load()
    clips = {}
    for name, fields in wanted.items():
        clip = kinema.render(kinema.Shot.from_mapping(fields), model=model)
        clip.save(f"clips/{name}.mp4", overwrite=True)
        clips[name] = (words_of(fields), clip.array())
        print(name, words_of(fields), sep=": ")
    story = kinema.render("storyboard.yaml", model=model)
    story.save("clips/storyboard.mp4", overwrite=True)
    write_video("gallery.webp", gallery(clips), fps=8, overwrite=True)


if __name__ == "__main__":
    main()
