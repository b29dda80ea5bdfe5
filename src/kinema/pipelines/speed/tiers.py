"""A shot's speed made concrete: the steps and shortcuts of its tier, or why there are none.

A tier is what was measured fastest on the very model, against the exact run with the shot's own settings. A
model that was not measured has none; what makes the measurement meaningless turns a tier off, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinema.core.errors import ConfigError
from kinema.core.imports import importing
from kinema.pipelines.card import Defaults, ModelCard
from kinema.pipelines.speed.calibration import Calibration, Conditions, Measured, calibrations, forwards
from kinema.pipelines.speed.few import in_few_steps
from kinema.pipelines.speed.students import taught
from kinema.story.shortcuts import Shortcuts
from kinema.story.shot import Shot

FEWEST_STEPS = 12
STOCHASTIC = ("dpm++2m-sde", "euler-ancestral", "lcm", "ddpm")
DISTILLED = (
    "lightning", "lightx2v", "distill", "turbo", "lcm", "causvid", "accvid", "dmd", "fastwan", "hyper",
    "fusionx", "4step", "8step", "4-step", "8-step", "self-forcing", "self_forcing",
)  # fmt: skip
SAME = ("steps", "solver", "grid", "shift", "method", "interval")
DRAWN = "its frames are drawn one by one"
FAR_GUIDANCE = 1.25  # times the measured one, from which on the measurement says less


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """What a run does in place of the exact one.

    Attributes:
        name: of the tier.
        psnr, low, worst: dB against exact: mean, lowest tenth and lowest of the measured clips.
        forwards, possible: of the transformer, for a clip as it was measured; of one that is made over, for
            the steps below its strength.
        steps: of the exact run, as many as are done of it.
    """

    name: str
    psnr: float
    low: float
    worst: float
    forwards: int
    possible: int
    steps: int


@dataclass(frozen=True, slots=True)
class Tiered:
    """A shot with the means of its tier.

    Attributes:
        shot: whose steps and shortcuts are the tier's.
        tier: None for an exact run, and for shortcuts that were written by hand.
        notes: what the user should know.
    """

    shot: Shot
    tier: Tier | None = None
    notes: tuple[str, ...] = ()


def tiered(shot: Shot, card: ModelCard) -> Tiered:
    """The shot at its speed.

    Args:
        shot: what was asked for.
        card: of its model, with the defaults that this shot has.

    Raises:
        ConfigError: the model was not measured with these settings or in few steps, or has no student.
    """
    if shot.speed in ("few", "distilled"):
        if shot.mode == "frame_by_frame":
            return _off(shot, DRAWN)
        made, note = (in_few_steps if shot.speed == "few" else taught)(shot, card)
        return Tiered(made, None, (note, *_share(made, card)))
    if shot.shortcuts is not None:
        return _by_hand(shot, card)
    if shot.speed == "exact":
        return Tiered(shot)
    if (why := unsafe(shot, card)) is not None:
        return _off(shot, why)
    found = _calibration(shot, card)
    measured = found.tiers.get(shot.speed)
    if measured is None:
        note = f"nothing faster was {_distance(shot.speed)} on this model, so the clip is exact."
        return Tiered(shot.with_(speed="exact"), None, (note,))
    made = shot.with_(steps=measured.steps, shortcuts=measured.shortcuts)
    run, exact = steps_done(made, card), steps_done(shot, card)
    tier = Tier(
        name=shot.speed,
        psnr=measured.psnr,
        low=measured.low,
        worst=measured.worst,
        forwards=_forwards(measured, run, found),
        possible=found.forwards * exact // found.conditions.steps,
        steps=exact,
    )
    return Tiered(made, tier, (told(tier, measured, run), *_beyond(shot, card, found.conditions)))


def steps_done(shot: Shot, card: ModelCard) -> int:
    """The steps of a run: all of them, or of a clip that is made over those below its strength."""
    asked, values = conditions(shot, card), shot.source
    if values is None or values.strength == 1:
        return int(asked["steps"])
    with importing():
        import torch

        from kinema.diffusion.flow import sigmas, table

    grid = sigmas(asked["steps"], asked["shift"], asked["grid"])
    return len(table(grid, torch.tensor([[values.strength]]))) - 1


def _share(shot: Shot, card: ModelCard) -> tuple[str, ...]:
    """That not all steps are done, of a clip that is made over."""
    steps, done = conditions(shot, card)["steps"], steps_done(shot, card)
    if done == steps or shot.source is None:
        return ()
    return (f"{done} of the {steps} steps are done: those below strength {shot.source.strength:g}.",)


def _forwards(measured: Measured, run: int, found: Calibration) -> int:
    """What is left of a run of so many steps; of a cache with a threshold, in proportion."""
    if run == measured.steps:
        return measured.forwards
    if measured.shortcuts.cache == "first-block":
        return round(measured.forwards * run / measured.steps)
    return forwards(measured.shortcuts, run, guided=found.forwards > found.conditions.steps)


def _off(shot: Shot, why: str) -> Tiered:
    return Tiered(shot.with_(speed="exact"), None, (f"speed {shot.speed} is off: {why}. It is exact.",))


def _by_hand(shot: Shot, card: ModelCard) -> Tiered:
    """Shortcuts that were written down; with a speed beside them they are a tier's own, from a record."""
    assert shot.shortcuts is not None
    steps = shot.steps or card.defaults.steps
    late = [step for step in (*shot.shortcuts.skip, *shot.shortcuts.reuse) if step >= steps]
    if late:
        raise ConfigError(
            f"shortcuts name step {late[0]} and there are {steps}, counted from 0; name 0 to {steps - 1}."
        )
    why = unsafe(shot, card) if shot.shortcuts.acts and shot.speed == "exact" else None
    if why is None:
        return Tiered(shot)
    return Tiered(shot.with_(shortcuts=Shortcuts.make()), None, (f"shortcuts are off: {why}.",))


def unsafe(shot: Shot, card: ModelCard) -> str | None:
    """Why nothing may be left out of this shot's run; None where it may."""
    solver = shot.solver or card.defaults.solver
    if card.family not in ("embedded", "wan"):
        return f"{card.id} is run by another pipeline, which has no tiers"
    if shot.mode == "frame_by_frame":
        return DRAWN
    if solver in STOCHASTIC:
        return f"{solver} draws fresh noise at every step, so that steps do not resemble each other"
    if (steps := steps_done(shot, card)) < FEWEST_STEPS:
        return f"{steps} steps are too few to leave some out ({FEWEST_STEPS} or more are needed)"
    if shot.skip_layers is not None:
        return "guidance by skipped layers was not part of what was measured"
    for lora in shot.loras:
        name = lora.path.replace("\\", "/").rsplit("/", 1)[-1].lower()
        if any(word in name for word in DISTILLED):
            return f"{name} is a LoRA for few steps, each of which counts"
    return None


def told(tier: Tier, measured: Measured, run: int) -> str:
    """What a tier does in so many steps, in one line."""
    s, parts = measured.shortcuts, []
    skip = [step for step in s.skip if step < run]
    if run != tier.steps:
        parts.append(f"{run} steps in place of {tier.steps}")
    if s.cache == "schedule" and skip:
        parts.append(f"{len(skip)} steps carried on from those before")
    if s.cache == "first-block":
        parts.append(f"steps skipped where the first block changes by less than {s.threshold:g}")
    computed = [step for step in s.reuse if step not in skip and step < run]
    if computed:
        parts.append(f"guidance reused in {len(computed)}")
    return (
        f"{tier.name}: {', '.join(parts) or 'all steps'}; {tier.forwards} of {tier.possible} forwards, "
        f"{tier.psnr:.1f} dB from exact expected (lowest tenth {tier.low:.1f}, lowest {tier.worst:.1f})."
    )


def _distance(speed: str) -> str:
    return "near enough to exact" if speed == "near" else "close enough to exact"


def _calibration(shot: Shot, card: ModelCard) -> Calibration:
    known, asked = list(calibrations(card)), conditions(shot, card)
    for found in known:
        if all(getattr(found.conditions, name) == asked[name] for name in SAME):
            return found
    command = f"kinema calibrate {card.id}"
    if not known:
        raise ConfigError(
            f"speed: {shot.speed} is measured on each model, and {card.id!r} was not; run: {command} (a few "
            "clips are made), or leave speed out."
        )
    now = known[0].conditions
    name = next(name for name in SAME if getattr(now, name) != asked[name])
    raise ConfigError(
        f"speed: {shot.speed} was measured with {name} {getattr(now, name)} and this shot has {asked[name]}; "
        f"leave {name} out, or run: {command}{_again(name, asked[name])}."
    )


def _again(name: str, value: Any) -> str:
    return f" --{name} {value}" if name in ("steps", "solver", "grid", "shift") else f" with that {name}"


def conditions(shot: Shot, card: ModelCard) -> dict[str, Any]:
    """What a run of this shot would be, in the words of `Conditions`; no geometry."""
    d: Defaults = card.defaults
    return {
        "steps": shot.steps or d.steps,
        "solver": shot.solver or d.solver,
        "grid": shot.grid or d.grid,
        "shift": d.shift if shot.shift is None else shot.shift,
        "method": shot.guidance_method,
        "interval": tuple(shot.guidance_interval),
    }


def _beyond(shot: Shot, card: ModelCard, measured: Conditions) -> tuple[str, ...]:
    """Where the shot differs from what was measured in ways that change the distance."""
    notes = []
    guidance = card.defaults.guidance if shot.guidance is None else shot.guidance.constant
    if guidance is None or guidance > FAR_GUIDANCE * measured.guidance:
        notes.append(f"guidance {measured.guidance:g}")
    if shot.loras:
        notes.append("no LoRA")
    if shot.nag is not None:
        notes.append("no nag")
    if shot.keyframes or shot.source is not None or shot.extend is not None:
        notes.append("clips from text alone")
    if (shot.frames or measured.frames) > measured.frames:
        notes.append(f"{measured.frames} frames")
    return (f"the distance was measured with {', '.join(notes)}; here it may be larger.",) if notes else ()


def without(shot: Shot) -> Shot:
    """The exact shot that a tier is measured against."""
    return shot.with_(speed="exact", shortcuts=None)


def with_means(shot: Shot, measured: Measured) -> Shot:
    """The shot made by the means of one measurement."""
    exact = without(shot)
    return exact.with_(steps=measured.steps, speed="fast", shortcuts=measured.shortcuts)
