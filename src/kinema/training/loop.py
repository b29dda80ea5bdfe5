"""Training runs: two optimisers under one schedule, averaged weights, checkpoints that resume bit for bit.

A checkpoint is one safetensors file: weights, averages, optimiser moments and, in its header, the step.
Data and noise are drawn from generators named by (seed, step), so nothing else has to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kinema.core.errors import ConfigError, ModelError
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
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Iterable[str],
        settings: OptimiserSettings,
        *,
        steps: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.settings, self.steps, self.step = model, settings, steps, 0
        self.ranks = ranks
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
        """Write everything that `load` needs, under a temporary name first; all processes call it."""
        moments = dict(self._moments())
        if not self.ranks.leads:
            return
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"{AVERAGE}{k}": v for k, v in self.average.items()}
        tensors |= moments
        part = path.with_suffix(".part")
        save_file(
            {k: v.contiguous() for k, v in tensors.items()}, part, {"state": json.dumps({"step": self.step})}
        )
        part.replace(path)

    def load(self, path: Path, *, moments: bool = True) -> None:
        """Go on from a checkpoint; without `moments`, only its averaged weights are taken, for a new run.

        Raises:
            ModelError: the checkpoint is of a model of another shape; nothing has been changed then.
        """
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            state = json.loads(file.metadata()["state"])
        prefix = "model/" if moments else AVERAGE
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self._check_fit(path, weights, whole=moments)
        self.model.load_state_dict(weights, strict=False)
        for name, p in self.model.named_parameters():
            self.average[name].copy_(tensors.get(f"{AVERAGE}{name}", p.detach()))
        if moments:
            self.step = state["step"]
            self._restore(tensors)

    def begin(self, weights: dict[str, Tensor], origin: Path) -> None:
        """Start a new run from finished weights, such as those of a packed model.

        Raises:
            ModelError: they are of a model of another shape; nothing has been changed then.
        """
        self._check_fit(origin, weights, whole=True)
        self.model.load_state_dict(weights)
        for name, p in self.model.named_parameters():
            self.average[name].copy_(p.detach())

    def _check_fit(self, path: Path, weights: dict[str, Tensor], *, whole: bool) -> None:
        own = self.model.state_dict()
        wrong = [name for name, w in weights.items() if name not in own or own[name].shape != w.shape]
        wrong += [name for name in own if whole and name not in weights]
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
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
