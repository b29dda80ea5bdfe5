"""Speed as a ratio: several ways to do the same work, alternating in one process.

    ratio of a round = seconds of the first way / seconds of this way        above 1: this way is faster

One round runs every way once; the median over rounds and their range are reported, since a machine is never
quiet for a whole run but two neighbours in a round see nearly the same machine. Beside the speed stands the
largest difference of the outputs. Used by the scripts of this folder; `chart` draws their JSON.

    python scripts/bench/alternate.py docs/figures/speed/*.json -o docs/figures/speed/speed.png
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], Tensor]
BAR, LEFT, RIGHT, TOP, WIDTH = 18, 290, 70, 34, 760


@dataclass(frozen=True)
class Way:
    """How one way did.

    Attributes:
        name: of the way.
        ratio: median over rounds; 1 for the first way.
        range: smallest and largest of the rounds' ratios.
        seconds: median.
        best: seconds of the least disturbed round.
        difference: largest difference to the first way's output.
        rms: root of the mean squared difference; for pictures in 0..1, PSNR is -20 log10 of it.
    """

    name: str
    ratio: float
    range: tuple[float, float]
    seconds: float
    best: float
    difference: float
    rms: float


@torch.no_grad()
def alternate(
    works: Mapping[str, Work],
    rounds: int,
    *,
    warm: bool = True,
    once: Collection[str] = (),
    limit: float = math.inf,
    told: Callable[[list[Way]], None] = lambda ways: None,
    cpu_time: bool = False,
) -> list[Way]:
    """Run every way `rounds` times in turn.

    Args:
        works: by name; the first is what the others are compared with. Each returns its output.
        rounds: timed ones; outputs are compared in a round before them.
        warm: False to time that round too, for work of minutes.
        once: ways that are run in the first round only, for their difference.
        limit: seconds after which no round begins.
        told: called after every timed round with what is known by then.
        cpu_time: count processor seconds of this process, which other work disturbs less.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    outputs, seconds = dict[str, Tensor](), {name: list[float]() for name in works}
    begin, ways = time.perf_counter(), list[Way]()
    for number in range(rounds + warm):
        if number > warm and time.perf_counter() - begin > limit:
            break
        for name, work in works.items():
            if number and name in once:
                continue
            start = clock()
            output = work()
            if number or not warm or name in once:
                seconds[name].append(clock() - start)
            outputs.setdefault(name, output.float())
        if number or not warm:
            first, reference = next(iter(outputs.items()))
            ways = [_way(n, seconds[n], seconds[first], outputs[n], reference) for n in works]
            told(ways)
    return ways


def _way(name: str, own: Sequence[float], first: Sequence[float], output: Tensor, reference: Tensor) -> Way:
    ratios = [a / b for a, b in zip(first, own, strict=False)]
    gap = output - reference
    return Way(
        name=name,
        ratio=statistics.median(ratios),
        range=(min(ratios), max(ratios)),
        seconds=statistics.median(own),
        best=min(own),
        difference=gap.abs().max().item(),
        rms=gap.square().mean().sqrt().item(),
    )


def show(title: str, ways: Sequence[Way]) -> None:
    """One line for each way."""
    print(title)
    for w in ways:
        print(
            f"  {w.name:32} x{w.ratio:.2f} [{w.range[0]:.2f}-{w.range[1]:.2f}]  {1000 * w.seconds:9.1f} ms, "
            f"best {1000 * w.best:9.1f}  largest difference {w.difference:.1e}, rms {w.rms:.1e}",
            flush=True,
        )


def write(path: Path, results: Mapping[str, Sequence[Way]], settings: Mapping[str, Any]) -> None:
    """The results as JSON; those of other names that the file has already stay."""
    known = json.loads(path.read_text("utf-8"))["results"] if path.is_file() else {}
    data = {
        "machine": machine(),
        "settings": {k: v for k, v in settings.items() if not isinstance(v, Path) and v != math.inf},
        "results": known | {name: [asdict(way) for way in ways] for name, ways in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return {
        "processor": found[1] if found else platform.processor(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def chart(files: Sequence[Path], target: Path) -> None:
    """Every way but the first as a bar of its ratio, with a line for the range; the first is at 1."""
    from kinema.pipelines.figure import PALETTE, Figure

    groups = [
        (title, ways)
        for file in files
        for title, ways in json.loads(file.read_text("utf-8"))["results"].items()
    ]
    most = max(max(way["range"]) for _, ways in groups for way in ways)
    scale = (WIDTH - LEFT - RIGHT) / most
    figure = Figure(WIDTH, TOP)
    figure.words(LEFT + scale, 10, "as fast", anchor="middle")
    for title, ways in groups:
        figure.words(12, figure.height + 2, f"{title}, against {ways[0]['name']}", size=12)
        figure.height += 20
        for index, way in enumerate(ways[1:]):
            _bar(figure, way, scale, PALETTE[index % len(PALETTE)])
        figure.height += 10
    figure.line([(LEFT + scale, TOP - 6), (LEFT + scale, figure.height - 4)])
    figure.save(target, overwrite=True)
    print(target)


def _bar(figure: Any, way: Mapping[str, Any], scale: float, color: str) -> None:
    y = figure.height
    figure.words(LEFT - 10, y + 2, way["name"], anchor="end")
    figure.box(LEFT, y + 2, way["ratio"] * scale, BAR - 5, color)
    low, high = way["range"]
    figure.line([(LEFT + low * scale, y + BAR / 2), (LEFT + high * scale, y + BAR / 2)], "#88888c", 1.5)
    figure.words(LEFT + max(high, way["ratio"]) * scale + 8, y + 2, f"x{way['ratio']:.2f}")
    figure.height += BAR


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the JSON of speed measurements.")
    parser.add_argument("files", type=Path, nargs="+", help="written by the scripts of this folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="PNG or SVG")
    args = parser.parse_args()
    chart(args.files, args.out)


if __name__ == "__main__":
    main()
