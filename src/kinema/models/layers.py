"""The pieces of transformers over video tokens: attention layers, rotary positions, feed-forward, embeddings.

Parameter names equal those of diffusers' Wan classes, so that its checkpoints and LoRAs load without a table.

Letters used here beside the package's: H heads, E width of a head, P tokens per latent frame.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinema.models.attention import attend


def rotary_table(
    head_width: int, grid_TYX: tuple[int, int, int], *, first: int = 0, theta: float = 10_000.0
) -> Tensor:
    """Rotation angles of every token, `[T * Y * X, E / 2]`, for three-dimensional rotary positions.

    The head is shared out as in Wan: `2 * (E // 6)` channels each for rows and columns, the rest for time.

    Args:
        head_width: E, even.
        grid_TYX: tokens along time, rows and columns.
        first: temporal position of the first latent frame.
        theta: base of the geometric series of frequencies.
    """
    side = 2 * (head_width // 6)
    widths = (head_width - 2 * side, side, side)
    angles = []
    for axis, (width, length) in enumerate(zip(widths, grid_TYX, strict=True)):
        frequency = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        position = torch.arange(length, dtype=torch.float64) + (first if axis == 0 else 0)
        shape = [1, 1, 1, -1]
        shape[axis] = length
        angles.append(torch.outer(position, frequency).view(shape).expand(*grid_TYX, -1))
    return rearrange(torch.cat(angles, dim=-1), "T Y X E -> (T Y X) E").float()


def place_waves(grid_TYX: tuple[int, int, int], waves: int) -> Tensor:
    """Where every token is in the frame: sines and cosines of `pi k u`, k = 1..waves.

    u is the token's centre along rows, then columns, as a share of the frame, so that a larger frame is a
    scaled one.

    Returns:
        float32 `[T * Y * X, 4 * waves]`.
    """
    frames, rows, columns = grid_TYX
    k = torch.arange(1, waves + 1, dtype=torch.float64)
    axes = []
    for length in (rows, columns):
        angle = torch.outer((torch.arange(length, dtype=torch.float64) + 0.5) / length, math.pi * k)
        axes.append(torch.cat((angle.sin(), angle.cos()), dim=-1))
    down, across = axes[0][:, None].expand(rows, columns, -1), axes[1][None].expand(rows, columns, -1)
    place_YXW = torch.cat((down, across), dim=-1).float()
    return repeat(place_YXW, "Y X W -> (T Y X) W", T=frames)


def foretold(x_BCTYX: Tensor, timestep_BT: Tensor) -> Tensor:
    """What noisy latents alone tell of the velocity: `c x`, c = (2 s - 1) / (s^2 + (1 - s)^2) at level s.

    The best linear guess of `noise - latents` from their mix where both have unit variance. A network that
    adds to it need not carry the noise to its end exactly, which is most of what narrow ones fail at
    (https://arxiv.org/abs/2206.00364, section 5; https://arxiv.org/abs/2511.13720).

    Args:
        x_BCTYX: `(1 - s) latents + s noise`.
        timestep_BT: 1000 s of each latent frame.
    """
    s_BT = timestep_BT.float() / 1000
    share_BT = (2 * s_BT - 1) / (s_BT.square() + (1 - s_BT).square())
    return share_BT[:, None, :, None, None] * x_BCTYX.float()


def rotate(x_BHNE: Tensor, cos_NE: Tensor, sin_NE: Tensor) -> Tensor:
    """Turn neighbouring channel pairs by their token's angles (`cos` and `sin` are `[N, E / 2]`)."""
    even, odd = rearrange(x_BHNE.float(), "B H N (E two) -> two B H N E", two=2)
    turned = torch.stack((even * cos_NE - odd * sin_NE, even * sin_NE + odd * cos_NE), dim=-1)
    return turned.flatten(-2).type_as(x_BHNE)


def sinusoids(timestep: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of `timestep` (0..1000) at frequencies from 1 down to 1/10000: `[..., width]`."""
    frequency = torch.exp(
        -math.log(10_000.0) / (width // 2) * torch.arange(width // 2, device=timestep.device)
    )
    angle = timestep.float()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class Embedder(nn.Module):
    """Two linear layers with an activation between: time, text and pooled-text embedders."""

    def __init__(self, width_in: int, width: int, *, activation: str) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.linear_2 = nn.Linear(width, width)
        self.activation: nn.Module = {"silu": nn.SiLU(), "gelu_tanh": nn.GELU(approximate="tanh")}[activation]

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width_in] -> [..., width]`."""
        out: Tensor = self.linear_2(self.activation(self.linear_1(x)))
        return out


class _Projection(nn.Module):
    """A linear layer followed by GELU; a module of its own for the sake of the parameter names."""

    def __init__(self, width_in: int, width: int, approximate: str) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, width)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate=self.approximate)


class FeedForward(nn.Module):
    """`Linear - GELU - Linear`, in the layout `net.0.proj`, `net.2`."""

    def __init__(self, width_in: int, hidden: int, width: int, *, approximate: str = "tanh") -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [_Projection(width_in, hidden, approximate), nn.Identity(), nn.Linear(hidden, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width_in] -> [..., width]`."""
        for layer in self.net:
            x = layer(x)
        return x


class RMSNorm(nn.RMSNorm):
    """torch's, with the weight in the input's dtype: under autocast the two differ, which is slow."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` over its root mean square along the last axis, times the weight."""
        assert self.weight is not None
        return F.rms_norm(x, list(self.normalized_shape), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head attention with RMS-normalised queries and keys (over all heads together).

    `keys_values` and `forward` are separate, so that keys and values of a text are computed once per clip.
    """

    def __init__(self, width: int, heads: int, *, eps: float, image_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])
        self.norm_q = RMSNorm(width, eps=eps)
        self.norm_k = RMSNorm(width, eps=eps)
        if image_width is not None:
            self.add_k_proj = nn.Linear(image_width, width)
            self.add_v_proj = nn.Linear(image_width, width)
            self.norm_added_k = RMSNorm(width, eps=eps)

    def split(self, x_BND: Tensor) -> Tensor:
        """Give every head its share of the channels."""
        return rearrange(x_BND, "B N (H E) -> B H N E", H=self.heads)

    def queries(self, x_BND: Tensor) -> Tensor:
        """`[B, H, N, E]`."""
        return self.split(self.norm_q(self.to_q(x_BND)))

    def keys_values(self, context_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Two times `[B, H, L, E]`."""
        return self.split(self.norm_k(self.to_k(context_BLD))), self.split(self.to_v(context_BLD))

    def image_keys_values(self, image_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of image tokens, which have projections of their own."""
        return self.split(self.norm_added_k(self.add_k_proj(image_BND))), self.split(
            self.add_v_proj(image_BND)
        )

    def merge(self, heads_BHNE: Tensor) -> Tensor:
        """Join the heads and project back to the width."""
        out: Tensor = self.to_out[0](rearrange(heads_BHNE, "B H N E -> B N (H E)"))
        return out

    def forward(self, x_BND: Tensor, cos_NE: Tensor, sin_NE: Tensor) -> Tensor:
        """Self-attention with rotary positions."""
        k_BHNE, v_BHNE = self.keys_values(x_BND)
        q_BHNE = rotate(self.queries(x_BND), cos_NE, sin_NE)
        return self.merge(attend(q_BHNE, rotate(k_BHNE, cos_NE, sin_NE), v_BHNE))
