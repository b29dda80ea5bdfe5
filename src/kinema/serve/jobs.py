"""The nouns of the queue: a job, its states and the ways between them, its progress, result and error.

    queued -> running -> done | failed            (queued -> failed: no worker has what it needs)
      |  ^-----'  |  (released, lease expired, tried again)
      |           v
      `----> cancelling -> cancelled

Everything here is frozen, holds JSON values only, and is what `/api/jobs` shows.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from kinema.core.errors import KinemaError

Kind = Literal["video", "image"]
State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
Signal = Literal["go", "cancel_keep", "cancel_drop", "lost"]

STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
NEXT: Mapping[State, tuple[State, ...]] = {
    "queued": ("running", "cancelling", "cancelled", "failed"),
    "running": ("queued", "cancelling", "done", "failed"),
    "cancelling": ("done", "cancelled", "failed"),
    "done": (),
    "failed": ("queued",),
    "cancelled": ("queued",),
}
"""Where each state may go; a job that was interrupted is `cancelling` without a worker until one keeps its
frames."""

ID = re.compile(r"video_[0-9a-z]{26}")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
POISON = "poison"
NO_WORKER = "no_worker"


class QueueError(KinemaError, RuntimeError):
    """Something that the queue cannot do; the message says why."""


class NotFound(QueueError):
    """There is no such job."""


class Conflict(QueueError):
    """The job's state, or an earlier request with the same key, does not allow it."""


class QueueFull(QueueError):
    """As many jobs are waiting as may wait."""


class TooLarge(QueueError):
    """The request is longer than what a job keeps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes:
        phase: what is being done, as `kinema.core.contracts.Phase`; empty before the first word of a worker.
        step: steps of this phase that are finished.
        steps: how many there are.
        shot: which shot of a storyboard, from 1.
        shots: how many there are.
        fraction: of the whole job, 0..1; grows while one worker has it.
        seconds_left: by the steps measured so far; None while nothing is known.
        preview: how many previews were written; a new one is there when it grows.
    """

    phase: str = ""
    step: int = 0
    steps: int = 0
    shot: int = 1
    shots: int = 1
    fraction: float = 0.0
    seconds_left: float | None = None
    preview: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobError:
    """Why a job has failed.

    Attributes:
        code: for programs: `bad_request`, `out_of_memory`, `not_finite`, `disk_full`, `internal`, `poison`...
        message: for people, one line.
        param: the field of the request that is at fault, where that is known.
    """

    code: str
    message: str
    param: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The job that this one was made from: `clone`, `remix`, `extend` or another word for how."""

    id: str
    how: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a job has made.

    Attributes:
        file: its name in the folder of results.
        frames: pixel frames.
        fps: frames per second, as a fraction's text.
        width: pixels.
        height: pixels.
        bytes: of the file.
        seed: of the first shot.
        seconds_taken: that workers spent on it, all attempts together.
        partial: it was cancelled, and this is what was made by then.
    """

    file: str
    frames: int
    fps: str
    width: int
    height: int
    bytes: int
    seed: int
    seconds_taken: float
    partial: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One request, from its acceptance to its result.

    Attributes:
        id: `video_` and 26 random letters.
        kind: what is asked for.
        request: a shot or storyboard as JSON values; media are `media:<sha256>` where a path would stand.
        state: see the module.
        position: order in the queue; smaller ones are first.
        created: seconds since 1970, as all times.
        started: when the current or last worker took it.
        finished: when it ended.
        progress: how far it is.
        attempt: how often a worker has taken it.
        error: why it failed; while queued, why the attempt before did.
        owner: whose it is.
        parent: what it was made from.
        favourite: marked by its owner.
        title: given by its owner, or empty.
        result: what was made.
        revision: of the queue, when this job last changed.
        seconds: of the clip, as it was planned; None where nobody has said.
    """

    id: str
    kind: Kind
    request: Mapping[str, Any]
    state: State
    position: float
    created: float
    started: float | None = None
    finished: float | None = None
    progress: JobProgress = field(default_factory=JobProgress)
    attempt: int = 0
    error: JobError | None = None
    owner: str = ""
    parent: Parent | None = None
    favourite: bool = False
    title: str = ""
    result: Result | None = None
    revision: int = 0
    seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Nothing happens to it any more, unless it is tried again."""
        return self.state in ENDED

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Job:
        """What `to_json` gave; names that this version does not know are left out."""

        def part(kind: type[Any], value: Any) -> Any:
            return None if value is None else kind(**_known(kind, value))

        nouns = {"error": JobError, "parent": Parent, "result": Result, "progress": JobProgress}
        found = {name: part(kind, values.get(name)) for name, kind in nouns.items()}
        found["progress"] = found["progress"] or JobProgress()
        return Job(**{**_known(Job, values), **found})


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in kind.__dataclass_fields__ if name in values}


def new_id() -> str:
    """An id that cannot be guessed: 134 bits."""
    return "video_" + "".join(secrets.choice(_LETTERS) for _ in range(26))


def may(job: Job, state: State) -> bool:
    """Whether the job's state allows this one next."""
    return state in NEXT[job.state]
