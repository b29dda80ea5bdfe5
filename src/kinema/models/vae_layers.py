"""The causal layers of a video VAE: output frame t depends on input frames up to t only.

A clip passes in chunks, its first frame alone. What a layer must remember of earlier frames lies in a
`StreamState` that the caller owns, under the layer's own key; layers themselves hold nothing but weights.
With an empty state a layer is at the clip's beginning, where all earlier frames count as zeros.

Parameter names equal those of diffusers' `AutoencoderKLWan` (Wan, https://arxiv.org/abs/2503.20314), so that
its checkpoints load without a table. Activations lie channels-last in memory: norms then read neighbouring
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from kinema.models.winograd import Kernels, Packed, kernels, kernels_for, stamp

CHANNELS_LAST = torch.channels_last_3d
TINY = 1e-12  # what a norm is at least, so that zeros stay zeros


@dataclass(slots=True)
class StreamState:
    """What one pass over one clip remembers between chunks; each pass owns its own.

    Attributes:
        started: the clip's first frame has passed completely.
        past: the last input frames of each layer that looks back, `[B, C, frames, Y, X]`.
        packed: each layer's weights as compiled kernels want them; passes through one model share them.
        cuts: rows and columns of a layer's result that go on; of layers not named here, all.
    """

    started: bool = False
    past: dict[nn.Module, Tensor] = field(default_factory=dict)
    packed: dict[nn.Module, Packed] = field(default_factory=dict)
    cuts: Mapping[nn.Module, tuple[slice, slice]] = field(default_factory=dict)

    def cut(self, layer: nn.Module, x_BCFYX: Tensor) -> Tensor:
        """What of a layer's result goes on: a copy, so that the rest can be freed."""
        if layer not in self.cuts:
            return x_BCFYX
        rows, columns = self.cuts[layer]
        return x_BCFYX[..., rows, columns].contiguous(memory_format=CHANNELS_LAST)

    def keep(self, layer: nn.Module, x_BCFYX: Tensor, frames: int) -> None:
        """Remember the last `frames` of `x` for `layer`; a copy, so that the rest can be freed.

        What was remembered before is overwritten where nothing else can need it: fresh memory is slow.
        """
        latest, before = x_BCFYX[:, :, -frames:], self.past.get(layer)
        if before is not None and before.shape == latest.shape and _may_be_overwritten(before):
            before.copy_(latest)
        else:
            self.past[layer] = latest.clone(memory_format=CHANNELS_LAST)

    def weights(self, layer: CausalConv3d | DoublingConv, kernels: Kernels) -> Packed:
        """The layer's packed weights, made anew only where the layer's own have changed."""
        found = self.packed.get(layer)
        if found is None or found.source != stamp(layer.weight):
            found = self.packed[layer] = kernels.pack(layer.weight, paired=layer.paired)
        return found


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """2D or 3D convolution, by oneDNN wherever it can run.

    On one thread torch takes a several times slower kernel of its own for small inputs; with more threads,
    on other devices and where gradients are wanted its choice is right.
    """
    if _inference_on_cpu(x, weight) and _onednn_has(x.dtype):
        ones = (1,) * len(stride)
        direct: Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, ones, 1)
        return direct
    function: Any = F.conv3d if x.ndim == 5 else F.conv2d
    chosen: Tensor = function(x, weight, bias, stride, padding)
    return chosen


def _inference_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Whether the CPU's short cuts apply: they have no gradients."""
    wants_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return x.device.type == "cpu" and x.dtype == weight.dtype and not wants_gradient


def _onednn_has(dtype: torch.dtype) -> bool:
    backend: Any = torch.backends.mkldnn
    if not (backend.is_available() and backend.enabled):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _may_be_overwritten(x: Tensor) -> bool:
    if torch.is_grad_enabled():
        return False
    return torch.is_inference_mode_enabled() or not x.is_inference()


def compiled(x: Tensor, weight: Tensor) -> Kernels | None:
    """Compiled kernels for `x`, where there are any and no gradient is wanted."""
    return kernels(x) if _inference_on_cpu(x, weight) else None


def compiled_for(x: Tensor, weight: Tensor) -> Kernels | None:
    """Compiled kernels for a 3 x 3 convolution, where it gains by them."""
    return kernels_for(x, weight) if _inference_on_cpu(x, weight) else None


class CausalConv3d(nn.Conv3d):
    """3D convolution over the current and the `kernel - 1` earlier frames, zeros before the clip's first.

    Attributes:
        paired: frames come in pairs, but for a clip's first; said by where the layer lies, for the bits of a
            frame must not depend on how a clip is cut into chunks.
    """

    paired = False

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int | tuple[int, int, int], *, step: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=(step, 1, 1))
        time, rows, columns = self.kernel_size
        self.padding = (0, rows // 2, columns // 2)
        self.reach = time - 1

    def forward(  # type: ignore[override]
        self, x_BCFYX: Tensor, state: StreamState, plus: Tensor | None = None
    ) -> Tensor:
        """`[B, C, F, Y, X]`, F new frames, as many out; `plus` is added to them."""
        if not self.reach:
            return added(self.apply_kernel(x_BCFYX, self.weight), plus)
        past, frames = state.past.get(self), x_BCFYX.shape[2]
        if self.stride == (1, 1, 1) and (fast := compiled_for(x_BCFYX, self.weight)):
            out = fast.convolve(x_BCFYX, past, state.weights(self, fast), self.bias, plus=plus)
            state.keep(self, x_BCFYX if frames >= self.reach else self.joined(past, x_BCFYX), self.reach)
            return out
        joined = self.joined(past, x_BCFYX)
        state.keep(self, joined, self.reach)
        if past is None and frames == 1:
            # All earlier frames are zeros, only the last tap counts: an image costs a third.
            return added(self.apply_kernel(x_BCFYX, self.weight[:, :, -1:]), plus)
        return added(self.apply_kernel(joined, self.weight), plus)

    def joined(self, past: Tensor | None, x_BCFYX: Tensor) -> Tensor:
        """The frames before `x`, zeros at a clip's beginning, and `x`."""
        if past is None:
            return F.pad(x_BCFYX, (0, 0, 0, 0, self.reach, 0))
        return torch.cat((past, x_BCFYX), dim=2)

    def apply_kernel(self, x_BCFYX: Tensor, weight: Tensor) -> Tensor:
        """The convolution without any padding in time."""
        stride, padding = self.stride, self.padding
        assert isinstance(padding, tuple)
        return convolve(x_BCFYX, weight, self.bias, stride=stride, padding=padding)


class ChannelNorm(nn.Module):
    """`gamma * x / rms(x)`, the root mean square over the channels of each position."""

    def __init__(self, channels: int, *, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * axes))

    def forward(self, x_BC: Tensor) -> Tensor:
        """Any number of axes after `[B, C]`."""
        x, gamma = x_BC.movedim(1, -1), self.gamma.flatten()
        if _inference_on_cpu(x, gamma) and x.dtype == torch.float32:
            # torch has no fused kernel here; this passes over the numbers three times instead of six.
            norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=TINY)
            out = torch.div(gamma * len(gamma) ** 0.5, norm).mul_(x)
        else:
            out = F.rms_norm(x, x.shape[-1:], gamma, TINY**2 / len(gamma))
        return out.movedim(-1, 1)

    def activated(self, x_BCFYX: Tensor, *, over: bool = False) -> Tensor:
        """`silu` of the norm, in one pass where compiled code can; `over` allows to write it over `x`."""
        gamma = self.gamma.flatten()
        if fast := compiled(x_BCFYX, gamma):
            return fast.activate(x_BCFYX, gamma * len(gamma) ** 0.5, TINY, over=over)
        normed = self(x_BCFYX)
        return F.silu(normed, inplace=not normed.requires_grad)


class ResidualBlock(nn.Module):
    """`x + conv(silu(norm(conv(silu(norm(x))))))`."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels_in)
        self.conv1 = CausalConv3d(channels_in, channels_out, 3)
        self.norm2 = ChannelNorm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = CausalConv3d(channels_out, channels_out, 3)
        self.conv_shortcut = (
            CausalConv3d(channels_in, channels_out, 1) if channels_in != channels_out else None
        )

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X]`."""
        shortcut = x_BCFYX if self.conv_shortcut is None else self.conv_shortcut(x_BCFYX, state)
        y = self.conv1(self.norm1.activated(x_BCFYX), state)
        return state.cut(self, self.conv2(self.dropout(self.norm2.activated(y, over=True)), state, shortcut))


def plain_short_cut(x: Tensor, weight: Tensor) -> bool:
    """Whether `DoublingConv` computes `x` at the small size."""
    return _inference_on_cpu(x, weight) and x.dtype == torch.float32


def added(fresh: Tensor, other: Tensor | None) -> Tensor:
    """`fresh + other`, written over `fresh` where no gradient needs it."""
    if other is None:
        return fresh
    return fresh + other if fresh.requires_grad or other.requires_grad else fresh.add_(other)


class FrameAttention(nn.Module):
    """Attention of one head among the positions of each frame; frames do not see each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X]`; needs nothing from the state."""
        batch, _, _, rows, _ = x_BCFYX.shape
        tokens = rearrange(self.norm(x_BCFYX), "B C F Y X -> (B F) 1 (Y X) C")
        q, k, v = F.linear(tokens, self.to_qkv.weight.flatten(1), self.to_qkv.bias).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out = F.linear(mixed, self.proj.weight.flatten(1), self.proj.bias)
        return added(rearrange(out, "(B F) 1 (Y X) C -> B C F Y X", B=batch, Y=rows), x_BCFYX)


def frame_by_frame(layer: nn.Module, x_BCFYX: Tensor) -> Tensor:
    """A spatial layer `[N, C, Y, X]` over every frame of a chunk."""
    frames = layer(rearrange(x_BCFYX, "B C F Y X -> (B F) C Y X"))
    out_BCFYX: Tensor = rearrange(frames, "(B F) C Y X -> B C F Y X", B=x_BCFYX.shape[0])
    return out_BCFYX


class DoublingConv(nn.Conv2d):
    """3 x 3 convolution of `x` at twice its size (nearest neighbour), `[N, C, Y, X] -> [N, C', 2 Y, 2 X]`.

    Each output pixel sees only 2 x 2 different inputs, through weights that depend on whether its row and
    column are even or odd. Where that pays, the four kinds are computed at the small size, 4/9 of the work.
    """

    paired = False  # looks at one frame at a time

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3)

    def forward(self, x_NCYX: Tensor) -> Tensor:
        """Through the four kinds, or at the large size where gradients or other devices are involved."""
        if plain_short_cut(x_NCYX, self.weight):
            return self.by_phases(x_NCYX)
        large = repeat(x_NCYX, "N C Y X -> N C (Y y) (X x)", y=2, x=2)
        return convolve(large, self.weight, self.bias, stride=(1, 1), padding=(1, 1))

    def by_phases(self, x_NCYX: Tensor) -> Tensor:
        """One 2 x 2 convolution with four times the channels, whose outputs are then interleaved."""
        batch, _, rows, columns = x_NCYX.shape
        taps = self.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # [phase, 2 taps, 3]
        phases = torch.einsum("yip, xjq, ocpq -> yxocij", taps, taps, self.weight).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat(4)
        wide = convolve(x_NCYX, phases.contiguous(), bias, stride=(1, 1), padding=(1, 1))
        out = wide.new_empty(batch, rows, 2, columns, 2, self.out_channels)
        for (y, x), phase in zip(product((0, 1), repeat=2), wide.chunk(4, dim=1), strict=True):
            out[:, :, y, :, x] = phase[:, :, y : y + rows, x : x + columns].movedim(1, -1)
        large: Tensor = rearrange(out, "N Y y X x C -> N C (Y y) (X x)")
        return large


class HalvingConv(nn.Conv2d):
    """3 x 3 convolution with stride 2, `[N, C, Y, X] -> [N, C, Y / 2, X / 2]`; zeros below and right."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x_NCYX: Tensor) -> Tensor:
        """See the class."""
        padded = F.pad(x_NCYX, (0, 1, 0, 1))
        return convolve(padded, self.weight, self.bias, stride=(2, 2), padding=(0, 0))


def pair(layers: nn.Module) -> None:
    """Say that the convolutions in `layers` see frames in pairs, but for a clip's first."""
    for layer in layers.modules():
        if isinstance(layer, CausalConv3d):
            layer.paired = layer.kernel_size == (3, 3, 3)


class Upsample(nn.Module):
    """Twice the rows and columns; with `time` also twice the frames, but the clip's first stays one."""

    def __init__(self, channels: int, channels_out: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": DoublingConv(channels, channels_out)})
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if time else None

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X] -> [B, C', F or 2 F, 2 Y, 2 X]`."""
        if self.time_conv is not None and state.started:  # its memory begins at the clip's second frame
            x_BCFYX = rearrange(self.time_conv(x_BCFYX, state), "B (t C) F Y X -> B C (F t) Y X", t=2)
        double = self.resample["1"]
        assert isinstance(double, DoublingConv)
        if fast := compiled_for(x_BCFYX, double.weight):
            large = fast.convolve(x_BCFYX, None, state.weights(double, fast), double.bias, doubled=True)
        else:
            large = frame_by_frame(double, x_BCFYX)
        return state.cut(self, large)


class Downsample(nn.Module):
    """Half the rows and columns; with `time` also half the frames, but the clip's first stays one."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": HalvingConv(channels)})
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1), step=2) if time else None

    def forward(self, x_BCFYX: Tensor, state: StreamState) -> Tensor:
        """`[B, C, F, Y, X] -> [B, C, F or F / 2, Y / 2, X / 2]`."""
        small = state.cut(self, frame_by_frame(self.resample["1"], x_BCFYX))
        if self.time_conv is None:
            return small
        past = state.past.get(self)
        joined = small if past is None else torch.cat((past, small), dim=2)
        state.keep(self, small, 1)
        if past is None:
            return small
        return self.time_conv.apply_kernel(joined, self.time_conv.weight)


def fold(x_BCFYX: Tensor, channels_out: int, *, time: int, space: int) -> Tensor:
    """Blocks of `time x space x space` positions into channels, averaged down to `channels_out`; no weights.

    A lone first frame is completed to a block by zeros before it.
    """
    x = F.pad(x_BCFYX, (0, 0, 0, 0, -x_BCFYX.shape[2] % time, 0))
    blocks = rearrange(x, "B C (F f) (Y y) (X x) -> B (C f y x) F Y X", f=time, y=space, x=space)
    means: Tensor = reduce(blocks, "B (D mean) F Y X -> B D F Y X", "mean", D=channels_out)
    return means


def unfold(x_BCFYX: Tensor, channels_out: int, *, time: int, space: int, first: bool) -> Tensor:
    """The reverse of `fold` by repetition; of the clip's first frame only the last of its block counts."""
    copies = channels_out * time * space**2 // x_BCFYX.shape[1]
    x: Tensor = repeat(x_BCFYX, "B C F Y X -> B (C copies) F Y X", copies=copies)
    x = rearrange(x, "B (C f y x) F Y X -> B C (F f) (Y y) (X x)", f=time, y=space, x=space)
    return x[:, :, time - 1 :] if first else x
