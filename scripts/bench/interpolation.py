"""How near drawn frames are to the truth: scenes whose every moment is known, tripled in rate by each method.

    python scripts/bench/interpolation.py

Prints PSNR in dB of the new frames alone, as the table in docs/long-clips.md.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from kinema.animation.interpolate import interpolated
from kinema.io.minterpolate import minterpolated
from moving_scenes import KINDS, clip, psnr, scene

FRAMES, TIMES = 4, 3


def main() -> None:
    """Print the table."""
    print("| scene | flow | blend | minterpolate |\n|---|---|---|---|")
    rows = []
    for kind in KINDS:
        frames, ratio = clip(kind, FRAMES), Fraction(TIMES)
        methods = (
            interpolated(frames, ratio),
            interpolated(frames, ratio, "blend"),
            minterpolated(iter(frames), Fraction(8), Fraction(8 * TIMES), TIMES * (FRAMES - 1) + 1),
        )
        rows.append([_quality(kind, list(made)) for made in methods])
        print(_line(kind, rows[-1]), flush=True)
    print(_line("mean", list(np.mean(rows, axis=0))))


def _quality(kind: str, made: list[np.ndarray]) -> float:
    new = [j for j in range(len(made)) if j % TIMES]
    return float(np.mean([psnr(made[j], scene(kind)(j / TIMES)) for j in new]))


def _line(name: str, values: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |"


if __name__ == "__main__":
    main()
