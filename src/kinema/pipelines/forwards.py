"""How often the transformer is run for a plan, by the noise table and the guidance rule of the run itself.

No weights are read. A clip to make over, held pictures and windows decide the levels, and these the forwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from kinema.diffusion.coverage import Window
from kinema.pipelines.card import ModelCard
from kinema.pipelines.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

Frames = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the guided network: where it is, and what it sees.

    Attributes:
        index, steps, stage: as of `Step`.
        frames: latent frames of the clip, held context included.
        levels: of these frames.
    """

    index: int
    steps: int
    stage: int
    frames: Frames
    levels: tuple[float, ...]


def expected_forwards(plan: Plan, card: ModelCard) -> int:
    """Of all steps, in every window, for both sides, and for every prompt that acts where velocities mix.

    Args:
        plan: in mode `joint`, of a model whose transformer kinema runs.
        card: of its model.
    """
    import torch

    from kinema.diffusion.step import Step
    from kinema.pipelines.guiding import guidance, steered

    levels_SBT = known_table(plan, card)
    rule = guidance(plan.sampling, levels_SBT, plan.geometry.context)
    scale_SBT = torch.as_tensor(rule.scale).expand(len(levels_SBT) - 1, 1, -1)
    scales = scale_SBT[:, 0].tolist()

    @cache
    def names(
        index: int, steps: int, stage: int, levels: tuple[float, ...], scale: tuple[float, ...]
    ) -> tuple[str, ...]:
        part = steered(replace(rule, scale=torch.tensor([scale])), plan.sampling)
        return part.plan(Step(index, steps, stage, torch.tensor([levels])))

    shortened, count = Shortened(plan), 0
    for call in calls(plan, levels_SBT):
        scale = tuple(scales[call.index][f] for f in call.frames)
        asked = names(call.index, call.steps, call.stage, call.levels, scale)
        count += sum(_prompts(name, call.frames, plan) for name in shortened.computed(asked, call))
    return count


def known_table(plan: Plan, card: ModelCard) -> Tensor:
    """The noise levels of a run, `[S+1, 1, T]`, held context included."""
    import torch

    from kinema.diffusion.flow import sigmas, table

    g, s, given = plan.geometry, plan.sampling, plan.given
    caps_T = [1.0 if given.source is None else given.strength] * g.latent_frames
    if card.mechanism != "channels":
        for held in given.held:
            caps_T[held.latent] = 1 - held.strength
    if plan.camera is not None and any(plan.camera.follow):
        caps_T = [min(cap, 1 - firm) for cap, firm in zip(caps_T, plan.camera.follow, strict=True)]
    return table(sigmas(s.steps, s.shift, s.grid), torch.tensor([[0.0] * g.context + caps_T]))


def calls(plan: Plan, levels_SBT: Tensor) -> list[Call]:
    """All calls of the guided network in a run along a table, in their order."""
    import torch

    from kinema.diffusion.solvers import solver

    cover, total, steps = plan.windows, levels_SBT.shape[2], len(levels_SBT) - 1
    whole, found = (Window(tuple(range(total)), (1.0,) * total),), list[Call]()
    for turn, new in enumerate((whole[0].frames,) if cover is None else cover.turns):
        now_T = torch.zeros(total, dtype=torch.bool)
        now_T[list(new)] = True
        # of frames that are sampled turn after turn, those of earlier ones are held
        rows_SBT = torch.where(now_T, levels_SBT, levels_SBT[-1])
        for index in range(steps):
            windows = whole if cover is None else cover.windows(turn, index)
            stages = solver(plan.sampling.solver).stages(rows_SBT[index], rows_SBT[index + 1])
            for stage, level_BT in enumerate(stages):
                levels = level_BT[0].tolist()
                found += [
                    Call(index, steps, stage, window.frames, tuple(levels[f] for f in window.frames))
                    for window in windows
                ]
    return found


@dataclass(frozen=True, slots=True)
class Shortened:
    """What shortcuts leave of a run's forwards, as far as it is known ahead; see `cache` and `reuse`.

    Attributes:
        plan: whose shortcuts they are.
        looked: the step in which a window was looked at last.
        differences: windows, stages and transformers whose guidance was computed once.
        streams: the transformer and the frames that moved when a side was computed or carried on last, by
            window, stage and side.
    """

    plan: Plan
    looked: dict[Frames, int] = field(default_factory=dict)
    differences: set[tuple[Frames, int, int]] = field(default_factory=set)
    streams: dict[tuple[Frames, int, str], tuple[int, list[bool]]] = field(default_factory=dict)

    def computed(self, names: tuple[str, ...], call: Call) -> tuple[str, ...]:
        """Those of the predictions that cost a forward."""
        from kinema.diffusion.carry import LASTING
        from kinema.diffusion.guidance import UNCOND

        cuts, works, place = self.plan.sampling.shortcuts, self._transformer(call), (call.frames, call.stage)
        if cuts is None:
            return names
        if not 0 <= call.index - self.looked.get(call.frames, call.index) <= LASTING:
            self._forget(call.frames)
        self.looked[call.frames] = call.index
        if UNCOND in names and call.index in cuts.reuse and (*place, works) in self.differences:
            names = tuple(name for name in names if name != UNCOND)
        elif UNCOND in names:
            self.differences.add((*place, works))
        now = (works, [level > 0 for level in call.levels])
        skipped = cuts.cache == "schedule" and call.index in cuts.skipped(call.steps)
        done = {name for name in names if skipped and self.streams.get((*place, name)) == now}
        self.streams.update({(*place, name): now for name in names})
        return tuple(name for name in names if name not in done)

    def _forget(self, frames: Frames) -> None:
        self.differences.difference_update([place for place in self.differences if place[0] == frames])
        for place in [place for place in self.streams if place[0] == frames]:
            del self.streams[place]

    def _transformer(self, call: Call) -> int:
        """Which of two works, by the timestep that it is told."""
        import torch

        from kinema.diffusion.flow import timesteps

        s = self.plan.sampling
        if s.boundary is None:
            return 0
        times = timesteps(torch.tensor(call.levels), s.steps, s.shift, s.grid)
        return int(float(times.max()) < 1000 * s.boundary)


def _prompts(name: str, frames: Frames, plan: Plan) -> int:
    """Forwards of one side over some latent frames; held context reads what the first new frame reads."""
    from kinema.diffusion.guidance import UNCOND

    side = plan.negatives if name == UNCOND else plan.prompts
    if plan.sampling.blend != "velocity":
        return 1
    rows = [side.weights[max(f - plan.geometry.context, 0)] for f in frames]
    return sum(any(share > 0 for share in column) for column in zip(*rows, strict=True))
