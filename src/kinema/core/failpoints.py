"""Places where a test may end the process as a power cut would, between any two steps of durable work.

    KINEMA_FAILPOINT=frame.written        die by SIGKILL when that point is first reached
    KINEMA_FAILPOINT=frame.written:7      at the seventh time
    KINEMA_FAILPOINT=frame.written:7:full raise ENOSPC there instead, as a full disk does

`POINTS` and `SERVER_POINTS` name them all, so that tests can visit every one. Unset, a point costs one look
at a cached value.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from kinema.core.errors import ConfigError, unknown_name

VARIABLE = "KINEMA_FAILPOINT"

_STAGES = {
    "half": "half of the new file is written",
    "written": "the new file is written, not yet on the disk",
    "synced": "the new file is on the disk under its temporary name",
    "renamed": "the new file has its name, its folder is not yet on the disk",
}
_FILES = {"job": "the job's file", "step": "a sampler's or engine's state", "latents": "finished latents"}

POINTS: Mapping[str, str] = MappingProxyType(
    {
        "lock.taken": "the claim on the output was just made",
        **{
            f"{kind}.{at}": f"{what}: {text}" for kind, what in _FILES.items() for at, text in _STAGES.items()
        },
        "frame.half": "half of a frame is appended",
        "frame.written": "a frame is appended, not yet on the disk",
        "frames.synced": "all frames of a shot are on the disk",
        "encode.begun": "the encoder runs and has no frame",
        "encode.frame": "the encoder has got a frame",
        "encode.done": "the encoded file is whole in its working folder",
        "publish.marked": "the job's file tells what is about to be published",
        "publish.synced": "a finished file is on the disk under its temporary name",
        "publish.renamed": "a finished file has its final name, its folder is not yet on the disk",
        "publish.done": "every file has its final name",
        "clean.begun": "nothing of the kept state is removed yet",
        "clean.shots": "the shots' states are removed, the job's file is there",
        "clean.job": "the job's file is removed, its folder is there",
        "clean.done": "the state folder is removed",
    }
)

SERVER_POINTS: Mapping[str, str] = MappingProxyType(
    {
        "media.written": "an upload is whole under a temporary name",
        "worker.leased": "a worker has a job and nothing of it is done",
        "worker.rendered": "the clip is whole in the worker's folder, and its state is removed",
        "result.staged": "the result and its pictures lie beside their final places, on the disk",
        "result.renamed": "they have their final names, and the queue does not know it yet",
        "result.committed": "the job is done, and the worker's folder is still there",
    }
)
"""Those of a server's workers, which renders do not pass."""

_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Say that execution is at the point `name`; returns, unless a test wants to die here."""
    armed = _armed()
    if armed is None:
        return
    assert name in POINTS or name in SERVER_POINTS, name
    wanted, count, how = armed
    if name != wanted:
        return
    _reached[name] += 1
    if _reached[name] == count:
        if how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), signal.SIGKILL)


@cache
def _armed() -> tuple[str, int, str] | None:
    """What the environment asks for: point, at which visit, `kill` or `full`."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    name, _, rest = text.partition(":")
    count, _, how = rest.partition(":")
    if name not in POINTS and name not in SERVER_POINTS:
        raise unknown_name(VARIABLE, name, [*POINTS, *SERVER_POINTS])
    if (count and not count.isdigit()) or how not in ("", "kill", "full"):
        raise ConfigError(f"{VARIABLE}={text!r} is not NAME, NAME:COUNT or NAME:COUNT:kill|full.")
    return name, int(count or 1), how or "kill"
