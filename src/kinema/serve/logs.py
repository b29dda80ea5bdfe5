"""One JSON object a line on stderr: what was asked, what was answered, how long it took; never a prompt.

Server and workers write the same lines. While a job is at work its texts are `hidden`: whatever quotes one,
an error or a library, says `…` in its place.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

LOG = logging.getLogger("kinema.serve")
_SECRET_KEYS = frozenset({"token", "authorization", "cookie", "prompt", "query"})
_TEXTS = frozenset({"prompt", "negative"})
_SHORTEST = 4  # letters of a text that is hidden: shorter ones are parts of ordinary words
_HIDDEN: list[tuple[str, ...]] = []


class JsonLines(logging.Formatter):
    """Each record as one line of JSON; `extra={"facts": {...}}` adds fields.

    Args:
        more: fields of every line.
    """

    def __init__(self, more: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._more = dict(more or {})

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._more,
            **facts_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        shown = {name: without(value) if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(shown, ensure_ascii=True, default=str)


class Words(logging.Formatter):
    """Each record as a line for people: `INFO made job=video_...`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or several with a traceback."""
        facts = "".join(f" {name}={value}" for name, value in facts_of(record).items() if value is not None)
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return without(f"{record.levelname} {record.getMessage()}{facts}{trace}")


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record was given beside its event, without what nobody should read."""
    facts: Mapping[str, Any] = getattr(record, "facts", {})
    return {name: value for name, value in facts.items() if name not in _SECRET_KEYS}


@contextmanager
def hidden(texts: Iterable[str]) -> Iterator[None]:
    """Meanwhile no line of this process holds one of the texts."""
    own = tuple(sorted({text for text in texts if len(text) >= _SHORTEST}, key=len, reverse=True))
    _HIDDEN.append(own)
    try:
        yield
    finally:
        _HIDDEN.remove(own)


def without(line: str) -> str:
    """The line with `…` for what is hidden."""
    for texts in tuple(_HIDDEN):
        for text in texts:
            line = line.replace(text, "…")
    return line


def texts_of(request: Any, *, inside: bool = False) -> Iterator[str]:
    """What a person wrote into a request: its prompts, also where they run over frames."""
    if isinstance(request, str):
        if inside:
            yield request
    elif isinstance(request, Mapping):
        for name, value in request.items():
            yield from texts_of(value, inside=inside or name in _TEXTS)
    elif isinstance(request, list | tuple):
        for value in request:
            yield from texts_of(value, inside=inside)


def log(level: int, event: str, **facts: Any) -> None:
    """Write one line, if that level is wanted."""
    if LOG.isEnabledFor(level):
        LOG.log(level, event, extra={"facts": facts})


def log_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends a process, as a line; for `sys.excepthook`."""
    LOG.critical("bug", exc_info=(kind, error, trace))


def write_logs(level: int = logging.INFO, *, worker: str | None = None, words: bool = False) -> None:
    """Send the lines of this package, and what libraries say is wrong, to stderr.

    Args:
        level: the least that is written of ours.
        worker: stands in every line.
        words: write lines for people.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Words() if words else JsonLines({} if worker is None else {"worker": worker}))
    logging.captureWarnings(True)
    for name, least in (("kinema", level), ("uvicorn", logging.WARNING), ("", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False
