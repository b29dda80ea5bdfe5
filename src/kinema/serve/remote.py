"""A worker on another machine: it calls the server, takes jobs, and sends back what it made.

Files that a request names come by their hash and are checked; what is made is sent until the server says that
it has it, or that the lease has ended. Only the server's queue decides which of two results counts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from kinema.core.errors import MediaError
from kinema.serve.http_client import HttpClient, Unreachable
from kinema.serve.jobs import ID, Job, JobError, JobProgress, Signal
from kinema.serve.media import MediaStore
from kinema.serve.queue_leases import Lost
from kinema.serve.results import Made

T = TypeVar("T")
MOST_MEDIA = 4_000_000_000
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
PERSISTENCE = 300.0
"""Seconds for which a finished clip is offered to a server that does not answer."""
OLD, TIDY = 2 * 86400.0, 3600.0
_PLACE = re.compile(r"[0-9a-f]{32}")
_SIGNALS: tuple[Signal, ...] = ("go", "cancel_keep", "cancel_drop", "lost")


class RemoteDesk:
    """A server's jobs, and a folder of this machine for their states and media.

    Args:
        client: of the server.
        folder: made if it is not there; what nobody has used for two days is removed from it.
        loras: paths of this machine, by name.
        sleep: waits so many seconds between two tries.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        client: HttpClient,
        folder: Path,
        loras: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self.loras = client, loras
        self._sleep, self._clock = sleep, clock
        self._states = (folder / "states").absolute()
        for path in (self._states, folder / "media"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place = _place(folder)
        self._media = MediaStore((folder / "media").absolute())
        self._tidy()

    def lease(self, worker: str, seconds: float) -> tuple[Job, str] | None:
        """See `Desk`; when there is nothing to do, once an hour, what is kept here is looked through."""
        asked = {"worker": worker, "seconds": seconds, "place": self._place}
        found = self._client.ask("POST", "/api/workers/lease", asked)
        if found is None:
            if self._clock() >= self._tidied + TIDY:
                self._tidy()
            return None
        try:
            job, token = Job.from_json(found["job"]), str(found["token"])
        except (KeyError, TypeError):
            raise Unreachable("the server's answer has no job; is it of another version?") from None
        if not ID.fullmatch(job.id):  # it becomes a folder's name
            raise MediaError(f"{job.id[:40]!r} is no id of a job.")
        return job, token

    def beat(self, id: str, token: str, progress: JobProgress, preview: bytes | None) -> Signal:
        """See `Desk`; one try, since the next beat is one anyway."""
        told = {"token": token, "progress": progress.to_json()}
        if preview is not None:
            told["preview"] = base64.b64encode(preview).decode()
        try:
            answer = self._client.ask("POST", f"/api/workers/{id}/beat", told) or {}
        except Lost:
            return "lost"
        signal = answer.get("signal")
        if signal not in _SIGNALS:
            raise Unreachable("the server's answer has no signal; is it of another version?")
        return signal

    def finish(self, id: str, token: str, made: Made) -> None:
        """See `Desk`; a try whose answer got lost may have counted, which the next one then finds out."""
        facts = json.dumps({"fps": made.fps, "seed": made.seed, "partial": made.partial})
        fields, tries = {"token": token, "facts": facts}, 0

        def send() -> None:
            nonlocal tries
            tries += 1
            try:
                self._client.send(f"/api/workers/{id}/result", fields, made.file)
            except Lost:
                if tries == 1 or not self._counted(id, made):
                    raise

        self._persist(send, PERSISTENCE)

    def _counted(self, id: str, made: Made) -> bool:
        """Whether the job has such a result, so that an earlier try of ours has arrived."""
        job = self._client.ask("GET", f"/api/jobs/{id}") or {}
        result = job.get("result")
        return result is not None and result.get("partial") == made.partial

    def fail(self, id: str, token: str, error: JobError, *, again: bool) -> None:
        """See `Desk`."""
        told = {"token": token, "error": error.to_json(), "again": again}
        self._persist(lambda: self._client.ask("POST", f"/api/workers/{id}/fail", told), PERSISTENCE)

    def release(self, id: str, token: str) -> None:
        """See `Desk`; the lease ends by itself if the server is not there."""
        told = {"token": token}
        self._persist(lambda: self._client.ask("POST", f"/api/workers/{id}/release", told), 10.0)

    def refuse(self, id: str, token: str, error: JobError) -> None:
        """See `Desk`; others are asked."""
        told = {"token": token, "lacks": error.to_json()}
        self._persist(lambda: self._client.ask("POST", f"/api/workers/{id}/release", told), 10.0)

    def media(self, sha256: str) -> Path:
        """See `Desk`."""
        if not self._media.has(sha256):
            self._persist(lambda: self._fetch(sha256), PERSISTENCE)
        path = self._media.path(sha256)
        os.utime(path)  # it is used again: not old any more
        return path

    def _fetch(self, sha256: str) -> None:
        try:
            self._media.receive(self._client.pieces(f"/api/media/{sha256}"), most=MOST_MEDIA, sha256=sha256)
        except Lost:
            raise MediaError(f"media:{sha256} is not on the server any more; upload it again.") from None

    def folder(self, id: str) -> Path:
        """See `Desk`."""
        return self._states / id

    def forget(self, id: str) -> None:
        """See `Desk`."""
        shutil.rmtree(self._states / id, ignore_errors=True)

    def _persist(self, call: Callable[[], T], seconds: float) -> T:
        """Call again while the server does not answer, at longer and longer intervals."""
        until, pause = self._clock() + seconds, FIRST_PAUSE
        while True:
            try:
                return call()
            except Unreachable:
                if self._clock() + pause > until:
                    raise
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _tidy(self) -> None:
        """Remove what other jobs have left here long ago."""
        self._tidied, before = self._clock(), time.time() - OLD
        for path in self._states.iterdir():
            with suppress(OSError):  # another worker of this folder has just removed it
                if _written(path) < before:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        self._media.collect((), OLD)


def _place(folder: Path) -> str:
    """What a server knows this folder by, whatever its workers are called: drawn once, and kept."""
    path, new = folder / "place", folder / f".place-{secrets.token_hex(8)}"
    try:
        new.write_text(secrets.token_hex(16))
        with suppress(OSError):  # one is there already, or this disk has no links
            os.link(new, path)
        if not path.exists() or not _PLACE.fullmatch(path.read_text(errors="replace")):
            new.replace(path)
        return path.read_text()
    finally:
        new.unlink(missing_ok=True)


def _written(path: Path) -> float:
    """When anything in it was written last; a folder's own time does not change with the files in it."""
    return max(found.lstat().st_mtime for found in (path, *path.rglob("*")))
