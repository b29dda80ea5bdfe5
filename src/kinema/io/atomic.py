"""Files that appear whole or not at all: made in a hidden folder beside the target, then renamed.

The order is: write, flush, fsync the file, `os.replace`, fsync the folder. A process that is killed in
between leaves at most one folder named `.kinema-*.partial`, never half a file under the final name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinema.core.errors import MediaError


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists (unless `overwrite`), is no regular file, or lies in no folder."""
    if not path.parent.is_dir():
        raise MediaError(
            f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist; make it first."
        )
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise MediaError(
            f"cannot write {str(path)!r}: it exists and is not a regular file; choose another name."
        )
    if not overwrite:
        raise MediaError(f"{str(path)!r} exists; choose another name or allow overwriting.")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden working folder inside `folder`, removed with all it holds however the block is left."""
    try:
        work = Path(tempfile.mkdtemp(prefix=".kinema-", suffix=".partial", dir=folder)).absolute()
    except OSError as error:
        raise MediaError(
            f"cannot write in {str(folder)!r}: {error.strerror}; choose another folder."
        ) from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def publish(staged: Path, target: Path) -> None:
    """Move a finished file to its final name, durably: file first, then the name, then the folder."""
    try:
        sync(staged)
        staged.replace(target)
        sync(target.parent)
    except OSError as error:
        raise MediaError(f"cannot write {str(target)!r}: {error.strerror}.") from None


def sync(path: Path) -> None:
    """Flush a file's or folder's data to the disk (folders only where the system can open them)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
