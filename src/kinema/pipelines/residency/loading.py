"""A checkpoint whose weights are in memory only while they are needed, behind the face of `Model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self, cast, get_args

import torch

from kinema.core.errors import ConfigError, unknown_name
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.models.coded import Code
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.experts import Experts
from kinema.models.original import original_shelf
from kinema.models.shelf import Shelf
from kinema.models.shelved import ShelvedDiT
from kinema.models.shelved_text import ShelvedTextEncoder
from kinema.models.supply import Supply
from kinema.models.text import CheckpointTextEncoder, EmbeddedTextEncoder
from kinema.models.vision import CheckpointImageEncoder
from kinema.models.weight_files import weight_files
from kinema.models.weights import STEM, read_config
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder
from kinema.pipelines.model import Model, TextEncoder, load_vae, precision
from kinema.pipelines.residency.machine import free_host
from kinema.pipelines.residency.turns import ImageInTurn, TextInTurn, Turns, VAEInTurn
from kinema.pipelines.sums import verify

Tier = Literal["whole", "component", "block"]
DRAWING = frozenset({"transformer", "transformer_2", "vae"})
WEIGHTS = ("full", "fp8", "int8")
HOST_SHARE = 0.6  # of the free memory of the host, for weights that an accelerator asks for at every step


@dataclass(eq=False)
class ResidentModel(Model):
    """A checkpoint of which parts are in memory.

    Attributes:
        tier: which parts at a time.
        turns: who is there now.
    """

    tier: Tier = "whole"
    turns: Turns | None = None

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Everything leaves, and comes again to the new place or precision."""
        assert self.turns is not None
        self.turns.clear()
        self.device, self.dtype = device or self.device, dtype or self.dtype
        fresh = _made(self.card, self.device, self.dtype, self.tier, self.weights, self.turns.together)
        self.dit, self.vae, self.text, self.image = fresh.dit, fresh.vae, fresh.text, fresh.image
        self.turns = fresh.turns
        return self


def checked_tier(memory: str, weights: str) -> Tier:
    """The arrangement of this name; `ConfigError` for one that does not exist."""
    if memory not in ("low", *get_args(Tier)):
        raise unknown_name("memory", memory, ["low", *get_args(Tier)])
    if weights not in WEIGHTS:
        raise unknown_name("weights", weights, WEIGHTS)
    return "block" if memory == "low" else cast("Tier", memory)


def refuse_others(card: ModelCard, tier: Tier, weights: str) -> None:
    """`ConfigError` for what pipelines of diffusers do not do."""
    if tier != "whole" or weights != "full":
        raise ConfigError(
            f"{card.id!r} runs in its own pipeline of diffusers, which is held whole in memory, with full "
            "weights; leave memory and weights out."
        )


def load_resident(
    card: ModelCard,
    *,
    device: str,
    dtype: str,
    tier: Tier,
    weights: str = "full",
    together: frozenset[str] = frozenset(),
    local_files_only: bool = False,
) -> ResidentModel:
    """A checkpoint with its parts in memory as the tier says.

    Args:
        card: of the checkpoint.
        device, dtype: as in `kinema.load`.
        tier: `whole`: all parts, once they were asked; `component`: one part at a time; `block`: of the
            transformer and the text encoder, one block at a time.
        weights: `full`, `fp8` or `int8`.
        together: parts that a loop goes back and forth between, which stay while it runs.
        local_files_only: never ask the hub.

    Raises:
        ModelError: nothing is there, files are missing or damaged, or pickled.
    """
    where = resolve_device(device)
    local_folder(card, local_files_only=local_files_only)
    return _made(card, where, resolve_dtype(dtype, where), tier, weights, together)


def _made(
    card: ModelCard,
    device: torch.device,
    dtype: torch.dtype,
    tier: Tier,
    weights: str,
    together: frozenset[str],
) -> ResidentModel:
    folder = local_folder(card)
    verify(folder)
    parts = frozenset({"text", "image", "vae", "transformer", "transformer_2"})
    turns = Turns(parts if tier == "whole" else together)
    code = None if weights == "full" else cast("Code", weights)
    dit = _transformers(card, folder, device, dtype, tier, code, turns)
    vae = VAEInTurn(card.stride, turns, partial(load_vae, card, device=str(device)))
    text = TextInTurn(turns, _text(card, folder, device, dtype, tier))
    image = None
    if (folder / "image_encoder").is_dir():
        made = partial(CheckpointImageEncoder.from_folder, folder, dtype=dtype, device=device)
        image = ImageInTurn(turns, made)
    return ResidentModel(card, dit, vae, text, image, device, dtype, weights, tier, turns)


def _text(
    card: ModelCard, folder: Path, device: torch.device, dtype: torch.dtype, tier: Tier
) -> Callable[[], TextEncoder]:
    if card.family == "embedded":
        return partial(EmbeddedTextEncoder.from_folder, folder, device=device)
    kind = ShelvedTextEncoder if tier == "block" else CheckpointTextEncoder
    return partial(kind.from_folder, folder, dtype=dtype, device=device)


def _transformers(
    card: ModelCard,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    tier: Tier,
    code: Code | None,
    turns: Turns,
) -> VideoDiT | Experts:
    names = ["transformer"] if card.boundary is None else ["transformer", "transformer_2"]
    made = []
    for i, name in enumerate(names):
        origin, shelf, config = _shelf(card, folder, name, i)
        supply = Supply(shelf, partial(precision, dtype=dtype), device, code)
        supply.keep = _keeps(supply, tier, len(names))
        take = turns.join(name, leave := _Leave())
        dit = ShelvedDiT(config, supply, origin=origin, streamed=tier == "block", on_work=take)
        leave.of = dit.leave
        made.append(dit)
    return made[0] if card.boundary is None else Experts(*made, boundary=card.boundary)


class _Leave:
    """What a part does when it has to leave, known once the part is made."""

    of: Callable[[], None]

    def __call__(self) -> None:
        self.of()


def _shelf(card: ModelCard, folder: Path, name: str, index: int) -> tuple[Path, Shelf, VideoDiTConfig]:
    if card.files:
        files = card.files[index]
        return files[0], original_shelf(files), VideoDiTConfig.from_mapping(card.transformer)
    own = folder / name
    shelf = Shelf.of(weight_files(own, STEM), _wanted)
    return own, shelf, VideoDiTConfig.from_mapping(read_config(own))


def _wanted(name: str) -> str | None:
    return None if "norm_added_q" in name else name  # written by old converters, used by nobody


def _keeps(supply: Supply, tier: Tier, count: int) -> bool:
    """Whether the host holds on to what it read, of each of `count` transformers of this size.

    Codes are: they cost more to make than to keep. Of an accelerator's blocks, too, as they are asked for at
    every step and the way through the file is longer; but never more than the host has room for.
    """
    if tier != "block" or (supply.code is None and supply.device.type != "cuda"):
        return False
    return count * supply.held() < HOST_SHARE * free_host()
