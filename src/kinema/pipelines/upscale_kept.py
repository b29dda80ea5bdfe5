"""Frames that a network made larger, kept on disk as they are made, so that none is made twice.

They lie in one hidden file beside the output, which is named by all that decides them: the source, the
network, the size, the software, the kind of device. Whatever ends the process, the same call goes on behind
them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.runtime import resolve_device
from kinema.io.atomic import TakenError
from kinema.io.hidden import lock_of
from kinema.io.journal import FrameJournal
from kinema.io.locks import LOCK_END
from kinema.io.names import frames_of
from kinema.io.sniff import is_folder
from kinema.pipelines.durable.key import versions
from kinema.pipelines.upscale import Enlargement

Frames = Iterator[np.ndarray]
_KEPT_END = ".upscaled"


class KeptFrames:
    """Frames that can be drawn again: those on disk are read, and only the others made.

    Args:
        path: of the file that keeps them; see `kept_path`.
        source: draws what they are made of, from the first on.
        make: makes them, one of each.
        device: where, as asked for; beside a CPU's work it costs nothing to deflate them.
        note: told, in one line, where they can be kept no longer.
    """

    def __init__(
        self,
        path: Path,
        source: Callable[[], Frames],
        make: Callable[[Frames], Frames],
        *,
        device: str,
        note: Callable[[str], None],
    ) -> None:
        self._path, self._source, self._make, self._note = path, source, make, note
        self._deflate = resolve_device(device).type == "cpu"

    def __iter__(self) -> Frames:
        with FrameJournal(self._path) as journal:
            yield from journal.read()
            room = True
            for frame in self._make(islice(self._source(), journal.count, None)):
                room = room and self._append(journal, frame)
                yield frame

    def _append(self, journal: FrameJournal, frame: np.ndarray) -> bool:
        try:
            journal.append(frame, deflate=self._deflate)
        except OSError as error:
            self._note(f"frames cannot be kept any longer: {error.strerror}; the work goes on without.")
            return False
        return True


@contextmanager
def keeping(out: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Claim an output while it is made of kept frames, which are removed once it is there.

    Raises:
        BusyError: another process is making it.
    """
    with lock_of(out):
        try:
            yield
        except TakenError:  # the file is whole all the same, under another name
            _remove_all(out)
            raise
        except BaseException:
            if any(_all_kept(out)):
                note("the frames so far are kept; the same command goes on behind them.")
            raise
        _remove_all(out)


def kept_path(out: Path, key: str) -> Path:
    """The file beside an output that keeps the frames of this key."""
    lock = lock_of(out).path
    return lock.parent / f"{lock.name.removesuffix(LOCK_END)}-{key[:24]}{_KEPT_END}"


def _all_kept(out: Path) -> list[Path]:
    """Those of all calls for this output."""
    lock = lock_of(out).path
    named = re.compile(rf"{re.escape(lock.name.removesuffix(LOCK_END))}-[0-9a-f]{{24}}{_KEPT_END}")
    return [path for path in lock.parent.iterdir() if named.fullmatch(path.name)]


def _remove_all(out: Path) -> None:
    for path in _all_kept(out):
        path.unlink()


def has_room(path: Path, size: int) -> bool:
    """Whether a file of so many bytes leaves half of what is free on its disk to others."""
    return 2 * size <= shutil.disk_usage(path.parent).free


def frames_key(path: Path, how: Enlargement, counts: np.ndarray, device: str) -> str:
    """sha256 of all that decides the frames of a clip on disk.

    Args:
        path: of the clip: a file, a folder of pictures, or a pattern of numbered ones.
        how: its frames are made larger, with a network.
        counts: how often each is shown; those that are not are not made.
        device: where the network runs, as asked for.
    """
    facts: dict[str, Any] = {
        "source": [(file.name, _hash(file)) for file in _files(path)],
        "network": how.sha256,
        "size": [*how.size, *how.new_size],
        "method": how.method,
        "shown": np.flatnonzero(counts).tolist(),
        "device": resolve_device(device).type,
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    if is_folder(path):
        return sorted(entry for entry in path.iterdir() if entry.is_file())
    return frames_of(path) or [path]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
