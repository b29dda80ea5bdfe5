"""What a shot is given beside words: pictures held at frames, a clip to start from, a clip to go on from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kinema.core.errors import ConfigError, GeometryError, MediaError, about
from kinema.io.audio_source import open_audio
from kinema.io.image import How, fitted_inside, read_image
from kinema.io.video_read import open_video
from kinema.pipelines.card import ModelCard
from kinema.pipelines.geometry import Geometry
from kinema.story.redraw import BARS
from kinema.story.shot import PREVIOUS, Shot

LEAST_CHANGE = 1 / 1000  # a training step of every model: a smaller share of the noise levels is no step


@dataclass(frozen=True, slots=True)
class HeldImage:
    """A picture that a latent frame is held to.

    Attributes:
        image: path, or `previous` for the last frame of the shot before.
        frame: pixel frame it was asked for.
        latent: latent frame that this frame lands in.
        strength: 1 holds it exactly; below, the frame may drift from noise level `1 - strength` on.
    """

    image: str
    frame: int
    latent: int
    strength: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMask:
    """Where a clip that is made over may change.

    Attributes:
        mask: path of a picture or a clip, white where all is made anew; or `bars`.
        mask_invert: whether black is made anew instead.
        feather: pixels over which edges are softened.
    """

    mask: str
    mask_invert: bool = False
    feather: float = 0.0

    @property
    def outpaints(self) -> bool:
        """What is open is what the clip's own shape leaves of the frame."""
        return self.mask == BARS


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Pictures and clips that the result must keep or start from.

    Attributes:
        held: by latent frame, at most one each.
        source: path of a clip to make over; None for none.
        strength: how much of it may change, 0..1.
        mask: where it may; None for everywhere.
        extend: path of a clip to go on from; None for none.
        fit: how pictures and clips of another shape are brought to size.
        contents: sha256 of each file named here, so that a changed picture is another plan.
    """

    held: tuple[HeldImage, ...] = ()
    source: str | None = None
    strength: float = 1.0
    mask: SourceMask | None = None
    extend: str | None = None
    fit: How = "crop"
    contents: tuple[str, ...] = ()


def plan_given(shot: Shot, card: ModelCard, geometry: Geometry) -> tuple[Given, tuple[str, ...]]:
    """Place the pictures on the latent grid.

    Raises:
        ConfigError: two pictures in one latent frame.
        GeometryError: a place outside the clip, or beside the ends of it where a model holds those alone.
        ModelError: places that this model cannot hold.
        MediaError: a picture that cannot be read.
    """
    held, notes = [], []
    if shot.begins.match:
        held.append(HeldImage(PREVIOUS, 0, 0, 1.0))
    for i, key in enumerate(shot.keyframes):
        with about(f"keyframes[{i}]"):
            frame = key.frame.resolve(geometry.keep, Fraction(geometry.fps))
        latent = geometry.group_of(frame)
        held.append(HeldImage(str(key.image), frame, latent, key.strength))
        read_image(key.image)  # a picture that cannot be read is refused now, not after the model has loaded
        first = geometry.group_starts()[latent] if latent < geometry.latent_frames else 0
        last = min(first + geometry.time - 1, geometry.frames - 1)
        grouped = (latent or geometry.loop) and geometry.time > 1 and key.strength > 0
        if grouped and card.mechanism == "levels":
            notes.append(
                f"frame {frame} shares latent frame {latent} with frames {first} to {last}, "
                "which show the picture too."
            )
    _check_places(held, card, geometry)
    given = Given(
        held=tuple(sorted(held, key=lambda h: h.latent)),
        source=None if shot.source is None else str(shot.source.path),
        strength=1.0 if shot.source is None else shot.source.strength,
        mask=_source_mask(shot, geometry),
        extend=None if shot.extend is None else str(shot.extend.path),
        fit=shot.fit,
        contents=tuple(_content(path) for path in _paths(shot)),
    )
    return given, (*notes, *_unheard(shot))


def _source_mask(shot: Shot, geometry: Geometry) -> SourceMask | None:
    """Where the clip may change; a mask that cannot be read, or opens nothing, is refused now.

    Raises:
        ConfigError: bars of a clip that is cut to shape, or a picture that lets nothing change.
        MediaError: a mask that cannot be read.
    """
    source = shot.source
    if source is None or source.mask is None:
        return None
    if source.outpaints:
        if shot.fit != "pad":
            raise ConfigError(
                f"source.mask: bars is what fit: pad leaves open, not fit: {shot.fit}; write that."
            )
        size, whole = open_video(source.path).size, (geometry.width, geometry.height)
        if fitted_inside(size, whole) == whole:
            raise ConfigError(
                f"source.mask: bars opens nothing, since the clip ({size[0]}x{size[1]}) fills "
                f"{whole[0]}x{whole[1]}; ask for a size of another shape."
            )
    else:
        masks, closed = open_video(source.mask), 255 if source.mask_invert else 0
        if masks.frames == 1 and (next(iter(masks))[..., :3] == closed).all():
            made, kept = ("black", "white") if source.mask_invert else ("white", "black")
            raise ConfigError(
                f"source.mask {source.mask} is {kept} all over, so nothing would change; paint it {made}."
            )
    return SourceMask(mask=source.mask, mask_invert=source.mask_invert, feather=source.mask_feather)


def _unheard(shot: Shot) -> tuple[str, ...]:
    """That the sound of a clip stays behind, where it has one and the shot says nothing of sound."""
    if shot.audio is not None:
        return ()
    if shot.source is not None:
        path = Path(shot.source.path)
    elif shot.extend is not None and not shot.extend.previous:
        path = Path(shot.extend.path)
    else:
        return ()
    try:
        open_audio(path)
    except MediaError:  # no sound; what else may be wrong with the clip is said where it is read
        return ()
    return (f"the sound of {path.name} is left out; --audio {path} lays it under the clip.",)


def _paths(shot: Shot) -> list[Path]:
    """Pictures and clips on disk that the shot names."""
    paths = [Path(key.image) for key in shot.keyframes]
    if shot.source is not None:
        paths += [Path(path) for path in shot.source.files]
    if shot.camera is not None and shot.camera.depth.path is not None:
        paths.append(Path(shot.camera.depth.path))
    if shot.control is not None:
        paths += [Path(path) for path in (shot.control.path, shot.control.mask) if path is not None]
    if shot.redraw is not None:
        paths += [Path(path) for path in shot.redraw.files]
    if shot.audio is not None:
        paths.append(Path(shot.audio))
    if shot.extend is not None and not shot.extend.previous:
        paths.append(Path(shot.extend.path))
    return paths


def _content(path: Path) -> str:
    """sha256 of a file, or over those of a folder of pictures."""
    if path.is_dir():
        parts = "".join(_content(part) for part in sorted(path.iterdir()) if part.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    if not path.is_file():  # a numbered pattern, frames/%04d.png
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_places(held: list[HeldImage], card: ModelCard, geometry: Geometry) -> None:
    seen: dict[int, HeldImage] = {}
    for image in held:
        if image.latent >= geometry.latent_frames:
            raise GeometryError(
                f"keyframe {image.image}@{image.frame} is past the end; "
                f"the last frame is {geometry.keep - 1}."
            )
        if (other := seen.get(image.latent)) and PREVIOUS in (image.image, other.image):
            raise ConfigError(
                "transition match holds frame 0 already; remove the keyframe there, or the transition."
            )
        if other:
            raise ConfigError(
                f"keyframes at frames {other.frame} and {image.frame} share latent frame {image.latent}; "
                f"keep them at least {geometry.time} frames apart."
            )
        seen[image.latent] = image
    places = set(seen)
    if places == {0}:
        card.require("first")
    elif places and places <= {0, geometry.latent_frames - 1} and 0 in places:
        card.require("last")
    elif places:
        card.require("keyframes")
    if card.mechanism == "channels":
        _check_ends(held, card, geometry)
    if held and geometry.context:
        raise ConfigError(
            "keyframes and extend cannot be combined in one shot; extend first, then hold frames."
        )


def _check_ends(held: list[HeldImage], card: ModelCard, geometry: Geometry) -> None:
    """Mask channels tell a model of the first and the last frame that it makes, and of no other."""
    last = geometry.frames - 1
    for image in held:
        if image.frame in (0, last):
            continue
        wrong = f"keyframe {image.image}@{image.frame}: {card.id!r} holds frames 0 and {last} alone"
        if geometry.keep < geometry.frames:
            raise GeometryError(
                f"{wrong}, and length_fit keeps {geometry.keep} of {geometry.frames} frames; write frames: "
                f"{geometry.frames} without length_fit, and {image.image}@-1."
            )
        raise GeometryError(f"{wrong}; write {image.image}@{'-1' if image.latent else '0'}.")
