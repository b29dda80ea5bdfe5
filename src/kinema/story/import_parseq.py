"""Parseq's exports (JSON with `rendered_frames`) as a shot in frame-by-frame mode.

Every value of every frame is in such a file, so schedules come out as numbers, those in line with their
neighbours left out. Parseq writes a `_delta` beside every field: at frame 0 its value, then its differences.
As in Deforum those of moves are played, and all else is taken plain; what the first frame has are the fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.imported import Imported, plain, prompt_track, split_negative
from kinema.story.redraw import MAX_CADENCE

MAX_FRAMES = 100_000
MAX_LINES = 200

_MOVES = frozenset({
    "angle", "zoom", "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y",
    "rotation_3d_z", "perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma",
})  # fmt: skip
_CAMERA = {
    "2D": ("angle", "zoom", "translation_x", "translation_y", "transform_center_x", "transform_center_y"),
    "3D": (
        "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z",
        "fov", "aspect_ratio", "near", "far",
    ),
}  # fmt: skip
_FLIP = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
_REDRAW = {"noise": "noise", "noise_multiplier": "noise_multiplier", "contrast": "contrast"}
_SHARPEN = ("antiblur_amount", "antiblur_sigma", "antiblur_threshold", "antiblur_kernel")
_WORDS = frozenset({"frame", "deforum_prompt", "positive_prompt", "negative_prompt"})
_ELSEWHERE = {
    "sampler": "write solver", "sampler_schedule": "write solver", "clipskip": "clip skip",
    "cadence_flow_factor": "optical flow", "redo_flow_factor": "optical flow",
}  # fmt: skip
_FAMILIES = {
    "prompt_weight_": "in the prompts of the frames already", "hybrid_": "no driving video here",
    "cn_": "ControlNet; see control: in docs/frame-by-frame.md",
    "guided_": "guided images; write keyframes, and approach",
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
    names = {name for name in frames[0] if name not in _WORDS and not name.endswith(("_delta", "_pc"))}
    redraw = dict(_redraw(found, frames, names)) | _cadence(found, options)
    if redraw:
        found.values["redraw"] = redraw
    if "scale" in names:
        found.values["guidance"] = _written(_column(frames, "scale"))
    found.values["camera"] = _camera(found, frames, names)
    _left(found, names, export.get("managedFields"))
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


def _redraw(found: Imported, frames: list[Mapping[str, Any]], names: set[str]) -> Iterator[tuple[str, Any]]:
    """The entries of `redraw`; Deforum cuts the fractions of seeds and steps off."""
    if "strength" in names:
        yield "strength", _written(np.clip(1 - _column(frames, "strength"), 0, 1))
    for theirs, ours in _REDRAW.items():
        if theirs in names:
            yield ours, _written(_column(frames, theirs))
    if "contrast" in names and np.any(_column(frames, "contrast") != 1):
        found.leave("contrast", "here about the picture's mean; there about black, so light too")
    if "steps_schedule" in names:
        yield "steps", _written(np.trunc(_column(frames, "steps_schedule")))
    if "seed" in names:
        yield "seed", "schedule"
        yield "seeds", _written(np.trunc(_column(frames, "seed")))
    if "subseed_strength" in names and np.any(_column(frames, "subseed_strength") != 0):
        found.leave("subseed", "its noise is mixed in between whole seeds; use redraw.seed: travel")
    yield from _sharpening(found, frames, names)


def _sharpening(
    found: Imported, frames: list[Mapping[str, Any]], names: set[str]
) -> Iterator[tuple[str, Any]]:
    if "antiblur_amount" not in names:
        for name in sorted(names & {*_SHARPEN[1:]}):
            found.leave(name, "there is no antiblur_amount to go with it; write redraw.sharpen")
        return
    amount_F = np.maximum(_column(frames, "antiblur_amount"), 0)
    if not amount_F.any():
        return
    yield "sharpen", _written(amount_F)
    if "antiblur_kernel" in names:
        found.leave("antiblur_kernel", "the blur is told by sharpen_radius alone")
    for theirs, ours, scale, low in (
        ("antiblur_sigma", "sharpen_radius", 1.0, 1e-3),
        ("antiblur_threshold", "sharpen_threshold", 1 / 255, 0.0),
    ):
        if theirs not in names:
            continue
        value = _written(_column(frames, theirs) * scale)
        high = 64.0 if ours == "sharpen_radius" else 1.0
        if isinstance(value, str):
            found.leave(theirs, f"{ours} does not run over frames here; left at its default")
        elif low <= value <= high:
            yield ours, value
        else:
            found.leave(theirs, f"{ours} is {low:g} to {high:g} here; left at its default")


def _cadence(found: Imported, options: Mapping[str, Any]) -> dict[str, int]:
    written = options.get("cadence")
    if not written:
        return {}
    if isinstance(written, int | float) and 1 <= written <= MAX_CADENCE:
        return {"cadence": int(written)}
    found.leave("cadence", f"{str(written)[:40]} is not one of 1 to {MAX_CADENCE}; write redraw.cadence")
    return {}


def _camera(found: Imported, frames: list[Mapping[str, Any]], names: set[str]) -> dict[str, Any]:
    played = {name: _played(frames, name) for name in {*_CAMERA["2D"], *_CAMERA["3D"], *_FLIP} & names}
    # moves begin at the second frame: what the first has of a difference is the value itself
    acts = {
        name
        for name, values_F in played.items()
        if np.any(values_F[int(name in _MOVES) :] != DeforumCamera.model_fields[name].default.constant)
    }
    solid = {"translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z"}
    mode = "3D" if solid & acts or (solid & names and not {"angle", "zoom"} & names) else "2D"
    flipped = mode == "2D" and bool({*_FLIP[:3]} & acts)
    values: dict[str, Any] = {"dialect": "deforum", "mode": mode}
    for name in (*_CAMERA[mode], *(_FLIP if flipped else ())):
        if name in acts:
            values[name] = _written(played[name])
    if flipped:
        values["enable_perspective_flip"] = True
    for name in sorted(acts - values.keys()):
        other = "a perspective flip in 2D" if name in _FLIP else "3D" if mode == "2D" else "2D"
        found.leave(name, f"only in {other}; the moves make it {mode}")
    return values


def _left(found: Imported, names: set[str], managed: object) -> None:
    """A line for each field that has no place here."""
    taken = {*_CAMERA["2D"], *_CAMERA["3D"], *_FLIP, *_REDRAW, *_SHARPEN}
    taken |= {"strength", "scale", "seed", "subseed", "subseed_strength", "steps_schedule"}
    missing = {name for name in managed if isinstance(name, str)} if isinstance(managed, list) else set()
    missing -= names
    left = sorted(names - taken | missing)
    for name in left[:MAX_LINES]:
        family = next((why for start, why in _FAMILIES.items() if name.startswith(start)), None)
        why = _ELSEWHERE.get(name) or family or "nothing here takes it"
        found.leave(name[:40], "a managed field that the frames do not have" if name in missing else why)
    if len(left) > MAX_LINES:
        found.leave("fields", f"{len(left) - MAX_LINES} more that have no place here")


def _played(frames: list[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """What Deforum plays of a field of the camera, one value per frame."""
    moves = name in _MOVES and f"{name}_delta" in frames[0]
    return _column(frames, f"{name}_delta" if moves else name)


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
