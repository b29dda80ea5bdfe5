"""Commands in processes of their own that die, run out of room, or are interrupted, at a chosen moment.

The process is forked, so that it need not import torch again: a hundred kills take a minute, not an hour.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import kinema.cli
from kinema.core import failpoints


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, or minus the signal; and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Running:
    """A forked command."""

    pid: int
    said: Path

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        out, err = (self.said / f"{name}.txt" for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())


def start(
    argv: Sequence[str], said: Path, *, point: str | None = None, prepare: Callable[[], None] | None = None
) -> Running:
    """Begin `kinema argv` in the current folder.

    Args:
        argv: the command.
        said: an existing folder for what it says.
        point: value for the fail point's variable.
        prepare: called in the new process first.
    """
    pid = os.fork()
    if pid:
        return Running(pid, said)
    code = 1
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(said / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        os.environ.pop(failpoints.VARIABLE, None)
        if point is not None:
            os.environ[failpoints.VARIABLE] = point
        failpoints._armed.cache_clear()
        failpoints._reached.clear()
        if prepare is not None:
            prepare()
        code = kinema.cli.run(list(argv))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(argv: Sequence[str], said: Path, **options) -> Ended:
    """`start`, and wait."""
    return start(argv, said, **options).wait()


def killed_after(seconds: float, argv: Sequence[str], said: Path) -> Ended:
    """Run, with SIGKILL after a while."""
    process = start(argv, said)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    return process.wait()


def largest_file(size: int) -> Callable[[], None]:
    """For `prepare`: no file may grow above `size` bytes; writing more fails as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def most_memory(more: int) -> Callable[[], None]:
    """For `prepare`: `more` bytes of address space above what is in use."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))

    return limit
