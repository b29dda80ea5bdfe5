"""Where the time of a run went, told from its events: what passes before one belongs to its phase."""

from __future__ import annotations

import time
from collections.abc import Callable

from kinema.core.contracts import OnProgress, Phase, Progress


class Stopwatch:
    """Listens as `on_progress` and passes events on.

    Args:
        inner: who is told.
        clock: seconds, rising.

    Attributes:
        seconds: by phase, in the order in which the phases came.
    """

    def __init__(self, inner: OnProgress, clock: Callable[[], float] = time.perf_counter) -> None:
        self._inner, self._clock, self._last = inner, clock, clock()
        self.seconds: dict[Phase, float] = {}

    def __call__(self, event: Progress) -> None:
        """Count the time since the last event, and pass this one on."""
        now = self._clock()
        self.seconds[event.phase] = self.seconds.get(event.phase, 0.0) + now - self._last
        self._last = now
        self._inner(event)
