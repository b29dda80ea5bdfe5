"""Speed of a whole run, words to pixels, against diffusers' `WanPipeline` on the same checkpoint.

    python scripts/bench/pipeline_speed.py --rounds 5
    python scripts/bench/pipeline_speed.py --rounds 5 --ways diffusers "kinema, bfloat16" \
        --once "diffusers, bfloat16"

20 steps of UniPC with guidance 5, 17 frames of 128x128, the same first noise. The checkpoint is saved with
random weights by diffusers (`wan_checkpoint.py`) and read by both.
`--once` names ways that are run a single time, for their error.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from alternate import Way, Work, alternate, show, write
from diffusers import WanPipeline
from torch import Tensor
from wan_checkpoint import save

import kinema

PROMPT, NEGATIVE = "a red fox runs over the hills in the snow at night", "a dog"
WAYS = ("diffusers", "kinema", "diffusers, bfloat16", "kinema, bfloat16")


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = save(args.size, Path(folder))
        works = {name: runner(name, path, args) for name in dict.fromkeys([*args.ways, *args.once])}
        ways = alternate(
            works,
            args.rounds,
            warm=args.warm,
            once=args.once,
            limit=args.limit,
            told=partial(keep, args),
            cpu_time=args.cpu_time,
        )
    show(title(args), ways)
    for way in ways[1:]:
        print(f"  {way.name:32} PSNR {-20 * math.log10(way.rms):.1f} dB against {ways[0].name}")


def title(args: argparse.Namespace) -> str:
    return f"{args.steps} steps, {args.frames}x{args.side}x{args.side}, {args.size} Wan"


def keep(args: argparse.Namespace, ways: list[Way]) -> None:
    """What is known after a round, in the file."""
    if args.out:
        write(args.out, {title(args): ways}, vars(args))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["diffusers", "kinema"])
    parser.add_argument("--once", nargs="*", choices=WAYS, default=[])
    parser.add_argument("--size", choices=["small", "tiny"], default="small", help="of the checkpoint")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds; no round begins after")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a busy machine")
    parser.add_argument("--warm", action="store_true", help="an untimed round first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def runner(name: str, path: Path, args: argparse.Namespace) -> Work:
    """A run by one way, whose frames `[F, 3, H, W]` are in 0..1."""
    precision = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    pipe: Any
    if name.startswith("diffusers"):
        pipe = WanPipeline.from_pretrained(path, torch_dtype=precision)
    else:
        pipe = kinema.KinemaPipeline.from_pretrained(path, torch_dtype=precision)
    pipe.set_progress_bar_config(disable=True)
    given = call(args)

    def run() -> Tensor:
        frames: Tensor = pipe(**given).frames[0]
        return frames

    return run


def call(args: argparse.Namespace) -> dict[str, Any]:
    shape = (1, 16, 1 + (args.frames - 1) // 4, args.side // 8, args.side // 8)
    return {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "num_inference_steps": args.steps,
        "guidance_scale": 5.0,
        "num_frames": args.frames,
        "height": args.side,
        "width": args.side,
        "latents": torch.randn(shape, generator=torch.Generator().manual_seed(5)),
        "output_type": "pt",
    }


if __name__ == "__main__":
    main()
