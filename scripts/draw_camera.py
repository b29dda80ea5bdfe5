"""Draw docs/figures/camera.png: one scene, seen after each move of the camera, by the package's own warps.

    python scripts/draw_camera.py [docs/figures/camera.png]

The scene has three distances: a post at 0.6, a house at 1, hills and sky at 3. What the camera has not seen
is marked in pink.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from kinema.animation.camera import path
from kinema.animation.warp import warp_frame
from kinema.pipelines.figure import Figure
from kinema.story.camera import Camera

WIDTH, HEIGHT, SCALE = 192, 128, 4
HOLE = torch.tensor([0.93, 0.55, 0.72])[None, :, None, None]
MOVES = [
    ("the first frame", "", {}),
    ("pan_x: 0.15", "right on the picture", {"pan_x": 0.15}),
    ("pan_y: 0.15", "up on the picture", {"pan_y": 0.15}),
    ("zoom: 1.4", "nearer on the picture", {"zoom": 1.4}),
    ("roll: 15", "leans clockwise", {"roll": 15}),
    ("yaw: 12", "looks right", {"yaw": 12}),
    ("pitch: 8", "looks up", {"pitch": 8}),
    ("fov: 50 to 36", "a longer lens", {"fov": 36}),
    ("x: 0.2", "goes right", {"x": 0.2}),
    ("y: 0.15", "goes up", {"y": 0.15}),
    ("z: 0.3", "goes forward", {"z": 0.3}),
    ("orbit_x: 15", "goes round to the right", {"orbit_x": 15}),
    ("orbit_y: 12", "goes over the top", {"orbit_y": 12}),
    ("orbit_x: 30, flat", "the same without depth", {"orbit_x": 30, "flat": True}),
    ("zoom: 1.4, pivot_x: 0", "about the left edge", {"zoom": 1.4, "pivot_x": 0}),
]  # fmt: skip


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A picture in 0..1 and its distances, `[1, C, H, W]`."""
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    picture, distance = Image.new("RGB", size), Image.new("F", size)
    layers = [ImageDraw.Draw(picture), ImageDraw.Draw(distance)]

    def paint(shape: str, points: list[tuple[float, float]], colour: str, at: float) -> None:
        where = [(x * SCALE, y * SCALE) for x, y in points]
        for layer, value in zip(layers, (colour, at), strict=True):
            getattr(layer, shape)(where, fill=value)

    paint("rectangle", [(0, 0), (192, 128)], "#a9cdea", 3)
    paint("polygon", [(0, 86), (40, 52), (80, 78), (130, 44), (192, 80), (192, 128), (0, 128)], "#7fa98c", 3)
    paint("rectangle", [(0, 88), (192, 128)], "#c9b98f", 3)
    for x in range(0, 192, 16):
        paint("rectangle", [(x, 108), (x + 8, 110)], "#a8986c", 3)
    paint("rectangle", [(70, 62), (124, 100)], "#d8704f", 1)
    paint("polygon", [(64, 62), (97, 38), (130, 62)], "#7b3a2e", 1)
    paint("rectangle", [(91, 78), (103, 100)], "#4a2d26", 1)
    for x in (76, 109):
        paint("rectangle", [(x, 70), (x + 9, 80)], "#f2e7b8", 1)
    paint("rectangle", [(40, 30), (48, 128)], "#3b4a66", 0.6)
    paint("rectangle", [(30, 26), (58, 40)], "#f0f0ea", 0.6)
    small = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    depth = distance.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    return pixels, torch.from_numpy(np.array(depth))[None, None]


def seen(move: dict[str, float], picture: torch.Tensor, depth: torch.Tensor) -> np.ndarray:
    """The scene after the move, uint8 `[H, W, 3]`."""
    rest = {"zoom": 1, "fov": 50}
    flat = bool(move.get("flat"))
    tracks = {
        n: v if n.startswith("pivot") else {0: rest.get(n, 0), 1: v} for n, v in move.items() if n != "flat"
    }
    camera = Camera(**tracks, **({} if flat else {"depth": "scene"}))
    step = path(camera, 2, 24, (WIDTH, HEIGHT)).steps[1]
    warped, holes = warp_frame(picture, step, depth)
    marked = torch.where(holes, 0.35 * warped + 0.65 * HOLE, warped).clamp(0, 1)
    return (marked[0].permute(1, 2, 0) * 255).round().byte().numpy()


def draw() -> Figure:
    """All moves in a table."""
    columns, left, top, gap_x, gap_y = 5, 16, 16, 14, 46
    rows = -(-len(MOVES) // columns)
    figure = Figure(left * 2 + columns * WIDTH + (columns - 1) * gap_x, top * 2 + rows * (HEIGHT + gap_y))
    picture, depth = scene()
    for i, (name, what, move) in enumerate(MOVES):
        x = left + (i % columns) * (WIDTH + gap_x)
        y = top + (i // columns) * (HEIGHT + gap_y)
        figure.picture(x, y, WIDTH, HEIGHT, seen(move, picture, depth))
        figure.words(x, y + HEIGHT + 4, name, size=13)
        figure.words(x, y + HEIGHT + 20, what, size=11, color="#6a6a70")
    return figure


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures/camera.png")
    print(draw().save(target, overwrite=True))
