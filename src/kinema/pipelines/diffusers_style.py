"""`KinemaPipeline`: the call that users of diffusers know, over the same plan, sampler and decoder.

    pipe = KinemaPipeline.from_pretrained("embedded").to("cuda")
    frames = pipe(prompt="a rooster", num_frames=17, generator=torch.Generator().manual_seed(1)).frames[0]

Names and meanings are those of diffusers' `WanPipeline` and `WanImageToVideoPipeline`; with the same
generator and checkpoint the frames are the same too. Videos of a batch are made one after the other, so
memory does not grow with their number, and a callback is called for each step of each of them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import ConfigError, ModelError, unknown_name
from kinema.core.runtime import DTYPES, resolve_device
from kinema.diffusion.flow import timesteps
from kinema.diffusion.sampler import SamplerState
from kinema.models.experts import Experts
from kinema.pipelines.conditioning import Conditions, condition
from kinema.pipelines.diffusers_extras import Adapters, PipelineExtras
from kinema.pipelines.diffusers_values import (
    FORMATS,
    Generators,
    OutputType,
    Picture,
    keyframes_of,
    prompt_pairs,
    seeds_of,
)
from kinema.pipelines.loading import load
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Plan
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import chunks, denoise, shown_latents
from kinema.story.shot import Shot

log = logging.getLogger(__name__)

Callback = Callable[["KinemaPipeline", int, Tensor, dict[str, Tensor]], Mapping[str, Tensor] | None]


class KinemaPipelineOutput(NamedTuple):
    """What a call gives.

    Attributes:
        frames: "np" float32 `[B, F, H, W, 3]` in 0..1; "pil" a list of images per video;
            "pt" `[B, F, 3, H, W]` in 0..1; "latent" `[B, C, T, Y, X]`.
    """

    frames: Any


class _Turn(Exception):
    """Leaves the loop after a step, with where it stands."""

    def __init__(self, state: SamplerState) -> None:
        self.state = state


class KinemaPipeline(PipelineExtras):
    """A loaded checkpoint with diffusers' call.

    Args:
        model: what `kinema.load` returned.
    """

    _callback_tensor_inputs = ("latents",)

    def __init__(self, model: Model) -> None:
        self.model = model
        self._interrupt = False
        self._guidance_scale = model.card.defaults.guidance
        self._num_timesteps = 0
        self._current_timestep: Tensor | None = None
        self._progress_bar: dict[str, Any] = {}
        self._adapters = Adapters()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path = "embedded",
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        memory: str = "whole",
    ) -> Self:
        """Load "embedded", a folder in diffusers layout, or a hub id, to the CPU.

        Args:
            pretrained_model_name_or_path: what to load.
            dtype: of the transformer and the encoders; float32 when left out. The VAE stays in float32.
            torch_dtype: the older name of `dtype`.
            local_files_only: never ask the hub.
            revision: of a hub id: a branch, a tag or a commit.
            memory: what is in memory at a time: `whole`, `component` or `block`.

        Raises:
            ModelError: nothing is there, files are missing or damaged, or pickled.
        """
        given = dtype if dtype is not None else torch_dtype
        name = "float32" if given is None else str(given).removeprefix("torch.")
        if name not in DTYPES:
            raise unknown_name("dtype", name, DTYPES)
        where = f"{pretrained_model_name_or_path}{'' if revision is None else f'@{revision}'}"
        model = load(where, device="cpu", dtype=name, local_files_only=local_files_only, memory=memory)
        if not isinstance(model, Model):
            raise ModelError(f"{where!r} runs in its own pipeline of diffusers; load it there.")
        return cls(model)

    def to(self, *targets: str | torch.device | torch.dtype) -> Self:
        """Move to a device, change the transformer's dtype, or both; in place."""
        for target in targets:
            if isinstance(target, torch.dtype):
                self.model.to(dtype=target)
            else:
                self.model.to(device=resolve_device(str(target)))
        return self

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the tqdm bar, such as `disable=True`."""
        self._progress_bar = options

    @property
    def components(self) -> dict[str, Any]:
        """The parts by their names in `model_index.json`."""
        model = self.model
        parts: dict[str, Any] = {"transformer": model.dit, "vae": model.vae, "text_encoder": model.text}
        if isinstance(model.dit, Experts):
            parts |= {"transformer": model.dit.high, "transformer_2": model.dit.low}
        return parts if model.image is None else {**parts, "image_encoder": model.image}

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer."""
        return self.model.dtype

    @property
    def guidance_scale(self) -> float:
        """Of the call in progress, or the last one."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is asked too."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the call in progress, or the last one."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Timestep (0..1000) of the step in progress; None between calls."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to stop after its step; what there is is decoded."""
        return self._interrupt

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        image: Picture | None = None,
        last_image: Picture | None = None,
        max_sequence_length: int | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> KinemaPipelineOutput | tuple[Any]:
        """Make videos; what is left out takes the checkpoint's default.

        Args:
            prompt: one, or one for each video; `(word:1.3)` weighs words.
            negative_prompt: one for all, or one for each.
            height, width: pixels; without them a picture keeps its shape.
            num_frames: a length the model cannot do is rounded up and trimmed.
            num_inference_steps, guidance_scale: of the sampler; a scale up to 1 turns guidance off.
            guidance_scale_2: of the second transformer, in models that have two; by default the first's.
            num_videos_per_prompt: how many of each.
            generator: draws the noise; one for all, or one for each video.
            latents: the noise itself, `[B, C, T, Y, X]`.
            image, last_image: what the first and last frames show; stretched to the size.
            max_sequence_length: text tokens kept.
            output_type: "np", "pil", "pt" or "latent".
            return_dict: False gives a plain tuple.
            callback_on_step_end: `(pipe, step, timestep, {"latents": x})` after every step; it may return
                other latents under the same name.
            callback_on_step_end_tensor_inputs: names it is given; only "latents" exists.

        Returns:
            `KinemaPipelineOutput`, or the tuple `(frames,)`.

        Raises:
            KinemaError: what is asked for does not fit the model or itself.
        """
        if stray := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise unknown_name("callback tensor", sorted(stray)[0], self._callback_tensor_inputs)
        if output_type not in FORMATS:
            raise unknown_name("output_type", output_type, FORMATS)
        fields: dict[str, Any] = {
            "height": height,
            "width": width,
            "frames": num_frames,
            "steps": num_inference_steps,
            "guidance": _not_below_1(guidance_scale),
            "guidance_low": self._low_scale(guidance_scale, guidance_scale_2),
            "length_fit": num_frames is not None,
            "fit": "stretch",
            "loras": self._adapters.of_shot(),
            "weights": self.model.weights,
        }
        names = callback_on_step_end_tensor_inputs
        watch = None if callback_on_step_end is None else _Watch(self, callback_on_step_end, tuple(names))
        self._interrupt = False
        with tempfile.TemporaryDirectory(prefix="kinema-") as folder:
            fields["keyframes"] = keyframes_of(image, last_image, Path(folder))
            texts = prompt_pairs(prompt, negative_prompt, num_videos_per_prompt)
            seeds = seeds_of(generator, len(texts))
            plans = [self._plan(pair, seed, fields) for pair, seed in zip(texts, seeds, strict=True)]
            noise = self._noise(plans, generator, latents)
            videos = [
                self._video(plan, one, max_sequence_length, watch, output_type)
                for plan, one in zip(plans, noise, strict=True)
            ]
        self._current_timestep = None
        frames = FORMATS[output_type].join(videos)
        return KinemaPipelineOutput(frames) if return_dict else (frames,)

    def _low_scale(self, scale: float | None, low: float | None) -> float | None:
        """The second transformer's: the first's unless given; 1 where the first is 1, as in diffusers."""
        if self.model.card.boundary is None or (low is not None and (scale is None or scale > 1)):
            return low
        return _not_below_1(scale)

    def _plan(self, texts: tuple[str, str], seed: int | None, fields: Mapping[str, Any]) -> Plan:
        prompt, negative = texts
        shot = Shot.make(model=self.model.card.id, prompt=prompt, negative=negative, seed=seed, **fields)
        plan = make_plan(shot, self.model.card)
        for note in plan.notes:
            log.warning(note)
        return plan

    def _noise(
        self, plans: Sequence[Plan], generator: Generators | None, latents: Tensor | None
    ) -> Sequence[Tensor | None]:
        """Each video's noise `[1, C, T, Y, X]`; None leaves it to the plan's seed."""
        g, count = plans[0].geometry, len(plans)
        shape = (self.model.card.latent_channels, g.latent_frames, g.rows, g.columns)
        if latents is not None:
            if len(latents) != count:
                raise ConfigError(f"latents are for {len(latents)} videos and {count} are asked for.")
            return torch.split(latents, 1)
        if generator is None:
            return [None] * count
        if isinstance(generator, torch.Generator):
            together = torch.randn((count, *shape), generator=generator, device=generator.device)
            return torch.split(together, 1)
        return [torch.randn((1, *shape), generator=g, device=g.device) for g in generator]

    def _video(
        self,
        plan: Plan,
        noise_BCTYX: Tensor | None,
        max_length: int | None,
        watch: _Watch | None,
        output_type: OutputType,
    ) -> Any:
        conditions = condition(plan, self.model, noise_BCTYX=noise_BCTYX, max_length=max_length)
        self._num_timesteps = len(conditions.table_SBT) - 1
        self._guidance_scale = max(plan.sampling.guidance)
        with tqdm(total=self._num_timesteps, **self._progress_bar) as bar:
            x_BCTYX = self._denoised(plan, conditions, watch, lambda event: _draw(bar, event))
        shown = shown_latents(conditions, x_BCTYX)
        if output_type == "latent":
            return shown
        pieces = list(chunks(self.model.vae, shown, lambda _: None))
        frames_BCFHW = torch.cat(pieces, dim=2)[:, :, : plan.geometry.keep]
        return FORMATS[output_type].convert(frames_BCFHW)

    def _denoised(
        self, plan: Plan, conditions: Conditions, watch: _Watch | None, on_progress: OnProgress
    ) -> Tensor:
        """The loop; left after a step when the callback changed the latents, and entered again with those."""
        state: SamplerState | None = None
        while True:
            on_state = None if watch is None else watch.after(plan, conditions)
            try:
                return denoise(plan, self.model, conditions, on_progress, state=state, on_state=on_state)
            except _Turn as turn:
                state = turn.state
                if self._interrupt:
                    return state.x_BCTYX


def _not_below_1(scale: float | None) -> float | None:
    """diffusers asks the prompt alone at any scale up to 1; ours would lean to the negative one below it."""
    return None if scale is None else max(1.0, scale)


class _Watch(NamedTuple):
    """A callback, and what it wants to see."""

    pipe: KinemaPipeline
    callback: Callback
    names: tuple[str, ...]

    def after(self, plan: Plan, conditions: Conditions) -> Callable[[SamplerState], None]:
        """What to call after each step; it raises `_Turn` where the loop must not simply go on."""
        s, table_SBT = plan.sampling, conditions.table_SBT

        def call(state: SamplerState) -> None:
            step = state.index - 1
            timestep = timesteps(table_SBT[step].amax(), s.steps, s.shift, s.grid)
            self.pipe._current_timestep = timestep
            shown = dict.fromkeys(self.names, state.x_BCTYX)
            returned = self.callback(self.pipe, step, timestep, shown) or {}
            latents = returned.get("latents", state.x_BCTYX)
            if self.pipe.interrupt or latents is not state.x_BCTYX:
                raise _Turn(replace(state, x_BCTYX=latents.to(state.x_BCTYX)))

        return call


def _draw(bar: Any, event: Progress) -> None:
    if event.phase == "denoise":
        bar.update(event.step - bar.n)
