"""Progress on a terminal, or as lines of JSON for a program."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any

from kinema.core.contracts import Phase, Progress
from kinema.core.errors import unknown_name

WORDS: dict[Phase, str] = {
    "load": "loading",
    "text": "reading the prompt",
    "encode": "encoding",
    "denoise": "denoising",
    "decode": "decoding",
    "write": "writing",
}


class Reporter:
    """Draws events; a context manager, since a bar has to be closed.

    Args:
        format: `text` or `json`.
        quiet: draw nothing.
    """

    def __init__(self, format: str, *, quiet: bool) -> None:
        if format not in ("text", "json"):
            raise unknown_name("format", format, ["text", "json"])
        self.json, self.quiet = format == "json", quiet
        self._bar: Any = None
        self._phase: Phase | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, event: Progress) -> None:
        """Report one event."""
        if self.json:
            data = {"phase": event.phase, "step": event.step, "steps": event.steps, "sigma": event.sigma}
            print(json.dumps({"event": "progress", **data}), flush=True)
        elif not self.quiet and sys.stderr.isatty():
            self._draw(event)

    def say(self, text: str, **data: Any) -> None:
        """A line for the user, or an event named by `event` with `data` for a program."""
        if self.json:
            print(json.dumps({"event": "note", "text": text, **data}), flush=True)
        elif not self.quiet:
            self._close()
            print(text, flush=True)

    def _draw(self, event: Progress) -> None:
        from tqdm import tqdm

        if event.phase != self._phase:
            self._close()
            self._phase = event.phase
            self._bar = tqdm(total=event.steps, desc=WORDS[event.phase], leave=False, file=sys.stderr)
        self._bar.update(event.step - self._bar.n)
        if event.step >= event.steps:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._phase = None
