"""Which weights made a clip: sha256 of every file of a model's folder, read once and remembered.

A folder of 28 GB takes minutes to read. Its hashes are kept in the user's cache folder beside size and time
of change of every file, and are computed again when any of these differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kinema.core.places import cache_folder
from kinema.io.atomic import publish, staging
from kinema.models.weights import file_hashes, tells


def cached_hashes(folder: Path, more: Sequence[Path] = ()) -> dict[str, str]:
    """`models.weights.file_hashes(folder)`, without reading weights that were read before.

    Args:
        folder: of a checkpoint.
        more: files outside it that belong to the model too, hashed under their names.
    """
    folder = folder.resolve()
    found = _remembered(folder, _stamps(folder), lambda: file_hashes(folder))
    for path in more:
        stat = path.stat()
        stamp = {path.name: [stat.st_size, stat.st_mtime_ns]}
        found |= _remembered(path.resolve(), stamp, partial(_hashed, path))
    return found


def _hashed(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {path.name: hashlib.file_digest(file, "sha256").hexdigest()}


def _remembered(
    what: Path, files: dict[str, list[int]], compute: Callable[[], dict[str, str]]
) -> dict[str, str]:
    """Hashes as they were written down when the files were as they are now, or computed and written down."""
    place = cache_folder() / "hashes" / f"{hashlib.sha256(str(what).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(place.read_text(encoding="utf-8"))
        if kept["files"] == files:
            return {str(name): str(digest) for name, digest in kept["hashes"].items()}
    hashes = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the clip
        place.parent.mkdir(parents=True, exist_ok=True)
        with staging(place.parent) as work:
            (work / place.name).write_text(json.dumps({"files": files, "hashes": hashes}), encoding="utf-8")
            publish(work / place.name, place, overwrite=True)
    return hashes


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change (ns) of every file that is hashed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if tells(path) and path.is_file():
            stat = path.stat()
            found[path.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return found
