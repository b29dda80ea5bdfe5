"""Training runs: two optimisers under one schedule, averaged weights, checkpoints that resume bit for bit.

A checkpoint is one safetensors file: weights, averages, optimiser moments and, in its header, the step.
Data and noise are drawn from generators named by (seed, step), so nothing else has to be kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.errors import ConfigError, ModelError, NumericError
from kinema.training.files import read_tensors, whole, write_tensors
from kinema.training.ranks import ALONE, Ranks

MUON = "momentum_buffer"  # what Muon remembers of a matrix
AVERAGE = "average/"  # before the names of averaged weights in a checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserSettings:
    """Rates of the two optimisers and the shape of their schedule.

    Attributes:
        matrix_rate: peak rate of Muon, which moves the matrices inside the blocks.
        rate: peak rate of AdamW, which moves everything else.
        warmup: steps of linear rise.
        decay: share of all steps, at the end, over which the rates fall linearly to a hundredth.
        average: decay of the averaged weights.
        clip: largest norm of the gradient.
    """

    matrix_rate: float = 2e-2
    rate: float = 1e-3
    warmup: int = 50
    decay: float = 0.4
    average: float = 0.999
    clip: float = 1.0

    def __post_init__(self) -> None:
        ranges = {"matrix_rate": 1e3, "rate": 1e3, "warmup": 1e9, "decay": 1.0, "average": 1.0, "clip": 1e9}
        for name, most in ranges.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is outside 0..{most:g}; choose one inside."
                )

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak rate to use at `step` of `steps`."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = (steps - step) / max(1.0, self.decay * steps)
        return rise * max(0.01, min(1.0, left))


def optimisers(
    model: nn.Module, matrices: Iterable[str], settings: OptimiserSettings, ranks: Ranks = ALONE
) -> list[torch.optim.Optimizer]:
    """Muon for this process's share of the parameters named in `matrices`, AdamW for the rest.

    Muon: https://kellerjordan.github.io/posts/muon.
    """
    chosen = set(matrices)
    muon = ranks.own([p for name, p in model.named_parameters() if name in chosen])
    rest = [p for name, p in model.named_parameters() if name not in chosen]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.0)
    ]
    if muon:
        found.append(torch.optim.Muon(muon, lr=settings.matrix_rate, weight_decay=0.0))
    return found


class Trainer:
    """A model, its optimisers and its average, moved one step at a time.

    Args:
        model: trained in place.
        matrices: names of the parameters for Muon.
        settings: rates and schedule.
        steps: length of the whole run; the schedule depends on it.
        ranks: the processes that take every step together.
        facts: what checkpoints say of the run beside its step: JSON values by name.
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Iterable[str],
        settings: OptimiserSettings,
        *,
        steps: int,
        ranks: Ranks = ALONE,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.settings, self.steps, self.step = model, settings, steps, 0
        self.ranks, self.facts = ranks, dict(facts or {})
        chosen = set(matrices)
        self.optimisers = optimisers(model, chosen, settings, ranks)
        self.shared_out = [p for name, p in model.named_parameters() if name in chosen]
        self.peaks = [group["lr"] for opt in self.optimisers for group in opt.param_groups]
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, loss: Tensor) -> Tensor:
        """Back-propagate and move; returns the norm of the gradient before clipping."""
        factor = self.settings.factor(self.step, self.steps)
        groups = [group for opt in self.optimisers for group in opt.param_groups]
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        torch.autograd.backward(loss)
        self.ranks.mean(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.model.zero_grad(set_to_none=True)
        self.ranks.exchange(self.shared_out)
        self.step += 1
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), self._own(), 1 - decay)
        return norm

    def _own(self) -> list[Tensor]:
        """The parameters in the order of the averages."""
        own = dict(self.model.named_parameters())
        return [own[name] for name in self.average]

    def save(self, path: Path) -> None:
        """Write everything that `load` needs, whole or not at all; all processes call it.

        Raises:
            NumericError: the weights are no longer finite; the checkpoint before stays.
            MediaError: it cannot be written; the checkpoint before stays.
        """
        if not all(bool(average.isfinite().all()) for average in self.average.values()):
            kept = f"{path} keeps those of an earlier step" if path.exists() else "nothing was saved"
            raise NumericError(
                f"step {self.step}: the weights are no longer finite, and {kept}; lower the stage's rates."
            )
        moments = dict(self._moments())
        if not self.ranks.leads:
            return
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"{AVERAGE}{k}": v for k, v in self.average.items()}
        write_tensors(path, tensors | moments, {**self.facts, "step": self.step})

    def load(self, path: Path, *, moments: bool = True) -> dict[str, Any]:
        """Go on from a checkpoint; without `moments`, only its averaged weights are taken, for a new run.

        Returns:
            The facts of the run that wrote it, and its step.

        Raises:
            ModelError: the checkpoint is damaged, or of a model of another shape; nothing has been changed
                then.
        """
        tensors, state = read_tensors(path)
        prefix = "model/" if moments else AVERAGE
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        # Averages cover the parameters alone; what else a model keeps is computed, or stays as it is.
        own = self.model.state_dict() if moments else dict(self.model.named_parameters())
        self._check_fit(path, weights, own)
        self.model.load_state_dict(weights, strict=False)
        for name, p in self.model.named_parameters():
            self.average[name].copy_(tensors.get(f"{AVERAGE}{name}", p.detach()))
        if moments:
            self.step = state["step"]
            self._restore(tensors)
        return state

    def begin(self, weights: dict[str, Tensor], origin: Path) -> None:
        """Start a new run from finished weights, such as those of a packed model.

        Raises:
            ModelError: they are of a model of another shape; nothing has been changed then.
        """
        self._check_fit(origin, weights, self.model.state_dict())
        self.model.load_state_dict(weights)
        for name, p in self.model.named_parameters():
            self.average[name].copy_(p.detach())

    def _check_fit(self, path: Path, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        wrong = [name for name, w in weights.items() if name not in own or own[name].shape != w.shape]
        wrong += [name for name in own if name not in weights]
        if wrong:
            raise ModelError(
                f"{path} does not fit this model: {len(wrong)} weights differ, {wrong[0]!r} first; use the "
                "configuration that it was trained with."
            )

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """The optimisers' memories, by a parameter's number among all of an optimiser's."""
        for index, values in self.optimisers[0].state_dict()["state"].items():
            for key, value in values.items():
                yield f"moment/0/{index}/{key}", value
        if self.shared_out and self.step:
            own = self.optimisers[1].state if len(self.optimisers) > 1 else {}
            every = [own[p][MUON] if p in own else torch.zeros_like(p) for p in self.shared_out]
            self.ranks.exchange(every)
            for index, value in enumerate(every):
                yield f"moment/1/{index}/{MUON}", value

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for i, optimiser in enumerate(self.optimisers):
            groups = optimiser.state_dict()["param_groups"]
            # Those of Muon are shared out in turn.
            places = {self.ranks.batch(n) if i else n: n for group in groups for n in group["params"]}
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"moment/{i}/"):
                    _, _, place, name = key.split("/")
                    if int(place) in places:
                        state.setdefault(places[int(place)], {})[name] = value
            optimiser.load_state_dict({"state": state, "param_groups": groups})


class Log:
    """One line of JSON per report, appended to `metrics.jsonl`, so that curves can be drawn from any run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"

    def write(self, **values: float | int | str | list[float]) -> None:
        """Append one report."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def go_on(self, step: int, stage: str | None = None) -> None:
        """Forget what a sitting that was killed reported beyond its last checkpoint, and half a line.

        Args:
            step: of the checkpoint that the run goes on from; 0 for one that begins.
            stage: as in the reports, which other stages may have too.
        """
        kept = [e for e in entries(self.path) if e.get("stage") != stage or e["step"] <= step]
        if self.path.exists():
            with whole(self.path) as part:
                part.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")


def entries(log: Path) -> list[dict[str, Any]]:
    """The reports of a `metrics.jsonl`, in order; a line that a killed process left is passed over."""
    if not log.exists():
        return []  # a run of a few steps has reported nothing
    found = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict) and "step" in values and "loss" in values:
                found.append(values)
    return found
