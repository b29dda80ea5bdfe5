"""The calls that users make: `load`, `render`, `generate`."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.core.contracts import OnProgress, Progress, Record
from kinema.io.clip import Clip
from kinema.pipelines.cards import local_folder
from kinema.pipelines.compose import compose
from kinema.pipelines.hashes import cached_hashes
from kinema.pipelines.job import Job, make_job
from kinema.pipelines.model import Model, load
from kinema.pipelines.modes import render_plan
from kinema.pipelines.plan import Plan
from kinema.pipelines.source import read_request
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

__all__ = ["generate", "load", "render", "stream"]


def generate(prompt: str | dict[Any, str], *, on_progress: OnProgress | None = None, **fields: Any) -> Clip:
    """Make a clip from a prompt.

    Args:
        prompt: a text, or texts by frame: `{0: "a fox", 24: "a wolf"}`.
        on_progress: called with `Progress` events; raise from it to stop.
        **fields: any field of `Shot`, and `model` as a name or as what `load` returned.

    Returns:
        A `Clip` with frames uint8 `[F, H, W, 3]` and its latents.
    """
    loaded = fields.pop("model", "embedded")
    name = loaded.card.id if isinstance(loaded, Model) else loaded
    shot = Shot.from_mapping({"prompt": prompt, "model": name, **fields})
    return render(shot, model=loaded if isinstance(loaded, Model) else None, on_progress=on_progress)


def render(
    request: Shot | Storyboard | str | Path,
    *,
    model: Model | None = None,
    on_progress: OnProgress | None = None,
) -> Clip:
    """Render a shot, a storyboard, a shot file, or a clip from its record, into memory.

    Args:
        request: what to render.
        model: loaded already; else what the request names is loaded.
        on_progress: called with `Progress` events; raise from it to stop.
    """
    clip = stream(make_job(_request(request)), model=model, on_progress=on_progress)
    clip.array()
    return clip


def _request(request: Shot | Storyboard | str | Path) -> Shot | Storyboard:
    return read_request(request) if isinstance(request, str | Path) else request


def stream(
    job: Job, *, model: Model | None = None, on_progress: OnProgress | None = None, keep_record: bool = True
) -> Clip:
    """A clip whose frames are made as they are drawn: nothing is loaded before the first one is asked for.

    A writer can therefore check its target first, and memory does not grow with length.
    """
    models = {} if model is None else {model.card.id: model}
    record = Record(job.shot, identity(job, models), versions()) if keep_record else None
    clip = Clip(iter(()), Fraction(job.fps), record, count=job.length, size=(job.width, job.height))
    clip.audio = job.audio
    shots = Shots(job, clip, models, on_progress or (lambda _: None))
    clip.frames = compose(
        map(shots.frames, range(len(job.plans))),
        job.joins,
        job.end,
        size=(job.width, job.height),
        fits=tuple(plan.given.fit for plan in job.plans) if job.canvas else None,
    )
    return clip


def identity(job: Job, models: Mapping[str, Model]) -> dict[str, Any]:
    """Which weights a job uses: id and hash of every file, of the one model or of each by name."""
    found = {
        name: {
            "id": name,
            "files": cached_hashes(models[name].card.folder if name in models else local_folder(card)),
        }
        for name, card in job.cards.items()
    }
    return found[next(iter(found))] if len(found) == 1 else found


@dataclass(eq=False)
class Shots:
    """The shots of a job, rendered one after the other as their frames are drawn.

    Attributes:
        job: what is rendered.
        whole: the clip that is told the latents of the last shot.
        models: those in memory, by name.
        on_progress: called with events that say which shot they are of.
        previous: the shot before: its latents, and the last frames that the next one asks for.
    """

    job: Job
    whole: Clip
    models: dict[str, Model]
    on_progress: OnProgress
    previous: Clip | None = field(default=None, init=False)

    def frames(self, index: int) -> Iterator[np.ndarray]:
        """The frames of one shot; nothing is loaded or sampled before the first is asked for."""
        plan = self.job.plans[index]

        def report(event: Progress) -> None:
            self.on_progress(replace(event, shot=index + 1, shots=len(self.job.plans)))

        part = render_plan(plan, self._model(plan, report), previous=self.previous, on_progress=report)
        kept: deque[np.ndarray] = deque(maxlen=self._wanted(index + 1))
        for frame in part:
            kept.append(frame)
            yield frame
        self.whole.latents = part.latents
        self.previous = replace(part, frames=np.stack(list(kept))) if kept else None

    def _model(self, plan: Plan, on_progress: OnProgress) -> Model:
        """The model of a plan; one is in memory at a time."""
        if plan.model not in self.models:
            on_progress(Progress("load", 0, 1))
            self.models.clear()
            self.models[plan.model] = load(
                plan.model, device=plan.device, dtype=plan.dtype, card=self.job.cards[plan.model]
            )
            on_progress(Progress("load", 1, 1))
        return self.models[plan.model]

    def _wanted(self, index: int) -> int:
        """How many frames a shot asks for of the one before: its end, or its last frame."""
        if index >= len(self.job.plans):
            return 0
        g = self.job.plans[index].geometry
        return 1 + g.time * (2 * g.context - 1) if g.context else 1


def versions() -> dict[str, str]:
    """What a record says of the software: changing any of these may change bits."""
    from kinema.core.version import VERSION

    return {"kinema": VERSION, "torch": torch.__version__, "python": platform.python_version()}
