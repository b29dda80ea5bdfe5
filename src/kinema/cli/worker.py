"""`kinema worker`: render the jobs of a server on another machine."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kinema.cli.help import VerbCommand
from kinema.core.errors import ConfigError
from kinema.core.imports import importing

FOLDER = "kinema-worker"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Serve")(worker)


def worker(
    server: Annotated[
        str, typer.Option("--server", metavar="URL", help="The server, such as http://studio:8420.")
    ],
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TEXT", help="Its token.", envvar="KINEMA_TOKEN", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Its name in the server's log.", show_default=False),
    ] = None,
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Where renders keep their state.")
    ] = Path(FOLDER),
    lora: Annotated[
        list[Path] | None,
        typer.Option("--lora", metavar="FILE", help="A LoRA that jobs may name.", show_default=False),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-every",
            metavar="N",
            help="Keep the state every N steps, 30s, 10min.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Take jobs from a server and render them here, until Ctrl-C.

    It calls the server; nothing listens on this machine. It must have the models that the jobs name. The
    first Ctrl-C lets the step end and gives the job back, the second stops at once.

    \b
    kinema worker --server http://studio:8420 --token abc...
    """
    with importing():  # torch among it
        from kinema.pipelines.durable.pace import Every
        from kinema.serve.http_client import HttpClient
        from kinema.serve.logs import write_logs
        from kinema.serve.remote import RemoteDesk
        from kinema.serve.worker import Worker, WorkerOptions

    write_logs(words=True)
    client = HttpClient(server, token, seconds=10.0)
    client.ask("GET", "/api/about")  # what is wrong with the address or the token is told now
    for file in lora or ():
        if not file.is_file():
            raise ConfigError(f"--lora {str(file)!r} is no file.")
    try:
        desk = RemoteDesk(client, work, {file.stem: str(file.absolute()) for file in lora or ()})
    except OSError as error:
        raise ConfigError(f"--work {str(work)!r}: {error.strerror}; choose another folder.") from None
    options = WorkerOptions(
        name=(name or f"{platform.node()}-{os.getpid()}")[:100],
        news=1.0,
        idle=1.0,
        every=Every.parse(checkpoint_every),
    )
    working = Worker(desk, options)
    typer.echo(f"working for {server}; Ctrl-C ends it.", err=True)
    _until_stopped(working)
    return 0


def _until_stopped(working: object) -> None:
    from kinema.serve.worker import Worker

    assert isinstance(working, Worker)
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        working.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    working.run()
