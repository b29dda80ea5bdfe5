"""Labelled real frames that a judge learns from: sprites of any size, anywhere, over anything, and damaged.

The damage is what generated frames may suffer without becoming someone else: blur, noise, wrong tone, and
the codec's round trip with noise on the latents, which is how an imprecise transformer looks. No frame is
generated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec
from kinema.training.data import SpriteBank, render
from kinema.training.drawing import draw_scene
from kinema.training.grammar import Grammar
from kinema.training.scenes import Background, Scene

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompositeSettings:
    """How far composites stray from the generator's own clips.

    Attributes:
        scale: smallest and largest sprite width over frame width.
        near, far: largest shift of the centre, of most composites and of the others; -1..1 spans the frame.
        far_share: share of those others.
        textured: share over a textured ground; the rest lie over flat colours and gradients.
        blurred, coded, toned, grainy: shares that are blurred, coded and decoded, changed in tone, noised.
        latent_noise: largest standard deviation of the noise on latents; their mean variance is 1.
        grain: largest standard deviation of the noise on pixels in -1..1.
    """

    scale: tuple[float, float] = (0.4, 1.4)
    near: float = 0.25
    far: float = 0.8
    far_share: float = 0.25
    textured: float = 0.2
    blurred: float = 0.3
    coded: float = 0.4
    toned: float = 0.3
    grainy: float = 0.3
    latent_noise: float = 0.35
    grain: float = 0.1


class Composites:
    """An endless source of labelled frames: batch i depends on (seed, i, batch size) only.

    Args:
        bank: the sprites; a label is a sprite's index.
        codec: for the round trip.
        settings: shares and ranges.
        seed: names the stream.
    """

    grammar = Grammar(gradient=0.3, colour_jitter=0.25, held_out=0.0)

    def __init__(
        self, bank: SpriteBank, codec: PatchCodec, settings: CompositeSettings, *, seed: int
    ) -> None:
        self.bank, self.codec, self.settings, self.seed = bank, codec, settings, seed
        # An animated sprite has more looks than a still one, so it comes up twice as often.
        self.pool = [identity for identity in bank.identities for _ in range(1 + identity.animated)]

    @torch.no_grad()
    def draw(self, index: int, batch: int) -> tuple[Tensor, Tensor]:
        """Frames `[N, 3, H, W]` in -1..1 and labels `[N]` of batch number `index`."""
        rng, pixels = Random(f"composites/{self.seed}/{index}"), generator(self.seed, f"composites/{index}")
        scenes = [self._scene(rng) for _ in range(batch)]
        frames_NCHW = self._still(scenes)
        chosen = _chosen(batch, self.settings.textured, pixels)
        if len(chosen):
            ground_NCHW = texture(len(chosen), self.bank.size, pixels)
            frames_NCHW[chosen] = self._over([scenes[i] for i in chosen.tolist()], ground_NCHW)
        labels_N = torch.tensor([scene.identity.index for scene in scenes])
        return damage(frames_NCHW, self.codec, self.settings, pixels), labels_N

    def _scene(self, rng: Random) -> Scene:
        small, large = self.settings.scale
        reach = self.settings.far if rng.random() < self.settings.far_share else self.settings.near
        scene = draw_scene(rng, self.grammar, self.pool, still=True)
        place = (rng.uniform(-reach, reach), rng.uniform(-reach, reach))
        scale = math.exp(rng.uniform(math.log(small), math.log(large)))
        return replace(scene, scale=scale, start=place, end=place)

    def _still(self, scenes: Sequence[Scene]) -> Tensor:
        return render(self.bank, scenes, frames=1, fps=self.bank.fps, size=self.bank.size)[:, :, 0]

    def _over(self, scenes: Sequence[Scene], ground_NCHW: Tensor) -> Tensor:
        """The scenes over another ground: black and white renders differ by what shines through."""
        black, white = (
            self._still([replace(scene, background=Background("flat", (name,), (rgb,))) for scene in scenes])
            for name, rgb in (("black", BLACK), ("white", WHITE))
        )
        return black + (white - black) / 2 * (ground_NCHW + 1)


def texture(count: int, size: int, rng: torch.Generator) -> Tensor:
    """Grounds `[N, 3, H, W]` in -1..1: coloured clouds, or stripes of two colours in any direction."""
    coarse = 2 * torch.rand(count, 3, 6, 6, generator=rng) - 1
    clouds_NCHW = functional.interpolate(coarse, size, mode="bilinear", align_corners=True)
    first, last = 2 * torch.rand(2, count, 3, 1, 1, generator=rng) - 1
    turn, turns, hardness = torch.rand(3, count, 1, 1, 1, generator=rng)
    ramp = torch.linspace(-1, 1, size)
    along = torch.cos(6.3 * turn) * ramp[:, None] + torch.sin(6.3 * turn) * ramp
    waves_NCHW = torch.lerp(
        first, last, torch.sigmoid((1 + 9 * hardness) * torch.sin(3 * (1 + 5 * turns) * along))
    )
    return torch.where(torch.rand(count, 1, 1, 1, generator=rng) < 0.5, clouds_NCHW, waves_NCHW)


def damage(
    frames_NCHW: Tensor, codec: PatchCodec, settings: CompositeSettings, rng: torch.Generator
) -> Tensor:
    """The frames, some of them blurred, coded, changed in tone or grainy; still in -1..1."""
    frames_NCHW = frames_NCHW.clone()
    count = len(frames_NCHW)
    if len(chosen := _chosen(count, settings.blurred, rng)):
        frames_NCHW[chosen] = _blurred(frames_NCHW[chosen], rng)
    if len(chosen := _chosen(count, settings.coded, rng)):
        frames_NCHW[chosen] = _coded(frames_NCHW[chosen], codec, settings.latent_noise, rng)
    if len(chosen := _chosen(count, settings.toned, rng)):
        gain, offset = torch.rand(2, len(chosen), 1, 1, 1, generator=rng) - 0.5
        frames_NCHW[chosen] = (1 + 0.5 * gain) * frames_NCHW[chosen] + 0.3 * offset
    if len(chosen := _chosen(count, settings.grainy, rng)):
        level = settings.grain * torch.rand(len(chosen), 1, 1, 1, generator=rng)
        frames_NCHW[chosen] += level * torch.randn(frames_NCHW[chosen].shape, generator=rng)
    return frames_NCHW.clamp_(-1, 1)


def _chosen(count: int, share: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=rng) < share).nonzero()[:, 0]


def _blurred(frames_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Mixed with two passes of a 3 x 3 mean, each frame to its own degree."""
    soft = frames_NCHW
    for _ in range(2):
        soft = functional.avg_pool2d(functional.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.lerp(frames_NCHW, soft, torch.rand(len(frames_NCHW), 1, 1, 1, generator=rng))


def _coded(frames_NCHW: Tensor, codec: PatchCodec, most: float, rng: torch.Generator) -> Tensor:
    """Through the codec's linear part and back, with noise on the latents."""
    latents_NCTYX = codec.encode(frames_NCHW.unsqueeze(2))
    level = most * torch.rand(len(frames_NCHW), 1, 1, 1, 1, generator=rng)
    noise = torch.randn(latents_NCTYX.shape, generator=rng)
    return codec.linear_decode(latents_NCTYX + level * noise).squeeze(2)
