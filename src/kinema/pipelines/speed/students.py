"""`speed: distilled`: a shot by the student that came with its model, a few steps without guidance.

A student does not approximate one clip, as a tier does. It is another model, taught to end where the
guided one ends (https://arxiv.org/abs/2210.03142); how well it does is measured by `kinema evaluate`.
"""

from __future__ import annotations

from typing import Any

from kinema.core.errors import ConfigError
from kinema.pipelines.card import STUDENT, ModelCard, Student
from kinema.story.lora import Lora
from kinema.story.shot import Shot
from kinema.story.tracks import Schedule


def taught(shot: Shot, card: ModelCard) -> tuple[Shot, str]:
    """The shot with its student's sampler, and what to tell of it.

    Raises:
        ConfigError: the model has no student, or the shot wants what the student was not taught.
    """
    student = card.student
    if student is None:
        raise ConfigError(
            f"speed: distilled needs a model that comes with a student, and {card.id!r} has none; leave "
            "speed out, or give a LoRA for few steps with --lora, and --steps and --guidance 1 with it."
        )
    for name, value in _sampler(student).items():
        asked = getattr(shot, name)
        if asked is not None and asked != value:
            raise ConfigError(
                f"speed: distilled was taught with {name} {value}, not {asked}; leave {name} out."
            )
    if shot.guidance is not None and shot.guidance.constant != 1:
        raise ConfigError(
            "speed: distilled has its guidance learned, and works at guidance 1 alone; leave guidance out."
        )
    if shot.shortcuts is not None and shot.shortcuts.acts:
        raise ConfigError(
            f"shortcuts leave out parts of steps, and a student has {student.steps}, each of which counts; "
            "leave shortcuts or speed: distilled out."
        )
    made = shot.with_(**_sampler(student), guidance=Schedule(1.0), shortcuts=None)
    unused = ""
    if not shot.negative.empty and shot.nag is None:
        unused = " The negative prompt does not act: without guidance, that takes nag."
    return made, f"distilled: {student.steps} steps without guidance, by the model's student.{unused}"


def lora_of(card: ModelCard) -> Lora:
    """The student's additions; merged, since nothing of it changes during a clip."""
    return Lora.make(path=str(card.folder / STUDENT), merge=True)


def _sampler(student: Student) -> dict[str, Any]:
    return {"steps": student.steps, "solver": student.solver, "grid": student.grid, "shift": student.shift}
