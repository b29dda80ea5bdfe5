"""The solvers by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kinema.core.errors import unknown_name
from kinema.diffusion.multistep import DPM2M, UniPC
from kinema.diffusion.one_step import DDIM, DDPM, Euler, EulerAncestral, Heun, Renoise
from kinema.diffusion.solver import Solver

SOLVERS: Mapping[str, Solver[Any]] = MappingProxyType(
    {
        "euler": Euler(),
        "heun": Heun(),
        "dpm++2m": DPM2M(),
        "dpm++2m-sde": DPM2M(sde=True),
        "unipc": UniPC(),
        "euler-ancestral": EulerAncestral(),
        "lcm": Renoise(),
        "ddim": DDIM(),
        "ddpm": DDPM(),
    }
)


def solver(name: str) -> Solver[Any]:
    """The solver of that name, with its usual settings; a `ConfigError` that names the nearest otherwise."""
    if name not in SOLVERS:
        raise unknown_name("solver", name, SOLVERS)
    return SOLVERS[name]
