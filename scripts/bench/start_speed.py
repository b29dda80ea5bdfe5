"""From the start of a process to a loaded small checkpoint: seconds and peak memory, against diffusers.

    python scripts/bench/start_speed.py --rounds 5

Every point is a fresh process; the ways alternate, and the first round is not counted: after it files are in
the page cache, and bytecode lies beside every module, as an installer leaves it. The checkpoint has random
weights (`wan_checkpoint.py`). `encode` also has the text encoder read a prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TITLE = "start to a loaded checkpoint"
MEMORY = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
CODE = {
    "diffusers": "from diffusers import WanPipeline; pipe = WanPipeline.from_pretrained({folder!r})",
    "kinema": "import kinema; model = kinema.load({folder!r}, device='cpu')",
    "torch alone": "import torch, safetensors.torch",
}
ENCODE = {
    "diffusers": "pipe.encode_prompt('a red fox', 'a dog')",
    "kinema": "model.text.encode(['a red fox', 'a dog'])",
    "torch alone": "pass",
}


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--save", args.size, folder], check=True)
        clock = children if args.cpu_time else time.perf_counter
        points = {name: list[tuple[float, float]]() for name in CODE}
        for number in range(args.rounds + 1):
            for name in CODE:
                point = started(name, folder, encode=args.encode, clock=clock)
                if number:
                    points[name].append(point)
    results = [summary(name, points[name], points["diffusers"]) for name in CODE]
    for r in results:
        low, high = r["range"]
        print(
            f"{r['name']:12} {r['seconds']:6.2f} s, {r['megabytes']:5.0f} MB;  diffusers takes "
            f"x{r['ratio']:.2f} [{low:.2f}-{high:.2f}] the time and x{r['memory_ratio']:.2f} the memory"
        )
    if args.out:
        settings = {"rounds": args.rounds, "size": args.size, "encode": args.encode}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"settings": settings, "results": {TITLE: results}}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a busy machine")
    parser.add_argument("--size", choices=["small", "tiny"], default="tiny", help="of the checkpoint")
    parser.add_argument("--encode", action="store_true", help="and a prompt read")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--save", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.save:
        from wan_checkpoint import save

        save(args.save[0], Path(args.save[1]))
        raise SystemExit
    return args


def started(
    name: str, folder: str, *, encode: bool, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Seconds and peak megabytes of one process."""
    code = "; ".join([CODE[name].format(folder=folder), *([ENCODE[name]] if encode else []), MEMORY])
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = clock()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    return clock() - start, float(done.stdout.split()[-1])


def children() -> float:
    """Processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(name: str, own: list[tuple[float, float]], first: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = [a[0] / b[0] for a, b in zip(first, own, strict=True)]
    return {
        "name": name,
        "ratio": statistics.median(ratios),
        "range": (min(ratios), max(ratios)),
        "seconds": statistics.median(s for s, _ in own),
        "megabytes": statistics.median(m for _, m in own),
        "memory_ratio": statistics.median(a[1] / b[1] for a, b in zip(first, own, strict=True)),
    }


if __name__ == "__main__":
    main()
