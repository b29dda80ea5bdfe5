"""A job in seconds, on a CPU, without weights: the same code with a stand-in for the model, as one picture.

Under each shot's frames as the clip shows them (transitions and all) stand the camera's path and the tracks;
above everything, where the shots lie in the clip and what is heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from kinema.animation.camera import CameraPath
from kinema.core.contracts import OnProgress
from kinema.io.clip import Clip
from kinema.pipelines.camera.plot import draw_camera
from kinema.pipelines.card import ModelCard
from kinema.pipelines.figure import PALETTE, Figure, shortened
from kinema.pipelines.job import Job, shot_frames
from kinema.pipelines.plan import Plan
from kinema.pipelines.plots import GAP, LEFT, RIGHT, WIDTH, draw_tracks, heading
from kinema.pipelines.run import stream
from kinema.pipelines.sound_plot import draw_sound
from kinema.pipelines.stand_in import stand_in

STEPS = 6
"""Sampling steps of a preview: the stand-in's flow is smooth, and more would look the same."""
COLUMNS = 8
STILL_GAP = 6


def preview_clip(job: Job, *, on_progress: OnProgress | None = None) -> Clip:
    """The job's clip as the stand-in makes it, no larger than the model's; drawn as it is asked for."""
    columns = {plan.model: plan.geometry.columns for plan in job.plans}
    models = {name: stand_in(card, columns[name]) for name, card in job.cards.items()}
    quick = replace(job, plans=tuple(_quick(plan, job.cards[plan.model]) for plan in job.plans), upscale=None)
    return stream(quick, model=models, on_progress=on_progress, keep_record=False)


def preview(job: Job, *, on_progress: OnProgress | None = None) -> Figure:
    """The contact sheet with the tracks; of the frames, only the shown ones are held."""
    chosen = [list(_chosen(job, index)) for index in range(len(job.plans))]
    stills = _stills(preview_clip(job, on_progress=on_progress), {f for shot in chosen for f in shot})
    figure = Figure(WIDTH, GAP)
    if len(job.plans) > 1 or job.audio:
        draw_timeline(figure, job)
    for index, plan in enumerate(job.plans):
        heading(figure, job, index)
        draw_stills(figure, {frame: stills[frame] for frame in chosen[index]}, job.starts[index])
        if (path := camera_path(plan)) is not None and path.moves:
            draw_camera(figure, path)
        draw_tracks(figure, plan)
    return figure


def camera_path(plan: Plan) -> CameraPath | None:
    """Where the shot's camera goes; None for a shot without one."""
    if plan.camera is None:
        return None
    return plan.camera.path(replace(plan.geometry, frames=plan.geometry.keep))


def _quick(plan: Plan, card: ModelCard) -> Plan:
    """The plan in few steps, without what a stand-in has not: layers to change, a scheduler of diffusers."""
    plan = replace(plan, loras=(), sampling=replace(plan.sampling, steps=min(plan.sampling.steps, STEPS)))
    if card.borrowed:
        plan = replace(plan, sampling=replace(plan.sampling, solver="euler", grid="wan"))
    if plan.redraw is None:
        return plan
    strokes = tuple(
        replace(s, steps=min(s.steps, STEPS), solver="euler" if card.borrowed else s.solver)
        for s in plan.redraw.strokes
    )
    return replace(plan, redraw=replace(plan.redraw, strokes=strokes))


def _chosen(job: Job, index: int) -> Iterator[int]:
    """Frames of the clip that show a shot: evenly apart, its first and last among them."""
    begin, frames = job.starts[index], shot_frames(job.plans[index])
    count = min(COLUMNS, frames)
    for i in range(count):
        yield begin + (i * (frames - 1) // (count - 1) if count > 1 else 0)


def _stills(clip: Clip, wanted: set[int]) -> dict[int, np.ndarray]:
    return {index: frame for index, frame in enumerate(clip) if index in wanted}


def draw_stills(figure: Figure, stills: Mapping[int, np.ndarray], begin: int) -> None:
    """Frames side by side, each with its number in the clip, and in the shot where that differs."""
    width = (WIDTH - LEFT - RIGHT - (COLUMNS - 1) * STILL_GAP) // COLUMNS
    rows, columns = next(iter(stills.values())).shape[:2]
    height = max(1, round(width * rows / columns))
    for column, (frame, pixels) in enumerate(stills.items()):
        x = LEFT + column * (width + STILL_GAP)
        figure.picture(x, figure.height, width, height, pixels)
        label = f"{frame}" if begin == 0 else f"{frame}  ({frame - begin} of the shot)"
        figure.words(x, figure.height + height + 2, label, size=9, color="#707074")
    figure.height += height + 16


def draw_timeline(figure: Figure, job: Job) -> None:
    """The whole clip: a bar for each shot, two rows in turn so that overlaps are seen, and the sound."""
    length = Fraction(job.length) / Fraction(job.fps)
    figure.words(LEFT, figure.height, f"{job.length} frames, {float(length):.2f} s", size=13)
    figure.height += 20
    scale = (WIDTH - LEFT - RIGHT) / job.length
    for index, plan in enumerate(job.plans):
        x, y = LEFT + job.starts[index] * scale, figure.height + 18 * (index % 2)
        width = shot_frames(plan) * scale
        figure.box(x, y, width, 16, PALETTE[index % len(PALETTE)])
        name = str(plan.shot.get("name") or index + 1)
        figure.words(x + 4, y + 2, shortened(name, width - 6, 10), size=10, color="#ffffff")
    figure.height += 18 * min(2, len(job.plans)) + GAP
    if job.audio:
        draw_sound(figure, job.audio, length)
