"""What one job may cost: its pixels, frames and steps, and the time that its plan estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinema.serve.errors import ApiError
from kinema.serve.settings import Limits


def check_cost(plan: Mapping[str, Any], limits: Limits) -> None:
    """`ApiError` 422 for a plan above a limit.

    Args:
        plan: of a whole job: `width`, `height`, `frames`, `work` (pixels x frames x steps) and `seconds` on
            this machine, which is None where nothing can be said.
        limits: of the server.
    """
    what = f"{plan['width']}x{plan['height']}, {plan['frames']} frames"
    seconds = plan["seconds"]
    if plan["work"] > limits.work:
        raise _refusal(
            f"{what} are {plan['work']:.3g} pixel steps, above the {limits.work:.3g} of this server"
        )
    if limits.seconds and seconds is not None and seconds > limits.seconds:
        about, most = in_words(seconds), in_words(limits.seconds)
        raise _refusal(f"{what} take about {about} here, above the {most} of this server")


def _refusal(message: str) -> ApiError:
    way_out = "ask for fewer pixels, frames or steps."
    return ApiError(422, f"{message}; {way_out}", code="too_expensive", param="frames")


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
