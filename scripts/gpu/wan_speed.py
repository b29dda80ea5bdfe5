"""A Wan transformer and VAE of real size on a GPU: kinema's exact path against diffusers, random weights.

    python scripts/gpu/wan_speed.py --dry                        seconds, on any machine, tiny shapes
    python scripts/gpu/wan_speed.py --out wan_speed.json         under ten minutes on one large GPU

Wan 2.1 1.3B, 832x480, 81 frames (32,760 tokens), bfloat16, guidance with two texts padded to 512 rows. Each
stage is written to the file as soon as it is done, and left out when `--minutes` are used up:

    peak      a large product in the same precision: the limit that utilisation is a share of
    step      one guided step: kinema, kinema compiled, diffusers, diffusers compiled, alternating
    clip      50 steps of UniPC and the decoded frames, by kinema
    decode    81 frames by the VAE at 832x480 and 1280x720, alternating with diffusers

Without diffusers on the machine its ways are left out. Needs torch, einops, numpy
and safetensors.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts" / "bench")]

from alternate import Way, Work, alternate, show  # noqa: E402

from kinema.diffusion.flow import sigmas, table, timesteps  # noqa: E402
from kinema.diffusion.guidance import ClassifierFree, Guided  # noqa: E402
from kinema.diffusion.sampler import sample  # noqa: E402
from kinema.diffusion.solvers import solver  # noqa: E402
from kinema.diffusion.step import Step  # noqa: E402
from kinema.models.dit import (  # noqa: E402
    FP32_PARTS,
    Conditioning,
    Context,
    VideoDiT,
    VideoDiTConfig,
)
from kinema.models.inference import InferenceDiT, for_inference  # noqa: E402
from kinema.models.selftest import settle  # noqa: E402
from kinema.models.vae import CausalVideoVAE, CausalVideoVAEConfig  # noqa: E402
from kinema.models.weights import bare  # noqa: E402

THEIRS = importlib.util.find_spec("diffusers") is not None
TEXT_ROWS, WORDS, LEVEL, SHIFT, GUIDANCE = 512, (40, 2), 700.0, 3.0, 5.0


@dataclass(frozen=True)
class Scale:
    """What is run.

    Attributes:
        heads, head, layers, ffn, text: of the transformer.
        latents_TYX: of the clip.
        steps: of the whole clip.
        rounds: timed ones.
        base: width of the VAE.
        decodes: latents that are decoded, by name.
        dtype: of everything but the parts kept in float32.
        peak: side of the square product.
    """

    heads: int
    head: int
    layers: int
    ffn: int
    text: int
    latents_TYX: tuple[int, int, int]
    steps: int
    rounds: int
    base: int
    decodes: dict[str, tuple[int, int, int]]
    dtype: torch.dtype
    peak: int


FULL = Scale(
    heads=12,
    head=128,
    layers=30,
    ffn=8960,
    text=4096,
    latents_TYX=(21, 60, 104),
    steps=50,
    rounds=5,
    base=96,
    decodes={"832x480": (21, 60, 104), "1280x720": (21, 90, 160)},
    dtype=torch.bfloat16,
    peak=8192,
)
DRY = Scale(
    heads=2,
    head=24,
    layers=2,
    ffn=64,
    text=32,
    latents_TYX=(2, 4, 6),
    steps=2,
    rounds=2,
    base=8,
    decodes={"48x32": (2, 4, 6)},
    dtype=torch.float32,
    peak=64,
)


def main() -> None:
    args = parse()
    scale, report = (DRY if args.dry else FULL), Report(args.out, args.minutes)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    if device.type == "cpu" and not args.dry:
        raise SystemExit("no GPU is visible here; --dry runs tiny shapes on the CPU.")
    torch.manual_seed(0)
    trials = settle(device, scale.dtype, scale.head)
    report.add("machine", name_of(device) | {"attention": [asdict(t) for t in trials]})
    stages: dict[str, Callable[[Scale, torch.device, Report], None]] = {
        "peak": measure_peak,
        "step": measure_step,
        "clip": measure_clip,
        "decode": measure_decode,
    }
    for name in args.stages or stages:
        if report.time_left():
            stages[name](scale, device, report)
            release(device)
        else:
            print(f"{name}: left out, {args.minutes:g} minutes are used up")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="no stage begins after these")
    parser.add_argument("--stages", nargs="+", choices=["peak", "step", "clip", "decode"])
    default = Path(os.environ.get("OUT", ".")) / "wan_speed.json"
    parser.add_argument("--out", type=Path, default=default, help="JSON file")
    return parser.parse_args()


class Report:
    """What was found so far, in a file that is whole after every stage."""

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.end = path, time.monotonic() + 60 * minutes
        self.found: dict[str, Any] = {"results": {}}
        path.parent.mkdir(parents=True, exist_ok=True)

    def time_left(self) -> bool:
        """Whether another stage may begin."""
        return time.monotonic() < self.end

    def add(self, name: str, value: Any) -> None:
        """One finding."""
        print(f"{name}: {value}", flush=True)
        self.found[name] = value
        self._write()

    def ways(self, title: str, ways: list[Way]) -> None:
        """A comparison."""
        show(title, ways)
        self.found["results"][title] = [asdict(way) for way in ways]
        self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.found, indent=2) + "\n", encoding="utf-8")


def name_of(device: torch.device) -> dict[str, str]:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": chip, "torch": torch.__version__, "diffusers": "yes" if THEIRS else "not here"}


def release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def waited(work: Work, device: torch.device) -> Work:
    """Work that is done when it returns."""

    def run() -> Tensor:
        output = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output

    return run


def measure_peak(scale: Scale, device: torch.device, report: Report) -> None:
    """TFLOP/s of a square product of random numbers."""
    a, b = (torch.randn(scale.peak, scale.peak, device=device, dtype=scale.dtype) for _ in range(2))
    product = waited(lambda: a @ b, device)
    product()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    report.add("peak TFLOP/s", 2 * scale.peak**3 / statistics.median(seconds) / 1e12)


def step_flops(scale: Scale) -> float:
    """Floating-point operations of one guided step, two forwards; padding and text keys not counted."""
    T, Y, X = scale.latents_TYX
    N, D = T * (Y // 2) * (X // 2), scale.heads * scale.head
    linear = 2 * N * (6 * D**2 + 2 * D * scale.ffn)
    return 2 * scale.layers * (linear + 4 * N**2 * D) + scale.layers * 4 * N * sum(WORDS) * D


@torch.no_grad()
def transformer(scale: Scale, device: torch.device) -> VideoDiT:
    """Random weights of ordinary size, with the parts in float32 that a checkpoint has so."""
    config = VideoDiTConfig(
        num_attention_heads=scale.heads,
        attention_head_dim=scale.head,
        num_layers=scale.layers,
        ffn_dim=scale.ffn,
        text_dim=scale.text,
    )
    with bare():
        dit = VideoDiT(config)
    state = {}
    for name, p in dit.named_parameters():
        kept = any(part in name for part in FP32_PARTS)
        value = torch.randn(p.shape, device=device) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.05)
        value = value + 1 if "norm" in name and name.endswith("weight") else value
        state[name] = value if kept else value.to(scale.dtype)
    dit.load_state_dict(state, assign=True)
    return dit.requires_grad_(False).eval()


def peer(dit: VideoDiT, scale: Scale) -> Any:
    """diffusers' class with the same weights."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=scale.heads,
            attention_head_dim=scale.head,
            num_layers=scale.layers,
            ffn_dim=scale.ffn,
            text_dim=scale.text,
        )
    theirs.load_state_dict(dit.state_dict(), assign=True)
    theirs.rope = type(theirs.rope)(scale.head, (1, 2, 2), 1024).to(dit.proj_out.weight.device)
    return theirs.requires_grad_(False).eval()


def texts(scale: Scale, device: torch.device) -> list[Tensor]:
    """Two texts `[1, 512, D]`, of a few words and zero rows."""
    made = [torch.zeros(1, TEXT_ROWS, scale.text, device=device, dtype=scale.dtype) for _ in WORDS]
    for text, words in zip(made, WORDS, strict=True):
        text[:, :words] = torch.randn(words, scale.text, device=device, dtype=scale.dtype)
    return made


def measure_step(scale: Scale, device: torch.device, report: Report) -> None:
    """Seconds of a guided step by every way, largest differences, and utilisation."""
    dit, given = transformer(scale, device), texts(scale, device)
    x = torch.randn(1, 16, *scale.latents_TYX, device=device, dtype=scale.dtype)
    level_BT = torch.full((1, scale.latents_TYX[0]), LEVEL, device=device)
    works: dict[str, Work] = {}
    if THEIRS:
        theirs = peer(dit, scale)
        works["diffusers"] = _by_diffusers(theirs, x, level_BT[:, 0], given)
    works["kinema"] = _by_kinema(dit, x, level_BT, given, compiled=False)
    if device.type == "cuda":
        works["kinema, compiled"] = _by_kinema(dit, x, level_BT, given, compiled=True)
        if THEIRS:
            whole = torch.compile(theirs)
            works["diffusers, compiled"] = _by_diffusers(whole, x, level_BT[:, 0], given)
    with torch.no_grad():
        for name, work in list(works.items()):
            works[name] = waited(work, device)
            start = time.perf_counter()
            try:
                works[name]()
            except Exception as error:  # a way that does not run here must not cost the others
                report.add(f"{name}: failed", " ".join(str(error).split())[:500])
                del works[name]
            else:
                report.add(f"{name}: first call, seconds", time.perf_counter() - start)
    ways = alternate(works, scale.rounds, warm=True)
    report.ways(f"guided step, {scale.latents_TYX[0] * 4 - 3} frames", ways)
    if "peak TFLOP/s" in report.found:
        for way in ways:
            share = step_flops(scale) / way.seconds / 1e12 / report.found["peak TFLOP/s"]
            report.add(f"{way.name}: share of peak", share)


def _by_diffusers(theirs: Any, x: Tensor, level_B: Tensor, given: list[Tensor]) -> Work:
    return lambda: torch.cat([theirs(x, level_B, text, return_dict=False)[0].clone() for text in given])


def _by_kinema(dit: VideoDiT, x: Tensor, level_BT: Tensor, given: list[Tensor], *, compiled: bool) -> Work:
    fast, contexts = ready(dit, x, given, compiled=compiled)
    return lambda: torch.cat(fast.several(x, level_BT, contexts))


def ready(
    dit: VideoDiT, x: Tensor, given: list[Tensor], *, compiled: bool
) -> tuple[InferenceDiT, list[Context]]:
    fast = for_inference(dit, shape_TYX=x.shape[2:], compiled=compiled)
    assert isinstance(fast, InferenceDiT)
    return fast, [fast.prepare(Conditioning(states_BKLD=text[:, None])) for text in given]


@torch.inference_mode()
def measure_clip(scale: Scale, device: torch.device, report: Report) -> None:
    """Seconds of a whole clip: all steps, and the frames as uint8 on the host; compiling is not in it."""
    dit, given = transformer(scale, device), texts(scale, device)
    x = torch.randn(1, 16, *scale.latents_TYX, device=device)
    fast, contexts = ready(dit, x, given, compiled=device.type == "cuda")
    levels_SBT = table(sigmas(scale.steps, SHIFT, "diffusers"), torch.ones(1, scale.latents_TYX[0]))

    def predict(x_BCTYX: Tensor, step: Step, names: tuple[str, ...]) -> dict[str, Tensor]:
        time_BT = timesteps(step.sigma_BT, scale.steps, SHIFT, "diffusers").float().to(device)
        found = fast.several(x_BCTYX, time_BT, contexts[: len(names)])
        return {name: v.float() for name, v in zip(names, found, strict=True)}

    velocity = Guided(predict, ClassifierFree(scale=GUIDANCE))
    velocity(x, Step(0, scale.steps, 0, levels_SBT[0]))
    vae = our_vae(scale, device)
    start = time.perf_counter()
    latents = sample(velocity, x, levels_SBT, solver("unipc"))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    sampled = time.perf_counter()
    frames = sum(_stored(chunk) for chunk in vae.stream(latents.clamp(-3, 3)))
    report.add(
        "clip",
        {
            "steps": scale.steps,
            "frames": frames,
            "seconds sampling": sampled - start,
            "seconds decoding": time.perf_counter() - sampled,
            "peak GB": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
        },
    )


def _stored(frames_BCfHW: Tensor) -> int:
    """Frames brought to the host as uint8; how many."""
    return frames_BCfHW.float().clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().shape[2]


@torch.no_grad()
def our_vae(scale: Scale, device: torch.device) -> CausalVideoVAE:
    torch.manual_seed(1)
    return CausalVideoVAE(CausalVideoVAEConfig(base_dim=scale.base)).eval().to(device)


@torch.no_grad()
def measure_decode(scale: Scale, device: torch.device, report: Report) -> None:
    """Seconds of decoding a clip, float32 by both; diffusers in bfloat16 too on a GPU."""
    vae = our_vae(scale, device)
    std, mean = (
        torch.tensor(list(v), device=device).view(1, -1, 1, 1, 1)
        for v in (vae.config.latents_std, vae.config.latents_mean)
    )
    for name, shape_TYX in scale.decodes.items():
        if not report.time_left():
            print(f"decode {name}: left out")
            continue
        latents = torch.randn(1, 16, *shape_TYX, device=device)
        works: dict[str, Work] = {}
        if THEIRS:
            from diffusers import AutoencoderKLWan

            theirs = AutoencoderKLWan(base_dim=scale.base).eval().to(device)
            theirs.load_state_dict(vae.state_dict())
            works["diffusers"] = _decoded(theirs, latents * std + mean)
            if device.type == "cuda":
                half = AutoencoderKLWan(base_dim=scale.base).eval()
                half.load_state_dict(vae.state_dict())
                half.to(device, torch.bfloat16)
                works["diffusers, bfloat16"] = _decoded(half, (latents * std + mean).bfloat16())
        works["kinema"] = lambda latents=latents: torch.cat(list(vae.stream(latents)), dim=2)
        works = {n: waited(work, device) for n, work in works.items()}
        report.ways(f"decode, {name}, {4 * shape_TYX[0] - 3} frames", alternate(works, 2))


def _decoded(theirs: Any, latents: Tensor) -> Work:
    return lambda: theirs.decode(latents).sample


if __name__ == "__main__":
    main()
