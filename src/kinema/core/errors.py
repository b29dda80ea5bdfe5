"""Every error a user of kinema can cause. Anything else that escapes is a bug in kinema.

Each message is one line: the value, the rule it breaks, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class KinemaError(Exception):
    """Base class: `except KinemaError` catches what the caller can fix, and nothing else."""


class ConfigError(KinemaError, ValueError):
    """A setting is missing, unknown or out of range."""


class GeometryError(KinemaError, ValueError):
    """The requested size or length does not fit the model's grid."""


class MediaError(KinemaError, OSError):
    """An image or a video cannot be read or written."""


class BusyError(MediaError):
    """Another process is writing the same file."""


class ModelError(KinemaError, RuntimeError):
    """A checkpoint is missing, damaged, of the wrong kind, or cannot do what was asked."""


class NumericError(KinemaError, ArithmeticError):
    """Values stopped being finite in the middle of a render."""


class ResourceError(KinemaError, MemoryError):
    """The machine has not enough memory for what was asked."""


@contextmanager
def about(setting: str) -> Iterator[None]:
    """What is wrong with a value inside is said under the name of its setting."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{setting}: {error}") from None


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> ConfigError:
    """One wording for every failed look-up by name."""
    choices = sorted(choices)
    folded = {choice.casefold(): choice for choice in choices}
    close = get_close_matches(str(name).casefold(), folded, n=1)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    return ConfigError(f"unknown {kind} {name!r}.{hint} Available: {', '.join(choices)}.")
