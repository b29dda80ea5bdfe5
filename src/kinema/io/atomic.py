"""Files that appear whole or not at all: made under another name, then renamed.

The order is: write, flush, fsync the file, `os.replace`, fsync the folder. A process that is killed in
between leaves a file or a folder that no one takes for the result, and that the next writer removes: a
working folder `.kinema-*.partial` belongs to whoever holds the lock on it, and a dead process holds none.
Where a file system has no locks, nobody can tell the dead from the living, and nothing is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kinema.core.errors import MediaError
from kinema.core.failpoints import reach
from kinema.io.locks import LOCK_END, STATE_END, Claim, Lock, try_claim

_NEW, _WORK, _END = ".kinema-new-", ".kinema-", ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class TakenError(MediaError):
    """A name that was free when the work began is taken at its end."""


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists (unless `overwrite`), is no regular file, or lies in no folder."""
    if not path.parent.is_dir():
        raise MediaError(f"cannot write {str(path)!r}: {_no_folder(path)}")
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise MediaError(
            f"cannot write {str(path)!r}: it exists and is not a regular file; choose another name."
        )
    if not overwrite:
        raise MediaError(f"{str(path)!r} exists; choose another name, or add --overwrite (overwrite=True).")


def _no_folder(path: Path) -> str:
    """Why nothing lies there, and what to do."""
    folder = path.parent
    try:
        home = path.expanduser()
    except RuntimeError:  # of a user who does not exist
        home = path
    if home != path and home.parent.is_dir():  # of --out=~/x.mp4 and of quotes a shell opens nothing
        return f"~ was left as it is; write {str(home)!r}."
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if os.path.lexists(there) and not there.is_dir():
        return f"{str(there)!r} is no folder; choose another place."
    return f"the folder {str(folder)!r} does not exist; make it first."


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden working folder inside `folder`, removed with all it holds however the block is left.

    Working folders that dead processes left in `folder` are removed on the way.
    """
    try:
        sweep(folder)
        work, claim = _claimed(folder)
    except OSError as error:
        raise MediaError(
            f"cannot write in {str(folder)!r}: {error.strerror}; choose another folder."
        ) from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(claim)


def sweep(folder: Path) -> None:
    """Remove what the dead left in `folder`: unclaimed working folders and locks, empty state folders."""
    with os.scandir(folder) as entries:
        hidden = [entry for entry in entries if entry.name.startswith(".")]
    for entry in hidden:
        working = entry.name.startswith(_WORK) and entry.name.endswith(_END)
        if working or entry.name.endswith(LOCK_END):
            with contextlib.suppress(OSError):
                _remove_unclaimed(Path(entry.path))
        elif entry.name.endswith(STATE_END):
            path = Path(entry.path)
            with contextlib.suppress(OSError), os.scandir(path) as inside:
                if next(inside, None) is None:
                    with Lock(
                        path.with_name(path.name.removesuffix(STATE_END) + LOCK_END), str(path)
                    ) as lock:
                        if lock.sure:
                            path.rmdir()


def _remove_unclaimed(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        if try_claim(handle) is Claim.OURS and os.path.samestat(os.fstat(handle), path.stat()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(handle)


def _claimed(folder: Path) -> tuple[Path, int]:
    """A new working folder and the handle whose lock keeps it; it has its final name only once it is locked,
    so that no one sweeps it up while it is still unclaimed.
    """
    while True:
        new = Path(tempfile.mkdtemp(prefix=_NEW, suffix=_END, dir=folder)).absolute()
        with contextlib.suppress(FileNotFoundError):  # a sweeper was quicker than our lock
            handle = os.open(new, os.O_RDONLY)
            if try_claim(handle) is not Claim.BUSY:
                work = new.with_name(_WORK + new.name.removeprefix(_NEW))
                try:
                    return new.rename(work), handle
                except OSError:
                    os.close(handle)
                    raise
            os.close(handle)


def cannot_write(path: Path, error: OSError) -> MediaError:
    """What is said when the system does not let a file be written."""
    way = "make room, or choose another folder" if error.errno in _FULL else "choose another folder"
    return MediaError(f"cannot write {str(path)!r}: {error.strerror or error}; {way}.")


def publish(staged: Path, target: Path, *, overwrite: bool) -> None:
    """Move a finished file to its final name, durably: file first, then the name, then the folder.

    Raises:
        TakenError: something has that name meanwhile, and may not be replaced; the file has a free one.
        MediaError: it cannot be written.
    """
    try:
        publish_all({staged: target}, overwrite=overwrite)
    except TakenError:
        raise TakenError(taken(target, set_aside(staged, target))) from None


def publish_all(files: Mapping[Path, Path], *, overwrite: bool) -> None:
    """Give finished files, and folders of them, their final names, in this order.

    All are on the disk before the first has its name. Without `overwrite` nothing is ever replaced, and
    where one name is taken, none of them is used; the files are then where they were.

    Raises:
        TakenError: something has one of the names.
        MediaError: one cannot be written.
    """
    given: list[tuple[Path, Path]] = []
    name = next(iter(files.values()))  # for messages
    try:
        for staged in files:
            sync(staged)
            reach("publish.synced")
        for staged, name in files.items():
            _place(staged, name, overwrite=overwrite)
            given.append((staged, name))
            reach("publish.renamed")
        for folder in dict.fromkeys(target.parent for target in files.values()):
            sync(folder)
    except TakenError:
        for staged, target in given:
            _take_back(staged, target)
        raise
    except OSError as error:
        raise cannot_write(name, error) from None


def set_aside(staged: Path, target: Path) -> Path:
    """Give a finished file or folder a free name beside the one that it cannot have: `fox-2.mp4`."""
    number = 2
    while True:
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
        try:
            _place(staged, free, overwrite=False)
            sync(free.parent)
            return free
        except TakenError:
            number += 1
        except OSError as error:
            raise cannot_write(free, error) from None


def taken(target: Path, instead: Path) -> str:
    """What is said of a name that was free when the work began."""
    return (
        f"{str(target)!r} has appeared meanwhile and is left alone; what was made here is {str(instead)!r}."
    )


def _place(staged: Path, target: Path, *, overwrite: bool) -> None:
    """Name a file; what stands there is replaced only with `overwrite`, and a folder with something in it
    never.
    """
    if staged.is_dir():
        try:
            staged.replace(target)
        except OSError as error:
            if error.errno in _THERE:
                raise TakenError(f"{str(target)!r} exists.") from None
            raise
    elif overwrite:
        staged.replace(target)
    else:
        try:
            os.link(staged, target)
        except FileExistsError:
            raise TakenError(f"{str(target)!r} exists.") from None
        except OSError:  # a file system without links can only be asked first
            if os.path.lexists(target):
                raise TakenError(f"{str(target)!r} exists.") from None
            staged.replace(target)


def _take_back(staged: Path, target: Path) -> None:
    """Undo `_place` without `overwrite`, unless the file has been replaced since."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(staged):
            target.replace(staged)
        elif os.path.samestat(staged.stat(), target.stat()):
            target.unlink()


def write_whole(path: Path, data: bytes, *, point: str, durable: bool = True) -> None:
    """Replace a file that only one process writes by new content; readers see the old or the new, whole.

    Args:
        path: the file; `path` + `.new` is used on the way.
        data: all of it.
        point: the fail points' name for this kind of file.
        durable: also wait for the disk, so that a power cut cannot undo it.
    """
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data[: len(data) // 2])
        reach(f"{point}.half")
        file.write(data[len(data) // 2 :])
        reach(f"{point}.written")
        file.flush()
        if durable:
            os.fsync(file.fileno())
    reach(f"{point}.synced")
    new.replace(path)
    reach(f"{point}.renamed")
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file's or folder's data to the disk (folders only where the system can open them)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
