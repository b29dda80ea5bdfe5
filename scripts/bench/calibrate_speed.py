"""Measure the speed tiers of the embedded model, or of another, on real weights.

    python scripts/bench/calibrate_speed.py --packaged
    python scripts/bench/calibrate_speed.py --model ./wan --prompts prompts.txt --size 832x480 --frames 33

Prints every way that was tried with its distance from exact; writes the tiers (`--packaged`: into the
package, where `--speed` finds it; else into the user's cache, as `kinema calibrate` does).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import cast

import kinema
from kinema.pipelines.model import Model
from kinema.pipelines.speed.calibration import PACKAGED, store
from kinema.pipelines.speed.measure import calibrate
from kinema.pipelines.speed.prompts import PROMPTS
from kinema.story.shot import Shot


def kind(text: str) -> tuple[float, int]:
    share, _, keep = text.partition(":")
    return float(share), int(keep)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prompts", type=Path, help="a text file, one prompt a line")
    parser.add_argument("--clips", type=int, default=12, help="how many of the prompts")
    parser.add_argument("--probes", type=int, default=3, help="clips that the search is made on")
    parser.add_argument("--size")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--families", help="such as 1:1,0.6:2; share of the steps, one in how many is guided")
    parser.add_argument("--published", action="store_true", help="also first-block and magnitude caches")
    parser.add_argument("--packaged", action="store_true")
    args = parser.parse_args()
    lines = PROMPTS if args.prompts is None else args.prompts.read_text(encoding="utf-8").splitlines()
    asked = {name: getattr(args, name) for name in ("size", "frames", "steps") if getattr(args, name)}
    began = time.monotonic()
    model = cast("Model", kinema.load(args.model))
    found = calibrate(
        Shot.from_mapping({"model": args.model, "seed": 0, **asked}),
        [line for line in lines if line.strip()][: args.clips],
        model,
        probes=args.probes,
        published=args.published,
        kinds=None if args.families is None else [kind(text) for text in args.families.split(",")],
        say=lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True),
    )
    print(f"exact: {found.forwards} forwards, {found.seconds} s a clip")
    for name, tier in found.tiers.items():
        print(f"{name}: {tier}")
    print(store(model.card, found, PACKAGED if args.packaged else None))


if __name__ == "__main__":
    main()
