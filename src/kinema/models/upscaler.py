"""The two networks that make pictures larger, run in tiles that give what the whole would.

    RRDBNet           y = last(lrelu(hr(up(f + conv(blocks(f)))))),   f = first(x)
    SRVGGNetCompact   y = shuffle(layers(x)) + x repeated

A network is a row of stages, each of which sees a few pixels around: one block of RRDBNet reaches 15 pixels,
while all 23 together reach 347. Tiles are therefore cut for each stage anew, with a margin of that stage's
reach: between stages a map of features for the whole picture is kept, and only inside one, where a dense
block holds five times as much and the last layers work at the full size, there is a tile at a time. At the
picture's own edge no margin is added, and layers pad with zeros as they do for the whole.

Parameter names are those of Real-ESRGAN's releases (https://github.com/xinntao/Real-ESRGAN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.upscaler_file import UpscalerFile
from kinema.models.weights import bare, load_into, require_finite

TILE = 256  # pixels a side of what a stage gives back at most, before it makes them more
TOGETHER = 8  # layers of SRVGGNetCompact in one stage
SLOPE = 0.2  # of RRDBNet's leaky rectifiers
SHARE = 0.2  # of what a dense block finds, which is added


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a network that sees its surroundings only.

    Attributes:
        run: `[B, C, H, W]` to `[B, C', scale H, scale W]`.
        reach: pixels of what comes in, beyond its own place, on which a result depends.
        scale: how many times as large it comes out.
    """

    run: Callable[[Tensor], Tensor]
    reach: int
    scale: int = 1

    def tiled(self, x_BCHW: Tensor, tile: int = TILE) -> Tensor:
        """What `run` gives for the whole, computed in tiles of at most `tile` pixels a side."""
        side = max(1, tile // self.scale)
        height, width = x_BCHW.shape[-2:]
        if max(height, width) <= side:
            return self.run(x_BCHW)
        out: Tensor | None = None
        s = self.scale
        for top, left in product(range(0, height, side), range(0, width, side)):
            bottom, right = min(top + side, height), min(left + side, width)
            above, before = max(0, top - self.reach), max(0, left - self.reach)
            part = x_BCHW[..., above : bottom + self.reach, before : right + self.reach]
            made = self.run(part)
            if out is None:
                out = made.new_empty((*made.shape[:2], s * height, s * width))
            inner = made[..., s * (top - above) : s * (bottom - above), s * (left - before) :]
            out[..., s * top : s * bottom, s * left : s * right] = inner[..., : s * (right - left)]
        assert out is not None
        return out


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it have found."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for k in range(1, 6):
            gives = growth if k < 5 else width
            self.add_module(f"conv{k}", _conv(width + (k - 1) * growth, gives))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape."""
        found = x_BCHW
        for k in range(1, 5):
            new = F.leaky_relu(self.get_submodule(f"conv{k}")(found), SLOPE, inplace=True)
            found = torch.cat((found, new), dim=1)
        return x_BCHW + SHARE * self.get_submodule("conv5")(found)


class Block(nn.Module):
    """Three dense blocks, and the way past them."""

    REACH = 15

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape."""
        return x_BCHW + SHARE * self.rdb3(self.rdb2(self.rdb1(x_BCHW)))


class RRDBNet(nn.Module):
    """The network of ESRGAN and of Real-ESRGAN's large ones."""

    def __init__(self, file: UpscalerFile) -> None:
        super().__init__()
        self.fold, self.doublings, self.scale = file.fold, file.doublings, file.scale
        self.conv_first = _conv(3 * file.fold**2, file.width)
        self.body = nn.ModuleList(Block(file.width, file.growth) for _ in range(file.blocks))
        self.conv_body = _conv(file.width, file.width)
        for n in range(1, file.doublings + 1):
            self.add_module(f"conv_up{n}", _conv(file.width, file.width))
        self.conv_hr = _conv(file.width, file.width)
        self.conv_last = _conv(file.width, 3)

    def forward(self, x_BCHW: Tensor, tile: int = TILE) -> Tensor:
        """`[B, 3, H, W]` in 0..1 to `[B, 3, scale H, scale W]`, about in 0..1."""
        height, width = x_BCHW.shape[-2:]
        if self.fold > 1:
            odd = (0, -width % self.fold, 0, -height % self.fold)
            mirrored = min(height, width) >= self.fold  # the pixels beyond the edge have to be there
            x_BCHW = F.pad(x_BCHW, odd, mode="reflect" if mirrored else "replicate")
            x_BCHW = F.pixel_unshuffle(x_BCHW, self.fold)
        first = Stage(self.conv_first, 1).tiled(x_BCHW, tile)
        features = first
        for block in self.body:
            features = Stage(block, Block.REACH).tiled(features, tile)
        features = first + Stage(self.conv_body, 1).tiled(features, tile)
        # of the layers at larger sizes each sees half as far, in pixels of this one, as the one before
        made = Stage(self._enlarge, 2, 2**self.doublings).tiled(features, tile)
        return made[..., : height * self.scale, : width * self.scale]

    def _enlarge(self, x_BCHW: Tensor) -> Tensor:
        for n in range(1, self.doublings + 1):
            twice = F.interpolate(x_BCHW, scale_factor=2, mode="nearest")
            x_BCHW = F.leaky_relu(self.get_submodule(f"conv_up{n}")(twice), SLOPE, inplace=True)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x_BCHW), SLOPE, inplace=True))
        return out


class SRVGGNetCompact(nn.Module):
    """Real-ESRGAN's small network: all layers at the small size, and only what is missing is made."""

    def __init__(self, file: UpscalerFile) -> None:
        super().__init__()
        self.scale = file.scale
        layers: list[nn.Module] = [_conv(3, file.width), nn.PReLU(file.width)]
        for _ in range(file.blocks):
            layers += [_conv(file.width, file.width), nn.PReLU(file.width)]
        self.body = nn.ModuleList([*layers, _conv(file.width, 3 * file.scale**2)])

    def forward(self, x_BCHW: Tensor, tile: int = TILE) -> Tensor:
        """`[B, 3, H, W]` in 0..1 to `[B, 3, scale H, scale W]`, about in 0..1."""
        found = x_BCHW
        for stage in self._stages():
            found = stage.tiled(found, tile)
        return F.pixel_shuffle(found, self.scale) + F.interpolate(
            x_BCHW, scale_factor=self.scale, mode="nearest"
        )

    def _stages(self) -> Iterator[Stage]:
        for i in range(0, len(self.body), 2 * TOGETHER):
            layers = self.body[i : i + 2 * TOGETHER]
            yield Stage(nn.Sequential(*layers), sum(isinstance(layer, nn.Conv2d) for layer in layers))


def _conv(gets: int, gives: int) -> nn.Conv2d:
    return nn.Conv2d(gets, gives, 3, padding=1)


def load_upscaler(file: UpscalerFile, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network of a file, with its weights.

    Raises:
        ModelError: the file is damaged, or a number in it is not finite.
    """
    try:
        with safe_open(file.path, framework="pt", device=str(device)) as tensors:
            state = {ours: tensors.get_tensor(theirs) for ours, theirs in file.names.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file.path} is damaged or not safetensors ({error}); fetch it again.") from None
    for name, tensor in state.items():
        require_finite(file.names[name], tensor, file.path)
    with bare():
        net = RRDBNet(file) if file.kind == "RRDBNet" else SRVGGNetCompact(file)
    load_into(net, {name: tensor.to(dtype) for name, tensor in state.items()}, file.path)
    return net.eval().requires_grad_(False)
