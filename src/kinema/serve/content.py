"""Files as answers: ranges, entity tags, HEAD, and a type that our own table knows."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from kinema.serve.errors import ApiError

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


class _Whole(FileResponse):
    """A file in larger pieces: each one is a trip to a thread."""

    chunk_size = 256 * 1024


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
        ApiError: 404 when it is gone.
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
    return _Whole(
        path,
        media_type=media,
        filename=name,
        stat_result=status,
        content_disposition_type=shown,
        headers=caching,
    )


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has that version already."""
    if if_none_match is None:
        return False
    given = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return "*" in given or etag in given
