"""Bodies of requests: JSON read strictly, and files taken by content, never by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinema.core.errors import ConfigError, MediaError
from kinema.serve.errors import ApiError
from kinema.story.files import parse_json

MOST_FIELDS = 200
MOST_FIELD_BYTES = 1 << 20
MOST_VALUES = 200_000
"""Of a body in JSON: nobody is answered while it is parsed, and values take far more memory than text."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client sent, lying under a name of ours.

    Attributes:
        path: where it lies; whoever gets an upload removes or moves it.
        sha256: of its bytes, in hexadecimal.
        bytes: how many there are.
    """

    path: Path
    sha256: str
    bytes: int


async def read_json(request: Request, known: frozenset[str] | None = None) -> dict[str, Any]:
    """The object in a JSON body; an empty body is an empty object.

    Args:
        request: whose body is read.
        known: names that it may have; None for any.

    Raises:
        ApiError: 415 for another type, 400 for what is not strict JSON, 422 for an unknown name.
    """
    data = await request.body()
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if data and kind not in ("application/json", "text/json"):
        raise ApiError(415, f"the body is {kind[:60]!r}; send application/json.", code="unsupported_type")
    values = await _parsed(data)
    for name in values if known is not None else ():
        if name not in (known or ()):
            message = f"unknown name {name[:60]!r}; known are {', '.join(sorted(known or ()))}."
            raise ApiError(422, message, code="unknown_name", param=name[:60])
    return values


async def _parsed(data: bytes) -> dict[str, Any]:
    """Large bodies are parsed beside the event loop, so that others are answered meanwhile."""
    if not data.strip():
        return {}
    return parse_object(data) if len(data) < _PIECE else await anyio.to_thread.run_sync(parse_object, data)


def parse_object(data: bytes | str) -> dict[str, Any]:
    """A JSON object: no NaN, no name twice, no half of a surrogate pair; not deep, not too many values."""
    _check_values(data)
    try:
        values = parse_json(data if isinstance(data, str) else data.decode("utf-8-sig"))
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored
    except UnicodeError:
        raise ApiError(400, "the body is not UTF-8 text.", code="invalid_json") from None
    except ConfigError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply.", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, "the body is not a JSON object.", code="invalid_json")
    return values


def _check_values(data: bytes | str) -> None:
    """`ApiError` 400 for more values than a request has; signs in texts are counted too."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if (count := sum(raw.count(sign) for sign in (b",", b"[", b"{"))) > MOST_VALUES:
        message = f"the body has {count} of the signs , [ {{, more than {MOST_VALUES}; send fewer values."
        raise ApiError(400, message, code="too_many_values")


async def read_upload(request: Request, folder: Path) -> Upload:
    """The one file of a request: its raw body, or the one file part of a form.

    Only a body in parts is a form here: curl calls any `--data-binary` a urlencoded one.

    Args:
        request: whose body is read.
        folder: where the file is laid.
    """
    if _kind(request) != "multipart/form-data":
        target = await _Target.open(folder)
        try:
            async for piece in request.stream():
                await target.write(piece)
        except BaseException:
            await target.discard()
            raise
        return await target.close()
    form = await read_form(request)
    files = [part for _, part in form if isinstance(part, UploadFile)]
    if len(files) != 1:
        raise ApiError(400, f"the form has {len(files)} files; send one.", code="invalid_form", param="file")
    return await keep_upload(files[0], folder)


def is_form(request: Request) -> bool:
    """Whether the body is a form."""
    return _kind(request) in ("multipart/form-data", "application/x-www-form-urlencoded")


def _kind(request: Request) -> str:
    """The media type that the client gives its body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request) -> list[tuple[str, UploadFile | str]]:
    """The fields of a form; files larger than a megabyte wait on disk."""
    try:
        with _storing():
            form = await request.form(max_files=16, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {error.detail}", code="invalid_form") from None
    return form.multi_items()


async def keep_upload(part: UploadFile, folder: Path) -> Upload:
    """The bytes of a form's file, laid into a folder under a name of ours."""
    target = await _Target.open(folder)
    try:
        while piece := await part.read(_PIECE):
            await target.write(piece)
    except BaseException:
        await target.discard()
        raise
    return await target.close()


async def keep_bytes(data: bytes, folder: Path) -> Upload:
    """Bytes laid into a folder."""
    target = await _Target.open(folder)
    try:
        await target.write(data)
    except BaseException:
        await target.discard()
        raise
    return await target.close()


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """The disk's errors as `MediaError`: a full one is no bug of ours."""
    try:
        yield
    except OSError as error:
        raise MediaError(f"cannot keep an upload: {error.strerror}.") from None


class _Target:
    """A new file that is hashed while it is written, outside of the event loop."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._hash, self._bytes = hashlib.sha256(), 0

    @staticmethod
    async def open(folder: Path) -> _Target:
        path = folder / f"upload-{os.urandom(12).hex()}"
        with _storing():
            return _Target(path, await anyio.to_thread.run_sync(lambda: path.open("xb")))

    async def write(self, piece: bytes) -> None:
        with _storing():
            if len(piece) < 1 << 14:  # cheaper than a thread
                self._take(piece)
            else:
                await anyio.to_thread.run_sync(self._take, piece)

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._bytes += len(piece)
        self._file.write(piece)

    async def close(self) -> Upload:
        try:
            with _storing():
                await anyio.to_thread.run_sync(self._file.close)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        if not self._bytes:
            self._path.unlink()
            raise ApiError(400, "the file is empty.", code="empty_file", param="file")
        return Upload(self._path, self._hash.hexdigest(), self._bytes)

    async def discard(self) -> None:
        with contextlib.suppress(OSError):  # what is still to be written has no room either
            self._file.close()
        self._path.unlink(missing_ok=True)
