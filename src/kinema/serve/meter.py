"""How far a job is and how long it will take, from the events of its render.

    fraction = units done / units in all        seconds left = units left x measured seconds per unit

One unit is one step of denoising (or one drawn frame); a decoded latent frame counts as the share of a step
that it took in earlier jobs of the same model, so that the end comes as fast as the bar says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kinema.core.contracts import Progress
from kinema.pipelines.plan import Plan
from kinema.serve.jobs import JobProgress

FIRST_SHARE = 0.3
"""Of a step, for a latent frame of a model that nothing is known of yet."""
UNTIL_DONE = 0.99
_STEPPED = ("denoise", "draw", "decode")
_SMOOTH = 0.3


@dataclass
class Rate:
    """Seconds per step of one phase, as a mean over the recent ones."""

    seconds: float | None = None
    _last: tuple[int, int, float] | None = None

    def step(self, shot: int, step: int, now: float) -> None:
        """Step `step` of `shot` has ended."""
        if self._last is not None:
            before, first, since = self._last
            if before == shot and step > first:
                new = (now - since) / (step - first)
                self.seconds = new if self.seconds is None else (1 - _SMOOTH) * self.seconds + _SMOOTH * new
        self._last = (shot, step, now)


@dataclass
class _ShotUnits:
    """Work of one shot: how many steps of each phase, and how many are done."""

    steps: dict[str, int]
    done: dict[str, int] = field(default_factory=dict)


class Meter:
    """Turns events into progress.

    Args:
        plans: of the job's shots.
        shares: what a latent frame costs in steps, by model; learned here and kept by the caller.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        shares: dict[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = [plan.model for plan in plans]
        self._shots = [_ShotUnits(_steps(plan)) for plan in plans]
        self._shares, self._clock = shares, clock
        self._rates = {phase: Rate() for phase in _STEPPED}
        self._now = JobProgress(shots=len(plans))

    @property
    def now(self) -> JobProgress:
        """The last progress."""
        return self._now

    def __call__(self, event: Progress) -> JobProgress:
        """The progress after an event."""
        if event.phase in _STEPPED and event.note is None and event.steps:
            self._count(event)
        done, left = self._units()
        fraction = UNTIL_DONE * done / (done + left) if done + left else 0.0
        self._now = JobProgress(
            phase=event.phase,
            step=event.step,
            steps=event.steps,
            shot=event.shot,
            shots=len(self._shots),
            fraction=max(fraction, self._now.fraction),
            seconds_left=self._seconds_left(),
        )
        return self._now

    def _count(self, event: Progress) -> None:
        units = self._shots[event.shot - 1]
        units.steps[event.phase], units.done[event.phase] = event.steps, event.step
        rate = self._rates[event.phase]
        rate.step(event.shot, event.step, self._clock())
        if event.phase == "decode":  # what was kept of denoising is not told again
            units.done["denoise"] = units.steps.get("denoise", 0)
            steps = self._rates["denoise"].seconds
            if rate.seconds is not None and steps:
                self._shares[self._models[event.shot - 1]] = rate.seconds / steps
        for earlier in self._shots[: event.shot - 1]:
            earlier.done = dict(earlier.steps)

    def _units(self) -> tuple[float, float]:
        """Done, and left."""
        done = left = 0.0
        for model, units in zip(self._models, self._shots, strict=True):
            for phase, steps in units.steps.items():
                weight = self._shares.get(model, FIRST_SHARE) if phase == "decode" else 1.0
                ended = min(units.done.get(phase, 0), steps)
                done += weight * ended
                left += weight * (steps - ended)
        return done, left

    def _seconds_left(self) -> float | None:
        """None before anything was measured."""
        seconds = self._rates["denoise"].seconds or self._rates["draw"].seconds
        if seconds is not None:
            return self._units()[1] * seconds
        frame = self._rates["decode"].seconds
        left = sum(u.steps.get("decode", 0) - u.done.get("decode", 0) for u in self._shots)
        return None if frame is None else left * frame


def _steps(plan: Plan) -> dict[str, int]:
    if plan.redraw is not None:
        return {"draw": len(plan.redraw.strokes)}
    return {"denoise": plan.sampling.steps, "decode": plan.geometry.latent_frames}
