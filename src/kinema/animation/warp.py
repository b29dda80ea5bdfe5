"""One face for every camera: `warp_frame`.

    warped, holes = warp_frame(frame, path.steps[f], depth)

Differentiable in the frame's values. A step that does not move gives the frame back to the last bit.
"""

from __future__ import annotations

from torch import Tensor

from kinema.animation.splat import warp_space
from kinema.animation.steps import CameraStep, DeforumStep, PlaneStep
from kinema.animation.warp2d import warp_plane
from kinema.animation.warp3d import warp_deforum


def warp_frame(
    frame_BCHW: Tensor, camera_step: CameraStep, depth: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The frame after the camera's step, and where it shows nothing of the frame before.

    Args:
        frame_BCHW: float `[B, C, H, W]`, any range.
        camera_step: from `kinema.animation.camera.path(...).steps`.
        depth: `[1 or B, 1, H, W]` of this frame, for steps with `needs_depth`: distances with the flat
            picture at 1 (for Deforum's, its z). None is flat; others leave it aside.

    Returns:
        `[B, C, H, W]`, holes filled as the camera's border says, and bool `[B, 1, H, W]`: True in holes.

    Raises:
        ConfigError: depth of another size or without distances, or a step that leaves nothing of the picture.
    """
    if isinstance(camera_step, PlaneStep):
        return warp_plane(frame_BCHW, camera_step)
    if isinstance(camera_step, DeforumStep):
        return warp_deforum(frame_BCHW, camera_step, depth)
    if depth is None:
        return warp_plane(frame_BCHW, camera_step.plane())
    return warp_space(frame_BCHW, camera_step, depth)
