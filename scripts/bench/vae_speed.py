"""Speed of the causal VAE against diffusers' `AutoencoderKLWan`: same weights, alternating in one process.

    python scripts/bench/vae_speed.py --base 8 --size 64 --frames 9 --rounds 9

prints, for decoding and encoding, the median and range of the per-round ratios and the largest difference of
the outputs; `--out FILE` writes them as JSON. Weights are random (Wan 2.1 layout, `--base` 96 is the real
width).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    theirs = AutoencoderKLWan(base_dim=args.base).eval()
    ours = CausalVideoVAE(CausalVideoVAEConfig.from_mapping(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    results = {
        name: compare(peer, own, args.rounds)
        for name, (peer, own) in works(theirs, ours, args.frames, args.size).items()
    }
    for name, r in results.items():
        low, high = min(r["ratios"]), max(r["ratios"])
        print(f"{name:7} x{r['median']:.2f} [{low:.2f}-{high:.2f}]  largest difference {r['difference']:.1e}")
    if args.out:
        settings = {k: v for k, v in vars(args).items() if k != "out"}
        args.out.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=int, default=8, help="base_dim")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels, a multiple of 8")
    parser.add_argument("--frames", type=int, default=9, help="1 + a multiple of 4")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the ratios")
    return parser.parse_args()


Work = Callable[[], Tensor]


def works(
    theirs: AutoencoderKLWan, ours: CausalVideoVAE, frames: int, size: int
) -> dict[str, tuple[Work, Work]]:
    """Pairs of the peer's work and ours, by name."""
    clip_BCFHW = torch.rand(1, 3, frames, size, size) * 2 - 1
    latents_BCTYX = torch.randn(1, 16, ours.stride.latent_frames(frames), size // 8, size // 8)
    std = torch.tensor(ours.config.latents_std).view(1, -1, 1, 1, 1)
    raw_BCTYX = latents_BCTYX * std + torch.tensor(ours.config.latents_mean).view(1, -1, 1, 1, 1)
    return {
        "decode": (lambda: theirs.decode(raw_BCTYX).sample, lambda: ours.decode(latents_BCTYX)),
        "encode": (lambda: theirs.encode(clip_BCFHW).latent_dist.mean, lambda: ours.moments(clip_BCFHW)[0]),
    }


@torch.no_grad()
def compare(peer: Work, own: Work, rounds: int) -> dict[str, Any]:
    """Ratios of times, peer to ours, above 1 when ours is faster; the first round only warms up."""
    difference = (peer() - own()).abs().max().item()
    ratios = []
    for _ in range(rounds):
        peer_seconds, own_seconds = seconds(peer), seconds(own)
        ratios.append(peer_seconds / own_seconds)
    return {"median": statistics.median(ratios), "ratios": ratios, "difference": difference}


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
