"""A queue of lists and dictionaries, without files or threads: what `Queue` has to agree with."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST, FURTHER = 3, 0.01


@dataclass
class Entry:
    id: str
    request: dict
    state: str = "queued"
    attempt: int = 0
    lease: str | None = None
    until: float = 0.0
    fraction: float = 0.0
    reached: float = 0.0
    strikes: int = 0
    tried: bool = False
    keep: bool = True
    doomed: bool = False
    result: bool = False
    kept: bool = False  # a result from before it was tried again
    worker: str = ""
    place: str = ""
    holder: str | None = None
    refused: set[str] = field(default_factory=set)


class Refused(Exception):
    pass


@dataclass
class Model:
    jobs: dict[str, Entry] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)  # everyone who has a place, also while running
    gone: set[str] = field(default_factory=set)
    now: float = 0.0

    def entry(self, id: str) -> Entry:
        if id not in self.jobs:
            raise Refused
        return self.jobs[id]

    def add(self, id: str, request: dict) -> None:
        self.jobs[id] = Entry(id, request)
        self.line.append(id)

    def waiting(self) -> list[str]:
        return [id for id in self.line if self.jobs[id].state == "queued"]

    def forget(self, entry: Entry) -> None:
        del self.jobs[entry.id]
        self.line.remove(entry.id)
        self.gone.add(entry.id)

    def next(self, worker: str, place: str) -> str | None:
        self.sweep()
        idle = [e for e in self.jobs.values() if e.state == "cancelling" and e.lease is None]
        unkept = [e.id for e in idle if e.holder in (None, place)]
        offered = [id for id in self.waiting() if worker not in self.jobs[id].refused]
        return next(iter(unkept + offered), None)

    def lent(self, id: str, token: str, seconds: float, worker: str, place: str) -> None:
        entry = self.jobs[id]
        entry.worker, entry.place = worker, place
        entry.state = "running" if entry.state == "queued" else entry.state
        entry.lease, entry.until, entry.attempt = token, self.now + seconds, entry.attempt + 1

    def held(self, id: str, token: str) -> Entry:
        entry = self.jobs.get(id)
        if entry is None or entry.lease != token:
            raise Refused
        return entry

    def beat(self, id: str, token: str, fraction: float, seconds: float) -> str:
        try:
            entry = self.held(id, token)
        except Refused:
            return "lost"
        entry.fraction, entry.until = fraction, self.now + seconds
        entry.holder = entry.place if fraction > 0 else entry.holder
        if entry.state == "running":
            return "go"
        return "cancel_keep" if entry.keep and not entry.doomed else "cancel_drop"

    def finish(self, id: str, token: str, partial: bool) -> None:
        entry = self.held(id, token)
        if entry.doomed:
            self.forget(entry)
        elif partial and entry.state == "running":
            raise Refused
        else:
            entry.state, entry.lease, entry.result = ("cancelled" if partial else "done"), None, True
            entry.kept, entry.holder = False, None

    def end(self, entry: Entry, state: str) -> None:
        entry.state, entry.result, entry.kept = state, entry.kept, False

    def fail(self, id: str, token: str, again: bool) -> None:
        entry = self.held(id, token)
        entry.lease = None
        if entry.doomed:
            self.forget(entry)
        elif again and not entry.tried and entry.state == "running":
            entry.state, entry.tried = "queued", True
        else:
            self.end(entry, "failed")

    def release(self, id: str, token: str) -> None:
        entry = self.held(id, token)
        entry.lease = None
        if entry.doomed:
            self.forget(entry)
        elif entry.state == "running":
            entry.state = "queued"
        else:
            self.end(entry, "cancelled")

    def refuse(self, id: str, token: str) -> None:
        entry = self.held(id, token)
        entry.lease = None
        if entry.doomed:
            self.forget(entry)
        elif entry.state == "cancelling":
            self.end(entry, "cancelled")
        else:
            entry.refused.add(entry.worker)
            entry.state, entry.attempt = "queued", entry.attempt - 1

    def sweep(self) -> None:
        for entry in [e for e in self.jobs.values() if e.lease is not None and e.until <= self.now]:
            entry.lease = None
            if entry.doomed:
                self.forget(entry)
                continue
            entry.strikes = 1 if entry.fraction >= entry.reached + FURTHER else entry.strikes + 1
            entry.reached = max(entry.reached, entry.fraction)
            poison = entry.strikes >= MOST
            if entry.state == "cancelling":
                if poison or not entry.keep:
                    self.end(entry, "cancelled")
            elif poison:
                self.end(entry, "failed")
            else:
                entry.state = "queued"

    def cancel(self, id: str, keep: bool) -> None:
        entry = self.entry(id)
        if entry.state in ("done", "failed"):
            raise Refused
        if entry.state == "cancelled":
            return
        unkept = entry.state == "cancelling" and entry.lease is None and not keep
        if (entry.state == "queued" and not (keep and entry.attempt)) or unkept:
            self.end(entry, "cancelled")
            return
        entry.keep = keep and (entry.state != "cancelling" or entry.keep)
        entry.state = "cancelling"

    def retry(self, id: str) -> None:
        entry = self.entry(id)
        if entry.state not in ("failed", "cancelled"):
            raise Refused
        holder = entry.holder if entry.state == "failed" else None
        self.jobs[id] = Entry(id, entry.request, kept=entry.result, holder=holder)
        self.last(id)

    def edit(self, id: str, request: dict) -> None:
        entry = self.entry(id)
        if entry.state != "queued":
            raise Refused
        self.jobs[id] = Entry(id, request)

    def move(self, id: str, before: str | None) -> None:
        if self.entry(id).state != "queued" or (before is not None and self.entry(before).state != "queued"):
            raise Refused
        if before is None:
            self.last(id)
        elif before != id:
            self.line.remove(id)
            self.line.insert(self.line.index(before), id)

    def last(self, id: str) -> None:
        self.line.remove(id)
        self.line.append(id)

    def delete(self, id: str) -> None:
        entry = self.entry(id)
        if entry.lease is None:
            self.forget(entry)
        else:
            entry.state, entry.keep, entry.doomed = "cancelling", False, True
