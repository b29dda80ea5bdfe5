"""What scripts have in common with `kinema`'s verbs: one line for what a user can mend, and clean stops."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from kinema.core.errors import KinemaError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_script(main: Callable[[], int | None]) -> int:
    """The exit code of a script: 2 after one line on stderr for a `KinemaError` or what the disk refuses.

    Anything else that goes wrong is a bug and keeps its traceback.

    Args:
        main: does the work; returns the exit code, None for 0.
    """
    try:
        return main() or 0
    except KinemaError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {str(error.filename)!r}: {error.strerror.lower()}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    return 2


class Stop:
    """Listens for signals while it is entered, so that a step can end and be saved.

    Ctrl-C twice stops at once.

    Attributes:
        asked: the first signal that came; None while none has.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def code(self) -> int:
        """The exit code by the shell's convention, 0 where nothing came."""
        return 0 if self.asked is None else 128 + self.asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # torchrun answers Ctrl-C with a SIGTERM of its own: only the same key again is impatience.
        if self.asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.asked = self.asked or number
