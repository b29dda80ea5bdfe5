"""`Shot`: everything that one clip is made from; the same for command line, Python, HTTP and a file's record.

Numbers and prompts may run over frames (`Schedule`, `PromptTrack`). What depends on the model (size, frames,
fps, steps, guidance, ...) is None until the plan fills it in with `with_`. What can be checked without a
model is checked here; the rest when the plan is made, before any weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    field_validator,
    model_validator,
)

from kinema.core.errors import ConfigError
from kinema.story.camera import AnyCamera, Camera
from kinema.story.control import Control
from kinema.story.lora import Lora, as_loras
from kinema.story.media import MediaPath
from kinema.story.own_options import Options
from kinema.story.positions import FramePosition
from kinema.story.post import Interpolate
from kinema.story.prompt_track import PromptTrack
from kinema.story.redraw import Mode, Redraw
from kinema.story.settings import Settings
from kinema.story.shortcuts import Shortcuts, Speed
from kinema.story.size import parse_size
from kinema.story.sound import Sound
from kinema.story.source import Source
from kinema.story.steering import Nag, SkipLayers
from kinema.story.timing import FrameRate
from kinema.story.tracks import Dialect, Schedule, reading
from kinema.story.transition import CUT, Transition
from kinema.story.upscale import Upscale
from kinema.story.window import Windows

PREVIOUS = "previous"
MAX_FRAMES = 100_000
MAX_SECONDS = 3600.0
MIN_SIDE, MAX_SIDE = 8, 16_384
MAX_SEED = 2**63 - 1
MIN_BPM, MAX_BPM = 10.0, 1000.0

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_AT = re.compile(
    r"(?P<path>.+)@(?P<place>[+-]?\d+(?:\.\d+)?[sb%]?|max_f(?: ?[-/] ?\d+)?)(?::(?P<strength>[+-]?[\d.]+))?",
    re.DOTALL,
)

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Grid = Literal[
    "wan", "wan-euler", "wan-dpm++", "diffusers", "diffusers-euler", "diffusers-dpm++",
    "trailing", "leading", "linspace",  # of image models
]  # fmt: skip


class Keyframe(Settings):
    """A picture that the clip shows at a frame; as text `a.png@12`, `a.png@2s:0.7`, `a.png` (frame 0)."""

    image: MediaPath = Field(title="Image", description="path of the picture")
    frame: FramePosition = Field(
        FramePosition.parse(0),
        title="Frame",
        description="frame, seconds (2s), share (50%), or -1 for the last",
        json_schema_extra={"default": 0},
    )
    strength: Unit = Field(
        1.0, title="Strength", description="1 holds the picture exactly; less leaves it freedom"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not (match := _AT.fullmatch(value)):
            if re.search(r"\.[A-Za-z]{2,5}@[^./\\]*$", value):
                raise ConfigError(
                    f"{value!r}: after @ comes a frame, 2s, 8b, 50% or -1, and then perhaps :strength."
                )
            return {"image": value}
        written = {"image": match["path"], "frame": match["place"]}
        return written | ({"strength": match["strength"]} if match["strength"] else {})


class Extend(Settings):
    """A clip that is carried on; from text: its path, or `previous` for the shot before in a storyboard."""

    path: MediaPath = Field(title="Clip", description="path of the video, or the word previous")
    context: int | None = Field(
        None,
        ge=1,
        le=1024,
        title="Context",
        description="latent frames of it that are held; by default the model's",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @property
    def previous(self) -> bool:
        """It carries on the shot before it in the storyboard, not a file."""
        return self.path == PREVIOUS


class Shot(Settings):
    """One clip, as it was asked for. Frozen; `shot.with_(seed=7)` gives a checked copy.

    `size="832x480"`, `"832*480"` or `[832, 480]` may be written for width and height. `seed=-1` is no seed.

    Raises:
        ConfigError: a value out of range, an unknown name, or two settings that exclude each other.
    """

    spoken: ClassVar[Mapping[str, str]] = {
        "num_frames": "frames", "frame_num": "frames", "max_frames": "frames", "length": "frames",
        "num_inference_steps": "steps", "sample_steps": "steps", "infer_steps": "steps",
        "guidance_scale": "guidance", "cfg": "guidance", "cfg_scale": "guidance",
        "sample_guide_scale": "guidance", "guidance_scale_2": "guidance_low",
        "negative_prompt": "negative", "n_prompt": "negative", "prompts": "prompt", "prompt_map": "prompt",
        "flow_shift": "shift", "sample_shift": "shift", "scheduler": "solver", "sampler": "solver",
        "sample_solver": "solver", "frame_rate": "fps", "duration": "seconds", "base_seed": "seed",
        "image": "keyframes", "images": "keyframes", "last_image": "keyframes", "video": "source",
        "torch_dtype": "dtype", "strength": "source", "model_path": "model", "ckpt_dir": "model",
        "music": "audio", "soundtrack": "audio", "audio_path": "audio", "tempo": "bpm",
    }  # fmt: skip
    outranked: ClassVar = frozenset({"model", "negative", "guidance_interval", "fit", "weights"})

    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=r"^[^/\\\x00-\x1f]+$",
        title="Name",
        description="of the shot",
    )
    model: str = Field(
        "embedded",
        min_length=1,
        max_length=4096,
        title="Model",
        description="embedded, a folder, or a hub id",
    )
    prompt: PromptTrack = Field(
        PromptTrack(""), title="Prompt", description="what the clip shows; one text, or texts by frame"
    )
    negative: PromptTrack = Field(
        PromptTrack(""), title="Negative prompt", description="what it should not show"
    )
    width: int | None = Field(None, ge=MIN_SIDE, le=MAX_SIDE, title="Width", description="pixels")
    height: int | None = Field(None, ge=MIN_SIDE, le=MAX_SIDE, title="Height", description="pixels")
    frames: int | None = Field(
        None, ge=1, le=MAX_FRAMES, title="Frames", description="length; 1 gives an image"
    )
    seconds: float | None = Field(
        None, gt=0.0, le=MAX_SECONDS, title="Seconds", description="length; in place of frames"
    )
    fps: FrameRate | None = Field(None, title="Frames per second", description="24, 29.97 or 30000/1001")
    seed: Annotated[int | None, AfterValidator(lambda seed: None if seed == -1 else seed)] = Field(
        None, ge=-1, le=MAX_SEED, title="Seed", description="same seed, same clip; none or -1 draws one"
    )
    steps: int | None = Field(None, ge=1, le=1000, title="Steps", description="sampling steps")
    solver: str | None = Field(
        None, min_length=1, max_length=64, title="Solver", description="see kinema models"
    )
    grid: Grid | None = Field(
        None, title="Noise grid", description="how the noise levels of the steps are spaced"
    )
    shift: float | None = Field(
        None,
        gt=0.0,
        le=1000.0,
        title="Shift",
        description="more than 1 spends more steps on layout, at high noise",
    )
    guidance: Schedule | None = Field(
        None, title="Guidance", description="how strongly the prompt acts; 1 is off; may run over frames"
    )
    guidance_low: Schedule | None = Field(
        None,
        title="Guidance at low noise",
        description="of the second transformer, in models that have two (Wan 2.2 A14B)",
    )
    guidance_rescale: Unit = Field(
        0.0, title="Guidance rescale", description="0..1: pulls the contrast back that strong guidance adds"
    )
    guidance_interval: tuple[Unit, Unit] = Field(
        (0.0, 1.0),
        title="Guidance interval",
        description="noise levels, low and high, between which guidance acts",
    )
    guidance_method: Literal["cfg", "cfg-zero", "apg"] = Field(
        "cfg", title="Guidance method", description="classifier-free, CFG-Zero*, or adaptive projected"
    )
    nag: Nag | None = Field(
        None, title="Attention guidance", description="away from the negative prompt where guidance is off"
    )
    skip_layers: SkipLayers | None = Field(
        None, title="Skipped layers", description="away from what the model draws without some of its blocks"
    )
    loras: Annotated[tuple[Lora, ...], BeforeValidator(as_loras)] = Field(
        (), max_length=32, title="LoRAs", description="files that change the model, each with a scale"
    )
    blend: Literal["attention", "embedding", "slerp", "velocity"] = Field(
        "attention", title="Blend", description="where two prompts meet while one turns into the other"
    )
    keyframes: tuple[Keyframe, ...] = Field(
        (), max_length=1000, title="Keyframes", description="pictures at frames"
    )
    source: Source | None = Field(
        None, title="Source clip", description="video to video: the clip and its strength"
    )
    extend: Extend | None = Field(None, title="Extend", description="the clip that this one carries on")
    audio: MediaPath | None = Field(
        None,
        title="Audio",
        description="a sound file: audio.rms, audio.onset, audio.band(60, 200), audio.beat and beat in any "
        "number over frames follow it, and so do places in beats (8b); it plays under the clip",
    )
    sound: Sound | None = Field(
        None, title="Sound", description="how the audio plays: its start, loop, volume and fades"
    )
    bpm: float | None = Field(
        None,
        ge=MIN_BPM,
        le=MAX_BPM,
        title="Beats per minute",
        description="what beat and places in beats (8b) count, from the first frame on; left out, the "
        "beats of the audio, or 120 a minute without one",
    )
    mode: Mode = Field(
        "joint",
        title="Mode",
        description="joint: all frames at once; frame_by_frame: each frame redrawn from the one before",
    )
    redraw: Redraw | None = Field(
        None, title="Redraw", description="how frame_by_frame makes each frame from the one before"
    )
    camera: AnyCamera | None = Field(
        None, title="Camera", description="how the camera moves; from text, moves such as zoom in, pan left"
    )
    control: Control | None = Field(
        None, title="Control", description="pictures that the frames follow, and the network that reads them"
    )
    look: tuple[Keyframe, ...] = Field(
        (),
        max_length=1000,
        title="Look",
        description="pictures whose look stands in for words (Kandinsky 2.2): their subject and style, not "
        "their pixels. Strength is their share, the prompt has the rest; between frames it travels",
    )
    transition: Transition | None = Field(
        None, title="Transition", description="how it begins after the shot before, in a storyboard"
    )
    loop: bool = Field(False, title="Loop", description="the last frame goes on into the first")
    windows: Windows | None = Field(
        None, title="Windows", description="how a clip longer than the model is sampled; by itself: fuse"
    )
    dialect: Dialect = Field(
        "native",
        title="Dialect",
        description="how texts such as 0:(1), 30:(2) are read; deforum gives Deforum's values",
    )
    interpolate: Interpolate | None = Field(
        None, title="Interpolate", description="another rate for the file, frames in between by flow"
    )
    upscale: Upscale | None = Field(
        None, title="Upscale", description="a larger file: how many times as large, and by what"
    )
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", title="Fit", description="how a picture of another shape fills the frame"
    )
    length_fit: bool = Field(
        False, title="Fit length", description="render up to the next length the model can do, then trim"
    )
    speed: Speed = Field(
        "exact",
        title="Speed",
        description="exact; near: at least 35 dB from it; fast: farther; few: few steps; distilled: student",
    )
    shortcuts: Shortcuts | None = Field(
        None, title="Shortcuts", description="what is not computed in every step; speed fills this in"
    )
    match: Literal["wan", "diffusers"] | None = Field(
        None, title="Match", description="the program whose defaults, rounding and noise a Wan model has"
    )
    options: Options = Field(
        (),
        title="Options",
        description="arguments of a diffusers pipeline by its own names: motion_bucket_id: 180",
        json_schema_extra={"default": {}},
    )
    device: str = Field("auto", title="Device", description="auto, cpu, cuda, cuda:1 or mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", title="Precision", description="auto: float32 on a CPU, bfloat16 on an accelerator"
    )
    weights: Literal["full", "fp8", "int8"] = Field(
        "full",
        title="Weights",
        description="how the transformer's matrices are kept in memory; fp8 and int8 take a byte a number "
        "and change the result a little",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_size(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("size") is None:
            return {k: v for k, v in values.items() if k != "size"} if isinstance(values, Mapping) else values
        width, height = parse_size(values["size"])
        rest = {name: value for name, value in values.items() if name != "size"}
        for name, side in (("width", width), ("height", height)):
            if rest.get(name) not in (None, side):
                raise ConfigError(
                    f"size={values['size']!r} and {name}={rest[name]!r} disagree; write one of them."
                )
        return {**rest, "width": width, "height": height}

    @model_validator(mode="wrap")
    @classmethod
    def _in_its_dialect(cls, values: Any, handler: ModelWrapValidatorHandler[Shot]) -> Shot:
        dialect = values.get("dialect") if isinstance(values, Mapping) else None
        with reading("deforum" if dialect == "deforum" else "native"):
            return handler(values)

    @field_validator("prompt", "negative", mode="before")
    @classmethod
    def _none_is_no_words(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("keyframes", "look", mode="before")
    @classmethod
    def _one_keyframe(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Keyframe) or hasattr(value, "__fspath__") else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ConfigError(f"device={value[:40]!r} is unknown; write auto, cpu, cuda, cuda:1 or mps.")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Shot:
        """Settings that exclude each other, and places outside a length that is known already."""
        if self.frames is not None and self.seconds is not None:
            raise ConfigError(
                f"frames={self.frames} and seconds={self.seconds:g} exclude each other; write one."
            )
        low, high = self.guidance_interval
        if low > high:
            raise ConfigError(
                f"guidance_interval=({low:g}, {high:g}) is upside down; write the lower level first."
            )
        if self.sound is not None and self.audio is None:
            raise ConfigError("sound says how the audio plays; add audio: FILE, or leave sound out.")
        if self.source is not None and self.extend is not None:
            raise ConfigError("source and extend exclude each other; paint over a clip, or carry it on.")
        if self.redraw is not None and self.mode == "joint":
            raise ConfigError("redraw belongs to mode: frame_by_frame; add that, or leave redraw out.")
        if self.extend is not None and self.extend.previous and self.begins.kind != "cut":
            raise ConfigError(
                f"transition {self.begins.kind}: extend: previous goes on without a seam; keep one of them."
            )
        self._refuse_open_loops()
        for where, place, beyond in self._places():
            known = place.unit in ("frame", "%") or (place.unit == "s" and self.fps is not None)
            if self.frames is not None and known:
                _inside(where, place, self.frames, self.fps, beyond)
        self._refuse_twin_keyframes()
        return self

    @property
    def holds(self) -> bool:
        """Frames of pictures, or the end of another clip, are held while the others are sampled."""
        pictures = any(key.strength > 0 for key in self.keyframes)
        return pictures or self.begins.match or self.extend is not None

    @property
    def begins(self) -> Transition:
        """How it begins after the shot before; a cut when nothing was said."""
        return self.transition or CUT

    def _refuse_open_loops(self) -> None:
        if self.loop and self.extend is not None:
            raise ConfigError(
                "loop and extend exclude each other; a clip that goes on from another is no loop."
            )
        if self.loop and self.windows is not None and self.windows.kind in ("continue", "whole"):
            raise ConfigError(
                f"loop closes by windows that go around, not by windows: {self.windows.kind}; write fuse."
            )

    def _places(self) -> Iterator[tuple[str, FramePosition, bool]]:
        """Every place with its name, and whether it may lie past the end, as keys of numbers may."""
        tracks = {name: getattr(self, name) for name in ("prompt", "negative", "guidance")}
        for name, moves in (self.camera.tracks if self.camera is not None else {}).items():
            tracks[f"camera.{name}"] = moves
        for name, track in tracks.items():
            for key in track.keys if track is not None else ():
                yield name, key.position, isinstance(track, Schedule)
        for i, hold in enumerate(self.camera.hold if isinstance(self.camera, Camera) else ()):
            yield f"camera.hold[{i}]", hold.frame, False
        for i, keyframe in enumerate(self.keyframes):
            yield f"keyframes[{i}]", keyframe.frame, False
        for i, key in enumerate(self.look):
            yield f"look[{i}]", key.frame, False

    def _refuse_twin_keyframes(self) -> None:
        seen: dict[Any, int] = {}
        for i, keyframe in enumerate(self.keyframes):
            place = (keyframe.frame.unit, keyframe.frame.value)
            if place in seen:
                raise ConfigError(
                    f"keyframes[{seen[place]}] and keyframes[{i}] are both at {keyframe.frame.source}; "
                    "move one."
                )
            seen[place] = i

    @classmethod
    def names(cls) -> list[str]:
        """The names a user may write, `size` included."""
        return [*cls.model_fields, "size"]

    def with_(self, **changes: Any) -> Shot:
        """A checked copy; a new length or size replaces the old one however that was written."""
        fields = self.given()
        replaced = {"size": ("width", "height"), "frames": ("seconds",), "seconds": ("frames",)}
        for name in changes:
            for old in replaced.get(name, ()):
                if changes[name] is not None:
                    fields.pop(old, None)
        return Shot(**{**fields, **changes})


def _inside(where: str, place: FramePosition, frames: int, fps: Any, beyond: bool) -> None:
    try:
        place.resolve(frames, fps if fps is not None else 1, beyond=beyond)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
