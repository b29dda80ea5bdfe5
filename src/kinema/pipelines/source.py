"""Where requests come from: shot and storyboard files, and clips that carry their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError, MediaError
from kinema.io.record import read_record
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, from_mapping, load, with_paths
from kinema.story.variables import Variables

TEXTS = (".yaml", ".yml", ".json")


def read_request(
    path: str | Path,
    *,
    changes: Mapping[str, Any] | None = None,
    variables: Variables | None = None,
) -> Shot | Storyboard:
    """A shot or storyboard from a YAML or JSON file, or from the record of a file that kinema made.

    Args:
        path: what to read.
        changes: fields of the shot to replace (of every shot of a storyboard); of `redraw`, `control` and
            `options` only what a mapping names. Settings of a control without its path are for the shots of
            a storyboard that have one. Another `speed` replaces what the speed of a record had chosen too.
        variables: other values for variables of a file.

    Raises:
        MediaError: the file is missing, or is media without a record.
        ConfigError: what it says is not a legal request.
    """
    path = Path(path)
    if not os.path.lexists(path):  # which takes a name that the system cannot have for missing
        raise MediaError(
            f"{path} does not exist; give a shot file (.yaml, .json) or a clip that kinema made."
        )
    resolved = path.suffix.lower() not in TEXTS or _is_record(path)
    if not resolved:
        request = load(path, variables=variables)
    elif variables:
        raise ConfigError(f"{path} has no variables; only shot files have.")
    else:
        request = _from_record(path)
    if not changes:
        return request
    shots = request.shots if isinstance(request, Storyboard) else (request,)
    if resolved and "speed" in changes:
        shots = tuple(_at_another(str(changes["speed"]), shot) for shot in shots)
    changed = _all_changed(shots, changes)
    return request.with_(shots=changed) if isinstance(request, Storyboard) else changed[0]


def _at_another(speed: str, shot: Shot) -> Shot:
    """A shot of a record, ready for another speed than its own."""
    if speed == shot.speed:
        return shot
    from kinema.pipelines.cards import read_card
    from kinema.pipelines.speed.changed import unhurried

    return unhurried(shot, read_card(shot.model))


def _all_changed(shots: tuple[Shot, ...], changes: Mapping[str, Any]) -> tuple[Shot, ...]:
    control = changes.get("control")
    led = [shot.control is not None for shot in shots]
    if not isinstance(control, Mapping) or "path" in control or not any(led):
        return tuple(_changed(shot, changes) for shot in shots)
    rest = {name: value for name, value in changes.items() if name != "control"}
    return tuple(_changed(shot, changes if has else rest) for shot, has in zip(shots, led, strict=True))


def _changed(shot: Shot, changes: Mapping[str, Any]) -> Shot:
    """A copy with `changes`; as mappings, so that the shot reads their texts in its own dialect."""
    parts = {
        "redraw": {} if shot.redraw is None else shot.redraw.given(),
        "control": {} if shot.control is None else shot.control.given(),
        "options": dict(shot.options),
    }
    named = {name: new for name, new in changes.items() if name in parts and isinstance(new, Mapping)}
    if "seed" in named.get("redraw", {}):
        parts["redraw"] = _without_seeds(parts["redraw"], named["redraw"]["seed"])
    return shot.with_(**{**changes, **{name: {**parts[name], **new} for name, new in named.items()}})


def _without_seeds(redraw: Mapping[str, Any], rule: object) -> dict[str, Any]:
    """Settings of before, less what the new rule for the seeds has no use for."""
    uses = {"seeds": ("schedule", "travel"), "seed_every": ("iter",)}
    return {name: value for name, value in redraw.items() if rule in uses.get(name, (rule,))}


def _is_record(path: Path) -> bool:
    """A sidecar written by `--sidecar`: JSON, but a record rather than a shot."""
    return path.suffix.lower() == ".json" and read_record(path) is not None


def _from_record(path: Path) -> Shot | Storyboard:
    record = read_record(path)
    if record is None:
        raise MediaError(
            f"{path} carries no record of kinema's; only files made without --no-record can be made again."
        )
    if not record.shot:
        verb, done = ("upscale", "upscaled") if "upscale" in record.post else ("interpolate", "interpolated")
        raise MediaError(
            f"{path} was not made by kinema, only {done}; run kinema {verb} on "
            f"{record.post.get('of', 'its source')} again."
        )
    try:
        story = from_mapping(dict(record.shot))
    except ConfigError as error:
        raise ConfigError(f"the record of {path} is not one that this version reads: {error}") from None
    return with_paths(story, lambda media: _found(media, path.parent))


def _found(media: str, folder: Path) -> str:
    """A path of a record: as it was typed, or beside the clip where only there something lies."""
    there = folder / media
    return os.path.normpath(there) if not os.path.lexists(media) and os.path.lexists(there) else media
