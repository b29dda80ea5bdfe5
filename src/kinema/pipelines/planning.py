"""A shot made concrete for one model: legal size and length, tracks per latent frame, held frames placed.

shot + card -> plan          no weights are read; whatever is wrong with a request is found here
"""

from __future__ import annotations

import secrets
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, about
from kinema.core.imports import importing
from kinema.pipelines.camera.plan import plan_camera
from kinema.pipelines.card import ModelCard
from kinema.pipelines.control import plan_control
from kinema.pipelines.foreign.asked import (
    call_for,
    check_foreign_shot,
    foreign_solver,
    needed,
    plan_foreign,
)
from kinema.pipelines.frame_by_frame.plan import (
    RedrawPlan,
    is_frame_by_frame,
    one_frame_card,
    plan_redraw,
)
from kinema.pipelines.geometry import Geometry, per_latent, plan_geometry
from kinema.pipelines.given import Given, plan_given
from kinema.pipelines.images.cards import check_image_prompts, check_image_shot
from kinema.pipelines.images.guidance import plan_guidance
from kinema.pipelines.images.solvers import check_spacing, check_steps, image_solver
from kinema.pipelines.listening import settle
from kinema.pipelines.loras import plan_loras
from kinema.pipelines.match import matched
from kinema.pipelines.plan import Plan, Prompts, Sampling, Spans
from kinema.pipelines.speed.tiers import tiered
from kinema.pipelines.steering import attention_guidance, skipped_layers, unheard_negative, unreached_levels
from kinema.pipelines.unclip.card import check_unclip_shot
from kinema.pipelines.unclip.look import plan_look
from kinema.pipelines.unread import reader_of, unread_words
from kinema.pipelines.windows import Cover, plan_windows, refuse_windows
from kinema.story.own_options import Options
from kinema.story.prompt_track import PromptTrack
from kinema.story.prompts import both_sides
from kinema.story.shot import Shot
from kinema.story.tracks import Schedule
from kinema.story.window import sample_around, turn_back


def make_plan(shot: Shot, card: ModelCard, after: Geometry | None = None, begin: float = 0.0) -> Plan:
    """Resolve a shot for a model.

    Args:
        shot: what was asked for.
        card: of its model.
        after: geometry of the shot before in a storyboard.
        begin: seconds of the clip since its sound began.

    Raises:
        GeometryError: size or length do not fit; the message names the nearest that do.
        ConfigError: an unknown solver or grid, or values that contradict each other.
        ModelError: a mode that the model cannot do.
        MediaError: a picture, a clip or a sound that cannot be read.
    """
    equal = matched(shot, card)
    quick = tiered(equal.shot, equal.card)
    shot, card = quick.shot, equal.card
    if by_frames := is_frame_by_frame(shot, card):
        refuse_windows(shot)
        card = one_frame_card(shot, card)
    shot = _on_their_terms(shot, card)
    if not by_frames:
        shot = _guided(shot, card)
    geometry = plan_geometry(shot, card, after)
    seed = secrets.randbelow(2**31) if shot.seed is None else shot.seed
    shot, heard = settle(shot, geometry.keep, Fraction(geometry.fps), seed, begin)
    given, notes = plan_given(shot, card, geometry)
    loras, words = plan_loras(shot, card, geometry, seed)
    prompts, negatives = _prompts(shot, geometry, seed)
    sides = (prompts, negatives)
    if card.family == "image":
        check_image_prompts(card, (weight for side in sides for spans in side.spans for _, weight in spans))
    sampling = _sampling(shot, card, geometry, seed, negatives)
    camera, seen = plan_camera(shot, card, geometry, given, seed=seed, joint=not by_frames)
    redraw = _redraw(shot, card, geometry, given, sampling) if by_frames else None
    windows, options, more = _joint(shot, card, geometry, given, sides, sampling, by_frames)
    if card.family == "image":
        negatives, options, more = plan_guidance(shot, card, sampling, negatives)
    call = call_for(card, needed(given, geometry)) if card.family == "foreign" else None
    more = (*more, *unread_words(card, reader_of(card, call, dict(options)), prompts, negatives))
    return Plan(
        model=card.id,
        geometry=geometry,
        sampling=sampling,
        prompts=prompts,
        negatives=negatives,
        given=given,
        loras=loras,
        device=shot.device,
        dtype=shot.dtype,
        notes=(
            *_of_the_model(shot, card),
            *equal.notes,
            *quick.notes,
            *geometry.notes,
            *heard,
            *notes,
            *seen,
            *words,
            *more,
            *_closing(shot, geometry),
        ),
        weights=shot.weights,
        windows=windows,
        shot=_resolved(shot, geometry, sampling, card).model_dump(mode="json", exclude_none=True),
        camera=camera,
        redraw=redraw,
        begin=begin,
        options=options,
        control=plan_control(shot, card, geometry, seed),
        tier=quick.tier,
        look=plan_look(shot, card, geometry),
    )


def _of_the_model(shot: Shot, card: ModelCard) -> tuple[str, ...]:
    """What is to be known of the checkpoint's sampler, where the shot has not one of its own."""
    own = shot.match == "wan" or (shot.solver is not None and shot.shift is not None)
    return () if own else card.notes


def _redraw(shot: Shot, card: ModelCard, geometry: Geometry, given: Given, sampling: Sampling) -> RedrawPlan:
    """The frames that are drawn one after the other."""
    redraw = plan_redraw(
        shot,
        geometry,
        given,
        seed=sampling.seed,
        steps=sampling.steps,
        solver=sampling.solver,
        known_solver=partial(known_solver, card),
    )
    if card.family == "image":
        check_spacing(sampling.grid, card, (stroke.solver for stroke in redraw.strokes))
        check_steps(card, redraw.strokes)
    return redraw


def _joint(
    shot: Shot,
    card: ModelCard,
    geometry: Geometry,
    given: Given,
    sides: tuple[Prompts, Prompts],
    sampling: Sampling,
    by_frames: bool,
) -> tuple[Cover | None, Options, tuple[str, ...]]:
    """What only frames that are sampled together have: windows, another pipeline's options; notes."""
    if by_frames:
        return None, (), ()
    if card.family == "foreign":
        return plan_foreign(shot, card, geometry, given, sides, sampling)
    windows, notes = plan_windows(shot, card, geometry, sides[0].weights)
    strength = 1.0 if given.source is None else given.strength
    return (
        windows,
        (),
        (*notes, *unheard_negative(card, sides[1], sampling), *unreached_levels(sampling, strength)),
    )


def _on_their_terms(shot: Shot, card: ModelCard) -> Shot:
    """The shot, when its model can do it, and its pipeline can be told of it where diffusers' own runs it."""
    if card.family == "image":
        check_image_shot(shot, card)
        check_unclip_shot(shot, card)
    _check_modes(shot, card)
    if card.family == "foreign":
        return check_foreign_shot(shot, card)
    if shot.options and card.family != "image":
        raise ConfigError(
            f"options are arguments of another diffusers pipeline, which {card.id!r} is not; leave them out."
        )
    return shot


def _guided(shot: Shot, card: ModelCard) -> Shot:
    """The shot with the model's own guidance for frames that are held, where it says none."""
    if not shot.holds or shot.guidance is not None or card.defaults.guidance_held is None:
        return shot
    return shot.with_(guidance=card.defaults.guidance_held)


def _check_modes(shot: Shot, card: ModelCard) -> None:
    if not (shot.keyframes or shot.begins.match) and shot.source is None and shot.extend is None:
        card.require("text")
    if shot.source is not None:
        card.require("video")
    if shot.extend is not None:
        card.require("extend")
    if shot.frames == 1:
        card.require("image")
    if any(key.strength < 1 for key in shot.keyframes):
        card.require("strength")
    if shot.guidance_low is not None and card.boundary is None:
        raise ConfigError(
            f"guidance_low is for models of two transformers, and {card.id!r} has one; "
            "leave it out, or write guidance."
        )


def known_solver(card: ModelCard, name: str) -> str:
    """The solver's name; `ConfigError` with the nearest one for a name that the model has not."""
    if card.family == "image":
        return image_solver(card, name)
    if card.family == "foreign":
        return foreign_solver(card, name)
    with importing():  # torch, in a process that only plans
        from kinema.diffusion.solvers import solver

    return solver(name).name


def _sampling(shot: Shot, card: ModelCard, geometry: Geometry, seed: int, negatives: Prompts) -> Sampling:
    defaults = card.defaults
    name = known_solver(card, shot.solver or defaults.solver)
    steps = shot.steps or defaults.steps
    shift = defaults.shift_of(geometry.width, geometry.height) if shot.shift is None else shot.shift
    grid = shot.grid or defaults.grid
    if not card.borrowed:
        from kinema.diffusion.flow import sigmas

        sigmas(steps, shift, grid)  # refuses unknown grids before anything is loaded
    low = None
    if card.boundary is not None:
        low = _scale(
            "guidance_low", shot.guidance_low, defaults.guidance_low or defaults.guidance, geometry, seed
        )
    return Sampling(
        seed=seed,
        steps=steps,
        solver=name,
        grid=grid,
        shift=shift,
        guidance=_scale("guidance", shot.guidance, defaults.guidance, geometry, seed),
        method=shot.guidance_method,
        rescale=shot.guidance_rescale,
        interval=shot.guidance_interval,
        blend="embedding" if card.borrowed and shot.blend == "attention" else shot.blend,
        guidance_low=low,
        boundary=card.boundary,
        noise="frames" if shot.match is None else "clip",
        shortcuts=shot.shortcuts,
        nag=attention_guidance(shot, card, negatives),
        skip=skipped_layers(shot, card),
    )


def _scale(
    name: str, written: Schedule | None, default: float, geometry: Geometry, seed: int
) -> tuple[float, ...]:
    """The scale of every latent frame."""
    if written is None:
        return (default,) * geometry.latent_frames
    with about(name):
        values = written.sample(geometry.keep, Fraction(geometry.fps), seed)
    return tuple(float(g) for g in per_latent(values, geometry))


def _prompts(shot: Shot, geometry: Geometry, seed: int) -> tuple[Prompts, Prompts]:
    """Both sides, each phrase where its weight's sign puts it, for every pair of prompt and negative."""
    with about("prompt"):
        texts, weights_FK = _over_frames(shot.prompt, geometry, seed)
    with about("negative"):
        others, weights_FJ = _over_frames(shot.negative, geometry, seed)
    weights_TK, weights_TJ = per_latent(weights_FK, geometry), per_latent(weights_FJ, geometry)
    sides: tuple[dict[Spans, Any], dict[Spans, Any]] = ({}, {})
    read = both_sides if shot.match is None else _literally
    for k, text in enumerate(texts):
        for j, other in enumerate(others):
            share_T = weights_TK[:, k] * weights_TJ[:, j]
            for side, spans in zip(sides, read(text, other), strict=True):
                side[spans] = side.get(spans, 0) + share_T
    positive, negative = (_normalised(side) for side in sides)
    return positive, negative


def _literally(prompt: str, negative: str) -> tuple[Spans, Spans]:
    """Both sides with every parenthesis a parenthesis."""
    return ((prompt, 1.0),), ((negative, 1.0),)


def _over_frames(
    track: PromptTrack, geometry: Geometry, seed: int
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Texts, and weights per pixel frame; in a loop the last one turns back into the first."""
    fps = Fraction(geometry.fps)
    if geometry.loop and not track.mixed:
        return sample_around(track, geometry.keep, fps)
    return track.sample(geometry.keep, fps, seed)


def _closing(shot: Shot, geometry: Geometry) -> tuple[str, ...]:
    turn = turn_back(shot.prompt, geometry.keep, Fraction(geometry.fps)) if geometry.loop else None
    if turn is None:
        return ()
    way = f"from {turn.last!r} back to {turn.first!r}"
    if turn.jumps:
        return (f"the loop jumps {way} at {f'frame {turn.begin}' if turn.begin else 'its end'}.",)
    where = f"its last {turn.frames} frames"
    if turn.begin:
        where = f"{turn.frames} frames, the first {turn.begin} of the clip among them"
    return (f"the loop turns {way} over {where}.",)


def _normalised(side: dict[Spans, Any]) -> Prompts:
    weights_TK = np.stack(list(side.values()), axis=1)
    weights_TK = weights_TK / weights_TK.sum(axis=1, keepdims=True)
    return Prompts(spans=tuple(side), weights=tuple(tuple(float(w) for w in row) for row in weights_TK))


def _resolved(shot: Shot, geometry: Geometry, sampling: Sampling, card: ModelCard) -> Shot:
    """The shot with its defaults filled in, so that its record makes the same clip later."""
    return shot.with_(
        width=geometry.width,
        height=geometry.height,
        frames=geometry.keep,
        seconds=None,
        length_fit=shot.length_fit or geometry.keep != geometry.frames,
        fps=geometry.fps,
        seed=sampling.seed,
        steps=sampling.steps,
        solver=sampling.solver,
        grid=shot.grid if card.borrowed else sampling.grid,
        shift=shot.shift if card.borrowed else sampling.shift,
        guidance=card.defaults.guidance if shot.guidance is None else shot.guidance,
        guidance_low=card.defaults.guidance_low if shot.guidance_low is None else shot.guidance_low,
    )
