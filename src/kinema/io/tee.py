"""Frames that are written to a file on their way: what is drawn goes to a second writer at the same pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Queue
from threading import Thread

import numpy as np

_AHEAD = 2  # frames that the writer may be behind


class _CutOffError(Exception):
    """Whoever drew the frames has stopped before the last one."""


def tee(
    frames: Iterable[np.ndarray], write: Callable[[Iterator[np.ndarray]], object]
) -> Iterator[np.ndarray]:
    """Yield the frames, and give them to `write` too, which runs in a thread of its own.

    When the frames end, so do those of `write`, and it is waited for; what it raised is raised then. When
    whoever draws them stops early, `write` sees an exception, so that it leaves nothing half-made.

    Args:
        frames: drawn once.
        write: takes an iterator of the same frames, to its end.
    """
    channel: Queue[np.ndarray | _CutOffError | None] = Queue(_AHEAD)
    failed: list[BaseException] = []

    def drawn() -> Iterator[np.ndarray]:
        while (frame := channel.get()) is not None:
            if isinstance(frame, _CutOffError):
                raise frame
            yield frame

    def run() -> None:
        try:
            write(drawn())
        except BaseException as error:
            failed.append(error)
            if not isinstance(error, _CutOffError):
                _drain(channel)

    thread = Thread(target=run, name="kinema second writer", daemon=True)
    thread.start()
    last: _CutOffError | None = _CutOffError()
    try:
        for frame in frames:
            channel.put(frame)
            yield frame
        last = None
    finally:
        channel.put(last)
        thread.join()
    if failed:
        raise failed[0]


def _drain(channel: Queue[np.ndarray | _CutOffError | None]) -> None:
    """Take frames until the end, so that the first writer is not held up."""
    while isinstance(channel.get(), np.ndarray):
        continue
