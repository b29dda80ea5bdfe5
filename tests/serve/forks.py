"""Functions in processes of their own that die at a fail point; forked: torch is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch

from kinema.core import failpoints


def run(call: Callable[[], object], *, point: str | None = None) -> int:
    """The exit code of `call` in a new process, or minus the signal that ended it."""
    pid = start(call, point=point)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def start(call: Callable[[], object], *, point: str | None = None) -> int:
    """Begin `call` in a new process; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        os.environ.pop(failpoints.VARIABLE, None)
        if point is not None:
            os.environ[failpoints.VARIABLE] = point
        failpoints._armed.cache_clear()
        failpoints._reached.clear()
        call()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
