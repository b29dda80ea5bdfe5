"""Train the embedded model on a GPU machine that is lent in slices of a few minutes.

    python scripts/gpu/slice.py codec        fit the codec, train its decoder             6 minutes
    python scripts/gpu/slice.py first        the transformer: stills, then clips          8.5 minutes
    python scripts/gpu/slice.py second       clips, to the end of the schedule            8.5 minutes
    python scripts/gpu/slice.py fast         few-step distillation, and sheets            4 minutes
    python scripts/gpu/slice.py all --dry    every slice with tiny sizes, for seconds, on any machine

Slices go on from each other in --work, which stays on the machine while it is warm. What must not be lost is
copied to $OUT: at most 8 files of at most 16 MiB. On a fresh machine, --back names a folder with those files
of the slice before. Needs torch, numpy, pillow, safetensors, einops, tokenizers and pyyaml.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES, MOST_BYTES = 8, 16 * 2**20
DRY_MINUTES = 60.0  # the steps of a dry run end it, not the clock


@dataclass(frozen=True)
class Task:
    """One call of train_embedded.py: a stage, its minutes, and minutes of it to come in all."""

    stage: str
    minutes: float
    plan: float
    start: str = ""


SLICES = {
    "codec": (Task("codec", 6.0, 6.0),),
    "first": (
        Task("image", 2.5, 2.5),
        Task("video", 5.6, 14.0, start="image.safetensors"),
    ),
    "second": (Task("video", 8.4, 8.4),),
    "fast": (Task("fast", 3.5, 3.5, start="video.safetensors"),),
}
KEPT = ("curves.png", "metrics.jsonl")
SENT = "sent.txt"  # names of the files that were copied last


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slice", choices=[*SLICES, "all"])
    parser.add_argument("--config", type=Path, default=ROOT / "configs/embedded-v2.yaml")
    parser.add_argument("--pack", type=Path, default=ROOT / "data/emoji-128.zip")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/gpu")
    parser.add_argument("--back", type=Path, help="files that an earlier slice sent back")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--share", type=float, default=1.0, help="of every task's minutes")
    parser.add_argument("--dry", action="store_true", help="configs/dry-run.yaml, a few steps of everything")
    return parser.parse_args()


def restore(work: Path, back: Path) -> None:
    """Put the files of an earlier slice where this one looks for them."""
    for path in back.iterdir():
        folder = work / ("codec" if path.name.startswith("codec--") else "shards")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name.removeprefix("codec--"))
    for name in ("metrics.jsonl", "fast-lora.safetensors"):
        if (back / name).exists():
            shutil.copy(back / name, work / name)


def command(args: argparse.Namespace, task: Task) -> list[str]:
    """The call of one task."""
    work, minutes = args.work, DRY_MINUTES if args.dry else args.share * task.minutes
    call = [sys.executable, str(ROOT / "scripts/train_embedded.py"), "--config", str(args.config)]
    call += ["--data", str(work / "data"), "--pack", str(args.pack), "--out", str(work)]
    call += ["--stage", task.stage, "--device", args.device, "--minutes", f"{minutes:.2f}"]
    call += [] if args.dry else ["--plan", f"{args.share * task.plan:.2f}"]
    call += ["--eager"] if args.eager else []
    if task.stage != "codec":
        call += ["--codec", str(work / "codec"), "--export", str(work / "shards")]
        call += ["--every", "2" if args.dry else "400", "--sheets", "2" if args.dry else "1000"]
        checkpoint, start = work / f"{task.stage}.safetensors", work / task.start
        shards = task.stage if task.stage != "fast" else "video"
        if task.start and start.exists():
            call += ["--start", str(start)]
        elif not checkpoint.exists() and list((work / "shards").glob(f"{shards}-*.safetensors")):
            call += ["--resume", str(work / "shards")]
    return call


def collect(work: Path, out: Path, stage: str) -> None:
    """Copy what must not be lost, in place of what the task before left; says what would not come back.

    Only what an earlier task copied goes: the folder may be anybody's.
    """
    shards = sorted((work / "shards").glob(f"{stage if stage != 'fast' else 'video'}-*.safetensors"))
    sheets = sorted(work.glob(f"{stage}-*.png"), key=lambda path: path.stat().st_mtime)[-1:]
    named = {path.name: path for path in [*shards, *sheets, *(work / name for name in KEPT)]}
    if stage == "fast":
        named = {path.name: path for path in [*sheets, *(work / name for name in KEPT)]}
        named["fast-lora.safetensors"] = work / "fast-lora.safetensors"
    if stage == "codec":
        named |= {f"codec--{path.name}": path for path in (work / "codec").iterdir()}
    found = {name: path for name, path in named.items() if path.exists()}
    large = [name for name, path in found.items() if path.stat().st_size > MOST_BYTES]
    if len(found) > MOST_FILES or large:
        print(f"{len(found)} files, too large: {large}; only {MOST_FILES} come back", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    listed = work / SENT
    for name in listed.read_text("utf-8").splitlines() if listed.is_file() else []:
        (out / name).unlink(missing_ok=True)
    listed.write_text("".join(f"{name}\n" for name in found), encoding="utf-8")
    for name, path in found.items():
        shutil.copy(path, out / name)
    print(f"sent back: {', '.join(sorted(found))}", flush=True)


def main() -> None:
    args = arguments()
    if args.dry:
        args.config = ROOT / "configs/dry-run.yaml"
    out = Path(os.environ.get("OUT", args.work / "out"))
    args.work.mkdir(parents=True, exist_ok=True)
    if args.back:
        restore(args.work, args.back)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    for name in SLICES if args.slice == "all" else [args.slice]:
        for task in SLICES[name]:
            began = time.monotonic()
            subprocess.run(command(args, task), check=True, env=environment, cwd=ROOT)
            print(f"== {name}/{task.stage}: {time.monotonic() - began:.0f} s", flush=True)
            collect(args.work, out, task.stage)


if __name__ == "__main__":
    main()
