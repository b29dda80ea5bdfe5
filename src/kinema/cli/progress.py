"""Progress on a terminal, or as lines of JSON for a program.

Results go to stdout; notes and bars to stderr. With `json`, everything but errors goes to stdout, one event a
line: `note`, `progress`, `plan`, `done`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from kinema.core.contracts import Phase, Progress
from kinema.core.errors import unknown_name

WORDS: dict[Phase, str] = {
    "fetch": "downloading",
    "load": "loading the model",
    "text": "reading the prompt",
    "encode": "encoding",
    "denoise": "denoising",
    "draw": "drawing",
    "decode": "decoding",
    "interpolate": "interpolating",
    "upscale": "upscaling",
    "write": "writing",
}
BAR = "{desc:<18} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}, {remaining} left"
ONE_STEP = "{desc} ..."


class Reporter:
    """Draws events; a context manager, since a bar has to be closed.

    Args:
        format: `text` or `json`.
        quiet: draw nothing.

    Raises:
        ConfigError: another format.
    """

    def __init__(self, format: str, *, quiet: bool) -> None:
        if format not in ("text", "json"):
            raise unknown_name("format", format, ["text", "json"])
        self.json, self.quiet = format == "json", quiet
        self._bars: dict[tuple[Phase, int], Any] = {}
        self._drawn: tuple[Phase, int] | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, event: Progress) -> None:
        """Report one event."""
        if event.note is not None:
            self.note(event.note)
        if self.json:
            data: dict[str, Any] = {"phase": event.phase, "step": event.step, "steps": event.steps}
            data |= {} if event.sigma is None else {"sigma": event.sigma}
            data |= {"shot": event.shot, "shots": event.shots} if event.shots > 1 else {}
            self.emit("progress", **data)
        elif not self.quiet and sys.stderr.isatty():
            self._draw(event)

    def note(self, text: str) -> None:
        """Something that was changed or rounded, in one line."""
        if self.json:
            self.emit("note", text=text)
        elif not self.quiet:
            self._clear()
            print(f"note: {text}", file=sys.stderr, flush=True)

    def timed(self, seconds: Mapping[Phase, float], *, said: bool) -> dict[str, float]:
        """Where the time went, for `done`; in a note for a person where it is to be `said`."""
        if said and not self.json:
            parts = ", ".join(f"{WORDS[phase]} {spent:.1f}" for phase, spent in seconds.items())
            self.note(f"seconds: {parts}.")
        return {phase: round(spent, 3) for phase, spent in seconds.items()}

    def done(self, text: str, **data: Any) -> None:
        """The result: `text` for a person, `data` for a program."""
        self._close()
        if self.json:
            self.emit("done", **data)
        elif not self.quiet:
            print(text, flush=True)

    def emit(self, event: str, **data: Any) -> None:
        """One line of JSON; not held back by `quiet`, which is for people."""
        print(json.dumps({"event": event, **data}, ensure_ascii=False), flush=True)

    def _draw(self, event: Progress) -> None:
        """Every phase keeps its bar, as phases may take turns at every frame: its time runs on meanwhile."""
        which = event.phase, event.shot
        bar = self._bars.get(which)
        if bar is not None and (event.step < bar.n or event.steps != bar.total):  # it begins anew
            self._clear()
            self._bars.pop(which).close()
            bar = None
        if which != self._drawn:
            self._clear()
            self._drawn = which
        if bar is None:
            self._bars[which] = _bar(event)
        elif event.step > bar.n:
            bar.update(event.step - bar.n)
        else:
            bar.refresh()

    def _clear(self) -> None:
        if self._drawn is not None:
            self._bars[self._drawn].clear()
        self._drawn = None

    def _close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()
        self._drawn = None


def _bar(event: Progress) -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    place = f"shot {event.shot} of {event.shots}: " if event.shots > 1 else ""
    return tqdm(
        total=event.steps,
        initial=event.step,
        desc=place + WORDS[event.phase],
        bar_format=BAR if event.steps > 1 else ONE_STEP,
        leave=False,
        position=0,
        file=sys.stderr,
        mininterval=0,
        miniters=1,
    )
