"""Parseq's exports (JSON with `rendered_frames`) as a shot in frame-by-frame mode.

Every value of every frame is in such a file, so schedules come out as numbers, those in line with their
neighbours left out. Camera moves are taken from the `_delta` columns, which is what Deforum plays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.imported import Imported, plain, prompt_track, split_negative

MAX_FRAMES = 100_000

_CAMERA = {
    "2D": ("angle", "zoom", "translation_x", "translation_y"),
    "3D": (
        "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z",
    ),
}  # fmt: skip
_FLIP = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
_REDRAW = {"noise": "noise", "contrast": "contrast", "antiblur_amount": "sharpen"}
_ELSEWHERE = {
    "subseed": "use redraw.seed: travel with seeds", "subseed_strength": "use redraw.seed: travel with seeds",
    "sampler": "write solver", "hybrid_comp_alpha": "no driving video here", "fov": "only in 3D",
}  # fmt: skip


def read(export: Mapping[str, Any]) -> Imported:
    """The shot that the export describes.

    Raises:
        ConfigError: frames missing or without numbers.
    """
    found = Imported("a Parseq export")
    frames = _frames(export)
    written = export.get("options")
    options = written if isinstance(written, Mapping) else {}
    found.values |= {"dialect": "deforum", "mode": "frame_by_frame", "frames": len(frames)}
    for theirs, ours in (("output_fps", "fps"), ("bpm", "bpm")):
        if isinstance(options.get(theirs), int | float):
            found.values[ours] = options[theirs]
    _prompts(found, frames)
    managed = export.get("managedFields")
    names = {name for name in managed if isinstance(name, str)} if isinstance(managed, list) else {*frames[0]}
    _tracks(found, frames, names)
    for name in sorted(names & _ELSEWHERE.keys()):
        if name != "fov" or "fov" not in found.values.get("camera", {}):
            found.leave(name, _ELSEWHERE[name])
    if export.get("timeSeries"):
        found.leave(
            "timeSeries", "its values are in the frames already; audio: song.mp3 follows a sound itself"
        )
    found.leave("model and size", "not in a Parseq export; write model:, size: and steps:")
    return found


def _frames(export: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    frames = export.get("rendered_frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, Mapping) for f in frames):
        raise ConfigError("there are no rendered_frames; press Render in Parseq and export again.")
    if len(frames) > MAX_FRAMES:
        raise ConfigError(f"{len(frames)} frames; the most is {MAX_FRAMES}.")
    for index, frame in enumerate(frames):
        _number(frame.get("frame", 0), index, "frame")
    return sorted(frames, key=lambda frame: frame.get("frame", 0))


def _number(value: object, index: int, name: str) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and np.isfinite(float(value)):
            return float(value)
    except OverflowError:
        pass
    raise ConfigError(f"rendered_frames[{index}].{name}={str(value)[:40]!r} is not a number.")


def _prompts(found: Imported, frames: list[Mapping[str, Any]]) -> None:
    sides: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for index, frame in enumerate(frames):
        texts = split_negative(str(frame.get("deforum_prompt", frame.get("positive_prompt", ""))))
        if "negative_prompt" in frame and not texts[1]:
            texts = (texts[0], str(frame["negative_prompt"]))
        for side, text in zip(sides, texts, strict=True):
            words = found.words(text, f"prompt at frame {index}", index, len(frames) - 1)
            if not side or side[max(side)] != words:
                side[index] = words
    for name, side in (("prompt", sides[0]), ("negative", sides[1])):
        if any(side.values()):
            found.values[name] = prompt_track(side, mode="hold")


def _tracks(found: Imported, frames: list[Mapping[str, Any]], names: set[str]) -> None:
    redraw: dict[str, Any] = {}
    if "strength" in names:
        redraw["strength"] = _written(np.clip(1 - _column(frames, "strength"), 0, 1))
    for theirs, ours in _REDRAW.items():
        if theirs in names:
            redraw[ours] = _written(_column(frames, theirs))
    if "seed" in names:
        redraw |= {"seed": "schedule", "seeds": _written(np.round(_column(frames, "seed")))}
    if "scale" in names:
        found.values["guidance"] = _written(_column(frames, "scale"))
    if redraw:
        found.values["redraw"] = redraw
    in_3d = any(name.startswith("rotation_3d") or name == "translation_z" for name in names)
    mode = "3D" if in_3d and not {"angle", "zoom"} & names else _mode(frames, names)
    values: dict[str, Any] = {"dialect": "deforum", "mode": mode}
    flip = _FLIP if mode == "2D" and set(_FLIP) & names else ()
    for name in (*_CAMERA[mode], *flip, *(("fov",) if mode == "3D" else ())):
        if name in names:
            moved = _column(frames, f"{name}_delta" if f"{name}_delta" in frames[0] else name)
            if not np.all(moved == DeforumCamera.model_fields[name].default.constant):
                values[name] = _written(moved)
    if flip:
        values["enable_perspective_flip"] = True
    found.values["camera"] = values


def _mode(frames: list[Mapping[str, Any]], names: set[str]) -> str:
    """3D where something moves that only moves there."""
    for name in ("translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z"):
        if name in names and np.any(_column(frames, name) != 0):
            return "3D"
    return "2D"


def _column(frames: list[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """One value per frame; what is missing goes on as before."""
    values: list[float] = []
    for index, frame in enumerate(frames):
        values.append(_number(frame.get(name, values[-1] if values else 0.0), index, name))
    return np.array(values)


def _written(values_F: NDArray[np.float64]) -> Any:
    """A number, or `0:(1), 24:(2)` with the frames that are not on the line between their neighbours."""
    if np.ptp(values_F) == 0:
        return float(values_F[0])
    slack = 1e-9 * max(1.0, float(np.abs(values_F).max()))
    bend_F = np.concatenate([[True], np.abs(np.diff(values_F, 2)) > slack, [True]])
    at_K = _kept(values_F, np.flatnonzero(bend_F), slack)
    return ", ".join(f"{frame}:({plain(values_F[frame], 10)})" for frame in at_K)


def _kept(values_F: NDArray[np.float64], at_K: NDArray[np.intp], slack: float) -> NDArray[np.intp]:
    """The keys, if straight lines between them meet every frame; all frames otherwise (a slow curve)."""
    every = np.arange(len(values_F))
    between_F = np.interp(every, at_K, values_F[at_K])
    return at_K if np.all(np.abs(between_F - values_F) <= 10 * slack) else every
