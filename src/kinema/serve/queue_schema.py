"""The queue's tables, how they grow from version to version, and a row as a `Job`.

`ledger` has one row: the revision that every change raises, and the last place given in the queue. `tallies`
counts jobs by state (kept by triggers, so that a count costs one look however long the history is).
`refused` names the workers that gave a job back, each in a line, and `refused_at` is when the last one did.
A lease is a token and a moment of the machine's monotonic clock; see `queue_leases`. `place` is where the
worker that has a job keeps states, `holder` the place where a state of it lies, and `unkept_at` since when a
cancelled job waits for a worker of that place. `kept` is the result of a job before it was tried again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from kinema.serve.jobs import STATES, Job

APPLICATION = 0x6B6E6D61  # "knma", in the file's header

_FIRST = f"""
CREATE TABLE ledger (revision INTEGER NOT NULL, place REAL NOT NULL);
INSERT INTO ledger VALUES (0, 0);
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  request TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN {STATES!r}),
  position REAL NOT NULL,
  created REAL NOT NULL, started REAL, finished REAL,
  progress TEXT, attempt INTEGER NOT NULL DEFAULT 0, error TEXT,
  owner TEXT NOT NULL, parent TEXT, favourite INTEGER NOT NULL DEFAULT 0, title TEXT NOT NULL DEFAULT '',
  result TEXT, revision INTEGER NOT NULL,
  token TEXT, worker TEXT, leased INTEGER NOT NULL DEFAULT 0,
  lease_until REAL, lease_seconds REAL, beaten REAL,
  spent REAL NOT NULL DEFAULT 0, strikes INTEGER NOT NULL DEFAULT 0, reached REAL NOT NULL DEFAULT 0,
  keep INTEGER NOT NULL DEFAULT 1, doomed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX by_state ON jobs (state, number);
CREATE INDEX by_owner ON jobs (owner, state, number);
CREATE INDEX by_revision ON jobs (revision);
CREATE INDEX waiting ON jobs (position) WHERE state = 'queued';
CREATE INDEX leased ON jobs (lease_until) WHERE leased;
CREATE TABLE keys (
  owner TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL, jobs TEXT NOT NULL,
  PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_age ON keys (created);
CREATE TABLE gone (revision INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX gone_by_age ON gone (at);
CREATE TABLE tallies (state TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tallies VALUES {", ".join(f"('{state}', 0)" for state in STATES)};
CREATE TRIGGER tally_new AFTER INSERT ON jobs BEGIN
  UPDATE tallies SET count = count + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER tally_gone AFTER DELETE ON jobs BEGIN
  UPDATE tallies SET count = count - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER tally_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
  UPDATE tallies SET count = count - 1 WHERE state = OLD.state;
  UPDATE tallies SET count = count + 1 WHERE state = NEW.state;
END;
"""

_REFUSALS = """
ALTER TABLE jobs ADD COLUMN refused TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN refused_at REAL;
CREATE INDEX refused ON jobs (refused_at) WHERE refused_at IS NOT NULL;
"""

_KEPT = """
ALTER TABLE jobs ADD COLUMN seconds REAL;
ALTER TABLE jobs ADD COLUMN kept TEXT;
ALTER TABLE jobs ADD COLUMN place TEXT;
ALTER TABLE jobs ADD COLUMN holder TEXT;
ALTER TABLE jobs ADD COLUMN unkept_at REAL;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _REFUSALS, _KEPT)
"""What makes each version of the file from the one before; the first from an empty file."""

COLUMNS = (
    "id, kind, request, state, position, created, started, finished, progress, attempt, error, owner, "
    "parent, favourite, title, result, revision, seconds"
)
WAITING = "jobs INDEXED BY waiting WHERE state = 'queued'"
_JSON = ("request", "progress", "error", "parent", "result")


def packed(values: Mapping[str, Any] | None) -> str | None:
    """JSON values as one line of ASCII (so that no text is beyond UTF-8); None stays None."""
    return None if values is None else json.dumps(values, allow_nan=False, separators=(",", ":"))


def job_of(row: sqlite3.Row) -> Job:
    """A row's job."""
    values = {name: row[name] for name in row.keys() if name in Job.__dataclass_fields__}  # noqa: SIM118
    parts = {name: None if values[name] is None else json.loads(values[name]) for name in _JSON}
    return Job.from_json({**values, **parts, "favourite": bool(values["favourite"])})
