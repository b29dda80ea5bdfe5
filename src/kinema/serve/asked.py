"""Requests as clients write them: checked like any shot, and then for what a stranger may not name.

A path never comes from outside: pictures, clips and sounds are `media:<sha256>` of what was uploaded, models
and LoRAs are names that the server was started with.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kinema.core.errors import ConfigError, unknown_name
from kinema.serve.errors import ApiError, of_kinema
from kinema.serve.media import REFERENCE, is_word, named_models, named_paths
from kinema.serve.settings import ServeSettings
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, from_mapping

FIELDS = frozenset({*Shot.names(), *Storyboard.names()})
MOST_SEED = 2**31


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request.

    Attributes:
        story: as it was written, with the server's first model where it names none.
        media: sha256 of the files that it names.
    """

    story: Shot | Storyboard
    media: tuple[str, ...]

    @property
    def shots(self) -> tuple[Shot, ...]:
        """All of it."""
        return self.story.shots if isinstance(self.story, Storyboard) else (self.story,)

    def values(self) -> dict[str, Any]:
        """JSON values that a queue keeps."""
        return self.story.to_mapping()

    def seeded(self, step: int = 0) -> Asked:
        """The same with a seed in every shot: its own plus `step`, or one drawn now plus the shot's place."""
        drawn = secrets.randbelow(MOST_SEED)
        own = (drawn + k if shot.seed is None else shot.seed + step for k, shot in enumerate(self.shots))
        shots = tuple(shot.with_(seed=seed % 2**63) for shot, seed in zip(self.shots, own, strict=True))
        story = self.story.with_(shots=shots) if isinstance(self.story, Storyboard) else shots[0]
        return Asked(story, self.media)


def read_asked(values: Any, settings: ServeSettings, exists: Callable[[str], bool]) -> Asked:
    """Check what a client asks for.

    Args:
        values: a shot or storyboard, JSON values.
        settings: whose models and LoRAs may be named.
        exists: whether there is an upload with this sha256.

    Raises:
        ApiError: 422 with the field in `param`.
    """
    if not isinstance(values, Mapping):
        raise ApiError(422, "request is not an object of settings.", code="invalid_value", param="request")
    try:
        story = from_mapping(_with_model(values, settings.models[0]))
    except ConfigError as error:
        raise of_kinema(error, fields=FIELDS) from None
    except RecursionError:
        raise ApiError(422, "nested too deeply for a shot.", code="invalid_value") from None
    media = {_media(where, path, settings, exists): None for where, path in named_paths(story)}
    asked = Asked(story, tuple(sha256 for sha256 in media if sha256))
    for where, model in named_models(story):
        if model not in settings.models:
            message = str(unknown_name("model", model[:80], settings.models))
            raise ApiError(422, message, code="unknown_model", param=where)
    return asked


def _with_model(values: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """The server's first model where nothing is said, unless that is what a shot means by itself."""
    default = Shot.model_fields["model"].default
    return values if "model" in values or model == default else {**values, "model": model}


def _media(where: str, path: str, settings: ServeSettings, exists: Callable[[str], bool]) -> str:
    """The upload that a path stands for; empty for a word, or a LoRA of the server's."""
    if where.endswith("upscale.model"):
        message = f"{path[:80]!r}: this server upscales without networks; write a scale and a method."
        raise ApiError(422, message, code="not_media", param=where)
    match = REFERENCE.fullmatch(path)
    if match is not None:
        if exists(match[1]):
            return match[1]
        raise ApiError(422, f"{path} is not here; upload it first.", code="unknown_media", param=where)
    if is_word(where, path):
        return ""
    if "loras[" in where:
        known = sorted(file.stem for file in settings.loras)
        if path in known:
            return ""
        message = f"unknown LoRA {path[:80]!r}; this server has {', '.join(known) or 'none'}."
        raise ApiError(422, message, code="unknown_lora", param=where)
    message = f"{path[:80]!r} is not media:<sha256>; upload the file first and name what the answer says."
    raise ApiError(422, message, code="not_media", param=where)
