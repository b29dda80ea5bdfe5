"""Draw samples/drawings: two cut-out animations of this project's own, for docs/training.md.

python samples/drawings.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).resolve().parent / "drawings"
SIDE, TIMES, FRAMES, MILLISECONDS = 128, 4, 16, 125
INK = (40, 44, 60, 255)

Point = tuple[float, float]


class Pen:
    """Draws on a square that spans -1..1, four times as large as what is kept."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE * TIMES, SIDE * TIMES))
        self.draw = ImageDraw.Draw(self.image)
        self.turn, self.shift = 0.0, (0.0, 0.0)

    def place(self, point: Point) -> Point:
        """Turned about the middle, shifted, in pixels."""
        x, y = point
        c, s = math.cos(self.turn), math.sin(self.turn)
        x, y = c * x - s * y + self.shift[0], s * x + c * y + self.shift[1]
        return (x + 1) / 2 * SIDE * TIMES, (y + 1) / 2 * SIDE * TIMES

    def polygon(self, *points: Point, fill: tuple[int, ...]) -> None:
        """A filled outline."""
        self.draw.polygon([self.place(p) for p in points], fill=fill)

    def disc(self, middle: Point, across: float, down: float, fill: tuple[int, ...]) -> None:
        """A filled ellipse, not turned."""
        x, y = self.place(middle)
        half = SIDE * TIMES / 2
        self.draw.ellipse([x - across * half, y - down * half, x + across * half, y + down * half], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: tuple[int, ...]) -> None:
        """A filled box, turned with the rest."""
        self.polygon((left, top), (right, top), (right, bottom), (left, bottom), fill=fill)


def paper_boat(pen: Pen, time: float) -> None:
    """Rocks on a wave that is not drawn."""
    pen.turn, pen.shift = 0.14 * math.sin(time), (0.0, 0.05 * math.cos(time))
    pen.polygon((0, -0.75), (-0.42, 0.1), (0, 0.1), fill=(250, 250, 252, 255))
    pen.polygon((0, -0.75), (0.42, 0.1), (0, 0.1), fill=(206, 214, 230, 255))
    pen.polygon((-0.9, -0.12), (-0.55, 0.55), (0, 0.55), (0, 0.1), fill=(236, 74, 62, 255))
    pen.polygon((0.9, -0.12), (0.55, 0.55), (0, 0.55), (0, 0.1), fill=(190, 48, 48, 255))


def toy_robot(pen: Pen, time: float) -> None:
    """Waves its arms and blinks once a loop."""
    lift = 0.22 * math.sin(time)
    pen.box(-0.06, -0.92, 0.06, -0.7, (90, 96, 110, 255))
    pen.disc((0, -0.88), 0.1, 0.1, (240, 90, 70, 255))
    pen.box(-0.46, -0.72, 0.46, -0.12, (120, 200, 150, 255))
    pen.box(-0.36, 0.0, 0.36, 0.62, (84, 160, 120, 255))
    pen.box(-0.28, 0.62, -0.08, 0.9, INK)
    pen.box(0.08, 0.62, 0.28, 0.9, INK)
    for side in (-1, 1):
        pen.polygon(
            (side * 0.36, 0.08),
            (side * 0.8, 0.25 + side * lift),
            (side * 0.8, 0.4 + side * lift),
            (side * 0.36, 0.26),
            fill=(90, 96, 110, 255),
        )
        pen.disc((side * 0.2, -0.46), 0.12, 0.02 if math.cos(time) > 0.9 else 0.12, (255, 255, 255, 255))
        pen.disc((side * 0.2, -0.46), 0.06, 0.02 if math.cos(time) > 0.9 else 0.06, INK)
    pen.box(-0.2, -0.28, 0.2, -0.22, INK)
    pen.disc((0, 0.28), 0.12, 0.12, (250, 206, 80, 255))


def write(name: str, drawing: Callable[[Pen, float], None]) -> None:
    """One loop as an animated WebP with a clear ground."""
    frames = []
    for index in range(FRAMES):
        pen = Pen()
        drawing(pen, 2 * math.pi * index / FRAMES)
        small = pen.image.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.BOX)
        frames.append(small.convert("RGBA"))
    frames[0].save(
        FOLDER / f"{name}.webp",
        save_all=True,
        append_images=frames[1:],
        duration=MILLISECONDS,
        loop=0,
        lossless=True,
        method=6,
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    write("paper boat", paper_boat)
    write("toy robot", toy_robot)


if __name__ == "__main__":
    main()
