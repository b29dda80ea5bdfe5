"""Fetching what a request names by URL: off unless allowed, and then never from this network.

A name is resolved once, every address it has must be a public one, and the connection goes to that address;
each redirect is looked at the same way. Nothing of ours is sent along, and errors do not tell what was met.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import anyio

from kinema.serve.errors import ApiError
from kinema.serve.settings import ServeSettings

MOST_BYTES = 64_000_000
MOST_SECONDS = 30.0
MOST_HOPS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], list[str]]
Connect = Callable[[str, int, str, float], http.client.HTTPConnection]


class Refused(Exception):
    """A URL that is not fetched; the message is for the client."""


async def fetch(url: str, settings: ServeSettings) -> bytes:
    """The bytes behind an https URL.

    Raises:
        ApiError: 400 when fetching is off, the URL is not public https, or what is there is no file.
    """
    if not settings.allow_urls:
        message = "this server fetches no URLs; send the file itself, or a data URL."
        raise ApiError(400, message, code="urls_not_allowed")
    try:
        async with asyncio.timeout(MOST_SECONDS + 5):
            return await anyio.to_thread.run_sync(get, url, abandon_on_cancel=True)
    except (Refused, TimeoutError) as error:
        message = str(error) or "the URL cannot be fetched."
        raise ApiError(400, message, code="invalid_url") from None


def addresses(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is somewhere on the Internet, also when it wraps another one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local)


def connect(address: str, port: int, host: str, seconds: float) -> http.client.HTTPConnection:
    """A TLS connection to an address, whose certificate must be the host's."""
    connection = _Pinned(host, port, timeout=seconds, context=ssl.create_default_context())
    connection.address = address
    return connection


class _Pinned(http.client.HTTPSConnection):
    """Connects to the address that was looked at, whatever the name has become since."""

    address = ""

    def connect(self) -> None:
        plain = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


def get(url: str, resolve: Resolve = addresses, open_to: Connect = connect) -> bytes:
    """The bytes behind a URL.

    Args:
        url: https, without a user's name.
        resolve: a name's addresses.
        open_to: a connection to an address.

    Raises:
        Refused: whatever goes wrong.
    """
    until = time.monotonic() + MOST_SECONDS
    for _ in range(MOST_HOPS + 1):
        parts, address = _checked(url, resolve)
        try:
            found = _one(parts, address, until, open_to)
        except (OSError, http.client.HTTPException, ValueError):
            raise Refused("the URL cannot be fetched.") from None
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise Refused(f"the URL leads on more than {MOST_HOPS} times.")


def _checked(url: str, resolve: Resolve) -> tuple[SplitResult, str]:
    """The parts of a URL that may be fetched, and the address to go to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise Refused("the URL is not one.") from None
    if parts.scheme != "https" or not host or parts.username is not None or parts.password is not None:
        raise Refused("only https URLs without a user's name are fetched.")
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError):
        raise Refused("the URL cannot be fetched.") from None
    if not found or not all(map(is_public, found)):
        raise Refused("the URL cannot be fetched.")
    return parts, found[0]


def _one(parts: SplitResult, address: str, until: float, open_to: Connect) -> bytes | str:
    """The body, or where it leads on."""
    host, port = parts.hostname or "", parts.port or 443
    connection: Any = open_to(address, port, host, max(0.1, until - time.monotonic()))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"accept": "image/*, video/*", "user-agent": "kinema"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308):
            return str(answer.getheader("location") or "")
        if answer.status != 200:
            raise Refused("the URL cannot be fetched.")
        return _body(answer, until)
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse, until: float) -> bytes:
    pieces, size = [], 0
    while piece := answer.read1(1 << 16):
        size += len(piece)
        if size > MOST_BYTES:
            raise Refused(f"the file behind the URL is larger than {MOST_BYTES} bytes.")
        if time.monotonic() > until:
            raise Refused("the URL cannot be fetched.")
        pieces.append(piece)
    return b"".join(pieces)
