"""Kandinsky 2.2 as an image engine: text to image and image to image, embeddings mixed for each frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinema.core.runtime import generator
from kinema.pipelines.images.engine import Drawing
from kinema.pipelines.images.engine_diffusers import checked_picture, enough_steps
from kinema.pipelines.images.model import ImageModel, Task, given_noise
from kinema.pipelines.plan import Plan
from kinema.pipelines.unclip.embeds import FrameEmbeds


class UnclipImages:
    """Draws the pictures of a plan.

    Args:
        plan: whose prompts, look and guidance the pictures have.
        model: loaded for it, with its prior.
    """

    def __init__(self, plan: Plan, model: ImageModel) -> None:
        self.plan, self.model, self._embeds = plan, model, FrameEmbeds(plan, model)

    def draw(self, drawing: Drawing) -> Tensor:
        """The picture `[1, 3, H, W]`, 0..1, float32 on the CPU."""
        assert drawing.open is None, "masks are refused when the plan is made"
        assert drawing.holes is None, "and so are holes"
        if drawing.canvas is None:
            return self._from_nothing(drawing)
        if drawing.strength == 0.0:
            return drawing.canvas
        return self._from_canvas(drawing, drawing.canvas)

    def _from_nothing(self, drawing: Drawing) -> Tensor:
        g = self.plan.geometry
        noise = self._noise(drawing)
        sizes = {"height": g.height, "width": g.width, "num_inference_steps": drawing.steps}
        found = self._call("text", drawing, noise, {"latents": noise, **sizes})
        return checked_picture(found * 0.5 + 0.5, drawing.frame)  # as tensors they are given in -1..1

    def _from_canvas(self, drawing: Drawing, canvas: Tensor) -> Tensor:
        g = self.plan.geometry
        options = {
            "image": canvas,
            "strength": drawing.strength,
            "num_inference_steps": enough_steps(drawing.steps, drawing.strength),
            # this pipeline hands them on in the other order
            "height": g.width,
            "width": g.height,
        }
        found = self._call("image", drawing, self._noise(drawing), options)
        return checked_picture(found, drawing.frame)

    def _noise(self, drawing: Drawing) -> Tensor:
        g, model = self.plan.geometry, self.model
        noise = drawing.seeds.noise((model.card.latent_channels, g.rows, g.columns))
        return (noise * drawing.noise_multiplier).to(model.device, model.dtype)

    def _call(self, task: Task, drawing: Drawing, noise_BCYX: Tensor, options: dict[str, Any]) -> Tensor:
        pipe = self.model.pipeline(task, drawing.solver)
        with torch.inference_mode(), given_noise(pipe.scheduler, noise_BCYX):
            images: Tensor = pipe(
                **options,
                **self._embeds.at(drawing.frame),
                guidance_scale=self.plan.sampling.guidance[drawing.frame],
                generator=generator(drawing.seeds.stream, "drawing"),
                output_type="pt",
            ).images
        return images
