"""Checkpoints from the hub: the files that are needed and no others, resumed where they stopped, checked.

    fetch("Wan-AI/Wan2.1-T2V-1.3B-Diffusers@main", weights=True)

Files are taken by what `model_index.json` names: configurations, tokenizers and the safetensors of its parts;
never pickles, code, or a second copy of the weights in another precision. They go into the cache that all
libraries of the hub share (`HF_HOME`), and what was left unfinished there is continued. A file that arrives
is compared with the sha256 that the hub has for it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import KinemaError, ModelError, ResourceError

INDEX = "model_index.json"
CONFIGS = (".json", ".txt", ".model")
WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors")
VARIANT = re.compile(
    r"(diffusion_pytorch_model|model)"
    r"(\.(?P<new>fp16|bf16|fp32)(-\d{5}-of-\d{5})?|(-\d{5}-of-\d{5})?\.(?P<old>fp16|bf16|fp32))\.safetensors"
)
VARIANTS = ("fp16", "bf16", "fp32")  # the smallest first
ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/[\w./-]+|[\w.-]+))?")
PART = ".part"  # of a file that is not complete
SPARE = 64 << 20  # bytes of the disk that are left alone
_listener: ContextVar[OnProgress | None] = ContextVar("who is told of downloads", default=None)


@dataclass(frozen=True, slots=True)
class Address:
    """A checkpoint on the hub: `owner/name`, and a branch, tag or commit; None for the default branch."""

    repo: str
    revision: str | None

    @staticmethod
    def parse(name: str) -> Address | None:
        """What `owner/name` or `owner/name@revision` means; None for anything else."""
        found = ADDRESS.fullmatch(name)
        if found is None or name.startswith(".") or found["repo"].endswith(".safetensors"):
            return None
        return Address(found["repo"], found["revision"])

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it; `sha256` is known of large ones."""

    name: str
    size: int
    sha256: str | None


Wanted = Callable[[Sequence[str]], Sequence[str]]
"""Which of a checkpoint's files are needed."""


@contextmanager
def watched(on_progress: OnProgress) -> Iterator[None]:
    """Tell of downloads for as long as the block runs: phase `fetch`, steps in bytes."""
    token = _listener.set(on_progress)
    try:
        yield
    finally:
        _listener.reset(token)


def configurations(names: Sequence[str]) -> list[str]:
    """What a checkpoint says of itself, and its tokenizers."""
    return [n for n in names if (n.endswith(CONFIGS) and n.count("/") <= 1) or n == "SHA256SUMS"]


def variant_of(files: Sequence[str]) -> str | None:
    """The precision in the names of a part's files, such as `fp16`; None where some have none in theirs."""
    if any(WEIGHTS.fullmatch(file) for file in files):
        return None
    there = {found["new"] or found["old"] for file in files if (found := VARIANT.fullmatch(file))}
    return next((variant for variant in VARIANTS if variant in there), None)


def weights_of(parts: Sequence[str], *, variants: bool = False) -> Wanted:
    """Configurations, and the safetensors of these parts; of one file and its shards, the file.

    With `variants`, of a part that has its weights in another precision alone, these.
    """

    def wanted(names: Sequence[str]) -> list[str]:
        there = set(names)
        found = configurations(names)
        for name in names:
            part, _, file = name.rpartition("/")
            if part in parts and (match := WEIGHTS.fullmatch(file)):
                whole = f"{part}/{match[1]}.safetensors"
                if name == whole or whole not in there:
                    found.append(name)
        for part in parts if variants else ():
            files = [name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == part]
            found += [f"{part}/{file}" for file in _in_variant(files)]
        return found

    return wanted


def _in_variant(files: Sequence[str]) -> list[str]:
    """A part's files in the precision that it has alone; a whole one rather than its shards."""
    variant = variant_of(files)
    matched = [(file, found) for file in files if (found := VARIANT.fullmatch(file))]
    mine = [file for file, found in matched if variant in (found["new"], found["old"])] if variant else []
    return [file for file in mine if "-of-" not in file] or mine


def fetch(address: Address, wanted: Wanted, *, local_files_only: bool = False) -> Path:
    """The folder with these files of a checkpoint, of which those that lack are downloaded.

    Offline (`local_files_only`, or `HF_HUB_OFFLINE=1`), and when the hub cannot be reached, it is what the
    cache has.

    Raises:
        ModelError: there is no such checkpoint or revision, it may not be had, or a file arrived damaged.
        ResourceError: the disk has no room for it.
    """
    from huggingface_hub import constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        return _cached(address, "and the hub is not to be asked")
    commit, files = _listed(address)
    if commit is None:
        return _cached(address, "and the hub cannot be reached")
    names = set(wanted([file.name for file in files]))
    chosen = [file for file in files if file.name in names]
    lacking = [file for file in chosen if not _there(address, file, commit)]
    if lacking:
        _check_room(address, lacking)
        _download(address, lacking, commit)
    return _folder(address, commit)


def _listed(address: Address) -> tuple[str | None, list[RemoteFile]]:
    """The commit and its files; no commit when nobody answers."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(address.repo, revision=address.revision, files_metadata=True)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            return None, []
        _refuse(address, error)
    except (OSError, ValueError) as error:
        _refuse(address, error)
    except Exception as error:  # the client of the day has its own classes for a network that is not there
        if "connect" in type(error).__name__.lower() or "timeout" in type(error).__name__.lower():
            return None, []
        _refuse(address, error)
    files = [
        RemoteFile(s.rfilename, s.size or 0, None if s.lfs is None else s.lfs.sha256)
        for s in info.siblings or ()
    ]
    return info.sha, files


def _refuse(address: Address, error: Exception) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        way = (
            f"is gated: accept its terms at https://huggingface.co/{address.repo}, then log in "
            "(hf auth login, or HF_TOKEN)"
        )
    elif isinstance(error, RevisionNotFoundError):
        way = f"has no revision {address.revision!r}; look at its branches, tags and commits on the hub"
    elif isinstance(error, RepositoryNotFoundError):
        way = "is neither a folder nor on the hub; check the spelling, or log in if it is private (HF_TOKEN)"
    else:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        way = f"is neither a folder nor to be had from the hub: {reason}"
    raise ModelError(f"model {str(address)!r} {way}.") from None


def _cached(address: Address, why: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.repo, INDEX, revision=address.revision)
    if not isinstance(found, str):
        raise ModelError(
            f"model {str(address)!r} is not on this machine, {why}; "
            f"run kinema models fetch {address} once while online."
        )
    return Path(found).parent


def _there(address: Address, file: RemoteFile, commit: str) -> bool:
    """In the cache, in its full length."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.repo, file.name, revision=commit)
    return isinstance(found, str) and Path(found).stat().st_size == file.size


def _folder(address: Address, commit: str) -> Path:
    return _cache_of(address) / "snapshots" / commit


def _cache_of(address: Address) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{address.repo.replace('/', '--')}"


def _check_room(address: Address, files: Sequence[RemoteFile]) -> None:
    cache = _cache_of(address)
    begun = sum(path.stat().st_size for path in cache.glob(f"blobs/*{PART}"))
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    needed, free = sum(file.size for file in files) - begun, shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise ResourceError(
            f"model {str(address)!r} needs {needed / 1e9:.3g} GB more and {place} has {free / 1e9:.3g} GB "
            "free; make room, or set HF_HOME to a folder on another disk."
        )


def _download(address: Address, files: Sequence[RemoteFile], commit: str) -> None:
    from huggingface_hub import hf_hub_download

    meter = _Meter(sum(file.size for file in files), _listener.get())
    for file in files:
        try:
            if file.sha256 is not None:
                _bring(address, file, commit, meter)
            hf_hub_download(address.repo, file.name, revision=commit, tqdm_class=_silent(lambda count: None))
        except KinemaError:
            raise
        except Exception as error:  # cut off, refused in the middle, the disk full: what is there is kept
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise ModelError(
                f"the download of {address} stopped in {file.name} after {meter.done / 1e9:.3g} of "
                f"{meter.total / 1e9:.3g} GB ({reason}); the same command goes on there."
            ) from None
        meter.finished(file.size)
    if address.revision != commit:
        _remember(address, commit)


def _bring(address: Address, file: RemoteFile, commit: str, meter: _Meter) -> None:
    """A large file into the cache, from where an earlier process stopped; the hub's client begins anew.

    Where the client looks for it, it lies under its sha256; it gets that name when it has proved to be it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    assert file.sha256 is not None
    blobs = _cache_of(address) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    whole, part = blobs / file.sha256, blobs / f"{file.sha256}{PART}"
    with WeakFileLock(blobs / f"{file.sha256}.lock"):
        if whole.is_file() and whole.stat().st_size == file.size:
            return
        url = hf_hub_url(address.repo, file.name, revision=commit)
        place, headers = get_hf_file_metadata(url).location, build_hf_headers()
        if urlsplit(place).netloc != urlsplit(url).netloc:
            headers.pop("authorization", None)  # the token is for the hub, not for who stores its files
        with part.open("ab") as opened:
            http_get(
                place,
                opened,
                resume_size=opened.tell(),
                headers=headers,
                expected_size=file.size,
                tqdm_class=_silent(meter.add),
            )
        _check_sum(address, file, part)
        part.replace(whole)


def _check_sum(address: Address, file: RemoteFile, part: Path) -> None:
    """A file that is not what the hub lists is removed, so that the next try fetches it anew."""
    with part.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise ModelError(
            f"{file.name} of {address} arrived damaged (its sha256 begins {found[:12]}, not "
            f"{str(file.sha256)[:12]}) and was removed; run the same command again."
        )


def _remember(address: Address, commit: str) -> None:
    """Which commit a branch stood at, for when there is no network."""
    place = _cache_of(address) / "refs" / (address.revision or "main")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(commit, encoding="ascii")


class _Meter:
    """Bytes over all files of a download, told to whoever listens."""

    def __init__(self, total: int, listener: OnProgress | None) -> None:
        self.total, self.done, self._whole, self._listener = total, 0, 0, listener
        self._tell()

    def add(self, count: int) -> None:
        """Some bytes of the file at hand."""
        self.done = max(self._whole, min(self.done + count, self.total))
        self._tell()

    def finished(self, size: int) -> None:
        """The file at hand is complete."""
        self._whole += size
        self.done = self._whole
        self._tell()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(Progress("fetch", self.done, self.total))


def _silent(count: Callable[[int], None]) -> Any:
    """A stand-in for tqdm that draws nothing and tells of bytes."""

    class Counter:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.n, self.total = int(options.get("initial") or 0), options.get("total")
            count(self.n)

        def update(self, more: float | None = 1) -> None:
            self.n += int(more or 0)
            count(int(more or 0))

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **options: None

    return Counter
