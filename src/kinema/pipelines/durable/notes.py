"""What happened on the way to a shot's frames, kept so that a later process tells it and records it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kinema.core.errors import ConfigError
from kinema.pipelines.durable.store import read_facts, write_facts


class Notes:
    """One line each, in the order in which they were first told.

    Args:
        path: the file; it need not exist.
        complain: told in one line that it is damaged.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._path = path
        self._kept = _read(path, complain)
        self._told: set[str] = set()
        self._new = False

    @property
    def kept(self) -> tuple[str, ...]:
        """All of them, of earlier processes too."""
        return tuple(self._kept)

    def tell(self, text: str) -> bool:
        """Remember a line; whether this process has not told it before."""
        if text not in self._kept:
            self._kept.append(text)
            self._new = True
        news = text not in self._told
        self._told.add(text)
        return news

    def write(self, *, durable: bool) -> None:
        """Bring the file up to date: before any state that comes after what they tell of."""
        if self._new:
            write_facts(self._path, {"notes": self._kept}, point="step", durable=durable)
            self._new = False


def _read(path: Path, complain: Callable[[str], None]) -> list[str]:
    try:
        return [str(text) for text in (read_facts(path) or {}).get("notes", ())]
    except ConfigError as error:
        complain(f"{error} What it told of the run is not in the record.")
        return []
