"""A plan: a shot for one model, in numbers, texts and file names only; its digest names a render."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kinema.core.contracts import AttentionGuidance
from kinema.pipelines.camera.plan import CameraPlan
from kinema.pipelines.control import ControlPlan
from kinema.pipelines.frame_by_frame.plan import (
    RedrawPlan,
)
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.given import Given
from kinema.pipelines.speed.tiers import Tier
from kinema.pipelines.unclip.look import LookPlan
from kinema.pipelines.windows import Cover
from kinema.story.own_options import Options
from kinema.story.redraw import Mode
from kinema.story.shortcuts import Shortcuts

AFTERWARDS = ("interpolate", "upscale")  # settings of a shot that its own frames know nothing of

Spans = tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Prompts as weighted spans, and the share of each in every latent frame (rows sum to 1)."""

    spans: tuple[Spans, ...]
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """Guidance away from the transformer without some blocks, at noise levels of an interval.

    Attributes:
        layers: which blocks.
        scale: of the difference to a forward of its own; None where the negative side does without them.
        interval: noise levels, low and high.
    """

    layers: tuple[int, ...]
    scale: float | None
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the flow is followed.

    Attributes:
        seed: of all randomness.
        steps, solver, grid, shift: of the sampler.
        guidance: scale for each latent frame.
        guidance_low: the same below `boundary`, where a second transformer works; None for a single one.
        boundary: noise level from which the first of two transformers works.
        method, rescale, interval: of the guidance.
        blend: how prompts mix inside a frame.
        noise: `frames`, where each latent frame has its own, or `clip`, drawn at once as other programs do.
        shortcuts: what is not computed in every step; None for an exact run.
        nag: how far attention is led away from the negative prompt; None for not at all.
        skip: the blocks away from whose absence is guided; None for none.
    """

    seed: int
    steps: int
    solver: str
    grid: str
    shift: float
    guidance: tuple[float, ...]
    method: str
    rescale: float
    interval: tuple[float, float]
    blend: str
    guidance_low: tuple[float, ...] | None = None
    boundary: float | None = None
    noise: Literal["frames", "clip"] = "frames"
    shortcuts: Shortcuts | None = None
    nag: AttentionGuidance | None = None
    skip: Skip | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLora:
    """A LoRA as the loop uses it.

    Attributes:
        path: of the file.
        sha256: of its content.
        scale: one number, or one for each latent frame.
        expert: "both", or one of two transformers.
        merge: fold it into the weights.
    """

    path: str
    sha256: str
    scale: tuple[float, ...]
    expert: str
    merge: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the loop needs, and nothing else.

    Attributes:
        model: as the user called it.
        geometry: sizes in pixels and latents.
        sampling: solver and guidance.
        prompts, negatives: texts over latent frames.
        given: pictures and clips that the result must keep or start from.
        loras: files that change the model, with their scales.
        device, dtype: as asked for; resolved when the model loads.
        notes: what was rounded or moved, for the user to read.
        windows: how a clip longer than the model is covered; None where one forward sees all of it.
        shot: the resolved shot as JSON values, for the record.
        camera: how the camera moves; None where the shot has none.
        redraw: for mode `frame_by_frame`, the frames that are drawn; None where all are sampled jointly.
        begin: seconds of the clip since the shot's sound began.
        options: arguments of a pipeline of diffusers, by its own names.
        weights: how the transformer's matrices are kept: full, fp8 or int8.
        control: pictures that the frames follow; None where the shot has none.
        tier: what is done in place of the exact run; None for that.
        look: pictures that stand in for words; None where the shot has none.
    """

    model: str
    geometry: Geometry
    sampling: Sampling
    prompts: Prompts
    negatives: Prompts
    given: Given
    loras: tuple[PlannedLora, ...]
    device: str
    dtype: str
    notes: tuple[str, ...]
    windows: Cover | None
    shot: dict[str, Any]
    camera: CameraPlan | None = None
    redraw: RedrawPlan | None = None
    begin: float = 0.0
    options: Options = ()
    weights: str = "full"
    control: ControlPlan | None = None
    tier: Tier | None = None
    look: LookPlan | None = None

    @property
    def mode(self) -> Mode:
        """How its frames come about."""
        return "joint" if self.redraw is None else "frame_by_frame"

    @property
    def digest(self) -> str:
        """sha256 over the request and the content of the files it names; of the model, its name only.

        What is done to its frames afterwards is left out: they are the same without.
        """
        values = asdict(self)
        values["shot"] = {name: value for name, value in self.shot.items() if name not in AFTERWARDS}
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=_as_json).encode()).hexdigest()


def _as_json(settings: Shortcuts) -> dict[str, Any]:
    return settings.to_mapping(all_fields=True)
