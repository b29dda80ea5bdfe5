"""Solvers of an image model: which scheduler of diffusers a name stands for, and what that one takes.

Read from the checkpoint's `scheduler_config.json` alone, before any weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from kinema.core.errors import ConfigError, unknown_name
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.diffusers_solvers import IMAGE_SOLVERS, OWN_SOLVER, SPACED
from kinema.pipelines.images.cards import kind_of_card

TRAINED_STEPS = 1000
DISTILLED = ("LCMScheduler", "TCDScheduler")
NO_ZERO_SNR = frozenset({"HeunDiscreteScheduler"})
"""The schedulers that do not read `rescale_betas_zero_snr`."""
DISTILLED_STEPS = 50  # `original_inference_steps`, where a configuration does not say it


class Step(Protocol):
    """What a drawing says of how it is sampled."""

    @property
    def steps(self) -> int:
        """Of a whole drawing."""

    @property
    def solver(self) -> str:
        """By name."""


def own_scheduler(card: ModelCard) -> dict[str, Any]:
    """The configuration of the checkpoint's scheduler.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    return read_json(card.folder / "scheduler" / "scheduler_config.json")


def solvers_of(card: ModelCard) -> tuple[str, ...]:
    """Names of the solvers that the checkpoint runs with."""
    kind = kind_of_card(card)
    if kind.flow or kind.solvers == (OWN_SOLVER,):
        return kind.solvers
    own = own_scheduler(card)
    if _is_edm(own):
        return (OWN_SOLVER, "euler")
    return tuple(name for name in kind.solvers if name not in _unfit(own))


def image_solver(card: ModelCard, name: str) -> str:
    """The solver's name; `ConfigError` with the nearest for one that the model cannot run with."""
    solvers = solvers_of(card)
    if name in solvers:
        return name
    if name in kind_of_card(card).solvers:
        own = own_scheduler(card)
        raise ConfigError(
            f"solver {name!r} cannot have the noise levels of {card.id!r}, whose scheduler is "
            f"{_described(own)}; write one of {', '.join(solvers)}."
        )
    raise unknown_name(f"solver of {card.id!r}", name, solvers)


def scheduler_of(solver: str, own: Mapping[str, Any], *, flow: bool) -> tuple[str, dict[str, Any]]:
    """The class of diffusers that a solver's name stands for, and what makes it that solver.

    Args:
        solver: one of `solvers_of`.
        own: configuration of the checkpoint's scheduler.
        flow: whether the model is of the kind that is trained on straight paths.
    """
    if solver == OWN_SOLVER:
        return str(own.get("_class_name")), {}
    if flow:
        # what DPM-Solver and UniPC call by another name
        shift = {"shift": own["flow_shift"]} if "flow_shift" in own and "shift" not in own else {}
        return "FlowMatchEulerDiscreteScheduler", shift
    if _is_edm(own):
        return "EDMEulerScheduler", {}
    name, options = IMAGE_SOLVERS[solver]
    return name, dict(options)


def _is_edm(own: Mapping[str, Any]) -> bool:
    """Karras' preconditioning (EDM), whose noise levels no variance-preserving scheduler has."""
    return str(own.get("_class_name")).startswith("EDM")


def _unfit(own: Mapping[str, Any]) -> tuple[str, ...]:
    """Solvers that know nothing of a last level without signal, where the checkpoint was trained on it."""
    if not own.get("rescale_betas_zero_snr"):
        return ()
    return tuple(name for name, (scheduler, _) in IMAGE_SOLVERS.items() if scheduler in NO_ZERO_SNR)


def _described(own: Mapping[str, Any]) -> str:
    rescaled = " with rescale_betas_zero_snr" if own.get("rescale_betas_zero_snr") else ""
    return f"{str(own.get('_class_name'))[:60]}{rescaled}"


def most_steps(scheduler: str, config: Mapping[str, Any]) -> int:
    """Steps that a scheduler's whole drawing has at most.

    Args:
        scheduler: its class in diffusers; LCM's and TCD's choose among the steps of their distillation.
        config: that it is made from.
    """
    if scheduler not in DISTILLED:
        return TRAINED_STEPS
    found = config.get("original_inference_steps", DISTILLED_STEPS)
    return found if isinstance(found, int) and found > 0 else DISTILLED_STEPS


def check_steps(card: ModelCard, strokes: Iterable[Step]) -> None:
    """Refuse more steps than a scheduler has.

    Args:
        card: of an image model.
        strokes: all drawings.

    Raises:
        ConfigError: naming the solver and the most that it takes.
    """
    own, flow = own_scheduler(card), kind_of_card(card).flow
    for steps, solver in dict.fromkeys((stroke.steps, stroke.solver) for stroke in strokes):
        scheduler, _ = scheduler_of(solver, own, flow=flow)
        if scheduler in DISTILLED and steps > (most := most_steps(scheduler, own)):
            raise ConfigError(
                f"steps={steps} is more than solver {solver!r} ({scheduler}) has, whose steps are chosen "
                f"among {most}; write {most} or fewer (it is made for 1 to 8), or another solver."
            )


def check_spacing(grid: str, card: ModelCard, solvers: Iterable[str]) -> None:
    """Refuse a spacing of timesteps beside a solver that has its own.

    Args:
        grid: of the plan.
        card: of an image model.
        solvers: of all drawings.

    Raises:
        ConfigError: naming the solver and what to do.
    """
    if grid == OWN_SOLVER:
        return
    own, flow = own_scheduler(card), kind_of_card(card).flow
    for solver in dict.fromkeys(solvers):
        name, options = scheduler_of(solver, own, flow=flow)
        if name not in SPACED or {**(own if solver == OWN_SOLVER else {}), **options}.get(
            "use_karras_sigmas"
        ):  # those noise levels are a spacing
            raise ConfigError(
                f"grid={grid!r} is not read by solver {solver!r} ({name[:60]}), whose timesteps are its "
                "own; leave grid out, or write another solver."
            )
