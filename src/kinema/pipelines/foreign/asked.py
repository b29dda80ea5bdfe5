"""What a shot asks of another diffusers pipeline, against what that one can be told.

Whatever it cannot carry is refused by name, with the way out, before weights are read; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinema.core.errors import ConfigError, GeometryError, ModelError, unknown_name
from kinema.pipelines.card import MODES, Mode, ModelCard
from kinema.pipelines.foreign.card import LEARNED, calls_of, family_of
from kinema.pipelines.foreign.families import USUAL, Call, Family, Role
from kinema.pipelines.foreign.signature import COMPUTED, call_arguments
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.given import Given
from kinema.pipelines.plan import Plan, Prompts, Sampling
from kinema.pipelines.windows import Cover, plan_windows
from kinema.story.own_options import Options
from kinema.story.shot import Shot
from kinema.story.tracks import Schedule

OTHERS = "--model embedded, or a Wan checkpoint"
RAMP_ERROR = 1e-6
# What kinema itself tells a pipeline, or what has no place in a shot.
OURS = frozenset(USUAL.values()) | {
    "width", "height", "num_inference_steps", "generator", "output_type", "return_dict", "latents",
    "num_videos_per_prompt", "frame_rate", "fps", "frame_index", "min_guidance_scale", "max_guidance_scale",
    "denoise_strength", "prompt_2", "negative_prompt_2", "conditioning_scale",
}  # fmt: skip


def takes(call: Call, role: Role) -> str | None:
    """The pipeline's name for what a shot says; None where it has no such argument."""
    name = call.argument(role)
    return name if name in call_arguments(call.module, call.name) else None


def foreign_solver(card: ModelCard, name: str) -> str:
    """The solver's name; `ConfigError` with the nearest for one that the pipeline cannot run with."""
    names = family_of(card).solver_names
    if name not in names:
        raise unknown_name(f"solver of {card.id!r}", name, names)
    return name


def check_foreign_shot(shot: Shot, card: ModelCard) -> Shot:
    """The shot with the family's own guidance where it says none.

    Raises:
        ConfigError: a setting of kinema's sampler, which another pipeline has no place for.
    """
    family, default = family_of(card), type(shot).model_fields
    refused = ["grid", "guidance_interval", "guidance_method", "camera", "loop"]
    refused += ["shift"] if not family.shift else []
    refused += [] if family.loras else ["loras"]
    refused += [] if family.travel else ["blend", "windows"]
    if not any(takes(call, "rescale") for call in calls_of(card)):
        refused.append("guidance_rescale")
    for name in refused:
        if getattr(shot, name) != default[name].default:
            raise ConfigError(
                f"{name} is not carried by {card.id!r}: {family.title} runs in diffusers' own pipeline, "
                f"which has no place for it. Leave it out, or use {OTHERS}."
            )
    if shot.source is not None and shot.source.mask is not None:
        other = "control: {path: CLIP, mask: FILE}" if family.control else "one of kinema's own models"
        raise ConfigError(f"source.mask is not carried by {card.id!r}; use {other}.")
    if shot.blend == "velocity":
        raise ConfigError(f"blend: velocity is not for {card.id!r}; write blend: embedding or slerp.")
    if shot.guidance is None and family.ramp is not None:
        low, high = family.ramp
        return shot.with_(guidance=Schedule({0: low, -1: high}))
    return shot


def needed(given: Given, geometry: Geometry) -> frozenset[Mode]:
    """The modes that a shot is made of."""
    found: set[Mode] = {"video"} if given.source is not None else set()
    if given.extend is not None:
        found.add("extend")
    places = {held.latent for held in given.held}
    if places:
        last = places <= {0, geometry.latent_frames - 1} and 0 in places
        found.add("first" if places == {0} else "last" if last else "keyframes")
    if any(held.strength < 1 for held in given.held):
        found.add("strength")
    return frozenset(found or {"image" if geometry.keep == 1 else "text"})


def call_for(card: ModelCard, modes: frozenset[Mode]) -> Call:
    """The pipeline that does all of these at once.

    Raises:
        ModelError: none does.
    """
    for call in calls_of(card):
        if modes <= call.modes:
            return call
    wanted = " and ".join(MODES[mode] for mode in MODES if mode in modes)
    raise ModelError(f"model {card.id!r} cannot do {wanted} in one shot; use {OTHERS}, or one of them.")


def call_of(plan: Plan, card: ModelCard) -> Call:
    """The pipeline that renders a plan."""
    return call_for(card, needed(plan.given, plan.geometry))


def plan_foreign(
    shot: Shot,
    card: ModelCard,
    geometry: Geometry,
    given: Given,
    sides: tuple[Prompts, Prompts],
    sampling: Sampling,
) -> tuple[Cover | None, Options, tuple[str, ...]]:
    """Windows, the pipeline's own options, and what the user should know.

    Raises:
        ConfigError: words, scales or options that the pipeline does not read.
        GeometryError: another size than the one that the model has positions for.
        ModelError: modes that no one pipeline does at once.
    """
    _check_size(geometry, card)
    family, call = family_of(card), call_for(card, needed(given, geometry))
    options = _options(shot, card, family, call)
    for name, side in zip(("prompt", "negative"), sides, strict=True):
        _check_words(name, side, card, family)
    if _says(sides[0]) and takes(call, "prompt") is None:
        raise ConfigError(
            f"{family.title} reads no prompt: it makes a clip of its picture alone; leave the prompt out, or "
            f"use {OTHERS}."
        )
    _check_negative(sides[1], card, family, call, sampling, options)
    _check_guidance(sampling, card, family)
    _check_context(shot, geometry, call, card)
    windows, notes = _windows(shot, card, geometry, sides[0])
    if geometry.fps != card.defaults.fps and takes(call, "fps") is None:
        rate = (
            f"{family.title} is not told a rate: it moves as for {card.defaults.fps} fps, and the file plays "
            f"{geometry.fps}."
        )
        notes = (*notes, rate)
    return windows, options, notes


def _windows(
    shot: Shot, card: ModelCard, geometry: Geometry, prompts: Prompts
) -> tuple[Cover | None, tuple[str, ...]]:
    """As `windows.plan_windows`; only a family whose clips may be longer than the model has any."""
    family, learned = family_of(card), card.defaults.frames
    if not family.travel:
        if geometry.frames <= learned:
            return None, ()
        return None, (f"{geometry.frames} frames are sampled at once by a model that learned {learned}.",)
    asked = shot.windows
    if asked is not None and asked.kind != "fuse":
        raise ConfigError(
            f"windows: {asked.kind} is not for {card.id!r}, whose windows are fused; write fuse."
        )
    return plan_windows(shot, card, geometry, prompts.weights)


def _says(side: Prompts) -> bool:
    return any(text.strip() for spans in side.spans for text, _ in spans)


def _check_words(name: str, side: Prompts, card: ModelCard, family: Family) -> None:
    if any(weight != 1.0 for spans in side.spans for _, weight in spans):
        raise ConfigError(
            f"weights such as (word:1.3) are not read by {card.id!r}; write the {name} without them."
        )
    if len(side.spans) > 1 and not family.travel:
        raise ConfigError(
            f"{name} changes over the clip, and {family.title} reads one for all frames; write one text, or "
            f"use AnimateDiff, {OTHERS}."
        )


def _check_negative(
    side: Prompts, card: ModelCard, family: Family, call: Call, sampling: Sampling, options: Options
) -> None:
    if not _says(side):
        return
    if takes(call, "negative") is None:
        raise ConfigError(f"{family.title} has no negative prompt; leave it out.")
    if family.extra and float(dict(options).get(family.extra, 1)) <= 1:
        raise ConfigError(
            f"negative: guidance is an input of {family.title}'s network, and a negative prompt acts through "
            f"a second forward: add --option {family.extra}=4, or leave negative out."
        )
    if not family.extra and max(sampling.guidance) <= 1:
        raise ConfigError(
            f"negative acts through guidance above 1, and guidance is {max(sampling.guidance):g}; "
            f"leave one of them out for {card.id!r}."
        )


def _check_guidance(sampling: Sampling, card: ModelCard, family: Family) -> None:
    scales = sampling.guidance
    first, last, count = scales[0], scales[-1], max(len(scales) - 1, 1)
    line = [first + (last - first) * i / count for i in range(len(scales))]
    straight = all(abs(a - b) <= RAMP_ERROR * max(1, abs(a)) for a, b in zip(line, scales, strict=True))
    if family.ramp is not None and not straight:
        raise ConfigError(
            f"guidance of {family.title} runs in a straight line from the first frame to the last; write one "
            "number, or two keys such as 0:(1), -1:(3)."
        )
    if family.ramp is None and len(set(scales)) > 1:
        raise ConfigError(
            f"guidance over frames is not carried by {card.id!r}: its pipeline has one scale; write one "
            f"number, or use {OTHERS}."
        )


def _check_size(geometry: Geometry, card: ModelCard) -> None:
    own = card.defaults.width, card.defaults.height
    if card.transformer.get(LEARNED) and (geometry.width, geometry.height) != own:
        raise GeometryError(
            f"{geometry.width}x{geometry.height}: {card.id!r} has learned positions for {own[0]}x{own[1]} "
            f"and makes no other size; ask for that one, or use {OTHERS}."
        )


def _check_context(shot: Shot, geometry: Geometry, call: Call, card: ModelCard) -> None:
    if shot.extend is not None and geometry.context > 1 and call.pictures not in ("frames", "masked"):
        raise GeometryError(
            f"context={geometry.context}: {card.id!r} goes on from the last frame alone; leave context out."
        )


def _options(shot: Shot, card: ModelCard, family: Family, call: Call) -> Options:
    """Arguments that the shot gives by the pipeline's own names, checked against their defaults."""
    known = option_defaults(family, call)
    for name, value in shot.options:
        if name not in known:
            raise unknown_name(f"option of {call.name}", name, known)
        _check_type(name, value, known[name], call)
    return shot.options


def option_defaults(family: Family, call: Call) -> Mapping[str, Any]:
    """Options of a call with their defaults: plain values that kinema says nothing of itself."""
    plain = (bool, int, float, str)
    return {
        name: default
        for name, default in call_arguments(call.module, call.name).items()
        if name in family.options
        or (name not in OURS and default is not COMPUTED and isinstance(default, plain))
    }


def _check_type(name: str, value: Any, default: Any, call: Call) -> None:
    kind = float if default is None else type(default)
    fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        fits = True
    if not fits:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ConfigError(
            f"option {name}={value!r} of {call.name} is not {words[kind]}; its default is {default!r}."
        )
