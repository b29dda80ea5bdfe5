"""Peak memory of coding clips of growing length with the Wan 2.1 layout: one fresh process per point.

    python scripts/bench/vae_memory.py --base 32 --size 96x96 --frames 17 65 257 --how stream diffusers
    python scripts/bench/vae_memory.py --base 96 --size 832x480 --frames 5 --how stream --columns 104 52 26

prints a table and, with `--out FILE`, writes the points as JSON. `stream` drops each chunk as a video writer
does, `plain` too, without compiled code; `decode`, `encode` and `diffusers` hold the whole clip. `--columns`
and `--rows` are of tiles, for each number a point; `--together` latent frames pass a tile in one go. Weights
are random, for memory does not depend on them, and ready for the compiled code before the clip begins. Beside
each peak stands what the VAE itself expects a decode to need. Seconds are of the processor, all threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

LATENT_CHANNELS = 16


def main() -> None:
    args = parse()
    if args.child:
        print(json.dumps(measure(json.loads(args.child))))
        return
    cuts = [{"columns": n} for n in args.columns] + [{"rows": n} for n in args.rows] or [{}]
    width, height = (int(side) for side in args.size.split("x"))
    shape = {"width": width, "height": height, "base": args.base}
    points = []
    print(f"{'how':10} {'frames':>6} {'tile':>12} {'growth MB':>10} {'expected MB':>12} {'seconds':>8}")
    for how, frames, cut in product(args.how, args.frames, cuts):
        tiles = {**cut, "frames": args.together} if cut else None
        p = in_own_process({**shape, "how": how, "frames": frames, "tiles": tiles})
        points.append(p)
        tile = " ".join(f"{n} {side}" for side, n in cut.items()) or "whole"
        expected = "" if p["expected_mb"] is None else f"{p['expected_mb']:.0f}"
        growth = p["peak_mb"] - p["before_mb"]
        print(f"{how:10} {frames:6} {tile:>12} {growth:10.0f} {expected:>12} {p['seconds']:8.1f}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({**shape, "points": points}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[17, 65, 257], help="each 1 + a multiple of 4"
    )
    parser.add_argument("--how", nargs="+", choices=list(WAYS), default=["stream"])
    parser.add_argument("--size", default="64x64", help="WIDTHxHEIGHT in pixels, multiples of 8")
    parser.add_argument("--columns", type=int, nargs="+", default=[], help="latent columns of a tile")
    parser.add_argument("--rows", type=int, nargs="+", default=[], help="latent rows of a tile")
    parser.add_argument("--together", type=int, default=None, help="latent frames that pass a tile in one go")
    parser.add_argument("--base", type=int, default=16, help="base_dim")
    parser.add_argument("--out", type=Path, help="JSON file for the points")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(point: dict[str, Any]) -> dict[str, Any]:
    """A process of its own, because the peak of a process never falls."""
    command = [sys.executable, __file__, "--child", json.dumps(point)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {**point, **json.loads(done.stdout.splitlines()[-1])}


def measure(point: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    length, side = 1 + (point["frames"] - 1) // 4, (point["height"] // 8, point["width"] // 8)
    latents_BCTYX = torch.randn(1, LATENT_CHANNELS, length, *side)
    work, expected = WAYS[point["how"]](latents_BCTYX, point["base"], point["tiles"])
    before, start = peak_mb(), time.process_time()
    with torch.no_grad():
        work()
    seconds = time.process_time() - start
    return {"before_mb": before, "peak_mb": peak_mb(), "expected_mb": expected, "seconds": seconds}


def peak_mb() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


Work = tuple[Callable[[], object], float | None]
Cut = dict[str, Any] | None


def our_model(base: int) -> Any:
    """A VAE that has decoded a small clip: its weights are prepared."""
    import torch

    from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig

    vae = CausalVideoVAE(CausalVideoVAEConfig(base_dim=base)).eval()
    vae.decode(torch.zeros(1, LATENT_CHANNELS, 2, 1, 1))
    return vae


def streamed(latents_BCTYX: Any, base: int, cut: Cut) -> Work:
    from kinema.models.vae import Tiles

    vae, tiles = our_model(base), None if cut is None else Tiles(**cut)
    work = lambda: sum(chunk.shape[2] for chunk in vae.stream(latents_BCTYX, tiles=tiles))  # noqa: E731
    return work, vae.needs(latents_BCTYX.shape, tiles) / 2**20


def plain(latents_BCTYX: Any, base: int, cut: Cut) -> Work:
    from kinema.models.winograd import without

    with without():
        work, expected = streamed(latents_BCTYX, base, cut)

    def run() -> object:
        with without():
            return work()

    return run, expected


def decoded(latents_BCTYX: Any, base: int, cut: Cut) -> Work:
    from kinema.models.vae import Tiles

    vae = our_model(base)
    return lambda: vae.decode(latents_BCTYX, tiles=None if cut is None else Tiles(**cut)), None


def encoded(latents_BCTYX: Any, base: int, cut: Cut) -> Work:
    import torch

    from kinema.models.vae import Tiles

    vae, (length, rows, columns) = our_model(base), latents_BCTYX.shape[2:]
    vae.encode(torch.zeros(1, 3, 5, 8, 8))
    frames_BCFHW = torch.zeros(1, 3, vae.stride.pixel_frames(length), 8 * rows, 8 * columns)
    return lambda: vae.encode(frames_BCFHW, tiles=None if cut is None else Tiles(**cut)), None


def by_diffusers(latents_BCTYX: Any, base: int, cut: Cut) -> Work:
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(base_dim=base).eval()
    return lambda: vae.decode(latents_BCTYX).sample, None


WAYS: dict[str, Callable[[Any, int, Cut], Work]] = {
    "stream": streamed,
    "plain": plain,
    "decode": decoded,
    "encode": encoded,
    "diffusers": by_diffusers,
}

if __name__ == "__main__":
    main()
