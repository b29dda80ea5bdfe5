"""The workers' side of the queue: a job is lent for a while, and only who holds its token may change it.

A lease ends when it is not renewed in time. It is measured by the machine's monotonic clock, so that setting
the date ends none; a lease with more time left than was ever granted is from before the machine's last start.

A worker that lacks what a job needs gives it back and is not offered it again. The job waits for others, for
at most `REFUSED_FOR` seconds and `MOST_REFUSALS` workers.

What a worker keeps of a job lies at its place: the server's folder, or one on another machine. A cancelled
job whose frames are to be kept goes back to where they lie; after `UNKEPT_FOR` seconds without a worker of
that place, to any.

A job whose worker is lost goes back to the queue. One that has not come further in `MOST` such attempts is
poison and fails; coming further (by at least `FURTHER` of the job) makes the count begin anew, so that
long jobs outlast any number of restarts.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kinema.serve.jobs import NO_WORKER, POISON, Conflict, Job, JobError, JobProgress, Result, Signal
from kinema.serve.queue_schema import COLUMNS, WAITING, job_of, packed
from kinema.serve.queue_store import Store

MOST = 3
FURTHER = 0.01
MOST_REFUSALS = 16
REFUSED_FOR = 86400.0
GONE_FOR = 30 * 86400.0  # seconds for which it is remembered that a job was deleted
UNKEPT_FOR = 86400.0
HERE = "here"  # the place of workers that write to the server's own folder
_UNKEPT = (
    "jobs WHERE state = 'cancelling' AND NOT leased "
    "AND (holder IS NULL OR holder = ? OR unkept_at IS NULL OR unkept_at < ?)"
)
_EXPIRED = "jobs WHERE leased AND (lease_until <= ? OR lease_until - lease_seconds > ?)"
_NOT_REFUSED = "instr(refused, ?) = 0"
_GIVEN_UP = "jobs WHERE refused_at < ? AND state = 'queued'"
_FREE = {"token": None, "worker": None, "place": None, "leased": 0, "lease_until": None}


class Lost(Conflict):
    """The lease has ended, and somebody else may have the job."""


class Leases(Store):
    """Lending jobs and taking them back."""

    def lease(self, worker: str, seconds: float, place: str = HERE) -> tuple[Job, str] | None:
        """The next job and the token for it; None when there is nothing to do.

        A job in state `cancelling` asks for no more than to publish the frames that are kept of it.

        Args:
            worker: a name, for people and for `forfeit`.
            seconds: how long it is lent without a beat.
            place: where the worker keeps the states of jobs.
        """
        mark = _mark(worker)
        if not self._anything(mark, place):
            return None
        with self._write() as db:
            self._sweep(db)
            unkept = (place, self._clock() - UNKEPT_FOR)
            row = db.execute(f"SELECT * FROM {_UNKEPT} LIMIT 1", unkept).fetchone()
            waiting = f"SELECT * FROM {WAITING} AND {_NOT_REFUSED} ORDER BY position LIMIT 1"
            row = row or db.execute(waiting, (mark,)).fetchone()
            if row is None:
                return None
            token, now = secrets.token_hex(16), self._pulse()
            lent = {"token": token, "worker": worker, "leased": 1, "lease_seconds": seconds, "beaten": now}
            lent |= {"lease_until": now + seconds, "attempt": row["attempt"] + 1, "started": self._clock()}
            lent |= {"refused_at": None, "place": place}
            state = "running" if row["state"] == "queued" else row["state"]
            return self._set(db, row, state=state, **lent), token

    def _anything(self, mark: str, place: str) -> bool:
        """Whether a lease or a sweep could find something; a look that waits for nobody."""
        now = self._pulse()
        with self._read() as db:
            return any(
                db.execute(f"SELECT 1 FROM {where} LIMIT 1", values).fetchone()
                for where, values in (
                    (f"{WAITING} AND {_NOT_REFUSED}", (mark,)),
                    (_UNKEPT, (place, self._clock() - UNKEPT_FOR)),
                    (_EXPIRED, (now, now)),
                )
            )

    def beat(self, id: str, token: str, progress: JobProgress) -> Signal:
        """Renew a lease and say how far the job is; the answer is what its worker has to do."""
        with self._write(durable=False) as db:
            row = self._held(db, id, token)
            if row is None:
                return "lost"
            now = self._pulse()
            self._set(
                db,
                row,
                progress=packed(progress.to_json()),
                lease_until=now + row["lease_seconds"],
                beaten=now,
                spent=row["spent"] + max(now - row["beaten"], 0.0),
                holder=row["place"] if progress.fraction > 0 else row["holder"],
            )
            if row["state"] == "cancelling":
                return "cancel_keep" if row["keep"] and not row["doomed"] else "cancel_drop"
            return "go"

    def holds(self, id: str, token: str) -> Job:
        """The job that this token is for; `Lost` when it is for none."""
        with self._lent() as db:
            return job_of(self._holding(db, id, token))

    def finish(
        self, id: str, token: str, result: Result, *, publish: Callable[[], None] | None = None
    ) -> Job | None:
        """The job has a result; told again with the same token, nothing more happens.

        Args:
            id: the job.
            token: of its lease.
            result: what was made; a partial one ends a job that is being cancelled.
            publish: gives the files their final names. It is called inside the transaction, when it is sure
                that the token holds, so that no other worker's files are replaced.

        Returns:
            The job; None when it was deleted, and nothing is published.

        Raises:
            Lost: the token is not the job's.
            Conflict: the result is partial, and nobody has cancelled the job.
        """
        with self._write() as db:
            row = self._held(db, id, token)
            if row is None:
                return self._told_again(db, id, token)
            if row["doomed"]:
                self._forget(db, row)
                return None
            if result.partial and row["state"] != "cancelling":
                raise Conflict("nobody has asked for a part of this job's result.")
            if publish is not None:
                publish()
            spent = row["spent"] + max(self._pulse() - row["beaten"], 0.0)
            last = JobProgress(**{**json.loads(row["progress"] or "{}"), "phase": "", "seconds_left": None})
            progress = last if result.partial else replace(last, fraction=1.0)
            return self._set(
                db,
                row,
                **{**_FREE, "token": token},
                state="cancelled" if result.partial else "done",
                result=packed(replace(result, seconds_taken=spent).to_json()),
                progress=packed(progress.to_json()),
                finished=self._clock(),
                spent=spent,
                error=None,
                kept=None,
                holder=None,
            )

    def fail(self, id: str, token: str, error: JobError, *, again: bool = False) -> Job | None:
        """The job has failed; with `again` it may be tried once more, if this was the first time.

        Returns:
            The job; None when it was deleted meanwhile.

        Raises:
            Lost: the token is not the job's.
        """
        with self._write() as db:
            row = self._wanted(db, id, token)
            if row is None:
                return None
            if again and not _tried(row) and row["state"] == "running":
                return self._requeue(db, row, error=packed(error.to_json()))
            return self._end(db, row, "failed", error)

    def release(self, id: str, token: str) -> Job | None:
        """The worker lets go: a running job is the queue's again, to be gone on with; a cancelled one ends.

        Returns:
            The job; None when it was deleted meanwhile.

        Raises:
            Lost: the token is not the job's.
        """
        with self._write() as db:
            row = self._wanted(db, id, token)
            if row is None:
                return None
            if row["state"] == "cancelling":
                return self._end(db, row, "cancelled", None)
            return self._requeue(db, row)

    def refuse(self, id: str, token: str, error: JobError) -> Job | None:
        """The worker has not what the job needs: it waits for another one, or fails after too many.

        Returns:
            The job; None when it was deleted meanwhile.

        Raises:
            Lost: the token is not the job's.
        """
        with self._write() as db:
            row = self._wanted(db, id, token)
            if row is None:
                return None
            if row["state"] == "cancelling":
                return self._end(db, row, "cancelled", None)
            refused = row["refused"] + _mark(row["worker"])
            if refused.count("\n\n") + 1 >= MOST_REFUSALS:
                return self._end(db, row, "failed", error)
            given = {"refused": refused, "refused_at": self._clock(), "attempt": row["attempt"] - 1}
            if not _tried(row):
                told = replace(error, code=NO_WORKER, message=f"it waits for another worker: {error.message}")
                given["error"] = packed(told.to_json())
            return self._requeue(db, row, **given)

    def forfeit(self, worker: str, *, blame: bool = True) -> int:
        """The worker is known to be dead: what it held is lost at once. How many jobs that were.

        Args:
            worker: its name.
            blame: whether its job may have killed it; not when the whole server was started again.
        """
        with self._write() as db:
            rows = db.execute("SELECT * FROM jobs WHERE leased AND worker = ?", (worker,)).fetchall()
            for row in rows:
                self._lose(db, row, blame=blame)
            return len(rows)

    def sweep(self) -> int:
        """Take back what expired, forget what was deleted long ago; how many leases had expired."""
        with self._write() as db:
            db.execute("DELETE FROM gone WHERE at < ?", (self._clock() - GONE_FOR,))
            for row in db.execute(f"SELECT * FROM {_GIVEN_UP}", (self._clock() - REFUSED_FOR,)).fetchall():
                self._end(db, row, "failed", JobError(**json.loads(row["error"])))
            return self._sweep(db)

    # Inside a transaction

    def _sweep(self, db: sqlite3.Connection) -> int:
        now = self._pulse()
        rows = db.execute(f"SELECT * FROM {_EXPIRED}", (now, now)).fetchall()
        for row in rows:
            self._lose(db, row)
        return len(rows)

    def _lose(self, db: sqlite3.Connection, row: sqlite3.Row, *, blame: bool = True) -> None:
        """A worker was lost without a word."""
        if row["doomed"]:
            self._forget(db, row)
            return
        fraction = float(json.loads(row["progress"] or "{}").get("fraction", 0.0))
        further = fraction >= row["reached"] + FURTHER
        strikes = int(blame) if further else row["strikes"] + int(blame)
        counted: dict[str, Any] = {"strikes": strikes, "reached": max(fraction, row["reached"])}
        if row["state"] == "cancelling":
            if row["keep"] and strikes < MOST:
                self._set(db, row, **_FREE, **counted, unkept_at=self._clock())
            else:
                self._end(db, row, "cancelled", None)
        elif strikes >= MOST:
            message = f"its worker was lost {strikes} times without coming further; it is set aside."
            self._end(db, row, "failed", JobError(code=POISON, message=message))
        else:
            self._requeue(db, row, **counted)

    def _requeue(self, db: sqlite3.Connection, row: sqlite3.Row, **columns: Any) -> Job:
        return self._set(db, row, **_FREE, state="queued", started=None, **columns)

    def _end(self, db: sqlite3.Connection, row: sqlite3.Row, state: str, error: JobError | None) -> Job:
        """Without a new result; one from before it was tried again is its result as before."""
        told = None if error is None else packed(error.to_json())
        ended = {"error": told, "finished": self._clock(), "result": row["kept"], "kept": None}
        return self._set(db, row, **_FREE, **ended, state=state)

    def _held(self, db: sqlite3.Connection, id: str, token: str) -> sqlite3.Row | None:
        if not (id.isascii() and token.isascii()):  # what SQLite could not even compare
            return None
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM jobs WHERE id = ? AND leased AND token = ?", (id, token)
        ).fetchone()
        return row

    def _holding(self, db: sqlite3.Connection, id: str, token: str) -> sqlite3.Row:
        row = self._held(db, id, token)
        if row is None:
            raise Lost(f"the lease of {id[:40]!r} has ended.")
        return row

    def _wanted(self, db: sqlite3.Connection, id: str, token: str) -> sqlite3.Row | None:
        """The row of a held job; None when it was deleted meanwhile, and now it is forgotten."""
        row = self._holding(db, id, token)
        if not row["doomed"]:
            return row
        self._forget(db, row)
        return None

    def _told_again(self, db: sqlite3.Connection, id: str, token: str) -> Job:
        """The job that this token has finished before; `Lost` when it has not."""
        row = None
        if id.isascii() and token.isascii():
            said = f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND token = ? AND result IS NOT NULL"
            row = db.execute(said, (id, token)).fetchone()
        if row is None:
            raise Lost(f"the lease of {id[:40]!r} has ended.")
        return job_of(row)


def _mark(worker: str) -> str:
    """A worker's name among those that refused a job."""
    return f"\n{worker}\n"


def _tried(row: sqlite3.Row) -> bool:
    """Whether an attempt has failed already; that a worker gave it back untouched is none."""
    return row["error"] is not None and json.loads(row["error"])["code"] != NO_WORKER
