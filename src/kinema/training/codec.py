"""Training of the patch codec: principal axes for its encoder, then gradient descent for its decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import unfold

from kinema.core.runtime import generator
from kinema.models.codec import MISSED, DecoderState, DetailDecoder, PatchCodec
from kinema.training.chance import noise_like
from kinema.training.loop import Log, OptimiserSettings, Trainer
from kinema.training.pace import Pace

CHECKPOINT = "decoder.safetensors"
SPREAD_BATCHES = 20  # enough for two digits of a standard deviation


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSettings:
    """How the decoder is trained: loss = L1 + square L2 + edges L1(d/dx, d/dy) + change L1(d/dt).

    Attributes:
        steps: length of the run; the schedule depends on it.
        batch: clips a step.
        frames: pixel frames of a clip, 1 + a multiple of the codec's group.
        noise: largest standard deviation of the noise on a clip's latents, to stand in for a transformer's
            errors.
        square: weight of the squared error.
        edges: weight of the differences between neighbouring pixels.
        change: weight of the differences between neighbouring frames.
        solve: batches from which the patch layers are solved before the first step; 0 leaves them at zero.
            Needs a codec whose decoder is `lapped`.
        every: steps between checkpoints.
        optimiser: rates, schedule and averaging.
    """

    steps: int = 1500
    batch: int = 8
    frames: int = 9
    noise: float = 0.08
    square: float = 5.0
    edges: float = 0.5
    change: float = 0.25
    solve: int = 600
    every: int = 100
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(rate=3e-3))


class _Moments:
    """Count, sum and sum of outer products of rows, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.outer = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        self.count += rows.shape[0]
        rows = rows.double() if rows.is_cuda else rows  # a GPU's fast float32 products have 10 bits
        self.total += rows.double().sum(dim=0).cpu()
        self.outer += (rows.T @ rows).double().cpu()

    def axes(self, keep: int, *, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Centre (zero unless `centred`), `keep` principal axes `[width, keep]`, deviations along them."""
        centre = self.total / self.count if centred else torch.zeros_like(self.total)
        covariance = self.outer / self.count - torch.outer(centre, centre)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        # An axis has no sign of its own: the largest entry is made positive on every machine.
        sign = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
        return centre, vectors * sign, values.clamp_min(0).sqrt()


def fit_linear(codec: PatchCodec, clips: Iterable[Tensor]) -> int:
    """Fit the codec's frozen encoder to data: principal axes of group means, and of deviations from them.

    Single frames (a clip's first) count as means. Deviations keep their zero: a frozen clip has none.

    Args:
        codec: changed in place; its decoder is left alone.
        clips: batches `[B, 3, F, H, W]` in -1..1, F = 1 + a multiple of the codec's group.

    Returns:
        How many patches were seen.
    """
    config = codec.config
    means = _Moments(config.pixels)
    deviations = _Moments(config.time * config.pixels)
    for frames_BCFHW in clips:
        patches = rearrange(
            frames_BCFHW,
            "b c f (y p) (x q) -> (b y x) f (c p q)",
            p=config.patch,
            q=config.patch,
        )
        means.add(patches[:, 0])
        for group in torch.split(patches[:, 1:], config.time, dim=1):
            mean = group.mean(dim=1)
            means.add(mean)
            deviations.add(rearrange(group - mean.unsqueeze(1), "n f d -> n (f d)"))
    centre, mean_basis, mean_std = means.axes(config.mean_channels, centred=True)
    _, deviation_basis, deviation_std = deviations.axes(config.deviation_channels, centred=False)
    codec.projection.set_axes(centre, mean_basis, mean_std, deviation_basis, deviation_std)
    return means.count


def vary(frames_BCFHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each clip mirrored, turned over its diagonal, played backwards and recoloured by a coin per clip.

    Colours vary by permuting red, green and blue, so that no axis is spent on the data's favourite hues only.
    """
    clips = []
    for clip_CFHW in frames_BCFHW:
        mirrored, turned, backwards = (torch.rand(3, generator=generator) < 0.5).tolist()
        clip = clip_CFHW[torch.randperm(3, generator=generator)]
        clip = clip.flip(3) if mirrored else clip
        clip = clip.transpose(2, 3) if turned and clip.shape[2] == clip.shape[3] else clip
        clips.append(clip.flip(1) if backwards else clip)
    return torch.stack(clips)


def reconstruction_loss(frames_BCFHW: Tensor, target_BCFHW: Tensor, settings: DecoderSettings) -> Tensor:
    """The decoder's loss between its frames and the true ones: a scalar."""
    error = frames_BCFHW - target_BCFHW
    # Differences are linear, so the difference of the frames' edges is the edge of their difference.
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    loss = error.abs().mean() + settings.square * error.square().mean() + settings.edges * edges
    if error.shape[2] > 1:
        loss = loss + settings.change * error.diff(dim=2).abs().mean()
    return loss


def noisy_latents(codec: PatchCodec, frames_BCFHW: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    """The clips' latents, each clip with noise of its own level: mostly little, at most `noise`."""
    with torch.no_grad():
        latents_BCTYX = codec.encode(frames_BCFHW)
    level_B = noise * torch.rand(latents_BCTYX.shape[0], generator=rng).square()
    e = noise_like(latents_BCTYX, rng)
    return latents_BCTYX + level_B.to(latents_BCTYX).view(-1, 1, 1, 1, 1) * e


def decode_open(codec: PatchCodec, latents_BCTYX: Tensor) -> Tensor:
    """Frames of a whole clip before they are clamped to -1..1, so that gradients reach every pixel."""
    state: DecoderState | None = None
    parts = []
    for index, latent_BCYX in enumerate(latents_BCTYX.unbind(dim=2)):
        frames, state = codec.decode_step(latent_BCYX, state, lone=index == 0)
        parts.append(frames)
    return torch.cat(parts, dim=2)


@torch.no_grad()
def fit_patches(
    codec: PatchCodec,
    clips: Iterable[Tensor],
    *,
    noise: float = 0.0,
    seed: int = 0,
    ridge: float = 1e-4,
) -> None:
    """Solve the decoder's layers `lapped` and `patches` for the least squared error, the blocks as they are.

    Ridge regression from a patch's 3x3 neighbours in the latent frame, and from the blocks' output there, to
    what the linear codec misses; once for lone first frames and once for groups.

    Args:
        codec: changed in place.
        clips: batches `[B, 3, F, H, W]` in -1..1, F > 1.
        noise: as in `DecoderSettings`.
        seed: names the noise.
        ridge: penalty relative to the mean power of the inputs.
    """
    decoder, config = codec.decoder, codec.config
    normal: dict[int, list[Tensor]] = {}
    for index, frames_BCFHW in enumerate(clips):
        latents_BCTYX = noisy_latents(codec, frames_BCFHW, noise, generator(seed, f"patches/{index}"))
        state: DecoderState | None = None
        groups = torch.split(frames_BCFHW, [1] + [config.time] * (latents_BCTYX.shape[2] - 1), dim=2)
        for latent_BCYX, group_BCfHW in zip(latents_BCTYX.unbind(dim=2), groups, strict=True):
            inputs, state = _patch_inputs(decoder, latent_BCYX, state)
            missed = (group_BCfHW - codec.projection.inverse(latent_BCYX, group_BCfHW.shape[2])) / MISSED
            p = config.patch
            targets = rearrange(missed, "b c f (y p) (x q) -> (b y x) (c f p q)", p=p, q=p)
            sums = [(inputs.T @ inputs).double(), (inputs.T @ targets).double()]
            old = normal.get(group_BCfHW.shape[2])
            normal[group_BCfHW.shape[2]] = [a + b for a, b in zip(old, sums, strict=True)] if old else sums
    for frames, (gram, cross) in normal.items():
        penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        _set_patches(decoder, torch.linalg.solve(gram + penalty, cross).float().T, frames)


def _patch_inputs(
    decoder: DetailDecoder, latent_BCYX: Tensor, state: DecoderState | None
) -> tuple[Tensor, DecoderState]:
    """Rows of what `lapped` and `patches` see at each patch, and a one for the bias; the next state."""
    x_BDYX, state = decoder.trunk(latent_BCYX, state)
    around = unfold(latent_BCYX / decoder.spread, 3, padding=1)
    columns = [around, x_BDYX.flatten(2), torch.ones_like(around[:, :1])]
    return rearrange(torch.cat(columns, dim=1), "b k n -> (b n) k"), state


def _set_patches(decoder: DetailDecoder, solution: Tensor, frames: int) -> None:
    """Write a solution `[(c f p q), inputs]` into the slots of lone frames or of groups."""
    slots = decoder.slots(frames)
    lapped, patches, bias = solution.tensor_split(
        [decoder.lapped.weight.shape[1], solution.shape[1] - 1], dim=1
    )
    for target, rows in (
        (decoder.lapped.weight, lapped),
        (decoder.patches.weight, patches),
        (decoder.patches.bias[:, None], bias),
    ):
        every = rearrange(target.data, "(c f a) k -> c f a k", c=3, f=1 + decoder.config.time)
        every[:, slots] = rearrange(rows, "(c f a) k -> c f a k", c=3, f=frames)


def latent_spread(codec: PatchCodec, clips: Iterable[Tensor]) -> Tensor:
    """Standard deviation `[C]` of each latent channel over clips `[B, 3, F, H, W]` in -1..1."""
    with torch.no_grad():
        latents = [codec.encode(frames.to(codec.projection.centre.device)) for frames in clips]
    return torch.cat(latents).std(dim=(0, 2, 3, 4))


def matrices(decoder: DetailDecoder) -> list[str]:
    """Names of the weights for Muon: those inside the blocks; the others meet pixels or latents."""
    return [name for name, p in decoder.named_parameters() if name.startswith("blocks.") and p.ndim == 2]


def train_decoder(
    codec: PatchCodec,
    draw: Callable[[int], Tensor],
    settings: DecoderSettings,
    folder: Path,
    *,
    seed: int = 0,
    pace: Pace | None = None,
) -> bool:
    """Train the decoder with the encoder frozen; the codec ends with the averaged weights.

    Resumes from `folder/decoder.safetensors` when it exists, bit for bit: batch i comes from `draw(i)`, noise
    i from a generator named by (seed, i), and the checkpoint holds weights, averages and moments.

    Args:
        codec: its decoder is trained in place.
        draw: batch number i of clips `[B, 3, F, H, W]` in -1..1.
        settings: the recipe.
        folder: for the checkpoint and `metrics.jsonl`.
        seed: names the noise.
        pace: when to stop, resumably, and whether the schedule follows the clock.

    Returns:
        Whether all steps are done.
    """
    log = Log(folder)
    decoder = codec.decoder.requires_grad_(True).train()
    trainer = Trainer(decoder, matrices(decoder), settings.optimiser, steps=settings.steps)
    checkpoint, losses, pace = folder / CHECKPOINT, list[Tensor](), pace or Pace(float("inf"))
    if checkpoint.exists():
        trainer.load(checkpoint)
    else:
        decoder.set_spread(latent_spread(codec, map(draw, range(SPREAD_BATCHES))))
        if settings.solve:
            fit_patches(codec, map(draw, range(settings.solve)), noise=settings.noise, seed=seed)
    log.go_on(trainer.step, "codec")
    device = codec.projection.centre.device
    while trainer.step < trainer.steps and not pace.over():
        frames_BCFHW = draw(trainer.step).to(device)
        rng = generator(seed, f"decoder/{trainer.step}")
        latents_BCTYX = noisy_latents(codec, frames_BCFHW, settings.noise, rng)
        loss = reconstruction_loss(decode_open(codec, latents_BCTYX), frames_BCFHW, settings)
        losses.append(loss.detach())
        trainer.update(loss)
        pace.stepped(trainer)
        if trainer.step % 20 == 0:
            mean = float(torch.stack(losses).mean())
            log.write(stage="codec", step=trainer.step, loss=mean, seconds=pace.seconds)
            losses.clear()
        if trainer.step % settings.every == 0:
            trainer.save(checkpoint)
    trainer.save(checkpoint)
    decoder.load_state_dict(trainer.average, strict=False)  # averages cover the weights, not the fixed spread
    decoder.requires_grad_(False).eval()
    return trainer.step >= trainer.steps


@torch.no_grad()
def fidelity(codec: PatchCodec, clips: Iterable[Tensor], *, linear: bool = False) -> tuple[float, float]:
    """PSNR in dB (frames in 0..1) of the first frames and of all later ones, errors pooled over the clips.

    Args:
        codec: what encodes and decodes.
        clips: batches `[B, 3, F, H, W]` in -1..1 with F > 1.
        linear: without the learned decoder.
    """
    first, later = [], []
    for frames_BCFHW in clips:
        latents_BCTYX = codec.encode(frames_BCFHW)
        decoded_BCFHW = (codec.linear_decode if linear else codec.decode)(latents_BCTYX)
        error_BF = ((decoded_BCFHW - frames_BCFHW) / 2).square().mean(dim=(1, 3, 4))
        first.append(error_BF[:, 0].mean())
        later.append(error_BF[:, 1:].mean())
    pooled = [torch.stack(errors).mean().clamp_min(1e-10) for errors in (first, later)]
    return float(-10 * pooled[0].log10()), float(-10 * pooled[1].log10())
