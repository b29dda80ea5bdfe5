"""LoRAs of a shot, checked against the shape of the model's transformer before any of its weights is read."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.core.errors import ConfigError, about
from kinema.pipelines.card import ModelCard
from kinema.pipelines.geometry import Geometry, per_latent
from kinema.pipelines.plan import PlannedLora
from kinema.pipelines.speed.students import lora_of
from kinema.story.lora import Lora
from kinema.story.shot import Shot

_TAG = re.compile(r"<lora:(?P<name>[^<>:]{1,80})(?::(?P<scale>-?[0-9.]{1,8}))?[^<>]{0,40}>")

if TYPE_CHECKING:
    from kinema.models.lora_file import LoraFile
    from kinema.models.lora_keys import Expert


def plan_loras(
    shot: Shot, card: ModelCard, geometry: Geometry, seed: int
) -> tuple[tuple[PlannedLora, ...], tuple[str, ...]]:
    """The student of a speed, a shot's LoRAs, and notes for each of these: how much of it is used.

    Raises:
        ModelError: a file that cannot be read or does not fit the model.
        ConfigError: a scale over frames for a merged one, or a transformer that the model does not have.
    """
    planned, notes = [], []
    student = (lora_of(card),) if shot.speed == "distilled" else ()
    for lora in (*student, *shot.loras):
        file = read_for(card, lora.path)
        expert = _expert(lora, file, card)
        used = fitted(file, card, expert)
        ranks = ", ".join(map(str, file.ranks)) or "none"
        if lora not in student:
            notes.append(f"LoRA {Path(lora.path).name}: {used} of {file.count} keys used, rank {ranks}")
            notes += file.notes
        if used != file.count:
            raise ConfigError(
                f"loras: {lora.path} has keys of both transformers, and {file.count - used} of {file.count} "
                "would not be used; leave out expert, or write expert: both."
            )
        planned.append(
            PlannedLora(
                path=lora.path,
                sha256=_sha256(file),
                scale=_scale(lora, card, geometry, seed),
                expert=expert,
                merge=lora.merge,
            )
        )
    return tuple(planned), (*notes, *_only_words(shot))


def _only_words(shot: Shot) -> tuple[str, ...]:
    """A note for the first LoRA that is written into a prompt, as other programs read it."""
    found = _TAG.search(str(shot.prompt.source)) or _TAG.search(str(shot.negative.source))
    if found is None:
        return ()
    name, scale = found["name"], found["scale"] or "1"
    return (
        f"{found[0]!r} in a prompt is only words here; write --lora {name}.safetensors:{scale}, or loras in "
        "a shot file.",
    )


def read_for(card: ModelCard, path: str) -> LoraFile:
    """A LoRA for a model, of whose text encoders it may say something where the model's LoRAs do.

    Raises:
        ConfigError: the model takes none.
        ModelError: as in `read_lora`.
    """
    from kinema.models.lora_file import read_lora

    if card.family == "image":
        from kinema.pipelines.images import loras as images

        return read_lora(path, texts=images.texts_changed(card))
    if card.family == "foreign":
        from kinema.pipelines.foreign import loras as foreign

        return read_lora(path, texts=foreign.texts_changed(card))
    return read_lora(path)


def fitted(file: LoraFile, card: ModelCard, expert: str = "both") -> int:
    """How many of a file's keys the model uses; all of them, or the file is refused.

    Those of changes that are all zeros count as used, whatever they are of.

    Raises:
        ModelError: a key names no layer of the model, or has another shape.
    """
    return file.dropped + _fitted(file, card, expert)


def _fitted(file: LoraFile, card: ModelCard, expert: str) -> int:
    if card.family == "image":
        from kinema.pipelines.images import loras as images

        return images.fitted_keys(file, card)
    if card.family == "foreign":
        from kinema.pipelines.foreign import loras as foreign

        return foreign.fitted_keys(file, card)
    from kinema.models.dit import VideoDiT, VideoDiTConfig
    from kinema.models.lora import fit, shapes_of
    from kinema.models.weights import bare

    with bare():
        shapes = shapes_of(VideoDiT(VideoDiTConfig.from_mapping(card.transformer)))
    experts = _experts(expert, card)
    if experts == [None] and {"high", "low"} <= {owner for owner, _ in file.changes}:
        experts = ["high"]  # a model of one transformer has no use for the other's keys, and callers say so
    used = [fit(file, shapes, expert=e).keys for e in experts]
    return sum(used) if says_which(file) else used[0]


def _experts(expert: str, card: ModelCard) -> list[Expert | None]:
    if card.boundary is None:
        return [None]
    return ["high", "low"] if expert == "both" else ["high" if expert == "high" else "low"]


def _expert(lora: Lora, file: LoraFile, card: ModelCard) -> str:
    """Which transformer the file is for, refused where nobody says so."""
    if card.boundary is None:
        if lora.expert not in (None, "both"):
            raise ConfigError(
                f"loras: expert={lora.expert!r}, and {card.id!r} has one transformer; leave it out."
            )
        return "both"
    if lora.expert is None and not says_which(file):
        raise ConfigError(
            f"loras: {lora.path} does not say for which of the two transformers of {card.id!r} it is; "
            "write expert: high, low or both."
        )
    return lora.expert or "both"


def says_which(file: LoraFile) -> bool:
    """Whether its keys name one of two transformers."""
    return any(expert in ("high", "low") for expert, _ in file.changes)


def _scale(lora: Lora, card: ModelCard, geometry: Geometry, seed: int) -> tuple[float, ...]:
    with about(f"loras: {lora.path}"):
        values = lora.scale.sample(geometry.keep, Fraction(geometry.fps), seed)
    if (values == values[0]).all():
        return (float(values[0]),)
    if card.family == "foreign":
        raise ConfigError(
            f"loras: {lora.path} has a scale that changes over frames, and {card.id!r} runs in diffusers' "
            "own pipeline, whose layers do not say which frame they are at; write one number."
        )
    if lora.merge:
        raise ConfigError(
            f"loras: {lora.path} has a scale that changes over frames, which cannot be merged; "
            "leave out merge, or write one number."
        )
    return tuple(float(v) for v in per_latent(values, geometry))


def _sha256(lora: LoraFile) -> str:
    """Of the file, and of what says its alphas beside it."""
    with lora.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if lora.config is not None:
        digest.update(lora.config.read_bytes())
    return digest.hexdigest()
