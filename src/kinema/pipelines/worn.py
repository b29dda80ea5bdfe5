"""A transformer with a plan's LoRAs on, for as long as it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from kinema.diffusion.step import Step, Velocity
from kinema.models.dit import VideoDiT
from kinema.models.experts import Experts
from kinema.models.lora import Worn, fit, shapes_of, wearing
from kinema.models.lora_file import Expert, LoraFile, read_lora
from kinema.pipelines.loras import PlannedLora


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
    files: dict[str, LoraFile] | None = None,
) -> Iterator[None]:
    """The transformer with its LoRAs on, for as long as the block runs.

    Args:
        dit: the loaded transformer.
        loras: from the plan.
        context: held frames in front of the new ones, which have the first new frame's scale.
        files: read already, by path; what is missing is read and added.
        frames: says which frames are looked at, where that changes from call to call.
    """
    files = {} if files is None else files
    with ExitStack() as stack:
        for lora in loras:
            if lora.path not in files:
                files[lora.path] = read_lora(lora.path)
            file = files[lora.path]
            scale = lora.scale if len(lora.scale) == 1 else (lora.scale[0],) * context + lora.scale
            for module, expert in _modules(dit, lora.expert):
                fitted = fit(file, shapes_of(module), expert=expert)
                stack.enter_context(wearing(module, [Worn(fitted, scale)], merge=lora.merge, frames=frames))
        yield


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
