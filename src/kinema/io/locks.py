"""One writer at a time: a claim on a file that ends with the process that made it, however it ends.

The claim is the kernel's (`flock`), so a killed process holds none and nothing has to be guessed from the age
of a file. What the file says (the process) is only for people. Windows and some network file systems have no
such lock: nothing is claimed there, and nothing that another process may be using is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from enum import Enum
from pathlib import Path
from types import TracebackType

from kinema.core.errors import BusyError, MediaError
from kinema.core.failpoints import reach

STATE_END, LOCK_END = ".kinema", ".kinema.lock"
# A network file system may know no locks; then there is no claim, rather than no render.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Claim(Enum):
    """What came of asking for a lock; `UNKNOWN` where there are none, so that anyone may be at work."""

    OURS = "ours"
    BUSY = "busy"
    UNKNOWN = "unknown"


def try_claim(handle: int) -> Claim:
    """Lock an open file or folder for this process, if nobody else has and the file system can."""
    if os.name != "posix":
        return Claim.UNKNOWN
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Claim.BUSY
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return Claim.UNKNOWN
    return Claim.OURS


def _claimed_soon(handle: int) -> Claim:
    """What it is within a moment: whoever removes stale locks holds them that long."""
    for _ in range(5):
        if (claim := try_claim(handle)) is not Claim.BUSY:
            return claim
        time.sleep(0.02)
    return Claim.BUSY


class Lock:
    """A claim on `path`, a small file that exists while it is held; a context manager.

    Args:
        path: the file.
        what: what is claimed, for the message.

    Attributes:
        sure: whether it is held and keeps others out; False where the file system has no locks.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self.sure = False
        self._handle: int | None = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Claim; `BusyError` that names the process which has it, `MediaError` that says why it cannot be."""
        while self._handle is None:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise MediaError(f"cannot write {str(self.path)!r}: {error.strerror}.") from None
            try:
                claim = self._claim(handle)
            except BaseException:
                os.close(handle)
                raise
            if not self._is_current(handle):  # its holder removed the file between our two calls
                os.close(handle)
                continue
            self._handle, self.sure = handle, claim is Claim.OURS
            with contextlib.suppress(OSError):  # a full disk has no room for the word to people
                os.ftruncate(handle, 0)
                os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        reach("lock.taken")

    def _claim(self, handle: int) -> Claim:
        try:
            claim = _claimed_soon(handle)
        except OSError as error:
            raise MediaError(
                f"cannot lock {str(self.path)!r}: {error.strerror}; choose another folder."
            ) from None
        if claim is Claim.BUSY:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise BusyError(
                f"{self.what} is being written by process {owner or 'unknown'}; wait for it, stop it, "
                "or choose another name."
            )
        return claim

    def release(self) -> None:
        """Give up the claim and remove the file."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle, self.sure = None, False

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False
