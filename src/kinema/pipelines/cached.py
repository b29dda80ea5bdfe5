"""A network whose forwards are partly taken from earlier steps, in front of guidance and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kinema.diffusion.cache import StepCache
from kinema.diffusion.step import Step
from kinema.models.stages import staged
from kinema.pipelines.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class CachedNetwork:
    """The transformer behind a step cache.

    Attributes:
        network: the same without.
        cache: which steps are taken from before, and the memory of them.
        window: names the frames that are looked at; another window's memory is another's.
    """

    network: Network
    cache: StepCache
    window: str = "whole"

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> Mapping[str, Tensor]:
        """One float32 velocity for each name."""

        def forwards(given: Tensor, time_BT: Tensor, texts: Mapping[str, Any]) -> Sequence[Tensor]:
            contexts = list(texts.values())
            stages = staged(self.network.fast, given, time_BT, contexts)
            if stages is None:  # nothing that has blocks
                return self.network.fast.several(given, time_BT, contexts)
            return self.cache(stages, step, [f"{self.window}/{name}" for name in texts])

        return self.network.ask(x_BCTYX, step, names, forwards)
