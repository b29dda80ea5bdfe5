"""The sampler that a Wan checkpoint brings: its scheduler's configuration in kinema's words.

What `WanPipeline` would do with the same files, in as many steps. Where kinema has no solver for the class,
or leaves one of its settings out, a note says so; nothing is replaced in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.pipelines.card import read_json

USUAL = "UniPCMultistepScheduler"
USUAL_SHIFT = 3.0  # of Wan at 480p, where nothing says another


@dataclass(frozen=True, slots=True)
class Sampler:
    """What a shot gets where it says nothing.

    Attributes:
        solver, grid, shift: as in `Defaults`.
        notes: what of the checkpoint's scheduler this is not.
    """

    solver: str
    grid: str
    shift: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Class:
    """A scheduler of diffusers that is one of our solvers.

    Attributes:
        solver, grid: ours.
        shift: its name for the shift, which is 1 where the configuration does not say it.
        runs: its settings as our solver has them.
    """

    solver: str
    grid: str
    shift: str
    runs: Mapping[str, Any]


_PLAIN = {
    "num_train_timesteps": 1000,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "invert_sigmas": False,
}
_MULTISTEP: dict[str, Any] = {
    **_PLAIN,
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "thresholding": False,
}
_UNIPC: dict[str, Any] = {
    **_MULTISTEP,
    "solver_type": "bh2",
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
}
_DPM = {**_MULTISTEP, "solver_type": "midpoint", "euler_at_final": False, "use_lu_lambdas": False}
_UNSAID = {"use_flow_sigmas": False, "prediction_type": "epsilon"}  # diffusers' own, where they are not ours

CLASSES: Mapping[str, _Class] = {
    USUAL: _Class("unipc", "diffusers", "flow_shift", _UNIPC),
    "DPMSolverMultistepScheduler": _Class(
        "dpm++2m", "diffusers-dpm++", "flow_shift", {**_DPM, "algorithm_type": "dpmsolver++"}
    ),
    "FlowMatchEulerDiscreteScheduler": _Class(
        "euler", "diffusers-euler", "shift", {**_PLAIN, "stochastic_sampling": False}
    ),
    "FlowMatchHeunDiscreteScheduler": _Class("heun", "diffusers-euler", "shift", _PLAIN),
}
"""The classes of diffusers whose steps are those of a solver of ours, on a grid of ours."""


def wan_sampler(name: str, folder: Path, index: Mapping[str, Any]) -> Sampler:
    """Solver, grid and shift of a checkpoint; Wan's usual ones where it has no scheduler.

    Args:
        name: as the user called the checkpoint.
        folder: where it lies.
        index: its `model_index.json`, whose class is the one that diffusers makes.

    Raises:
        ModelError: the scheduler's configuration cannot be read.
        TypeError, ValueError: its shift is no number.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return Sampler(CLASSES[USUAL].solver, CLASSES[USUAL].grid, USUAL_SHIFT)
    config = read_json(path)
    kind = (index.get("scheduler") or [None, None])[1] or config.get("_class_name", USUAL)
    if kind not in CLASSES:
        return _unknown(name, str(kind), config)
    known = CLASSES[kind]
    shift = float(config.get(known.shift, 1.0))
    return Sampler(known.solver, known.grid, shift, _left_out(name, config, known))


def _unknown(name: str, kind: str, config: Mapping[str, Any]) -> Sampler:
    usual = CLASSES[USUAL]
    shift = float(config.get("flow_shift", config.get("shift", USUAL_SHIFT)))
    note = (
        f"the scheduler of {name} is a {kind[:60]}, for which kinema has no solver: it samples with "
        f"{usual.solver} and shift {shift:g}; say solver, grid and shift yourself for others."
    )
    return Sampler(usual.solver, usual.grid, shift, (note,))


def _left_out(name: str, config: Mapping[str, Any], known: _Class) -> tuple[str, ...]:
    """A note for settings of the scheduler that our solver does not have."""
    asked = {setting: config.get(setting, _UNSAID.get(setting, ours)) for setting, ours in known.runs.items()}
    others = [
        f"{setting}={str(value)[:20]}"
        for setting, value in asked.items()
        if value != known.runs[setting] and (value or known.runs[setting])  # None is False there
    ]
    if not others:
        return ()
    return (
        f"the scheduler of {name} has {', '.join(others)}, which kinema's {known.solver} leaves out; say "
        "solver, grid and shift yourself for others.",
    )
