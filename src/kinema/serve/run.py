"""Running the server: one process that answers, and on SIGTERM lets go of its work before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
from types import FrameType

import uvicorn
from fastapi import FastAPI

from kinema.core.errors import ConfigError
from kinema.serve.app import create_app
from kinema.serve.connections import connections
from kinema.serve.logs import log
from kinema.serve.settings import ServeSettings, is_loopback
from kinema.serve.studio import Studio

GRACE = 5
BACKLOG = 2048


class DrainingServer(uvicorn.Server):
    """uvicorn, whose first signal ends admission and lets the workers go, and whose second ends at once."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self._studio = studio
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self._studio.draining:
            super().handle_exit(sig, frame)
            return
        self._studio.draining = True
        self._signal = sig
        asyncio.get_event_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._drain = asyncio.ensure_future(self._let_go())

    async def _let_go(self) -> None:
        log(20, "draining", signal=signal.Signals(self._signal).name)
        await self._studio.drain()
        self.should_exit = True  # by our own will, not by the signal: exit code 0


def serve(settings: ServeSettings, listening: socket.socket) -> None:
    """Answer until a signal comes.

    Args:
        settings: of the server.
        listening: the socket, bound already.
    """
    app = create_app(settings)
    studio_in(app).open()  # here, where an error is one line and an exit code
    tempfile.tempdir = str(studio_in(app).folders.incoming)  # files of forms wait there until all is read
    allow_files(2 * settings.limits.connections + 256)
    server = DrainingServer(configured(app, settings), studio_in(app))
    server.run(sockets=[listening])


def configured(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn answers."""
    return uvicorn.Config(
        app,
        http=connections(settings.limits),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=64 * 1024,
    )


def allow_files(count: int) -> None:
    """Let this process have so many files and sockets open, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def studio_in(app: FastAPI) -> Studio:
    """What the application holds."""
    studio: Studio = app.state.studio
    return studio


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; `ConfigError` where the address is taken, or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason.lower()}; choose another --port or --host."
        ) from None
    listening.set_inheritable(False)
    return listening


def url_of(settings: ServeSettings) -> str:
    """Where the page is."""
    host = settings.host if is_loopback(settings.host) else socket.gethostname()
    host = f"[{host.strip('[]')}]" if ":" in host else host
    query = f"/?token={settings.token}" if settings.token else ""
    return f"http://{host}:{settings.port}{query}"
