"""One writer at a time: a claim on a file that ends with the process that made it, however it ends.

The claim is the kernel's (`flock`), so a killed process holds none and nothing has to be guessed from the age
of a file. What the file says (the process) is only for people. Windows has no such lock; nothing is claimed
there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from types import TracebackType

from kinema.core.errors import BusyError, MediaError
from kinema.core.failpoints import reach

STATE_END, LOCK_END = ".kinema", ".kinema.lock"
# A network file system may know no locks; then there is no claim, rather than no render.
_UNKNOWN = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def try_claim(handle: int) -> bool:
    """Lock an open file or folder for this process; whether that was possible."""
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    return True


def _claimed_soon(handle: int) -> bool:
    """Whether it can be claimed within a moment: whoever removes stale locks holds them that long."""
    for _ in range(5):
        if try_claim(handle):
            return True
        time.sleep(0.02)
    return False


class Lock:
    """A claim on `path`, a small file that exists while it is held; a context manager.

    Args:
        path: the file.
        what: what is claimed, for the message.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
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
            if not _claimed_soon(handle):
                owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                os.close(handle)
                raise BusyError(
                    f"{self.what} is being written by process {owner or 'unknown'}; wait for it, stop it, "
                    "or choose another name."
                )
            if not self._is_current(handle):  # its holder removed the file between our two calls
                os.close(handle)
                continue
            self._handle = handle
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        reach("lock.taken")

    def release(self) -> None:
        """Give up the claim and remove the file."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = None

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False
