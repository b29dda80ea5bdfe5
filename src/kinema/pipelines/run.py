"""The calls that users make: `load`, `render`, `generate`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from kinema.core.contracts import OnProgress, Progress, Record
from kinema.core.errors import KinemaError, ResourceError
from kinema.core.runtime import out_of_memory
from kinema.io.atomic import TakenError
from kinema.io.clip import Clip, SaveOptions
from kinema.io.live import Draft, Live, live_path
from kinema.io.video_write import check_output
from kinema.pipelines.compose import compose
from kinema.pipelines.durable.key import identity, versions
from kinema.pipelines.durable.opening import StateOptions, earlier, opened, seeded
from kinema.pipelines.durable.pace import Every, Pace
from kinema.pipelines.durable.plan import Place
from kinema.pipelines.durable.state import Keep
from kinema.pipelines.job import Job, make_job
from kinema.pipelines.loading import AnyModel, load
from kinema.pipelines.memory import FORGETFUL
from kinema.pipelines.model import Decoder, Model, load_vae
from kinema.pipelines.modes import render_plan
from kinema.pipelines.plan import Plan
from kinema.pipelines.post import finished
from kinema.pipelines.render import LATENTS, Sampled, clip_of, decode_plan
from kinema.pipelines.residency.fit import Fits, arrangements, tell
from kinema.pipelines.shot_files import OnShot, shot_files
from kinema.pipelines.source import read_request
from kinema.pipelines.upscale import told, upscaled
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

__all__ = ["generate", "load", "render", "stream", "write"]
_log = logging.getLogger("kinema")


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
    name = loaded.card.id if isinstance(loaded, AnyModel) else loaded
    if isinstance(loaded, AnyModel):
        fields.setdefault("weights", loaded.weights)
    shot = Shot.from_mapping({"prompt": prompt, "model": name, **fields})
    return render(shot, model=loaded if isinstance(loaded, AnyModel) else None, on_progress=on_progress)


def render(
    request: Shot | Storyboard | str | Path,
    *,
    model: AnyModel | None = None,
    on_progress: OnProgress | None = None,
    out: str | Path | None = None,
    state_dir: str | Path | Literal[False] | None = None,
    checkpoint_every: str | int | None = None,
    live: bool = False,
    memory: str = "auto",
    **save: Unpack[SaveOptions],
) -> Clip:
    """Render a shot, a storyboard, a shot file, or a clip from its record, into memory or into a file.

    A render into a file keeps its state in a hidden folder beside it until it is done. Whatever cuts it off,
    the same call goes on where that was and gives the same bytes.

    Args:
        request: what to render.
        model: loaded already, and that of shots that name none; else what the request names is loaded.
        on_progress: called with `Progress` events; what it raises stops the render, whose state is then kept.
        out: the file to make; None for a clip in memory, which keeps no state without a `state_dir`.
        state_dir: another folder for the state, of this render alone; False to keep none.
        checkpoint_every: how often a state is kept: 5 (steps), "30s", "10min"; by default as often as costs
            less than 1% of the time.
        live: also write a draft that can be watched meanwhile, `fox.mp4.live.mp4` beside `fox.mp4`.
        memory: what of a model is in memory at a time: `auto` (the fastest that fits), `whole`, `component`,
            `block` or `low`; the pixels are the same.
        **save: how the file is written; see `Clip.save`.

    Returns:
        The clip; with `out`, as it is read from the file.
    """
    request = read_request(request) if isinstance(request, str | Path) else request
    request = request if model is None else _on(model, request)
    folder = Path(state_dir) if state_dir else None
    state = StateOptions(folder=folder, every=Every.parse(checkpoint_every), off=state_dir is False)
    note = save.get("on_note") or _log.warning
    target = None if out is None else Path(out)
    if state.off or (target is None and folder is None):
        before = None
    else:
        before = earlier(request, state, target, note)
    job = make_job(request if before is None else seeded(request, before.seeds))
    if target is None:
        return _in_memory(job, request, state, model, on_progress, note, memory)
    write(
        job,
        target,
        request=request,
        state=state,
        model=model,
        on_progress=on_progress,
        live=live,
        memory=memory,
        options={name: save[name] for name in ("overwrite", "sidecar", "quality", "codec") if name in save},
        **save,
    )
    return Clip.open(target, still_fps=Fraction(job.fps))


def _on(model: AnyModel, request: Shot | Storyboard) -> Shot | Storyboard:
    """The request with a loaded model where it names none."""

    def named(shot: Shot) -> Shot:
        if "model" in shot.model_fields_set:
            return shot
        weights = shot.weights if "weights" in shot.model_fields_set else model.weights
        return shot.with_(model=model.card.id, weights=weights)

    if isinstance(request, Shot):
        return named(request)
    return request.with_(shots=tuple(map(named, request.shots)))


def _in_memory(
    job: Job,
    request: Shot | Storyboard,
    state: StateOptions,
    model: AnyModel | None,
    on_progress: OnProgress | None,
    note: Callable[[str], None],
    memory: str,
) -> Clip:
    fits = arrangements(job.plans, job.cards, memory, {} if model is None else {model.card.id: model})
    tell(fits, note)
    if state.folder is None:
        clip = stream(job, model=model, on_progress=on_progress, fits=fits)
        clip.array()
        return clip
    models = {} if model is None else {model.card.id: model}
    with opened(job, None, request=request, state=state, options={}, models=models, note=note) as keep:
        assert keep is not None
        clip = stream(job, model=model, on_progress=on_progress, keep=keep, fits=fits)
        clip.array()
        keep.discard()
    return clip


def stream(
    job: Job,
    *,
    model: AnyModel | Mapping[str, AnyModel] | None = None,
    on_progress: OnProgress | None = None,
    keep_record: bool = True,
    keep: Keep | None = None,
    on_shot: OnShot | None = None,
    fits: Fits | None = None,
) -> Clip:
    """A clip whose frames are made as they are drawn: nothing is loaded before the first one is asked for.

    A writer can therefore check its target first, and memory does not grow with length. `model` is one that
    is loaded already, or several by name. With `keep` the frames can be drawn more than once: what was made
    before is read, and the rest made. Each shot's frames go through `on_shot`, with its index, if given.
    `fits` says what of each model is in memory at a time; by default the fastest that fits.
    """
    models = {model.card.id: model} if isinstance(model, AnyModel) else dict(model or {})
    fits = arrangements(job.plans, job.cards, "auto", models) if fits is None else fits
    happened: dict[str, Any] = {}
    record = Record(job.shot, identity(job, models), versions(), run=happened) if keep_record else None
    clip = Clip(iter(()), Fraction(job.fps), record, count=job.length, size=(job.width, job.height))
    clip.audio = job.audio

    def draw() -> Iterator[np.ndarray]:
        shots = Shots(job, clip, models, remembering(happened, on_progress), keep, fits)
        made = map(shots.frames, range(len(job.plans)))
        composed = compose(
            made if on_shot is None else map(on_shot, range(len(job.plans)), made),
            job.joins,
            job.end,
            size=job.made_size,
            fits=tuple(plan.given.fit for plan in job.plans) if job.canvas else None,
        )
        device = job.plans[0].device
        frames = finished(composed, job.post, job.composed, device)
        return upscaled(frames, job.upscale, device, told(on_progress, job.length))

    clip.frames = draw() if keep is None else keep.frames(draw)
    return clip


def remembering(happened: dict[str, Any], on_progress: OnProgress | None) -> OnProgress:
    """A listener that writes down what a record tells of the run, once, and passes events on."""

    def listen(event: Progress) -> None:
        if event.note is not None:
            notes = happened.setdefault("notes", [])
            line = event.note if event.shots == 1 else f"shot {event.shot}: {event.note}"
            if line not in notes:
                notes.append(line)
        if on_progress is not None:
            on_progress(event)

    return listen


def write(
    job: Job,
    out: Path,
    *,
    request: Shot | Storyboard,
    state: StateOptions | None = None,
    model: AnyModel | None = None,
    on_progress: OnProgress | None = None,
    keep_record: bool = True,
    live: bool = False,
    memory: str = "auto",
    options: Mapping[str, Any] | None = None,
    shots_dir: Path | None = None,
    **save: Unpack[SaveOptions],
) -> Pace | None:
    """Render a job into a file; cut off at any point, the same call goes on where that was.

    Args:
        job: what is rendered, with the seeds that an earlier process drew for the same request.
        out: the file; see `Clip.save` for the other settings of its writing.
        request: what the job was made of.
        state: where and how often its state is kept.
        model: loaded already.
        on_progress: called with events; what it raises stops the render, whose state is then kept.
        keep_record: whether the file tells how it was made.
        live: whether a draft beside the file shows the frames so far.
        memory: what of a model is in memory at a time; see `render`.
        options: JSON values that whoever resumes wants to know.
        shots_dir: a folder for one more file of each shot, before transitions.

    Returns:
        What keeping the state has cost; None when none was kept.

    Raises:
        BusyError: another process is writing this file.
        TakenError: the target has appeared meanwhile; the file has another name, which the message tells.
        MediaError: the target cannot be, or a file is in the draft's way.
        ResourceError: there is not enough memory, whatever is left out of it.
    """
    check_output(
        out,
        fps=job.fps,
        frames=job.length,
        overwrite=True,  # what is there may be this render's own; the writer looks at it
        quality=save.get("quality", "high"),
        codec=save.get("codec"),
        sidecar=keep_record and save.get("sidecar", False),
    )
    note = save.get("on_note") or _log.warning
    models = {} if model is None else {model.card.id: model}
    fits = arrangements(job.plans, job.cards, memory, models)
    tell(fits, note)
    state = state or StateOptions()
    with opened(
        job, out, request=request, state=state, options=options or {}, models=models, note=note
    ) as keep:
        if keep is not None and keep.finished:
            keep.discard()
            return keep.pace
        draft = _draft(out, keep) if live else None
        clip = stream(
            job,
            model=model,
            on_progress=on_progress,
            keep_record=keep_record,
            keep=keep,
            fits=fits,
            on_shot=None if shots_dir is None else _each_shot(job, shots_dir, out, save, keep),
        )
        if draft is not None:
            clip.frames = Live(clip.frames, draft, Fraction(job.fps), note)
            note(f"{draft.path} shows the frames so far.")
        try:
            clip.save(out, **_claimed(save, out, keep))
        except TakenError:  # the file is whole all the same, under another name
            _clear(keep, draft)
            raise
        _clear(keep, draft)
        return None if keep is None else keep.pace


def _draft(out: Path, keep: Keep | None) -> Draft:
    """The draft of an output; `MediaError` when something else has its name."""
    path = live_path(out)
    draft = Draft(path) if keep is None else keep.draft(path)
    draft.check()
    return draft


def _claimed(save: SaveOptions, out: Path, keep: Keep | None) -> SaveOptions:
    """How a claimed output is written; what an earlier process of its render has published is replaced."""
    if keep is not None:
        ours = keep.owns(out, sidecar=save.get("sidecar", False))
        save["overwrite"] = save.get("overwrite", False) or ours
        save["on_ready"] = keep.publishing
    save["claimed"] = True
    return save


def _clear(keep: Keep | None, draft: Draft | None) -> None:
    """Remove what was kept for a file that is there now."""
    if keep is not None:
        keep.discard()
    elif draft is not None:
        draft.remove()


def _each_shot(job: Job, folder: Path, out: Path, save: SaveOptions, keep: Keep | None) -> OnShot:
    """Files of shots; those that an earlier process of this render has made may be replaced."""
    overwrite, quality = save.get("overwrite", False), save.get("quality", "high")
    if keep is None:
        return shot_files(job, folder, out.suffix, overwrite=overwrite, quality=quality)
    return shot_files(
        job,
        folder,
        out.suffix,
        overwrite=lambda path: overwrite or keep.owns_shot(path),
        quality=quality,
        on_ready=keep.publishing_shot,
    )


@contextmanager
def _told_of_memory(plan: Plan) -> Iterator[None]:
    """Turn every way of running out of memory into one line."""
    g = plan.geometry
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, KinemaError) or not out_of_memory(error):
            raise
        raise ResourceError(
            f"there is not enough memory for {g.width}x{g.height} and {g.frames} frames; make it smaller or "
            "shorter, use dtype bfloat16 or memory low, or close other programs."
        ) from error


@dataclass(eq=False)
class Shots:
    """The shots of a job, rendered one after the other as their frames are drawn.

    Attributes:
        job: what is rendered.
        whole: the clip that is told the latents of the last shot.
        models: those in memory, by name.
        on_progress: called with events that say which shot they are of.
        keep: where their state is kept; None for nowhere.
        fits: what of each model is in memory at a time.
        previous: the shot before: its latents, and the last frames that the next one asks for.
    """

    job: Job
    whole: Clip
    models: dict[str, AnyModel]
    on_progress: OnProgress
    keep: Keep | None = None
    fits: Fits = field(default_factory=dict)
    previous: Clip | None = field(default=None, init=False)

    def frames(self, index: int) -> Iterator[np.ndarray]:
        """The frames of one shot; nothing is loaded or sampled before the first is asked for."""
        plan = self.job.plans[index]
        place = None if self.keep is None else self.keep.place(index)

        def report(event: Progress) -> None:
            if place is None or event.note is None or place.notes.tell(event.note):
                self.on_progress(replace(event, shot=index + 1, shots=len(self.job.plans)))

        for text in () if place is None else place.notes.kept:  # a process that has not seen it happen
            report(Progress("denoise", 1, 1, note=text))
        kept: deque[np.ndarray] = deque(maxlen=self._wanted(index + 1))
        with _told_of_memory(plan):
            part = self._part(plan, place, report)
            for frame in part if place is None else place.keep(part, report):
                kept.append(frame)
                yield frame
        self.whole.latents = part.latents
        self.previous = replace(part, frames=np.stack(list(kept))) if kept else None

    def _part(self, plan: Plan, place: Place | None, on_progress: OnProgress) -> Clip:
        """One shot; of what its place keeps, nothing is made again."""
        if place is not None:
            found = place.recall(LATENTS)
            sampled = None if found is None else Sampled.of(found)
            # frames drawn one after the other, or by another pipeline, leave no latents to the next shot
            drawn = plan.redraw is not None or self.job.cards[plan.model].family == "foreign"
            if place.complete and (sampled is not None or drawn):
                return clip_of(plan, sampled, iter(()))
            if sampled is not None:
                return decode_plan(plan, self._vae(plan, on_progress), sampled, on_progress)
        model = self._model(plan, on_progress)
        memory = FORGETFUL if place is None else place
        return render_plan(plan, model, previous=self.previous, on_progress=on_progress, memory=memory)

    def _vae(self, plan: Plan, on_progress: OnProgress) -> Decoder:
        """The decoder of a plan, without the rest of its model where that is not in memory."""
        if plan.model in self.models:
            model = self.models[plan.model]
            assert isinstance(model, Model), "only a video model's latents are kept"
            return model.vae
        on_progress(Progress("load", 0, 1))
        vae = load_vae(self.job.cards[plan.model], device=plan.device)
        on_progress(Progress("load", 1, 1))
        return vae

    def _model(self, plan: Plan, on_progress: OnProgress) -> AnyModel:
        """The model of a plan; one is in memory at a time."""
        if plan.model not in self.models or self.models[plan.model].weights != plan.weights:
            on_progress(Progress("load", 0, 1))
            self.models.clear()
            self.models[plan.model] = load(
                plan.model,
                device=plan.device,
                dtype=plan.dtype,
                card=self.job.cards[plan.model],
                weights=plan.weights,
                memory=self.fits[plan.model].tier,
                together=any(p.redraw is not None for p in self.job.plans if p.model == plan.model),
            )
            on_progress(Progress("load", 1, 1))
        return self.models[plan.model]

    def _wanted(self, index: int) -> int:
        """How many frames a shot asks for of the one before: its end, or its last frame."""
        if index >= len(self.job.plans):
            return 0
        g = self.job.plans[index].geometry
        return 1 + g.time * (2 * g.context - 1) if g.context else 1
