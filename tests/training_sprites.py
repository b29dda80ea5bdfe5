"""Small sprites for tests: squares and discs whose colours and loops are known."""

from __future__ import annotations

import json

import numpy as np

from kinema.training.data import SpriteBank

SIZE, LOOP = 16, 4
NAMES = ("fox", "owl", "cat", "stone")


def table():
    """Three animated sprites and a still one, premultiplied RGBA."""
    frames = np.zeros((3 * LOOP + 1, SIZE, SIZE, 4), dtype=np.uint8)
    for index in range(3 * LOOP + 1):
        frames[index, 3:13, 4:12] = (60 + 50 * (index // LOOP), 40, 10 * (index % LOOP), 255)
    return frames


def index():
    sprites = [
        {
            "name": name,
            "tags": [],
            "offset": LOOP * i,
            "frames": LOOP if i < 3 else 1,
            "animated": i < 3,
        }
        for i, name in enumerate(NAMES)
    ]
    return {"fps": 12.0, "size": SIZE, "sprites": sprites}


def make(folder):
    folder.mkdir(exist_ok=True)
    np.save(folder / "frames.npy", table())
    (folder / "sprites.json").write_text(json.dumps({"sha256": "ab", **index()}))
    return SpriteBank.open(folder)
