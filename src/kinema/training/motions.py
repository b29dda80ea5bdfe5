"""Paths of sprites and camera over a clip, as numbers per frame.

    world:   sprite at c(t), size sigma(t), turned by a(t)          screen = z(t) world + d(t)

A motion runs on its own clock p = rate t, t in 0..1 over the clip: one-way motions end at p = 1 and stay,
periodic ones go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinema.training.scenes import Motion, Pace, Subject, View

Array = NDArray[np.float64]

RATES: dict[Pace, float] = {"normal": 1.0, "slow": 0.5, "fast": 2.0}
LEAP, HOPS = 0.55, 3.0
TREMBLE, TREMBLES = 0.07, 6.0
LEAN, LEANS = 0.35, 1.5
GROWTH = (0.45, 1.25)
ORBIT = 0.45
PAN, ZOOM = 0.5, (0.8, 1.6)


@dataclass(frozen=True, slots=True)
class Track:
    """One subject's path: centre, relative size, angle (clockwise) and opacity, `[F]` each."""

    x_F: Array
    y_F: Array
    size_F: Array
    angle_F: Array
    opacity_F: Array


def clip_times(frames: int) -> Array:
    """Moments 0..1 of a clip's frames; a still is at 0."""
    return np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)


def track(subject: Subject, frames: int) -> Track:
    """The path of a subject through the world."""
    t_F = clip_times(frames)
    clock_F = RATES[subject.pace] * t_F
    progress_F = np.minimum(clock_F, 1)
    (x0, y0), (x1, y1) = subject.start, subject.end
    x_F, y_F = x0 + progress_F * (x1 - x0), y0 + progress_F * (y1 - y0)
    one_F = np.ones(frames)
    still = Track(x_F, y_F, one_F, 0 * one_F, one_F)
    move = MOVES.get(subject.motion)
    return still if move is None else move(still, clock_F)


def view_track(view: View, frames: int) -> Array:
    """The camera, `[F, 3]`: shift d of the picture right and down, and zoom z."""
    t_F = clip_times(frames)
    away_F = PAN * (2 * t_F - 1)  # what the picture does when the camera turns left or up
    shift = {"pan-left": (1, 0), "pan-right": (-1, 0), "tilt-up": (0, 1), "tilt-down": (0, -1)}
    dx, dy = shift.get(view, (0, 0))
    low, high = ZOOM
    zoom_F = {
        "zoom-in": low * (high / low) ** t_F,
        "zoom-out": high * (low / high) ** t_F,
    }.get(view, np.ones(frames))
    return np.stack([dx * away_F, dy * away_F, zoom_F], axis=1)


def affine(track: Track, scale: float, view_F3: Array) -> Array:
    """Maps `[F, 2, 3]` from screen to sprite coordinates: u = R(-a) (x - centre) / size."""
    size_F = view_F3[:, 2] * scale * track.size_F
    centre_F2 = view_F3[:, 2:] * np.stack([track.x_F, track.y_F], axis=1) + view_F3[:, :2]
    cos_F, sin_F = np.cos(track.angle_F) / size_F, np.sin(track.angle_F) / size_F
    turn_F22 = np.stack([np.stack([cos_F, sin_F], axis=1), np.stack([-sin_F, cos_F], axis=1)], axis=1)
    offset_F21 = -turn_F22 @ centre_F2[:, :, None]
    return np.concatenate([turn_F22, offset_F21], axis=2)


def _bounce(at: Track, clock_F: Array) -> Track:
    height_F = LEAP * np.abs(np.sin(math.pi * HOPS * clock_F))
    return Track(at.x_F, at.y_F + LEAP / 2 - height_F, at.size_F, at.angle_F, at.opacity_F)


def _spin(sign: float) -> Callable[[Track, Array], Track]:
    def move(at: Track, clock_F: Array) -> Track:
        return Track(at.x_F, at.y_F, at.size_F, sign * 2 * math.pi * clock_F, at.opacity_F)

    return move


def _shake(at: Track, clock_F: Array) -> Track:
    aside_F = TREMBLE * np.sin(2 * math.pi * TREMBLES * clock_F)
    return Track(at.x_F + aside_F, at.y_F, at.size_F, at.angle_F, at.opacity_F)


def _sway(at: Track, clock_F: Array) -> Track:
    wave_F = np.sin(2 * math.pi * LEANS * clock_F)
    return Track(at.x_F + 0.12 * wave_F, at.y_F, at.size_F, LEAN * wave_F, at.opacity_F)


def _resize(first: float, last: float) -> Callable[[Track, Array], Track]:
    def move(at: Track, clock_F: Array) -> Track:
        size_F = first * (last / first) ** np.minimum(clock_F, 1)
        return Track(at.x_F, at.y_F, size_F, at.angle_F, at.opacity_F)

    return move


def _orbit(sign: float) -> Callable[[Track, Array], Track]:
    def move(at: Track, clock_F: Array) -> Track:
        angle_F = sign * 2 * math.pi * clock_F - math.pi / 2  # from the top
        x_F, y_F = at.x_F + ORBIT * np.cos(angle_F), at.y_F + ORBIT * np.sin(angle_F)
        return Track(x_F, y_F, at.size_F, at.angle_F, at.opacity_F)

    return move


def _fade(first: float, last: float) -> Callable[[Track, Array], Track]:
    def move(at: Track, clock_F: Array) -> Track:
        opacity_F = first + (last - first) * np.minimum(clock_F, 1)
        return Track(at.x_F, at.y_F, at.size_F, at.angle_F, opacity_F)

    return move


MOVES: dict[Motion, Callable[[Track, Array], Track]] = {
    "bounce": _bounce,
    "spin-right": _spin(1),
    "spin-left": _spin(-1),
    "shake": _shake,
    "sway": _sway,
    "grow": _resize(*GROWTH),
    "shrink": _resize(*GROWTH[::-1]),
    "orbit-right": _orbit(1),
    "orbit-left": _orbit(-1),
    "fade-in": _fade(0, 1),
    "fade-out": _fade(1, 0),
}
