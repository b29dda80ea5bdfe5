"""A picture for all frames of a clip, or a clip with one for each, at the plan's size and rate.

Pictures are float32 `[1, 3, H, W]`, 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import MediaError
from kinema.io.image import fit_image, read_image
from kinema.io.picture_read import stands_still
from kinema.io.reader import resample
from kinema.io.sniff import is_folder
from kinema.io.video_read import open_video
from kinema.pipelines.plan import Plan


class PictureTrack:
    """The pictures of a file, of which a short one stays on its last.

    Args:
        path: of a picture or a clip.
        plan: whose size and rate they have.
        what: they are, for an error.

    Attributes:
        still: a picture for all frames.
    """

    def __init__(self, path: str, plan: Plan, what: str) -> None:
        self.plan, self.what, self._place = plan, what, -1
        self.still = not is_folder(Path(path)) and stands_still(Path(path))
        self._frames = self._one(path) if self.still else self._clip(path)
        self._current: Tensor | None = None

    def at(self, frame: int) -> Tensor:
        """The picture of a frame; frames only go forward."""
        while self._place < frame:
            following = next(self._frames, None)
            if following is None:
                break
            self._current, self._place = following, self._place + 1
        assert self._current is not None
        return self._current

    def _one(self, path: str) -> Iterator[Tensor]:
        yield self._fitted(read_image(path))

    def _clip(self, path: str) -> Iterator[Tensor]:
        empty = True
        fps = Fraction(self.plan.geometry.fps)
        for frame in resample(open_video(path, still_fps=fps), fps):
            empty = False
            yield self._fitted(frame)
        if empty:
            raise MediaError(f"{path} has no frames; give a {self.what} with one at least.")

    def _fitted(self, frame: np.ndarray) -> Tensor:
        g = self.plan.geometry
        return picture_tensor(fit_image(frame, g.width, g.height, self.plan.given.fit))


def picture_tensor(frame_HWC: np.ndarray) -> Tensor:
    """uint8 `[H, W, 3]` as float32 `[1, 3, H, W]`, 0..1."""
    pixels: Tensor = rearrange(torch.from_numpy(np.array(frame_HWC)), "H W C -> 1 C H W").float() / 255
    return pixels
