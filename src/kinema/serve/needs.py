"""What a job needs of the machine that renders it, where that may be missing: models and LoRAs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.cards import read_card
from kinema.serve.desk import NotHere
from kinema.serve.media import REFERENCE
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, from_mapping


def check_loras(request: Mapping[str, Any], loras: Collection[str]) -> None:
    """`NotHere` for a LoRA that the request names and this machine has not."""
    for shot in shots_of(from_mapping(request)):
        for lora in shot.loras:
            if lora.path not in loras and not REFERENCE.fullmatch(lora.path):
                known = ", ".join(sorted(loras)) or "none"
                raise NotHere(f"loras: {lora.path[:80]!r} is not here (it has {known}); add --lora FILE.")


def check_models(request: Shot | Storyboard) -> None:
    """`NotHere` for a model that cannot be found, or read, on this machine."""
    for model in dict.fromkeys(shot.model for shot in shots_of(request)):
        try:
            read_card(model)
        except (ModelError, ConfigError) as error:
            raise NotHere(f"model: {error}") from None


def shots_of(story: Shot | Storyboard) -> tuple[Shot, ...]:
    """All of it."""
    return story.shots if isinstance(story, Storyboard) else (story,)
