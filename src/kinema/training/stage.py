"""A stage of a recipe: what is trained, on which batches, by which loss; the same on a CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.core.runtime import generator
from kinema.models.codec import PatchCodec
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.training.data import SpriteBank
from kinema.training.distill import distillation
from kinema.training.dit import (
    ObjectiveSettings,
    Task,
    TextSource,
    draw_task,
    matrices,
    objective,
    step_generator,
)
from kinema.training.grammar import Grammar
from kinema.training.loop import Trainer
from kinema.training.low_rank import attach, read_additions
from kinema.training.ranks import ALONE, Ranks
from kinema.training.recipe import entry, read_cast
from kinema.training.render import Gather, compose
from kinema.training.sheet import Look, sample_sheet
from kinema.training.stage_settings import StageSettings
from kinema.training.stream import Batch, Drawer, sprites_on
from kinema.training.travel import dissolve, per_latent

SHEET_ROWS, SHEET_STEP = 12, 10**9


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all stages share.

    Attributes:
        config: the recipe.
        bank: the sprites.
        gather: looks their frames up, on the device.
        codec: on the device.
        text: token states of captions.
        device: where training happens.
        size: height and width of clips.
        casts: names of identities, by the names that parts use.
        ranks: the processes of the run.
    """

    config: Mapping[str, Any]
    bank: SpriteBank
    gather: Gather
    codec: PatchCodec
    text: TextSource
    device: torch.device
    size: int
    casts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranks: Ranks = ALONE

    @staticmethod
    def of(
        config: Mapping[str, Any],
        bank: SpriteBank,
        codec: PatchCodec,
        text: TextSource,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> Workshop:
        """With the sprites where they are needed and the recipe's size."""
        size = config.get("clip", {}).get("size", bank.size)
        casts = {name: read_cast(path) for name, path in config.get("casts", {}).items()}
        gather = sprites_on(bank, device)
        return Workshop(config, bank, gather, codec.to(device), text, device, size, casts, ranks)


def build(config: Mapping[str, Any], device: torch.device, seed: int) -> VideoDiT:
    """The transformer of a recipe, its last layer zero."""
    torch.manual_seed(seed)
    model = VideoDiT(VideoDiTConfig.from_mapping(entry(config, "model")))
    with torch.no_grad():
        model.proj_out.weight.zero_()
    return model.to(device)


def _check_fit(workshop: Workshop, shape: VideoDiTConfig) -> None:
    """Refuse clips that the codec or the transformer cannot take, before the first of them is drawn."""
    codec, size, sprites = workshop.codec, workshop.size, workshop.bank.size
    if codec.latent_channels != shape.in_channels:
        raise ConfigError(
            f"the codec has {codec.latent_channels} channels and the recipe's model {shape.in_channels}; "
            "use those that belong together."
        )
    step = codec.stride.space * shape.patch_size[1]
    if size % step or sprites % size:
        raise ConfigError(
            f"clips of {size} px from sprites of {sprites}: they must be a multiple of {step} and divide the "
            "sprites'; prepare the sprites at the model's size."
        )


class Stage:
    """A stage of training, ready to take steps.

    Args:
        workshop: sprites, codec, texts, device.
        name: one of the recipe's `stages`.
        grammar: what is drawn where the recipe says nothing else.
        seed: names every stream of the stage.
        steps: instead of the recipe's number.

    Raises:
        ConfigError: the recipe has no such stage, or says what cannot be of it.
    """

    def __init__(
        self, workshop: Workshop, name: str, grammar: Grammar, *, seed: int, steps: int | None = None
    ) -> None:
        settings = StageSettings.of(workshop.config, name)
        self.workshop, self.name, self.seed = workshop, name, seed
        self.parts = list(settings.parts)
        self.drawer = Drawer(workshop.bank, grammar, self.parts, seed=seed, casts=workshop.casts)
        self.distil, self.rank = settings.distil, settings.rank
        self.model = build(workshop.config, workshop.device, seed)
        _check_fit(workshop, self.model.config)
        self.settings = settings.optimiser
        self.steps = settings.steps if steps is None else steps
        self.trainer = self._trainer()
        self.share = 1.0  # of a batch that fits into the device's memory

    def add(self, earlier: Path | None = None) -> None:
        """Freeze the weights and train low-rank additions to them instead, new ones or a file's."""
        assert self.rank is not None
        rng = generator(self.seed, "additions")
        attach(self.model, matrices(self.model), rank=self.rank, generator=rng)
        if earlier is not None:
            read_additions(self.model, earlier)
        self.trainer = self._trainer()

    def _trainer(self) -> Trainer:
        chosen = matrices(self.model) if self.rank is None else []
        return Trainer(self.model, chosen, self.settings, steps=self.steps, ranks=self.workshop.ranks)

    def compile(self) -> None:
        """Compile the blocks, which are alike; a graph that cannot be compiled runs as it is."""
        import torch._dynamo  # seconds, and only here

        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.recompile_limit = 32
        for block in self.model.blocks:
            block.compile(dynamic=False)

    def frames(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """A batch's clips `[B, 3, F, H, W]` in -1..1 on the device, and captions."""
        count = max(1, round(self.share * len(batch.captions)))
        values = batch.values.part(0, count).to(self.workshop.device)
        clips_BCFHW = compose(values, self.workshop.gather, size=self.workshop.size)
        if batch.courses_BF is not None:
            clips_BCFHW = dissolve(clips_BCFHW, batch.courses_BF[:count].to(clips_BCFHW))
        return clips_BCFHW, batch.captions[:count]

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One update; the loss and the gradient's norm, still on the device."""
        try:
            loss = self.loss(batch)
            return loss.detach(), self.trainer.update(loss)
        except torch.OutOfMemoryError:
            if self.share < 0.1:
                raise
            self.share *= 0.7
        for optimiser in self.trainer.optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return self.step(batch)

    @torch.no_grad()
    def latents(self, batch: Batch) -> tuple[Tensor, list[str], Tensor | None]:
        """A batch's latents, captions and, where clips travel, their shares in each latent frame."""
        frames_BCFHW, captions = self.frames(batch)
        first, codec = batch.held != "continue", self.workshop.codec
        latents_BCTYX = codec.encode(frames_BCFHW, first=first)
        if batch.courses_BF is None:
            return latents_BCTYX, captions, None
        courses_BF = batch.courses_BF[: len(captions)].to(latents_BCTYX)
        return latents_BCTYX, captions, per_latent(courses_BF, codec.stride.time, first=first)

    def task(self, batch: Batch) -> Task:
        """A batch, noised by the generator of its step."""
        latents_BCTYX, captions, weights_BTK = self.latents(batch)
        return draw_task(
            self.model,
            latents_BCTYX,
            captions,
            self.workshop.text,
            self.parts[batch.part].objective,
            held=batch.held,
            rng=step_generator(self.seed, batch.step),
            weights_BTK=weights_BTK,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Of a batch, by the weights as they are."""
        with torch.autocast(self.workshop.device.type, torch.bfloat16):
            if self.distil is None:
                return objective(self.model, self.task(batch))
            latents_BCTYX, captions, weights_BTK = self.latents(batch)
            return distillation(
                self.model,
                latents_BCTYX,
                captions,
                self.workshop.text,
                self.distil,
                held=batch.held,
                rng=step_generator(self.seed, batch.step),
                weights_BTK=weights_BTK,
            )

    def sheet(self, path: Path) -> None:
        """Samples beside real clips, as a picture; of the last kind of batch."""
        part = len(self.parts) - 1
        last = self.parts[part]
        step = SHEET_STEP * len(self.parts) + part
        plain = replace(last, batch=SHEET_ROWS, objective=ObjectiveSettings(), travel=False)
        workshop = self.workshop
        drawer = Drawer(
            workshop.bank, self.drawer.grammars[part], [plain], seed=self.seed, casts=workshop.casts
        )
        clips = self.frames(drawer.draw(step))
        sample_sheet(self.trainer, workshop.codec, workshop.text, clips, path, self._look())

    def _look(self) -> Look:
        if self.distil is None:
            return Look(shift=self.workshop.config.get("defaults", {}).get("shift", 1.0))
        return Look(steps=self.distil.steps, guidance=1.0, shift=self.distil.shift)
