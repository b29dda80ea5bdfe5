"""Rows of frames of sample clips, as the docs show them.

python samples/strips.py dive pan morph -o docs/figures/frame-by-frame.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from kinema.io.video_read import open_video

HERE = Path(__file__).resolve().parent
FRAMES, SIDE, GAP = 8, 120, 6


def row(name: str) -> np.ndarray:
    """Frames of a clip evenly apart, side by side."""
    frames = list(open_video(HERE / "clips" / f"{name}.mp4"))
    chosen = [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
    sized = [Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for f in chosen]
    return np.concatenate([np.asarray(picture) for picture in sized], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [row(name) for name in args.names]
    gap = np.full((GAP, rows[0].shape[1], 3), 250, np.uint8)
    stacked = [part for one in rows for part in (one, gap)][:-1]
    Image.fromarray(np.concatenate(stacked)).save(args.out, quality=90)


if __name__ == "__main__":
    main()
