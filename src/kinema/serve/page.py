"""The page's own files: read once, served from memory with entity tags, under the names that were found."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kinema.serve.content import is_known

FOLDER = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    body: bytes
    kind: str
    etag: str


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """The files of known types by their path on the server; `/` is `index.html`."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.suffix in TYPES and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            found[f"/{path.relative_to(folder).as_posix()}"] = PageFile(body, TYPES[path.suffix], etag)
    if "/index.html" in found:
        found["/"] = found["/index.html"]
    return found


def page_routes(files: Mapping[str, PageFile]) -> list[Route]:
    """A route for each file."""
    return [Route(name, _endpoint(file), methods=["GET"]) for name, file in files.items()]


def _endpoint(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        # A 304 names its type too: a browser takes its headers over, and with them the policy of that type.
        headers = {"etag": file.etag, "cache-control": "no-cache", "content-type": file.kind}
        if is_known(request.headers.get("if-none-match"), file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers=headers)

    return serve
