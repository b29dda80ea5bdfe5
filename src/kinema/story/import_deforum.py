"""Deforum's settings files (`*_settings.txt`, flat JSON) as a shot in frame-by-frame mode.

Schedules keep Deforum's notation and its values (`dialect: deforum`); only `strength`, which is the other way
round here, and the sharpening threshold, which counts to 255 there, are rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kinema.core.errors import ConfigError
from kinema.story import deforum_renames
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.dialects_deforum import DeforumText
from kinema.story.files import parse_json
from kinema.story.import_deforum_prompts import frame_of, read_prompts
from kinema.story.imported import Imported, plain
from kinema.story.tracks import Schedule

_SOLVERS = {
    "euler": "euler", "euler a": "euler-ancestral", "heun": "heun", "dpm++ 2m": "dpm++2m",
    "dpm++ 2m karras": "dpm++2m-karras", "dpm++ 2m sde": "dpm++2m-sde",
    "dpm++ 2m sde karras": "dpm++2m-sde-karras", "unipc": "unipc", "lcm": "lcm", "ddim": "ddim",
}  # fmt: skip
_MATCHED = ("HSV", "LAB", "RGB")
_SEEDS = ("iter", "fixed", "random", "ladder", "alternate", "schedule")
_SEED_SCHEDULE = '0:(s), 1:(-1), "max_f-2":(-1), "max_f-1":(s)'
_CAMERA = {
    "2D": ("angle", "zoom", "translation_x", "translation_y", "transform_center_x", "transform_center_y"),
    "3D": (
        "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z",
        "fov_schedule", "aspect_ratio_schedule",
    ),
}  # fmt: skip
_FLIP = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
_SWITCHES = {
    "enable_subseed_scheduling": "subseed schedules; use seed: travel with seeds",
    "enable_checkpoint_scheduling": "checkpoint_schedule; use a storyboard with a model per shot",
    "enable_clipskip_scheduling": "clip skip",
    "enable_ddim_eta_scheduling": "ddim_eta_schedule",
    "enable_ancestral_eta_scheduling": "ancestral_eta_schedule",
    "use_noise_mask": "noise masks",
    "use_looper": "guided images are mixed in on a curve of their own; here they are keyframes, see approach",
    "optical_flow_cadence": "in-between frames are warped by the camera and blended, not by optical flow",
    "optical_flow_redo_generation": "redrawing by optical flow",
    "hybrid_composite": "compositing with a driving video",
    "hybrid_motion": "motion from a driving video; restyle does that inside a video model",
    "color_force_grayscale": "grayscale",
    "parseq_manifest": "a Parseq manifest; import its export as well",
    "frame_interpolation_engine": "frame interpolation by that engine; see fps in docs/long-clips.md",
    "init_video": "a video as source of frames; use source:",
}
_FED_BACK = (
    "use_noise_mask", "optical_flow_cadence", "optical_flow_redo_generation", "hybrid_composite",
    "hybrid_motion", "color_force_grayscale", "enable_ddim_eta_scheduling", "enable_ancestral_eta_scheduling",
)  # fmt: skip
"""Switches that Deforum does not look at in Interpolation mode."""
_OFF = (None, False, "", "None", "none", 0, "0", "Off")


def read(settings: Mapping[str, Any]) -> Imported:
    """The shot that the settings describe.

    Raises:
        ConfigError: a schedule or a key that Deforum itself could not read; the setting is named.
    """
    found = Imported("Deforum settings")
    settings = deforum_renames.current(settings)
    frames = int(_number(settings, "max_frames", 120))
    mode = str(settings.get("animation_mode", "2D"))
    found.values |= {"dialect": "deforum", "mode": "frame_by_frame", "frames": frames}
    _basics(found, settings)
    seed = int(_number(settings, "seed", -1))
    read_prompts(found, settings, frames=frames, seed=seed, travel=_independent(settings))
    found.values["redraw"] = dict(_redraw(found, settings))
    _pictures(found, settings, frames)
    if mode in _CAMERA:
        found.values["camera"] = _camera(found, settings, mode)
    elif not _independent(settings):
        found.leave("animation_mode", f"{mode} is none of 2D, 3D and Interpolation; the camera stands still")
    _upscale(found, settings)
    _switches(found, settings)
    return found


def _independent(settings: Mapping[str, Any]) -> bool:
    """Whether every frame is drawn on its own, without a camera and what goes with it."""
    return settings.get("animation_mode") == "Interpolation"


def _guided(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("use_looper")) and str(settings.get("animation_mode", "2D")) in _CAMERA


def _number(settings: Mapping[str, Any], name: str, default: float) -> float:
    return _finite(settings.get(name, default), name)


def _finite(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}={str(value)[:40]!r} is not a number.")
    return number


def _basics(found: Imported, settings: Mapping[str, Any]) -> None:
    for theirs, ours in (("W", "width"), ("H", "height"), ("steps", "steps"), ("fps", "fps")):
        if theirs in settings:
            number = _number(settings, theirs, 0)
            found.values[ours] = int(number) if number == int(number) else number
    seed = int(_number(settings, "seed", -1))
    if seed >= 0:
        found.values["seed"] = seed
    if "sampler" in settings:
        solver = solver_of(found, "sampler", str(settings["sampler"]))
        found.values |= {"solver": solver} if solver else {}
    if "cfg_scale_schedule" in settings:
        found.values["guidance"] = _track(settings["cfg_scale_schedule"], "cfg_scale_schedule")
    model = settings.get("sd_model_name")
    found.leave("sd_model_name", f"{model or 'the checkpoint'}; write model: with a folder or hub id")
    audio = settings.get("soundtrack_path")
    if settings.get("add_soundtrack") == "File" and audio:
        found.values["audio"] = str(audio)


def solver_of(found: Imported, name: str, theirs: str, *, karras: bool = False) -> str | None:
    """Our solver for one that the web UI has under that name; None, and a line in the list, for others.

    With `karras` it is the one whose steps are spaced so, where there is one.
    """
    known = theirs.strip().lower()
    solver = _SOLVERS.get(f"{known} karras" if karras else known, _SOLVERS.get(known))
    if solver is not None:
        found.tell_spacing(name, solver)
    else:
        found.leave(name, f"there is no solver {theirs!r}; kinema models lists them")
    return solver


def _track(text: Any, name: str) -> Any:
    """A schedule string, or the number that it is."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return text
    try:
        schedule = Schedule.parse(str(text), "deforum")
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return str(text) if schedule.constant is None else schedule.constant


def _redraw(found: Imported, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of `redraw`."""
    if _independent(settings):
        yield from (("strength", 1), ("cadence", 1), ("colour", "off"))
    else:
        yield from _fed_back(found, settings)
    yield from _seeds(found, settings)
    if settings.get("enable_steps_scheduling") and "steps_schedule" in settings:
        yield "steps", _track(settings["steps_schedule"], "steps_schedule")
    named = settings.get("enable_sampler_scheduling") and "sampler_schedule" in settings
    if named and (names := _solvers(found, settings)):
        yield "solver", names


def _fed_back(found: Imported, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is done to the frame before and with it."""
    strength = settings.get("strength_schedule", "0:(0.65)")
    yield "strength", _turned(strength, "strength_schedule", -1.0, 1.0, limit=1.0)
    cadence = int(_number(settings, "diffusion_cadence", 1))
    yield "cadence", max(1, cadence)
    if "noise_schedule" in settings:
        yield "noise", _track(settings["noise_schedule"], "noise_schedule")
    if (kind := str(settings.get("noise_type", "uniform"))) in ("perlin", "uniform"):
        yield "noise_kind", kind
    if settings.get("enable_noise_multiplier_scheduling", True) and "noise_multiplier_schedule" in settings:
        yield "noise_multiplier", _track(settings["noise_multiplier_schedule"], "noise_multiplier_schedule")
    if "contrast_schedule" in settings:
        contrast = _track(settings["contrast_schedule"], "contrast_schedule")
        yield "contrast", contrast
        if contrast != 1:
            found.leave("contrast_schedule", "here about the picture's mean; there about black, so light too")
    yield from _sharpening(found, settings)
    yield from _colours(found, settings)
    if settings.get("use_mask") and settings.get("mask_file"):
        yield "mask", str(settings["mask_file"])
        yield "mask_invert", bool(settings.get("invert_mask"))
        if blur := _number(settings, "mask_overlay_blur", 0):
            yield "mask_feather", blur


def _solvers(found: Imported, settings: Mapping[str, Any]) -> dict[int, str]:
    """Solvers by frame from `0: ("Euler a"), max_f/2: ("Heun")`; those that there are."""
    frames, seed = int(_number(settings, "max_frames", 120)), int(_number(settings, "seed", -1))
    try:
        read = DeforumText.parse(str(settings["sampler_schedule"]), words=True).texts(frames, seed)
    except ConfigError as error:
        raise ConfigError(f"sampler_schedule: {error}") from None
    ours = {frame: solver_of(found, "sampler_schedule", theirs) for frame, theirs in read.items()}
    return {frame: solver for frame, solver in ours.items() if solver is not None}


def _sharpening(found: Imported, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    amount = _track(settings.get("amount_schedule", 0), "amount_schedule")
    if amount == 0:
        return
    yield "sharpen", amount
    for theirs, ours, scale in (
        ("sigma_schedule", "sharpen_radius", 1.0),
        ("threshold_schedule", "sharpen_threshold", 1 / 255),
    ):
        value = _track(settings.get(theirs, 1.0 if scale == 1.0 else 0.0), theirs)
        if isinstance(value, str):
            found.leave(theirs, f"{ours} does not run over frames here; left at its default")
        elif value:
            yield ours, min(_finite(value, theirs) * scale, 64.0)


def _colours(found: Imported, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    theirs = str(settings.get("color_coherence", "LAB"))
    if theirs.lower() == "none":
        yield "colour", "off"
        return
    yield "colour", "histogram"
    yield "colour_window", 1
    if theirs == "Image" and settings.get("color_coherence_image_path"):
        yield "colour_from", str(settings["color_coherence_image_path"])
    elif theirs not in _MATCHED:
        found.leave("color_coherence", f"{theirs}; colours follow the first frame")


def _seeds(found: Imported, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    rule = "schedule" if _guided(settings) else str(settings.get("seed_behavior", "iter"))
    if rule not in _SEEDS:
        found.leave("seed_behavior", f"{rule}; iter is used")
        rule = "iter"
    yield "seed", rule
    every = int(_number(settings, "seed_iter_N", 1))
    if rule == "iter" and every > 1:
        yield "seed_every", every
    if rule == "schedule":
        yield "seeds", _track(settings.get("seed_schedule", _SEED_SCHEDULE), "seed_schedule")


def _camera(found: Imported, settings: Mapping[str, Any], mode: str) -> dict[str, Any]:
    values: dict[str, Any] = {"dialect": "deforum", "mode": mode}
    flipped = bool(settings.get("enable_perspective_flip"))
    for name in (*_CAMERA[mode], *(_FLIP if flipped else ())):
        ours = name.removesuffix("_schedule")
        if name not in settings:
            continue
        track = _track(settings[name], name)
        if track != DeforumCamera.model_fields[ours].default.constant:
            values[ours] = track
    if flipped:
        values["enable_perspective_flip"] = True
    if mode == "3D" and settings.get("aspect_ratio_use_old_formula"):
        values["aspect_ratio"] = _number(settings, "W", 512) / _number(settings, "H", 512)
    looks = ("border",) if mode == "2D" else ("padding_mode", "sampling_mode", *(("border",) * flipped))
    values |= {name: settings[name] for name in looks if name in settings}
    if mode == "3D" and settings.get("use_depth_warping", True):
        algorithm = settings.get("depth_algorithm", "the depth model")
        found.leave("depth_algorithm", f"{algorithm}; write camera.depth with a depth model, or it is flat")
    return values


def _pictures(found: Imported, settings: Mapping[str, Any], frames: int) -> None:
    if _guided(settings):
        if guides := _guides(found, settings.get("init_images"), frames):
            found.values["keyframes"] = guides
    elif settings.get("use_init") and settings.get("init_image"):
        if _independent(settings):
            found.leave("init_image", "every frame is drawn from it there, inside the mask; here from noise")
            return
        strength = min(max(_number(settings, "strength", 1.0), 0.0), 1.0)
        first = {"image": str(settings["init_image"]), "frame": 0, "strength": strength}
        found.values["keyframes"] = [first]


def _guides(found: Imported, written: Any, frames: int) -> list[dict[str, Any]]:
    """Guided images, a mapping from frames to pictures, which a settings file holds as the text of one."""
    guides = written
    if isinstance(written, str):
        try:
            guides = parse_json(written)
        except ConfigError as error:
            found.leave("init_images", f"{error}; write the pictures under keyframes")
            return []
    if not isinstance(guides, Mapping):
        found.leave("init_images", "not a mapping of frames to pictures; write them under keyframes")
        return []
    held: dict[int, str] = {}
    for key, path in guides.items():
        frame = frame_of(str(key), frames - 1, 0, "init_images")
        if 0 <= frame < frames:
            held[frame] = str(path)
        else:
            found.leave(f"init_images {key}", f"frame {frame} is outside the clip of {frames} frames")
    return [{"image": path, "frame": frame} for frame, path in sorted(held.items())]


def _upscale(found: Imported, settings: Mapping[str, Any]) -> None:
    """`r_upscale_factor` is x2, x3 or x4; the network that it is done with there is not at hand."""
    if settings.get("r_upscale_video") in _OFF:
        return
    written = str(settings.get("r_upscale_factor", "x2")).strip().lower()
    if written not in ("x2", "x3", "x4"):
        return found.leave("r_upscale_factor", f"{written[:40]} is not one of x2, x3 and x4; write upscale:")
    found.values["upscale"] = {"scale": int(written[1:])}
    network = settings.get("r_upscale_model") or "a network"
    found.leave(
        "r_upscale_model", f"{network}; frames are resampled, or write its file: upscale: FILE.safetensors"
    )


def _switches(found: Imported, settings: Mapping[str, Any]) -> None:
    idle = {*(_FED_BACK if _independent(settings) else ()), *(() if _guided(settings) else ("use_looper",))}
    for name, what in _SWITCHES.items():
        if name not in idle and settings.get(name) not in _OFF:
            found.leave(name, what)
    for name in deforum_renames.REMOVED:
        if settings.get(name) not in _OFF:
            found.leave(name, "Deforum no longer has it either")
    for name, value in settings.items():
        if name.startswith("cn_") and name.endswith("_enabled") and value:
            found.leave(name, "ControlNet")


def _turned(text: Any, name: str, factor: float, offset: float, *, limit: float) -> Any:
    """`offset + factor * v` of a schedule, kept in 0..limit; numbers stay numbers, and still tween."""
    if isinstance(text, int | float):
        return min(max(round(offset + factor * _finite(text, name), 12), 0.0), limit)
    try:
        read = DeforumText.parse(str(text))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    parts = []
    for key in read.keys:
        if isinstance(key.value, ConfigError):
            raise ConfigError(f"{name}: {key.value}")
        assert not isinstance(key.value, str)
        if isinstance(key.value, float):
            turned = plain(min(max(round(offset + factor * key.value, 12), 0.0), limit))
        else:
            turned = f"minimum(maximum({offset:g}{factor:+g}*({key.value.text}), 0), {limit:g})"
        parts.append(f"{key.written}:({turned})")
    return _track(", ".join(parts), name)
