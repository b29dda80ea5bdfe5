"""A small drawing: rectangles, lines, areas, words and pictures, as PNG (Pillow) or SVG.

Coordinates are in pixels from the top left. A PNG is drawn at twice its size and brought down, so that
slanted lines are smooth.
"""

from __future__ import annotations

import base64
import colorsys
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinema.core.errors import ConfigError
from kinema.io.atomic import check_target, publish, staging

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

SUFFIXES = (".png", ".svg")
PAPER, INK, FAINT = "#fafaf8", "#28282c", "#d8d8d4"
PALETTE = ("#3b6fb6", "#d1662f", "#3c8d5a", "#a0458f", "#b8982c", "#4aa3a8", "#b04050", "#6f6fb0")

_OVER = 2
_ANCHORS = {"start": "la", "middle": "ma", "end": "ra"}


class Mark(Protocol):
    """Something on a figure."""

    def draw(self, image: Image.Image, scale: int) -> None:
        """Put it on a picture that is `scale` times as large."""
        ...

    def svg(self) -> str:
        """The same as an SVG element."""
        ...


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]
    fill: str

    def draw(self, image: Image.Image, scale: int) -> None:
        """Put it on a picture."""
        ImageDraw.Draw(image).polygon([(x * scale, y * scale) for x, y in self.points], fill=self.fill)

    def svg(self) -> str:
        """As an element."""
        return f'<polygon points="{_points(self.points)}" fill="{self.fill}"/>'


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points."""

    points: tuple[Point, ...]
    color: str
    width: float

    def draw(self, image: Image.Image, scale: int) -> None:
        """Put it on a picture."""
        points = [(x * scale, y * scale) for x, y in self.points]
        width = max(1, round(self.width * scale))
        ImageDraw.Draw(image).line(points, fill=self.color, width=width, joint="curve")

    def svg(self) -> str:
        """As an element."""
        stroke = f'stroke="{self.color}" stroke-width="{self.width:g}"'
        return f'<polyline points="{_points(self.points)}" fill="none" {stroke}/>'


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text; `y` is its upper edge."""

    x: float
    y: float
    text: str
    size: float
    color: str
    anchor: Anchor

    def draw(self, image: Image.Image, scale: int) -> None:
        """Put it on a picture."""
        ImageDraw.Draw(image).text(
            (self.x * scale, self.y * scale),
            self.text,
            fill=self.color,
            font=ImageFont.load_default(self.size * scale),
            anchor=_ANCHORS[self.anchor],
        )

    def svg(self) -> str:
        """As an element."""
        place = f'x="{self.x:g}" y="{self.y + 0.8 * self.size:g}" text-anchor="{self.anchor}"'
        style = f'font-family="sans-serif" font-size="{self.size:g}" fill="{self.color}"'
        return f"<text {place} {style}>{escape(self.text)}</text>"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels `[H, W, 3]`, brought to a size."""

    x: float
    y: float
    width: int
    height: int
    pixels: np.ndarray

    def draw(self, image: Image.Image, scale: int) -> None:
        """Put it on a picture."""
        size = (self.width * scale, self.height * scale)
        small = Image.fromarray(self.pixels).resize(size, Image.Resampling.LANCZOS)
        image.paste(small, (round(self.x * scale), round(self.y * scale)))

    def svg(self) -> str:
        """As an element that carries the picture."""
        data = io.BytesIO()
        small = Image.fromarray(self.pixels).resize((self.width, self.height), Image.Resampling.LANCZOS)
        small.save(data, "PNG")
        place = f'x="{self.x:g}" y="{self.y:g}" width="{self.width}" height="{self.height}"'
        return f'<image {place} href="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"/>'


@dataclass(slots=True)
class Figure:
    """Marks on paper, later ones over earlier ones; it grows downwards as it is drawn on.

    Attributes:
        width: pixels.
        height: pixels.
        marks: what is on it.
    """

    width: int
    height: int = 0
    marks: list[Mark] = field(default_factory=list)

    def area(self, points: Sequence[Point], fill: str) -> None:
        """A filled polygon."""
        self.marks.append(Area(tuple(points), fill))

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A filled rectangle."""
        self.area([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], fill)

    def line(self, points: Sequence[Point], color: str = INK, width: float = 1.0) -> None:
        """A line through points."""
        self.marks.append(Line(tuple(points), color, width))

    def words(
        self, x: float, y: float, text: str, *, size: float = 11, color: str = INK, anchor: Anchor = "start"
    ) -> None:
        """One line of text whose upper edge is at `y`."""
        self.marks.append(Words(x, y, text, size, color, anchor))

    def picture(self, x: float, y: float, width: int, height: int, pixels: np.ndarray) -> None:
        """Pixels `[H, W, 3]`, brought to a size."""
        self.marks.append(Picture(x, y, width, height, pixels))

    def image(self) -> Image.Image:
        """The figure as a picture."""
        large = Image.new("RGB", (self.width * _OVER, self.height * _OVER), PAPER)
        for mark in self.marks:
            mark.draw(large, _OVER)
        return large.resize((self.width, self.height), Image.Resampling.BOX)

    def svg(self) -> str:
        """The figure as an SVG document."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        paper = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
        body = "\n".join([paper, *(mark.svg() for mark in self.marks)])
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{body}\n</svg>\n'

    def save(self, path: Path, *, overwrite: bool = False) -> Path:
        """Write `.png` or `.svg`, whole or not at all; `ConfigError` for another suffix."""
        check_figure(path, overwrite=overwrite)
        with staging(path.parent) as work:
            if path.suffix.lower() == ".svg":
                (work / "figure").write_text(self.svg(), encoding="utf-8")
            else:
                self.image().save(work / "figure", "PNG")
            publish(work / "figure", path, overwrite=overwrite)
        return path


def check_figure(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that a figure cannot be written to."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is no name for a figure; end it in {' or '.join(SUFFIXES)}.")
    check_target(path, overwrite=overwrite)


def shortened(text: str, width: float, size: float = 11) -> str:
    """The text cut to `width` pixels, with an ellipsis where it was cut."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def color_of(text: str) -> tuple[int, int, int]:
    """A colour for some words, the same wherever they are shown; 0..255. No words are gray."""
    if not text.strip():
        return 128, 128, 128
    digest = hashlib.sha256(text.encode()).digest()
    red, green, blue = colorsys.hls_to_rgb(digest[0] / 256, 0.4 + digest[1] / 1536, 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
