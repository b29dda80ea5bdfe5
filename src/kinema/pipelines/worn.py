"""A transformer with a plan's LoRAs on, for as long as it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from kinema.diffusion.step import Step, Velocity
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.models.lora import Fitted, Worn, fit, shapes_of, wearing
from kinema.models.lora_file import read_lora
from kinema.models.lora_keys import Expert
from kinema.pipelines.plan import PlannedLora

Wardrobe = dict[tuple[str, str], list[tuple[nn.Module, Fitted]]]
"""LoRAs as they fit a loaded transformer, by path and expert."""


@dataclass
class Frames:
    """Which latent frames of the clip the transformer is looking at; None for all of them."""

    chosen: list[int] | None = None

    def shown(self, frames: list[int], velocity: Velocity) -> Velocity:
        """The velocity of a window, during whose calls these frames are the chosen ones."""

        def call(x_BCTYX: Tensor, step: Step) -> Tensor:
            self.chosen = frames
            return velocity(x_BCTYX, step)

        return call


@contextmanager
def worn(
    dit: VideoDiT | Experts,
    loras: tuple[PlannedLora, ...],
    *,
    context: int = 0,
    frames: Frames | None = None,
    fitted: Wardrobe | None = None,
) -> Iterator[None]:
    """The transformer with its LoRAs on, for as long as the block runs.

    Args:
        dit: the loaded transformer.
        loras: from the plan.
        context: held frames in front of the new ones, which have the first new frame's scale.
        frames: says which frames are looked at, where that changes from call to call.
        fitted: what was read and fitted already; what is missing is added.
    """
    fitted = {} if fitted is None else fitted
    with ExitStack() as stack:
        for lora in loras:
            if (lora.path, lora.expert) not in fitted:
                fitted[lora.path, lora.expert] = _fitted(dit, lora)
            scale = lora.scale if len(lora.scale) == 1 else (lora.scale[0],) * context + lora.scale
            for module, changes in fitted[lora.path, lora.expert]:
                stack.enter_context(wearing(module, [Worn(changes, scale)], merge=lora.merge, frames=frames))
        yield


def _fitted(dit: VideoDiT | Experts, lora: PlannedLora) -> list[tuple[nn.Module, Fitted]]:
    """A LoRA's changes to each transformer that it is for."""
    file = read_lora(lora.path)
    return [
        (module, fit(file, shapes_of(module), expert=expert)) for module, expert in _modules(dit, lora.expert)
    ]


def at_frame(loras: tuple[PlannedLora, ...], frame: int) -> tuple[PlannedLora, ...]:
    """The LoRAs with the scales that they have at one frame."""
    return tuple(
        lora if len(lora.scale) == 1 else replace(lora, scale=(lora.scale[frame],)) for lora in loras
    )


def _modules(dit: VideoDiT | Experts, expert: str) -> list[tuple[nn.Module, Expert | None]]:
    if not isinstance(dit, Experts):
        return [(dit, None)]
    both: list[tuple[nn.Module, Expert | None]] = [(dit.high, "high"), (dit.low, "low")]
    return both if expert == "both" else [pair for pair in both if pair[1] == expert]
