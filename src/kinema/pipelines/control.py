"""A shot's control made concrete: which ControlNet reads which pictures, and how firmly at each frame.

The network is known from its configuration alone; one that was made for another model is refused before any
weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kinema.core.errors import ConfigError, ModelError
from kinema.io.formats import STILLS
from kinema.io.image import read_image
from kinema.io.video_read import open_video
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.cards import part_folder
from kinema.pipelines.geometry import Geometry
from kinema.story.control import MOST, Control
from kinema.story.shot import Shot

CONTROLLED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlan:
    """A control as numbers.

    Attributes:
        path: of the picture or clip.
        model: folder or hub id of the ControlNet.
        strength: for each frame.
        start, end: shares of the steps between which it acts.
    """

    path: str
    model: str
    strength: tuple[float, ...]
    start: float
    end: float


def plan_control(shot: Shot, card: ModelCard, geometry: Geometry, seed: int) -> ControlPlan | None:
    """The control of a shot; None for a shot without one.

    Raises:
        ConfigError: a model that takes none, or a strength that leaves its range.
        ModelError: no ControlNet, or one that was made for another model.
        MediaError: a picture or clip that cannot be read.
    """
    control = shot.control
    if control is None:
        return None
    if card.transformer.get("_class_name") not in CONTROLLED or card.family != "image":
        raise ConfigError(
            f"control is read by ControlNets of Stable Diffusion and SDXL, and {card.id!r} is neither; "
            "leave it out, or use such a model."
        )
    _check_network(control, card)
    if Path(control.path).suffix.lower() in STILLS:
        read_image(control.path)
    else:
        open_video(control.path)
    values_F = control.strength.sample(geometry.keep, Fraction(geometry.fps), seed)
    outside = [i for i, value in enumerate(values_F) if not 0 <= value <= MOST]
    if outside:
        raise ConfigError(
            f"control.strength is {values_F[outside[0]]:.6g} at frame {outside[0]}; write values from 0 to "
            f"{MOST:g}."
        )
    strength = tuple(float(value) for value in values_F)
    return ControlPlan(
        path=str(control.path), model=control.model, strength=strength, start=control.start, end=control.end
    )


def _check_network(control: Control, card: ModelCard) -> None:
    folder = part_folder(control.model, patterns=["config.json"])
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "ControlNetModel":
        raise ModelError(
            f"control model {control.model!r} is a {str(config.get('_class_name'))[:60]!r}; kinema reads "
            "'ControlNetModel' folders in diffusers layout."
        )
    unet = read_json(card.folder / "unet" / "config.json")
    for name in ("cross_attention_dim", "block_out_channels"):
        if config.get(name) != unet.get(name):
            raise ModelError(
                f"control model {control.model!r} has {name} {config.get(name)} and {card.id!r} "
                f"{unet.get(name)}: it was made for another model; use one for this model."
            )
