"""Finding the state that an earlier process left for a request, and claiming it.

A state belongs to a request if it was asked for with the same words, but for those on what is done to
finished frames; the seeds that were drawn then are its own. What may be taken from it is decided shot by
shot, by key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from kinema.core.errors import BusyError, ConfigError, MediaError
from kinema.io.hidden import lock_of, state_folder
from kinema.io.locks import LOCK_END, Lock
from kinema.pipelines.durable.key import NETWORK, made_with, plan_keys
from kinema.pipelines.durable.pace import Every
from kinema.pipelines.durable.state import Facts, Keep
from kinema.pipelines.job import Job, shot_frames
from kinema.pipelines.loading import AnyModel
from kinema.pipelines.plan import AFTERWARDS
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

Request = Shot | Storyboard
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class StateOptions:
    """Where and how often a render keeps its state.

    Attributes:
        folder: of this render alone; None for a hidden one beside the output.
        every: how often.
        off: keep none.
        only: refuse to begin anew what cannot be gone on with.
    """

    folder: Path | None = None
    every: Every = field(default_factory=Every)
    off: bool = False
    only: bool = False

    def place(self, out: Path | None) -> Path:
        """The state folder of an output, or of a clip in memory, for which it has to be given."""
        assert self.folder is not None or out is not None
        return self.folder or state_folder(cast("Path", out))


def asked(request: Request) -> dict[str, Any]:
    """A request as JSON values, to be compared."""
    values: dict[str, Any] = json.loads(json.dumps(request.to_mapping()))
    return {"shots": values} if isinstance(values, list) else values


def _sampled(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request its shots' own frames depend on."""
    kept = {name: value for name, value in asked.items() if name not in AFTERWARDS}
    if "shots" in kept:
        kept["shots"] = [_sampled(shot) if isinstance(shot, dict) else shot for shot in kept["shots"]]
    return kept


def seeded(request: Request, seeds: tuple[int, ...]) -> Request:
    """The request with the seeds that were drawn for it."""
    if isinstance(request, Shot):
        return request.with_(seed=seeds[0])
    shots = tuple(s.with_(seed=seed) for s, seed in zip(request.shots, seeds, strict=True))
    return request.with_(shots=shots)


def earlier(request: Request, state: StateOptions, out: Path | None, note: Note) -> Facts | None:
    """What a state folder keeps of this request; None, with a word where there is something else in it.

    Raises:
        ConfigError: a file is there.
        MediaError: nothing can be written there.
        BusyError: another process is rendering this request.
    """
    folder = state.place(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"state_dir={str(folder)!r} is a file; write a folder that may be new.")
    home = folder if folder.exists() else folder.parent
    if home.is_dir() and not os.access(home, os.W_OK):
        ways = "another folder" if state.folder is None else "another state folder, or keep none"
        raise MediaError(f"cannot write in {str(home)!r}; choose {ways}.")
    try:
        facts = Facts.read(folder)
    except ConfigError as error:
        note(f"{error} It is left out.")
        return None
    if facts is None:
        return None
    if _sampled(facts.asked) == _sampled(asked(request)):
        _at_rest(facts)
        return facts
    note(f"the state in {str(folder)!r} is of another request; this one begins anew.")
    return None


def _at_rest(facts: Facts) -> None:
    """Refuse what another process is still writing."""
    if facts.out is not None:
        try:
            with lock_of(Path(facts.out)):
                pass
        except BusyError:
            raise
        except MediaError:  # its folder is gone or shut: whoever wrote there does so no longer
            pass


def earlier_unnamed(request: Request, folder: Path, stem: str) -> Facts | None:
    """What an earlier process without a name for its output has left of this request in `folder`.

    Outputs that another process is writing at the moment are passed over.
    """
    for path in sorted(folder.glob(f".{_escaped(stem)}-s*.kinema")):
        with suppress(ConfigError, MediaError):
            facts = Facts.read(path)
            if (
                facts is not None
                and facts.out is not None
                and _sampled(facts.asked) == _sampled(asked(request))
            ):
                with lock_of(Path(facts.out)):
                    return facts
    return None


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


@contextmanager
def opened(
    job: Job,
    out: Path | None,
    *,
    request: Request,
    state: StateOptions,
    options: Mapping[str, Any],
    models: Mapping[str, AnyModel],
    note: Note,
) -> Iterator[Keep | None]:
    """Claim an output (None: a clip in memory) and its state for this process; None where none is kept.

    Raises:
        BusyError: another process has it.
    """
    with nullcontext() if out is None else lock_of(out):
        if state.off:
            yield None
            return
        folder = state.place(out)
        with nullcontext() if state.folder is None else _claim(folder):
            facts = Facts(
                asked=asked(request),
                seeds=tuple(plan.sampling.seed for plan in job.plans),
                out=None if out is None else str(out.absolute()),
                cwd=str(Path.cwd()),
                options=json.loads(json.dumps(dict(options))),
                keys=tuple(plan_keys(job, models)),
                frames=tuple(shot_frames(plan) for plan in job.plans),
                models=tuple(plan.model for plan in job.plans),
                fps=job.made_fps,
                made_with=json.loads(json.dumps(made_with(job, models))),
            )
            keep = Keep(folder, every=state.every, note=note)
            facts, renewed = _continued(facts, folder, state, note)
            keep.start(facts, renewed=renewed)
            try:
                yield keep
            finally:
                keep.close()


def _claim(folder: Path) -> Lock:
    if not folder.parent.is_dir():
        raise MediaError(f"the folder {str(folder.parent)!r} does not exist; make it, or choose another.")
    return Lock(folder.with_name(f".{folder.name}{LOCK_END}"), f"the state in {str(folder)!r}")


def _continued(facts: Facts, folder: Path, state: StateOptions, note: Note) -> tuple[Facts, bool]:
    """The facts with what an earlier process has drafted, and of this render published; a word where it is
    another.

    Beside them stands whether the folder has to say so now: its frames are those of this render, and what is
    done to them is not.
    """
    try:
        before = Facts.read(folder)
    except ConfigError:  # said already
        return facts, False
    if before is None:
        return facts, False
    facts = replace(facts, drafts=before.drafts)
    if _sampled(before.asked) != _sampled(facts.asked):
        return facts, False
    facts = replace(facts, shots=before.shots)
    same_network = before.made_with.get(NETWORK) == facts.made_with.get(NETWORK)
    if before.keys == facts.keys and before.asked == facts.asked and same_network:
        return replace(facts, published=before.published), False
    if before.asked != facts.asked:
        if before.keys == facts.keys:
            note(f"the frames kept in {str(folder)!r} are taken; what is done to them is another thing now.")
        return facts, before.keys == facts.keys
    changes = differences(before, facts) or "other pictures, clips or weights"
    way = "go on from its frames" if before.keys == facts.keys else "begin anew"
    if state.only:
        raise ConfigError(
            f"the state in {str(folder)!r} was made with {changes}; the bytes would not be the same. Give "
            f"the same command again to {way}, or restore what has changed."
        )
    note(f"the kept state was made with {changes}; what that concerns is begun anew.")
    return facts, before.keys == facts.keys


def differences(before: Facts, now: Facts) -> str:
    """What has changed since, such as `torch 2.12.0 (now 2.13.0)`; empty when that cannot be told."""
    old, new = before.made_with, now.made_with
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} (now {new.get(name)})" for name in names)
