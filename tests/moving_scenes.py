"""Pictures whose motion is known at every moment, to measure frames in between on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

SIDE = 64

Scene = Callable[[float], np.ndarray]


def texture(seed: int, finest: float, side: int = SIDE) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Colours in 0..1 over the plane: waves of random direction, `finest` radians a pixel at most."""
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(40, 2))
    k *= rng.uniform(0.03, finest, size=(40, 1)) / np.linalg.norm(k, axis=1, keepdims=True)
    phase, height = rng.uniform(0, 2 * np.pi, (40, 3)), rng.normal(size=(40, 3)) * 0.35 / math.sqrt(40)

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        angle = x[..., None] * k[:, 0] + y[..., None] * k[:, 1]
        return 0.5 + (np.cos(angle[..., None] + phase) * height).sum(axis=-2)

    return colour


def scene(kind: str, side: int = SIDE) -> Scene:
    """Frames at any time, float64 `[side, side, 3]` in 0..1.

    The whole picture moves in `pan`, `fast pan`, `turn`, `zoom`; one thing does in `thing` (on a pattern),
    `thing on flat`, `fast thing` and `spin`.
    """
    ground, figure, middle = texture(1, 1.2), texture(2, 1.0), (side - 1) / 2
    y, x = np.mgrid[:side, :side].astype(float)
    u, v = x - middle, y - middle

    def at(t: float) -> np.ndarray:
        if kind == "pan":
            return ground(x - 3.3 * t, y + 1.7 * t)
        if kind == "fast pan":
            return ground(x - 7 * t, y - 3 * t)
        if kind == "turn":
            c, s = math.cos(math.radians(5 * t)), math.sin(math.radians(5 * t))
            return ground(middle + u * c + v * s, middle - u * s + v * c)
        if kind == "zoom":
            return ground(middle + u / 1.06**t, middle + v / 1.06**t)
        if kind == "spin":
            c, s = math.cos(math.radians(12 * t)), math.sin(math.radians(12 * t))
            p, q = u * c + v * s, -u * s + v * c
            cover = np.clip(0.5 - np.maximum(np.abs(p) - side / 4, np.abs(q) - side / 7), 0, 1)
        else:
            speed = 8 if kind == "fast thing" else 4
            p, q = x - side / 4 - speed * t, y - side / 2.4 - 1.5 * t
            cover = np.clip(0.5 - np.hypot(p, q) + side / 7, 0, 1)
        flat = np.broadcast_to([0.2, 0.4, 0.9], (side, side, 3))
        behind = flat if kind in ("spin", "thing on flat") else ground(x, y)
        return behind + cover[..., None] * (figure(p, q) - behind)

    return lambda t: np.clip(at(t), 0, 1)


KINDS = ("pan", "fast pan", "turn", "zoom", "thing", "thing on flat", "fast thing", "spin")


def clip(kind: str, frames: int, side: int = SIDE) -> np.ndarray:
    """uint8 `[F, side, side, 3]`."""
    return np.stack([as_bytes(scene(kind, side)(t)) for t in range(frames)])


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(picture * 255).astype(np.uint8)


def psnr(found: np.ndarray, exact: np.ndarray) -> float:
    """Of a uint8 frame against an exact one in 0..1, in dB."""
    error = float(np.square(found / 255 - exact).mean())
    return -10 * math.log10(max(error, 1e-12))
