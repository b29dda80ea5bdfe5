"""Draw the picture of docs/schedules.md: easings, waves, and one string read in both dialects.

python scripts/draw_schedules.py docs/figures/schedules.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kinema import Schedule
from kinema.pipelines.figure import FAINT, INK, PALETTE, Figure

COLUMNS, CELL_WIDTH, CELL_HEIGHT, LABEL, GAP = 5, 172, 74, 15, 12
FRAMES = 97

EASES = (
    "linear", "in_out", "out_quart", "in_expo", "in_out_circ",
    "out_back", "out_elastic", "out_bounce", "spring", "steps(4)",
)  # fmt: skip
FORMULAS = (
    "sin(tau * t / 48)", "saw(t / 24)", "tri(t / 24)", "pulse(t / 24, 0.2)", "noise(t / 12)",
    "exp(-4 * saw(beat))", "smoothstep(24, 72, t)", "t > 48 ? 1 : 0", "abs(sin(t / 8)) ** 3",
    "clamp(t / 48, 0.2, 1.2)",
)  # fmt: skip
BOTH = (
    "0:(0), 96:(1)", "0:(0), 30:(1/2), 96:(1)", "0:(sin(t/9)), 48:(1)", "0:(0), 140:(1)", "30:(0), 96:(1)",
)  # fmt: skip


def main(path: Path) -> None:
    easings = [(e, [Schedule({"ease": e, 0: 0, 48: 1, 96: 0}).values(FRAMES)]) for e in EASES]
    formulas = [(f, [Schedule(f).values(FRAMES, seed=3)]) for f in FORMULAS]
    readings = [
        (text, [Schedule.parse(text, name).values(FRAMES) for name in ("native", "deforum")]) for text in BOTH
    ]
    figure = Figure(COLUMNS * (CELL_WIDTH + GAP) + GAP)
    top = section(figure, "an easing, from 0 to 1 and back", GAP, easings)
    top = section(figure, "a formula", top, formulas)
    bottom = section(figure, "a string: native (blue) and deforum (orange)", top, readings)
    figure.height = round(bottom)
    figure.save(path, overwrite=True)


def section(figure: Figure, title: str, top: float, cells: list[tuple[str, list[np.ndarray]]]) -> float:
    figure.words(GAP, top, title, color=INK)
    top += LABEL + 4
    for index, (name, curves) in enumerate(cells):
        x = GAP + index % COLUMNS * (CELL_WIDTH + GAP)
        y = top + index // COLUMNS * (CELL_HEIGHT + LABEL + GAP)
        cell(figure, x, y, name, curves)
    rows = -(-len(cells) // COLUMNS)
    return top + rows * (CELL_HEIGHT + LABEL + GAP)


def cell(figure: Figure, x: float, y: float, name: str, curves: list[np.ndarray]) -> None:
    low = min(0.0, *(float(curve.min()) for curve in curves))
    high = max(1.0, *(float(curve.max()) for curve in curves))
    figure.box(x, y, CELL_WIDTH, CELL_HEIGHT, "#ffffff")
    for level in (0.0, 1.0):
        at = y + 4 + (high - level) / (high - low) * (CELL_HEIGHT - 8)
        figure.line([(x, at), (x + CELL_WIDTH, at)], color=FAINT)
    for number, curve in reversed(list(enumerate(curves))):
        points = [
            (x + i / (FRAMES - 1) * CELL_WIDTH, y + 4 + (high - v) / (high - low) * (CELL_HEIGHT - 8))
            for i, v in enumerate(curve)
        ]
        figure.line(points, color=PALETTE[number], width=1.6 if number == 0 else 2.4)
    figure.words(x, y + CELL_HEIGHT + 2, name, color=INK)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
