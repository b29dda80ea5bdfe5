"""A transformer block as inference runs it: self-attention, then the texts and the feed-forward.

    mix      x + gate out(attention(qkv(modulated(x))))
    finish   x + out(attention(q(norm(x)), texts));   x + gate ffn(modulated(x))

The two halves are functions of tensors, so that one compiled graph serves all blocks of a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.models.attention import attend
from kinema.models.dit import Block, Context, read_texts
from kinema.models.linears import Apart, Linear, Together, linear, linears
from kinema.models.rotary import Turn


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """What attention knows of where tokens are.

    Attributes:
        frames: T, latent frames.
        turns: the rotary table.
    """

    frames: int
    turns: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FastBlock:
    """One block's weights as they are used."""

    heads: int
    eps: float
    turn: Turn
    dtype: torch.dtype
    table_1MD: Tensor
    qkv: Together | Apart
    norms: tuple[Tensor, Tensor, Tensor]
    out: Linear
    norm2: tuple[Tensor, Tensor] | None
    query: Linear
    out2: Linear
    up: Linear
    down: Linear

    @staticmethod
    def of(block: Block, turn: Turn, *, copies: bool, rows: int) -> FastBlock:
        """A block's weights as they are now."""

        def one(layer: nn.Module) -> Linear:
            return linear(layer, rows=rows, copies=copies)

        a, b, norm2 = block.attn1, block.attn2, block.norm2
        return FastBlock(
            heads=a.heads,
            eps=block.eps,
            turn=turn,
            dtype=a.to_out[0].weight.dtype,  # type: ignore[arg-type]
            table_1MD=block.scale_shift_table.detach().float(),
            qkv=linears((a.to_q, a.to_k, a.to_v), rows=rows, copies=copies),
            norms=(_weight(a.norm_q), _weight(a.norm_k), _weight(b.norm_q)),
            out=one(a.to_out[0]),
            norm2=(_weight(norm2).float(), norm2.bias.detach().float())
            if isinstance(norm2, nn.LayerNorm)
            else None,
            query=one(b.to_q),
            out2=one(b.to_out[0]),
            up=one(block.ffn.net[0].proj),  # type: ignore[arg-type]
            down=one(block.ffn.net[2]),
        )

    def mix(self, x_BND: Tensor, rows_BTMD: Tensor, place: Place) -> Tensor:
        """Self-attention; `x_BND` is overwritten."""
        shift, scale, gate = (self.table_1MD + rows_BTMD)[:, :, :3].unbind(dim=2)
        q, k, v = self.qkv(self.modulated(x_BND, shift, scale, self.eps, self.dtype))
        q_BHNE = self.turn(q, self.norms[0], self.eps, self.heads, place.turns)
        k_BHNE = self.turn(k, self.norms[1], self.eps, self.heads, place.turns)
        v_BHNE = rearrange(v, "B N (H E) -> B H N E", H=self.heads)
        mixed = rearrange(attend(q_BHNE, k_BHNE, v_BHNE), "B H N E -> B N (H E)")
        return added(x_BND, self.out(mixed), gate)

    def finish(self, x_BND: Tensor, rows_BTMD: Tensor, place: Place, contexts: tuple[Context, ...]) -> Tensor:
        """Cross-attention, each context for its part of the batch; feed-forward. Overwrites `x_BND`."""
        shift, scale, gate = (self.table_1MD + rows_BTMD)[:, :, 3:].unbind(dim=2)
        normed = x_BND
        if self.norm2 is not None:
            normed = F.layer_norm(x_BND.float(), x_BND.shape[-1:], *self.norm2, self.eps)
        q = self.query(normed.to(self.dtype))
        q = F.rms_norm(q, q.shape[-1:], self.norms[2], self.eps)
        q_BHNE = rearrange(q, "B N (H E) -> B H N E", H=self.heads)
        parts = [
            _read(part, context, place.frames)
            for part, context in zip(q_BHNE.chunk(len(contexts)), contexts, strict=True)
        ]
        read = parts[0] if len(parts) == 1 else torch.cat(parts)
        x_BND.add_(self.out2(rearrange(read, "B H N E -> B N (H E)")))
        hidden = self.up(self.modulated(x_BND, shift, scale, self.eps, self.dtype), gelu=True)
        return added(x_BND, self.down(hidden), gate)

    @staticmethod
    def modulated(
        x_BND: Tensor, shift_BTD: Tensor, scale_BTD: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """Layer norm, then each latent frame's scale and shift; in one pass where all frames share them."""
        D = x_BND.shape[-1]
        if shift_BTD.shape[:2] == (1, 1):
            wide = x_BND if x_BND.device.type == "cpu" else x_BND.float()
            return F.layer_norm(wide, (D,), 1 + scale_BTD[0, 0], shift_BTD[0, 0], eps).to(dtype)
        normed = F.layer_norm(x_BND.float(), (D,), eps=eps)
        frames = rearrange(normed, "B (T P) D -> B T P D", T=shift_BTD.shape[1])
        out = torch.addcmul(shift_BTD[:, :, None], frames, 1 + scale_BTD[:, :, None])
        return rearrange(out, "B T P D -> B (T P) D").to(dtype)


def added(x_BND: Tensor, update_BND: Tensor, gate_BTD: Tensor) -> Tensor:
    """`x + gate * update` with one gate per latent frame, in float32, into `x_BND`."""
    x_BTPD, update_BTPD = (
        rearrange(t, "B (T P) D -> B T P D", T=gate_BTD.shape[1]) for t in (x_BND, update_BND)
    )
    if x_BND.dtype == torch.float32:
        x_BTPD.addcmul_(update_BTPD, gate_BTD[:, :, None])
    else:
        x_BTPD.copy_(x_BTPD.float() + gate_BTD[:, :, None] * update_BTPD.float())
    return x_BND


def _read(q_BHNE: Tensor, context: Context, frames: int) -> Tensor:
    """Attention to one block's texts and, for models that have them, image tokens."""
    out = read_texts(q_BHNE, context, frames)
    return out if context.image is None else out + attend(q_BHNE, *context.image[0])


def _weight(norm: nn.Module) -> Tensor:
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return weight.detach()
