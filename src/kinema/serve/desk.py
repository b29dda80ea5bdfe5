"""Where a worker gets its jobs and hands in what it made: the queue in a folder, or a server elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from kinema.core.errors import MediaError, ModelError
from kinema.serve.folders import Folders
from kinema.serve.jobs import Job, JobError, JobProgress, Signal
from kinema.serve.lending import lend
from kinema.serve.media import MediaStore
from kinema.serve.queue import Queue
from kinema.serve.results import Made, publish


class NotHere(ModelError):
    """A job needs a model or a LoRA that this machine does not have."""


class Desk(Protocol):
    """What a worker asks of it; ids and tokens as in `Leases`."""

    def lease(self, worker: str, seconds: float) -> tuple[Job, str] | None:
        """The next job."""
        ...

    def beat(self, id: str, token: str, progress: JobProgress, preview: bytes | None) -> Signal:
        """Renew the lease and tell how far it is; `preview` is a new one, WebP."""
        ...

    def finish(self, id: str, token: str, made: Made) -> None:
        """Hand in what was made."""
        ...

    def fail(self, id: str, token: str, error: JobError, *, again: bool) -> None:
        """It went wrong."""
        ...

    def release(self, id: str, token: str) -> None:
        """Give it back."""
        ...

    def refuse(self, id: str, token: str, error: JobError) -> None:
        """This machine has not what the job needs."""
        ...

    def media(self, sha256: str) -> Path:
        """A file that a request names; `MediaError` when it is missing."""
        ...

    def folder(self, id: str) -> Path:
        """Where the state of a job is kept; its parent exists."""
        ...

    def forget(self, id: str) -> None:
        """Nothing of the job is needed here any more."""
        ...

    @property
    def loras(self) -> Mapping[str, str]:
        """Paths of LoRAs by name."""
        ...


class LocalDesk:
    """The queue and the files of a data folder.

    Args:
        folders: made already.
        queue: of it.
        loras: paths by name.
        models: that jobs may name; none for all.
    """

    def __init__(
        self, folders: Folders, queue: Queue, loras: Mapping[str, str], models: Collection[str] = ()
    ) -> None:
        self._folders, self._queue, self.loras, self._models = folders, queue, loras, models
        self._media = MediaStore(folders.media)

    def lease(self, worker: str, seconds: float) -> tuple[Job, str] | None:
        """See `Desk`."""
        return lend(self._queue, worker, seconds, self._models)

    def beat(self, id: str, token: str, progress: JobProgress, preview: bytes | None) -> Signal:
        """See `Desk`."""
        if preview is not None:
            show(self._folders, id, preview)
        return self._queue.beat(id, token, progress)

    def finish(self, id: str, token: str, made: Made) -> None:
        """See `Desk`."""
        publish(self._queue, self._folders, id, token, made)

    def fail(self, id: str, token: str, error: JobError, *, again: bool) -> None:
        """See `Desk`."""
        self._queue.fail(id, token, error, again=again)

    def release(self, id: str, token: str) -> None:
        """See `Desk`."""
        self._queue.release(id, token)

    def refuse(self, id: str, token: str, error: JobError) -> None:
        """See `Desk`; what the server's own machine has not, it will not get by waiting."""
        self._queue.fail(id, token, error)

    def media(self, sha256: str) -> Path:
        """See `Desk`."""
        if not self._media.has(sha256):
            raise MediaError(f"media:{sha256} is not here any more; upload it again.")
        return self._media.path(sha256).absolute()

    def folder(self, id: str) -> Path:
        """See `Desk`."""
        return self._folders.state(id).absolute()

    def forget(self, id: str) -> None:
        """See `Desk`."""
        shutil.rmtree(self.folder(id), ignore_errors=True)
        self._folders.preview(id).unlink(missing_ok=True)


def show(folders: Folders, id: str, preview: bytes) -> None:
    """Replace a job's preview; a disk that does not take it is no reason to stop."""
    path = folders.preview(id)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(OSError):
        new.write_bytes(preview)
        new.replace(path)
