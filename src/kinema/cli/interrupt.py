"""Ctrl-C: the first lets the step end and keeps what is made, the second stops at once.

SIGTERM and a closed terminal (SIGHUP) count like Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

from kinema.core.contracts import OnProgress, Progress

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def listen() -> None:
    """Let Ctrl-C be an exception; while torch is being imported, where one would abort, the process's end."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _early)


def leave() -> None:
    """Let Ctrl-C end the process where it stands: all is said and written, and its end may take a while."""
    if signal.getsignal(signal.SIGINT) is _early:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _early(number: int, frame: FrameType | None) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and getattr(torch.__spec__, "_initializing", False):
        os.write(sys.stderr.fileno(), b"interrupted; nothing was written.\n")
        os._exit(128 + number)  # nothing has been begun: models and files come after it
    raise KeyboardInterrupt


class Stopped(KeyboardInterrupt):
    """The user's wish to stop, at a point where that is safe."""


class Interrupted(Exception):
    """A command that was stopped: what to say, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interrupts:
    """Listens for signals while it is entered; as `on_progress` it passes events on, or stops the render.

    Args:
        inner: who draws the events.
        quiet: say nothing when the first signal comes.

    Attributes:
        asked: the first signal that came; None while none has.
    """

    def __init__(self, inner: OnProgress, *, quiet: bool) -> None:
        self._inner, self._quiet = inner, quiet
        self._before: dict[int, Any] = {}
        self.asked: int | None = None

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, event: Progress) -> None:
        """Pass an event on; `Stopped` when a signal has come."""
        self._inner(event)
        if self.asked is not None:
            raise Stopped

    @property
    def code(self) -> int:
        """The exit code by the shell's convention: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.asked or signal.SIGINT)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
        if not self._quiet:
            print("\nstopping after this step; once more stops at once.", file=sys.stderr, flush=True)
