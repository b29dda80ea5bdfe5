"""The durable queue: what is accepted is there after any crash, and ends in one state with one result.

    with Queue(data / "queue.sqlite3") as queue:
        job = queue.submit({"prompt": "a fox"}, kind="video", owner="me")
        job, token = queue.lease("worker 1", 30)
        queue.finish(job.id, token, result)

Every method is one transaction, and may be called from any thread and from several processes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from kinema.core.errors import ConfigError
from kinema.serve.jobs import (
    STATES,
    Conflict,
    Job,
    Kind,
    NotFound,
    Parent,
    QueueFull,
    State,
    TooLarge,
    new_id,
)
from kinema.serve.queue_leases import Leases
from kinema.serve.queue_schema import COLUMNS, WAITING, job_of, packed

KEY_SECONDS = 86400.0
LONGEST_TITLE = 200
LONGEST_REQUEST = 1_000_000
"""Characters of a request as it is kept; every change of its job is told to every listener with all of it."""
_FRESH: Mapping[str, Any] = {
    "progress": None, "error": None, "result": None, "started": None, "finished": None,
    "attempt": 0, "strikes": 0, "reached": 0.0, "spent": 0.0, "token": None,
    "refused": "", "refused_at": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs of a list, and whether there are more after them."""

    jobs: tuple[Job, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed after a revision.

    Attributes:
        jobs: as they are now, in the order of their last change.
        gone: deleted ids with the revision of that.
        revision: to ask from next time.
        more: there are more changes than were asked for.
    """

    jobs: tuple[Job, ...]
    gone: tuple[tuple[int, str], ...]
    revision: int
    more: bool


class Queue(Leases):
    """The queue in a file; see `Store` for its arguments and `Leases` for the workers' side."""

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Taking in

    def submit(
        self,
        request: Mapping[str, Any],
        *,
        kind: Kind = "video",
        owner: str = "",
        key: str | None = None,
        digest: str | None = None,
        parent: Parent | None = None,
        title: str = "",
        seconds: float | None = None,
        most: int | None = None,
    ) -> Job:
        """Accept a request: when this returns, the job outlasts a power cut.

        Args:
            request: a shot or storyboard, checked already; JSON values.
            kind: what is asked for.
            owner: whose it is.
            key: of the client's choice; within a day the same key of the same owner gives the same job.
            digest: of what was asked with the key; by default of `request`.
            parent: the job that it was made from.
            title: a name for people.
            seconds: of the clip, as it was planned.
            most: how many jobs may be waiting.

        Raises:
            Conflict: the key was used for something else.
            QueueFull: too many are waiting.
            TooLarge: the request is longer than `LONGEST_REQUEST`.
        """
        return self.submit_all(
            [request],
            kind=kind,
            owner=owner,
            key=key,
            digest=digest,
            parent=parent,
            title=title,
            seconds=seconds,
            most=most,
        )[0]

    def submit_all(
        self,
        requests: Sequence[Mapping[str, Any]],
        *,
        kind: Kind = "video",
        owner: str = "",
        key: str | None = None,
        digest: str | None = None,
        parent: Parent | None = None,
        title: str = "",
        seconds: float | None = None,
        most: int | None = None,
    ) -> tuple[Job, ...]:
        """Accept several requests together or not at all; as `submit`.

        A key of which some jobs were deleted gives those that remain.
        """
        texts = [_request(request) for request in requests]
        digest = digest or _digest(texts)
        lineage = None if parent is None else packed(parent.to_json())
        known: dict[str, Any] = {"kind": kind, "owner": _text(owner, "owner"), "title": _text(title, "title")}
        known["seconds"] = seconds
        with self._write() as db:
            earlier = None if key is None else self._earlier(db, owner, _text(key, "key"), digest)
            if earlier is not None:
                return earlier
            if most is not None and self._count(db, "queued") + len(texts) > most:
                raise QueueFull(f"{most} jobs are waiting, the most that may; try again later.")
            jobs = tuple(self._insert(db, request=text, parent=lineage, **known) for text in texts)
            if key is not None:
                ids = " ".join(job.id for job in jobs)
                db.execute(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, ?)", (owner, key, digest, self._clock(), ids)
                )
            return jobs

    def _earlier(self, db: sqlite3.Connection, owner: str, key: str, digest: str) -> tuple[Job, ...] | None:
        """The jobs that this key was given for, those that were not deleted; None when there are none."""
        db.execute("DELETE FROM keys WHERE created < ?", (self._clock() - KEY_SECONDS,))
        row = db.execute("SELECT * FROM keys WHERE owner = ? AND key = ?", (owner, key)).fetchone()
        if row is None:
            return None
        if row["digest"] != digest:
            raise Conflict("this key was used for another request; use a new one.")
        found = []
        for id in row["jobs"].split():
            with suppress(NotFound):
                found.append(job_of(self._row(db, id, COLUMNS)))
        if not found:
            db.execute("DELETE FROM keys WHERE owner = ? AND key = ?", (owner, key))
        return tuple(found) or None

    def _insert(self, db: sqlite3.Connection, **columns: Any) -> Job:
        columns |= {"id": new_id(), "state": "queued", "created": self._clock()}
        columns |= {"position": self._place(db), "revision": self._revise(db)}
        marks = ", ".join("?" * len(columns))
        db.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()))
        return job_of(self._row(db, columns["id"], COLUMNS))

    @staticmethod
    def _place(db: sqlite3.Connection) -> float:
        """The next place at the queue's end."""
        return float(db.execute("UPDATE ledger SET place = place + 1 RETURNING place").fetchone()[0])

    def clone(self, id: str, *, owner: str | None = None, most: int | None = None) -> Job:
        """A new job with the same request, at the queue's end."""
        job = self.get(id)
        return self.submit(
            job.request,
            kind=job.kind,
            owner=job.owner if owner is None else owner,
            parent=Parent(id=id, how="clone"),
            title=job.title,
            seconds=job.seconds,
            most=most,
        )

    # Looking

    def list(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
        states: Sequence[State] | None = None,
        owner: str | None = None,
    ) -> Page:
        """Jobs by the order of their acceptance.

        Args:
            after: the last id of the page before.
            limit: the most jobs.
            order: `desc` for the newest first.
            states: only those.
            owner: only theirs.

        Raises:
            NotFound: `after` is no job.
        """
        down = order == "desc"
        with self._read() as db:
            edge = None if after is None else self._row(db, after, "number")["number"]
            rows: list[sqlite3.Row] = []
            for state in dict.fromkeys(STATES if states is None else states):  # each by its index
                where: list[str] = ["state = ?"]
                values: list[Any] = [state]
                if owner is not None:
                    where, values = [*where, "owner = ?"], [*values, owner]
                if edge is not None:
                    where, values = [*where, f"number {'<' if down else '>'} ?"], [*values, edge]
                rows += db.execute(
                    f"SELECT number, {COLUMNS} FROM jobs WHERE {' AND '.join(where)} "
                    f"ORDER BY number {'DESC' if down else 'ASC'} LIMIT ?",
                    (*values, limit + 1),
                ).fetchall()
        rows.sort(key=lambda row: row["number"], reverse=down)
        return Page(tuple(map(job_of, rows[:limit])), len(rows) > limit)

    def changes(self, since: int = 0, *, limit: int = 500) -> Changes:
        """What has changed after revision `since`: of a job that changed often, the last state only."""
        with self._read() as db:
            now = int(db.execute("SELECT revision FROM ledger").fetchone()[0])
            rows = db.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE revision > ? ORDER BY revision LIMIT ?", (since, limit + 1)
            ).fetchall()
            gone = db.execute(
                "SELECT revision, id FROM gone WHERE revision > ? ORDER BY revision LIMIT ?",
                (since, limit + 1),
            ).fetchall()
        told = sorted([row["revision"] for row in rows] + [row["revision"] for row in gone])
        more = len(told) > limit
        last = told[limit - 1] if more else now
        return Changes(
            tuple(job_of(row) for row in rows if row["revision"] <= last),
            tuple((row["revision"], row["id"]) for row in gone if row["revision"] <= last),
            last,
            more,
        )

    def revision(self) -> int:
        """Of the last change."""
        with self._read() as db:
            return int(db.execute("SELECT revision FROM ledger").fetchone()[0])

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._read() as db:
            found = {row["state"]: int(row["count"]) for row in db.execute("SELECT * FROM tallies")}
        return {state: found[state] for state in STATES}

    @staticmethod
    def _count(db: sqlite3.Connection, state: State) -> int:
        return int(db.execute("SELECT count FROM tallies WHERE state = ?", (state,)).fetchone()[0])

    # Changing

    def change(
        self,
        id: str,
        *,
        request: Mapping[str, Any] | None = None,
        kind: Kind | None = None,
        seconds: float | None = None,
        moved: bool = False,
        before: str | None = None,
        favourite: bool | None = None,
        title: str | None = None,
    ) -> Job:
        """Several changes of a job together or not at all.

        Args:
            id: the job.
            request: see `edit`; None leaves it.
            kind: of that request; None for the same as before.
            seconds: of that request's clip, as it was planned.
            moved: see `move`; False leaves it where it is.
            before: the job that it is moved before; None for the end.
            favourite: see `mark`; None leaves it.
            title: the same.
        """
        marks: dict[str, Any] = {}
        if favourite is not None:
            marks["favourite"] = int(favourite)
        if title is not None:
            marks["title"] = _text(title, "title")
        with self._write() as db:
            if request is not None:
                self._edit(db, id, request, kind, seconds)
            if moved:
                self._move(db, id, before)
            row = self._row(db, id)
            return self._set(db, row, **marks) if marks else job_of(row)

    def edit(self, id: str, request: Mapping[str, Any], *, kind: Kind | None = None) -> Job:
        """Ask for something else in the same place of the queue; `Conflict` once a worker has it."""
        return self.change(id, request=request, kind=kind)

    def move(self, id: str, before: str | None = None) -> Job:
        """Put a waiting job before another one that waits, or at the end."""
        return self.change(id, moved=True, before=before)

    def mark(self, id: str, *, favourite: bool | None = None, title: str | None = None) -> Job:
        """Set what is for its owner's eyes; None leaves it."""
        return self.change(id, favourite=favourite, title=title)

    def _edit(
        self,
        db: sqlite3.Connection,
        id: str,
        request: Mapping[str, Any],
        kind: Kind | None,
        seconds: float | None,
    ) -> None:
        """What was kept of another request is none of this one's."""
        row = self._in_state(db, id, "queued", do="be edited", hint="clone it")
        asked = {"request": _request(request), "kind": kind or row["kind"], "seconds": seconds}
        self._set(db, row, **_FRESH, **asked, kept=None, holder=None)

    def _move(self, db: sqlite3.Connection, id: str, before: str | None) -> None:
        row = self._in_state(db, id, "queued", do="be moved", hint="only those that wait can")
        if before == id:
            return
        place = self._place(db) if before is None else self._between(db, before, id)
        if before is not None and place is None:
            self._spread(db)
            place = self._between(db, before, id)
        self._set(db, row, position=place)

    def _between(self, db: sqlite3.Connection, before: str, id: str) -> float | None:
        """A place just before a waiting job; None where floats have none."""
        right = self._in_state(db, before, "queued", do="be moved to", hint="it does not wait")["position"]
        left = db.execute(
            f"SELECT max(position) FROM {WAITING} AND position < ? AND id <> ?", (right, id)
        ).fetchone()[0]
        left = right - 1.0 if left is None else left
        place = (left + right) / 2
        return float(place) if left < place < right else None

    def _spread(self, db: sqlite3.Connection) -> None:
        """Whole numbers for everybody who waits, in the same order."""
        rows = db.execute(f"SELECT * FROM {WAITING} ORDER BY position").fetchall()
        for row in rows:
            self._set(db, row, position=self._place(db))

    def cancel(self, id: str, *, keep: bool = True) -> Job:
        """Stop a job, at the next step if a worker has it; told again, `keep` may be taken back.

        Args:
            id: the job.
            keep: what is made so far becomes a partial result, also of a job that waits to be gone on with.

        Raises:
            Conflict: it has ended otherwise.
        """
        with self._write() as db:
            row = self._row(db, id)
            if row["state"] == "cancelled":
                return job_of(row)
            if row["state"] in ("done", "failed"):
                raise Conflict(f"the job has ended ({row['state']}); it cannot be cancelled.")
            if row["state"] == "queued" and (not keep or not row["attempt"]):
                return self._end(db, row, "cancelled", None)
            if row["state"] == "cancelling" and not keep and not row["leased"]:
                return self._end(db, row, "cancelled", None)
            keep = keep and bool(row["state"] != "cancelling" or row["keep"])
            waits = {"unkept_at": self._clock()} if row["state"] == "queued" else {}
            return self._set(db, row, state="cancelling", keep=int(keep), **waits)

    def retry(self, id: str) -> Job:
        """Put a job that failed or was cancelled at the queue's end; it goes on from what is kept of it.

        A partial result is put aside, and is the job's again when it ends without a new one.
        """
        with self._write() as db:
            row = self._in_state(db, id, "failed", "cancelled", do="be tried again", hint="clone it")
            anew = {**_FRESH, "keep": 1, "kept": row["result"], "position": self._place(db)}
            if row["state"] == "cancelled":  # its frames were published then, or dropped
                anew["holder"] = None
            return self._set(db, row, **anew, state="queued")

    def delete(self, id: str) -> bool:
        """Remove a job; one that a worker has is cancelled first. Whether it is gone already."""
        with self._write() as db:
            row = self._row(db, id)
            if not row["leased"]:
                self._forget(db, row)
                return True
            self._set(db, row, state="cancelling", keep=0, doomed=1)
            return False

    def _in_state(self, db: sqlite3.Connection, id: str, *states: State, do: str, hint: str) -> sqlite3.Row:
        row = self._row(db, id)
        if row["state"] not in states:
            raise Conflict(f"the job is {row['state']} and cannot {do}; {hint}.")
        return row


def _request(request: Mapping[str, Any]) -> str:
    """A request as it is kept."""
    text = str(packed(request))
    if len(text) > LONGEST_REQUEST:
        message = f"the request has {len(text)} characters as JSON, and a job keeps {LONGEST_REQUEST}"
        raise TooLarge(f"{message}; shorten its texts, or make several jobs of it.")
    return text


def _text(text: str, what: str) -> str:
    """A short text that can be stored."""
    if len(text) > LONGEST_TITLE:
        raise ConfigError(f"{what} has {len(text)} characters; at most {LONGEST_TITLE} are kept.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} has half of a surrogate pair, which is no character.") from None
    return text


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
