"""Peak memory of coding clips of growing length with the Wan 2.1 layout: one fresh process per point.

    python scripts/bench/vae_memory.py --base 32 --side 96 --frames 17 65 257 --how stream diffusers

prints a table and, with `--out FILE`, writes the points as JSON. `stream` drops each chunk as a video writer
does, `plain` too, without compiled code; `decode`, `encode` and `diffusers` hold the whole clip. Weights are
random, for memory does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATENT_CHANNELS = 16


def main() -> None:
    args = parse()
    if args.child:
        print(json.dumps(measure(args.how[0], args.frames[0], args.side, args.base)))
        return
    points = [in_own_process(how, frames, args.side, args.base) for how in args.how for frames in args.frames]
    print(f"{'how':10} {'frames':>6} {'before MB':>10} {'peak MB':>9} {'growth MB':>10} {'seconds':>8}")
    for p in points:
        growth = p["peak_mb"] - p["before_mb"]
        print(
            f"{p['how']:10} {p['frames']:6} {p['before_mb']:10.0f} {p['peak_mb']:9.0f} {growth:10.0f} "
            f"{p['seconds']:8.1f}"
        )
    if args.out:
        args.out.write_text(
            json.dumps({"base": args.base, "side": args.side, "points": points}, indent=2) + "\n"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[17, 65, 257], help="each 1 + a multiple of 4"
    )
    parser.add_argument("--how", nargs="+", choices=list(WAYS), default=["stream"])
    parser.add_argument("--side", type=int, default=64, help="height and width in pixels, a multiple of 8")
    parser.add_argument("--base", type=int, default=16, help="base_dim")
    parser.add_argument("--out", type=Path, help="JSON file for the points")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(how: str, frames: int, side: int, base: int) -> dict[str, Any]:
    """A process of its own, because the peak of a process never falls."""
    options = ["--child", "--how", how, "--frames", str(frames), "--side", str(side), "--base", str(base)]
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
    point: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return point


def measure(how: str, frames: int, side: int, base: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    latents_BCTYX = torch.randn(1, LATENT_CHANNELS, 1 + (frames - 1) // 4, side // 8, side // 8)
    work = WAYS[how](latents_BCTYX, base)
    before, start = peak_mb(), time.perf_counter()
    with torch.no_grad():
        work()
    seconds = time.perf_counter() - start
    return {"how": how, "frames": frames, "before_mb": before, "peak_mb": peak_mb(), "seconds": seconds}


def peak_mb() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def our_model(base: int) -> Any:
    from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig

    return CausalVideoVAE(CausalVideoVAEConfig(base_dim=base)).eval()


def streamed(latents_BCTYX: Any, base: int) -> Callable[[], object]:
    vae = our_model(base)
    return lambda: sum(chunk.shape[2] for chunk in vae.stream(latents_BCTYX))


def plain(latents_BCTYX: Any, base: int) -> Callable[[], object]:
    from kinema.models.winograd import without

    vae = our_model(base)

    def run() -> int:
        with without():
            return sum(chunk.shape[2] for chunk in vae.stream(latents_BCTYX))

    return run


def decoded(latents_BCTYX: Any, base: int) -> Callable[[], object]:
    vae = our_model(base)
    return lambda: vae.decode(latents_BCTYX)


def encoded(latents_BCTYX: Any, base: int) -> Callable[[], object]:
    import torch

    vae, (length, rows, columns) = our_model(base), latents_BCTYX.shape[2:]
    frames_BCFHW = torch.zeros(1, 3, vae.stride.pixel_frames(length), 8 * rows, 8 * columns)
    return lambda: vae.encode(frames_BCFHW)


def by_diffusers(latents_BCTYX: Any, base: int) -> Callable[[], object]:
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(base_dim=base).eval()
    return lambda: vae.decode(latents_BCTYX).sample


WAYS = {
    "stream": streamed,
    "plain": plain,
    "decode": decoded,
    "encode": encoded,
    "diffusers": by_diffusers,
}

if __name__ == "__main__":
    main()
