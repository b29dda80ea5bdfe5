"""Speed of one guided step of the transformer against diffusers' `WanTransformer3DModel`.

    python scripts/bench/dit_speed.py --tokens 16 320 --rounds 9 --half
    python scripts/bench/dit_speed.py --tokens 3510 --rounds 5
    python scripts/bench/dit_speed.py --tokens --embedded

Same random weights, latents, timesteps and texts (40 and 2 words, padded to 512 rows), both sides of the
guidance, 8 layers of width 512, ffn 2048. diffusers runs two forwards, as its pipeline does. kinema's texts
are prepared once, outside the step, as a render does. `--half` adds bfloat16, whose differences are to
diffusers in float32. `--embedded` compares the steps of the packaged model's default clip with those of the
plain `VideoDiT`, asked for one side after the other.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from alternate import Work, alternate, show, write
from diffusers import WanTransformer3DModel
from torch import Tensor

from kinema.diffusion.guidance import Guided
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.models.dit import FP32_PARTS, Conditioning, VideoDiT, VideoDiTConfig
from kinema.models.inference import InferenceDiT, OneByOne, Several, for_inference
from kinema.pipelines.conditioning import condition
from kinema.pipelines.guiding import guidance
from kinema.pipelines.job import make_job
from kinema.pipelines.model import load
from kinema.pipelines.network import Network, ready
from kinema.story.shot import Shot

SHAPES = {16: (1, 8, 8), 320: (5, 16, 16), 3510: (9, 30, 52)}
WORDS, TEXT_ROWS, LEVEL = (40, 2), 512, 700.0


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    theirs, ours = pair(args.width, args.layers)
    results = {}
    for tokens in args.tokens:
        works = ways(theirs, ours, SHAPES[tokens])
        if args.half:
            works |= {f"{n}, bfloat16": w for n, w in ways(*halves(theirs, ours), SHAPES[tokens]).items()}
        title = f"guided step, {tokens} tokens"
        results[title] = alternate(works, args.rounds, warm=tokens < 1000, cpu_time=args.cpu_time)
        show(title, results[title])
        if args.out:
            write(args.out, results, vars(args))
    if args.embedded:
        title = "steps of the packaged model's default clip"
        results[title] = alternate(packaged(), args.rounds, cpu_time=args.cpu_time)
        show(title, results[title])
        if args.out:
            write(args.out, results, vars(args))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", choices=list(SHAPES), default=[16, 320])
    parser.add_argument("--width", type=int, default=512, help="a multiple of 64, the width of a head")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--half", action="store_true", help="bfloat16 too")
    parser.add_argument("--embedded", action="store_true", help="and the packaged model's clip")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a busy machine")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def config(width: int, layers: int) -> dict[str, Any]:
    return {
        "patch_size": (1, 2, 2),
        "num_attention_heads": width // 64,
        "attention_head_dim": 64,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 512,
        "freq_dim": 256,
        "ffn_dim": 4 * width,
        "num_layers": layers,
    }


@torch.no_grad()
def pair(width: int, layers: int) -> tuple[WanTransformer3DModel, VideoDiT]:
    """diffusers' model with random weights, norms and tables too, and ours with the same."""
    theirs = WanTransformer3DModel(**config(width, layers)).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return theirs, twin(theirs)


def twin(theirs: WanTransformer3DModel) -> VideoDiT:
    ours = VideoDiT(VideoDiTConfig.from_mapping(dict(theirs.config))).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    return ours


@torch.no_grad()
def halves(theirs: WanTransformer3DModel, ours: VideoDiT) -> tuple[WanTransformer3DModel, VideoDiT]:
    """Both in bfloat16, each with the parts that it keeps in float32."""
    with tempfile.TemporaryDirectory() as folder:  # read as users read it: some parts stay float32
        theirs.save_pretrained(folder)
        half = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.bfloat16).eval()
    own = twin(theirs)
    for name, parameter in own.named_parameters():
        if not any(part in name for part in FP32_PARTS):
            parameter.data = parameter.data.bfloat16()
    return half, own


def ways(theirs: WanTransformer3DModel, ours: VideoDiT, shape_TYX: tuple[int, int, int]) -> dict[str, Work]:
    """A guided step by either; outputs are both sides' velocities."""
    generator, dtype = torch.Generator().manual_seed(1), ours.dtype
    x = torch.randn(1, 16, *shape_TYX, generator=generator).to(dtype)
    texts = [torch.zeros(1, TEXT_ROWS, 512) for _ in WORDS]
    for text, words in zip(texts, WORDS, strict=True):
        text[:, :words] = torch.randn(words, 512, generator=generator)
    level, level_BT = torch.tensor([LEVEL]), torch.full((1, shape_TYX[0]), LEVEL)
    with torch.no_grad():
        fast = for_inference(ours, timesteps=[LEVEL], shape_TYX=shape_TYX)
        assert isinstance(fast, InferenceDiT)
        contexts = [fast.prepare(Conditioning(states_BKLD=text[:, None])) for text in texts]

    def by_diffusers() -> Tensor:
        return torch.cat([theirs(x, level, text.to(dtype)).sample for text in texts])

    return {"diffusers": by_diffusers, "kinema": lambda: torch.cat(fast.several(x, level_BT, contexts))}


def packaged() -> dict[str, Work]:
    """The latents of the packaged model's default clip, by the plain transformer and by the ready one."""
    job = make_job(Shot(prompt="a rooster on a blue background", seed=1))
    (plan,) = job.plans
    model = load("embedded", device="cpu")
    conditions = condition(plan, model)
    rule = guidance(plan.sampling, conditions.table_SBT)

    def latents(fast: Several) -> Tensor:
        network = Network(model.dit, conditions, plan.sampling, fast)
        steady = solver(plan.sampling.solver)
        return sample(Guided(network, rule), conditions.start_BCTYX, conditions.table_SBT, steady)

    return {
        "kinema, plain": lambda: latents(OneByOne(model.dit)),
        "kinema": lambda: latents(ready(model, conditions, plan.sampling)),
    }


if __name__ == "__main__":
    main()
