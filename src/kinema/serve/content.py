"""Files as answers: ranges, entity tags, HEAD, and a type that our own table knows."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from kinema.serve.errors import ApiError
from kinema.serve.ranges import parse_range

TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
}
OTHER = "application/octet-stream"
_FOR_A_YEAR = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"


class _File(FileResponse):
    """A file in larger pieces (each one is a trip to a thread), or the ranges of it that we have read."""

    chunk_size = 256 * 1024
    wanted: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever the client wrote of ranges."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        if self.wanted is not None:
            headers.append((b"range", self.wanted.encode()))
        await super().__call__({**scope, "headers": headers}, receive, send)


def file_answer(
    request: Request, path: Path, *, tag: str, name: str, kind: str | None = None, final: bool = False
) -> Response:
    """A file, a part of it, or 304.

    Args:
        request: asks for it.
        path: where it lies.
        tag: changes when the file does.
        name: under which a browser saves it.
        kind: its type; by the path's ending otherwise.
        final: whether it will never change.

    Raises:
        ApiError: 404 when it is gone, 416 when it has nothing of the range that is asked for.
    """
    try:
        status = path.stat()
    except OSError:
        raise ApiError(404, f"{name} is not here any more.", code="gone") from None
    etag = f'"{tag}"'
    caching = {"etag": etag, "cache-control": _FOR_A_YEAR if final else _ASK_AGAIN}
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=caching)
    media = kind or TYPES.get(path.suffix, OTHER)
    shown = "attachment" if media == OTHER or "download" in request.query_params else "inline"
    wanted = _wanted(request, etag, status)
    answer = _File(
        path,
        media_type=media,
        filename=name,
        stat_result=status,
        content_disposition_type=shown,
        headers=caching,
    )
    answer.wanted = wanted
    return answer


def _wanted(request: Request, etag: str, status: os.stat_result) -> str | None:
    """The ranges to send, written well; None for the whole file."""
    written, only_if = request.headers.get("range"), request.headers.get("if-range")
    known = (None, etag, formatdate(status.st_mtime, usegmt=True))
    if written is None or request.method != "GET" or only_if not in known:
        return None
    ranges = parse_range(written, status.st_size)
    if ranges == ():
        message = f"Range={written[:60]!r} begins behind the end: the file has {status.st_size} bytes."
        headers = {"content-range": f"bytes */{status.st_size}", "accept-ranges": "bytes"}
        raise ApiError(416, message, code="range_not_satisfiable", param="Range", headers=headers)
    return None if ranges is None else "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has that version already."""
    if if_none_match is None:
        return False
    given = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return "*" in given or etag in given
