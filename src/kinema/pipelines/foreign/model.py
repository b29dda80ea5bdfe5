"""Another diffusers video pipeline in memory: its parts, and the classes that run on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from kinema.core.errors import ModelError
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.pretrained import loading_quietly, require_safetensors
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.cards import local_folder
from kinema.pipelines.diffusers_solvers import OWN_SOLVER
from kinema.pipelines.foreign.card import ADAPTER_KEY, family_of
from kinema.pipelines.foreign.decoder import ForeignVAE, in_tiles
from kinema.pipelines.foreign.families import Call, Family

WEIGHTED = ("transformer", "unet", "vae", "text_encoder", "text_encoder_2", "image_encoder", "motion_adapter")
# What motion modules were trained with (the AnimateDiff repository's inference configuration).
ADAPTED: dict[str, Any] = {
    "beta_schedule": "linear", "clip_sample": False, "timestep_spacing": "linspace", "steps_offset": 1,
}  # fmt: skip


@dataclass(eq=False)
class ForeignModel:
    """A checkpoint in memory.

    Attributes:
        card: what it is.
        pipe: the pipeline of the class that the checkpoint names.
        device, dtype: where and in what precision it runs.
        weights: how its matrices are kept: always in full.
    """

    card: ModelCard
    pipe: Any
    device: torch.device
    dtype: torch.dtype
    weights: str = "full"
    _calls: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._own = self.pipe.scheduler  # the pipelines get new ones, made from this

    @property
    def family(self) -> Family:
        """Its family."""
        return family_of(self.card)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The part that works in every step."""
        part: torch.nn.Module = getattr(self.pipe, self.family.denoiser)
        return part

    @property
    def decoder(self) -> ForeignVAE:
        """Its VAE, for previews."""
        return ForeignVAE(self.pipe.vae, self.card.stride)

    def pipeline(self, call: Call, solver: str, shift: float | None = None) -> Any:
        """The pipeline of a class, with a scheduler that no earlier clip has left its mark on."""
        import diffusers

        if call.name not in self._calls:
            made = getattr(diffusers, call.name)(**self.pipe.components)
            made.set_progress_bar_config(disable=True)
            self._calls[call.name] = made
        pipe = self._calls[call.name]
        pipe.scheduler = self.scheduler(solver, shift)
        return pipe

    def scheduler(self, solver: str, shift: float | None = None) -> Any:
        """A new scheduler of the name, with the checkpoint's noise levels."""
        import diffusers

        own, more = self._own, {}
        if shift is not None and self.family.shift:
            more = {self.family.shift: shift}
        if solver == OWN_SOLVER:
            return type(own).from_config(own.config, **more)
        name, options = self.family.solvers[solver]
        return getattr(diffusers, name).from_config(own.config, **options, **more)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move it, in place."""
        self.device, self.dtype = device or self.device, dtype or self.dtype
        self.pipe.to(device=self.device, dtype=self.dtype)
        if self.family.fine_vae:
            self.pipe.vae.to(torch.float32)
        return self


def load_foreign_model(
    card: ModelCard, *, device: str = "auto", dtype: str = "auto", local_files_only: bool = False
) -> ForeignModel:
    """Load a checkpoint: safetensors only, no code from the repository.

    Raises:
        ModelError: files are missing, damaged, or pickled.
    """
    import diffusers

    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    folder = local_folder(card, local_files_only=local_files_only)
    for part in _weighted(folder):
        require_safetensors(folder / part)
    name = card.transformer["_class_name"]
    options: dict[str, Any] = {"dtype": precision, "use_safetensors": True, "local_files_only": True}
    try:
        with loading_quietly():
            adapter = _adapter(card, options)
            pipe = getattr(diffusers, name).from_pretrained(folder, **options, **adapter)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} does not load as {name}: {reason}") from None
    if adapter:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **ADAPTED)
    pipe.set_progress_bar_config(disable=True)
    model = ForeignModel(card, pipe.to(where), where, precision)
    in_tiles(pipe.vae, model.family)
    if model.family.fine_vae:
        pipe.vae.to(torch.float32)
    return model


def _weighted(folder: Path) -> list[str]:
    """The parts with weights that the checkpoint names."""
    index = read_json(folder / "model_index.json")
    return [part for part in WEIGHTED if (index.get(part) or [None])[0] is not None]


def _adapter(card: ModelCard, options: dict[str, Any]) -> dict[str, Any]:
    """The motion adapter of a card that has one in a folder of its own."""
    import diffusers

    place = card.transformer.get(ADAPTER_KEY)
    if place is None:
        return {}
    require_safetensors(Path(place))
    return {"motion_adapter": diffusers.MotionAdapter.from_pretrained(place, **options)}
