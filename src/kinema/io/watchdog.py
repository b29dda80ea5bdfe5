"""Bounds on a decoder that reads a stranger's file: time without an answer, memory, and what it may write."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from types import TracebackType

MOST_MEMORY = 4 << 30
MOST_WRITTEN = 64 << 20  # its messages; frames leave through a pipe, which does not count
_HEARTBEAT = 0.5


class Watchdog:
    """Kills a process that lets its reader wait for longer than `seconds`; a context manager.

    The reader says when it begins to wait and when it has got something, so that its own pauses do not count.

    Attributes:
        barked: whether the process was killed.
    """

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.barked = False
        self._process = process
        self._seconds = seconds
        self._deadline = math.inf
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kinema-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def wait(self) -> None:
        """The reader begins to wait."""
        self._deadline = time.monotonic() + self._seconds

    def rest(self) -> None:
        """The reader has got something."""
        self._deadline = math.inf

    def _watch(self) -> None:
        while not self._over.wait(min(_HEARTBEAT, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                self.barked = True
                self._process.kill()
                return


def limit_resources(process: subprocess.Popen[bytes]) -> None:
    """Bound the memory and the files of a running process, where the system can (Linux)."""
    if sys.platform != "linux":
        return
    import resource

    for kind, most in ((resource.RLIMIT_DATA, MOST_MEMORY), (resource.RLIMIT_FSIZE, MOST_WRITTEN)):
        try:
            _, hard = resource.prlimit(process.pid, kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(process.pid, kind, (most, hard))
        except ProcessLookupError:  # it has ended already
            return
