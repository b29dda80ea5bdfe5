"""How a server is set up: where it listens, who may use it, and how much they may ask for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from kinema.core.errors import ConfigError

PORT = 8420
LEAST_TOKEN = 16
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The most that one request, or all of them, may ask for.

    Attributes:
        json_bytes: of a body in JSON, and of one text field of a form.
        upload_bytes: of an uploaded file.
        inline_bytes: of a body in JSON that holds a picture or clip as a data URL.
        media_bytes: of all uploaded files together.
        incoming_bytes: of all files that are being received.
        held_bytes: of all other bodies, which are held in memory until they are answered.
        connections: at once.
        header_seconds: that a request's headers may take.
        body_seconds: that a body may take beyond what it takes at `slowest`.
        slowest: bytes a second that a body has to come at.
        work: pixels x frames x steps of one job.
        seconds: of rendering one job, as its plan estimates them for this machine; 0 for no limit.
        queued: jobs that wait.
        listeners: open event streams.
        plan_seconds: of planning one request.
        file_seconds: of looking into one uploaded file.
    """

    json_bytes: int = 2 * MEGABYTE
    upload_bytes: int = 512 * MEGABYTE
    inline_bytes: int = 24 * MEGABYTE
    media_bytes: int = 20_000 * MEGABYTE
    incoming_bytes: int = 4_000 * MEGABYTE
    held_bytes: int = 256 * MEGABYTE
    connections: int = 1000
    header_seconds: float = 20.0
    body_seconds: float = 30.0
    slowest: int = 10_000
    work: float = 5e10
    seconds: float = 4 * 3600.0
    queued: int = 10_000
    listeners: int = 512
    plan_seconds: float = 20.0
    file_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """A server.

    Attributes:
        data: its folder: queue, uploads, results.
        host, port: where it listens.
        token: what every request must carry; None on loopback only.
        hosts: further names under which it may be called, such as those of a reverse proxy.
        models: that requests may name; the first is the default.
        loras: files that requests may name by their stem.
        allow_urls: whether pictures are fetched from the web.
        workers: local processes that render.
        limits: on what is asked for.
        warm: whether the first plan is prepared at the start, behind the first answers.

    Raises:
        ConfigError: it would be open to the network without a token, or the token is short.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = PORT
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ("embedded",)
    loras: tuple[Path, ...] = ()
    allow_urls: bool = False
    workers: int = 1
    limits: Limits = Limits()
    warm: bool = True

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(f"--host {self.host} is open to the network and needs a token; add --token.")
        if self.token is not None and (len(self.token) < LEAST_TOKEN or not self.token.isascii()):
            raise ConfigError(
                f"the token must have {LEAST_TOKEN} or more plain characters; leave it out to get one."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
