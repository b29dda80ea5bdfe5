"""`DeforumCamera`: a camera in Deforum's names, units and signs; all values are per frame.

In 2D the values move the *picture*: `translation_x` right and `translation_y` down, in pixels, `angle`
anticlockwise in degrees, `zoom` a factor. In 3D they move the camera: `translation_x` right, `translation_y`
up and `translation_z` forward, in two-hundredths of a distance. That 2D and 3D disagree about which way is
right is Deforum's; `kinema.story.camera.Camera` has one convention for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from kinema.story.camera_tracks import in_range, sampled, track
from kinema.story.depth import Depth
from kinema.story.keyed import Array
from kinema.story.settings import Settings
from kinema.story.tracks import Schedule, reading

_IN_3D = ("translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z", "fov", "aspect_ratio")
_FLIP = tuple(f"perspective_flip_{name}" for name in ("theta", "phi", "gamma", "fv"))
_IN_2D = ("angle", "zoom", "transform_center_x", "transform_center_y")


class DeforumCamera(Settings):
    """Deforum's camera; what is left out does nothing (Deforum's own defaults zoom and fly a little).

    Raises:
        ConfigError: an unknown name or a value out of range.
    """

    spoken: ClassVar[Mapping[str, str]] = {
        "animation_mode": "mode", "fov_schedule": "fov", "aspect_ratio_schedule": "aspect_ratio",
        "near_schedule": "near", "far_schedule": "far", "roll": "angle", "pan_x": "translation_x",
        "pan_y": "translation_y", "center_x": "transform_center_x", "center_y": "transform_center_y",
    }  # fmt: skip

    dialect: Literal["deforum"] = Field(title="Dialect")  # no default, so that it is always written
    mode: Literal["2D", "3D"] = Field("2D", title="Mode", description="2D: pictures; 3D: depth")
    angle: Schedule = track(0, "Angle", "2D: degrees, anticlockwise")
    zoom: Schedule = track(1, "Zoom", "2D: factor")
    translation_x: Schedule = track(0, "Translation x", "2D: pixels, picture right; 3D: camera right")
    translation_y: Schedule = track(0, "Translation y", "2D: pixels, picture down; 3D: camera up")
    translation_z: Schedule = track(0, "Translation z", "3D: camera forward")
    transform_center_x: Schedule = track(0.5, "Centre x", "2D: 0 left, 1 right")
    transform_center_y: Schedule = track(0.5, "Centre y", "2D: 0 top, 1 bottom")
    rotation_3d_x: Schedule = track(0, "Rotation x", "3D: degrees, look up")
    rotation_3d_y: Schedule = track(0, "Rotation y", "3D: degrees, look right")
    rotation_3d_z: Schedule = track(0, "Rotation z", "3D: degrees, picture anticlockwise")
    enable_perspective_flip: bool = Field(
        False,
        title="Perspective flip",
        description="the four values below act; in 2D translation then does not, in 3D the flip comes first",
    )
    perspective_flip_theta: Schedule = track(0, "Flip theta", "degrees")
    perspective_flip_phi: Schedule = track(0, "Flip phi", "degrees")
    perspective_flip_gamma: Schedule = track(0, "Flip gamma", "degrees")
    perspective_flip_fv: Schedule = track(53, "Flip field of view", "degrees")
    fov: Schedule = track(70, "Field of view", "3D: degrees, vertical")
    aspect_ratio: Schedule = track(1, "Aspect ratio", "3D: divides x in the projection")
    near: Schedule = track(200, "Near", "kept for files that have it; it cancels out")
    far: Schedule = track(10000, "Far", "kept for files that have it; it cancels out")
    border: Literal["replicate", "wrap"] = Field(
        "replicate", title="Border", description="2D, and the perspective flip of 3D"
    )
    padding_mode: Literal["border", "reflection", "zeros"] = Field(
        "border", title="Padding", description="3D"
    )
    sampling_mode: Literal["bicubic", "bilinear", "nearest"] = Field(
        "bicubic", title="Sampling", description="3D"
    )
    depth: Depth = Field(Depth.make(), title="Depth", description="3D: flat, a file, or a model")

    @model_validator(mode="wrap")
    @classmethod
    def _in_its_dialect(cls, values: Any, handler: ModelWrapValidatorHandler[DeforumCamera]) -> DeforumCamera:
        with reading("deforum"):
            return handler(values)

    @model_validator(mode="before")
    @classmethod
    def _said_or_not(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        mode = value.get("mode")
        said = {"mode": mode.upper()} if isinstance(mode, str) else {}
        return {"dialect": "deforum", **value, **said}

    @property
    def idle(self) -> tuple[str, ...]:
        """Tracks that were given a move and do nothing in this mode; Deforum ignores them without a word."""
        others = _IN_2D if self.mode == "3D" else _IN_3D
        if self.mode == "2D" and self.enable_perspective_flip:
            others = (*others, "translation_x", "translation_y")
        if not self.enable_perspective_flip:
            others = (*others, *_FLIP)
        neutral = {name: field.default for name, field in type(self).model_fields.items()}
        return tuple(
            name
            for name, schedule in self.tracks.items()
            if name in others and schedule.constant != neutral[name].constant
        )

    @property
    def tracks(self) -> dict[str, Schedule]:
        """The schedules that were given, by name."""
        return {name: value for name, value in self.given().items() if isinstance(value, Schedule)}

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> dict[str, Array]:
        """The given tracks as float64 `[F]`.

        Raises:
            ConfigError: a key outside the clip, or a value out of range; the track and frame are named.
        """
        values = {name: sampled(name, track, frames, fps, seed) for name, track in self.tracks.items()}
        in_range("fov", values, 1e-3, 179.999)
        in_range("perspective_flip_fv", values, 1e-3, 179.999)
        in_range("aspect_ratio", values, 1e-6, 1e6)
        return values
