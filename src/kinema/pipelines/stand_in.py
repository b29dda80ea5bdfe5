"""A stand-in for a checkpoint: a distribution whose flow is known, so that a render takes seconds on a CPU.

    p(x_0) = N(a m, t^2)        E[x_0 | x_s] = a m + t^2 (1 - s) / ((1 - s)^2 t^2 + s^2) (x_s - (1 - s) a m)

The mean m is a picture for each prompt: a colour, and a disc that crosses the frame from left to right
(under windows there and back, once in the length that the model learned), mixed with the weights that the
conditioning carries. A seed shows as grain; guidance as strength of colour; a clip that is made over, or a
canvas that is redrawn, keeps as much of itself as its strength leaves. Prompts, held pictures, strengths,
windows, cameras and transitions thus go through the code that a render goes through, and show where they
act; what the checkpoint itself would make of the words is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor

from kinema.core.contracts import Stride
from kinema.models.dit import Conditioning, VideoDiT
from kinema.models.text import Prompt, TextStates
from kinema.pipelines.card import ModelCard
from kinema.pipelines.figure import color_of
from kinema.pipelines.model import Model

DETAILS = (4, 2, 1)  # picture cells along a latent position's side
CELLS = 256  # along a picture's width, at most where there is a choice
SCALE = 16.0  # a: a picture's values are that many times the noise's, so that one outlives many redraws
SPREAD = 2.0  # t
RADIUS = 0.22  # of the disc, in frame heights
TRAINED_STEPS = 1000.0


def stand_in(card: ModelCard, columns: int) -> Model:
    """A model with the card's strides, without weights.

    Args:
        card: of the checkpoint that it stands for.
        columns: of the latents; the more there are, the fewer cells are needed for each.
    """
    detail = next(n for n in DETAILS if card.stride.space % n == 0 and (n * columns <= CELLS or n == 1))
    codec = StandInCodec(card.stride, detail)
    dit = StandInFlow(
        detail,
        strength=1 / max(1.0, card.defaults.guidance),
        masks=card.stride.time,
        learned=card.stride.latent_frames(card.defaults.frames),
    )
    return Model(
        card=replace(card, latent_channels=3 * detail**2, family="embedded"),
        dit=cast("VideoDiT", dit),  # all of it that a render calls
        vae=codec,
        text=StandInWords(),
        image=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


class StandInWords:
    """Each prompt becomes one token whose state is its colour, -1..1; no words are mid-gray."""

    def encode(self, prompts: Sequence[Prompt], max_length: int = 0) -> TextStates:
        """States `[K, 1, 3]`."""
        colors = [color_of(p if isinstance(p, str) else "".join(text for text, _ in p)) for p in prompts]
        return TextStates(
            torch.tensor(colors)[:, None] / 127.5 - 1, torch.ones(len(colors), 1, dtype=torch.bool)
        )

    def to(self, device: torch.device | str) -> Self:
        """Itself; nothing has to move."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Colours of K prompts and their shares, and of a window its places in the clip."""

    color_KC: Tensor
    weights_TK: Tensor | None
    places: tuple[int, ...] | None = None

    def at(self, frames: list[int]) -> Palette:
        """The same prompts over these latent frames."""
        weights = None if self.weights_TK is None else self.weights_TK[frames]
        return Palette(self.color_KC, weights, tuple(frames))

    def over(self, latent_frames: int) -> Tensor:
        """The mixed colour of each latent frame `[T, 3]`."""
        if self.weights_TK is None:
            return self.color_KC[:1].expand(latent_frames, -1)
        return self.weights_TK @ self.color_KC


@dataclass(frozen=True, slots=True)
class _Config:
    """What the conditioning asks of a transformer's configuration."""

    image_dim: None = None


class StandInFlow:
    """The velocity of the known distribution.

    Args:
        detail: picture cells along a latent position's side.
        strength: factor on the colours, so that guidance has room.
        masks: mask channels of a latent frame, for models that read masks.
        learned: latent frames of a window in which the disc crosses the picture.
    """

    config = _Config()

    def __init__(self, detail: int, strength: float, masks: int, learned: int = 2) -> None:
        self.detail, self.strength, self.masks, self.learned = detail, strength, masks, learned

    def prepare(self, given: Conditioning) -> Palette:
        """Read the colours and weights of a clip's prompts."""
        weights = None if given.weights_BTK is None else given.weights_BTK[0]
        return Palette(given.states_BKLD[0, :, 0], weights)

    def __call__(self, given_BCTYX: Tensor, time_BT: Tensor, palette: Palette) -> Tensor:
        """`[B, C, T, Y, X]` at timesteps 0..1000 gives the velocity of the same shape."""
        channels = 3 * self.detail**2
        x, extra = given_BCTYX[:, :channels], given_BCTYX[:, channels:]
        s = rearrange(time_BT / TRAINED_STEPS, "B T -> B 1 T 1 1").to(x)
        mean = SCALE * self._mean(x, palette)
        spread = torch.full_like(s, SPREAD)
        if extra.shape[1]:  # a model that reads masks: what it is shown is known
            shown = extra[:, : self.masks].amax(dim=1, keepdim=True) > 0
            mean, spread = torch.where(shown, extra[:, self.masks :], mean), torch.where(shown, 0.0, spread)
        away = x - (1 - s) * mean
        clean = mean + spread**2 * (1 - s) / ((1 - s) ** 2 * spread**2 + s**2).clamp(min=1e-9) * away
        return torch.where(s > 0, (x - clean) / s.clamp(min=1e-6), 0.0)

    def _mean(self, x_BCTYX: Tensor, palette: Palette) -> Tensor:
        """Each prompt's colour with a lighter disc, at the place that its latent frame says."""
        frames, rows, columns = (n for n in x_BCTYX.shape[2:])
        color_TC = palette.over(frames).to(x_BCTYX) * self.strength
        height, width = rows * self.detail, columns * self.detail
        down = (torch.arange(height) + 0.5) / height
        across = (torch.arange(width) + 0.5) / height
        place_T = width / height * (0.25 + 0.5 * self._way(frames, palette))
        far = (across[None, None] - place_T[:, None, None]) ** 2 + (down[None, :, None] - 0.5) ** 2
        disc_THW = (far < RADIUS**2).to(x_BCTYX)
        faint_TC = color_TC * 0.55
        picture = einsum(faint_TC, 1 - disc_THW, "T C, T H W -> C T H W")
        picture = picture + einsum(color_TC * 1.2, disc_THW, "T C, T H W -> C T H W")
        return packed(picture[None], self.detail)

    def _way(self, frames: int, palette: Palette) -> Tensor:
        """How far across the disc is `[T]`, 0..1: the same in every window that sees a latent frame."""
        if palette.places is not None:
            crossings_T = torch.tensor(palette.places) / max(1, self.learned - 1)
            return 1 - (crossings_T % 2 - 1).abs()
        return torch.arange(frames) / (frames - 1) if frames > 1 else torch.tensor([0.5])


def packed(picture_BCTHW: Tensor, detail: int) -> Tensor:
    """Pictures with `detail` cells a side for each latent position, as its channels."""
    pattern = "B C T (Y i) (X j) -> B (C i j) T Y X"
    found: Tensor = rearrange(picture_BCTHW, pattern, i=detail, j=detail)
    return found


class StandInCodec:
    """Pictures in cells: a group of frames is its mean, and is shown as equal frames.

    Args:
        stride: of the codec that it stands for.
        detail: cells along a latent position's side.
    """

    memory = 0  # earlier latent frames that a decoded one depends on

    def __init__(self, stride: Stride, detail: int) -> None:
        self.stride, self.detail = stride, detail

    def encode(self, frames_BCFHW: Tensor) -> Tensor:
        """`[B, 3, F, H, W] -> [B, C, T, Y, X]`."""
        groups = torch.split(frames_BCFHW[:, :, 1:], self.stride.time, dim=2)
        return self.encode_parts(part for part in (frames_BCFHW[:, :, :1], *groups) if part.shape[2])

    def encode_parts(self, parts: Iterable[Tensor]) -> Tensor:
        """The same of a clip's first frame, then `stride.time` frames each."""
        clip = torch.cat([part.mean(dim=2, keepdim=True) for part in parts], dim=2)
        height, width = (side // self.stride.space * self.detail for side in clip.shape[3:])
        cells = F.adaptive_avg_pool2d(rearrange(clip, "B C T H W -> (B C T) H W"), (height, width))
        picture = rearrange(cells, "(B C T) H W -> B C T H W", B=len(clip), C=3)
        return SCALE * packed(picture, self.detail)

    def stream(self, latents_BCTYX: Tensor) -> Iterator[Tensor]:
        """Frames of one latent frame after the other."""
        pattern = "B (C i j) Y X -> B C (Y i) (X j)"
        for t, latent_BCYX in enumerate(latents_BCTYX.unbind(dim=2)):
            cells = rearrange(latent_BCYX / SCALE, pattern, i=self.detail, j=self.detail)
            size = [side * self.stride.space // self.detail for side in cells.shape[-2:]]
            pixels = F.interpolate(cells, size=size, mode="bilinear")
            yield repeat(pixels, "B C H W -> B C f H W", f=1 if t == 0 else self.stride.time)

    def to(self, device: torch.device | str) -> Self:
        """Itself; nothing has to move."""
        return self
