"""Guidance that is not computed in every step: the difference that it acts along is kept and used again.

    u~ = c - d,   d = c - u of the last step in which both were computed, by the same transformer

A step then costs one forward in place of two. `ClassifierFree.interval` is the other way: outside it there
is no guidance at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kinema.diffusion.carry import Carry
from kinema.diffusion.guidance import COND, UNCOND, Guidance, Predictions
from kinema.diffusion.step import Step


@dataclass(frozen=True, slots=True, eq=False)
class Reused:
    """A guidance rule that in some steps takes the unconditional prediction from the step before.

    Attributes:
        base: the rule.
        steps: those steps, from 0; none to count forwards only.
        carry: where the difference is kept.
        key: of the window.
        transformer: the number of the one that works at a step, where several share the noise levels.
    """

    base: Guidance
    steps: frozenset[int]
    carry: Carry
    key: str = "whole"
    transformer: Callable[[Step], int] = lambda _: 0

    def plan(self, step: Step) -> tuple[str, ...]:
        """Without the negative prompt where it is taken from before."""
        self.carry.look("guidance", self.key, step.index)
        names = self.base.plan(step)
        reuse = UNCOND in names and self._known(step)
        self.carry.count(possible=len(names), reused=int(reuse))
        if not reuse:
            return names
        return tuple(name for name in names if name != UNCOND)

    def combine(self, predictions: Predictions, step: Step) -> Tensor:
        """The guided velocity."""
        c, wanted = predictions[COND], UNCOND in self.base.plan(step)
        name = self._name(step)
        if UNCOND in predictions and max(self.steps, default=0) > step.index:
            self.carry.tensors[name] = c - predictions[UNCOND]
        elif wanted and UNCOND not in predictions:
            predictions = {**predictions, UNCOND: c - self.carry.tensors[name]}
        return self.base.combine(predictions, step)

    def _known(self, step: Step) -> bool:
        return step.index in self.steps and self._name(step) in self.carry.tensors

    def _name(self, step: Step) -> str:
        return f"guidance/{self.key}/{step.stage}/{self.transformer(step)}"
