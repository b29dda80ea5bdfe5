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
    "unipc": ("UniPCMultistepScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # by default they clip, which is for pixels
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "lcm": ("LCMScheduler", {}),
}
"""The class, and what makes it the solver of that name."""
