"""Step caches: most of a forward is taken from an earlier step where it hardly changes.

    y = h + r(h)     r: what the blocks after the front add; computed
    y = h + r~       r~ = r_i, as it was at the last computed step i                 (order 0)
                     r~ = r_i + (r_i - r_h) (s - s_i) / (s_i - s_h), carried on      (order 1)

Which steps, by kind:

    schedule      the steps that were found ahead for a budget (`skipping`), the same in every run
    first-block   those in which the first block's residual q has moved by less than `threshold` since the
                  last computed step: |q - q_i| / |q_i|, over the tokens of frames that move (as FBCache)

The first and last steps, steps in which other frames move than before, and the first step of another
transformer are always computed. Every side of the guidance, prompt, window and
stage has a memory of its own, for as long as the window comes again within a few steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.carry import HOST, Carry
from kinema.diffusion.step import Step

Kind = Literal["schedule", "first-block"]


class Stages(Protocol):
    """Forwards of the network under several texts, in stages; each text has a number from 0."""

    @property
    def transformer(self) -> int:
        """Which of several transformers works; a memory of another one is of no use."""
        ...

    def embed(self) -> list[Tensor]:
        """For each text its tokens `[B, N, D]`, frame after frame."""
        ...

    def blocks(self, x: Mapping[int, Tensor], first: int, last: int | None) -> dict[int, Tensor]:
        """The tokens of some texts after blocks `first` to before `last` (None: the end); `x` is kept."""
        ...

    def finish(self, number: int, x_BND: Tensor) -> Tensor:
        """The velocity."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheRule:
    """When a step is taken from the cache, and how.

    Attributes:
        kind: see the module.
        skips: for `schedule`, the steps that are not computed, from 0.
        threshold: for `first-block`, above 0; the larger, the more is skipped.
        order: 0 or 1, how what was computed is carried on.
        most: for `first-block`, steps skipped in a row, at most.
        warmup, final: steps at the beginning and the end that are always computed.
    """

    kind: Kind = "schedule"
    skips: frozenset[int] = frozenset()
    threshold: float = 0.1
    order: int = 1
    most: int = 3
    warmup: int = 2
    final: int = 1

    def __post_init__(self) -> None:
        if self.order not in (0, 1):
            raise ConfigError(f"order={self.order} of a cache is not 0 or 1.")
        if not self.threshold > 0:
            raise ConfigError(f"threshold={self.threshold} of a cache is not above 0; 0.05 to 0.2 is usual.")

    @property
    def front(self) -> int:
        """Blocks that are always computed."""
        return 1 if self.kind == "first-block" else 0

    def open(self, step: Step) -> bool:
        """Whether this step may be skipped at all."""
        return self.warmup <= step.index < step.steps - self.final


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """What is remembered of one side of the guidance in one window.

    Attributes:
        residual_BND: of the last computed step; of the one computed before it `past_BND`.
        signal_BND: what the first block added then.
        numbers: level of both, steps skipped since, and which transformer, float64 `[4]` on the CPU.
        moving_BT: frames that moved then.
    """

    residual_BND: Tensor
    past_BND: Tensor | None
    signal_BND: Tensor | None
    numbers: Tensor
    moving_BT: Tensor

    def carried_to(self, level: float, order: int) -> Tensor:
        """The residual at this level."""
        at, before = self.numbers[:2].tolist()
        if order == 0 or self.past_BND is None or at == before:
            return self.residual_BND
        return self.residual_BND + (self.residual_BND - self.past_BND) * ((level - at) / (at - before))


@dataclass(frozen=True, slots=True, eq=False)
class StepCache:
    """Forwards, some of which are taken from the steps before.

    Attributes:
        rule: when and how.
        carry: where the memory is.
    """

    rule: CacheRule
    carry: Carry

    def __call__(self, stages: Stages, step: Step, keys: Sequence[str]) -> list[Tensor]:
        """The velocity under each text.

        Args:
            stages: the forwards.
            step: where the loop stands.
            keys: of each text: its side, prompt and window.
        """
        rule, moving_BT = self.rule, step.sigma_BT > 0
        for window in {key.split("/")[0] for key in keys}:
            self.carry.look("cache", window, step.index)
        names = [f"cache/{key}/{step.stage}/" for key in keys]
        before = dict(enumerate(stages.embed()))
        heads = stages.blocks(before, 0, rule.front) if rule.front else before
        signals = {k: heads[k] - before[k] if rule.front else None for k in heads}
        streams = {k: self._recall(name) for k, name in enumerate(names)}
        done: dict[int, Tensor] = {}
        for k, stream in streams.items():
            if stream is not None and self._skips(stream, stages, step, signals[k], moving_BT):
                done[k] = heads[k] + stream.carried_to(_level(step), rule.order).to(heads[k])
                self._keep(names[k], _skipped(stream))
        # several prompts of a side, mixed as velocities, are one side of the guidance
        self.carry.count(cached=len({keys[k].rsplit(".", 1)[0] for k in done}))
        ends = stages.blocks({k: head for k, head in heads.items() if k not in done}, rule.front, None)
        for k, end_BND in ends.items():
            found = self._computed(end_BND - heads[k], signals[k], streams[k], stages, step)
            self._keep(names[k], found)
        return [stages.finish(k, (done | ends)[k]) for k in range(len(keys))]

    def _computed(
        self,
        residual_BND: Tensor,
        signal_BND: Tensor | None,
        stream: Stream | None,
        stages: Stages,
        step: Step,
    ) -> Stream:
        """The memory after a step that was computed."""
        numbers = torch.tensor([_level(step), 0.0, 0.0, float(stages.transformer)], dtype=torch.float64)
        past_BND = None
        if self.rule.order and stream is not None and stream.numbers[3] == numbers[3]:
            past_BND, numbers[1] = stream.residual_BND, stream.numbers[0]
        return Stream(residual_BND, past_BND, signal_BND, numbers, step.sigma_BT > 0)

    def _skips(
        self, stream: Stream, stages: Stages, step: Step, signal_BND: Tensor | None, moving_BT: Tensor
    ) -> bool:
        rule, skipped, transformer = self.rule, int(stream.numbers[2]), int(stream.numbers[3])
        same = transformer == stages.transformer and torch.equal(moving_BT, stream.moving_BT)
        if not (same and rule.open(step)):
            return False
        if rule.kind == "schedule":
            return step.index in rule.skips
        if skipped >= rule.most:
            return False
        assert signal_BND is not None
        assert stream.signal_BND is not None
        return change(signal_BND, stream.signal_BND, moving_BT) < rule.threshold

    def _recall(self, key: str) -> Stream | None:
        found = self.carry.tensors
        if key + "residual" not in found:
            return None
        past, signal = found.get(key + "past"), found.get(key + "signal")
        numbers, moving = found[f"{HOST}{key}numbers"], found[f"{HOST}{key}moving"]
        return Stream(found[key + "residual"], past, signal, numbers, moving)

    def _keep(self, key: str, stream: Stream) -> None:
        """Remember a stream; one that is not finite would spoil later steps, and is forgotten."""
        self.carry.drop(key)
        if not bool(torch.isfinite(stream.residual_BND).all()):
            return
        parts = {"residual": stream.residual_BND, "past": stream.past_BND, "signal": stream.signal_BND}
        kept = self.carry.tensors
        kept |= {key + name: part for name, part in parts.items() if part is not None}
        kept |= {f"{HOST}{key}numbers": stream.numbers, f"{HOST}{key}moving": stream.moving_BT}


def change(now_BND: Tensor, then_BND: Tensor, moving_BT: Tensor) -> float:
    """mean|now - then| / mean|then| over the tokens of frames that move; infinite where there is nothing."""
    frames = moving_BT.any(dim=0)
    if not bool(frames.any()):
        return 0.0
    now, then = (_of_frames(x, frames) for x in (now_BND, then_BND))
    size = float(then.float().abs().mean())
    moved = float((now.float() - then.float()).abs().mean())
    return moved / size if size > 0 else float("inf")


def _of_frames(x_BND: Tensor, frames_T: Tensor) -> Tensor:
    by_frame: Tensor = rearrange(x_BND, "B (T P) D -> B T P D", T=len(frames_T))
    return by_frame[:, frames_T.to(x_BND.device)]


def _level(step: Step) -> float:
    return float(step.sigma_BT.max())


def _skipped(stream: Stream) -> Stream:
    more = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    return Stream(
        stream.residual_BND, stream.past_BND, stream.signal_BND, stream.numbers + more, stream.moving_BT
    )
