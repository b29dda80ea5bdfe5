"""A diffusers image checkpoint in memory, as the three pipelines that share its parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.pretrained import loading_quietly, require_safetensors
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder, part_folder
from kinema.pipelines.diffusers_parts import read_part, read_pipeline
from kinema.pipelines.diffusers_solvers import OWN_SOLVER
from kinema.pipelines.images.cards import KANDINSKY, ImageKind, kind_of_card
from kinema.pipelines.images.solvers import most_steps, scheduler_of

Task = Literal["text", "image", "inpaint"]
AUTO: dict[Task, str] = {
    "text": "AutoPipelineForText2Image",
    "image": "AutoPipelineForImage2Image",
    "inpaint": "AutoPipelineForInpainting",
}
"""What finds a model's pipeline for a task in diffusers."""


@dataclass(eq=False)
class ImageModel:
    """An image checkpoint in memory.

    Attributes:
        card: what it is.
        pipe: diffusers' text-to-image pipeline.
        device, dtype: where and in what precision it runs.
        weights: how its matrices are kept: always in full.
        prior: diffusers' pipeline that makes embeddings from words, for models that draw from these.
    """

    card: ModelCard
    pipe: Any
    device: torch.device
    dtype: torch.dtype
    weights: str = "full"
    prior: Any = None
    _tasks: dict[tuple[Task, str | None], Any] = field(default_factory=dict, init=False, repr=False)
    _networks: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._own = self.pipe.scheduler  # the pipelines get new ones, made from this

    @property
    def kind(self) -> ImageKind:
        """Its family."""
        return kind_of_card(self.card)

    def pipeline(self, task: Task, solver: str, control: str | None = None, *, grid: str = OWN_SOLVER) -> Any:
        """The pipeline of a task, with a scheduler that no earlier picture has left its mark on.

        Args:
            task: what it does.
            solver: by name.
            control: folder or hub id of a ControlNet that it follows; None for none.
            grid: how its timesteps are spaced.
        """
        if (task, control) not in self._tasks:
            self._tasks[task, control] = self._made(task, control)
        pipe = self._tasks[task, control]
        pipe.scheduler = self.scheduler(solver, grid)
        return pipe

    def scheduler(self, solver: str, grid: str = OWN_SOLVER) -> Any:
        """A new scheduler of the name, with the checkpoint's noise levels, and its timesteps or others."""
        import diffusers

        own = self._own
        spaced = {} if grid == OWN_SOLVER else {"timestep_spacing": grid}
        if solver == OWN_SOLVER:
            return type(own).from_config(own.config, **spaced)
        # `_class_name` is what a folder says, and the object what is
        config = {**own.config, "_class_name": type(own).__name__}
        name, options = scheduler_of(solver, config, flow=self.kind.flow)
        return getattr(diffusers, name).from_config(own.config, **options, **spaced)

    def most_steps(self, solver: str) -> int:
        """Steps of a whole drawing that a solver has at most."""
        scheduler = self.scheduler(solver)
        return most_steps(type(scheduler).__name__, scheduler.config)

    def _made(self, task: Task, control: str | None) -> Any:
        import diffusers

        if task == "text" and control is None:
            return self.pipe
        if self.kind.name == KANDINSKY:
            pipe = diffusers.KandinskyV22Img2ImgPipeline(**self.pipe.components)
            pipe.set_progress_bar_config(disable=True)
            return pipe
        auto = getattr(diffusers, AUTO[task])
        pipe = auto.from_pipe(
            self.pipe, **({} if control is None else {"controlnet": self._network(control)})
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _network(self, control: str) -> Any:
        if control not in self._networks:
            self._networks[control] = load_control(control, self.device, self.dtype)
        return self._networks[control]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move it, in place."""
        self.device, self.dtype = device or self.device, dtype or self.dtype
        self.pipe.to(device=self.device, dtype=self.dtype)
        if self.prior is not None:
            self.prior.to(device=self.device, dtype=self.dtype)
        for network in self._networks.values():
            network.to(device=self.device, dtype=self.dtype)
        return self


def load_image_model(
    card: ModelCard, *, device: str = "auto", dtype: str = "auto", local_files_only: bool = False
) -> ImageModel:
    """Load an image checkpoint: safetensors only, no code from the repository.

    Raises:
        ModelError: files are missing, damaged, pickled, or lack tensors.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    folder = local_folder(card, local_files_only=local_files_only)
    for part in (kind_of_card(card).denoiser, "vae", "text_encoder"):
        require_safetensors(folder / part)
    pipe = read_pipeline(AUTO["text"], folder, precision, where)
    pipe.set_progress_bar_config(disable=True)
    return ImageModel(card, pipe, where, precision)


def load_control(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A ControlNet from its folder or hub id: safetensors only.

    Raises:
        ModelError: files are missing, damaged, pickled, or lack tensors.
    """
    from diffusers import ControlNetModel

    folder = part_folder(name)
    require_safetensors(folder)
    try:
        with loading_quietly():
            network = read_part(ControlNetModel, folder, dtype)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} does not load as a ControlNetModel: {reason}") from None
    return network.to(device)


@contextmanager
def given_noise(scheduler: Any, noise_BCYX: Tensor) -> Iterator[None]:
    """Pictures are noised with this noise, whatever noise the pipeline draws.

    The pipelines take noise for text to image, and draw their own for image to image; but all of them noise
    a picture through the scheduler, which is a new one for each.
    """
    name = "scale_noise" if hasattr(scheduler, "scale_noise") else "add_noise"
    own = getattr(scheduler, name)

    def noised(*args: Any, **kwargs: Any) -> Any:
        place = 2 if name == "scale_noise" else 1  # (sample, timestep, noise) and (samples, noise, timesteps)
        values = list(args)
        if len(values) > place and values[place].shape == noise_BCYX.shape:
            values[place] = noise_BCYX.to(values[place])
        elif "noise" in kwargs and kwargs["noise"].shape == noise_BCYX.shape:
            kwargs["noise"] = noise_BCYX.to(kwargs["noise"])
        return own(*values, **kwargs)

    setattr(scheduler, name, noised)
    try:
        yield
    finally:
        delattr(scheduler, name)
