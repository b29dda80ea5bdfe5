"""A run's curves as a picture, from its `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from kinema.training.loop import entries

WIDTH, HEIGHT, MARGIN = 760, 420, 48
INKS = ((32, 90, 190), (200, 60, 40), (40, 140, 70), (150, 80, 180), (120, 120, 120))
PAPER, RULE = (255, 255, 255), (215, 215, 215)
SMOOTH = 0.9


def draw_curves(log: Path, picture: Path) -> None:
    """Draw every stage's losses over its steps, on a logarithmic scale: faint as logged, strong smoothed."""
    curves = read_curves(log)
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    values = [value for points in curves.values() for _, value in points if value > 0]
    if values:
        low, high = math.log(min(values)), math.log(max(values))
        high = max(high, low + 0.1)
        last = max(step for points in curves.values() for step, _ in points)
        _rules(draw, low, high, last)
        for (name, points), ink, row in zip(curves.items(), INKS * 9, range(len(curves)), strict=False):
            faint = tuple((value + 2 * 255) // 3 for value in ink)
            draw.line([_place(p, low, high, last) for p in points], fill=faint)
            draw.line([_place(p, low, high, last) for p in smoothed(points)], fill=ink, width=2)
            draw.text((WIDTH - 230, 12 + 14 * row), name, fill=ink)
    image.save(picture)


def read_curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and loss of each stage, and of each kind of batch in it."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in entries(log):
        losses = entry["loss"] if isinstance(entry["loss"], list) else [entry["loss"]]
        for number, loss in enumerate(losses):
            name = f"{entry.get('stage', 'run')}{f' {number}' if len(losses) > 1 else ''}"
            if math.isfinite(loss):
                curves.setdefault(name, []).append((entry["step"], loss))
    return curves


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """An exponential mean that begins without bias."""
    total, weight, found = 0.0, 0.0, []
    for step, value in points:
        total, weight = SMOOTH * total + value, SMOOTH * weight + 1
        found.append((step, total / weight))
    return found


def _place(point: tuple[int, float], low: float, high: float, last: int) -> tuple[float, float]:
    step, value = point
    across = MARGIN + (WIDTH - 2 * MARGIN) * step / max(1, last)
    up = (math.log(max(value, 1e-9)) - low) / (high - low)
    return across, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * up


def _rules(draw: ImageDraw.ImageDraw, low: float, high: float, last: int) -> None:
    for k in range(5):
        value = math.exp(low + (high - low) * k / 4)
        _, y = _place((0, value), low, high, last)
        draw.line([(MARGIN, y), (WIDTH - MARGIN, y)], fill=RULE)
        draw.text((4, y - 6), f"{value:.3g}", fill=(90, 90, 90))
        x, _ = _place((last * k // 4, math.exp(low)), low, high, last)
        draw.text((x - 8, HEIGHT - MARGIN + 6), str(last * k // 4), fill=(90, 90, 90))
