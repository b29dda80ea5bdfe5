"""A shot as another program would make it: its defaults, its rounding, its noise, its reading of the prompt.

`match: wan` is the programs of Wan's makers (`generate.py` of Wan-Video/Wan2.1 and Wan-Video/Wan2.2),
`match: diffusers` is `WanPipeline` and `WanImageToVideoPipeline` of diffusers 0.42. What a shot says itself
wins over either. Both read a prompt literally, cleaned and cut to 512 tokens, and draw one noise for the
whole clip from the seed; the network sees the whole numbers that their schedulers hand out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from kinema.core.errors import ConfigError
from kinema.pipelines.card import Defaults, ModelCard
from kinema.story.shot import Shot

Match = Literal["wan", "diffusers"]

# `sample_neg_prompt` of Wan's configurations: what its programs put in place of an empty negative prompt.
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
SHAKING, CUTTING = "镜头晃动，", "镜头切换，"
NARROW = 1536  # width of the 1.3B transformer, which is for 480p alone

# The grids that each program spaces a solver's steps with.
GRIDS = {
    "wan": {"unipc": "wan", "dpm++2m": "wan-dpm++"},
    "diffusers": {"unipc": "diffusers", "dpm++2m": "diffusers-dpm++"},
}
OTHER_GRID = {"wan": "wan-euler", "diffusers": "diffusers-euler"}


@dataclass(frozen=True, slots=True)
class Matched:
    """A shot and its model's card with another program's values in place of our own.

    Attributes:
        shot: with that program's negative prompt, fit and length where it said nothing.
        card: with that program's defaults and rounding of sizes.
        notes: what was rounded.
    """

    shot: Shot
    card: ModelCard
    notes: tuple[str, ...] = ()


def matched(shot: Shot, card: ModelCard) -> Matched:
    """The shot on its model as the program that it names would make it; as it is where it names none.

    Raises:
        ConfigError: the model is not one that the program runs.
    """
    if shot.match is None:
        return Matched(shot, card)
    if card.family != "wan" or shot.mode != "joint":
        what = f"model {card.id!r}" if card.family != "wan" else f"mode: {shot.mode}"
        raise ConfigError(
            f"match: {shot.match} is for Wan checkpoints whose frames are sampled together, not for {what}; "
            "leave match out."
        )
    frames = _LENGTHS[shot.match](shot, card)
    notes = () if frames == shot.frames else (f"{frames} frames, as {shot.match} rounds {shot.frames}.",)
    size, said = _floored_size(shot, card)
    changes: dict[str, Any] = {} if frames == shot.frames else {"frames": frames}
    changes |= size
    if "negative" not in shot.model_fields_set and shot.match == "wan":
        changes["negative"] = _negative(card)
    if "fit" not in shot.model_fields_set:
        changes["fit"] = "crop" if shot.match == "wan" and card.mechanism == "levels" else "stretch"
    defaults = _DEFAULTS[shot.match](card)
    if shot.solver is not None:
        defaults = replace(defaults, grid=GRIDS[shot.match].get(shot.solver, OTHER_GRID[shot.match]))
    changes |= _scales(shot, card)
    rounding = shot.match if shot.match != "wan" or card.mechanism != "levels" else "wan-ratio"
    card = replace(card, defaults=defaults, rounding=rounding)
    return Matched(shot.with_(**changes) if changes else shot, card, notes + said)


def _scales(shot: Shot, card: ModelCard) -> dict[str, Any]:
    """One scale given is both transformers'; in diffusers none acts where the first is no more than 1."""
    constant = None if shot.guidance is None else shot.guidance.constant
    if shot.match == "diffusers" and constant is not None and constant <= 1:
        return {"guidance": 1} | ({} if card.boundary is None else {"guidance_low": 1})
    if card.boundary is None or shot.guidance is None or shot.guidance_low is not None:
        return {}
    return {"guidance_low": shot.guidance}


def _wan(card: ModelCard) -> Defaults:
    """Of `generate.py`: its arguments' defaults, and the model's configuration in Wan 2.2."""
    base = Defaults(
        width=1280,
        height=720,
        frames=81,
        fps="16",
        steps=50,
        solver="unipc",
        grid="wan",
        shift=5.0,
        guidance=5.0,
    )
    if card.mechanism == "levels":
        return replace(base, height=704, frames=121, fps="24")
    if card.boundary is not None:
        if card.mechanism == "none":
            return replace(base, steps=40, shift=12.0, guidance=4.0, guidance_low=3.0)
        return replace(base, steps=40, guidance=3.5, guidance_low=3.5)
    if card.mechanism == "none":
        narrow = card.transformer.get("num_attention_heads", 0) * card.transformer.get(
            "attention_head_dim", 0
        )
        return replace(base, width=832, height=480) if narrow == NARROW else base
    if "last" in card.modes:
        return replace(base, shift=16.0)
    return replace(base, steps=40, shift_480=3.0)


def _diffusers(card: ModelCard) -> Defaults:
    """Of the pipelines' calls; the sampler is the checkpoint's own, in its scheduler's configuration."""
    return Defaults(
        width=832,
        height=480,
        frames=81,
        fps="16",
        steps=50,
        solver=card.defaults.solver,
        grid=card.defaults.grid,
        shift=card.defaults.shift,
        guidance=5.0,
        guidance_low=None if card.boundary is None else 5.0,
    )


def _negative(card: ModelCard) -> str:
    """Wan 2.1's picture models have a word more in front, its first-last-frame model two."""
    if card.mechanism != "channels" or card.boundary is not None:
        return NEGATIVE
    return CUTTING * ("last" in card.modes) + SHAKING + NEGATIVE


def _wan_length(shot: Shot, card: ModelCard) -> int | None:
    """As many frames as the latent frames of `(F - 1) // 4 + 1` decode to; pictures need a legal length."""
    if shot.frames is None or shot.length_fit or card.mechanism == "channels":
        return shot.frames
    return (shot.frames - 1) // card.stride.time * card.stride.time + 1


def _diffusers_length(shot: Shot, card: ModelCard) -> int | None:
    """`F // 4 * 4 + 1` where F is not legal."""
    time = card.stride.time
    if shot.frames is None or shot.length_fit or shot.frames % time == 1:
        return shot.frames
    return max(shot.frames // time * time + 1, 1)


def _floored_size(shot: Shot, card: ModelCard) -> tuple[dict[str, int], tuple[str, ...]]:
    """diffusers takes multiples of 16 and rounds them down to the model's own."""
    sides = {"width": shot.width, "height": shot.height}
    changes = {
        name: side // card.multiple * card.multiple
        for name, side in sides.items()
        if shot.match == "diffusers" and side and side % 16 == 0 and side % card.multiple
    }
    notes = tuple(f"{name} {side}, as diffusers rounds {sides[name]}." for name, side in changes.items())
    return {name: side for name, side in changes.items() if side}, notes


_DEFAULTS: dict[Match, Callable[[ModelCard], Defaults]] = {"wan": _wan, "diffusers": _diffusers}
_LENGTHS: dict[Match, Callable[[Shot, ModelCard], int | None]] = {
    "wan": _wan_length,
    "diffusers": _diffusers_length,
}
