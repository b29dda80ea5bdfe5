"""`Camera`: how the camera moves through a shot; and `DeforumCamera`, the same in Deforum's names and rules.

One convention, for flat pictures and for depth alike. Every value says what the *camera* does:

    pan_x, x     right        yaw     looks right            orbit_x   goes round to the right
    pan_y, y     up           pitch   looks up               orbit_y   goes over the top
    z            forward      roll    leans clockwise        zoom      above 1 is nearer

so the picture goes the other way: `pan_x: 0.1` moves it left by a tenth of its width. Values beside each
other are *positions* ("be at zoom 2 at frame 60"); those under `speed` are rates, per second, whatever the
frame rate. Positions count from where the camera is at frame 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from kinema.core.errors import ConfigError, unknown_name
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.camera_tracks import in_range, sampled, track
from kinema.story.depth import Depth
from kinema.story.keyed import Array
from kinema.story.positions import FramePosition
from kinema.story.settings import Settings
from kinema.story.tracks import Schedule, dialect_in_use, reading

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
MAX_PLACES = 1000


class Hold(Settings):
    """A frame that is held to the keyframe as the camera sees it there; as text `-1`, `2s:0.7`."""

    frame: FramePosition = Field(title="Frame", description="frame, seconds (2s), share (50%), or -1")
    strength: Unit = Field(1.0, title="Strength", description="1 holds it exactly; less leaves it freedom")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"frame": value}
        if isinstance(value, str):
            place, colon, strength = value.partition(":")
            return {"frame": place} | ({"strength": strength} if colon else {})
        return value


class Speed(Settings):
    """Rates of the moves, as the camera sees them: `pan_x: 0.1` is a tenth of the frame each second."""

    per: Literal["second", "frame"] = Field("second", title="Per", description="what the rates are per")
    pan_x: Schedule = track(0, "Pan right", "frame widths on the screen, or pixels")
    pan_y: Schedule = track(0, "Pan up", "frame heights on the screen, or pixels")
    zoom: Schedule = track(1, "Zoom", "factor: 1.1 is a tenth larger each second, 0.9 smaller")
    roll: Schedule = track(0, "Roll", "degrees, clockwise")
    orbit_x: Schedule = track(0, "Orbit right", "degrees round the middle of the picture")
    orbit_y: Schedule = track(0, "Orbit up", "degrees over the middle of the picture")
    yaw: Schedule = track(0, "Look right", "degrees")
    pitch: Schedule = track(0, "Look up", "degrees")
    x: Schedule = track(0, "Move right", "distances of the flat picture")
    y: Schedule = track(0, "Move up", "distances of the flat picture")
    z: Schedule = track(0, "Move forward", "distances of the flat picture")


MOVES = tuple(name for name in Speed.model_fields if name != "per")
_NEUTRAL = {name: 1.0 if name == "zoom" else 0.0 for name in MOVES}


class Camera(Settings):
    """The camera's path; from text, moves at a speed: `zoom in 1.2, pan left, orbit right 20`.

    Raises:
        ConfigError: an unknown name, a value out of range, or a move that cannot be read.
    """

    spoken: ClassVar[Mapping[str, str]] = {
        "angle": "roll", "rotation": "roll", "translation_x": "pan_x", "translation_y": "pan_y",
        "translation_z": "z", "rotation_3d_x": "pitch", "rotation_3d_y": "yaw", "rotation_3d_z": "roll",
        "tilt": "pitch", "move_x": "x", "move_y": "y", "move_z": "z", "dolly": "z", "truck": "x",
        "transform_center_x": "pivot_x", "transform_center_y": "pivot_y", "center_x": "pivot_x",
        "center_y": "pivot_y", "perspective": "orbit_x", "fov_schedule": "fov",
    }  # fmt: skip

    dialect: Literal["native"] = Field(title="Dialect")  # no default, so that it is always written
    pan_x: Schedule = track(0, "Pan right", "frame widths of the first frame, or pixels")
    pan_y: Schedule = track(0, "Pan up", "frame heights of the first frame, or pixels")
    zoom: Schedule = track(1, "Zoom", "factor; 2 shows half as much")
    roll: Schedule = track(0, "Roll", "degrees, clockwise; the picture turns the other way")
    orbit_x: Schedule = track(0, "Orbit right", "degrees round the middle of the picture: perspective")
    orbit_y: Schedule = track(0, "Orbit up", "degrees over the middle of the picture: perspective")
    yaw: Schedule = track(0, "Look right", "degrees")
    pitch: Schedule = track(0, "Look up", "degrees")
    x: Schedule = track(0, "Move right", "distances of the flat picture")
    y: Schedule = track(0, "Move up", "distances of the flat picture")
    z: Schedule = track(0, "Move forward", "distances of the flat picture; at 1 the camera is there")
    fov: Schedule = track(50, "Field of view", "degrees, from the top of the frame to its bottom")
    pivot_x: Schedule = track(0.5, "Pivot", "what zoom and roll keep in place: 0 left, 1 right")
    pivot_y: Schedule = track(0.5, "Pivot", "what zoom and roll keep in place: 0 top, 1 bottom")
    speed: Speed = Field(
        Speed.make(), title="Speed", description="the same moves as rates; both may be given"
    )
    unit: Literal["frame", "pixel"] = Field("frame", title="Unit", description="of pan_x and pan_y")
    depth: Depth = Field(Depth.make(), title="Depth", description="flat, a picture or clip, or a depth model")
    border: Literal["replicate", "reflect", "wrap", "colour"] = Field(
        "replicate", title="Border", description="what is seen beyond the picture's edge"
    )
    colour: tuple[int, int, int] = Field(
        (0, 0, 0), title="Border colour", description="red, green, blue, 0..255; with border: colour"
    )
    noise: Unit = Field(
        0.0,
        title="Noise",
        description="0..1: how much of a video model's noise moves with the camera",
    )
    hold: tuple[Hold, ...] = Field(
        (),
        max_length=MAX_PLACES,
        title="Hold",
        description="frames held to the keyframe as the camera sees it there",
    )
    follow: Schedule | None = Field(
        None,
        title="Follow",
        description="0..1 over frames: how firmly every frame is held to the moved keyframe; by itself 0.5 "
        "where there is a keyframe and nothing is held",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"dialect": "native", "speed": read_moves(value)}
        if not isinstance(value, Mapping):
            return value
        one = {"hold": (value["hold"],)} if isinstance(value.get("hold"), int | str) else {}
        return {"dialect": "native", **value, **one}

    @model_validator(mode="wrap")
    @classmethod
    def _in_its_dialect(cls, values: Any, handler: ModelWrapValidatorHandler[Camera]) -> Camera:
        with reading("native"):
            return handler(values)

    @model_validator(mode="after")
    def _colours(self) -> Camera:
        if not all(0 <= channel <= 255 for channel in self.colour):
            raise ConfigError(f"colour={list(self.colour)} is out of range; write three of 0 to 255.")
        return self

    @property
    def says_what_is_held(self) -> bool:
        """The user chose which frames are held, and how firmly."""
        return bool(self.hold) or self.follow is not None

    @property
    def tracks(self) -> dict[str, Schedule]:
        """The schedules that were given, by name; rates as `speed.NAME`."""
        own = {n: v for n, v in self.given().items() if isinstance(v, Schedule)}
        rates = {f"speed.{n}": v for n, v in self.speed.given().items() if isinstance(v, Schedule)}
        return own | rates

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> dict[str, Array]:
        """The given tracks as float64 `[F]`; `speed.NAME` is per frame, whatever it was written per.

        Raises:
            ConfigError: a key outside the clip, or a value out of range; the track and frame are named.
        """
        values = {name: sampled(name, track, frames, fps, seed) for name, track in self.tracks.items()}
        for name, low, high in _RANGES:
            in_range(name, values, low, high)
        if self.speed.per == "second":
            for name in values:
                if name == "speed.zoom":
                    values[name] = values[name] ** (1 / float(fps))
                elif name.startswith("speed."):
                    values[name] = values[name] / float(fps)
        return values


_RANGES = (
    ("zoom", 1e-3, 1e3),
    ("speed.zoom", 1e-3, 1e3),
    ("fov", 1.0, 170.0),
    ("follow", 0.0, 1.0),
)


# Each move in words: what it is a rate of, its direction, and how fast it is unless said.
_WORDS: dict[str, dict[str, tuple[str, float]]] = {
    "pan": {"right": ("pan_x", 1), "left": ("pan_x", -1), "up": ("pan_y", 1), "down": ("pan_y", -1)},
    "zoom": {"in": ("zoom", 1), "out": ("zoom", -1)},
    "roll": {"right": ("roll", 1), "left": ("roll", -1)},
    "look": {"right": ("yaw", 1), "left": ("yaw", -1), "up": ("pitch", 1), "down": ("pitch", -1)},
    "orbit": {
        "right": ("orbit_x", 1), "left": ("orbit_x", -1), "up": ("orbit_y", 1), "down": ("orbit_y", -1),
    },
    "move": {
        "right": ("x", 1), "left": ("x", -1), "up": ("y", 1), "down": ("y", -1),
        "forward": ("z", 1), "back": ("z", -1),
    },
}  # fmt: skip
_USUAL = {"pan": 0.1, "zoom": 1.2, "roll": 10.0, "look": 10.0, "orbit": 10.0, "move": 0.1}
_MOVE = re.compile(r"(?P<verb>[a-z]+)[ _]+(?P<way>[a-z]+)(?:\s+(?P<amount>\d+(?:\.\d+)?))?")


def read_moves(text: str) -> dict[str, float]:
    """Rates per second from words: `zoom in 1.2, pan left` is `{"zoom": 1.2, "pan_x": -0.1}`.

    Raises:
        ConfigError: not a move, an unknown one, or the same one twice.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        match = _MOVE.fullmatch(part.strip().lower())
        if match is None:
            raise ConfigError(
                f"{part.strip()[:40]!r} is not a move; write for example zoom in 1.2, pan left."
            )
        verb, way = match["verb"], match["way"]
        if verb not in _WORDS:
            raise unknown_name("camera move", verb, _WORDS)
        if way not in _WORDS[verb]:
            raise unknown_name(f"way to {verb}", way, _WORDS[verb])
        name, sign = _WORDS[verb][way]
        if name in rates:
            raise ConfigError(f"{part.strip()!r}: {name} is moved twice; write it once.")
        amount = float(match["amount"]) if match["amount"] else _USUAL[verb]
        if verb == "zoom" and amount <= 0:
            raise ConfigError("zoom by 0 is no factor; write for example zoom in 1.2.")
        rates[name] = amount**sign if verb == "zoom" else amount * sign
    return rates


def _read(value: Any) -> Any:
    """The camera that a user wrote: in the dialect that it names, else in the shot's; words are ours."""
    if not isinstance(value, str | Mapping):
        return value
    if isinstance(value, str):
        return Camera.model_validate(value)
    dialect = value.get("dialect", dialect_in_use())
    if dialect not in ("native", "deforum"):
        raise unknown_name("camera dialect", dialect, ["native", "deforum"])
    if dialect == "native":
        return Camera.from_mapping(value)
    try:
        return DeforumCamera.from_mapping(value)
    except ConfigError as error:
        raise ConfigError(str(error)) from None  # its own names, not those of the native camera


AnyCamera = Annotated[Camera | DeforumCamera, BeforeValidator(_read)]
"""A shot's camera, as a mapping with its `dialect`, or as moves in words."""
