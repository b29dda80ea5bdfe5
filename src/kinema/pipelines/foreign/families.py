"""Video pipelines of diffusers that kinema calls: what each can be asked, and by which names, as a table.

A family is known by the class in `model_index.json`. What it can be asked follows from its calls (the classes
of diffusers that run on its parts), whose arguments are read from the installed diffusers (`signature`), so
that this table holds only what a signature does not say. Sizes come from the parts' configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kinema.pipelines.card import Mode
from kinema.pipelines.diffusers_solvers import OWN_SOLVER, VP_SOLVERS, Config

if TYPE_CHECKING:
    from kinema.models.lora_keys import Text

Role = Literal["prompt", "negative", "image", "clip", "strength", "frames", "fps", "guidance", "rescale"]

USUAL: Mapping[Role, str] = {
    "prompt": "prompt",
    "negative": "negative_prompt",
    "image": "image",
    "clip": "video",
    "strength": "strength",
    "frames": "num_frames",
    "guidance": "guidance_scale",
    "rescale": "guidance_rescale",
}
"""How diffusers' video pipelines name what a shot says, unless a call says otherwise."""

COG_SOLVERS: Mapping[str, tuple[str, Config]] = {
    "ddim": ("CogVideoXDDIMScheduler", {}),
    "dpm": ("CogVideoXDPMScheduler", {}),
}
FLOW_SOLVERS: Mapping[str, tuple[str, Config]] = {"euler": ("FlowMatchEulerDiscreteScheduler", {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One of diffusers' pipeline classes.

    Attributes:
        name: of the class.
        module: below `diffusers.pipelines`.
        modes: what it serves, of `card.MODES`.
        names: arguments that are called otherwise than in `USUAL`.
        pictures: how held pictures are told: not at all, as one first frame, as conditions at frames, or in
            a clip with a mask that closes their frames.
    """

    name: str
    module: str
    modes: frozenset[Mode]
    names: Mapping[Role, str] = field(default_factory=dict)
    pictures: Literal["none", "first", "frames", "masked"] = "none"

    def argument(self, role: Role) -> str | None:
        """What the pipeline calls it."""
        return self.names.get(role, USUAL.get(role))


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Pipelines that share a kind of checkpoint.

    Attributes:
        title: for people.
        calls: by the class that `model_index.json` names, the classes that run on such a checkpoint.
        denoiser: the part that is called in every step.
        multiple, divisor: sizes must be multiples of this many latents, and of this many pixels.
        size, frames, fps, steps, guidance: what its makers' examples use.
        size_keys, frames_key: entries of the denoiser's configuration (sizes in latents) that say otherwise.
        ramp: guidance over the clip, first and last frame, where the pipeline has one scale for each.
        solvers: schedulers by name beside the checkpoint's own.
        shift: the scheduler's own name for the shift of its grid; empty where it has none.
        options: arguments without a number as default that may be given all the same.
        extra: what makes a negative prompt act, where guidance is an input of the network.
        travel: prompts may change over frames (FreeNoise), and clips may be longer than the model.
        control: the argument that says how firmly a control clip is followed; empty where it reads none.
        fine_vae: the VAE is kept in float32, whatever the precision.
        tiled: large pictures pass the VAE in overlapping tiles, as in its makers' examples.
        layout: axes of the latents that its pipelines step.
        loras: whose names LoRAs of the denoiser may use beside its own, of `lora_names.NAMINGS`; empty where
            diffusers' pipeline takes none.
        text_loras: text encoders that LoRAs may change too.
    """

    title: str
    calls: Mapping[str, tuple[Call, ...]]
    denoiser: Literal["transformer", "unet"]
    multiple: int
    divisor: int
    size: tuple[int, int]
    frames: int
    fps: str
    steps: int
    guidance: float
    size_keys: tuple[str, str] | None = None
    frames_key: str = ""
    ramp: tuple[float, float] | None = None
    solvers: Mapping[str, tuple[str, Config]] = field(default_factory=lambda: FLOW_SOLVERS)
    shift: str = ""
    options: tuple[str, ...] = ()
    extra: str = ""
    travel: bool = False
    control: str = ""
    fine_vae: bool = False
    tiled: bool = False
    layout: Literal["B C T Y X", "B T C Y X"] = "B C T Y X"
    loras: str = ""
    text_loras: tuple[Text, ...] = ()

    @property
    def solver_names(self) -> tuple[str, ...]:
        """What `--solver` may say."""
        return (OWN_SOLVER, *self.solvers)


TEXT: frozenset[Mode] = frozenset({"text"})
TEXT_OR_STILL: frozenset[Mode] = frozenset({"text", "image"})
PICTURE: frozenset[Mode] = frozenset({"first", "extend"})
CLIP: frozenset[Mode] = frozenset({"video"})
HELD: frozenset[Mode] = frozenset({"first", "last", "keyframes", "extend"})
PLACES: frozenset[Mode] = HELD | {"strength"}

_LTX_FPS: Mapping[Role, str] = {"fps": "frame_rate"}
_LTX = (
    Call(name="LTXPipeline", module="ltx.pipeline_ltx", modes=TEXT_OR_STILL, names=_LTX_FPS),
    Call(
        name="LTXImageToVideoPipeline",
        module="ltx.pipeline_ltx_image2video",
        modes=PICTURE,
        names=_LTX_FPS,
        pictures="first",
    ),
)
_LTX_CONDITION = (
    Call(
        name="LTXConditionPipeline",
        module="ltx.pipeline_ltx_condition",
        modes=TEXT_OR_STILL | PLACES,
        names=_LTX_FPS,
        pictures="frames",
    ),
)
_COG = (
    Call(name="CogVideoXPipeline", module="cogvideo.pipeline_cogvideox", modes=TEXT_OR_STILL),
    Call(name="CogVideoXVideoToVideoPipeline", module="cogvideo.pipeline_cogvideox_video2video", modes=CLIP),
)
_COG_PICTURE = (
    Call(
        name="CogVideoXImageToVideoPipeline",
        module="cogvideo.pipeline_cogvideox_image2video",
        modes=PICTURE,
        pictures="first",
    ),
)
_ANIMATEDIFF = (
    Call(name="AnimateDiffPipeline", module="animatediff.pipeline_animatediff", modes=TEXT),
    Call(
        name="AnimateDiffVideoToVideoPipeline",
        module="animatediff.pipeline_animatediff_video2video",
        modes=CLIP,
    ),
)
_SVD = Call(
    name="StableVideoDiffusionPipeline",
    module="stable_video_diffusion.pipeline_stable_video_diffusion",
    modes=PICTURE,
    names={"guidance": "max_guidance_scale", "fps": "fps"},
    pictures="first",
)

FAMILIES: tuple[Family, ...] = (
    Family(
        title="LTX-Video",
        calls={
            "LTXPipeline": _LTX,
            "LTXImageToVideoPipeline": _LTX,
            "LTXConditionPipeline": _LTX_CONDITION,
        },
        denoiser="transformer",
        multiple=1,
        divisor=32,
        size=(704, 512),
        frames=161,
        fps="25",
        steps=50,
        guidance=3.0,
        options=("decode_noise_scale",),
        loras="ltx",
    ),
    Family(
        title="CogVideoX",
        calls={
            "CogVideoXPipeline": _COG,
            "CogVideoXVideoToVideoPipeline": _COG,
            "CogVideoXImageToVideoPipeline": _COG_PICTURE,
        },
        denoiser="transformer",
        multiple=2,
        divisor=8,
        size=(720, 480),
        frames=49,
        fps="8",
        steps=50,
        guidance=6.0,
        size_keys=("sample_width", "sample_height"),
        frames_key="sample_frames",
        solvers=COG_SOLVERS,
        tiled=True,
        loras="same",
        layout="B T C Y X",
    ),
    Family(
        title="HunyuanVideo",
        calls={
            "HunyuanVideoPipeline": (
                Call(
                    name="HunyuanVideoPipeline",
                    module="hunyuan_video.pipeline_hunyuan_video",
                    modes=TEXT_OR_STILL,
                ),
            )
        },
        denoiser="transformer",
        multiple=2,
        divisor=16,
        size=(1280, 720),
        frames=129,
        fps="24",
        steps=50,
        guidance=6.0,
        shift="shift",
        extra="true_cfg_scale",
        tiled=True,
        loras="hunyuan",
    ),
    Family(
        title="Mochi",
        calls={
            "MochiPipeline": (Call(name="MochiPipeline", module="mochi.pipeline_mochi", modes=TEXT_OR_STILL),)
        },
        denoiser="transformer",
        multiple=2,
        divisor=8,
        size=(848, 480),
        frames=85,
        fps="30",
        steps=64,
        guidance=4.5,
        tiled=True,
        loras="mochi",
    ),
    Family(
        title="AnimateDiff",
        calls={"AnimateDiffPipeline": _ANIMATEDIFF, "AnimateDiffVideoToVideoPipeline": _ANIMATEDIFF},
        denoiser="unet",
        multiple=1,
        divisor=8,
        size=(512, 512),
        frames=16,
        fps="8",
        steps=25,
        guidance=7.5,
        size_keys=("sample_size", "sample_size"),
        solvers=VP_SOLVERS,
        travel=True,
        loras="same",
        text_loras=("text",),
    ),
    Family(
        title="Stable Video Diffusion",
        calls={"StableVideoDiffusionPipeline": (_SVD,)},
        denoiser="unet",
        multiple=8,
        divisor=8,
        size=(1024, 576),
        frames=14,
        fps="7",
        steps=25,
        guidance=3.0,
        frames_key="num_frames",
        ramp=(1.0, 3.0),
        solvers={},
        options=("decode_chunk_size",),
        layout="B T C Y X",
    ),
    Family(
        title="Wan VACE",
        calls={
            "WanVACEPipeline": (
                Call(
                    name="WanVACEPipeline",
                    module="wan.pipeline_wan_vace",
                    modes=TEXT_OR_STILL | HELD,
                    pictures="masked",
                ),
            )
        },
        denoiser="transformer",
        multiple=2,
        divisor=16,
        size=(832, 480),
        frames=81,
        fps="16",
        steps=50,
        guidance=5.0,
        solvers={},
        shift="flow_shift",
        control="conditioning_scale",
        fine_vae=True,
        loras="wan",
    ),
)

CLASSES: Mapping[str, Family] = {name: family for family in FAMILIES for name in family.calls}
"""The family of a pipeline's class."""
