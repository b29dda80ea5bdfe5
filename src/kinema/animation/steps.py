"""What the camera does between two frames, as numbers: `PlaneStep`, `SpaceStep`, `DeforumStep`.

A plane step is one 3x3 map of pixels and needs no depth: everything flat, and every move that only turns. A
space step carries each pixel by its own distance,

    q ~ K_b (R d K_a^-1 p + t)

for pixels p at distance d seen through lens K_a, landing at q behind lens K_b. A Deforum step is that tool's
own three-dimensional warp. `kinema.animation.warp.warp_frame` does them to pictures; here is no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from kinema.animation.matrices import Matrix, inverse

Border = Literal["replicate", "reflect", "wrap", "colour"]
Sampling = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class Edge:
    """What is seen where the source has nothing.

    Attributes:
        border: beyond the source's edge.
        colour: red, green, blue in 0..1, for `border: colour`.
        sampling: how pixels between pixels are read.
    """

    border: Border = "replicate"
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sampling: Sampling = "bicubic"


@dataclass(frozen=True, slots=True, eq=False)
class PlaneStep:
    """A map of the whole picture.

    Attributes:
        matrix_33: source to destination, pixels.
        size: width and height that the pixels are of.
        edge: what is seen beyond the source.
    """

    matrix_33: Matrix
    size: tuple[int, int]
    edge: Edge = Edge()

    @property
    def needs_depth(self) -> bool:
        """Whether it can use the distance of every pixel."""
        return False

    @property
    def still(self) -> bool:
        """The camera does not move; the picture stays as it is, to the last bit."""
        return bool(np.array_equal(self.matrix_33, np.eye(3)))


@dataclass(frozen=True, slots=True, eq=False)
class SpaceStep:
    """A move through a scene that has depth.

    Attributes:
        source_33: lens of the source: its space to its pixels.
        target_33: lens of the destination.
        rotation_33: source's axes to the destination's.
        translation_3: then added; the destination's axes, distances of the flat picture.
        size: width and height that the pixels are of.
        edge: what is seen where nothing is known.
    """

    source_33: Matrix
    target_33: Matrix
    rotation_33: Matrix
    translation_3: Matrix
    size: tuple[int, int]
    edge: Edge = Edge()

    @property
    def needs_depth(self) -> bool:
        """Whether it can use the distance of every pixel."""
        return True

    @property
    def still(self) -> bool:
        """The camera does not move; the picture stays as it is, to the last bit."""
        return bool(
            np.array_equal(self.source_33, self.target_33)
            and np.array_equal(self.rotation_33, np.eye(3))
            and not self.translation_3.any()
        )

    def plane(self, distance: float = 1.0) -> PlaneStep:
        """The same for a flat picture at `distance`: the exact map."""
        across = np.outer(self.translation_3, [0.0, 0.0, 1.0]) / distance
        matrix = self.target_33 @ (self.rotation_33 + across) @ np.linalg.inv(self.source_33)
        return PlaneStep(matrix, self.size, self.edge)


@dataclass(frozen=True, slots=True, eq=False)
class DeforumStep:
    """Deforum's warp in 3D: the picture, read at `(u, v) - delta(u, v)`.

    Attributes:
        rotation: degrees about x, y, z.
        translation: right, up, forward, in two-hundredths of a distance.
        fov: degrees.
        aspect: divides x in the projection.
        padding: grid_sample's name for the border.
        sampling: how pixels between pixels are read.
        size: width and height that the pixels are of.
        flip: a perspective flip of the picture, done before the warp.
    """

    rotation: tuple[float, float, float]
    translation: tuple[float, float, float]
    fov: float = 70.0
    aspect: float = 1.0
    padding: Literal["border", "reflection", "zeros"] = "border"
    sampling: Sampling = "bicubic"
    size: tuple[int, int] = field(default=(0, 0))
    flip: PlaneStep | None = None

    @property
    def needs_depth(self) -> bool:
        """Whether it can use the distance of every pixel."""
        return True

    @property
    def still(self) -> bool:
        """The camera does not move; the picture stays as it is, to the last bit."""
        unmoved = not any(self.rotation) and not any(self.translation)
        return unmoved and (self.flip is None or self.flip.still)

    @property
    def opposite(self) -> DeforumStep:
        """The way back, to first order: the warp has no exact one."""
        (a, b, c), (x, y, z) = self.rotation, self.translation
        back = None if self.flip is None else replace(self.flip, matrix_33=inverse(self.flip.matrix_33))
        return replace(self, rotation=(-a, -b, -c), translation=(-x, -y, -z), flip=back)


CameraStep = PlaneStep | SpaceStep | DeforumStep
