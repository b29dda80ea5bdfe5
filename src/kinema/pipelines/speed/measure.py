"""Calibration: clips made exactly and by cheaper means, compared, and the cheapest that is near enough kept.

A way to be faster has three parts, tried together in families:

    fewer steps        n of S, the solver's own accuracy
    a step cache       m of n steps computed, the others carried on; which ones is solved from the measured
                       change of the network's residual (`diffusion.skipping`)
    reused guidance    of the computed steps after the first fifth, one in k asks for both sides, and skipped
                       ones for none; what the two sides differ by lasts longer than either side does

Each family is searched for the smallest m that reaches each target on a few clips; the cheapest of all
families is then confirmed on all clips.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.cache import change
from kinema.diffusion.carry import Carry
from kinema.diffusion.flow import sigmas
from kinema.diffusion.sampler import SamplerState
from kinema.diffusion.skipping import by_magnitude, every, solved
from kinema.pipelines.conditioning import condition
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Plan
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import denoise
from kinema.pipelines.run import render
from kinema.pipelines.speed.calibration import TARGETS, Calibration, Conditions, Measured, forwards
from kinema.pipelines.speed.tiers import conditions, with_means, without
from kinema.story.shortcuts import Shortcuts
from kinema.story.shot import Shot

Frames = NDArray[np.uint8]
Say = Callable[[str], None]

FAMILIES = ((1.0, 1), (1.0, 2), (1.0, 3), (0.8, 1), (0.8, 2), (0.6, 1), (0.6, 2))
"""Share of the exact run's steps, and of how many computed steps one asks for both sides."""
THRESHOLDS = {"first-block": (0.1, 0.15, 0.25), "magnitude": (0.06, 0.15, 0.3)}
FEWEST = 5  # computed steps, below which no clip was ever near
CURVES = 2  # clips that the change of the residual is read off
LEAD = 0.2  # share of the steps at the beginning in which guidance is never reused


def psnr(first: Frames, second: Frames) -> float:
    """dB between clips of 8 bits; 100 where they are equal."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return min(100.0, 10 * math.log10(255**2 / max(error, 1e-9)))


def lowest_tenth(values: Sequence[float]) -> float:
    """The value that nine tenths reach."""
    return sorted(values)[math.ceil(len(values) / 10) - 1]


@dataclass(eq=False)
class Bench:
    """Exact clips, and the distance of other ways to make them.

    Attributes:
        shots: exact, one for each prompt, each with a seed.
        model: loaded.
        say: told what is going on.
        guided: a step asks for both sides.
        exact: the exact clips as far as they were made.
        seconds: that each took.
    """

    shots: Sequence[Shot]
    model: Model
    say: Say
    guided: bool = True
    exact: list[Frames] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def frames(self, shot: Shot) -> tuple[Frames, float]:
        """A clip, and the seconds that it took."""
        began = time.perf_counter()
        found = render(shot, model=self.model).array()
        return found, time.perf_counter() - began

    def reference(self, index: int) -> Frames:
        """The exact clip of a shot, made once."""
        while len(self.exact) <= index:
            found, seconds = self.frames(self.shots[len(self.exact)])
            self.exact.append(found)
            self.seconds.append(seconds)
        return self.exact[index]

    def measured(self, steps: int, shortcuts: Shortcuts, clips: int) -> Measured:
        """Steps and shortcuts against the first `clips` exact clips."""
        means = Measured(steps=steps, shortcuts=shortcuts, psnr=0, low=0, worst=0, forwards=0)
        found: list[float] = []
        seconds: list[float] = []
        for index in range(clips):
            expected = self.reference(index)
            frames, spent = self.frames(with_means(self.shots[index], means))
            found.append(psnr(frames, expected))
            seconds.append(spent)
        run = forwards(shortcuts, steps, guided=self.guided)
        if shortcuts.cache == "first-block":
            run = self._counted(with_means(self.shots[0], means))
        result = replace(
            means,
            psnr=round(float(np.mean(found)), 2),
            low=round(lowest_tenth(found), 2),
            worst=round(min(found), 2),
            forwards=run,
            seconds=round(float(np.median(seconds)), 3),
        )
        self.say(f"{_described(result)}: {result.psnr:.1f} dB, lowest {result.worst:.1f}")
        return result

    def _counted(self, shot: Shot) -> int:
        """Forwards that a run whose skips are not known ahead computes."""
        last = list(self._states(make_plan(shot, self.model.card)))[-1]
        possible, cached, reused = Carry(dict(last.carried)).counts
        return possible - cached - reused

    def _states(self, plan: Plan) -> Iterator[SamplerState]:
        states: list[SamplerState] = []
        denoise(plan, self.model, condition(plan, self.model), lambda _: None, on_state=states.append)
        yield from states

    def curves(self, steps: int) -> tuple[list[float], list[float]]:
        """How much the residual of each step differs from the one carried on, and its size's ratio."""
        watched = Shortcuts.make(cache="schedule")  # nothing is skipped, everything remembered
        changes, ratios = np.zeros((CURVES, steps)), np.ones((CURVES, steps))
        for index in range(min(CURVES, len(self.shots))):
            shot = self.shots[index].with_(steps=steps, speed="fast", shortcuts=watched)
            plan = make_plan(shot, self.model.card)
            levels = sigmas(steps, plan.sampling.shift, plan.sampling.grid).tolist()
            before: list[Tensor] = []
            for j, state in enumerate(self._states(plan)):
                now = state.carried["cache/whole/cond.0/0/residual"]
                if before:
                    carried = _carried(before, levels[: j + 1])
                    moving = torch.ones(1, 1, dtype=torch.bool)
                    changes[index, j] = change(now, carried, moving)
                    ratios[index, j] = float(now.float().norm() / before[-1].float().norm())
                before = [*before[-1:], now]
        return list(changes.mean(axis=0)), list(ratios.mean(axis=0))


def _carried(before: Sequence[Tensor], levels: Sequence[float]) -> Tensor:
    if len(before) == 1:
        return before[0]
    now, at, past = levels[-1], levels[-2], levels[-3]
    return before[1] + (before[1] - before[0]) * ((now - at) / (at - past))


def _described(m: Measured) -> str:
    s = m.shortcuts
    what = f"{m.steps} steps"
    what += f", {len(s.skip)} skipped" if s.skip else ""
    what += f", first block {s.threshold:g}" if s.cache == "first-block" else ""
    what += f", guidance reused in {len(set(s.reuse) - set(s.skip))}" if s.reuse else ""
    return f"{what} ({m.forwards} forwards)"


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Ways that differ in how many steps are computed."""

    steps: int
    keep: int
    changes: Sequence[float]
    levels: Sequence[float]

    def member(self, computed: int) -> Shortcuts:
        """The best schedule with so many steps computed."""
        skips = solved(self.changes, self.levels, computed) if computed < self.steps else ()
        kept = [j for j in range(self.steps) if j not in skips]
        lead = math.ceil(LEAD * self.steps)
        late = [j for j in kept if j >= lead]
        reuse: list[int] = []
        if self.keep > 1:
            reuse = [*skips, *(late[i] for i in every(self.keep, len(late), start=0))]
        return Shortcuts.make(cache="schedule" if skips else "off", skip=skips, reuse=reuse)

    def sizes(self) -> list[int]:
        """Numbers of computed steps that the rules allow, rising."""
        found = []
        for computed in range(FEWEST, self.steps + 1):
            try:
                self.member(computed)
            except ConfigError:
                continue
            found.append(computed)
        return found

    def saves(self, exact: int, guided: bool) -> bool:
        """Some member computes less than the exact run's forwards, by something that acts."""
        if self.keep > 1 and not guided:  # the family that reuses nothing is the same
            return False
        runs = (forwards(self.member(n), self.steps, guided=guided) for n in self.sizes())
        return any(run < exact for run in runs)


def calibrate(
    shot: Shot,
    prompts: Sequence[str],
    model: Model,
    *,
    probes: int = 3,
    kinds: Sequence[tuple[float, int]] | None = None,
    published: bool = False,
    say: Say = lambda _: None,
) -> Calibration:
    """Measure a model's tiers.

    Args:
        shot: without a prompt: the settings of the exact run; others are the model's defaults.
        prompts: one clip each, with seeds from the shot's on.
        model: loaded.
        probes: clips that the search is made on; the tiers are confirmed on all.
        kinds: families that are searched; None for `FAMILIES`.
        published: also measure first-block and magnitude caches as they were published.
        say: told in one line what was measured.

    Raises:
        ConfigError: the settings leave nothing to be saved.
    """
    first = without(shot).seed or 0
    shots = [without(shot).with_(prompt=p, seed=first + i) for i, p in enumerate(prompts)]
    plan = make_plan(shots[0], model.card)
    guided = any(scale != 1 for scale in plan.sampling.guidance)
    bench = Bench(shots, model, say, guided)
    steps, probes = plan.sampling.steps, min(probes, len(shots))
    exact = forwards(Shortcuts.make(), steps, guided=guided)
    kinds = saving_kinds(plan, kinds)
    tried: dict[str, Measured] = {}
    for family in families(bench, plan, kinds):
        for tier in TARGETS:
            search(bench, family, tier, probes, tried)
    rules = _others(bench, plan) if published else ()
    others = [bench.measured(steps, shortcuts, probes) for shortcuts in rules]
    tiers = {}
    for tier in TARGETS:
        if (found := confirmed(bench, tier, tried)) is not None:
            tiers[tier] = found
    return Calibration(
        conditions=_conditions(shots[0], plan, model),
        forwards=exact,
        seconds=round(float(np.median(bench.seconds)), 3),
        clips=len(shots),
        tiers=tiers,
        others=(*sorted(tried.values(), key=lambda m: (m.forwards, -m.psnr)), *others),
    )


def saving_kinds(plan: Plan, kinds: Sequence[tuple[float, int]] | None = None) -> list[tuple[float, int]]:
    """Those families in which something is saved; known from the plan of the exact run alone.

    Args:
        plan: of the exact run.
        kinds: families; None for `FAMILIES`.

    Raises:
        ConfigError: there are none.
    """
    guided = any(scale != 1 for scale in plan.sampling.guidance)
    exact = forwards(Shortcuts.make(), plan.sampling.steps, guided=guided)
    found = [kind for kind in (FAMILIES if kinds is None else kinds) if _saves(kind, plan, exact, guided)]
    if not found:
        raise ConfigError(
            f"steps={plan.sampling.steps} with guidance={max(plan.sampling.guidance):g} leave nothing to be "
            f"saved ({exact} forwards); calibrate with more steps, as many as your exact runs have."
        )
    return found


def families(bench: Bench, plan: Plan, kinds: Sequence[tuple[float, int]]) -> Iterator[Family]:
    """All families, each with the curve of its own number of steps."""
    curves: dict[int, list[float]] = {}
    for kind in kinds:
        steps = _steps(kind, plan)
        if steps not in curves:
            curves[steps] = bench.curves(steps)[0]
        yield _family(kind, plan, curves[steps])


def _steps(kind: tuple[float, int], plan: Plan) -> int:
    return max(FEWEST, round(kind[0] * plan.sampling.steps))


def _family(kind: tuple[float, int], plan: Plan, changes: Sequence[float]) -> Family:
    steps, s = _steps(kind, plan), plan.sampling
    return Family(steps, kind[1], changes, sigmas(steps, s.shift, s.grid).tolist())


def _saves(kind: tuple[float, int], plan: Plan, exact: int, guided: bool) -> bool:
    """Known before anything is measured: how many steps are skipped does not depend on which."""
    return _family(kind, plan, [1.0] * _steps(kind, plan)).saves(exact, guided)


def _others(bench: Bench, plan: Plan) -> Iterator[Shortcuts]:
    """The published rules at some thresholds, for comparison."""
    steps = plan.sampling.steps
    for threshold in THRESHOLDS["first-block"]:
        yield Shortcuts.make(cache="first-block", threshold=threshold, order=0)
    ratios = bench.curves(steps)[1]
    for threshold in THRESHOLDS["magnitude"]:
        if skips := by_magnitude(ratios, threshold=threshold):
            yield Shortcuts.make(cache="schedule", skip=skips, order=0)


def search(bench: Bench, family: Family, tier: str, probes: int, tried: dict[str, Measured]) -> None:
    """Bisect for the fewest computed steps that are near enough; all that was measured joins `tried`."""
    sizes = family.sizes()
    low, high = 0, len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        shortcuts = family.member(sizes[middle])
        key = f"{family.steps} {shortcuts.to_mapping()}"
        if key not in tried:
            tried[key] = bench.measured(family.steps, shortcuts, probes)
        if tried[key].reaches(tier):
            high = middle - 1
        else:
            low = middle + 1


def confirmed(bench: Bench, tier: str, tried: dict[str, Measured]) -> Measured | None:
    """The cheapest way that is near enough on all clips; None when exact is cheapest."""
    steps = bench.shots[0].steps or bench.model.card.defaults.steps
    exact = forwards(Shortcuts.make(), steps, guided=bench.guided)
    fit = [m for m in tried.values() if m.reaches(tier) and m.forwards < exact]
    for candidate in sorted(fit, key=lambda m: (m.forwards, -m.psnr)):
        found = bench.measured(candidate.steps, candidate.shortcuts, len(bench.shots))
        if found.reaches(tier):
            return found
    return None


def _conditions(shot: Shot, plan: Plan, model: Model) -> Conditions:
    g = plan.geometry
    return Conditions(
        **conditions(shot, model.card),
        guidance=max(plan.sampling.guidance),
        width=g.width,
        height=g.height,
        frames=g.frames,
    )
