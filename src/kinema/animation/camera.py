"""A camera as the rest of kinema sees it: its path, one step per frame, and the matrices of flat moves.

    found = path(shot.camera, frames, fps, (width, height))
    found.steps[f]          what happens to the picture between frame f - 1 and frame f
    found.poses[f]          where the camera is
    found.between(0, f)     the move from frame 0 to frame f at once
    warped, holes = warp_frame(frame_BCHW, found.steps[f], depth_B1HW)      # kinema.animation.warp

Free of torch. The convention: see `kinema.story.camera`, docs/camera.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kinema.animation.matrices import (
    Matrix,
    Perspective,
    deforum_flip,
    inverse,
    lens,
    matrix_2d,
    multiplied,
    rotation_x,
    rotation_y,
    rotation_z,
)
from kinema.animation.poses import FOV, Pose, native_poses
from kinema.animation.steps import Border, CameraStep, DeforumStep, Edge, PlaneStep, Sampling, SpaceStep
from kinema.core.errors import ConfigError

__all__ = ["CameraPath", "Look", "Perspective", "Pose", "matrix_2d", "path", "path_of"]

Values = Mapping[str, NDArray[np.float64]]
_NEAREST = 0.02  # distances of the flat picture: closer, one pixel of it fills the frame
_BORDERS: dict[str, Border] = {"border": "replicate", "reflection": "reflect", "zeros": "colour"}


class AnyCamera(Protocol):
    """What `kinema.story.camera` gives: a dialect, look settings, and tracks that can be sampled."""

    @property
    def dialect(self) -> str:
        """`native` or `deforum`."""

    def sample(self, frames: int, fps: float | Fraction, seed: int = 0) -> dict[str, NDArray[np.float64]]:
        """The given tracks, `[F]` each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A camera's settings that are not tracks; numbers and names only, so that a plan can hold it.

    Attributes:
        dialect: `native` or `deforum`.
        space: Deforum's 3D mode.
        flip: Deforum's perspective flip is on.
        flip_border: beyond the picture's edge where it is flipped in 3D, which has a border of its own.
        unit: of native pans.
        flat: there is no depth: the picture is a plane at distance 1.
        border: beyond the picture's edge.
        colour: red, green, blue in 0..1, for `border: colour`.
        sampling: how pixels between pixels are read.
    """

    dialect: Literal["native", "deforum"] = "native"
    space: bool = False
    flip: bool = False
    flip_border: Border = "replicate"
    unit: Literal["frame", "pixel"] = "frame"
    flat: bool = True
    border: Border = "replicate"
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sampling: Sampling = "bicubic"

    @staticmethod
    def of(camera: Any) -> Look:
        """Of a shot's camera, either dialect."""
        if camera.dialect == "native":
            r, g, b = camera.colour
            return Look(
                unit=camera.unit,
                flat=camera.depth.flat,
                border=camera.border,
                colour=(r / 255, g / 255, b / 255),
            )
        space = camera.mode == "3D"
        return Look(
            dialect="deforum",
            space=space,
            flip=camera.enable_perspective_flip,
            flip_border=camera.border,
            flat=camera.depth.flat,
            border=_BORDERS[camera.padding_mode] if space else camera.border,
            sampling=camera.sampling_mode if space else "bilinear",
        )

    @property
    def edge(self) -> Edge:
        """For the steps."""
        return Edge(self.border, self.colour, self.sampling)


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera over F frames.

    Attributes:
        poses: where it is at each frame; of Deforum's 3D mode, where its moves add up to.
        look: its settings.
        size: width and height in pixels.
        values: the sampled tracks.
    """

    poses: tuple[Pose, ...]
    look: Look
    size: tuple[int, int]
    values: Values = field(repr=False)

    @cached_property
    def steps(self) -> tuple[CameraStep, ...]:
        """From frame f - 1 to frame f, for each frame; the first is still."""
        first = PlaneStep(np.eye(3), self.size, self.look.edge)
        return (first, *(self.between(f - 1, f) for f in range(1, len(self.poses))))

    @property
    def moves(self) -> bool:
        """The camera moves at all."""
        return not all(step.still for step in self.steps)

    @cached_property
    def translates(self) -> bool:
        """It changes its place in space, so that distances matter."""
        place_F3 = np.array([pose.position_3 for pose in self.poses])
        return not np.allclose(place_F3, place_F3[0], atol=1e-12)

    @property
    def wants_depth(self) -> bool:
        """There is a source of depth, and some step can use it."""
        return not self.look.flat and any(step.needs_depth for step in self.steps)

    def between(self, a: int, b: int) -> CameraStep:
        """The move from frame a to frame b at once.

        Raises:
            ConfigError: for Deforum's 3D warp of frames that are no neighbours, which has no single map.
        """
        if self.look.dialect == "deforum" and self.look.space:
            if abs(b - a) != 1:
                raise ConfigError(
                    "Deforum's 3D camera goes from frame to frame only; use the native dialect here."
                )
            return self._deforum_step(b) if b > a else self._deforum_step(a).opposite
        view, before, after = self._view_between(a, b), self.poses[a], self.poses[b]
        if before.stands_as(after):
            return self._zoomed(view, before)
        turn = after.rotation_33.T @ before.rotation_33
        move = after.rotation_33.T @ (before.position_3 - after.position_3)
        if self.translates and not self.look.flat:
            return SpaceStep(before.lens_33, after.lens_33, turn, move, self.size, self.look.edge)
        if self.translates:
            seen = after.seen_33 @ np.linalg.inv(before.seen_33)
        else:
            seen = lens(after.fov, self.size) @ turn @ np.linalg.inv(lens(before.fov, self.size))
        return self._plane(view @ before.view_33 @ seen @ np.linalg.inv(before.view_33))

    def _view_between(self, a: int, b: int) -> Matrix:
        """What pan, zoom and roll do from frame a to frame b: the product of the frames' own steps."""
        product = np.eye(3)
        for pose in self.poses[min(a, b) + 1 : max(a, b) + 1]:
            # each step is turned back alone: a product over a thousand frames may have no inverse left
            step = pose.step_33 if b > a else inverse(pose.step_33)
            product = multiplied(step, product) if b > a else multiplied(product, step)
        return product

    def _zoomed(self, view_33: Matrix, pose: Pose) -> CameraStep:
        """Of a camera that stays where it is: the view alone."""
        step = self._plane(view_33)
        if step.still or self.look.flat or not self.translates:
            return step
        own = lens(pose.fov, self.size)  # of both ends: what the view was before is not needed
        return SpaceStep(own, view_33 @ own, np.eye(3), np.zeros(3), self.size, self.look.edge)

    def _plane(self, matrix_33: Matrix) -> PlaneStep:
        """Scaled to a last entry of 1, and exactly the identity where it differs by rounding only."""
        scaled = matrix_33 / (abs(matrix_33[2, 2]) or 1.0)  # the sign says what is behind the camera
        still = np.abs(scaled - np.eye(3)).max() < 1e-9
        return PlaneStep(np.eye(3) if still else scaled, self.size, self.look.edge)

    def _deforum_step(self, f: int) -> DeforumStep:
        def at(name: str, neutral: float = 0.0) -> float:
            found = self.values.get(name)
            return neutral if found is None else float(found[f])

        padding: dict[str, Any] = {border: name for name, border in _BORDERS.items()}
        return DeforumStep(
            rotation=(at("rotation_3d_x"), at("rotation_3d_y"), at("rotation_3d_z")),
            translation=(at("translation_x"), at("translation_y"), at("translation_z")),
            fov=at("fov", 70.0),
            aspect=at("aspect_ratio", 1.0),
            padding=padding[self.look.border],
            sampling=self.look.sampling,
            size=self.size,
            flip=self._deforum_flip(f) if self.look.flip else None,
        )

    def _deforum_flip(self, f: int) -> PlaneStep:
        edge = Edge(self.look.flip_border, sampling="bilinear")
        with _at_frame(f):
            return PlaneStep(deforum_flip(_leant(self.values, f), self.size), self.size, edge)


def path(
    camera: AnyCamera, frames: int, fps: float | Fraction, size: tuple[int, int], *, seed: int = 0
) -> CameraPath:
    """The path of a shot's camera.

    Args:
        camera: of either dialect, from `kinema.story.camera`.
        frames: F.
        fps: frames per second.
        size: width and height in pixels.
        seed: what expressions see.

    Raises:
        ConfigError: a track that cannot be sampled, or a camera that flies through the flat picture or loses
            sight of it.
    """
    return path_of(camera.sample(frames, fps, seed), Look.of(camera), frames, size)


def path_of(values: Values, look: Look, frames: int, size: tuple[int, int]) -> CameraPath:
    """The path from sampled tracks, as a plan holds them."""
    if look.dialect == "native":
        poses = native_poses(values, frames, size, look.unit)
    elif look.space:
        poses = _deforum_flight(values, frames, size)
    else:
        poses = _deforum_pictures(values, look, frames, size)
    found = CameraPath(tuple(poses), look, size, values)
    if look.dialect == "native" and look.flat and found.translates:
        _check_in_sight(poses)
    return found


def _check_in_sight(poses: list[Pose]) -> None:
    for f, pose in enumerate(poses):
        ahead = pose.rotation_33[2, 2]
        if 1 - pose.position_3[2] < _NEAREST or ahead < _NEAREST:
            what = "sees nothing of" if ahead < _NEAREST else "reaches"
            raise ConfigError(
                f"the camera {what} the flat picture at frame {f}; move or turn it less, give the shot "
                "depth, or use zoom, which never arrives."
            )


def _deforum_pictures(values: Values, look: Look, frames: int, size: tuple[int, int]) -> list[Pose]:
    """Poses whose views multiply up Deforum's 2D matrices; the values at frame f make frame f."""

    def at(name: str, f: int, neutral: float = 0.0) -> float:
        return float(values[name][f]) if name in values else neutral

    view, step, poses = np.eye(3), np.eye(3), []
    for f in range(frames):
        if f:
            with _at_frame(f):
                step = matrix_2d(
                    at("angle", f),
                    at("zoom", f, 1.0),
                    at("translation_x", f),
                    at("translation_y", f),
                    (at("transform_center_x", f, 0.5), at("transform_center_y", f, 0.5)),
                    size,
                    perspective=_leant(values, f) if look.flip else None,
                    dialect="deforum",
                )
            if abs(float(np.linalg.det(step))) < 1e-12:
                raise ConfigError(
                    f"camera.zoom={at('zoom', f, 1.0):g} at frame {f} leaves nothing of the picture."
                )
            view = multiplied(step, view)
        poses.append(Pose(view, np.eye(3), np.zeros(3), FOV, size, step))
    return poses


def _leant(values: Values, f: int) -> Perspective:
    """The flip at a frame."""
    tracks = {name: values.get(f"perspective_flip_{name}") for name in Perspective._fields}
    return Perspective(**{name: float(track[f]) for name, track in tracks.items() if track is not None})


@contextmanager
def _at_frame(f: int) -> Iterator[None]:
    """What is wrong with a camera's values is said with their frame."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"camera at frame {f}: {error}") from None


def _deforum_flight(values: Values, frames: int, size: tuple[int, int]) -> list[Pose]:
    """Where Deforum's 3D moves would take a true camera; for pictures of the path."""

    def at(name: str, f: int, neutral: float = 0.0) -> float:
        return float(values[name][f]) if name in values else neutral

    turn, place, poses = np.eye(3), np.zeros(3), []
    for f in range(frames):
        if f:
            move = np.array([at("translation_x", f), -at("translation_y", f), at("translation_z", f)]) / 200
            place = place + turn @ move
            x, y, z = (at(f"rotation_3d_{axis}", f) for axis in "xyz")
            turn = turn @ rotation_x(x) @ rotation_y(y) @ rotation_z(z)
        poses.append(Pose(np.eye(3), turn, place, at("fov", f, 70.0), size, np.eye(3)))
    return poses
