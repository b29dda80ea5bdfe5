"""Blend the averaged weights of runs that began from one another: what both know is kept (arXiv:2203.05482).

    python scripts/blend_checkpoints.py runs/v1.1/video.safetensors:0.6 runs/v1.2/video.safetensors:0.4 \\
        --out runs/v1.2/blend.safetensors

Shares are normalised. What comes out is read as a checkpoint: by train_embedded.py --start, pack_embedded.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

AVERAGE = "average/"


def averages(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(AVERAGE)}  # noqa: SIM118


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", metavar="FILE:SHARE")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    parts = []
    for text in args.checkpoints:
        path, _, share = text.rpartition(":")
        parts.append((averages(Path(path)), float(share)))
    whole = sum(share for _, share in parts)
    first = parts[0][0]
    for tensors, _ in parts[1:]:
        if tensors.keys() != first.keys() or any(tensors[k].shape != first[k].shape for k in first):
            raise SystemExit("the checkpoints are of models of different shapes")
    blend = {k: sum((share / whole * tensors[k] for tensors, share in parts), 0 * first[k]) for k in first}
    save_file(blend, args.out, {"state": '{"step": 0}'})


if __name__ == "__main__":
    main()
