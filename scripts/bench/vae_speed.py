"""Speed of the causal VAE against diffusers' `AutoencoderKLWan`: same weights and inputs, alternating.

    python scripts/bench/vae_speed.py --out docs/figures/speed/vae.json --chart docs/figures/speed/vae.png
    python scripts/bench/vae_speed.py --cases decode:8:64:9 --rounds 9

A case is work, base_dim, height and width in pixels, frames. Each is done by diffusers, by plain torch and by
the compiled convolutions, the default where a compiler is at hand. Weights are random, in the layout of Wan
2.1, whose real base_dim is 96.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from alternate import Work, alternate, chart, show, write
from diffusers import AutoencoderKLWan
from torch import Tensor

from kinema.models import winograd
from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig

CASES = ("decode:32:128:17", "decode:96:96:9", "encode:32:128:9")


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    print(f"compiled convolutions: {winograd.native().note}")
    results = {}
    for case in args.cases:
        work, *numbers = case.split(":")
        base, size, frames = map(int, numbers)
        torch.manual_seed(0)
        title = f"VAE {work}, base {base}, {frames}x{size}x{size}"
        results[title] = alternate(WORKS[work](*pair(base), frames, size), args.rounds)
        show(title, results[title])
        if args.out:
            write(args.out, results, {"rounds": args.rounds})
    if args.chart:
        chart([args.out], args.chart)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, help="decode|encode:base:size:frames")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; results of other names in it stay")
    parser.add_argument("--chart", type=Path, help="PNG or SVG of the results in --out")
    args = parser.parse_args()
    if args.chart and not args.out:
        parser.error("--chart draws what --out holds; give both")
    return args


def pair(base: int) -> tuple[AutoencoderKLWan, CausalVideoVAE]:
    """Both models with the same random weights."""
    theirs = AutoencoderKLWan(base_dim=base).eval().requires_grad_(False)
    ours = CausalVideoVAE(CausalVideoVAEConfig.from_mapping(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.eval().requires_grad_(False)


def plainly(work: Work) -> Work:
    """Without compiled code."""

    def run() -> Tensor:
        with winograd.without():
            return work()

    return run


def decoders(theirs: AutoencoderKLWan, ours: CausalVideoVAE, frames: int, size: int) -> dict[str, Work]:
    """The ways to decode, by name; frames in -1..1."""
    latents_BCTYX = torch.randn(1, 16, ours.stride.latent_frames(frames), size // 8, size // 8)
    std = torch.tensor(ours.config.latents_std).view(1, -1, 1, 1, 1)
    raw_BCTYX = latents_BCTYX * std + torch.tensor(ours.config.latents_mean).view(1, -1, 1, 1, 1)
    return {
        "diffusers": lambda: theirs.decode(raw_BCTYX).sample,
        "kinema, plain torch": plainly(lambda: ours.decode(latents_BCTYX)),
        "kinema": lambda: ours.decode(latents_BCTYX),
    }


def encoders(theirs: AutoencoderKLWan, ours: CausalVideoVAE, frames: int, size: int) -> dict[str, Work]:
    """The ways to encode, by name; the posterior's mean."""
    clip_BCFHW = torch.rand(1, 3, frames, size, size) * 2 - 1
    return {
        "diffusers": lambda: theirs.encode(clip_BCFHW).latent_dist.mean,
        "kinema, plain torch": plainly(lambda: ours.moments(clip_BCFHW)[0]),
        "kinema": lambda: ours.moments(clip_BCFHW)[0],
    }


WORKS = {"decode": decoders, "encode": encoders}

if __name__ == "__main__":
    main()
