"""Measure everything that docs/speed.md says of exact speed, and write JSON, chart and tables anew.

    python scripts/bench/refresh_speed.py                  all parts, about 20 minutes of one quiet core
    python scripts/bench/refresh_speed.py --only step run  some parts
    python scripts/bench/refresh_speed.py --only           nothing: chart and tables from the JSON there is

Run it on a machine that does nothing else; ratios of alternating runs bear some load, short steps do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alternate import chart

ROOT = Path(__file__).resolve().parents[2]
FOLDER, PAGE = ROOT / "docs/figures/speed", ROOT / "docs/speed.md"
BEGIN, END = "<!-- measured: scripts/bench/refresh_speed.py -->", "<!-- end of measured -->"
FILES = ("transformer", "pipeline", "start")
BOTH = ["diffusers", "kinema", "diffusers, bfloat16", "kinema, bfloat16"]
PARTS: dict[str, tuple[str, list[str]]] = {
    "step": ("transformer", ["dit_speed.py", "--tokens", "16", "320", "--rounds", "15", "--half"]),
    "long": ("transformer", ["dit_speed.py", "--tokens", "3510", "--rounds", "5", "--half"]),
    "embedded": ("transformer", ["dit_speed.py", "--tokens", "--embedded", "--rounds", "7"]),
    "run": ("pipeline", ["pipeline_speed.py", "--rounds", "5", "--ways", *BOTH]),
    "start": ("start", ["start_speed.py", "--rounds", "5"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="parts to measure")
    args = parser.parse_args()
    for part in PARTS if args.only is None else args.only:
        name, (script, *options) = PARTS[part]
        command = [sys.executable, str(Path(__file__).parent / script), *options]
        subprocess.run([*command, "--out", str(FOLDER / f"{name}.json")], check=True)
    files = [path for name in FILES if (path := FOLDER / f"{name}.json").is_file()]
    chart(files, FOLDER / "exact.png")
    PAGE.write_text(written(PAGE.read_text("utf-8"), "\n".join(table(files))), encoding="utf-8")


def written(page: str, text: str) -> str:
    """The page with the text between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def table(files: list[Path]) -> Iterator[str]:
    """Rows of Markdown: each way against the first, and what it costs."""
    yield "| | | times as fast | range | largest difference |"
    yield "|---|---|---|---|---|"
    for file in files:
        results: Mapping[str, list[Mapping[str, Any]]] = json.loads(file.read_text("utf-8"))["results"]
        for title, (first, *others) in results.items():
            for way in others:
                low, high = way["range"]
                if "memory_ratio" in way:
                    last = f"{way['memory_ratio']:.2f} times less memory"
                else:
                    last = f"{way['difference']:.0e}"
                named = f"{way['name']}, against {first['name']}"
                yield f"| {title} | {named} | {way['ratio']:.2f} | {low:.2f} to {high:.2f} | {last} |"


if __name__ == "__main__":
    main()
