"""Solvers of the variance-preserving path by their names here: the schedulers of diffusers that they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN_SOLVER = "checkpoint"
"""The scheduler that the checkpoint brings, with its own settings."""

Config = Mapping[str, Any]

VP_SOLVERS: Mapping[str, tuple[str, Config]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++2m-karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpm++2m-sde-karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "unipc": ("UniPCMultistepScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # by default they clip, which is for pixels
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "lcm": ("LCMScheduler", {}),
}
"""The class, and what makes it the solver of that name."""

IMAGE_SOLVERS: Mapping[str, tuple[str, Config]] = {**VP_SOLVERS, "tcd": ("TCDScheduler", {})}
"""Those of image models. The pipelines call TCD's with `eta` 0, which adds no noise between its steps."""

SPACINGS = ("trailing", "leading", "linspace")
"""How diffusers' schedulers may choose the timesteps of few steps among those that were trained."""
SPACED = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDPM", "PNDM", "DEISMultistep", "DPMSolverMultistep", "UniPCMultistep"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete"),
        "KDPM2AncestralDiscrete",
    )
)
"""The schedulers that read it; LCM's and TCD's have timesteps of their own."""
