"""How the sprite turns and how the camera moves; each by gradients and again by correlation.

Gradients (Lucas and Kanade 1981): a small motion m of the picture I obeys I_t + m . grad I = 0, solved for
one number (a turn about the sprite's centre) or three (shift right, shift down, zoom) by least squares.
Correlation: the shift at which two pictures, or their polar maps, agree best.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from kinema.evaluation.background import coverage
from kinema.evaluation.motion import centroids
from kinema.training.scenes import Motion, View

LEAST_TURN = 1.0  # radians over the clip; a full turn is 6.3
LEAST_VIEW = 0.22  # of a frame that spans -1..1; real pans are 1, real zooms log 2
STANDS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))  # the corners, x and y
ANGLES, RADII, REACH = 180, 16, 0.9


def grey(clips_BCFHW: Tensor, blur: int) -> Tensor:
    """Brightness `[B, F, H, W]` in 0..1, softened by means over `blur` pixels."""
    light = clips_BCFHW.add(1).div(2).mean(dim=1)
    for _ in range(2):
        light = functional.avg_pool2d(light, blur, 1, blur // 2, count_include_pad=False)
    return light


def slopes(light_BFHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dI/dx, dI/dy (the frame spans -1..1) and dI/dt (per frame), `[B, F - 1, H, W]`."""
    mean = (light_BFHW[:, 1:] + light_BFHW[:, :-1]) / 2
    step = 2 / light_BFHW.shape[-1]
    down, across = torch.gradient(mean, spacing=step, dim=(2, 3))
    return across, down, light_BFHW.diff(dim=1)


def turns_by_gradients(clips_BCFHW: Tensor) -> Tensor:
    """How far the sprite turns over the clip, `[B]` in radians, clockwise above 0."""
    cover_BFHW = coverage(clips_BCFHW)
    dx, dy, dt = slopes(grey(clips_BCFHW, 3))
    centre_BF2 = centroids(cover_BFHW)[0][:, :-1]
    x_BFHW, y_BFHW = _about(centre_BF2, clips_BCFHW.shape[-1])
    swirl = (x_BFHW * dy - y_BFHW * dx) * cover_BFHW[:, :-1]
    turn_BF = -(dt * swirl).sum(dim=(2, 3)) / swirl.square().sum(dim=(2, 3)).clamp_min(1e-6)
    return turn_BF.sum(dim=1)


def turns_by_correlation(clips_BCFHW: Tensor) -> Tensor:
    """The same from polar maps about the sprite's centre."""
    centre_BF2 = centroids(coverage(clips_BCFHW))[0]
    angle_A = torch.arange(ANGLES) * 2 * math.pi / ANGLES
    radius_R = torch.linspace(0.15, REACH, RADII)
    ring_RA2 = radius_R[:, None, None] * torch.stack([angle_A.cos(), angle_A.sin()], dim=-1)
    grid = rearrange(centre_BF2, "B F C -> (B F) 1 1 C") + ring_RA2
    pictures = rearrange(clips_BCFHW, "B C F H W -> (B F) C H W")
    polar = functional.grid_sample(pictures, grid, align_corners=False, padding_mode="border")
    polar = rearrange(polar, "(B F) C R A -> B F (C R) A", B=len(clips_BCFHW))
    wave = torch.fft.rfft(polar - polar.mean(dim=-1, keepdim=True), dim=-1)
    score_BFA = torch.fft.irfft(wave[:, 1:] * wave[:, :-1].conj(), n=ANGLES).sum(dim=2)
    near = ANGLES // 8  # a frame turns by less than an eighth
    window = torch.cat([score_BFA[..., -near:], score_BFA[..., : near + 1]], dim=-1)
    step_BF = window.argmax(dim=-1) - near
    return step_BF.sum(dim=1) * 2 * math.pi / ANGLES


def spins(turn_B: Tensor) -> list[Motion]:
    """The names of turns; "none" below `LEAST_TURN`."""
    return [
        "none" if abs(turn) < LEAST_TURN else "spin-right" if turn > 0 else "spin-left"
        for turn in turn_B.tolist()
    ]


def views_by_gradients(clips_BCFHW: Tensor) -> Tensor:
    """The picture's shift right and down and its growth over the clip, `[B, 3]`, from the frame's corners."""
    size = clips_BCFHW.shape[-1]
    side = size // 5
    dx, dy, dt = slopes(grey(clips_BCFHW, max(3, size // 48 * 2 + 1)))
    moved = []
    for rows, columns in _corners(size, side):
        slope = torch.stack([dx[..., rows, columns], dy[..., rows, columns]], dim=-1)
        gram = torch.einsum("bfhwi,bfhwj->bfij", slope, slope) + 1e-3 * torch.eye(2)
        right = -torch.einsum("bfhwi,bfhw->bfi", slope, dt[..., rows, columns])
        moved.append(torch.linalg.solve(gram, right).sum(dim=1))
    return _together(torch.stack(moved, dim=1), 1 - side / size)


def views_by_correlation(clips_BCFHW: Tensor) -> Tensor:
    """The same from the shifts at which a corner of one frame agrees best with the next frame's."""
    size = clips_BCFHW.shape[-1]
    side = size // 3
    light = grey(clips_BCFHW, 3)
    window = torch.hann_window(side, periodic=False)
    moved = []
    for rows, columns in _corners(size, side):
        part = light[..., rows, columns]
        shift = _shifts((part - part.mean(dim=(2, 3), keepdim=True)) * window * window[:, None])
        moved.append(shift.sum(dim=1) * 2 / size)
    return _together(torch.stack(moved, dim=1), 1 - side / size)


def _corners(size: int, side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the four corners, as `STANDS` lists them."""
    near, far = slice(0, side), slice(size - side, size)
    return [(near if y < 0 else far, near if x < 0 else far) for x, y in STANDS]


def _together(shift_BK2: Tensor, reach: float) -> Tensor:
    """Shift and growth of the picture: medians over its corners, as a sprite may cross one of them."""
    order = shift_BK2.sort(dim=1).values
    stand_K2 = reach * torch.tensor(STANDS)
    growth_BK = (shift_BK2 * stand_K2).sum(dim=2) / stand_K2.square().sum(dim=1)
    growth = growth_BK.sort(dim=1).values[:, 1:3].mean(dim=1)
    return torch.cat([order[:, 1:3].mean(dim=1), growth[:, None]], dim=1)


def views(found_B3: Tensor) -> list[View]:
    """The names of camera moves; "still" below `LEAST_VIEW`."""
    names: tuple[tuple[View, View], ...] = (
        ("pan-left", "pan-right"),
        ("tilt-up", "tilt-down"),
        ("zoom-in", "zoom-out"),
    )
    answers: list[View] = []
    for values in found_B3.tolist():
        axis = max(range(3), key=lambda i: abs(values[i]))
        if abs(values[axis]) < LEAST_VIEW:
            answers.append("still")
        else:
            answers.append(names[axis][0 if values[axis] > 0 else 1])
    return answers


def _about(centre_BF2: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates of every pixel from each frame's centre, `[B, F, H, W]` each."""
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    x = line - centre_BF2[..., 0, None, None]
    y = line[:, None] - centre_BF2[..., 1, None, None]
    return x + 0 * y, y + 0 * x


def _shifts(part_BFHW: Tensor) -> Tensor:
    """From each frame to the next, the shift in pixels with the highest correlation, `[B, F - 1, 2]`."""
    side = part_BFHW.shape[-1]
    wave = torch.fft.rfft2(part_BFHW)
    score = torch.fft.irfft2(wave[:, 1:] * wave[:, :-1].conj(), s=(side, side))
    near = side // 4
    rolled = torch.roll(score, (near, near), dims=(2, 3))[..., : 2 * near + 1, : 2 * near + 1]
    flat = rolled.flatten(2).argmax(dim=2)
    width = 2 * near + 1
    peak = torch.stack([flat % width, flat // width], dim=-1).clamp(1, width - 2)
    fine = [_vertex(rolled, peak, axis) for axis in (0, 1)]
    return peak - near + torch.stack(fine, dim=-1)


def _vertex(score: Tensor, peak: Tensor, axis: int) -> Tensor:
    """The top of a parabola through the peak and its neighbours along an axis, -0.5..0.5."""

    def at(offset: int) -> Tensor:
        x = peak[..., 0] + (offset if axis == 0 else 0)
        y = peak[..., 1] + (offset if axis == 1 else 0)
        index = (y * score.shape[-1] + x)[..., None]
        return score.flatten(2).gather(2, index)[..., 0]

    low, mid, high = at(-1), at(0), at(1)
    bend = (low - 2 * mid + high).clamp_max(-1e-9)
    return (0.5 * (low - high) / bend).clamp(-0.5, 0.5)
