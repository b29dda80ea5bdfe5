"""What a client is told when something is wrong: `{"error": {"message", "type", "code", "param"}}`, always.

A message names the value, the rule and the way out; it never holds a traceback or a path of this machine.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kinema.core.errors import (
    ConfigError,
    GeometryError,
    KinemaError,
    MediaError,
    ModelError,
    ResourceError,
)
from kinema.serve.jobs import Conflict, NotFound, QueueFull, TooLarge
from kinema.serve.logs import log

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_CODES: tuple[tuple[type[KinemaError], str], ...] = (
    (ConfigError, "invalid_value"),
    (GeometryError, "invalid_geometry"),
    (MediaError, "invalid_media"),
    (ModelError, "unsupported"),
    (ResourceError, "too_large"),
)
_FIELD = re.compile(r"(?:(?P<shot>shots\[\d+\])[:.]? ?)?(?P<name>[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)*)(?=[=: ])")
_UNKNOWN = re.compile(r"(?P<shot>shots\[\d+\]: )?unknown [\w.\[\] ]*setting '(?P<name>\w{1,60})'")
_PATH = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?[\\/](?:[^\s'\"<>:;,()]+[\\/])+[^\s'\"<>:;,()]*")


class ApiError(Exception):
    """An answer that is not what was asked for.

    Args:
        status: of HTTP.
        message: one sentence for a person.
        code: one word for a program.
        param: the field that is wrong, such as `keyframes[0].image`.
        headers: more headers of the answer, such as `retry-after`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """The JSON of the answer."""
        return error_body(self.status, self.message, code=self.code, param=self.param)


def error_body(status: int, message: str, *, code: str | None, param: str | None = None) -> bytes:
    """The JSON of every error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": without_paths(message), "type": kind, "code": code, "param": param}
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def not_found(what: str, name: str) -> ApiError:
    """The 404 of something that is named by an id."""
    return ApiError(404, f"there is no {what} {name[:80]!r} here.", code="not_found")


def of_kinema(error: KinemaError, *, status: int = 422, fields: frozenset[str] = frozenset()) -> ApiError:
    """The answer to something that is wrong with a request.

    Args:
        error: what was found.
        status: of HTTP.
        fields: names that may be told as `param`.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "invalid_request")
    return ApiError(status, one_line(str(error)), code=code, param=field_of(str(error), fields))


def told(error: KinemaError) -> ApiError:
    """The answer to an error of kinema's own; one of our disk is logged."""
    if _is_of_our_disk(error):
        log(logging.ERROR, "storage", message=str(error))
    return _answer_to(error)


def _answer_to(error: KinemaError) -> ApiError:
    if isinstance(error, NotFound):
        return ApiError(404, str(error), code="not_found")
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), code="queue_full", headers={"retry-after": "30"})
    if isinstance(error, TooLarge):
        return ApiError(413, str(error), code="too_large", param="request")
    if isinstance(error, Conflict):
        return ApiError(409, str(error), code="conflict", headers={"x-should-retry": "false"})
    if _is_of_our_disk(error):
        message = "the server cannot use its own files; its log tells more."
        return ApiError(503, message, code="storage", headers={"retry-after": "10"})
    return of_kinema(error)


def _is_of_our_disk(error: KinemaError) -> bool:
    """Files of clients are looked at elsewhere, whose errors become answers there."""
    return isinstance(error, MediaError)


def status_of(error: Exception) -> int:
    """The status of the answer to it."""
    if isinstance(error, KinemaError):
        error = _answer_to(error)
    return error.status if isinstance(error, ApiError) else 500


def field_of(message: str, fields: frozenset[str]) -> str | None:
    """The setting that a message is about, with its shot: `shots[1].width`; None where it names none."""
    if unknown := _UNKNOWN.match(message):
        shot = (unknown["shot"] or "").replace(": ", ".")
        return f"{shot}{unknown['name']}"
    match = _FIELD.match(message)
    if match is None or re.split(r"[.\[]", match["name"])[0] not in fields:
        named = (word for word in re.findall(r"[a-z_]+", message) if word in fields)
        return next(named, None)
    return f"{match['shot']}.{match['name']}" if match["shot"] else match["name"]


def one_line(message: str) -> str:
    """A message without line breaks, and without what no terminal should get."""
    line = " ".join(message.split())
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def without_paths(message: str) -> str:
    """The message with absolute paths of this machine cut to their last part."""
    return _PATH.sub(lambda match: re.split(r"[\\/]", match[0].rstrip("\\/"))[-1], message)


def as_json(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
