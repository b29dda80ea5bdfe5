"""Where the native camera is at each frame: its tracks, integrated; free of torch.

A pose has a *view*, the moves of the picture (pan, zoom, roll about the pivot) as one map of pixels, and a
place, direction and lens in space. A point X of the world, in the axes of frame 0, lands on the pixel

    p ~ V K(fov) R^T (X - C)

Positions are taken as they are written. Rates are moves in the camera's own axes, done evenly between frames:

    pose(f) = pose(f-1) . [written(f-1)^-1 written(f)] . exp(mean of the rates at f-1 and f)

so constant rates give the same path at every frame rate.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kinema.animation.matrices import (
    Matrix,
    lens,
    multiplied,
    rigid_motion,
    rotation_x,
    rotation_y,
    rotation_z,
)

FOV = 50.0
_MIDDLE = np.array([0.0, 0.0, 1.0])  # of the flat picture, which orbits go round
_NEUTRAL = {"zoom": 1.0, "speed.zoom": 1.0, "fov": FOV, "pivot_x": 0.5, "pivot_y": 0.5}


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where a camera is.

    Attributes:
        view_33: what pan, zoom and roll do to the picture, pixels.
        rotation_33: the camera's axes in the world's: x right, y down, z forward.
        position_3: in the world, distances of the flat picture.
        fov: degrees from the top of the frame to its bottom, before the zoom.
        size: width and height in pixels.
        step_33: the view's own move from the frame before to this one; views are their products, which
            cannot be taken apart again after a long zoom.
    """

    view_33: Matrix
    rotation_33: Matrix
    position_3: Matrix
    fov: float
    size: tuple[int, int]
    step_33: Matrix

    def stands_as(self, other: Pose) -> bool:
        """Both are in one place with one lens, to rounding; their views aside."""
        return self.fov == other.fov and all(
            np.allclose(getattr(self, name), getattr(other, name), rtol=0, atol=1e-12)
            for name in ("rotation_33", "position_3")
        )

    @property
    def lens_33(self) -> Matrix:
        """The camera's space to pixels, view included."""
        return self.view_33 @ lens(self.fov, self.size)

    @property
    def seen_33(self) -> Matrix:
        """The flat picture, at distance 1 in front of frame 0's camera, to pixels before the view."""
        x, y, z = self.position_3
        onto = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0 - z]])
        return lens(self.fov, self.size) @ self.rotation_33.T @ onto

    @property
    def plane_33(self) -> Matrix:
        """The flat picture to pixels."""
        return self.view_33 @ self.seen_33

    @property
    def zoom(self) -> float:
        """Of the view."""
        return math.sqrt(abs(float(np.linalg.det(self.view_33[:2, :2]))))

    @property
    def roll(self) -> float:
        """Of the view, degrees; the camera leans clockwise."""
        return math.degrees(math.atan2(self.view_33[0, 1], self.view_33[0, 0]))


def native_poses(
    values: Mapping[str, NDArray[np.float64]],
    frames: int,
    size: tuple[int, int],
    unit: Literal["frame", "pixel"] = "frame",
) -> list[Pose]:
    """One pose per frame.

    Args:
        values: sampled tracks by name, `speed.NAME` per frame; what is left out does not move.
        frames: F.
        size: width and height in pixels.
        unit: of the pans.
    """
    track = _Tracks(values, frames, size, unit)
    pose = Pose(np.eye(3), np.eye(3), np.zeros(3), float(track("fov", 0)), size, np.eye(3))
    poses = [pose]
    for f in range(1, frames):
        step = track.view_between(f)
        turn, place = _carried(pose.rotation_33, pose.position_3, *track.written_between(f))
        turn, place = _carried(turn, place, *track.flown(f, pose.roll + track.rolled(f) / 2))
        pose = Pose(multiplied(step, pose.view_33), turn, place, float(track("fov", f)), size, step)
        poses.append(pose)
    return poses


def _carried(turn: Matrix, place: Matrix, by: Matrix, move: Matrix) -> tuple[Matrix, Matrix]:
    return turn @ by, place + turn @ move


class _Tracks:
    """The tracks of one camera as moves between neighbouring frames."""

    def __init__(
        self,
        values: Mapping[str, NDArray[np.float64]],
        frames: int,
        size: tuple[int, int],
        unit: Literal["frame", "pixel"],
    ) -> None:
        self._values = values
        assert all(len(v) == frames for v in values.values()), "every track has a value for every frame"
        self._size = size
        self._pan_scale = size if unit == "frame" else (1, 1)

    def __call__(self, name: str, f: int) -> float:
        found = self._values.get(name)
        return _NEUTRAL.get(name, 0.0) if found is None else float(found[f])

    def rate(self, name: str, f: int) -> float:
        """Per frame, the mean of both ends of the way from f - 1 to f; of zoom the geometric mean's log."""
        ends = [self(f"speed.{name}", g) for g in (f - 1, f)]
        return sum(math.log(e) for e in ends) / 2 if name == "zoom" else sum(ends) / 2

    def rolled(self, f: int) -> float:
        """Degrees between f - 1 and f."""
        return self("roll", f) - self("roll", f - 1) + self.rate("roll", f)

    def view_between(self, f: int) -> Matrix:
        """The view's map from f - 1 to f, as p' = a p + b of complex pixels x + iy."""
        pivot = self._pivot(f)
        before, after = self._written_view(f - 1, pivot), self._written_view(f, pivot)
        a = after[0] / before[0]
        b = after[1] - a * before[1]
        growth = complex(self.rate("zoom", f), -math.radians(self.rate("roll", f)))
        drift = -self._pan(self.rate("pan_x", f), self.rate("pan_y", f))
        flow = cmath.exp(growth)
        moved = drift if growth == 0 else drift * (flow - 1) / growth
        return _as_matrix(flow * a, flow * b + pivot - flow * pivot + moved)

    def _written_view(self, f: int, pivot: complex) -> tuple[complex, complex]:
        a = self("zoom", f) * cmath.exp(-1j * math.radians(self("roll", f)))
        return a, pivot - a * (pivot + self._pan(self("pan_x", f), self("pan_y", f)))

    def _pan(self, x: float, y: float) -> complex:
        """Where the camera goes, in pixels with y down."""
        return complex(x * self._pan_scale[0], -y * self._pan_scale[1])

    def _pivot(self, f: int) -> complex:
        width, height = self._size
        return complex(self("pivot_x", f) * width - 0.5, self("pivot_y", f) * height - 0.5)

    def written_between(self, f: int) -> tuple[Matrix, Matrix]:
        """From the written pose at f - 1 to that at f, in the camera's axes at f - 1."""
        before, after = self._written_pose(f - 1), self._written_pose(f)
        return before[0].T @ after[0], before[0].T @ (after[1] - before[1])

    def _written_pose(self, f: int) -> tuple[Matrix, Matrix]:
        orbit = rotation_y(-self("orbit_x", f)) @ rotation_x(-self("orbit_y", f))
        place = _MIDDLE - orbit @ _MIDDLE + [self("x", f), -self("y", f), self("z", f)]
        return orbit @ rotation_y(self("yaw", f)) @ rotation_x(self("pitch", f)), place

    def flown(self, f: int, roll: float) -> tuple[Matrix, Matrix]:
        """What the rates do between f - 1 and f, in the axes of a camera whose view leans by `roll`."""
        turn = np.radians([self.rate("pitch", f), self.rate("yaw", f), 0.0])
        round_ = np.radians([-self.rate("orbit_y", f), -self.rate("orbit_x", f), 0.0])
        move = np.array([self.rate("x", f), -self.rate("y", f), self.rate("z", f)])
        lean = rotation_z(roll)
        return rigid_motion(lean @ (turn + round_), lean @ (move - np.cross(round_, _MIDDLE)))


def _as_matrix(a: complex, b: complex) -> Matrix:
    """p' = a p + b."""
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0.0, 0.0, 1.0]])
