"""Colours that stay while frames are redrawn from one another, thousands of times if need be.

A redraw shifts colours a little; fed back to itself, a little becomes everything. Each redrawn frame is
therefore brought to the colours that it should have had:

    target = (1 - 1/n) colours(frame before, as the camera moved it) + 1/n colours(reference)

The first part takes back exactly what the redraw did and nothing that the camera brought into view; the
second closes what is left of the gap to the reference over a window of n frames. Colours are a mean and a
covariance in Oklab, and a frame is brought to them by the map that moves colours least (Monge-Kantorovich):

    c' = m_t + A (c - m_s),    A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2

for covariances S of the frame and T of the target (Pitié and Kokaram 2007), in floating point, so nothing
wraps or rounds. `method: histogram` matches every channel's distribution instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from kinema.animation.oklab import from_oklab, to_oklab
from kinema.core.errors import ConfigError, unknown_name

Method = Literal["transport", "histogram"]
METHODS = ("transport", "histogram")
QUANTILES = 65
MOST_GAIN = 2.0  # what a spread may grow or shrink by in one frame: noise of a flat frame stays noise
_FLOOR = 1e-6  # of a covariance: a thousandth of the range of L, squared


@dataclass(frozen=True, slots=True, eq=False)
class Colours:
    """How the colours of frames are spread, in Oklab, float64.

    Attributes:
        mean_BC: `[B, 3]`.
        covariance_BCC: `[B, 3, 3]`.
        quantiles_BCQ: of each channel at Q even shares from least to most, `[B, 3, 65]`.
    """

    mean_BC: Tensor
    covariance_BCC: Tensor
    quantiles_BCQ: Tensor


def colours(frame_BCHW: Tensor, weight_B1HW: Tensor | None = None) -> Colours:
    """The colours of sRGB frames `[B, 3, H, W]` in 0..1.

    Args:
        frame_BCHW: frames.
        weight_B1HW: how much each pixel counts, 0 or more; None for all alike. All zero counts all alike.
    """
    lab_BNC = rearrange(to_oklab(frame_BCHW.double()), "B C H W -> B (H W) C")
    if weight_B1HW is None:
        weight_BN = torch.ones_like(lab_BNC[..., 0])
    else:
        weight_BN = rearrange(weight_B1HW.to(lab_BNC), "B 1 H W -> B (H W)").expand(lab_BNC.shape[:2])
        weight_BN = torch.where(weight_BN.sum(dim=1, keepdim=True) > 0, weight_BN, 1.0)
    share_BN = weight_BN / weight_BN.sum(dim=1, keepdim=True)
    mean_BC = torch.einsum("bn,bnc->bc", share_BN, lab_BNC)
    off_BNC = lab_BNC - mean_BC[:, None]
    covariance = torch.einsum("bn,bnc,bnd->bcd", share_BN, off_BNC, off_BNC)
    return Colours(mean_BC, covariance, _quantiles(lab_BNC, share_BN))


def _quantiles(lab_BNC: Tensor, share_BN: Tensor) -> Tensor:
    """Of the weighted values: the value at which the share below it reaches each of Q even steps."""
    lab_BCN = rearrange(lab_BNC, "B N C -> B C N").contiguous()
    sorted_BCN, order_BCN = lab_BCN.sort(dim=2)
    below_BCN = share_BN[:, None].expand_as(lab_BCN).gather(2, order_BCN).cumsum(dim=2)
    at_Q = torch.linspace(0, 1, QUANTILES, dtype=lab_BNC.dtype, device=lab_BNC.device)
    at_BCQ = at_Q.clamp(1e-9, 1 - 1e-9).expand(*lab_BCN.shape[:2], -1).contiguous()
    place_BCQ = torch.searchsorted(below_BCN, at_BCQ).clamp(max=lab_BCN.shape[2] - 1)
    return sorted_BCN.gather(2, place_BCQ)


def blended(near: Colours, far: Colours, share: float) -> Colours:
    """Colours on the way from `near` (share 0) to `far` (share 1)."""
    if not 0 <= share <= 1:
        raise ConfigError(f"share={share:g} is out of range; write 0 to 1.")
    return Colours(
        near.mean_BC.lerp(far.mean_BC, share),
        near.covariance_BCC.lerp(far.covariance_BCC, share),
        near.quantiles_BCQ.lerp(far.quantiles_BCQ, share),
    )


def recolour(
    frame_BCHW: Tensor, target: Colours, *, method: Method = "transport", source: Colours | None = None
) -> Tensor:
    """Frames with the colours of `target`, in 0..1 and the frames' own precision.

    Args:
        frame_BCHW: sRGB `[B, 3, H, W]` in 0..1.
        target: colours to bring them to, of one frame or of as many.
        method: `transport` for mean and covariance, `histogram` for every channel's distribution.
        source: the frames' own colours where they should be counted over some pixels only.
    """
    if method not in METHODS:
        raise unknown_name("colour method", method, METHODS)
    source = colours(frame_BCHW) if source is None else source
    lab_BCHW = to_oklab(frame_BCHW.double())
    if method == "transport":
        moved = _transported(lab_BCHW, source, target)
    else:
        moved = _matched(lab_BCHW, source, target)
    return from_oklab(moved).clamp(0, 1).to(frame_BCHW.dtype)


def _transported(lab_BCHW: Tensor, source: Colours, target: Colours) -> Tensor:
    map_BCC = transport(source.covariance_BCC, target.covariance_BCC)
    off_BCHW = lab_BCHW - source.mean_BC[..., None, None]
    moved: Tensor = torch.einsum("bcd,bdhw->bchw", map_BCC, off_BCHW)
    return moved + target.mean_BC[..., None, None]


def transport(source_BCC: Tensor, target_BCC: Tensor) -> Tensor:
    """The symmetric map A with A S A = T that moves a Gaussian's points least; its gains are bounded."""
    eye = torch.eye(3, dtype=source_BCC.dtype, device=source_BCC.device) * _FLOOR
    root = _power(source_BCC + eye, 0.5)
    inverse = _power(source_BCC + eye, -0.5)
    found = inverse @ _power(root @ (target_BCC + eye) @ root, 0.5) @ inverse
    values, vectors = torch.linalg.eigh(_symmetric(found))
    bounded = values.clamp(1 / MOST_GAIN, MOST_GAIN)
    return (vectors * bounded[..., None, :]) @ vectors.mT


def _power(matrix_BCC: Tensor, exponent: float) -> Tensor:
    """Of symmetric positive matrices."""
    values, vectors = torch.linalg.eigh(_symmetric(matrix_BCC))
    raised = values.clamp_min(1e-18) ** exponent
    return (vectors * raised[..., None, :]) @ vectors.mT


def _symmetric(matrix_BCC: Tensor) -> Tensor:
    return (matrix_BCC + matrix_BCC.mT) / 2


def _matched(lab_BCHW: Tensor, source: Colours, target: Colours) -> Tensor:
    """Every channel through the piecewise straight map from its quantiles to the target's."""
    height = lab_BCHW.shape[2]
    value = rearrange(lab_BCHW, "B C H W -> B C (H W)").contiguous()
    from_BCQ = source.quantiles_BCQ
    to_BCQ = target.quantiles_BCQ.expand_as(from_BCQ)
    right = torch.searchsorted(from_BCQ.contiguous(), value).clamp(1, QUANTILES - 1)
    a, b = from_BCQ.gather(2, right - 1), from_BCQ.gather(2, right)
    c, d = to_BCQ.gather(2, right - 1), to_BCQ.gather(2, right)
    share = ((value - a) / (b - a).clamp_min(1e-9)).clamp(0, 1)
    moved = c + share * (d - c)
    return rearrange(moved, "B C (H W) -> B C H W", H=height)


def keep_colours(
    redrawn_BCHW: Tensor,
    before_BCHW: Tensor,
    reference: Colours,
    *,
    window: float = 25.0,
    weight_B1HW: Tensor | None = None,
    method: Method = "transport",
) -> Tensor:
    """A redrawn frame with the colours that it should have: of what it was drawn from, drawn to a reference.

    Args:
        redrawn_BCHW: sRGB `[B, 3, H, W]` in 0..1.
        before_BCHW: the frame that it was redrawn from, the camera's move included.
        reference: of the first frame, or of a picture.
        window: frames over which what is left of the gap to the reference closes; 1 matches the reference at
            once (and takes away what the camera brings into view), infinity never does.
        weight_B1HW: which pixels say what the redraw did: 0 where the move left holes.
        method: `transport` or `histogram`.

    Raises:
        ConfigError: a window below 1, or an unknown method.
    """
    if not window >= 1:
        raise ConfigError(f"window={window:g} is out of range; write 1 or more frames.")
    was, now = colours(before_BCHW, weight_B1HW), colours(redrawn_BCHW, weight_B1HW)
    target = blended(was, reference, 0.0 if math.isinf(window) else 1 / window)
    return recolour(redrawn_BCHW, target, method=method, source=now)


def colour_distance(a: Colours, b: Colours) -> Tensor:
    """How far apart two spreads of colours are, `[B]`: 2-Wasserstein between their Gaussians, in Oklab.

    0.01 is hardly seen, 0.1 is another picture.
    """
    root = _power(a.covariance_BCC, 0.5)
    cross = _power(root @ b.covariance_BCC @ root, 0.5)
    spread = (a.covariance_BCC + b.covariance_BCC - 2 * cross).diagonal(dim1=1, dim2=2).sum(dim=1)
    return ((a.mean_BC - b.mean_BC).square().sum(dim=1) + spread.clamp_min(0)).sqrt()
