"""Which checkpoints of the hub lie on this machine: listed, and removed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.pipelines.hub import INDEX, PART, Address


@dataclass(frozen=True, slots=True)
class Downloaded:
    """One commit of a checkpoint.

    Attributes:
        repo: `owner/name`.
        revision: the commit.
        size: bytes on disk.
        complete: whether no download of it stopped in the middle.
    """

    repo: str
    revision: str
    size: int
    complete: bool


def downloaded() -> list[Downloaded]:
    """Checkpoints in diffusers layout, by name; other things in the cache are not ours to speak of."""
    found = []
    for repo in _repos():
        stopped = any(Path(repo.repo_path).glob(f"blobs/*{PART}"))
        found += [
            Downloaded(repo.repo_id, one.commit_hash, one.size_on_disk, not stopped)
            for one in repo.revisions
            if any(file.file_path.name == INDEX for file in one.files)
        ]
    return sorted(found, key=lambda one: (one.repo, one.revision))


def remove(name: str) -> int:
    """Delete a checkpoint from the cache, or the commit that `@revision` names; bytes that were freed.

    Raises:
        ModelError: it is not there.
    """
    address = Address.parse(name)
    repo = next((r for r in _repos() if address is not None and r.repo_id == address.repo), None)
    if address is None or repo is None:
        raise ModelError(f"model {name!r} was not downloaded; kinema models list shows what was.")
    meant = [one.commit_hash for one in repo.revisions if _meant(one, address.revision)]
    if not meant:
        raise ModelError(f"of model {address.repo!r} revision {address.revision!r} was not downloaded.")
    deletion = _cache().delete_revisions(*meant)
    freed = int(deletion.expected_freed_size)
    deletion.execute()
    return freed


def _meant(revision: Any, asked: str | None) -> bool:
    if asked is None:
        return True
    return bool(asked in revision.refs or (len(asked) >= 7 and revision.commit_hash.startswith(asked)))


def _repos() -> list[Any]:
    return [repo for repo in _cache().repos if repo.repo_type == "model"]


def _cache() -> Any:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)  # read now, as `hub` does, not when imported
    except CacheNotFound:
        return _Empty()


class _Empty:
    """A cache that was never made."""

    repos: tuple[()] = ()
