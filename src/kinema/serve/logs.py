"""One JSON object a line on stderr: what was asked, what was answered, how long it took; never a prompt."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

LOG = logging.getLogger("kinema.serve")
_SECRET_KEYS = frozenset({"token", "authorization", "cookie", "prompt", "query"})


class JsonLines(logging.Formatter):
    """Each record as one line of JSON; `extra={"facts": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = getattr(record, "facts", {})
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: value for name, value in facts.items() if name not in _SECRET_KEYS},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def log(level: int, event: str, **facts: Any) -> None:
    """Write one line, if that level is wanted."""
    if LOG.isEnabledFor(level):
        LOG.log(level, event, extra={"facts": facts})


def write_logs(level: int = logging.INFO) -> None:
    """Send the lines of this package, and what uvicorn says is wrong, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, least in (("kinema", level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False
