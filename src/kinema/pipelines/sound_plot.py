"""What a clip's sound looks like: the loudest sample of each column, around a middle line."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from kinema.io.mux import AudioPart, peaks
from kinema.pipelines.figure import INK, Figure
from kinema.pipelines.plots import GAP, LABEL, LANE, LEFT, RIGHT, WIDTH

COLOR = "#8a8a90"


def draw_sound(figure: Figure, parts: Sequence[AudioPart], seconds: Fraction) -> None:
    """A lane with the parts as they are heard over the whole clip."""
    names = ", ".join(dict.fromkeys(part.path for part in parts))
    figure.words(LEFT, figure.height, f"sound: {names}")
    columns = WIDTH - LEFT - RIGHT
    middle = figure.height + LABEL + 2 + LANE / 2
    for column, peak in enumerate(peaks(parts, seconds, columns)):
        x, half = LEFT + column + 0.5, max(0.25, min(1.0, float(peak)) * LANE / 2)
        figure.line([(x, middle - half), (x, middle + half)], COLOR)
    figure.line([(LEFT, middle), (WIDTH - RIGHT, middle)], INK, 0.25)
    figure.height += LABEL + 2 + LANE + GAP
