"""The pictures that frame-by-frame mode reads from files: keyframes, mask, colour reference.

Pictures are float32 `[1, 3, H, W]` and masks `[1, 1, H, W]`, 0..1, at the plan's size.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kinema.animation.colour import colours
from kinema.animation.retouch import blur
from kinema.io.clip import Clip
from kinema.io.image import fit_image, read_image
from kinema.pipelines.known import read_held
from kinema.pipelines.picture_track import PictureTrack, picture_tensor
from kinema.pipelines.plan import Plan
from kinema.story.redraw import BARS, COLOUR_WORDS
from kinema.story.shot import PREVIOUS

KEPT_PICTURES = 4
LUMA = (0.2126, 0.7152, 0.0722)  # BT.709: what a mask's colours weigh


class Pictures:
    """The pictures of one plan, read when they are needed.

    Args:
        plan: in mode `frame_by_frame`.
        previous: the shot before in a storyboard, with its last frame.

    Attributes:
        reference: colours of the picture that `colour_from` names; None where it names none.
    """

    def __init__(self, plan: Plan, previous: Clip | None = None) -> None:
        assert plan.redraw is not None, "a plan in mode frame_by_frame"
        self.plan, self.redraw, self.previous = plan, plan.redraw, previous
        self.held = lru_cache(KEPT_PICTURES)(self._held)
        named = self.redraw.colour_from not in COLOUR_WORDS and self.redraw.colour != "off"
        self.reference = colours(self._fitted(read_image(self.redraw.colour_from))) if named else None
        self._masks = None if self.redraw.mask is None else _Masks(self.redraw.mask, plan, previous)

    def at(self, frame: int) -> Tensor | None:
        """The keyframe at exactly this frame."""
        found = [i for i, held in enumerate(self.plan.given.held) if held.frame == frame]
        return self.held(found[0]) if found else None

    def mask(self, frame: int, feather: float) -> Tensor | None:
        """Where a frame may change, 1 in full; None for everywhere. Frames are asked for in rising order."""
        if self._masks is None:
            return None
        open_B1HW = self._masks.at(frame)
        open_B1HW = 1 - open_B1HW if self.redraw.mask_invert else open_B1HW
        return blur(open_B1HW, feather)

    def last_before(self) -> Tensor:
        """The last frame of the clip that this one carries on."""
        extend = self.plan.given.extend
        assert extend is not None, "a plan that extends a clip"
        clip = self.previous if extend == PREVIOUS else Clip.open(extend)
        assert clip is not None, "a storyboard's first shot extends no other"
        return self._fitted(deque(clip, maxlen=1)[0])

    def _held(self, index: int) -> Tensor:
        return self._fitted(read_held(self.plan.given.held[index], self.previous))

    def _fitted(self, frame: np.ndarray) -> Tensor:
        g = self.plan.geometry
        return picture_tensor(fit_image(frame, g.width, g.height, self.plan.given.fit))


class _Masks:
    """One mask for all frames, a clip of masks, or what a picture of another shape leaves open."""

    def __init__(self, path: str, plan: Plan, previous: Clip | None) -> None:
        self._bars = bars(plan, read_held(plan.given.held[0], previous)) if path == BARS else None
        self._track = None if path == BARS else PictureTrack(path, plan, "mask")

    def at(self, frame: int) -> Tensor:
        """`[1, 1, H, W]`; frames only go forward."""
        if self._bars is not None:
            return self._bars
        assert self._track is not None
        weights = torch.tensor(LUMA).view(1, 3, 1, 1)
        return (self._track.at(frame) * weights).sum(dim=1, keepdim=True)


def bars(plan: Plan, picture_HWC: np.ndarray) -> Tensor:
    """1 where a picture of this shape, shown whole, leaves the frame empty `[1, 1, H, W]`."""
    g = plan.geometry
    white = np.full((*picture_HWC.shape[:2], 3), 255, np.uint8)
    return 1 - picture_tensor(fit_image(white, g.width, g.height, "pad"))[:, :1]
