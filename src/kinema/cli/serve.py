"""The verbs that start Kinema Studio: serve, studio."""

from __future__ import annotations

import logging
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.core.errors import ConfigError

if TYPE_CHECKING:
    from kinema.serve.settings import Limits, ServeSettings

LISTEN, ALLOW = "Where it listens", "What it allows"
DATA = "kinema-studio"


def _option(*names: str, panel: str, help: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, **more)


Host = Annotated[str, _option("--host", panel=LISTEN, metavar="ADDRESS", help="An address of this machine.")]
Port = Annotated[
    int, _option("--port", panel=LISTEN, metavar="N", help="0 takes a free one.", min=0, max=65535)
]
Data = Annotated[
    Path, _option("--data", panel=LISTEN, metavar="DIR", help="Its folder: queue, uploads, results.")
]
Token = Annotated[
    str | None,
    _option(
        "--token",
        panel=LISTEN,
        metavar="TEXT",
        help="What every request must carry; outside of loopback one is made and printed.",
        show_default=False,
        envvar="KINEMA_TOKEN",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    _option(
        "--allow-host",
        panel=ALLOW,
        metavar="NAME",
        help="A further name it is called by.",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    _option(
        "--model",
        "-m",
        panel=ALLOW,
        metavar="NAME",
        help="A model that may be asked for; the first is the default (embedded).",
        show_default=False,
    ),
]
Loras = Annotated[
    list[Path] | None,
    _option("--lora", panel=ALLOW, metavar="FILE", help="A LoRA that may be named.", show_default=False),
]
AllowUrls = Annotated[
    bool, _option("--allow-urls", panel=ALLOW, help="Fetch pictures that requests name by https URL.")
]
MostWork = Annotated[
    float | None,
    _option(
        "--most-work",
        panel=ALLOW,
        metavar="X",
        help="Pixels x frames x steps of one job.",
        show_default=False,
    ),
]
MostSeconds = Annotated[
    float | None,
    _option(
        "--most-seconds",
        panel=ALLOW,
        metavar="N",
        help="Estimated seconds of one job (14400; without workers here, and with 0, any).",
        show_default=False,
        min=0,
    ),
]
MostQueued = Annotated[
    int | None,
    _option("--most-queued", panel=ALLOW, metavar="N", help="Jobs that may wait.", show_default=False, min=1),
]
Workers = Annotated[
    int, _option("--workers", panel=ALLOW, metavar="N", help="Local processes that render.", min=0, max=16)
]
Verbose = Annotated[bool, _option("--verbose", "-v", panel=LISTEN, help="Log every request.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (serve, studio):
        app.command(cls=VerbCommand, rich_help_panel="Serve")(verb)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8420,
    data: Data = Path(DATA),
    token: Token = None,
    allow_host: AllowHost = None,
    model: Models = None,
    lora: Loras = None,
    allow_urls: AllowUrls = False,
    most_work: MostWork = None,
    most_seconds: MostSeconds = None,
    most_queued: MostQueued = None,
    workers: Workers = 1,
    verbose: Verbose = False,
    open_page: Annotated[bool, typer.Option("--open", hidden=True)] = False,
) -> None:
    """Start the server: queue, worker, HTTP API and page, for this machine alone.

    Ctrl-C or SIGTERM: no more jobs are taken, the one being made is kept to be gone on with.

    \b
    kinema serve
    kinema serve --data /srv/kinema --model embedded --model ./Wan2.2-TI2V-5B
    kinema serve --host 0.0.0.0 --allow-host studio.example.org
    """
    _run(
        host=host, port=port, data=data, token=token, allow_host=allow_host, model=model, lora=lora,
        allow_urls=allow_urls, most_work=most_work, most_seconds=most_seconds, most_queued=most_queued,
        workers=workers, verbose=verbose, open_page=open_page,
    )  # fmt: skip


def studio(
    port: Port = 8420, data: Data = Path(DATA), model: Models = None, verbose: Verbose = False
) -> None:
    """Start the server for this machine and open its page.

    \b
    kinema studio
    """
    serve(port=port, data=data, model=model, verbose=verbose, open_page=True)


def _run(**given: Any) -> None:
    try:
        import python_multipart  # noqa: F401  it is missed at the first form otherwise

        from kinema.io.locks import Lock
        from kinema.pipelines.cards import read_card
        from kinema.serve.folders import Folders
        from kinema.serve.logs import write_logs
        from kinema.serve.run import listen, url_of
        from kinema.serve.run import serve as answer
    except ImportError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "anyio", "python_multipart"):
            raise
        name = error.name.replace("_", "-")
        raise ConfigError(
            f"{name} is not installed; run, in the folder of kinema's sources, "
            'pip install -c constraints.txt ".[server]".'
        ) from None
    settings, made = _settings(given)
    for name in settings.models:
        read_card(name)
    write_logs(logging.DEBUG if given["verbose"] else logging.INFO)
    listening = listen(settings.host, settings.port)
    with listening:
        settings = _with_port(settings, listening.getsockname()[1])
        url = url_of(settings)
        Folders(settings.data).make()
        with Lock(settings.data / "server.lock", f"the data folder {settings.data}"):
            if made:
                typer.echo(f"token: {settings.token}")
            typer.echo(f"Kinema Studio: {url if made or not settings.token else url.partition('?')[0]}")
            if given["open_page"]:
                import webbrowser

                threading.Timer(1.0, webbrowser.open, [url]).start()
            answer(settings, listening)


def _settings(given: dict[str, Any]) -> tuple[ServeSettings, bool]:
    """The settings, and whether a token was made for them."""
    from kinema.serve.settings import ServeSettings, is_loopback

    token, made = given["token"], False
    if token is None and not is_loopback(given["host"]):
        token, made = secrets.token_urlsafe(24), True
    for file in given["lora"] or ():
        if not file.is_file():
            raise ConfigError(f"--lora {file} is not a file.")
    settings = ServeSettings(
        data=given["data"].absolute(),
        host=given["host"],
        port=given["port"],
        token=token,
        hosts=tuple(given["allow_host"] or ()),
        models=tuple(given["model"] or ("embedded",)),
        loras=tuple(file.absolute() for file in given["lora"] or ()),
        allow_urls=given["allow_urls"],
        workers=given["workers"],
        limits=_limits(given),
    )
    return settings, made


def _limits(given: dict[str, Any]) -> Limits:
    """Those of the command line, and the usual ones."""
    from dataclasses import replace

    from kinema.serve.settings import Limits

    named = {"work": "most_work", "seconds": "most_seconds", "queued": "most_queued"}
    told = {name: given[option] for name, option in named.items() if given[option] is not None}
    if not given["workers"]:  # this machine's speed says nothing of those that will render
        told.setdefault("seconds", 0.0)
    return replace(Limits(), **told)


def _with_port(settings: ServeSettings, port: int) -> ServeSettings:
    """The settings with the port that was found."""
    from dataclasses import replace

    return replace(settings, port=port)
