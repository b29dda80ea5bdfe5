"""The steps of a pipeline's own call: watched one by one, and, after an interruption, not taken again.

    call:    noise, [denoiser, scheduler.step] x n, decode

A pipeline has no way into the middle of its loop. What it does between two steps depends on what the
scheduler returned alone, so a call that goes on after step k runs from its beginning with the same seed,
while the denoiser does no work and the scheduler returns what it was given; at step k the scheduler returns
what it returned then, with the memory that it had then, and the generator stands where it stood. From there
on every bit is that of an uninterrupted call. The kept state of the last step leaves only the decoder to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import NumericError
from kinema.pipelines.foreign.estimate import Look
from kinema.pipelines.memory import Memory, Snapshot
from kinema.pipelines.render import LATENTS

STEPS = "steps"
"""Name under which a plan's memory has the state between two steps."""

_DTYPES = {str(kind): kind for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64)}
_CONFIG = "_internal_dict"  # diffusers' configuration of a scheduler, which never changes


class Nothing(tuple[Any, ...]):
    """What a denoiser says that was not asked: read as a tuple or by its attribute."""

    @property
    def sample(self) -> Tensor:
        """Its only entry."""
        found: Tensor = self[0]
        return found


@dataclass(eq=False)
class Walk:
    """One call on its way through its steps.

    Attributes:
        pipe: whose call it is.
        generator: what the call draws from.
        on_progress: called after every step; raise from it to stop.
        memory: where the state after each step is left.
        found: the state to go on from; None for the beginning.
        look: sees the clean estimate after a step.
        index: how many steps are behind.
    """

    pipe: Any
    generator: torch.Generator
    on_progress: OnProgress
    memory: Memory
    found: Snapshot | None
    look: Look
    index: int = 0
    _seen: Tensor | None = None
    _said: tuple[list[int], str] | None = None
    _before: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Steps that an earlier process took."""
        return 0 if self.found is None else int(self.found.facts["step"])

    @property
    def steps(self) -> int:
        """How many the call has."""
        return int(getattr(self.pipe, "num_timesteps", 0) or len(self.pipe.scheduler.timesteps))

    def denoised(self, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The denoiser's answer, or nothing of the right shape for a step that was taken before."""
        if self.index < self.done:
            assert self.found is not None
            shape, dtype = self.found.facts["shape"], _DTYPES[self.found.facts["dtype"]]
            device = next(v.device for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            return Nothing((torch.zeros(shape, dtype=dtype, device=device),))
        answer = own(*args, **kwargs)
        said: Tensor = answer[0]
        self._said = (list(said.shape), str(said.dtype))
        self._seen = kwargs.get("hidden_states")
        return answer

    def stepped(self, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's answer: its own, or the one that it gave before."""
        bound = inspect.signature(own).bind(*args, **kwargs)
        if not self.index:
            self._before = dict(vars(self.pipe.scheduler))
        sample: Tensor = bound.arguments["sample"]
        if self.index < self.done:
            return self._again(sample)
        if "generator" in inspect.signature(own).parameters:
            bound.arguments.setdefault("generator", self.generator)
        answer = own(*bound.args, **bound.kwargs)
        self.index += 1
        self._keep(answer, bound.arguments)
        return answer

    def _again(self, sample: Tensor) -> Any:
        assert self.found is not None
        self.index += 1
        facts, tensors = self.found.facts, self.found.tensors
        if self.index < self.done:
            return _answer([sample] * int(facts["parts"]), facts["names"])
        state = {name: _decoded(value, tensors, sample) for name, value in facts["scheduler"].items()}
        vars(self.pipe.scheduler).update(state)
        self.generator.set_state(tensors["generator"])
        self._said = (facts["shape"], facts["dtype"])
        self.on_progress(Progress("denoise", self.index, self.steps, clean=tensors.get(LATENTS)))
        parts = [tensors[f"answer.{i}"].to(sample.device) for i in range(int(facts["parts"]))]
        return _answer(parts, facts["names"])

    def _keep(self, answer: Any, given: Mapping[str, Any]) -> None:
        names = None if isinstance(answer, tuple) else list(answer.keys())
        parts = list(answer) if names is None else [answer[name] for name in names]
        if not bool(torch.isfinite(parts[0]).all()):
            raise NumericError(
                f"the latents are not finite after step {self.index} of {self.steps}; run with --dtype "
                "float32 or bfloat16, or with less guidance."
            )
        clean_BCTYX = self.look(self.pipe.scheduler, given, parts, self._seen)
        snapshot = self._snapshot(parts, names, clean_BCTYX)
        if self.index == self.steps:
            self.memory.settle(STEPS, snapshot)
        else:
            self.memory.offer(STEPS, lambda: snapshot)
        self.on_progress(Progress("denoise", self.index, self.steps, clean=clean_BCTYX))

    def _snapshot(
        self, parts: Sequence[Tensor], names: list[str] | None, clean_BCTYX: Tensor | None
    ) -> Snapshot:
        """The state now; what the scheduler holds is copied, since it moves its lists in place."""
        assert self._said is not None, "a step follows an answer of the denoiser"
        tensors = {f"answer.{i}": part.detach().clone() for i, part in enumerate(parts)}
        tensors["generator"] = self.generator.get_state()
        scheduler = {}
        for name, value in vars(self.pipe.scheduler).items():
            unchanged = isinstance(value, Tensor) and value is self._before.get(name)
            if name not in (_CONFIG, "step") and not unchanged and _is_plain(value):
                scheduler[name] = _encoded(value, f"scheduler.{name}", tensors)
        shape, dtype = self._said
        facts = {"step": self.index, "parts": len(parts), "names": names, "shape": shape, "dtype": dtype}
        if clean_BCTYX is None:
            return Snapshot(tensors, {**facts, "scheduler": scheduler})
        guess = self.look.sampled(clean_BCTYX).snapshot()
        return Snapshot({**tensors, **guess.tensors}, {**facts, "scheduler": scheduler, **guess.facts})


@contextmanager
def watched(
    pipe: Any,
    denoiser: nn.Module,
    generator: torch.Generator,
    on_progress: OnProgress,
    memory: Memory,
    look: Look,
) -> Iterator[None]:
    """The steps of the one call inside the block go through a `Walk`.

    Args:
        pipe: whose call it is, with a scheduler of its own.
        denoiser: the part that it calls in every step.
        generator: what the call is given.
        on_progress: called after every step; raise from it to stop.
        memory: where to go on, and where to leave the state.
        look: sees the clean estimate after a step.
    """
    walk = Walk(pipe, generator, on_progress, memory, memory.recall(STEPS), look)
    own_step, own_forward = pipe.scheduler.step, denoiser.forward
    hooked = "forward" in vars(denoiser)

    @wraps(own_step)
    def step(*args: Any, **kwargs: Any) -> Any:
        return walk.stepped(own_step, args, kwargs)

    @wraps(own_forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return walk.denoised(own_forward, args, kwargs)

    pipe.scheduler.step, denoiser.forward = step, forward
    try:
        yield
    finally:
        del pipe.scheduler.step
        if hooked:
            denoiser.forward = own_forward
        else:
            del denoiser.forward


def _answer(parts: Sequence[Tensor], names: Sequence[str] | None) -> Any:
    """What a scheduler returned, in the form in which it was asked for it."""
    return tuple(parts) if names is None else SimpleNamespace(**dict(zip(names, parts, strict=True)))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def _encoded(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A plain value as JSON; tensors go to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name, "cpu": value.device.type == "cpu"}
    if isinstance(value, list | tuple):
        return [_encoded(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]
    return value


def _decoded(value: Any, tensors: Mapping[str, Tensor], like: Tensor) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]].to("cpu" if value["cpu"] else like.device)
    if isinstance(value, list):
        return [_decoded(part, tensors, like) for part in value]
    return value
