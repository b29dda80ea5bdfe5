"""The queue's file: SQLite in WAL mode, a connection for each look, every change one immediate transaction.

What is acknowledged is on the disk (`synchronous=FULL`); only a worker's beats, which say nothing that the
next one does not, are left to the system to write.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError, MediaError
from kinema.serve.jobs import NEXT, Job, NotFound
from kinema.serve.queue_schema import APPLICATION, COLUMNS, MIGRATIONS, job_of

PATIENCE = 20.0  # seconds that a transaction waits for another process's


class Store:
    """A queue's file, opened or begun.

    Args:
        path: of the file; its folder is there. It has to be on a local disk.
        clock: seconds since 1970.
        pulse: seconds that only grow, the same in all processes of this machine until it is started again.

    Raises:
        ConfigError: the file is something else, damaged, or of a newer kinema.
        MediaError: it cannot be opened or written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        pulse: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self._clock, self._pulse = clock, pulse
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._writing = threading.Lock()  # a fair wait among threads; SQLite's own is a poll
        self._guard = threading.Lock()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection: those in use as soon as they are put back."""
        with self._guard:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    # Connections

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else has meanwhile; there are as many as were ever in use at once.

        None belongs to a thread, since threads come and go with jobs and requests.
        """
        try:
            with self._guard:
                db = self._idle.pop() if self._idle else None
            db = db or self._connected()
            try:
                yield db
            finally:
                self._put_back(db)
        except sqlite3.DatabaseError as error:
            raise _told(self.path, error) from None

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA foreign_keys = OFF")
        return db

    def _put_back(self, db: sqlite3.Connection) -> None:
        with self._guard:
            if self._closed or db.in_transaction:  # one that could not be ended would be the next one's
                db.close()
            else:
                self._idle.append(db)

    def _open(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise MediaError(f"cannot open the queue {str(self.path)!r}: {error.strerror}.") from None
        with self._lent() as db:
            version = self._checked(db)
        if version < len(MIGRATIONS):
            self._migrate()

    def _checked(self, db: sqlite3.Connection) -> int:
        """The version of a file that is a queue, or empty."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        application = db.execute("PRAGMA application_id").fetchone()[0]
        empty = db.execute("PRAGMA schema_version").fetchone()[0] == 0
        if not empty and application != APPLICATION:
            raise ConfigError(f"{str(self.path)!r} is a database of something else; name another folder.")
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"the queue {str(self.path)!r} is of a newer kinema (version {version}, this one reads "
                f"{len(MIGRATIONS)}); update kinema, or name another folder."
            )
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise ConfigError(f"the queue {str(self.path)!r} is on a disk without locks; use a local one.")
        if not empty and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(str(found))
        return version

    def _migrate(self) -> None:
        with self._write() as db:  # another process may have done it meanwhile
            version = db.execute("PRAGMA user_version").fetchone()[0]
            for script in MIGRATIONS[version:]:
                for statement in _statements(script):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute(f"PRAGMA application_id = {APPLICATION}")

    @contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction that changes something; on the disk when it ends without an error."""
        with self._writing, self._lent() as db:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """Several looks at one moment."""
        with self._lent() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")

    # Rows

    def get(self, id: str) -> Job:
        """The job; `NotFound`."""
        with self._lent() as db:
            return job_of(self._row(db, id, COLUMNS))

    def knows(self, id: str) -> bool:
        """Whether there is such a job."""
        try:
            with self._lent() as db:
                self._row(db, id, "id")
        except NotFound:
            return False
        return True

    def _row(self, db: sqlite3.Connection, id: str, columns: str = "*") -> sqlite3.Row:
        try:
            row: sqlite3.Row | None = db.execute(f"SELECT {columns} FROM jobs WHERE id = ?", (id,)).fetchone()
        except UnicodeEncodeError:
            row = None
        if row is None:
            raise NotFound(f"there is no job {id[:40]!r}.")
        return row

    def _set(self, db: sqlite3.Connection, row: sqlite3.Row, **columns: Any) -> Job:
        """Change a job; the change gets its revision."""
        state = columns.get("state", row["state"])
        assert state == row["state"] or state in NEXT[row["state"]], f"{row['state']} to {state}"
        columns["revision"] = self._revise(db)
        names = ", ".join(f"{name} = ?" for name in columns)
        db.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*columns.values(), row["id"]))
        return job_of(self._row(db, row["id"], COLUMNS))

    def _forget(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        """Remove a job, and remember that it was there for those who follow the changes."""
        db.execute("DELETE FROM jobs WHERE id = ?", (row["id"],))
        db.execute("INSERT INTO gone VALUES (?, ?, ?)", (self._revise(db), row["id"], self._clock()))

    @staticmethod
    def _revise(db: sqlite3.Connection) -> int:
        return int(db.execute("UPDATE ledger SET revision = revision + 1 RETURNING revision").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """A script's statements; a trigger's body is part of its own."""
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def _told(path: Path, error: sqlite3.DatabaseError) -> Exception:
    """SQLite's errors that a user can do something about, in one line; others as they are."""
    text = str(error).splitlines()[0]
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
        return error
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in text:
        if "syntax error" in text or "no such" in text:
            return error
        return MediaError(f"cannot use the queue {str(path)!r}: {text}; look at the disk's room and rights.")
    return ConfigError(
        f"the queue {str(path)!r} is damaged ({text}); move it away to begin a new one, or restore a copy."
    )
