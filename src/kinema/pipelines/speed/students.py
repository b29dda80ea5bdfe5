"""`speed: distilled`: a shot by the student that came with its model, in few steps with little guidance.

A student does not approximate one clip, as a tier does. It is another model, taught to end where the
guided one ends (https://arxiv.org/abs/2210.03142); how well it does is measured by `kinema evaluate`.
"""

from __future__ import annotations

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
    for name, value in student.sampler.items():
        asked = getattr(shot, name)
        if asked is not None and asked != value:
            raise ConfigError(
                f"speed: distilled was taught with {name} {value}, not {asked}; leave {name} out."
            )
    guidance = 1.0 if shot.holds else student.guidance
    if shot.guidance is not None:
        guidance = _known_guidance(shot.guidance, student)
    if shot.shortcuts is not None and shot.shortcuts.acts:
        raise ConfigError(
            f"shortcuts leave out parts of steps, and a student has {student.steps}, each of which counts; "
            "leave shortcuts or speed: distilled out."
        )
    made = shot.with_(**student.sampler, guidance=Schedule(guidance), shortcuts=None)
    own = "without guidance"
    if guidance != 1:
        if "guidance_interval" not in shot.model_fields_set:
            made = made.with_(guidance_interval=student.guidance_interval)
        low, high = made.guidance_interval
        own = f"with guidance {guidance:g} at noise levels {low:g} to {high:g}"
    return made, f"distilled: {student.steps} steps {own}, by the model's student."


def _known_guidance(asked: Schedule, student: Student) -> float:
    """What was written, where it is the student's own or none."""
    if asked.constant not in (1, student.guidance):
        own = "1 alone" if student.guidance == 1 else f"{student.guidance:g}, or 1 for none"
        raise ConfigError(
            f"speed: distilled has its guidance learned, and works at guidance {own}; leave guidance out."
        )
    return float(asked.constant)


def lora_of(card: ModelCard) -> Lora:
    """The student's additions; merged, since nothing of it changes during a clip."""
    return Lora.make(path=str(card.folder / STUDENT), merge=True)
