"""Who may ask: the names under which a server is called, the pages that may call it, and the token.

A page of another site can make a browser send requests to 127.0.0.1, and can make its own name point there.
So every request must name a host of ours; one that changes something must come from our own page, or from a
program; and a server that is open to the network wants its token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from kinema.serve.errors import ApiError
from kinema.serve.settings import ServeSettings, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>\d{1,5}))?")
_FOREIGN = frozenset({"cross-site", "same-site"})
_SECONDS_OF_COOKIE = 180 * 24 * 3600


class Access:
    """The rules of one server.

    Args:
        settings: of it.
        public: paths that may be read without the token: the page's own files.
    """

    def __init__(self, settings: ServeSettings, public: frozenset[str]) -> None:
        self._public = public
        self._local = is_loopback(settings.host)
        self._port = settings.port
        self._token = settings.token
        self._names = _names(settings)
        self.cookie_name = f"kinema_{settings.port}"  # cookies know no ports
        secret = (settings.token or "").encode()
        self._cookie = hmac.new(secret, b"kinema page", hashlib.sha256).hexdigest()

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Refuse what is not for us, not from our page, or without the token.

        Args:
            method: of HTTP.
            path: without the query.
            headers: names in lower case.

        Raises:
            ApiError: 400, 401 or 403.
        """
        host = headers.get("host", "")
        if not self._is_ours(host):
            message = f"{host[:80]!r} is no name of this server; call it by its address, or add --allow-host."
            raise ApiError(403, message, code="unknown_host")
        self._check_page(method, path, host, headers)
        public = method in SAFE_METHODS and path in self._public
        if self._token is not None and not public and not self.knows(headers):
            raise ApiError(
                401,
                "the token is missing or wrong; send it as Authorization: Bearer, or open /?token=...",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token, or the cookie that stands for it."""
        return self._by_cookie(headers) or self._by_header(headers)

    def wants_cookie(self, headers: Mapping[str, str]) -> bool:
        """Whether our own page gave the token, and its pictures and clips will need the cookie.

        Over plain HTTP in a network a browser does not say from where it asks: the token alone has to do.
        """
        return (
            self._token is not None
            and headers.get("sec-fetch-site") in (None, "same-origin")
            and not self._by_cookie(headers)
            and self._by_header(headers)
        )

    def _by_header(self, headers: Mapping[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.is_token(given.strip())

    def _by_cookie(self, headers: Mapping[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._cookie)

    def is_token(self, given: str) -> bool:
        """Whether that is the token; takes as long for a wrong one as for the right one."""
        return self._token is not None and _same(given, self._token)

    @property
    def cookie(self) -> str:
        """The header that lets a browser in."""
        rules = f"Path=/; Max-Age={_SECONDS_OF_COOKIE}; HttpOnly; SameSite=Strict"
        return f"{self.cookie_name}={self._cookie}; {rules}"

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name, port = match["name"].lower().rstrip("."), match["port"]
        if host.lower() in self._names or (name in self._names and port in (None, str(self._port))):
            return True
        return not self._local and _is_address(name)  # no name can be made to point to an address

    def _check_page(self, method: str, path: str, host: str, headers: Mapping[str, str]) -> None:
        site = headers.get("sec-fetch-site")
        navigation = method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if site in _FOREIGN and not (navigation and not path.startswith(("/api/", "/v1/"))):
            raise ApiError(403, "a page of another site may not use this server.", code="foreign_page")
        origin = headers.get("origin")
        if origin is None or method in SAFE_METHODS:
            return
        if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise ApiError(403, "a page of another site may not change anything here.", code="foreign_page")


def _names(settings: ServeSettings) -> frozenset[str]:
    """Host names in lower case; those with a port of their own as `name:port`."""
    names = {"localhost", "127.0.0.1", "[::1]", *(name.lower() for name in settings.hosts)}
    if not is_loopback(settings.host):
        names |= {settings.host.lower(), socket.gethostname().lower()}
    else:
        bare = settings.host.strip("[]").lower()
        names.add(f"[{bare}]" if ":" in bare else bare)
    return frozenset(names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
