"""A run against the clock: when to stop, and how many steps the time that is left allows."""

from __future__ import annotations

import time

from kinema.training.loop import Trainer

SKIPPED, MEASURED, AGAIN = 15, 15, 200  # steps: compilation and warm-up, first measure, later ones


class Pace:
    """The time of one sitting.

    Args:
        minutes: after which to stop, resumably.
        plan: minutes of training still to come, this sitting included. The number of steps is then set, and
            set again as the run goes, so that the schedule ends with them; None leaves it alone, which is
            what a run that must resume bit for bit needs.
    """

    def __init__(self, minutes: float, plan: float | None = None) -> None:
        self.minutes, self.plan = minutes, plan
        self.began = time.monotonic()
        self.steps, self.mark = 0, (0, self.began)

    @property
    def seconds(self) -> float:
        """Since the sitting began."""
        return time.monotonic() - self.began

    def over(self) -> bool:
        """Whether the sitting's time is up."""
        return self.seconds >= 60 * self.minutes

    def stepped(self, trainer: Trainer) -> None:
        """One step is done; plans again when there is something to measure."""
        self.steps += 1
        if self.steps == SKIPPED:
            self.mark = (self.steps, time.monotonic())
        since = self.steps - self.mark[0]
        if self.plan is None or self.mark[0] == 0 or since not in (MEASURED, AGAIN):
            return
        now = time.monotonic()
        each = (now - self.mark[1]) / since
        trainer.steps = planned(trainer.step, 60 * self.plan - self.seconds, each)
        if since == AGAIN:
            self.mark = (self.steps, now)


def planned(step: int, left: float, each: float) -> int:
    """The length of a run that is at `step`, with `left` seconds to go at `each` seconds a step."""
    return step + max(1, int(left / max(each, 1e-6)))
