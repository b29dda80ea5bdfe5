"""Image models of diffusers: what a checkpoint is and can do, from its configuration files alone.

Kinds are those whose prompts kinema can mix from frame to frame: Stable Diffusion 1 and 2, SDXL, Stable
Diffusion 3, Flux and Kandinsky 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.core.contracts import Stride
from kinema.core.errors import ConfigError, ModelError
from kinema.pipelines.card import Defaults, Mode, ModelCard, read_json
from kinema.pipelines.diffusers_solvers import IMAGE_SOLVERS, OWN_SOLVER, SPACINGS

if TYPE_CHECKING:
    from kinema.models.lora_keys import Text
    from kinema.story.shot import Shot

FPS, FRAMES = "12", 48
KANDINSKY = "KandinskyV22Pipeline"


@dataclass(frozen=True, slots=True)
class ImageKind:
    """A family of image models.

    Attributes:
        name: of diffusers' text-to-image pipeline.
        denoiser: folder of the network.
        encoded: what `encode_prompt` returns, by the names of the pipeline's own arguments; `_` for what it
            returns of the other side.
        flow: trained on straight paths; only the checkpoint's scheduler and flow Euler fit it.
        packing: latents per token side, which sizes must be multiples of.
        steps, guidance: what its own examples use.
        weights: whether a prompt's (word:1.3) can act: one embedding per token of one tokenizer.
        codec: folder of what decodes its latents.
        loras: whose names LoRAs of the network may use beside its own, of `IMAGE_NAMINGS`; empty where none
            are read.
        text_loras: text encoders that LoRAs may change too.
    """

    name: str
    denoiser: str
    encoded: tuple[str, ...]
    flow: bool
    packing: int
    steps: int
    guidance: float
    weights: bool
    codec: str = "vae"
    loras: str = ""
    text_loras: tuple[Text, ...] = ()

    @property
    def solvers(self) -> tuple[str, ...]:
        """Names of the solvers it runs with."""
        if self.name == KANDINSKY:  # its network gives a variance too, which no other scheduler reads
            return (OWN_SOLVER,)
        return (OWN_SOLVER, "euler") if self.flow else (OWN_SOLVER, *IMAGE_SOLVERS)

    @property
    def grids(self) -> tuple[str, ...]:
        """How its timesteps may be spaced, beside as the checkpoint says."""
        return () if self.flow or self.name == KANDINSKY else SPACINGS


POOLED = ("prompt_embeds", "_", "pooled_prompt_embeds", "_")
CLIP: tuple[Text, ...] = ("text",)
TWO_CLIPS: tuple[Text, ...] = ("text", "text_2")

KINDS = {
    kind.name: kind
    for kind in (
        ImageKind(
            "StableDiffusionPipeline",
            "unet",
            ("prompt_embeds", "_"),
            False,
            1,
            30,
            7.5,
            True,
            loras="unet",
            text_loras=CLIP,
        ),
        ImageKind(
            "StableDiffusionXLPipeline",
            "unet",
            POOLED,
            False,
            1,
            30,
            5.0,
            True,
            loras="unet",
            text_loras=TWO_CLIPS,
        ),
        ImageKind(
            "StableDiffusion3Pipeline",
            "transformer",
            POOLED,
            True,
            2,
            28,
            7.0,
            False,
            loras="sd3",
            text_loras=TWO_CLIPS,
        ),
        ImageKind(
            "FluxPipeline",
            "transformer",
            ("prompt_embeds", "pooled_prompt_embeds", "_"),
            True,
            2,
            28,
            3.5,
            False,
            loras="flux",
            text_loras=CLIP,
        ),
        ImageKind(KANDINSKY, "unet", ("image_embeds",), False, 1, 50, 4.0, False, "movq"),
    )
}


def kind_of(class_name: str) -> ImageKind | None:
    """The kind of a pipeline's class, whichever of its three tasks it was saved for."""
    for task in ("Img2Img", "Inpaint", "Combined"):
        class_name = class_name.replace(task, "")
    return KINDS.get(class_name)


def image_card(name: str, folder: Path, index: Mapping[str, Any]) -> ModelCard | None:
    """The card of an image model; None where `model_index.json` names no kind that is known.

    Raises:
        ModelError: an inpainting network.
    """
    class_name = index.get("_class_name")
    kind = kind_of(class_name) if isinstance(class_name, str) else None
    if kind is None:
        return None
    network = read_json(folder / kind.denoiser / "config.json")
    vae = read_json(folder / kind.codec / "config.json")
    channels = int(vae.get("latent_channels", 4))
    _check_network(name, kind, network, channels)
    space = 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1)
    side = int(network.get("sample_size") or 128) * space
    distilled = kind.name == "FluxPipeline" and not network.get("guidance_embeds")
    return ModelCard(
        id=name,
        folder=folder,
        family="image",
        stride=Stride(time=1, space=space),
        multiple=space * kind.packing,
        latent_channels=channels,
        mechanism="none",
        modes=frozenset[Mode]({"image", "frame_by_frame"}),
        defaults=Defaults(
            width=side,
            height=side,
            frames=FRAMES,
            fps=FPS,
            steps=4 if distilled else kind.steps,
            solver=OWN_SOLVER,
            grid=OWN_SOLVER,
            shift=1.0,
            guidance=1.0 if distilled else kind.guidance,
        ),
        any_aspect=True,
        transformer={"_class_name": kind.name},
    )


def _check_network(name: str, kind: ImageKind, network: Mapping[str, Any], channels: int) -> None:
    seen = (
        int(network.get("in_channels", channels)) // kind.packing**2
        if kind.flow
        else network.get("in_channels")
    )
    if kind.name == "StableDiffusion3Pipeline":
        seen = network.get("in_channels", channels)
    if seen is not None and seen != channels:
        inpaints = "" if kind.name == KANDINSKY else ", which kinema inpaints with as well"
        raise ModelError(
            f"model {name!r} reads {seen} channels for latents of {channels}: it is made for inpainting or "
            f"control alone. Use its plain sibling{inpaints}."
        )


def kind_of_card(card: ModelCard) -> ImageKind:
    """The kind of an image model's card."""
    return KINDS[card.transformer["_class_name"]]


def check_image_shot(shot: Shot, card: ModelCard) -> None:
    """Refuse settings of our sampler that a diffusers image pipeline has no place for.

    Raises:
        ConfigError: naming the setting and what to do.
    """
    default = type(shot).model_fields
    if shot.grid is not None and shot.grid not in (grids := kind_of_card(card).grids):
        way = f"write {', '.join(grids[:-1])} or {grids[-1]}, or leave it out" if grids else "leave it out"
        raise ConfigError(
            f"grid={shot.grid!r} is none of {card.id!r}, whose own scheduler has its steps; {way}."
        )
    for field in ("shift", "guidance_rescale", "guidance_interval", "guidance_method"):
        if getattr(shot, field) != default[field].default:
            raise ConfigError(
                f"{field} is not used by {card.id!r}: an image model's own scheduler and guidance draw its "
                "frames; leave it out."
            )
    if shot.blend == "velocity":
        raise ConfigError(f"blend: velocity is not for {card.id!r}; write blend: embedding or slerp.")


def check_image_prompts(card: ModelCard, weights: Iterable[float]) -> None:
    """Refuse weights of words where the model has no single token for a word.

    Raises:
        ConfigError: naming the notation and what to do.
    """
    kind = kind_of_card(card)
    if not kind.weights and any(weight != 1.0 for weight in weights):
        raise ConfigError(
            f"weights such as (word:1.3) are not read by {card.id!r}, a {kind.name}, whose texts have "
            "no single embedding for a word; write the prompt without them."
        )
