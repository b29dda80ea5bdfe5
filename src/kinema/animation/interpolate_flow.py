"""Optical flow: how far each pixel moves from one picture to the next.

    E(w) = sum psi_d(|f_1(x + w) - f_0(x)|^2) + smooth * sum psi_s(|grad w|^2),   psi(s^2) = sqrt(s^2 + eps^2)

over colours and their gradients f (Brox, Bruhn, Papenberg, Weickert, ECCV 2004), coarse to fine with warping;
a median over each level's flow keeps edges sharp (Sun, Roth, Black, CVPR 2010). Where a pyramid is too coarse
to see a small thing move far, whole displacements are tried first: each pixel keeps the best match around it.

Letters beside the package's: flows `[B, 2, H, W]` are in pixels, x (right) then y (down).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSettings:
    """How flow is sought.

    Attributes:
        smooth: weight of smoothness, for pictures in 0..1.
        gradient: weight of gradients beside colours; they do not change with the light.
        warps: linearisations at each level.
        sweeps: relaxations of each linear system.
        smallest: the pyramid ends where a side would be shorter.
        reach: pixels that the search at its level tries in each direction.
        search_side: the search is made at levels whose shorter side is at most this.
        finest: pixels of the largest level that is solved; larger pictures take their flow from it.
    """

    smooth: float = 0.02
    gradient: float = 2.0
    warps: int = 4
    sweeps: int = 24
    smallest: int = 16
    reach: int = 5
    search_side: int = 40
    finest: int = 160_000


EPS_DATA, EPS_SMOOTH = 1e-3, 1e-3
OVER_RELAXED = 1.7


def flow_between(
    first_BCHW: Tensor, second_BCHW: Tensor, settings: FlowSettings | None = None
) -> tuple[Tensor, Tensor]:
    """Flow from the first pictures to the second, and back.

    Args:
        first_BCHW, second_BCHW: colours in 0..1, float32.
        settings: how it is sought.

    Returns:
        Two flows `[B, 2, H, W]` in pixels.
    """
    s = settings or FlowSettings()
    sources = pyramid(features(torch.cat((first_BCHW, second_BCHW)), s), s.smallest)
    targets = [torch.cat(level.chunk(2)[::-1]) for level in sources]
    flow = None
    for source, target in zip(sources[::-1], targets[::-1], strict=True):
        H, W = source.shape[-2:]
        flow = source.new_zeros(source.shape[0], 2, H, W) if flow is None else resized(flow, (H, W))
        if s.finest < H * W:
            continue
        if min(source.shape[-2:]) <= s.search_side:
            flow = searched(source, target, flow, s)
        for _ in range(s.warps):
            flow = median(relaxed(source, target, flow, s))
    assert flow is not None
    there, back = flow.chunk(2)
    return there, back


def features(picture_BCHW: Tensor, settings: FlowSettings) -> Tensor:
    """Colours, and the gradient of their mean."""
    grey = picture_BCHW.mean(dim=1, keepdim=True)
    return torch.cat((picture_BCHW, settings.gradient * slopes(grey).flatten(1, 2)), dim=1)


def pyramid(picture_BCHW: Tensor, smallest: int) -> list[Tensor]:
    """Halved again and again after a binomial blur, finest first."""
    levels = [picture_BCHW]
    while min(levels[-1].shape[-2:]) >= 2 * smallest:
        levels.append(F.avg_pool2d(blurred(levels[-1]), 2, ceil_mode=True, count_include_pad=False))
    return levels


def blurred(x_BCHW: Tensor) -> Tensor:
    """By 1 4 6 4 1 along both sides."""
    taps = x_BCHW.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    channels = x_BCHW.shape[1]
    padded = F.pad(x_BCHW, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(padded, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(across, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


def slopes(x_BCHW: Tensor) -> Tensor:
    """Central differences `[B, C, 2, H, W]`, x then y."""
    wide = F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate")
    across = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    down = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    return torch.stack((across, down), dim=2)


def read(picture_BCHW: Tensor, flow_B2HW: Tensor, mode: str = "bicubic") -> Tensor:
    """The picture where the flow points to; beyond its edge, the edge."""
    H, W = flow_B2HW.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(H, dtype=flow_B2HW.dtype, device=flow_B2HW.device),
        torch.arange(W, dtype=flow_B2HW.dtype, device=flow_B2HW.device),
        indexing="ij",
    )
    u = (2 * (x + flow_B2HW[:, 0]) + 1) / W - 1
    v = (2 * (y + flow_B2HW[:, 1]) + 1) / H - 1
    grid = torch.stack((u, v), dim=-1)
    return F.grid_sample(picture_BCHW, grid, mode=mode, padding_mode="border", align_corners=False)


def resized(flow_B2HW: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow at another size, its lengths with it."""
    H, W = flow_B2HW.shape[-2:]
    grown = F.interpolate(flow_B2HW, size, mode="bilinear", align_corners=False)
    return grown * flow_B2HW.new_tensor([size[1] / W, size[0] / H]).view(1, 2, 1, 1)


def median(flow_B2HW: Tensor) -> Tensor:
    """Each pixel's median over 3 x 3."""
    padded = F.pad(flow_B2HW, (1, 1, 1, 1), mode="replicate")
    near = F.unfold(rearrange(padded, "B c H W -> (B c) 1 H W"), 3)
    middle = near.median(dim=1).values
    return middle.view_as(flow_B2HW)


def searched(source_BCHW: Tensor, target_BCHW: Tensor, flow_B2HW: Tensor, s: FlowSettings) -> Tensor:
    """The flow, or a whole displacement from 0, whichever matches the surroundings best."""
    best, cost = flow_B2HW, matched(source_BCHW, read(target_BCHW, flow_B2HW, "bilinear"))
    H, W = flow_B2HW.shape[-2:]
    wide = F.pad(target_BCHW, (s.reach,) * 4, mode="replicate")
    for dy in range(-s.reach, s.reach + 1):
        for dx in range(-s.reach, s.reach + 1):
            moved = wide[:, :, s.reach + dy : s.reach + dy + H, s.reach + dx : s.reach + dx + W]
            other = matched(source_BCHW, moved)
            # a match must be clearly better, so that flat places stay where they are
            wins = other + 0.02 < 0.7 * cost
            step = flow_B2HW.new_tensor([dx, dy]).view(1, 2, 1, 1).expand_as(best)
            best, cost = torch.where(wins, step, best), torch.where(wins, other, cost)
    return best


def matched(source_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean difference over 5 x 5, `[B, 1, H, W]`."""
    difference = (source_BCHW - target_BCHW).abs().mean(dim=1, keepdim=True)
    return F.avg_pool2d(difference, 5, 1, 2, count_include_pad=False)


def relaxed(source_BCHW: Tensor, target_BCHW: Tensor, flow_B2HW: Tensor, s: FlowSettings) -> Tensor:
    """One linearisation around `flow`, its weights from there, solved by coupled red-black relaxation."""
    moved = read(target_BCHW, flow_B2HW)
    slope = (slopes(moved) + slopes(source_BCHW)) / 2
    ix, iy = slope.unbind(dim=2)
    it = moved - source_BCHW
    robust = (it.square().sum(dim=1, keepdim=True) + EPS_DATA**2).rsqrt()
    robust = robust * within(flow_B2HW)
    a, b, d = ((p * q).sum(dim=1, keepdim=True) * robust for p, q in ((ix, ix), (ix, iy), (iy, iy)))
    # the data's pull, written for the whole flow rather than for its increment
    u, v = flow_B2HW[:, :1], flow_B2HW[:, 1:]
    p = a * u + b * v - (ix * it).sum(dim=1, keepdim=True) * robust
    q = b * u + d * v - (iy * it).sum(dim=1, keepdim=True) * robust
    across, down = links(flow_B2HW, s.smooth)
    return solved(flow_B2HW, (a, b, d), (p, q), across, down, s.sweeps)


def within(flow_B2HW: Tensor) -> Tensor:
    """1 where the flow points into the picture, 0 where there is nothing to compare with."""
    H, W = flow_B2HW.shape[-2:]
    x = torch.arange(W, device=flow_B2HW.device) + flow_B2HW[:, :1]
    y = torch.arange(H, device=flow_B2HW.device)[:, None] + flow_B2HW[:, 1:]
    return ((x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)).to(flow_B2HW.dtype)


def links(flow_B2HW: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
    """How strongly each pixel is tied to its right and to its lower neighbour; weak across motion edges."""
    size = slopes(flow_B2HW).square().sum(dim=(1, 2))[:, None]
    tie = smooth * (size + EPS_SMOOTH**2).rsqrt() * EPS_SMOOTH**0.5
    across = F.pad((tie[..., :, 1:] + tie[..., :, :-1]) / 2, (0, 1, 0, 0))
    down = F.pad((tie[..., 1:, :] + tie[..., :-1, :]) / 2, (0, 0, 0, 1))
    return across, down


def solved(
    flow_B2HW: Tensor,
    data: tuple[Tensor, Tensor, Tensor],
    pull: tuple[Tensor, Tensor],
    across: Tensor,
    down: Tensor,
    sweeps: int,
) -> Tensor:
    """Over-relaxed red-black sweeps of `[[a, b], [b, d]] w + ties (w - neighbours) = pull`."""
    a, b, d = data
    left, up = F.pad(across, (1, 0, 0, 0))[..., :-1], F.pad(down, (0, 0, 1, 0))[..., :-1, :]
    ties = across + left + down + up + 1e-9
    a, d = a + ties, d + ties
    whole = 1 / (a * d - b * b)
    H, W = flow_B2HW.shape[-2:]
    odd = (torch.arange(H, device=a.device)[:, None] + torch.arange(W, device=a.device)) % 2
    colours = [OVER_RELAXED * (odd == c).to(a.dtype) for c in (0, 1)]
    w = flow_B2HW
    for _ in range(sweeps):
        for colour in colours:
            wide = F.pad(w, (1, 1, 1, 1), mode="replicate")
            near = across * wide[..., 1:-1, 2:] + left * wide[..., 1:-1, :-2]
            near = near + down * wide[..., 2:, 1:-1] + up * wide[..., :-2, 1:-1]
            p, q = pull[0] + near[:, :1], pull[1] + near[:, 1:]
            new = torch.cat(((d * p - b * q) * whole, (a * q - b * p) * whole), dim=1)
            w = w + colour * (new - w)
    return w
