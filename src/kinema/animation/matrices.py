"""Matrices of a camera: picture moves as 3x3 maps of pixels, rotations, lenses, rigid motions; all float64.

    p' = M p        p = (x, y, 1), x right, y down, pixel centres at whole numbers

`M` maps where something is in the source to where it is in the destination. Axes of space are those of the
picture with z forward, so y is down; a camera's rotation takes its own axes to the world's.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name

Matrix = NDArray[np.float64]
Dialect = Literal["native", "deforum"]


class Perspective(NamedTuple):
    """A picture that leans out of its plane, in Deforum's terms, degrees.

    Attributes:
        theta: turned in its plane, clockwise on the screen.
        phi: the top leans away.
        gamma: the right side leans away.
        fv: field of view over the picture's diagonal, 0..180; larger is a stronger perspective.
    """

    theta: float = 0.0
    phi: float = 0.0
    gamma: float = 0.0
    fv: float = 53.0


def matrix_2d(
    angle: float,
    zoom: float,
    translation_x: float,
    translation_y: float,
    center: tuple[float, float],
    size: tuple[int, int],
    *,
    perspective: Perspective | tuple[float, float, float, float] | None = None,
    dialect: Dialect = "native",
) -> Matrix:
    """The map of one frame's picture to the next, source to destination, `[3, 3]` in pixels.

    Native: what the camera does. The picture turns and grows about the centre, leans, and then moves by
    exactly `(-translation_x, +translation_y)`: a camera that goes right and up.

        p' = P (A (p - c) + c) + (-t_x, t_y),    c = center * size - 1/2

    Deforum: what the picture does. It moves first, so that zoom and angle change the translation too, about
    a centre that is half a pixel off; with a perspective the translation is dropped (sd-webui-deforum
    3224268, which passes it as numpy's `out`), and a perspective of zero angles still shrinks a little.

        p' = A (p + t - c) + c    or    B (A (p - c) + c),    c = center * size

    Args:
        angle: degrees; positive turns the picture anticlockwise, a camera clockwise.
        zoom: factor, above 1 larger.
        translation_x: pixels.
        translation_y: pixels.
        center: what stays in place, as shares of width and height; (0.5, 0.5) is the middle.
        size: width and height in pixels.
        perspective: out of the plane; None for none.
        dialect: `native` or `deforum`.
    """
    if dialect not in ("native", "deforum"):
        raise unknown_name("camera dialect", dialect, ["native", "deforum"])
    half = 0.5 if dialect == "native" else 0.0
    c = (center[0] * size[0] - half, center[1] * size[1] - half)
    turned = about(c, turn_and_scale(angle, zoom))
    if dialect == "native":
        leant = np.eye(3) if perspective is None else lean(Perspective(*perspective), size)
        return shift(-translation_x, translation_y) @ leant @ turned
    if perspective is None:
        return turned @ shift(translation_x, translation_y)
    return deforum_flip(Perspective(*perspective), size) @ turned


def shift(x: SupportsFloat, y: SupportsFloat) -> Matrix:
    """Everything moves by (x, y)."""
    return np.array([[1.0, 0.0, float(x)], [0.0, 1.0, float(y)], [0.0, 0.0, 1.0]])


def multiplied(after_33: Matrix, before_33: Matrix) -> Matrix:
    """Both moves in turn; infinite, without a warning, where a zoom goes beyond what numbers hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        product: Matrix = after_33 @ before_33
    return product


def inverse(matrix_33: Matrix) -> Matrix:
    """The way back."""
    return np.asarray(np.linalg.inv(matrix_33), np.float64)


def about(centre: tuple[float, float], matrix_33: Matrix) -> Matrix:
    """The same map with `centre` in place of the origin."""
    return shift(*centre) @ matrix_33 @ shift(-centre[0], -centre[1])


def turn_and_scale(degrees: float, factor: float) -> Matrix:
    """About the origin; positive turns anticlockwise on a screen whose y is down."""
    a = math.radians(degrees)
    c, s = factor * math.cos(a), factor * math.sin(a)
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def lean(perspective: Perspective, size: tuple[int, int]) -> Matrix:
    """A picture that leans about its middle, which stays in place; zero angles are the identity exactly."""
    theta, phi, gamma, fv = perspective
    if theta == phi == gamma == 0:
        return np.eye(3)
    h = _distance(size, fv)
    turn = rotation_x(phi) @ rotation_y(gamma) @ rotation_z(theta)
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    return about(middle, _projected(turn, h, h))


def deforum_flip(perspective: Perspective, size: tuple[int, int]) -> Matrix:
    """Deforum's flip as it is: seen from a unit too far, as its projection keeps w's own 1, fitted to the
    corners and centred on the wrong side, both in single precision.

    Raises:
        ConfigError: the picture is seen from its edge.
    """
    width, height = size
    theta, phi, gamma, fv = perspective
    turn = rotation_x(phi) @ rotation_y(gamma) @ rotation_z(theta)
    side = math.hypot(width, height) / math.cos(math.radians(fv) / 2)
    focal = side / 2 / math.tan(math.radians(fv) / 2)
    flip = shift(side / 2, side / 2) @ _projected(turn, _distance(size, fv) + 1, focal)
    corners = np.array([[x, y] for x in (-width / 2, width / 2) for y in (-height / 2, height / 2)])
    landed = np.column_stack([corners, np.ones(4)]) @ flip.T
    source = (corners + np.array(size) / 2).astype(np.float32)
    try:
        flip = through_points(source, (landed[:, :2] / landed[:, 2:]).astype(np.float32))
    except np.linalg.LinAlgError:
        raise ConfigError(
            f"a perspective flip by phi {phi:g} and gamma {gamma:g} degrees sees the picture from its edge, "
            "and nothing is left of it; stay off 90 degrees."
        ) from None
    return flip @ shift(np.float32((width - side) / 2), np.float32((height - side) / 2))


def through_points(source_42: NDArray[np.floating], destination_42: NDArray[np.floating]) -> Matrix:
    """The perspective map, with 1 in its last corner, that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source_42, destination_42, strict=True):
        # products in the points' own precision, as OpenCV takes them
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved = np.linalg.solve(np.array(rows, np.float64), np.array(values, np.float64))
    return np.append(solved, 1.0).reshape(3, 3)


def _distance(size: tuple[int, int], fv: float) -> float:
    """How far a picture is whose diagonal fills the field of view on a sphere through its corners."""
    return math.hypot(*size) / (2 * math.sin(math.radians(fv) / 2))


def _projected(turn_33: Matrix, distance: float, focal: float) -> Matrix:
    """Points of a plane through the origin, turned, and seen from `distance` in front of it (-z is away)."""
    projection = np.array([[focal, 0.0, 0.0], [0.0, focal, 0.0], [0.0, 0.0, -1.0]])
    return projection @ np.column_stack([turn_33[:, :2], [0.0, 0.0, -distance]])


def rotation_x(degrees: float) -> Matrix:
    """Right-handed, about x; of a camera with y down: looks up."""
    a = math.radians(degrees)
    c, s = math.cos(a), math.sin(a)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(degrees: float) -> Matrix:
    """Right-handed, about y; of a camera with y down: looks right."""
    a = math.radians(degrees)
    c, s = math.cos(a), math.sin(a)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(degrees: float) -> Matrix:
    """Right-handed, about z; of a camera with y down: leans clockwise."""
    a = math.radians(degrees)
    c, s = math.cos(a), math.sin(a)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def lens(fov: float, size: tuple[int, int]) -> Matrix:
    """Space in front of the camera to pixels; the frame's height spans `fov` degrees, pixels are square.

    K = [[f, 0, (W - 1) / 2], [0, f, (H - 1) / 2], [0, 0, 1]],   f = H / (2 tan(fov / 2))
    """
    width, height = size
    focal = height / (2 * math.tan(math.radians(fov) / 2))
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def rigid_motion(turn_3: Matrix, move_3: Matrix) -> tuple[Matrix, Matrix]:
    """Where a body is after moving evenly for one unit of time: exp of a twist in its own axes.

    Args:
        turn_3: rate of rotation about its axes, radians.
        move_3: rate of translation along them.

    Returns:
        Rotation `[3, 3]` and translation `[3]`, so that a point x of its new axes is `R x + t` in the old.
    """
    x, y, z = turn_3
    w = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    a = float(np.linalg.norm(turn_3))
    if a < 1e-8:  # series; the terms left out are below rounding
        return np.eye(3) + w + w @ w / 2, (np.eye(3) + w / 2) @ move_3
    rotation = np.eye(3) + math.sin(a) / a * w + (1 - math.cos(a)) / a**2 * w @ w
    carried = np.eye(3) + (1 - math.cos(a)) / a**2 * w + (a - math.sin(a)) / a**3 * w @ w
    return rotation, carried @ move_3
