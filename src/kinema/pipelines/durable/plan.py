"""One shot's kept state: where its sampling stands, its finished latents, its frames and notes so far.

The folder is named by the render's key (see `durable.key`), so nothing of another plan, of other weights or
of another version can be taken for it. Every file in it is whole and unchanged, or is not used.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import ConfigError, MediaError
from kinema.core.failpoints import reach
from kinema.io.journal import FrameJournal
from kinema.pipelines.durable.notes import Notes
from kinema.pipelines.durable.pace import Pace
from kinema.pipelines.durable.store import read_snapshot, write_snapshot
from kinema.pipelines.memory import FRAMES, Snapshot


class Place:
    """The `Memory` of one plan, in a folder; and the keeper of its frames.

    Args:
        folder: of this plan; made when the first thing is kept.
        key: the render's identity.
        frames: how many frames the plan gives.
        pace: when a state that may be written has to be.
        begin: called before the first write, to make the job's folder.
        note: told in one line what could not be used or kept.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        *,
        frames: int,
        pace: Pace,
        begin: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.key, self.frames = folder, key, frames
        self._pace, self._begin, self._note = pace, begin, note
        self._journal: FrameJournal | None = None
        self._notes: Notes | None = None
        self._pending: tuple[str, Callable[[], Snapshot]] | None = None
        self._first = 0

    @property
    def journal(self) -> FrameJournal:
        """The frames that are kept."""
        if self._journal is None:
            self._journal = FrameJournal(self.folder / "frames.bin")
        return self._journal

    @property
    def notes(self) -> Notes:
        """What happened on the way."""
        if self._notes is None:
            self._notes = Notes(self.folder / "notes.json", self._note)
        return self._notes

    @property
    def complete(self) -> bool:
        """Every frame is kept."""
        return self.journal.count >= self.frames

    # What a loop asks and tells

    def recall(self, name: str) -> Snapshot | None:
        """The snapshot, if it is whole and all frames before it are kept; a word about one that is not."""
        try:
            snapshot = read_snapshot(self.folder / f"{name}.state", self.key)
        except ConfigError as error:
            self._note(f"{error} It is left out, and its work done again.")
            return None
        if snapshot is None:
            return None
        first, count = int(snapshot.facts.get(FRAMES, 0)), self.journal.count
        if first > count:
            self._note(f"of {first} frames in {str(self.folder)!r} only {count} are whole; it begins anew.")
            return None
        self._first = first
        return snapshot

    def offer(self, name: str, make: Callable[[], Snapshot]) -> None:
        """Keep a state if it is time to; else it waits, for `flush`."""
        self._pending = (name, make)
        self._pace.step()
        if self._pace.due():
            self.flush()

    def settle(self, name: str, snapshot: Snapshot) -> None:
        """Keep a result at once; waiting states are of no use any more."""
        self._pending = None
        self._write(name, snapshot, "latents")

    def flush(self) -> None:
        """Keep the last state that was offered."""
        if self._pending is None:
            return
        name, make = self._pending
        snapshot = make()
        if int(snapshot.facts.get(FRAMES, 0)) > self.journal.count:
            return  # its frames are on their way; `keep` comes back
        self._pending = None
        self._write(name, snapshot, "step")

    def _write(self, name: str, snapshot: Snapshot, point: str) -> None:
        began = time.perf_counter()
        try:
            self._make_folder()
            self.notes.write(durable=self._pace.lasting)
            if self._pace.lasting and FRAMES in snapshot.facts:
                self.journal.sync()
            path = self.folder / f"{name}.state"
            write_snapshot(path, snapshot, self.key, point=point, durable=self._pace.lasting)
        except OSError as error:
            self._note(f"the state cannot be kept ({error.strerror or error}); the render goes on without.")
        self._pace.wrote(time.perf_counter() - began)

    # Frames

    def keep(self, frames: Iterable[np.ndarray], on_progress: OnProgress) -> Iterator[np.ndarray]:
        """Every frame of the plan: those kept that the loop does not give again, then the loop's own.

        Frames that are kept already and given again are compared; where they differ, the new ones replace
        them, since frames of two runs do not belong together.
        """
        if self.complete:
            for index, frame in enumerate(self.journal.read(), start=1):
                on_progress(Progress("write", index, self.frames))
                yield frame
            return
        yield from self.journal.read(self._first)
        self._make_folder()
        kept = self.journal.read()
        for _ in range(self._first):
            next(kept)
        same = self.journal.count
        for index, frame in enumerate(frames, start=self._first):
            if index < same and not np.array_equal(next(kept), frame):
                self._note(f"kept frames from {index} on differ from this run's; they are made again.")
                self.journal.truncate(index)
                same = index
            if index >= self.journal.count:
                self._append(frame)
            yield frame
        self._finish()

    def _append(self, frame: np.ndarray) -> None:
        began = time.perf_counter()
        try:
            self.notes.write(durable=self._pace.lasting)
            self.journal.append(frame, deflate=self._pace.roomy)
        except OSError as error:
            raise MediaError(
                f"cannot keep frame {self.journal.count} in {str(self.folder)!r}: {error.strerror}; "
                "make room, or choose another state folder."
            ) from None
        if self._pending is not None and self._pace.due():
            self.flush()
        self._pace.wrote(time.perf_counter() - began, frame=True)

    def _finish(self) -> None:
        if self._pace.lasting:
            self.journal.sync()
        reach("frames.synced")
        self.journal.close()
        self._pending = None

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self._begin()
            self.folder.mkdir(exist_ok=True)

    def close(self) -> None:
        """Close what is open; everything stays on disk."""
        if self._journal is not None:
            if self._pace.lasting:
                with contextlib.suppress(OSError):
                    self._journal.sync()
            self._journal.close()
            self._journal = None

    def discard(self) -> None:
        """Remove everything."""
        self.close()
        self._notes, self._pending, self._first = None, None, 0
        shutil.rmtree(self.folder, ignore_errors=True)
