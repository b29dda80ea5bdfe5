"""`Transition`: how a shot of a storyboard begins after the one before it.

    transition: cut                                   # the default
    transition: {dissolve: 8, ease: in_out}           # 8 frames show both shots, one turning into the other
    transition: {wipe: 12, direction: left}           # the same with an edge that crosses the picture
    transition: {fade: 1s, color: black}              # half of it into the colour, half out of it
    transition: match                                 # frame 0 is held to the last frame of the shot before

On the first shot a fade comes out of the colour; a storyboard's `end: {fade: 12}` goes into it. A dissolve or
wipe shows its frames of both shots at once, so the clip is that much shorter; the frame of a match is shown
once.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from PIL import ImageColor
from pydantic import AfterValidator, Field, model_validator

from kinema.core.errors import ConfigError
from kinema.story.easing import easing
from kinema.story.positions import FramePosition
from kinema.story.settings import Settings

Direction = Literal["left", "right", "up", "down"]

_TEXT = re.compile(r"\s*(cut|match|(dissolve|wipe|fade)\s+(\S+))\s*")
_LENGTH_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[\d.]+s?$"}]
}


def _checked_length(length: FramePosition) -> FramePosition:
    if length.unit not in ("frame", "s") or length.value <= 0:
        raise ConfigError(f"{length.source!r} is no length; write frames (8) or seconds (0.5s), above 0.")
    return length


def _checked_ease(name: str) -> str:
    easing(name)
    return name


def _checked_color(color: str) -> str:
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise ConfigError(f"color={color!r} is unknown; write black, white, or red as #ff0000.") from None
    return color


Length = Annotated[FramePosition, AfterValidator(_checked_length)]


class Transition(Settings):
    """One of cut, dissolve, wipe, fade or match; as text `match`, `dissolve 8`, `fade 1s`."""

    dissolve: Length | None = Field(
        None, title="Dissolve", description="frames or seconds that show both shots",
        json_schema_extra=_LENGTH_SCHEMA,
    )  # fmt: skip
    wipe: Length | None = Field(
        None, title="Wipe", description="the same, with an edge that crosses the picture",
        json_schema_extra=_LENGTH_SCHEMA,
    )  # fmt: skip
    fade: Length | None = Field(
        None, title="Fade", description="frames or seconds into a colour and out of it",
        json_schema_extra=_LENGTH_SCHEMA,
    )  # fmt: skip
    match: bool = Field(False, title="Match", description="frame 0 is the last frame of the shot before")
    ease: Annotated[str, AfterValidator(_checked_ease)] = Field(
        "linear", title="Ease", description="how a dissolve, wipe or fade runs over its frames"
    )
    color: Annotated[str, Field(max_length=40), AfterValidator(_checked_color)] = Field(
        "black", title="Colour", description="of a fade: a name, or #rrggbb"
    )
    direction: Direction = Field("right", title="Direction", description="where the edge of a wipe moves to")
    softness: float = Field(
        0.1, ge=0.0, le=1.0, title="Softness", description="of the edge of a wipe, as a share of its way"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not (found := _TEXT.fullmatch(value)):
            raise ConfigError(
                f"{value[:40]!r} is no transition; write cut, match, dissolve 8, wipe 0.5s or fade 12."
            )
        if found[2]:
            return {found[2]: found[3]}
        return {"match": True} if found[1] == "match" else {}

    @model_validator(mode="after")
    def _agree(self) -> Transition:
        kinds = [name for name in ("dissolve", "wipe", "fade", "match") if getattr(self, name)]
        if len(kinds) > 1:
            raise ConfigError(f"{kinds[0]} and {kinds[1]} exclude each other; a shot begins in one way.")
        for name, owner in {"color": "fade", "direction": "wipe", "softness": "wipe"}.items():
            if self._changed(name) and kinds != [owner]:
                raise ConfigError(f"{name} is of a {owner}; write {owner} too, or leave it out.")
        if self._changed("ease") and (not kinds or self.match):
            raise ConfigError("a cut has no easing; write dissolve, wipe or fade, or leave ease out.")
        return self

    def _changed(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def kind(self) -> Literal["cut", "dissolve", "wipe", "fade", "match"]:
        """Which of the five it is."""
        if self.match:
            return "match"
        return "dissolve" if self.dissolve else "wipe" if self.wipe else "fade" if self.fade else "cut"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour of a fade, 0..255."""
        red, green, blue = ImageColor.getrgb(self.color)[:3]
        return red, green, blue

    def frames(self, fps: Fraction) -> int:
        """Pixel frames that it lasts; 0 for a cut, 1 for a match."""
        length = self.dissolve or self.wipe or self.fade
        if length is None:
            return int(self.match)
        count = length.value * (fps if length.unit == "s" else 1)
        return max(1, int((2 * count + 1) // 2))


CUT = Transition.make()
