"""Predictions that are not finite are asked for once more, with care; what stays broken stops the run.

    predict -> finite?  yes: as it is
                        no:  predict again in float32  -> finite?  yes: told, and used
                                                                   no:  an error that names step and layer

A wrapper around the network like guidance, caches and windows: the loop does not know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kinema.core.errors import NumericError
from kinema.diffusion.guidance import Predict, Predictions
from kinema.diffusion.step import Step


class Careful(Protocol):
    """The network in float32, and the place of the first value that is not finite even so."""

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> tuple[Predictions, str]:
        """One velocity for each name, and in words where to look if one of them is not finite."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """A network whose predictions are finite.

    Attributes:
        predict: the network.
        again: the same in float32.
        told: called with one line for every step that was computed again.
    """

    predict: Predict
    again: Careful
    told: Callable[[Step, str], None]

    def __call__(self, x_BCTYX: Tensor, step: Step, names: tuple[str, ...], /) -> Predictions:
        """One finite velocity for each name.

        Raises:
            NumericError: it is not finite in float32 either.
        """
        found = self.predict(x_BCTYX, step, names)
        broken = _broken(found)
        if not broken:
            return found
        mended, place = self.again(x_BCTYX, step, broken)
        if _broken(mended):
            raise NumericError(
                f"the velocity is not finite at {where(step)}, in float32 either; it began {place}. "
                "Check the weights there, or use less guidance."
            )
        self.told(step, f"{where(step)} was not finite and was computed again in float32.")
        return {**found, **mended}


def where(step: Step) -> str:
    """`step 3 of 20 (sigma 0.8123)`."""
    return f"step {step.index + 1} of {step.steps} (sigma {float(step.sigma_BT.max()):.4f})"


def check_finite(v_BCTYX: Tensor, step: Step) -> None:
    """`NumericError` for a velocity that would spoil every later step."""
    if not bool(torch.isfinite(v_BCTYX).all()):
        raise NumericError(
            f"the velocity is not finite at {where(step)}; run in float32, or with less guidance."
        )


def _broken(found: Predictions) -> tuple[str, ...]:
    return tuple(name for name, v in found.items() if not bool(torch.isfinite(v).all()))
