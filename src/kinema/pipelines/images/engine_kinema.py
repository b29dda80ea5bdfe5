"""A video model that draws single pictures: its transformer and VAE with one latent frame.

    x_s = (1 - s) canvas + s e        from s = strength down to 0

Where a mask keeps part of the picture, or opens a hole in it, every latent position has a level `c` of its
own from which on it is free (after Levin and Fried, "Differential diffusion", 2023):

    v = (x - canvas) / s   while s > c,    the network's velocity after

The first of these is the velocity whose clean estimate is the canvas itself, so any solver carries a kept
position along the path without knowing of masks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinema.core.contracts import Progress
from kinema.diffusion.flow import noisy, sigmas, table
from kinema.diffusion.guidance import Guided
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.step import Step, Velocity
from kinema.models.inference import Several
from kinema.models.text import TextStates
from kinema.pipelines.conditioning import Conditions
from kinema.pipelines.guiding import guidance, steered
from kinema.pipelines.images.engine import Drawing, Told
from kinema.pipelines.model import Model
from kinema.pipelines.network import Network, ready
from kinema.pipelines.plan import Plan, Prompts, Sampling
from kinema.pipelines.render import chunks, guarded
from kinema.pipelines.texts import Branch, branch_of, encoded
from kinema.pipelines.worn import Wardrobe, at_frame, worn

CACHED_TEXTS = 8
log = logging.getLogger(__name__)
_STEPS = "steps of drawn frames were not finite and were computed again in float32."
_PICTURES = "drawn frames were not finite and were decoded again in float32."


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A velocity that leads kept positions back to what they are.

    Attributes:
        velocity: the guided network.
        known_BCTYX: clean latents of the canvas.
        caps_BTYX: each position's level from which on it is free; 1 always, 0 never.
    """

    velocity: Velocity
    known_BCTYX: Tensor
    caps_BTYX: Tensor

    def __call__(self, x_BCTYX: Tensor, step: Step, /) -> Tensor:
        """The velocity, shaped like `x_BCTYX`."""
        sigma = rearrange(step.sigma_BT, "B T -> B 1 T 1 1").to(x_BCTYX)
        free = rearrange(self.caps_BTYX, "B T Y X -> B 1 T Y X").to(x_BCTYX) >= sigma - 1e-6
        back = (x_BCTYX - self.known_BCTYX) / sigma.clamp(min=1e-6)
        return torch.where(free, self.velocity(x_BCTYX, step), back)


class KinemaImages:
    """Draws the pictures of a plan with a video model.

    Args:
        plan: whose prompts and guidance the pictures have; one latent frame per pixel frame.
        model: loaded for it.
        told: told once of each thing that was dealt with, whatever frames it befell: lines that said which
            would be as many as frames, and others after a render was cut off.
    """

    def __init__(self, plan: Plan, model: Model, told: Told | None = None) -> None:
        self.plan, self.model = plan, model
        self._told, self._said = told or _logged, set[str]()
        self._fitted: Wardrobe = {}
        self._undressed: Several | None = None
        tell = partial(self._tell, 0)
        self._texts = [_Texts(side, plan, model, tell) for side in (plan.prompts, plan.negatives)]

    def draw(self, drawing: Drawing) -> Tensor:
        """The picture `[1, 3, H, W]`, 0..1, float32 on the CPU; where `open` is 0, close to the canvas."""
        loras = at_frame(self.plan.loras, drawing.frame)
        with torch.inference_mode(), worn(self.model.dit, loras, fitted=self._fitted):
            known, caps = self._canvas(drawing)
            top = drawing.strength if caps is None else float(caps.max())
            if top == 0.0:
                assert drawing.canvas is not None
                return drawing.canvas
            levels_S11 = levels(self.plan, drawing, top)[:, None, None]
            latents = self._sample(drawing, known, caps, levels_S11)
            return self._decode(latents, drawing.frame)

    def _canvas(self, drawing: Drawing) -> tuple[Tensor, Tensor | None]:
        """The canvas as latents, and each position's level; None where one level is for all."""
        g, model = self.plan.geometry, self.model
        if drawing.canvas is None:
            shape = (1, model.card.latent_channels, 1, g.rows, g.columns)
            return torch.zeros(shape, device=model.device), None
        pixels = rearrange(drawing.canvas * 2 - 1, "B C H W -> B C 1 H W").to(model.device)
        known = model.vae.encode(pixels).float()
        if drawing.open is None and drawing.holes is None:
            return known, None
        caps = torch.full((1, 1, g.rows, g.columns), drawing.strength)
        if drawing.open is not None:
            # A latent position that is open anywhere is redrawn; the seam is made in pixels.
            caps = caps * (F.adaptive_max_pool2d(drawing.open, (g.rows, g.columns)) > 0)
        if drawing.holes is not None:
            caps = torch.where(F.adaptive_max_pool2d(drawing.holes, (g.rows, g.columns)) > 0, 1.0, caps)
        return known, caps

    def _sample(self, drawing: Drawing, known: Tensor, caps: Tensor | None, levels_S11: Tensor) -> Tensor:
        g, model = self.plan.geometry, self.model
        noise = drawing.seeds.noise((model.card.latent_channels, g.rows, g.columns))
        noise = rearrange(noise, "B C Y X -> B C 1 Y X").to(known) * drawing.noise_multiplier
        low = self.plan.sampling.guidance_low
        sampling = replace(
            self.plan.sampling,
            steps=drawing.steps,
            solver=drawing.solver,
            seed=drawing.seeds.first,
            guidance=(self.plan.sampling.guidance[drawing.frame],),
            guidance_low=None if low is None else (low[drawing.frame],),
        )
        start = noise if drawing.canvas is None else noisy(known, noise, levels_S11[0])
        positive, negative = (texts.at(drawing.frame) for texts in self._texts)
        if sampling.nag is not None:
            positive = positive.led(negative, sampling.nag)
        conditions = Conditions(positive, negative, start, levels_S11)
        fast = self._ready(conditions, sampling)
        network = guarded(
            Network(model.dit, conditions, sampling, fast), lambda *_: self._tell(drawing.frame, _STEPS)
        )
        velocity: Velocity = Guided(network, steered(guidance(sampling, levels_S11), sampling))
        if caps is not None:
            velocity = Kept(velocity, known, caps)
        steady = solver(drawing.solver)
        return sample(velocity, start, levels_S11, steady, noise=drawing.seeds.between_steps())

    def _tell(self, frame: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._told(frame, text)

    def _ready(self, conditions: Conditions, sampling: Sampling) -> Several:
        """The transformer as it is dressed for this picture; without LoRAs, the same for all pictures."""
        if self.plan.loras:
            return ready(self.model, conditions, sampling)
        self._undressed = self._undressed or ready(self.model, conditions, sampling)
        return self._undressed

    def _decode(self, latents: Tensor, frame: int) -> Tensor:
        def heard(event: Progress) -> None:
            if event.note is not None:
                self._tell(frame, _PICTURES)

        frames_BC1HW = next(chunks(self.model.vae, latents, heard))
        return (
            rearrange(frames_BC1HW[:, :, :1], "B C 1 H W -> B C H W").float().add(1).div(2).clamp(0, 1).cpu()
        )


def _logged(frame: int, text: str) -> None:
    log.warning("frame %d: %s", frame, text)


def levels(plan: Plan, drawing: Drawing, top: float) -> Tensor:
    """The noise levels of a drawing, float32 `[S+1]`: those of the grid below `top`, and `top` before them.

    A drawing at strength s therefore takes about its share of the steps, and at least one. As in a clip that
    is made over (`flow.table`), no first step is shorter than a timestep.
    """
    grid = sigmas(drawing.steps, plan.sampling.shift, plan.sampling.grid)
    return table(grid, torch.tensor([[top]]))[:, 0, 0]


class _Texts:
    """One side of the guidance, read once, mixed for any frame."""

    def __init__(self, prompts: Prompts, plan: Plan, model: Model, tell: Callable[[str], None]) -> None:
        self.prompts, self.plan, self.model = prompts, plan, model
        self.states: TextStates = encoded(prompts, model, told=tell)
        self.mixed = lru_cache(CACHED_TEXTS)(self._mixed)  # prompts often stay for many frames

    def at(self, frame: int) -> Branch:
        """What the network reads at a pixel frame."""
        scales = tuple(lora.scale[0] for lora in at_frame(self.plan.loras, frame))
        return self.mixed(self.prompts.weights[frame], scales)

    def _mixed(self, weights_K: tuple[float, ...], scales: tuple[float, ...]) -> Branch:
        """Texts' keys and values, which are those of the transformer as it is dressed now."""
        weights_TK = torch.tensor([weights_K], dtype=torch.float32, device=self.model.device)
        return branch_of(self.states, weights_TK, self.model, blend=self.plan.sampling.blend)
