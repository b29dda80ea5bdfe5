"""What a plan will cost, before any weight is read.

One forward over N tokens of width d, feed-forward f and L blocks is about `L (12 N d^2 + 4 N d f + 4 N^2 d)`
floating-point operations; the time follows from a product of matrices measured on the device for a moment.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from kinema.pipelines.borrowed_cost import borrowed_operations
from kinema.pipelines.card import ModelCard
from kinema.pipelines.forwards import expected_forwards
from kinema.pipelines.frame_by_frame.cost import drawn_forwards
from kinema.pipelines.plan import Plan
from kinema.pipelines.unclip.card import PRIOR_PLACE

EFFICIENCY = 0.5  # share of a large product's rate that whole forwards reach; measured 0.4 to 0.8 on CPUs
LIVE_TENSORS = 10  # token-sized tensors alive at once in a block, fp32 copies for the norms included


@dataclass(frozen=True, slots=True)
class Estimate:
    """Costs of a render.

    Attributes:
        tokens: that the transformer sees in one forward.
        forwards: how many there will be.
        operations: floating-point operations of all of them; None where a checkpoint does not tell.
        weight_bytes: of the checkpoint's files, as stored.
        working_bytes: activations of one forward, about; None where diffusers' own pipelines run.
    """

    tokens: int
    forwards: int
    operations: float | None
    weight_bytes: int
    working_bytes: float | None

    def seconds(self, rate: float) -> float | None:
        """Sampling time, about, at `rate` operations a second (`measure_rate`); text and VAE come on top."""
        return None if self.operations is None else self.operations / (EFFICIENCY * rate)


def estimate(plan: Plan, card: ModelCard) -> Estimate:
    """The costs of a plan, from configuration and file sizes alone."""
    config, g = card.transformer, plan.geometry
    forwards = _forwards(plan, card)
    seen = g.latent_frames + g.context if plan.windows is None else plan.windows.length
    seen = seen if plan.redraw is None else 1
    if card.borrowed:
        one = borrowed_operations(card, seen, g.rows, g.columns)
        total = None if one is None else one * forwards
        return Estimate(g.rows * g.columns, forwards, total, _weight_bytes(card), None)
    _, y, x = config.get("patch_size", (1, 2, 2))
    tokens = seen * (g.rows // y) * (g.columns // x)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers, hidden = config["num_layers"], config["ffn_dim"]
    one = layers * (12 * tokens * width**2 + 4 * tokens * width * hidden + 4 * tokens**2 * width)
    working = tokens * (LIVE_TENSORS * width + hidden) * 4.0
    return Estimate(tokens, forwards, float(one) * forwards, _weight_bytes(card), working)


def _forwards(plan: Plan, card: ModelCard) -> int:
    if plan.redraw is not None:
        return drawn_forwards(plan, card)
    if not card.borrowed:
        return expected_forwards(plan, card)
    sides = 1 + any(scale != 1 for scale in plan.sampling.guidance)
    return sides * plan.sampling.steps * (2 if plan.sampling.solver == "heun" else 1)


def _weight_bytes(card: ModelCard) -> int:
    """Of everything that a model is loaded from, a prior or an adapter in a folder of its own included."""
    found = set(card.folder.rglob("*.safetensors")) | {path for files in card.files for path in files}
    if card.transformer.get(PRIOR_PLACE):
        found |= set(Path(card.transformer[PRIOR_PLACE]).rglob("*.safetensors"))
    return sum(path.stat().st_size for path in found if path.is_file())


def measure_rate(device: str = "auto", *, seconds: float = 0.1) -> float:
    """Operations a second of a product of matrices, the best of a few; bfloat16 on accelerators."""
    import torch

    from kinema.core.runtime import resolve_device, resolve_dtype

    where = resolve_device(device)
    a = torch.ones(1024, 1024, device=where, dtype=resolve_dtype("auto", where))
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until or best == math.inf:
        began = time.perf_counter()
        torch.mm(a, a).sum().item()
        best = min(best, time.perf_counter() - began)
    return float(2 * 1024**3 / best)
