"""A shot's camera made concrete: its tracks sampled, its settings, and what a video model is told of it.

Numbers and names only; `CameraPlan.path` gives poses and steps back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from kinema.animation.camera import CameraPath, Look, path_of
from kinema.core.errors import ConfigError
from kinema.io.grey import GreyClip
from kinema.pipelines.card import ModelCard
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.given import Given
from kinema.story.camera import Camera
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.depth import Depth
from kinema.story.shot import Shot

FOLLOW = 0.5  # moves the picture as asked and leaves half of the noise levels to the model


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPlan:
    """A camera as numbers.

    Attributes:
        look: its settings.
        tracks: by name, a value for every pixel frame.
        depth: the setting of `story.depth` as JSON values, defaults left out.
        noise: how much of a video model's noise moves with the camera, 0..1.
        follow: how firmly each latent frame is held to the moved keyframe, 0..1; empty for not at all.
    """

    look: Look
    tracks: tuple[tuple[str, tuple[float, ...]], ...]
    depth: dict[str, str | float]
    noise: float = 0.0
    follow: tuple[float, ...] = ()

    def path(self, geometry: Geometry) -> CameraPath:
        """Poses and steps of every pixel frame that is made, at the plan's size.

        Frames beyond the length that was asked for go on as the last one does.
        """
        values = {name: _lengthened(np.array(v), geometry.frames) for name, v in self.tracks}
        return path_of(values, self.look, geometry.frames, (geometry.width, geometry.height))

    @property
    def depth_setting(self) -> Depth:
        """Where distances come from."""
        return Depth.from_mapping(self.depth)


def _lengthened(values_F: np.ndarray, frames: int) -> np.ndarray:
    return np.pad(values_F, (0, max(frames - len(values_F), 0)), mode="edge")[:frames]


def plan_camera(
    shot: Shot, card: ModelCard, geometry: Geometry, given: Given, *, seed: int, joint: bool
) -> tuple[CameraPlan | None, tuple[str, ...]]:
    """The camera of a shot, and what the user should know about it.

    Raises:
        ConfigError: a track that cannot be sampled, a path that cannot be flown, or settings that do not go
            with the mode.
        ModelError: frames are held that this model cannot hold.
        MediaError: a depth picture or clip that cannot be opened.
    """
    camera = shot.camera
    if camera is None:
        return None, ()
    if camera.depth.path is not None:
        GreyClip(camera.depth.path, Fraction(geometry.fps))  # what cannot be opened is refused now
    values = camera.sample(geometry.keep, Fraction(geometry.fps), seed)
    native = camera if isinstance(camera, Camera) else None
    look = Look.of(camera)
    if joint and look.space:
        raise ConfigError(
            "Deforum's 3D camera goes from frame to frame; write mode: frame_by_frame, or a native camera."
        )
    if native is not None and not joint and (native.hold or "follow" in values):
        raise ConfigError(
            "camera.hold and camera.follow are for mode: joint; frame by frame, every frame is drawn from "
            "the one before as the camera moved it."
        )
    plan = CameraPlan(
        look=look,
        tracks=tuple((name, tuple(map(float, v))) for name, v in values.items() if name != "follow"),
        depth=camera.depth.to_mapping(),
        noise=native.noise if joint and native is not None else 0.0,
        follow=_follow(native, _followed(shot, card, values), geometry) if joint and native else (),
    )
    if any(plan.follow):
        _check_follow(plan.follow, shot, card, given)
    return plan, tuple(_notes(shot, plan, plan.path(geometry), joint=joint))


def _followed(shot: Shot, card: ModelCard, values: Mapping[str, np.ndarray]) -> np.ndarray | float:
    """What was asked for; else what makes a camera over a keyframe visible, where the model can do it."""
    assert isinstance(shot.camera, Camera)
    if "follow" in values:
        return values["follow"]
    able = {"keyframes", "strength"} <= card.modes and shot.source is None and bool(shot.keyframes)
    return FOLLOW if able and not shot.camera.says_what_is_held else 0.0


def _follow(camera: Camera, follow_F: np.ndarray | float, geometry: Geometry) -> tuple[float, ...]:
    """How firmly each latent frame is held: the firmest of its pixel frames."""
    held_F = np.zeros(geometry.keep) + follow_F
    for hold in camera.hold:
        frame = hold.frame.resolve(geometry.keep, Fraction(geometry.fps))
        held_F[frame] = max(held_F[frame], hold.strength)
    held_F = _lengthened(held_F, geometry.frames)
    starts = geometry.group_starts()
    ends = [*starts[1:], geometry.frames]
    return tuple(float(held_F[a : max(b, a + 1)].max()) for a, b in zip(starts, ends, strict=True))


def _check_follow(follow: tuple[float, ...], shot: Shot, card: ModelCard, given: Given) -> None:
    if not given.held:
        raise ConfigError(
            "camera.hold and camera.follow move a keyframe's picture, and the shot has none; give it a "
            "keyframe, such as picture.png@0."
        )
    if shot.source is not None:
        raise ConfigError("camera.hold and camera.follow exclude source; leave one of them out.")
    card.require("keyframes")
    if any(0 < strength < 1 for strength in follow):
        card.require("strength")


def _jumps(path: CameraPath) -> bool:
    """Whether the way from the last frame back to the first is longer than any step before it."""
    placed = [
        np.concatenate([pose.view_33.ravel(), pose.rotation_33.ravel(), pose.position_3, [pose.fov]])
        for pose in path.poses
    ]
    steps = [float(np.abs(b - a).max()) for a, b in pairwise(placed)]
    return len(placed) > 1 and float(np.abs(placed[0] - placed[-1]).max()) > 1.5 * max(steps) + 1e-9


def _notes(shot: Shot, plan: CameraPlan, found: CameraPath, *, joint: bool) -> Iterator[str]:
    if isinstance(shot.camera, DeforumCamera) and shot.camera.idle:
        yield f"camera: {', '.join(shot.camera.idle)} do nothing in mode {shot.camera.mode}, as in Deforum."
    if not found.moves:
        yield "the camera does not move: its tracks stay as they are; rates stand under speed."
    elif joint and not plan.noise and not any(plan.follow):
        yield "the camera moves nothing: camera.noise is 0 and no frame is held to a moved keyframe."
    elif any(plan.follow) and isinstance(shot.camera, Camera) and not shot.camera.says_what_is_held:
        yield f"every frame is held to the moved keyframe by {FOLLOW:g}; camera.follow sets how firmly."
    if shot.loop and _jumps(found):
        yield "the camera does not come back, and the loop jumps there; let its tracks end near their start."
    if found.moves and not plan.look.flat and not found.wants_depth:
        yield "camera.depth is not used: the camera turns and zooms but does not change its place."
