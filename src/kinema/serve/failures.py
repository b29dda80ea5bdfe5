"""What went wrong with a job: a code for programs, a line for people, and whether trying again may help."""

from __future__ import annotations

import errno
import os
import re

from kinema.core.errors import (
    BusyError,
    ConfigError,
    GeometryError,
    KinemaError,
    MediaError,
    ModelError,
    NumericError,
    ResourceError,
)
from kinema.serve.jobs import JobError

_CODES: tuple[tuple[type[KinemaError], str], ...] = (
    (ResourceError, "out_of_memory"),
    (NumericError, "not_finite"),
    (GeometryError, "bad_request"),
    (ConfigError, "bad_request"),
    (ModelError, "bad_model"),
    (MediaError, "bad_media"),
)
_FULL = tuple(os.strerror(code).lower() for code in (errno.ENOSPC, errno.EDQUOT))
_AGAIN = ("internal", "out_of_memory", "busy")
_PARAM = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*)(?:=|: )")


def described(error: Exception) -> JobError:
    """An exception as a job's error; nothing in it tells where files of this machine are."""
    text = " ".join(str(error).split())[:500]
    if any(full in text.lower() for full in _FULL):
        return JobError(code="disk_full", message="the server's disk is full; make room and try again.")
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        said = text if isinstance(error, KinemaError) else "there is not enough memory; ask for less."
        return JobError(code="out_of_memory", message=said)
    if not isinstance(error, KinemaError):
        said = f"this is a bug in kinema ({type(error).__name__}); the server's log tells more."
        return JobError(code="internal", message=said)
    if isinstance(error, BusyError):
        return JobError(code="busy", message="another worker still writes this job; try again.")
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "internal")
    found = _PARAM.match(text)
    return JobError(code=code, message=_without_paths(text), param=found[1] if found else None)


def is_worth_another_try(error: JobError) -> bool:
    """Whether the cause may be gone the next time, or be a bug of ours; what a user wrote stays as it is."""
    return error.code in _AGAIN


def _without_paths(text: str) -> str:
    """File names without the folders they lie in."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+", "", text)
