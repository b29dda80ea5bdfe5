"""A plan's camera at work: on pictures between any two frames, on a whole clip, and on a video model's noise.

Distances are those of the picture that is moved. A depth picture belongs to the first frame and is carried
along; a depth clip or a depth model is asked at every frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.animation.camera import CameraPath
from kinema.animation.depth import DepthSource, FlatDepth, as_measured, carry_depth
from kinema.animation.splat import carried
from kinema.animation.steps import CameraStep, DeforumStep, SpaceStep
from kinema.animation.warp import warp_frame
from kinema.animation.warp2d import scaled
from kinema.animation.warp3d import deforum_z
from kinema.core.runtime import resolve_device
from kinema.pipelines.camera.depth import open_depth
from kinema.pipelines.camera.plan import CameraPlan
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.plan import Plan

KEPT_DISTANCES = 32  # frames; those between two that are drawn are gone to from both


@dataclass(eq=False)
class CameraMoves:
    """Pictures as the camera sees them at other frames.

    Attributes:
        path: poses and steps.
        depth: distances of pictures.
    """

    path: CameraPath
    depth: DepthSource
    _known: list[tuple[Tensor, int, type, Tensor]] = field(default_factory=list, init=False, repr=False)
    _way: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(plan: Plan, camera: CameraPlan) -> CameraMoves:
        """Of a plan whose shot has a camera.

        Raises:
            MediaError, ModelError: the source of depth cannot be opened.
        """
        path = camera.path(plan.geometry)
        if not path.wants_depth:
            return CameraMoves(path, FlatDepth())
        fps, device = Fraction(plan.geometry.fps), resolve_device(plan.device)
        return CameraMoves(path, open_depth(camera.depth_setting, fps, device))

    @property
    def state(self) -> tuple[float, ...]:
        """What the source of depth remembers; put it back to go on with the same distances."""
        return self.depth.state

    @state.setter
    def state(self, state: tuple[float, ...]) -> None:
        self.depth.state = state

    def warp(self, picture_BCHW: Tensor, start: int, end: int) -> tuple[Tensor, Tensor | None]:
        """Frame `start`'s picture, sRGB in 0..1, as the camera sees it at frame `end`, which may be before.

        Returns:
            The picture, filled to its borders, and where it had nothing to show `[B, 1, H, W]`, 1 there;
            None for nowhere.
        """
        holes = torch.zeros_like(picture_BCHW[:, :1], dtype=torch.bool)
        for i, (step, frame) in enumerate(self._steps(start, end)):
            distances = self._distances if i else self._remembered
            depth = distances(picture_BCHW, step, frame)
            holes = warp_frame(holes.to(picture_BCHW), step, depth)[0] > 0.5
            picture_BCHW, new = warp_frame(picture_BCHW, step, depth)
            holes = holes | new
        return picture_BCHW, holes.to(picture_BCHW) if bool(holes.any()) else None

    @property
    def _frame_by_frame(self) -> bool:
        """Deforum's 3D camera has no move between frames that are not neighbours."""
        return self.path.look.space and self.path.look.dialect == "deforum"

    def _steps(self, start: int, end: int) -> list[tuple[CameraStep, int]]:
        """One move at once where there is one, else Deforum's from frame to frame."""
        if start == end:
            return []
        if not self._frame_by_frame:
            return [(self.path.between(start, end), start)]
        way = 1 if end > start else -1
        return [(self.path.between(f, f + way), f) for f in range(start, end, way)]

    def _remembered(self, picture_BCHW: Tensor, step: CameraStep, frame: int) -> Tensor | None:
        """As `_distances`; of the last two pictures, which frames between them are made of, looked up."""
        for picture, at, kind, depth in self._known:
            if picture is picture_BCHW and at == frame and kind is type(step) and step.needs_depth:
                return depth
        found = self._distances(picture_BCHW, step, frame)
        if found is not None:
            self._known = [*self._known[-1:], (picture_BCHW, frame, type(step), found)]
        return found

    def _distances(self, picture_BCHW: Tensor, step: CameraStep, frame: int) -> Tensor | None:
        """Of the picture at frame `frame`; None where it is flat or distances change nothing."""
        if not step.needs_depth or isinstance(self.depth, FlatDepth):
            return None
        if not isinstance(step, DeforumStep):
            return self.distances(picture_BCHW, frame)
        if self.depth.still:
            return self._z(self.distances(picture_BCHW, frame))
        far_is_large = self.depth.means == "distance"
        return deforum_z(self.depth.measured(picture_BCHW, frame), far_is_large=far_is_large)

    def _z(self, depth_B1HW: Tensor) -> Tensor:
        """Deforum's, of distances that are carried along; it evens out what the source measures."""
        means = self.depth.means
        return deforum_z(as_measured(depth_B1HW, means), far_is_large=means == "distance")

    def distances(self, picture_BCHW: Tensor, frame: int) -> Tensor:
        """Of the picture that is seen at frame `frame`, `[1, 1, H, W]`.

        A depth picture goes the way of the frames, once: from the nearest frame before that is kept.
        """
        if not self.depth.still or frame == 0:
            return self.depth(picture_BCHW, frame)
        if not self._frame_by_frame:
            return self._along(self.depth(picture_BCHW, 0), self.path.between(0, frame))
        if self._way and next(iter(self._way.values())).shape[-2:] != picture_BCHW.shape[-2:]:
            self._way.clear()
        start = max((f for f in self._way if f <= frame), default=0)
        here = self._way.get(start)
        here = self.depth(picture_BCHW, 0) if here is None else here
        for step, before in self._steps(start, frame):
            here = self._along(here, step)
            self._way[before + 1] = here
        while len(self._way) > KEPT_DISTANCES:
            del self._way[min(self._way)]
        return here

    def _along(self, depth_B1HW: Tensor, step: CameraStep) -> Tensor:
        """The distances of a depth picture after a step."""
        if isinstance(step, SpaceStep):
            return carry_depth(depth_B1HW, step)
        if isinstance(step, DeforumStep):
            # what moves along keeps its distance; bilinear, which gives none that was not there
            along = replace(step, padding="border", sampling="bilinear")
            return warp_frame(depth_B1HW, along, self._z(depth_B1HW))[0]
        return depth_B1HW


class NoiseCarry:
    """Where points of the latent grid go between latent frames, in latent pixels."""

    def __init__(self, moves: CameraMoves, geometry: Geometry, picture_BCHW: Tensor | None) -> None:
        """From the picture that depth is taken of, at frame 0; None leaves everything flat."""
        self._moves, self._size = moves, (geometry.columns, geometry.rows)
        starts = geometry.group_starts()
        ends = [*starts[1:], geometry.frames]
        # The pixel frame that stands for a latent one is in the middle of its group.
        self._frames = [(a + max(b, a + 1) - 1) // 2 for a, b in zip(starts, ends, strict=True)]
        self._picture = picture_BCHW if moves.path.wants_depth else None
        self._depths: dict[int, Tensor] = {}

    def __call__(self, a: int, b: int, x_N: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `kinema.animation.noise_warp.Carry`."""
        step = self._moves.path.between(self._frames[a], self._frames[b])
        if isinstance(step, SpaceStep) and self._picture is not None and a < b:
            landed = carried(step, self._depth(a), x_N[None, None], y_N[None, None])
            return landed.x[0, 0], landed.y[0, 0], landed.z[0, 0]
        plane = step.plane() if isinstance(step, SpaceStep) else step
        assert not isinstance(plane, DeforumStep), "refused by the plan"
        matrix = scaled(plane.matrix_33, plane.size, self._size)
        (p, q, r), (s, t, u), (g, h, i) = matrix.tolist()
        w = g * x_N + h * y_N + i
        safe = torch.where(w > 1e-9, w, torch.ones_like(w))
        return (p * x_N + q * y_N + r) / safe, (s * x_N + t * y_N + u) / safe, w

    def _depth(self, a: int) -> Tensor:
        """Distances of latent frame a on the latent grid, carried from frame 0."""
        if a not in self._depths:
            assert self._picture is not None
            first = self._moves.depth(self._picture, 0)
            step = self._moves.path.between(0, self._frames[a])
            here = carry_depth(first, step) if isinstance(step, SpaceStep) else first
            rows = (self._size[1], self._size[0])
            self._depths[a] = 1 / F.interpolate(1 / here.double(), rows, mode="area")
        return self._depths[a]
