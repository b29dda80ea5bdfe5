"""What a pipeline is told frame by frame: a clip to follow or to keep, and a mask that says where it is open.

    clip  = control, or mid-gray; the pictures that are held, at their frames
    mask  = 1 where a frame is made, 0 where the clip is kept

This is how VACE (arXiv 2503.07598) is asked for everything it does.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image

from kinema.io.clip import Clip
from kinema.io.image import fit_image
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.foreign.families import Call, Family
from kinema.pipelines.known import picture
from kinema.pipelines.picture_track import PictureTrack
from kinema.pipelines.plan import Plan
from kinema.story.shot import PREVIOUS

GRAY = (128, 128, 128)


def shown_before(plan: Plan) -> int:
    """Frames at the beginning of what the pipeline makes that an earlier clip has shown already."""
    g = plan.geometry
    return 0 if plan.given.extend is None else 1 + g.time * (g.context - 1)


def last_frames(plan: Plan, previous: Clip | None) -> list[Image.Image]:
    """The end of the clip that is carried on, as many frames as are shown again."""
    g, extend = plan.geometry, plan.given.extend
    assert extend is not None, "a plan that extends a clip"
    clip = previous if extend == PREVIOUS else carried_frames(plan)
    assert clip is not None, "a storyboard's first shot extends no other"
    frames: deque[np.ndarray] = deque(clip, maxlen=shown_before(plan))
    return [Image.fromarray(fit_image(frame, g.width, g.height, plan.given.fit)) for frame in frames]


def masked(plan: Plan, family: Family, call: Call, previous: Clip | None) -> dict[str, Any]:
    """The clip and its mask, by the pipeline's own names; nothing where there is nothing to tell.

    Args:
        plan: what is rendered.
        family: of its model.
        call: the pipeline.
        previous: the shot before in a storyboard.
    """
    given, control = plan.given, plan.control
    if call.pictures != "masked" or not (given.held or given.extend or control):
        return {}
    g, shown = plan.geometry, shown_before(plan)
    clip = [Image.new("RGB", (g.width, g.height), GRAY)] * (shown + g.frames)
    mask = [Image.new("L", (g.width, g.height), 255)] * (shown + g.frames)
    closed = Image.new("L", (g.width, g.height), 0)
    if control is not None:  # it begins with the first new frame
        clip[shown:] = _track(control.path, plan, "control")
        if control.mask is not None:
            mask[shown:] = [frame.convert("L") for frame in _track(control.mask, plan, "mask")]
    for held in given.held:
        clip[held.frame], mask[held.frame] = Image.fromarray(picture(held, plan, previous)), closed
    if given.extend is not None:
        clip[:shown], mask[:shown] = last_frames(plan, previous), [closed] * shown
    told = {"video": clip, "mask": mask}
    return told if control is None else {**told, family.control: control.strength[0]}


def _track(path: str, plan: Plan, what: str) -> list[Image.Image]:
    """A picture or a clip for every new frame, at the plan's size and rate."""
    track = PictureTrack(path, plan, what)
    pixels = (track.at(frame)[0].mul(255).round().byte() for frame in range(plan.geometry.frames))
    return [Image.fromarray(rearrange(frame, "C H W -> H W C").numpy()) for frame in pixels]
