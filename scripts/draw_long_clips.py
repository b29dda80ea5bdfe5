"""Draw docs/figures/long-clips.png: 65 frames of a model that learned 17, three ways, and a loop.

python scripts/draw_long_clips.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import kinema

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "long-clips.png"
PROMPT, SEED, STEPS = "a rooster on a blue background", 1, 12
SHOWN, LABEL = 17, 96


def main() -> None:
    """Render and draw; about a minute of one core."""
    model = kinema.load("embedded")
    fields = {"model": model, "seed": SEED, "steps": STEPS}
    rows = {
        kind: kinema.generate(PROMPT, frames=65, windows=kind, **fields).array()[::4]
        for kind in ("whole", "fuse", "continue")
    }
    loop = kinema.generate(PROMPT, frames=32, loop=True, **fields).array()
    rows["loop, twice"] = np.concatenate([loop, loop, loop[:4]])[::4]
    draw(rows).save(OUT)


def draw(rows: dict[str, np.ndarray]) -> Image.Image:
    """A labelled row of frames each."""
    height = next(iter(rows.values())).shape[1]
    sheet = Image.new("RGB", (LABEL + SHOWN * height, len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, frames) in enumerate(rows.items()):
        pen.text((6, i * height + height // 2 - 6), name, fill="black")
        sheet.paste(Image.fromarray(np.concatenate(list(frames[:SHOWN]), axis=1)), (LABEL, i * height))
    return sheet


if __name__ == "__main__":
    main()
