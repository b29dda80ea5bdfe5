"""Requests to a server of ours: JSON, downloads and one form with a file, by the standard library alone.

No redirect is followed and no proxy asked; the token goes to the server that was named and to nobody else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kinema.core.errors import ConfigError, MediaError
from kinema.core.version import VERSION
from kinema.serve.queue_leases import Lost

MOST_ANSWER = 64 << 20
PATIENCE = 600.0
"""Seconds that a server may look at a clip that was sent."""
_PIECE = 1 << 18


class Unreachable(MediaError):
    """The server could not be asked, or cannot answer now; asking again may help."""


class Refused(ConfigError):
    """The server does not take this from us, however often it is asked."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        secure: whether it speaks TLS.
        host: its name.
        port: its port.
        base: path in front of `/api`, for a server behind a proxy.
    """

    secure: bool
    host: str
    port: int
    base: str

    @staticmethod
    def parse(url: str) -> Address:
        """`http://host:8420`, `https://host/studio`; `ConfigError` for anything else."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ConfigError(f"{url[:80]!r} is no server; write http://HOST:PORT or https://HOST.")
        secure = parts.scheme == "https"
        return Address(secure, parts.hostname, port or (443 if secure else 8420), parts.path.rstrip("/"))


class HttpClient:
    """Asks one server.

    Args:
        url: of the server.
        token: that it wants; None for none.
        seconds: to wait for each part of an answer.
    """

    def __init__(self, url: str, token: str | None, *, seconds: float = 30.0) -> None:
        self.address = Address.parse(url)
        self._seconds = seconds
        self._headers = {"user-agent": f"kinema/{VERSION}", "accept": "*/*"}
        if token is not None:
            if not token.isascii() or not token.isprintable():
                raise ConfigError("the token has a character that no header can carry; copy it again.")
            self._headers["authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """JSON to a path and JSON back; None for an answer without a body (204).

        Raises:
            Lost: 409 or 404: what was asked about is not ours any more.
            Refused: another 4xx, with the server's own words.
            Unreachable: no answer, 429, or 5xx.
        """
        body = None if values is None else json.dumps(values).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        with self._answer(method, path, body, headers) as answer:
            data = answer.read(MOST_ANSWER)
        if answer.status == 204:
            return None
        return _object(data)

    def pieces(self, path: str) -> Iterator[bytes]:
        """The bytes of a file; errors as in `ask`."""
        with self._answer("GET", path, None, {}) as answer:
            length = answer.getheader("content-length")
            received = 0
            while piece := answer.read(_PIECE):
                received += len(piece)
                yield piece
        if length is not None and received != int(length):
            raise Unreachable(f"the connection broke after {received} of {length} bytes.")

    def send(self, path: str, fields: Mapping[str, str], file: Path) -> dict[str, Any] | None:
        """A form with texts and one file, which is read as it is sent; errors as in `ask`."""
        boundary = os.urandom(16).hex()
        head = "".join(
            f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += (
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="file"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        length = len(head.encode()) + file.stat().st_size + len(tail)
        headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(length),
        }
        with self._answer("POST", path, _form(head, file, tail), headers, seconds=PATIENCE) as answer:
            return _object(answer.read(MOST_ANSWER))

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: Mapping[str, str],
        seconds: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        address = self.address
        connection = self._connection(seconds or self._seconds)
        try:
            connection.request(method, address.base + path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            if answer.status >= 300:
                raise _error(answer.status, answer.read(MOST_ANSWER))
            yield answer
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, MediaError):
                raise
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(f"no answer from {address.host}:{address.port}: {reason}.") from None
        finally:
            connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self.address.secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
        return http.client.HTTPConnection(host, port, timeout=seconds)


def _form(head: str, file: Path, tail: str) -> Iterator[bytes]:
    yield head.encode()
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece
    yield tail.encode()


def _object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Unreachable("the answer is not kinema's; is this the address of a kinema server?")
    return values


def _error(status: int, data: bytes) -> Exception:
    """What a status means to a worker."""
    try:
        message = str(json.loads(data)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"the server answered {status}."
    if status in (404, 409):
        return Lost(message)
    if status == 401 or status == 403:
        return Refused(message)
    if status in (408, 425, 429) or status >= 500:
        return Unreachable(message)
    return Refused(message)
