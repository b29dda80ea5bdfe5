"""`speed: few`: a shot in as few steps as its model was measured to obey in, with guidance where it counts.

What a clip shows is decided at high noise levels, so most steps are there, and guidance may be left off below
(https://arxiv.org/abs/2404.07724). The clip is another one than the exact one, of the same kind.
"""

from __future__ import annotations

from kinema.core.errors import ConfigError
from kinema.pipelines.card import ModelCard
from kinema.story.shot import Shot


def in_few_steps(shot: Shot, card: ModelCard) -> tuple[Shot, str]:
    """The shot with its model's sampler of few steps wherever it says nothing itself, and what to tell of it.

    Raises:
        ConfigError: the model was not measured in few steps, or the shot leaves out parts of steps too.
    """
    few = card.few
    if few is None:
        raise ConfigError(
            f"speed: few needs a model that was measured in few steps, and {card.id!r} was not; leave speed "
            "out, or write --steps, --shift and --guidance-interval."
        )
    if shot.shortcuts is not None and shot.shortcuts.acts:
        raise ConfigError(
            f"shortcuts leave out parts of steps, and with speed: few there are {few.steps}, each of which "
            "counts; leave shortcuts or speed: few out."
        )
    silent = {name: value for name, value in few.sampler.items() if getattr(shot, name) is None}
    made = shot.with_(**silent, shortcuts=None)
    if "guidance_interval" not in shot.model_fields_set:
        made = made.with_(guidance_interval=few.guidance_interval)
    low, high = made.guidance_interval
    where = "" if _unguided(shot, card) else f", guidance at noise levels {low:g} to {high:g}"
    return made, f"few: {made.steps} steps of {made.solver}{where}."


def _unguided(shot: Shot, card: ModelCard) -> bool:
    if shot.guidance is not None:
        return shot.guidance.constant == 1
    return shot.holds and card.defaults.guidance_held == 1
