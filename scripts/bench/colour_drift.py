"""How far colours drift when frames are redrawn from one another: 200 frames, with and without correction.

    python scripts/bench/colour_drift.py --out drift.json --plot drift.png --sheet drift-frames.png

Each way redraws the same first frame with the embedded model. Every frame is measured against the first:
the shift of the mean colour in Oklab (0.01 is hardly seen, 0.1 is another picture), contrast as the ratio of
the spreads of L, saturation as the ratio of the mean chroma.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

import kinema
from kinema.animation.oklab import to_oklab
from kinema.pipelines.figure import FAINT, PALETTE, Figure

PROMPT = "a rooster on a blue background"
WAYS: dict[str, dict[str, Any]] = {
    "off": {"colour": "off"},
    "transport": {"colour": "transport"},
    "transport, window 1": {"colour": "transport", "colour_window": 1},
    "histogram": {"colour": "histogram"},
}
MEASURES = {"shift": "shift of the mean colour (Oklab)", "contrast": "contrast", "saturation": "saturation"}


def main() -> None:
    args = parse()
    if args.curves:
        plot(json.loads(args.curves.read_text())["curves"], args.plot)
        return
    model = kinema.load("embedded", device="cpu")
    curves, sheets = {}, {}
    for name, redraw in WAYS.items():
        frames = render(model, redraw, args)
        curves[name] = measured(frames)
        sheets[name] = frames[:: max(1, (len(frames) - 1) // 8)]
        print(name, {measure: round(values[-1], 4) for measure, values in curves[name].items()}, flush=True)
    settings = {"prompt": PROMPT, "frames": args.frames, "steps": args.steps, "seed": args.seed}
    settings |= {"strength": args.strength, "noise": args.noise}
    if args.out:
        args.out.write_text(json.dumps({"settings": settings, "curves": curves}, indent=1) + "\n")
    if args.plot:
        plot(curves, args.plot)
    if args.sheet:
        sheet(sheets, args.sheet)


def render(model: Any, redraw: dict[str, Any], args: argparse.Namespace) -> np.ndarray:
    """uint8 frames `[F, H, W, 3]`."""
    return kinema.generate(
        PROMPT,
        model=model,
        mode="frame_by_frame",
        frames=args.frames,
        seed=args.seed,
        steps=args.steps,
        redraw={"strength": args.strength, "noise": args.noise, **redraw},
    ).array()


def measured(frames: np.ndarray) -> dict[str, list[float]]:
    """Of every frame, against the first."""
    pixels = rearrange(torch.from_numpy(frames).double() / 255, "F H W C -> F C H W")
    lab = rearrange(to_oklab(pixels), "F C H W -> F C (H W)")
    mean, spread = lab.mean(dim=2), lab[:, 0].std(dim=1)
    chroma = lab[:, 1:].square().sum(dim=1).sqrt().mean(dim=1)
    values = {"shift": (mean - mean[0]).norm(dim=1), "contrast": spread / spread[0]}
    values["saturation"] = chroma / chroma[0]
    return {name: [round(v, 5) for v in value.tolist()] for name, value in values.items()}


def plot(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel for each measure."""
    width, height, left, gap, top, bottom = 960, 262, 16, 24, 46, 220
    panel = (width - 2 * left - 2 * gap) / 3
    figure = Figure(width, height)
    for p, (measure, title) in enumerate(MEASURES.items()):
        x = left + p * (panel + gap)
        every = [curve[measure] for curve in curves.values()]
        low, high = min(min(v) for v in every), max(max(v) for v in every)
        figure.words(x, 8, title, size=12)
        figure.words(x, 26, f"{low:.3g} to {high:.3g} over {len(every[0])} frames", size=10)
        figure.line([(x, bottom), (x + panel, bottom)], FAINT)
        for color, values in zip(PALETTE, every, strict=False):
            across = [x + panel * f / (len(values) - 1) for f in range(len(values))]
            up = [bottom - (bottom - top) * (v - low) / max(high - low, 1e-9) for v in values]
            figure.line(list(zip(across, up, strict=True)), color, 1.5)
    for i, (color, name) in enumerate(zip(PALETTE, curves, strict=False)):
        x = left + 200 * i
        figure.line([(x, 246), (x + 18, 246)], color, 2)
        figure.words(x + 24, 238, name, size=12)
    figure.save(path, overwrite=True)


def sheet(sheets: dict[str, np.ndarray], path: Path) -> None:
    """A row of frames for each way, the first at the left."""
    from PIL import Image

    rows = [np.concatenate(list(frames), axis=1) for frames in sheets.values()]
    narrow = min(row.shape[1] for row in rows)
    picture = Image.fromarray(np.concatenate([row[:, :narrow] for row in rows]))
    picture.resize((picture.width * 3 // 2, picture.height * 3 // 2), Image.Resampling.BICUBIC).save(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--out", type=Path, help="JSON with every curve")
    parser.add_argument("--plot", type=Path, help="picture of the curves, .svg or .png")
    parser.add_argument("--curves", type=Path, help="JSON of an earlier run, to plot again")
    parser.add_argument("--sheet", type=Path, help="picture of frames")
    return parser.parse_args()


if __name__ == "__main__":
    main()
