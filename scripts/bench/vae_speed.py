"""Speed of the causal VAE against diffusers' `AutoencoderKLWan`: same weights and inputs, alternating.

    python scripts/bench/vae_speed.py --base 32 --size 128 --frames 17 --rounds 5 --out vae.json
    python scripts/bench/vae_speed.py --base 96 --size 96 --frames 9 --rounds 5 --out vae.json

Decodes and encodes with diffusers, with plain torch and with the compiled convolutions, the default where a
compiler is at hand. Weights are random, in the layout of Wan 2.1; `--base 96` is its real width.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from alternate import Work, alternate, show, write
from diffusers import AutoencoderKLWan
from torch import Tensor

from kinema.models import winograd
from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    print(f"compiled convolutions: {winograd.native().note}")
    theirs, ours = pair(args.base)
    works = {
        "decode": decoders(theirs, ours, args.frames, args.size),
        "encode": encoders(theirs, ours, args.frames, args.size),
    }
    results = {}
    for name in args.work:
        title = f"VAE {name}, base {args.base}, {args.frames}x{args.size}x{args.size}"
        results[title] = alternate(works[name], args.rounds)
        show(title, results[title])
    if args.out:
        write(args.out, results, {k: v for k, v in vars(args).items() if k != "out"})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=int, default=8, help="base_dim")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels, a multiple of 8")
    parser.add_argument("--frames", type=int, default=9, help="1 + a multiple of 4")
    parser.add_argument("--work", nargs="+", choices=["decode", "encode"], default=["decode", "encode"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; results of other names in it stay")
    return parser.parse_args()


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


if __name__ == "__main__":
    main()
