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
    return kind_of_card(card).solvers


def image_solver(card: ModelCard, name: str) -> str:
    """The solver's name; `ConfigError` with the nearest for one that the model cannot run with."""
    solvers = solvers_of(card)
    if name not in solvers:
        raise unknown_name(f"solver of {card.id!r}", name, solvers)
    return name


def scheduler_class(solver: str, own: Mapping[str, Any]) -> str:
    """The class of diffusers that a solver's name stands for.

    Args:
        solver: one of `solvers_of`.
        own: configuration of the checkpoint's scheduler.
    """
    return str(own.get("_class_name")) if solver == OWN_SOLVER else IMAGE_SOLVERS[solver][0]


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
    own = own_scheduler(card)
    for steps, solver in dict.fromkeys((stroke.steps, stroke.solver) for stroke in strokes):
        scheduler = scheduler_class(solver, own)
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
    own = own_scheduler(card)
    for solver in dict.fromkeys(solvers):
        name = scheduler_class(solver, own)
        options = own if solver == OWN_SOLVER else IMAGE_SOLVERS[solver][1]
        if name not in SPACED or options.get("use_karras_sigmas"):  # those noise levels are a spacing
            raise ConfigError(
                f"grid={grid!r} is not read by solver {solver!r} ({name[:60]}), whose timesteps are its "
                "own; leave grid out, or write another solver."
            )
