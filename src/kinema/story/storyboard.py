"""`Storyboard`: shots in a row that become one clip, and the files that shots and storyboards are written in.

    fps: 24                     # any setting of a shot, for all shots that do not say otherwise
    size: 832x480
    shots:
      - prompt: a rooster wakes up
        seconds: 2
      - name: flight
        prompt: {0: the rooster flaps, -1: the rooster flies}
        extend: previous        # goes on from the last frames of the shot before
        seconds: 3

Paths in a file are relative to the file's folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from kinema.core.errors import ConfigError, unknown_name
from kinema.story.control import Control
from kinema.story.files import read_values, write_values
from kinema.story.settings import Settings
from kinema.story.shot import Shot
from kinema.story.size import parse_size
from kinema.story.transition import CUT, Transition
from kinema.story.variables import Variables, escaped, read_variables, substituted

MAX_SHOTS = 1000

Canvas = Annotated[tuple[int, int], BeforeValidator(parse_size)]

_PER_SHOT = ("name", "keyframes", "source", "extend")
_ALTERNATIVES = (("frames", "seconds"), ("size", "width", "height"))


class Storyboard(Settings):
    """Shots that are rendered one after the other into one clip of one size and frame rate.

    Any setting of a shot may be given beside them, for all shots that do not say otherwise.

    Raises:
        ConfigError: no shots, two sizes or frame rates, a name twice, or `extend: previous` on the first.
    """

    shots: tuple[Shot, ...] = Field(min_length=1, max_length=MAX_SHOTS, title="Shots")
    end: Transition | None = Field(None, title="End", description="how the last shot ends: a fade, or cut")
    canvas: Canvas | None = Field(
        None, title="Canvas", description="WIDTHxHEIGHT of the clip, to which each shot is brought by its fit"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_shots(cls, values: Any) -> Any:
        """What stands beside `shots` and is no field of the storyboard is the default for each shot."""
        shots = values.get("shots") if isinstance(values, Mapping) else None
        if not isinstance(shots, list | tuple):
            raise ConfigError("shots is not a list; write one `- prompt: ...` per shot.")
        if len(shots) > MAX_SHOTS:  # before any of them is read
            raise ConfigError(f"shots has {len(shots)} entries; the most is {MAX_SHOTS}.")
        variables = read_variables(values["vars"]) if "vars" in values else None
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        defaults = {name: value for name, value in values.items() if name not in (*own, "vars")}
        for name in defaults:
            if name not in Shot.names() or name in _PER_SHOT:
                known = {*Shot.names(), *cls.model_fields, "vars"} - set(_PER_SHOT)
                raise unknown_name("default", name, sorted(known))
        whole = {name: value for name, value in own.items() if name != "shots"}
        own = whole if variables is None else substituted(whole, variables)
        return {**own, "shots": tuple(_shot(i, shot, defaults, variables) for i, shot in enumerate(shots))}

    @classmethod
    def file_schema(cls) -> dict[str, Any]:
        """The JSON schema of a storyboard file, with defaults beside `shots` and variables."""
        own, shot = cls.model_json_schema(), Shot.model_json_schema()
        scalar = {"type": ["string", "number", "boolean"]}
        names = {"vars": {"title": "Variables", "type": "object", "additionalProperties": scalar}}
        size = {"title": "Size", "description": "WIDTHxHEIGHT", "type": ["string", "array"]}
        fields = {**shot["properties"], "size": size}
        defaults = {name: field for name, field in fields.items() if name not in _PER_SHOT}
        one = {"type": "object", "properties": {**fields, **names}, "additionalProperties": False}
        shots = {**own["properties"]["shots"], "items": {"anyOf": [{"type": "string"}, one]}}
        definitions = {**own.get("$defs", {}), **shot.get("$defs", {})}
        return {
            "$defs": {name: value for name, value in definitions.items() if name != "Shot"},
            "title": "Storyboard",
            "type": "object",
            "properties": {**defaults, **names, **own["properties"], "shots": shots},
            "required": ["shots"],
            "additionalProperties": False,
        }

    @model_validator(mode="after")
    def _one_clip(self) -> Storyboard:
        first = self.shots[0]
        if first.extend is not None and first.extend.previous:
            raise ConfigError("shots[0]: there is no previous shot to extend; name a clip's file.")
        for where, transition in (("shots[0].transition", first.begins), ("end", self.end or CUT)):
            if transition.kind not in ("cut", "fade"):
                missing = "before the first shot" if where != "end" else "after the last"
                raise ConfigError(f"{where}={transition.kind}: nothing comes {missing}; write fade, or cut.")
        for setting in ("fps",) if self.canvas else ("width", "height", "fps"):
            values = {str(v): None for shot in self.shots if (v := getattr(shot, setting)) is not None}
            if len(values) > 1:
                raise ConfigError(
                    f"{setting} differs between the shots ({', '.join(values)}); one clip has one."
                )
        names = [shot.name for shot in self.shots if shot.name is not None]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ConfigError(f"two shots have the name {twice[0]!r}; change one.")
        return self

    def to_mapping(self, *, all_fields: bool = False) -> dict[str, Any]:
        """JSON values that `from_mapping` reads back; what all shots share stands above them."""
        written = [shot.to_mapping(all_fields=all_fields) for shot in self.shots]
        shared = {
            name: value
            for name, value in written[0].items()
            if name not in _PER_SHOT
            and len(written) > 1
            and all(name in shot and shot[name] == value for shot in written)
        }
        parted = {name for shot in written for name in shot} - shared.keys()
        # a side or a length of a shot's own replaces what stands above of the other one too
        split = {name for names in _ALTERNATIVES if parted & set(names) for name in names}
        common = {name: value for name, value in shared.items() if name not in split}
        shots = [{name: value for name, value in shot.items() if name not in common} for shot in written]
        return {**self.whole(all_fields=all_fields), **common, "shots": shots}

    def whole(self, *, all_fields: bool = False) -> dict[str, Any]:
        """JSON values of what is said of the clip, not of a shot."""
        return self.model_dump(mode="json", exclude={"shots"}, exclude_defaults=not all_fields)


def _shot(index: int, written: Any, defaults: Mapping[str, Any], variables: Variables | None) -> Shot:
    """One entry of `shots`; a length or size of its own replaces the default's, however that is written."""
    if isinstance(written, Shot):
        return written
    if isinstance(written, str):
        written = {"prompt": written}
    if not isinstance(written, Mapping):
        raise ConfigError(f"shots[{index}]: {str(written)[:40]!r} is not a shot; write prompt: ...")
    kept = dict(defaults)
    for names in _ALTERNATIVES:
        if any(name in written for name in names):
            for name in names:
                kept.pop(name, None)
    try:
        return _with_variables({**kept, **written}, variables)
    except ConfigError as error:
        raise ConfigError(f"shots[{index}]: {error}") from None


def from_mapping(values: Any) -> Shot | Storyboard:
    """A storyboard where there is a list of `shots`, a shot otherwise."""
    if not isinstance(values, Mapping):
        raise ConfigError("not a shot; write settings such as `prompt: a rooster`, one per line.")
    return Storyboard.from_mapping(values) if "shots" in values else _with_variables(values, None)


def _with_variables(values: Mapping[str, Any], variables: Variables | None) -> Shot:
    """A shot whose `vars` come before `variables`; where there are neither, `${` is just text."""
    if variables is None and "vars" not in values:
        return Shot.from_mapping(values)
    own = {**(variables or {}), **read_variables(values.get("vars", {}))}
    return Shot.from_mapping(substituted({n: v for n, v in values.items() if n != "vars"}, own))


def load(path: str | Path, *, variables: Variables | None = None) -> Shot | Storyboard:
    """Read a shot or storyboard file; paths in it are taken from its folder.

    Args:
        path: a `.yaml`, `.yml` or `.json` file.
        variables: other values for variables that the file has.

    Raises:
        ConfigError: the file cannot be read, or what it says is wrong.
    """
    path = Path(path)
    values = read_values(path)
    try:
        story = from_mapping(_with_values(values, variables or {}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return with_paths(story, lambda media: _from_folder(path.parent, media))


def _with_values(values: Any, variables: Variables) -> Any:
    """The file's values with other values of its variables; in a file, `${` is never just text."""
    if not isinstance(values, Mapping):
        return values
    known = read_variables(values.get("vars", {}))
    for name in variables:
        if name not in known:
            if not known:
                raise ConfigError(f"{name} is no variable: there are none; add vars: {{{name}: ...}}.")
            raise unknown_name("variable", name, known)
    return {**values, "vars": {**known, **variables}}


def dump(story: Shot | Storyboard, path: str | Path) -> None:
    """Write a file that `load` reads back to the same; relative paths become relative to its folder.

    Raises:
        ConfigError: the name's ending is not `.yaml`, `.yml` or `.json`, or the place cannot be written.
    """
    path = Path(path)
    story = with_paths(story, lambda media: _to_folder(path.parent, media))
    write_values(escaped(story.to_mapping()), path)


def _from_folder(folder: Path, media: str) -> str:
    return media if Path(media).is_absolute() else os.path.normpath(folder / media)


def _to_folder(folder: Path, media: str) -> str:
    return media if Path(media).is_absolute() else os.path.relpath(media, folder)


def with_paths(story: Shot | Storyboard, change: Callable[[str], str]) -> Shot | Storyboard:
    """The same story with `change` done to every path in it."""
    if isinstance(story, Storyboard):
        return story.with_(shots=tuple(_shot_with_paths(shot, change) for shot in story.shots))
    return _shot_with_paths(story, change)


def _shot_with_paths(shot: Shot, change: Callable[[str], str]) -> Shot:
    """The same shot with `change` done to every path of a picture, a clip, or a model's folder (`./wan`)."""
    changes: dict[str, Any] = {}
    if shot.keyframes:
        changes["keyframes"] = tuple(key.with_(image=change(key.image)) for key in shot.keyframes)
    if shot.look:
        changes["look"] = tuple(key.with_(image=change(key.image)) for key in shot.look)
    if shot.loras:
        changes["loras"] = tuple(lora.with_(path=change(lora.path)) for lora in shot.loras)
    if shot.source is not None:
        changes["source"] = shot.source.with_files(change)
    if shot.redraw is not None:
        changes["redraw"] = shot.redraw.with_files(change)
    if shot.control is not None:
        changes["control"] = _with_control_files(shot.control, change)
    if shot.audio is not None:
        changes["audio"] = change(shot.audio)
    if shot.upscale is not None and shot.upscale.model is not None:
        changes["upscale"] = shot.upscale.with_(model=change(shot.upscale.model))
    if shot.extend is not None and not shot.extend.previous:
        changes["extend"] = shot.extend.with_(path=change(shot.extend.path))
    if shot.camera is not None and shot.camera.depth.path is not None:
        depth = shot.camera.depth.with_(path=change(shot.camera.depth.path))
        changes["camera"] = shot.camera.with_(depth=depth)
    parts = shot.model.split("@")
    if any(part.startswith(".") for part in parts):
        changes["model"] = "@".join(
            _with_folder(part, change) if part.startswith(".") else part for part in parts
        )
    return shot.with_(**changes) if changes else shot


def _with_folder(model: str, change: Callable[[str], str]) -> str:
    """A model's folder, changed; without the dot, a folder in a folder reads as a hub id, owner/name."""
    folder = change(model)
    return folder if Path(folder).is_absolute() or folder.startswith(".") else f"./{folder}"


def _with_control_files(control: Control, change: Callable[[str], str]) -> Control:
    """A control with its paths, and that of its network's folder, changed."""
    changes = {"path": change(control.path)}
    if control.mask is not None:
        changes["mask"] = change(control.mask)
    if control.model is not None and control.model.startswith("."):
        changes["model"] = _with_folder(control.model, change)
    return control.with_(**changes)
