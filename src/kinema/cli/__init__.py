"""The command line: parse, call one function, say where the result went.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 interrupted, 1 a bug of ours.
"""

from __future__ import annotations

import sys

import typer

from kinema.core.errors import KinemaError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Prompts, stills, keyframes and camera moves in; video files out.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from kinema import __version__

        typer.echo(f"kinema {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Prompts, stills, keyframes and camera moves in; video files out."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    from kinema.cli import doctor, look, make

    for verbs in (make, look, doctor):
        verbs.register(app)
    sys.exit(run(arguments))


def run(arguments: list[str] | None) -> int:
    """The exit code of one command; `KinemaError`s and wrong usage become one line on stderr."""
    try:
        result = app(arguments, standalone_mode=False)
    except KinemaError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written.", err=True)
        return 130
    except Exception as error:
        message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if type(error).__name__ == "Abort":
            typer.echo("interrupted; nothing was written.", err=True)
            return 130
        if message is None or code is None:
            raise  # a bug of ours keeps its traceback
        if text := message():
            typer.echo(f"error: {text}", err=True)
        return int(code)
    return result if isinstance(result, int) else 0
