"""The pictures that frame-by-frame mode reads from files: keyframes, mask, colour reference.

Pictures are float32 `[1, 3, H, W]` and masks `[1, 1, H, W]`, 0..1, at the plan's size.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
from torch import Tensor

from kinema.animation.colour import colours
from kinema.io.clip import Clip
from kinema.io.image import fit_image, read_image
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.known import read_held
from kinema.pipelines.masks import Mask
from kinema.pipelines.picture_track import picture_tensor
from kinema.pipelines.plan import Plan
from kinema.story.redraw import BARS, COLOUR_WORDS
from kinema.story.shot import PREVIOUS

KEPT_PICTURES = 4


class Pictures:
    """The pictures of one plan, read when they are needed.

    Args:
        plan: in mode `frame_by_frame`.
        previous: the shot before in a storyboard, with its last frame.

    Attributes:
        reference: colours of the picture that `colour_from` names; None where it names none.
        wanders: whether a mask is another from frame to frame.
    """

    def __init__(self, plan: Plan, previous: Clip | None = None) -> None:
        assert plan.redraw is not None, "a plan in mode frame_by_frame"
        self.plan, self.redraw, self.previous = plan, plan.redraw, previous
        self.held = lru_cache(KEPT_PICTURES)(self._held)
        named = self.redraw.colour_from not in COLOUR_WORDS and self.redraw.colour != "off"
        self.reference = colours(self._fitted(read_image(self.redraw.colour_from))) if named else None
        first = self.plan.given.held[0] if self.redraw.mask == BARS else None
        shape = None if first is None else read_held(first, previous)
        self._mask = None if self.redraw.mask is None else Mask(plan, self.redraw, shape)
        self.wanders = self._mask is not None and not self._mask.still

    def at(self, frame: int) -> Tensor | None:
        """The keyframe at exactly this frame."""
        found = [i for i, held in enumerate(self.plan.given.held) if held.frame == frame]
        return self.held(found[0]) if found else None

    def mask(self, frame: int, feather: float) -> Tensor | None:
        """Where a frame may change, 1 in full; None for everywhere. Frames are asked for in rising order."""
        return None if self._mask is None else self._mask.at(frame, feather)

    def last_before(self) -> Tensor:
        """The last frame of the clip that this one carries on."""
        extend = self.plan.given.extend
        assert extend is not None, "a plan that extends a clip"
        clip = self.previous if extend == PREVIOUS else carried_frames(self.plan)
        assert clip is not None, "a storyboard's first shot extends no other"
        return self._fitted(deque(clip, maxlen=1)[0])

    def _held(self, index: int) -> Tensor:
        return self._fitted(read_held(self.plan.given.held[index], self.previous))

    def _fitted(self, frame: np.ndarray) -> Tensor:
        g = self.plan.geometry
        return picture_tensor(fit_image(frame, g.width, g.height, self.plan.given.fit))
