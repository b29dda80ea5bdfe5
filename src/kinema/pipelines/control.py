"""A shot's control made concrete: which ControlNet reads which pictures, and how firmly at each frame.

The network is known from its configuration alone; one that was made for another model is refused before any
weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kinema.core.errors import ConfigError, ModelError, about
from kinema.io.formats import STILLS
from kinema.io.image import read_image
from kinema.io.video_read import open_video
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.cards import part_folder
from kinema.pipelines.foreign.card import family_of
from kinema.pipelines.geometry import Geometry
from kinema.story.control import MOST, Control
from kinema.story.shot import Shot

CONTROLLED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlan:
    """A control as numbers.

    Attributes:
        path: of the picture or clip.
        model: folder or hub id of the ControlNet; None where the model reads the pictures itself.
        mask: path of where they are kept; None for nowhere.
        strength: for each frame.
        start, end: shares of the steps between which it acts.
    """

    path: str
    model: str | None
    mask: str | None
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
    if card.family == "foreign":
        _check_own(control, card)
    else:
        _check_network(control, card)
    for path in (control.path, control.mask):
        if path is not None and Path(path).suffix.lower() in STILLS:
            read_image(path)
        elif path is not None:
            open_video(path)
    with about("control.strength"):
        values_F = control.strength.sample(geometry.keep, Fraction(geometry.fps), seed)
    outside = [i for i, value in enumerate(values_F) if not 0 <= value <= MOST]
    if outside:
        raise ConfigError(
            f"control.strength is {values_F[outside[0]]:.6g} at frame {outside[0]}; write values from 0 to "
            f"{MOST:g}."
        )
    strength = tuple(float(value) for value in values_F)
    if card.family == "foreign" and len(set(strength)) > 1:
        raise ConfigError(f"control.strength over frames is not carried by {card.id!r}; write one number.")
    return ControlPlan(
        path=control.path,
        model=control.model,
        mask=control.mask,
        strength=strength,
        start=control.start,
        end=control.end,
    )


def _check_own(control: Control, card: ModelCard) -> None:
    """A control that another pipeline reads itself."""
    if not family_of(card).control:
        raise ConfigError(
            f"control is read by Wan VACE and by ControlNets of Stable Diffusion; {card.id!r} is neither: "
            "leave it out, or use such a model."
        )
    if control.model is not None:
        raise ConfigError(f"control.model: {card.id!r} reads its control itself; leave the model out.")
    if (control.start, control.end) != (0.0, 1.0):
        raise ConfigError(f"control.start and control.end are not carried by {card.id!r}; leave them out.")


def _check_network(control: Control, card: ModelCard) -> None:
    """A control that a ControlNet reads."""
    if card.family != "image" or card.transformer.get("_class_name") not in CONTROLLED:
        raise ConfigError(
            f"control is read by ControlNets of Stable Diffusion and SDXL, and by Wan VACE; {card.id!r} is "
            "none of these: leave it out, or use such a model."
        )
    if control.model is None:
        raise ConfigError(
            f"control needs a model that reads it for {card.id!r}: a ControlNet's folder or id."
        )
    if control.mask is not None:
        raise ConfigError(f"control.mask is for VACE; for {card.id!r} write redraw: {{mask: FILE}}.")
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
