"""One plan's frames, whatever its mode and model: sampled together, or drawn one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from kinema.core.contracts import OnProgress, Progress
from kinema.io.clip import Clip
from kinema.pipelines import render
from kinema.pipelines.camera.moves import CameraMoves
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.foreign.model import ForeignModel
from kinema.pipelines.foreign.render import render_plan as render_foreign_plan
from kinema.pipelines.frame_by_frame.loop import Loop, LoopState, Moves, Still
from kinema.pipelines.frame_by_frame.pictures import Pictures
from kinema.pipelines.images.engine import ImageEngine, Told
from kinema.pipelines.images.engine_diffusers import DiffusersImages
from kinema.pipelines.images.engine_kinema import KinemaImages
from kinema.pipelines.loading import AnyModel
from kinema.pipelines.memory import FORGETFUL, FRAMES, Memory, Snapshot
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Plan
from kinema.pipelines.unclip.card import is_unclip
from kinema.pipelines.unclip.engine import UnclipImages
from kinema.story.shot import PREVIOUS


def render_plan(
    plan: Plan,
    model: AnyModel,
    *,
    previous: Clip | None,
    on_progress: OnProgress,
    memory: Memory = FORGETFUL,
) -> Clip:
    """A clip whose frames are made as they are drawn.

    Args:
        plan: from `make_plan`.
        model: loaded for the plan's model.
        previous: the clip before, for a shot of a storyboard that goes on from it.
        on_progress: called with events; raise from it to stop.
        memory: where to go on, and where to leave the state. A clip that goes on has the later frames only.
    """
    if plan.redraw is None:
        if isinstance(model, ForeignModel):
            return render_foreign_plan(plan, model, previous=previous, on_progress=on_progress, memory=memory)
        assert isinstance(model, Model), "an image model's plans are drawn frame by frame"
        return render.render_plan(plan, model, previous=previous, on_progress=on_progress, memory=memory)
    strokes, shown = plan.redraw.strokes, plan.geometry.shown
    found = memory.recall("loop")

    def offer(state: LoopState) -> None:
        given = {FRAMES: shown + strokes[state.stroke - 1].frame + 1}
        memory.offer("loop", lambda: Snapshot(state.tensors(), given))

    return draw_plan(
        plan,
        model,
        previous=previous,
        on_progress=on_progress,
        state=None if found is None else LoopState.from_tensors(found.tensors),
        on_state=offer,
    )


def draw_plan(
    plan: Plan,
    model: AnyModel,
    *,
    previous: Clip | None = None,
    on_progress: OnProgress,
    state: LoopState | None = None,
    on_state: Callable[[LoopState], None] | None = None,
) -> Clip:
    """The frames of a plan in mode `frame_by_frame`.

    Args:
        plan, model, previous, on_progress: as in `render_plan`.
        state: where to go on: the clip then begins after the frames that were given.
        on_state: called when all frames up to a drawn one were taken, with what goes on from there.
    """
    on_progress(Progress("text", 0, 1))
    pictures = Pictures(plan, previous)
    loop = Loop(plan, engine_of(plan, model, _teller(plan, on_progress)), moves_of(plan), pictures)
    on_progress(Progress("text", 1, 1))
    if state is not None or plan.given.extend is None:
        return loop.clip(on_progress=on_progress, state=state, on_state=on_state)
    begin = loop.after(pictures.last_before())
    clip = loop.clip(on_progress=on_progress, state=begin, on_state=on_state)
    if plan.given.extend == PREVIOUS:  # the shot before has shown its own frames
        return clip
    return replace(
        clip, frames=chain(carried_frames(plan), clip), count=plan.geometry.shown + plan.geometry.keep
    )


def _teller(plan: Plan, on_progress: OnProgress) -> Told:
    """Reports what an engine had to deal with as an event among those of the drawn frames."""
    assert plan.redraw is not None, "a plan in mode frame_by_frame"
    strokes = plan.redraw.strokes

    def told(frame: int, text: str) -> None:
        done = sum(stroke.frame < frame for stroke in strokes)
        on_progress(Progress("draw", done, len(strokes), note=text))

    return told


def engine_of(plan: Plan, model: AnyModel, told: Told) -> ImageEngine:
    """What draws the plan's pictures, and tells once what it has to deal with."""
    assert not isinstance(model, ForeignModel), "its card has no mode frame_by_frame"
    if isinstance(model, Model):
        return KinemaImages(plan, model, told)
    return UnclipImages(plan, model) if is_unclip(model.card) else DiffusersImages(plan, model)


def moves_of(plan: Plan) -> Moves:
    """The plan's camera."""
    return Still() if plan.camera is None else CameraMoves.of(plan, plan.camera)
