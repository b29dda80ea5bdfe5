"""Blend the finished weights of runs that began from one another: what both know is kept.

    python scripts/blend_checkpoints.py runs/v1.1/video.safetensors:0.6 runs/v1.2/video.safetensors:0.4 \\
        --out runs/v1.2/blend.safetensors

FILE is a run's checkpoint or a packed model's folder. Shares are normalised; scripts/compare_checkpoints.py
finds good ones. What comes out is read as a checkpoint: by train_embedded.py --start, pack_embedded.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kinema.training.blends import read_blend
from kinema.training.files import write_tensors
from kinema.training.loop import AVERAGE
from kinema.training.script import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", metavar="FILE:SHARE")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = read_blend("+".join(args.checkpoints))
    tensors = {AVERAGE + name: weight for name, weight in weights.items()}
    write_tensors(args.out, tensors, {"step": 0})


if __name__ == "__main__":
    sys.exit(run_script(main))
