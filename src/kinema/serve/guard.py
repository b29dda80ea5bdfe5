"""What stands before every route: access, sizes of bodies, headers of safety, request ids, counts and logs.

A plain ASGI middleware: it costs microseconds, and sees errors that routes do not.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinema.serve.access import Access
from kinema.serve.errors import ApiError, error_body
from kinema.serve.intake import Body, Intake, Where
from kinema.serve.logs import log
from kinema.serve.metrics import Metrics

PAGE_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_SAFETY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_UPLOADS = ("/api/media", "/api/restore", "/v1/videos")
_RAW = ("/api/media", "/api/restore")
_WORKERS = "/api/workers/"
LEFT = 499  # nobody gets it: for logs and counts, as proxies write it
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Guard:
    """The outermost layer of the server.

    Args:
        app: what answers.
        access: who may ask.
        metrics: where answers are counted.
        intake: of bodies.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, intake: Intake) -> None:
        self._app, self._access, self._metrics, self._intake = app, access, metrics, intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, _Answer(scope, send))
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        began = time.perf_counter()
        path, method = scope["path"], scope["method"]
        try:
            headers = _headers(scope)
            if not await self._page_token(scope, headers, answer):
                self._access.check(method, path, headers)
                body = Body(receive, self._intake, *self._most(path, headers.get("content-type")))
                body.check_announced(headers.get("content-length"))
                answer.cookie = self._access.cookie if self._access.wants_cookie(headers) else None
                try:
                    await self._app(scope, body, answer)
                finally:
                    body.close()
        except ApiError as error:
            await answer.error(error)
        except ClientDisconnect:  # in the middle of its body
            answer.status = answer.status or LEFT
        except Exception:
            logging.getLogger("kinema.serve").exception(
                "bug", extra={"facts": {"request_id": answer.request_id, "route": _route(scope)}}
            )
            await answer.error(
                ApiError(500, "this is a bug in kinema; the server's log tells more.", code="internal")
            )
        finally:
            self._note(scope, answer, time.perf_counter() - began)

    async def _page_token(self, scope: Scope, headers: Mapping[str, str], answer: _Answer) -> bool:
        """Let a browser in that opens `/?token=...`; the token goes into a cookie, and out of the address."""
        if scope["path"] != "/" or scope["method"] != "GET" or b"token=" not in scope["query_string"]:
            return False
        self._access.check("GET", "/", headers)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._access.is_token(given):
            answer.cookie = self._access.cookie
        await answer.redirect(b"/")
        return True

    def _most(self, path: str, kind: str | None) -> tuple[int, Where]:
        """Bytes of a body, and where: a file is streamed to the disk, JSON is held and parsed as a whole."""
        limits = self._intake.limits
        if not path.startswith((*_UPLOADS, _WORKERS)):
            return limits.json_bytes, "memory"
        form = (kind or "").partition(";")[0].strip().lower() == "multipart/form-data"
        if form or path.startswith(_RAW):
            return limits.upload_bytes + (1 << 20), "disk"
        most = limits.json_bytes if path.startswith(_WORKERS) else limits.inline_bytes
        return min(most, limits.upload_bytes + (1 << 20)), "memory"

    def _note(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        status, route = answer.status, _route(scope)
        if not answer.is_stream:
            method = scope["method"] if scope["method"] in _METHODS else "other"  # each is a count for ever
            self._metrics.answered(method, route, status, seconds)
        quiet = status < 400 and scope["method"] in ("GET", "HEAD")
        log(
            logging.DEBUG if quiet else logging.WARNING if status >= 500 else logging.INFO,
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(1000 * seconds, 1),
            request_id=answer.request_id,
        )


class _Answer:
    """The way back: adds headers to whatever a route sends."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.request_id = f"req_{secrets.token_hex(12)}"
        self.status = 0
        self.is_stream = False
        self.cookie: str | None = None
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._with_ours(message.get("headers", ()))}
        await self._send(message)

    def _with_ours(self, headers: Any) -> list[tuple[bytes, bytes]]:
        theirs = [(name.lower(), value) for name, value in headers]
        named = {name for name, _ in theirs}
        kind = next((value for name, value in theirs if name == b"content-type"), b"")
        self.is_stream = kind.startswith(b"text/event-stream")
        page = kind.startswith(b"text/html")
        ours = [(b"x-request-id", self.request_id.encode()), *_SAFETY]
        ours.append((b"content-security-policy", PAGE_POLICY if page else API_POLICY))
        ours.append((b"cache-control", b"no-store"))
        if self.cookie is not None:
            ours.append((b"set-cookie", self.cookie.encode()))
        return [*theirs, *(pair for pair in ours if pair[0] not in named)]

    async def error(self, error: ApiError) -> None:
        """Send an error, unless the answer has begun."""
        if self.status:
            return
        extra = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        body = error_body(error.status, error.message, code=error.code, param=error.param)
        await self._whole(error.status, b"application/json", body, extra)

    async def redirect(self, place: bytes) -> None:
        """Send a browser elsewhere."""
        await self._whole(303, b"text/plain", b"", [(b"location", place)])

    async def _whole(self, status: int, kind: bytes, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
        length = (b"content-length", str(len(body)).encode())
        headers = [(b"content-type", kind), length, *more]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if self._scope["method"] == "HEAD" else body
        await self({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """Names in lower case; what may stand once must not stand twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "authorization", "content-length"):
            raise ApiError(400, f"the header {key} stands there twice.", code="invalid_header")
        text = value.decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key in found and key == "cookie" else text
    return found


def _route(scope: Scope) -> str:
    """The pattern of the route, not the path, whose ids would make a count each."""
    route = scope.get("route")
    return getattr(route, "path", None) or ("page" if scope["method"] in ("GET", "HEAD") else "unknown")
