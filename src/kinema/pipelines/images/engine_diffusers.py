"""A diffusers image model that draws single pictures: text to image, image to image, inpainting.

What kinema decides is given to the pipeline: mixed prompts, the noise, the scheduler, the strength, its parts
with their LoRAs on. The rest is the pipeline's own call.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import ModelError, NumericError
from kinema.core.runtime import generator
from kinema.pipelines.given import LEAST_CHANGE
from kinema.pipelines.images.engine import Drawing
from kinema.pipelines.images.guidance import FLUX, TRUE_CFG, true_cfg
from kinema.pipelines.images.loras import ImageLoras
from kinema.pipelines.images.model import ImageModel, Task, given_noise
from kinema.pipelines.images.solvers import TRAINED_STEPS
from kinema.pipelines.images.texts import ImageTexts
from kinema.pipelines.picture_track import PictureTrack
from kinema.pipelines.plan import Plan

HOLE_MARGIN = 8  # pixels that a hole is widened by: latents beside it have seen what fills it for now


class DiffusersImages:
    """Draws the pictures of a plan with an image model.

    Args:
        plan: whose prompts and guidance the pictures have.
        model: loaded for it.
    """

    def __init__(self, plan: Plan, model: ImageModel) -> None:
        self.plan, self.model = plan, model
        self._controls = None if plan.control is None else PictureTrack(plan.control.path, plan, "control")
        blend = plan.sampling.blend
        zeros = bool(getattr(model.pipe.config, "force_zeros_for_empty_prompt", False))
        loras = self._loras = ImageLoras(plan, model)
        self._positive = ImageTexts(plan.prompts, model, blend=blend, loras=loras)
        self._negative = None
        if any(map(self._has_negative, range(len(plan.sampling.guidance)))):
            self._negative = ImageTexts(plan.negatives, model, blend=blend, zeros=zeros, loras=loras)

    def draw(self, drawing: Drawing) -> Tensor:
        """The picture `[1, 3, H, W]`, 0..1, float32 on the CPU."""
        if drawing.canvas is None:
            return self._call("text", drawing, {})
        canvas = drawing.canvas
        if drawing.holes is not None:
            margin = 2 * HOLE_MARGIN + 1
            holes = F.max_pool2d(drawing.holes, margin, stride=1, padding=HOLE_MARGIN)
            canvas = self._inpainted(drawing, canvas, holes, 1.0)
        if drawing.strength == 0.0:
            return canvas
        if drawing.open is not None:
            return self._inpainted(drawing, canvas, (drawing.open > 0).float(), drawing.strength)
        if not (steps := self._steps(drawing, drawing.strength)):
            return canvas
        options = {"image": canvas, "strength": drawing.strength, "num_inference_steps": steps}
        return self._call("image", drawing, options)

    def _inpainted(self, drawing: Drawing, canvas: Tensor, open_B1HW: Tensor, strength: float) -> Tensor:
        if not bool(open_B1HW.any()) or not (steps := self._steps(drawing, strength)):
            return canvas
        options = {
            "image": canvas,
            "mask_image": self._whole_blocks(open_B1HW),
            "strength": strength,
            "num_inference_steps": steps,
        }
        drawn = self._call("inpaint", drawing, options)
        return canvas + open_B1HW * (drawn - canvas)

    def _steps(self, drawing: Drawing, strength: float) -> int:
        """Steps of the whole drawing; 0 where the strength is less than a step of its scheduler."""
        return enough_steps(drawing.steps, strength, self.model.most_steps(drawing.solver))

    def _whole_blocks(self, open_B1HW: Tensor) -> Tensor:
        """Open wherever any pixel of a latent's block is: the pipelines read one pixel of each."""
        g, size = self.plan.geometry, open_B1HW.shape[-2:]
        packed = 2 if self.model.kind.name == FLUX else 1
        blocks = F.adaptive_max_pool2d(open_B1HW, (g.rows // packed, g.columns // packed))
        return F.interpolate(blocks, size, mode="nearest")

    def _call(self, task: Task, drawing: Drawing, options: dict[str, Any]) -> Tensor:
        g, model = self.plan.geometry, self.model
        control = self.plan.control
        follows = None if control is None else control.model
        pipe = model.pipeline(task, drawing.solver, follows, grid=self.plan.sampling.grid)
        noise = (
            drawing.seeds.noise((model.card.latent_channels, g.rows, g.columns)) * drawing.noise_multiplier
        )
        noise = noise.to(model.device, model.dtype)
        common: dict[str, Any] = {
            "num_inference_steps": drawing.steps,
            "generator": generator(drawing.seeds.stream, "drawing"),
            "output_type": "pt",
        }
        if task != "image" or self.model.kind.flow:  # the others take the picture's own size
            common |= {"height": g.height, "width": g.width}
        if task == "text":
            common["latents"] = self._packed(pipe, noise)
        elif task == "inpaint" and options["strength"] == 1.0:
            common["latents"] = noise  # at full strength the picture is not noised, but left out
        worn = self._loras.on_network(drawing.frame)
        with torch.inference_mode(), worn, given_noise(pipe.scheduler, noise):
            out = pipe(
                **{**common, **self._texts(drawing.frame), **options, **self._followed(task, drawing.frame)}
            )
        return self._checked(out, drawing)

    def _followed(self, task: Task, frame: int) -> dict[str, Any]:
        """The control picture of a frame, and how firmly it is followed, by the pipeline's own names."""
        control = self.plan.control
        if control is None or self._controls is None:
            return {}
        return {
            "image" if task == "text" else "control_image": self._controls.at(frame),
            "controlnet_conditioning_scale": control.strength[frame],
            "control_guidance_start": control.start,
            "control_guidance_end": control.end,
        }

    def _texts(self, frame: int) -> dict[str, Any]:
        """Prompts and guidance of a frame, by the pipeline's own names."""
        scale = self.plan.sampling.guidance[frame]
        found: dict[str, Any] = {"guidance_scale": scale, **self._positive.at(frame)}
        if self._negative is None or not self._has_negative(frame):
            return found
        if self.model.kind.name == FLUX:
            found[TRUE_CFG] = true_cfg(self.plan.options)
        return found | {f"negative_{name}": value for name, value in self._negative.at(frame).items()}

    def _has_negative(self, frame: int) -> bool:
        """Whether the pipeline reads the other side of the guidance at a frame."""
        if self.model.kind.name == FLUX:
            return true_cfg(self.plan.options) > 1
        return self.plan.sampling.guidance[frame] > 1

    def _packed(self, pipe: Any, noise_BCYX: Tensor) -> Tensor:
        """Flux takes its latents as tokens of 2 by 2."""
        if self.model.kind.name != FLUX:
            return noise_BCYX
        packed: Tensor = pipe._pack_latents(noise_BCYX, *noise_BCYX.shape)
        return packed

    def _checked(self, out: Any, drawing: Drawing) -> Tensor:
        """The picture; a black one from a safety checker would be carried into every frame after it."""
        flagged = getattr(out, "nsfw_content_detected", None)
        if flagged is not None and any(flagged):
            raise ModelError(
                f"the checkpoint's own safety checker withheld frame {drawing.frame}; "
                "change the prompt or the seed."
            )
        return checked_picture(out.images, drawing.frame)


def checked_picture(picture_BCHW: Tensor, frame: int) -> Tensor:
    """The picture as float32 on the CPU, within 0..1.

    Raises:
        NumericError: it is not finite.
    """
    picture = picture_BCHW.float().cpu()
    if not bool(torch.isfinite(picture).all()):
        raise NumericError(f"frame {frame} is not finite; run with --dtype float32 or bfloat16.")
    return picture.clamp(0, 1)


def enough_steps(steps: int, strength: float, most: int = TRAINED_STEPS) -> int:
    """Steps of a whole drawing, so that the share of them that is done is at least one.

    The pipelines do `int(steps * strength)` of them, and stop with an error for none. No more than the model
    was trained with: below `LEAST_CHANGE` that is none.

    Args:
        steps: that were asked for.
        strength: share of them that is done, 0..1.
        most: that the scheduler has; 0 is returned where not one of these is done.
    """
    if int(steps * strength) >= 1:
        return steps
    strength = max(strength, LEAST_CHANGE)
    needed = math.ceil(1 / strength)
    needed = needed if int(needed * strength) >= 1 else needed + 1
    return needed if needed <= most else 0
