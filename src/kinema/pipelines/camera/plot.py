"""A camera's path as a picture: what each frame sees of the first one's plane, and where the camera goes.

    corner on the plane = P^-1 (corner of the frame),    P the pose's map from the flat picture to pixels

Left, the windows of some frames from pale (first) to dark (last) on the picture's plane, with the way of
their middle. Right, for cameras that change their place, the way from above: to the right of the first frame
is right, ahead of it is up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinema.animation.camera import CameraPath, Pose
from kinema.pipelines.figure import FAINT, INK, Figure
from kinema.pipelines.plots import GAP, LABEL, LEFT, RIGHT, WIDTH

Points = NDArray[np.float64]

HEIGHT = 130
WINDOWS = 7
FARTHEST = 50.0  # widths of the plane: what lies beyond is not drawn


def draw_camera(figure: Figure, path: CameraPath) -> None:
    """A panel for the windows, and one for the way through space where there is one."""
    half = (WIDTH - LEFT - RIGHT - GAP) / 2
    figure.words(LEFT, figure.height, "camera: what the frames see of the first frame's plane")
    top = figure.height + LABEL + 4
    _windows(figure, path, (LEFT, top, half, HEIGHT))
    if path.translates:
        figure.words(LEFT + half + GAP, figure.height, "camera: its way, seen from above")
        _way(figure, path, (LEFT + half + GAP, top, half, HEIGHT))
    figure.height = int(top + HEIGHT + GAP)


def window(pose: Pose) -> Points | None:
    """The frame's corners on the plane, `[4, 2]`, clockwise from the top left; None where it sees beyond."""
    right, bottom = pose.size[0] - 0.5, pose.size[1] - 0.5  # whole numbers are the middles of pixels
    corners_34 = np.array([[-0.5, right, right, -0.5], [-0.5, -0.5, bottom, bottom], [1, 1, 1, 1]])
    if not np.isfinite(pose.view_33).all() or pose.zoom == 0:  # zoomed beyond what numbers hold
        return None
    found_34 = np.linalg.inv(pose.plane_33) @ corners_34
    depth_4 = (pose.plane_33 @ (found_34 / found_34[2]))[2]
    if (np.abs(found_34[2]) < 1e-9).any() or (depth_4 <= 0).any():
        return None
    points_42 = (found_34[:2] / found_34[2]).T
    return points_42 if np.abs(points_42).max() < FARTHEST else None


def _windows(figure: Figure, path: CameraPath, box: tuple[float, float, float, float]) -> None:
    chosen = np.unique(np.linspace(0, len(path.poses) - 1, WINDOWS).round().astype(int))
    quads = [quad for f in chosen if (quad := window(path.poses[f])) is not None]
    middles = [quad.mean(axis=0) for pose in path.poses if (quad := window(pose)) is not None]
    if not quads:
        return
    place = _Fit(np.concatenate(quads), box)
    figure.box(*box, "#f0f0ec")
    figure.area(place.points(quads[0]), "#e2e2dc")
    for i, quad in enumerate(quads):
        gray = round(190 - 150 * i / max(1, len(quads) - 1))
        figure.line(place.points([*quad, quad[0]]), f"#{gray:02x}{gray:02x}{gray:02x}", 1.2)
    _dotted(figure, place.points(middles))


def _way(figure: Figure, path: CameraPath, box: tuple[float, float, float, float]) -> None:
    """Positions from above, and the plane's edge at distance 1."""
    places = np.array([[pose.position_3[0], -pose.position_3[2]] for pose in path.poses])
    width, height = path.size
    reach = np.tan(np.radians(path.poses[0].fov) / 2) * width / height
    plane = np.array([[-reach, -1.0], [reach, -1.0]])
    place = _Fit(np.concatenate([places, plane]), box)
    figure.box(*box, "#f0f0ec")
    figure.line(place.points(plane), FAINT, 3)
    _dotted(figure, place.points(places))


def _dotted(figure: Figure, points: Sequence[tuple[float, float]]) -> None:
    """The way, with a mark where it begins and a larger one where it ends."""
    if len(points) > 1:
        figure.line(points, "#d1662f", 1.6)
    for (x, y), side in ((points[0], 4.0), (points[-1], 6.0)):
        figure.box(x - side / 2, y - side / 2, side, side, INK if side > 4 else "#d1662f")


class _Fit:
    """Brings points into a box, without distortion."""

    def __init__(self, points_N2: Points, box: tuple[float, float, float, float]) -> None:
        left, top, width, height = box
        low, high = points_N2.min(axis=0), points_N2.max(axis=0)
        across, down = np.maximum(high - low, 1e-6)
        self.scale = float(min((width - 16) / across, (height - 16) / down))
        self.middle = (low + high) / 2
        self.origin = np.array([left + width / 2, top + height / 2])

    def points(self, points: Sequence[Points] | Points) -> list[tuple[float, float]]:
        """In pixels of the figure."""
        placed = (np.asarray(points) - self.middle) * self.scale + self.origin
        return [(float(x), float(y)) for x, y in placed]
