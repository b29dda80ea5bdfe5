"""The generator under judgement: a transformer, its codec and text encoder, sampled by guided Euler steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from kinema.core.errors import GeometryError, ModelError
from kinema.core.runtime import frame_noise
from kinema.diffusion.flow import TIMESTEPS, noisy, sigmas, table
from kinema.diffusion.guidance import inside
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.step import Step, Velocity
from kinema.evaluation.prompts import Prompt
from kinema.models.codec import PatchCodec
from kinema.models.dit import Context, VideoDiT, VideoDiTConfig
from kinema.models.text import EmbeddedTextEncoder
from kinema.pipelines.model import load
from kinema.training.blends import finished
from kinema.training.captions_cache import CaptionCache
from kinema.training.dit import TextSource, conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How clips are sampled; fixed before anything is judged.

    Attributes:
        steps: Euler steps, two calls of the network each.
        guidance: classifier-free guidance of text to video.
        held_guidance: the same where the first frame is given.
        interval: the noise levels at which there is guidance.
        shift: of the noise levels.
        batch: clips at a time.
        grid: the levels' spacing, a name of `flow.GRIDS`.
        solver: a name of `diffusion.solvers`.
        bf16: run the transformer in bfloat16, as it was trained; float32 otherwise.
        level: where clips begin: 1 is noise; below, real clips are noised that far, which tells at what
            levels a model goes wrong.
    """

    steps: int = 24
    guidance: float = 3.0
    held_guidance: float = 2.0
    shift: float = 1.0
    batch: int = 8
    bf16: bool = True
    grid: str = "wan-euler"
    solver: str = "euler"
    interval: tuple[float, float] = (0.0, 1.0)
    level: float = 1.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged.

    Attributes:
        model: the transformer, in evaluation mode.
        codec: what makes frames of its latents.
        text: what makes token states of prompts.
    """

    model: VideoDiT
    codec: PatchCodec
    text: TextSource

    @torch.no_grad()
    def clips(
        self,
        prompts: Sequence[Prompt],
        shape_FHW: tuple[int, int, int],
        sampling: Sampling,
        first_BCFHW: Tensor | None = None,
        held: Mapping[int, Tensor] | None = None,
        towards: Sequence[str] | None = None,
        begin_BCFHW: Tensor | None = None,
    ) -> Tensor:
        """One clip per prompt, `[B, 3, F, H, W]` in -1..1.

        Args:
            prompts: what to ask for, and the seeds.
            shape_FHW: frames, height and width.
            sampling: how.
            first_BCFHW: frames `[B, 3, 1, H, W]` in -1..1 that are held as frame 0.
            held: latent frames `[B, C, 1, Y, X]` by number that are held.
            towards: prompts that take over evenly from the first latent frame to the last.
            begin_BCFHW: what is noised up to `sampling.level`, where that is below 1.
        """
        held = dict(held or {}) | ({} if first_BCFHW is None else {0: self.codec.encode(first_BCFHW)})
        begin_BCTYX = None if begin_BCFHW is None else self.codec.encode(begin_BCFHW)
        parts = []
        for start in range(0, len(prompts), sampling.batch):
            chosen = slice(start, start + sampling.batch)
            known = {number: latent[chosen] for number, latent in held.items()}
            after = None if towards is None else towards[chosen]
            start_BCTYX = None if begin_BCTYX is None else begin_BCTYX[chosen]
            latents_BCTYX = self._latents(prompts[chosen], shape_FHW, sampling, known, after, start_BCTYX)
            parts.append(self.codec.decode(latents_BCTYX))
        return torch.cat(parts)

    def _latents(
        self,
        prompts: Sequence[Prompt],
        shape_FHW: tuple[int, int, int],
        sampling: Sampling,
        held: Mapping[int, Tensor],
        towards: Sequence[str] | None,
        begin_BCTYX: Tensor | None,
    ) -> Tensor:
        frames, height, width = shape_FHW
        stride = self.codec.stride
        if (frames - 1) % stride.time:
            raise GeometryError(f"frames={frames} is not 1 + a multiple of {stride.time}; use 17.")
        shape_CYX = (self.codec.latent_channels, height // stride.space, width // stride.space)
        latent_frames = 1 + (frames - 1) // stride.time
        x_BCTYX = torch.cat([frame_noise(prompt.seed, shape_CYX, latent_frames) for prompt in prompts])
        caps_BT = torch.full((len(prompts), latent_frames), sampling.level)
        if begin_BCTYX is not None:
            x_BCTYX = noisy(begin_BCTYX, x_BCTYX, caps_BT)
        for number, latent_BC1YX in held.items():
            x_BCTYX[:, :, number : number + 1], caps_BT[:, number] = latent_BC1YX, 0
        guidance = sampling.held_guidance if held else sampling.guidance
        asked = self._asked([prompt.text for prompt in prompts], towards, latent_frames)
        velocity = self._velocity(asked, len(prompts), guidance, sampling)
        grid_S = sampling.level * sigmas(sampling.steps, sampling.shift, sampling.grid)
        levels_SBT = table(grid_S, caps_BT)
        return sample(velocity, x_BCTYX, levels_SBT, solver(sampling.solver))

    def _asked(self, captions: Sequence[str], towards: Sequence[str] | None, frames: int) -> Context:
        """The prompts, or two for each clip whose shares change evenly over the latent frames."""
        if towards is None:
            return self.model.prepare(conditioning(self.text(captions)))
        share_T = torch.linspace(0, 1, frames)
        weights_BTK = torch.stack([1 - share_T, share_T], dim=1).expand(len(captions), -1, -1)
        return self.model.prepare(conditioning(self.text([*captions, *towards]), weights_BTK))

    def _velocity(self, asked: Context, count: int, guidance: float, sampling: Sampling) -> Velocity:
        """`u + guidance (v - u)`, where u has the empty prompt (https://arxiv.org/abs/2207.12598)."""
        empty = self.model.prepare(conditioning(self.text([""] * count)))

        def velocity(x_BCTYX: Tensor, step: Step) -> Tensor:
            timestep_BT = TIMESTEPS * step.sigma_BT
            with torch.autocast("cpu", torch.bfloat16, enabled=sampling.bf16):
                v_BCTYX = self.model(x_BCTYX, timestep_BT, asked).float()
                if guidance == 1 or not bool(inside(step, sampling.interval).any()):
                    return v_BCTYX
                u_BCTYX = self.model(x_BCTYX, timestep_BT, empty).float()
            return u_BCTYX + guidance * (v_BCTYX - u_BCTYX)

        return velocity


def open_subject(model: Path, *, config: Path, codec: Path | None, text: Path) -> Subject:
    """A shipped model's folder, or a training run's checkpoint with its averaged weights.

    Args:
        model: a folder with `model_index.json`, or a safetensors file that `scripts/train_embedded.py` wrote.
        config: the YAML file with the checkpoint's `model` section.
        codec: the checkpoint's codec; with a folder it replaces the folder's own.
        text: folder with `text_encoder/` and `tokenizer/`, for a checkpoint.
    """
    if model.is_dir():
        shipped = load(str(model), device="cpu", dtype="float32", local_files_only=True)
        vae = shipped.vae if codec is None else PatchCodec.from_folder(codec)
        dit = shipped.dit
        if not (
            isinstance(dit, VideoDiT)
            and isinstance(vae, PatchCodec)
            and isinstance(shipped.text, EmbeddedTextEncoder)
        ):
            raise ModelError(f"{model} is not an embedded model; only those have judges.")
        return Subject(dit, vae, CaptionCache(shipped.text))
    if codec is None:
        raise ModelError(f"{model} is a checkpoint and brings no codec; name its folder with --codec.")
    encoder = EmbeddedTextEncoder.from_folder(text)
    return Subject(averaged(model, config), PatchCodec.from_folder(codec), CaptionCache(encoder))


def averaged(checkpoint: Path, config: Path) -> VideoDiT:
    """The transformer of a checkpoint with its averaged weights, ready to sample."""
    section = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
    model = VideoDiT(VideoDiTConfig.from_mapping(section))
    weights = finished(checkpoint)
    needed = {name for name, _ in model.named_parameters()}
    if needed != weights.keys():
        stray = sorted(needed ^ weights.keys())
        raise ModelError(
            f"{checkpoint}: {len(stray)} weights do not fit {config}, {stray[:1]} first; "
            "name the config that it was trained with."
        )
    model.load_state_dict(weights, strict=False)  # buffers are computed, not learned
    return model.requires_grad_(False).eval()
