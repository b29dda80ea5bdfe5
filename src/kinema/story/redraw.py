"""`Redraw`: how frame-by-frame mode makes each frame from the one before.

    canvas  = noise(sharpen(contrast(colours(guides(warp(last frame))))))
    frame_f = colours(redraw(canvas, strength, prompts, seed))

Whatever makes sense over time is a `Schedule` over the frames of the shot. `strength` has the meaning it has
everywhere in kinema and in diffusers: the share of the picture that may change, 0 keeps it, 1 ignores it
(Deforum's `strength_schedule` is `1 - strength`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.dialects_deforum import DeforumText
from kinema.story.keyed import Key, Keyed
from kinema.story.media import MediaPath
from kinema.story.positions import POSITION_PATTERN, FramePosition
from kinema.story.seeds import SeedBehaviour
from kinema.story.settings import Settings
from kinema.story.tracks import Schedule, dialect_in_use

Mode = Literal["joint", "frame_by_frame"]
NoiseKind = Literal["uniform", "gaussian", "perlin"]
ColourMatch = Literal["off", "transport", "histogram"]
SeedRule = Literal[SeedBehaviour, "travel"]

MAX_CADENCE = 64
MAX_SEED = 2**53  # whole numbers that a float holds exactly

COLOUR_WORDS = ("first", "keyframes")
BARS = "bars"
"""The mask of what a keyframe of another shape leaves open around it."""

RANGES: Mapping[str, tuple[float, float]] = {
    "strength": (0.0, 1.0),
    "cadence": (1, MAX_CADENCE),
    "steps": (1, 1000),
    "seeds": (-1, MAX_SEED),
    "noise": (0.0, 1.0),
    "noise_multiplier": (0.0, 4.0),
    "contrast": (0.0, 4.0),
    "sharpen": (0.0, 5.0),
    "blur": (0.0, 64.0),
    "colour_window": (1, 1_000_000),
    "mask_feather": (0.0, 256.0),
}
"""Lowest and highest value of every schedule in `Redraw`, ends included."""


def check_range(name: str, values_F: NDArray[np.float64]) -> None:
    """Refuse a schedule that leaves its range, naming the first frame where it does.

    Args:
        name: a key of `RANGES`.
        values_F: its value at each frame.

    Raises:
        ConfigError: with the value, the frame and the range.
    """
    low, high = RANGES[name]
    outside = (values_F < low) | (values_F > high)
    if outside.any():
        frame = int(np.argmax(outside))
        raise ConfigError(
            f"redraw.{name} is {values_F[frame]:.6g} at frame {frame}; write values "
            f"from {low:g} to {high:g}, or clamp(..., {low:g}, {high:g})."
        )


def _in_range(name: str) -> AfterValidator:
    """A schedule that is one number is checked as soon as it is written."""

    def check(track: Schedule | None) -> Schedule | None:
        constant = None if track is None else track.constant
        low, high = RANGES[name]
        if constant is not None and not low <= constant <= high:
            raise ConfigError(f"{name}={constant:g} is out of range; write {low:g} to {high:g}.")
        return track

    return AfterValidator(check)


class NameTrack(Keyed[str]):
    """A name over frames that holds from key to key: `"euler"`, or `{0: "euler", 24: "unipc"}`.

    `{deforum: '0:("euler"), max_f/2:("heun")'}` is Deforum's notation; in that dialect, text with a colon is.
    """

    __slots__ = ("_deforum",)
    _json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {
                "type": "string",
                "minLength": 1,
                "maxLength": 100_000,
                "description": "a name, or Deforum's keys",
            },
            {
                "type": "object",
                "minProperties": 1,
                "patternProperties": {POSITION_PATTERN: {"type": "string", "minLength": 1, "maxLength": 64}},
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"deforum": {"type": "string", "maxLength": 100_000}},
                "required": ["deforum"],
                "additionalProperties": False,
            },
        ]
    }

    def _read(self, source: Any) -> tuple[Key[str], ...]:
        self._deforum: DeforumText | None = None
        if isinstance(source, str) and ":" in source and dialect_in_use() == "deforum":
            source = {"deforum": source}
        if isinstance(source, Mapping) and "deforum" in source:
            self._deforum = _read_deforum(source)
            for key in self._deforum.keys:
                self._name(str(key.value).strip())
            source = {0: str(self._deforum.keys[0].value).strip()}
        pairs = source.items() if isinstance(source, Mapping) else [(0, source)]
        return tuple(Key(FramePosition.parse(place), self._name(value), "hold") for place, value in pairs)

    @staticmethod
    def _name(value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= 64:
            raise ConfigError(f"{str(value)[:40]!r} is not a name; write for example euler.")
        return value

    def _written(self, source: Any) -> Any:
        return super()._written(source) if self._deforum is None else {"deforum": self._deforum.text}

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> tuple[str, ...]:
        """The name at each frame; `ConfigError` for a key outside the clip.

        Args:
            frames: F, the clip's pixel frames.
            fps: frames per second.
            seed: what `s` is in the keys of Deforum's notation.
        """
        if self._deforum is not None:
            texts = self._deforum.texts(frames, seed)
            ways = pairwise([0, *list(texts)[1:], frames])
            return tuple(
                text.strip() for text, (a, b) in zip(texts.values(), ways, strict=True) for _ in range(a, b)
            )
        segments = self.segments(frames, fps)
        return tuple(self.keys[segments.order_K[i]].value for i in segments.left_F)


def _read_deforum(source: Mapping[Any, Any]) -> DeforumText:
    text = source["deforum"]
    if len(source) > 1 or not isinstance(text, str):
        raise ConfigError('deforum stands alone, with text, as in {deforum: \'0:("euler"), 24:("heun")\'}.')
    return DeforumText.parse(text, words=True)


class Redraw(Settings):
    """How each frame is made from the one before, in `mode: frame_by_frame`.

    Raises:
        ConfigError: a value out of range, an unknown name, or two settings that exclude each other.
    """

    spoken: ClassVar[Mapping[str, str]] = {
        "strength_schedule": "strength (kinema's is 1 - Deforum's)", "denoise": "strength",
        "denoising_strength": "strength", "noise_schedule": "noise", "noise_type": "noise_kind",
        "noise_multiplier_schedule": "noise_multiplier", "contrast_schedule": "contrast",
        "diffusion_cadence": "cadence", "color_coherence": "colour", "color": "colour",
        "seed_behavior": "seed", "seed_behaviour": "seed", "seed_iter_N": "seed_every",
        "seed_schedule": "seeds", "steps_schedule": "steps", "sampler_schedule": "solver",
        "sampler": "solver", "amount_schedule": "sharpen", "sigma_schedule": "sharpen_radius",
        "threshold_schedule": "sharpen_threshold", "mask_file": "mask", "invert_mask": "mask_invert",
        "mask_overlay_blur": "mask_feather",
    }  # fmt: skip

    strength: Annotated[Schedule, _in_range("strength")] = Field(
        Schedule(0.5),
        title="Strength",
        description="how much of the last frame may change: 0 keeps it, 1 ignores it (and makes every frame "
        "independent); Deforum's strength is 1 minus this",
    )
    cadence: Annotated[Schedule, _in_range("cadence")] = Field(
        Schedule(1.0),
        title="Cadence",
        description="every so many frames one is drawn; those between are warped from both and blended",
    )
    steps: Annotated[Schedule | None, _in_range("steps")] = Field(
        None,
        title="Steps",
        description="of a whole drawing, in place of the shot's; strength takes its share",
    )
    solver: NameTrack | None = Field(
        None, title="Solver", description="in place of the shot's; a name, or names by frame"
    )
    seed: SeedRule = Field(
        "iter",
        title="Seed behaviour",
        description="from drawn frame to drawn frame: iter counts up, fixed, ladder, alternate, random, "
        "schedule takes seeds, travel blends the noise between the keys of seeds",
    )
    seed_every: int = Field(
        1, ge=1, le=1000, title="Seed every", description="iter: drawn frames that share a seed"
    )
    seeds: Annotated[Schedule | None, _in_range("seeds")] = Field(
        None,
        title="Seeds",
        description="at frames, for seed: schedule (-1 there draws one) and travel (whole numbers)",
    )
    noise: Annotated[Schedule, _in_range("noise")] = Field(
        Schedule(0.0),
        title="Noise",
        description="share of picture noise mixed in before redrawing, so that there is detail to grow",
    )
    noise_kind: NoiseKind = Field(
        "uniform", title="Noise kind", description="uniform, gaussian, or perlin (soft, in four sizes)"
    )
    noise_multiplier: Annotated[Schedule, _in_range("noise_multiplier")] = Field(
        Schedule(1.0),
        title="Noise multiplier",
        description="of the noise that the model removes; above 1 gives busier pictures, below calmer ones",
    )
    colour: ColourMatch = Field(
        "transport",
        title="Colour coherence",
        description="takes the drift of colours away: off, transport (mean and covariance), or histogram",
    )
    colour_window: Annotated[Schedule, _in_range("colour_window")] = Field(
        Schedule(25.0),
        title="Colour window",
        description="frames over which colours return to the reference; 1 holds them there at every frame",
    )
    colour_from: MediaPath = Field(
        "first",
        title="Colour reference",
        description="first (drawn frame), keyframes (the last one passed), or the path of a picture",
    )
    contrast: Annotated[Schedule, _in_range("contrast")] = Field(
        Schedule(1.0), title="Contrast", description="about the picture's own mean, at every drawn frame"
    )
    sharpen: Annotated[Schedule, _in_range("sharpen")] = Field(
        Schedule(0.0), title="Sharpen", description="unsharp mask against the softening of warps; 0 is off"
    )
    sharpen_radius: float = Field(
        1.0, gt=0.0, le=64.0, title="Sharpen radius", description="pixels, of the mask's blur"
    )
    sharpen_threshold: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        title="Sharpen threshold",
        description="smaller differences (0..1) are left alone",
    )
    blur: Annotated[Schedule, _in_range("blur")] = Field(
        Schedule(0.0), title="Blur", description="pixels, at every drawn frame; 0 is off"
    )
    mask: MediaPath | None = Field(
        None,
        title="Mask",
        description="picture or video: white is redrawn, black keeps what is there; bars: what fit: pad "
        "leaves open around the first keyframe",
    )
    mask_invert: bool = Field(False, title="Invert mask", description="black is redrawn instead")
    mask_feather: Annotated[Schedule, _in_range("mask_feather")] = Field(
        Schedule(0.0), title="Mask feather", description="pixels over which the mask's edge is softened"
    )
    holes: Literal["border", "redraw"] = Field(
        "border",
        title="Holes",
        description="what a camera move uncovers: filled by the camera's border mode, or drawn anew",
    )
    approach: int = Field(
        0,
        ge=0,
        le=1000,
        title="Approach",
        description="frames before a keyframe over which its picture is mixed in, more and more",
    )

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the pictures and clips that it names."""
        named = () if self.colour_from in COLOUR_WORDS or self.colour == "off" else (self.colour_from,)
        return named if self.mask in (None, BARS) else (*named, str(self.mask))

    def with_files(self, change: Callable[[str], str]) -> Redraw:
        """A copy whose paths are changed."""
        mask = {} if self.mask is None or self.mask == BARS else {"mask": change(self.mask)}
        if self.colour_from in COLOUR_WORDS:
            return self.with_(**mask)
        return self.with_(**mask, colour_from=change(self.colour_from))

    @model_validator(mode="after")
    def _agree(self) -> Redraw:
        """Settings that only mean something together."""
        if self.seed in ("schedule", "travel") and self.seeds is None:
            raise ConfigError(f"seed: {self.seed} needs seeds, such as seeds: {{0: 7, 24: 9}}.")
        if self.seeds is not None and self.seed not in ("schedule", "travel"):
            raise ConfigError(
                f"seeds is not used by seed: {self.seed}; write seed: schedule or seed: travel."
            )
        if self.seed_every != 1 and self.seed != "iter":
            raise ConfigError(f"seed_every is not used by seed: {self.seed}; write seed: iter.")
        for names, needed, idle in (
            (("mask_invert", "mask_feather"), "a mask: a picture or a video", self.mask is None),
            (("sharpen_radius", "sharpen_threshold"), "sharpen above 0", self.sharpen.constant == 0.0),
            (("colour_window", "colour_from"), "colour: transport or histogram", self.colour == "off"),
        ):
            for name in names if idle else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ConfigError(f"{name} does nothing without {needed}.")
        return self
