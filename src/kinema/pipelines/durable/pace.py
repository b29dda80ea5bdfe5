"""When a state that may be written has to be: often enough to lose little, seldom enough to cost nothing.

    due when  time since the last one >= max(YOUNG, cost of the last one / SHARE)

so writing takes at most `SHARE` of a render however slow the disk or large the latents are, and a render of
a few seconds writes no state at all unless it is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from kinema.core.errors import ConfigError

YOUNG = 5.0  # seconds; what is lost with a younger render is not worth a wait for the disk
SHARE = 0.01
_WRITTEN = re.compile(r"(\d+)(?:\s*steps?)?|(\d+(?:\.\d+)?)\s*(s|min|h)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Every:
    """How often a state is kept; with neither number, as often as costs less than `SHARE` of the time.

    Attributes:
        steps: after so many steps.
        seconds: after so much time.
    """

    steps: int | None = None
    seconds: float | None = None

    @staticmethod
    def parse(text: str | int | None) -> Every:
        """`5` or `5 steps`, `30s`, `2 min`; None for the default.

        Raises:
            ConfigError: anything else.
        """
        if text is None:
            return Every()
        match = _WRITTEN.fullmatch(str(text).strip())
        if match is None or match[1] == "0":
            raise ConfigError(
                f"checkpoint_every={str(text)[:40]!r} is no interval; write 5 (steps), 30s or 10min."
            )
        if match[1]:
            return Every(steps=int(match[1]))
        return Every(seconds=float(match[2]) * _SECONDS[match[3]])


class Pace:
    """The rule at work, and what was spent.

    Args:
        every: what was asked for.
        clock: seconds that only grow.

    Attributes:
        spent: seconds spent on keeping state.
        count: states written.
    """

    def __init__(self, every: Every | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every or Every(), clock
        self._began = self._last = clock()
        self._steps, self._cost = 0, 0.0
        self.spent, self.count = 0.0, 0

    @property
    def elapsed(self) -> float:
        """Seconds since the render began."""
        return self._clock() - self._began

    @property
    def lasting(self) -> bool:
        """Whether what is written also has to survive a power cut, which costs waits for the disk."""
        return self._every != Every() or self.elapsed >= YOUNG

    @property
    def roomy(self) -> bool:
        """Whether there is time to spare for making files smaller."""
        return self.spent <= SHARE / 2 * self.elapsed

    def step(self) -> None:
        """One more state could be written."""
        self._steps += 1

    def due(self) -> bool:
        """Whether one has to be."""
        since = self._clock() - self._last
        if self._every.steps is not None:
            return self._steps >= self._every.steps
        if self._every.seconds is not None:
            return since >= self._every.seconds
        return since >= max(YOUNG, self._cost / SHARE)

    def wrote(self, seconds: float, *, frame: bool = False) -> None:
        """What a write took; a frame's does not put off the next state."""
        self.spent += seconds
        if not frame:
            self.count += 1
            self._cost, self._last, self._steps = seconds, self._clock(), 0
