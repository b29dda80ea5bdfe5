"""A shot's look made concrete: pictures that stand in for words, and the share of each in every frame.

s_k(f) = strength_k h_k(f)         h_k is 1 at the picture's frame and falls in a straight line to 0
z(f)   = sum_k s_k(f) z_k + (1 - sum_k s_k(f)) z_prompt(f)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.errors import ConfigError
from kinema.io.image import read_image
from kinema.pipelines.card import ModelCard
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.unclip.card import is_unclip
from kinema.story.shot import Shot

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class LookPlan:
    """Pictures that stand in for words.

    Attributes:
        pictures: their paths.
        contents: sha256 of each file, so that a changed picture is another plan.
        shares: of each picture in every frame; what is missing from 1 is the prompts' share.
    """

    pictures: tuple[str, ...]
    contents: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]


def plan_look(shot: Shot, card: ModelCard, geometry: Geometry) -> LookPlan | None:
    """The look of a shot; None for a shot without one.

    Raises:
        ConfigError: a model that reads no pictures in place of words, or shares above 1 in one frame.
        MediaError: a picture that cannot be read.
    """
    if not shot.look:
        return None
    if not is_unclip(card):
        raise ConfigError(
            f"look is read by Kandinsky 2.2, and {card.id!r} is something else; give the picture as a "
            "keyframe, or use such a model."
        )
    fps = Fraction(geometry.fps)
    at = [key.frame.resolve(geometry.keep, fps) for key in shot.look]
    places = sorted(set(at))
    for key in shot.look:
        read_image(key.image)  # what cannot be read is refused now, not after the model has loaded
    shares_KF = np.stack(
        [
            np.interp(np.arange(geometry.keep), places, [key.strength * (place == frame) for place in places])
            for key, frame in zip(shot.look, at, strict=True)
        ]
    )
    for place in places:
        total = float(shares_KF[:, place].sum())
        if total > 1 + ROUNDING:
            raise ConfigError(
                f"the looks at frame {place} have {total:.4g} together; write strengths with a sum of 1 at "
                "most, such as a.png@0:0.5 and b.png@0:0.5."
            )
    return LookPlan(
        pictures=tuple(key.image for key in shot.look),
        contents=tuple(hashlib.sha256(Path(key.image).read_bytes()).hexdigest() for key in shot.look),
        shares=tuple(tuple(float(share) for share in row) for row in shares_KF.T),
    )
