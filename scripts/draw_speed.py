"""Draw docs/figures/speed-tiers.png: the same clips exact, near and fast, and what differs, ten times.

python scripts/draw_speed.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import kinema
from kinema.pipelines.speed.measure import psnr
from kinema.pipelines.speed.prompts import PROMPTS
from kinema.story.shot import Shot

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "speed-tiers.png"
SHOTS = tuple((PROMPTS[i], i) for i in (0, 3, 4))  # of the clips that the tiers were measured on
FRAMES, SCALE, EDGE, LABEL = (0, 8, 16, 24), 2, 6, 130


def strip(frames: np.ndarray) -> np.ndarray:
    """Some frames side by side, enlarged."""
    large = frames[list(FRAMES)].repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.concatenate(list(large), axis=1)


def main() -> None:
    model = kinema.load("embedded", device="cpu")
    rows: list[tuple[str, np.ndarray]] = []
    for prompt, seed in SHOTS:
        shot = Shot(prompt=prompt, seed=seed, device="cpu")
        exact = kinema.render(shot, model=model).array()
        rows.append(("exact", strip(exact)))
        for tier in ("near", "fast"):
            found = kinema.render(shot.with_(speed=tier), model=model).array()
            rows.append((f"{tier}, {psnr(found, exact):.1f} dB", strip(found)))
            if tier == "fast":
                apart = np.abs(found.astype(int) - exact.astype(int)) * 10
                rows.append(("fast - exact, x10", strip(apart.clip(0, 255).astype(np.uint8))))
    height, width = rows[0][1].shape[:2]
    sheet = Image.new("RGB", (LABEL + width + EDGE, len(rows) * (height + EDGE) + EDGE), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (label, pixels) in enumerate(rows):
        top = EDGE + index * (height + EDGE)
        sheet.paste(Image.fromarray(pixels), (LABEL, top))
        pen.text((8, top + height // 2 - 6), label, fill="black")
    OUT.parent.mkdir(exist_ok=True)
    sheet.save(OUT, optimize=True)
    print(OUT)


if __name__ == "__main__":
    main()
