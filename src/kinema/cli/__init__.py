"""The command line: parse, call one function, say where the result went.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 interrupted, 141 nobody reads the
output any more, 1 a bug of ours with its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import typer

from kinema.cli.interrupt import Interrupted, leave, listen
from kinema.core.errors import KinemaError

SUMMARY = "Prompts, stills and keyframes in; video files out."
INTERRUPTED, BROKEN_PIPE = 130, 141
_SHUT = "it may not be read or entered; choose another place"
WAYS_OUT = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "choose another name"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS), _SHUT),
}
"""What the system says of a path that was typed, and what to do about it."""


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="replace")  # a terminal without block characters shows ? for them
    if logging.lastResort is not None:  # what the library warns of, unless a verb writes logs of its own
        logging.lastResort.setFormatter(logging.Formatter("note: %(message)s"))
    listen()
    code = run(None)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _nobody_reads()
    leave()
    sys.exit(code)


def run(arguments: list[str] | None) -> int:
    """The exit code of one command; `KinemaError`s and wrong usage become one line on stderr.

    Args:
        arguments: what follows `kinema`; None takes the process's own.
    """
    try:
        result = _program()(args=arguments, prog_name="kinema", standalone_mode=False)
    except KinemaError as error:
        return _refuse(str(error))
    except Interrupted as stop:
        typer.echo(str(stop), err=True)
        return stop.code
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except BrokenPipeError:
        return _nobody_reads()
    except SystemExit as left:  # the parser's own way out of a broken pipe
        return BROKEN_PIPE if left.code == 1 else int(left.code or 0)
    except OSError as error:
        if (way := WAYS_OUT.get(error.errno or 0)) is None or error.filename is None:
            raise
        return _refuse(f"{os.fsdecode(error.filename)[:80]!r}: {str(error.strerror).lower()}; {way}.")
    except Exception as error:
        # The parser's base class of wrong usage lies elsewhere in every few versions; its method does not.
        message: Callable[[], str] | None = getattr(error, "format_message", None)
        if message is None:
            raise  # a bug of ours keeps its traceback
        return _refuse(_usage(message(), getattr(error, "ctx", None)))
    if result == INTERRUPTED:  # raised here, or made a code by the parser
        typer.echo("interrupted; nothing was written.", err=True)
    return result if isinstance(result, int) else 0


@cache
def _program() -> typer.Typer:
    from kinema.cli import (
        bring,
        calibrate,
        doctor,
        evaluate,
        interpolate,
        look,
        lora,
        make,
        models,
        resume,
        serve,
        upscale,
        worker,
    )
    from kinema.cli.help import PLAIN, VerbGroup

    program = typer.Typer(
        cls=VerbGroup,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=PLAIN,
    )
    program.callback(invoke_without_command=True)(_root)
    making = (make, interpolate, upscale, resume, look, models, lora, bring, evaluate)
    for verbs in (*making, serve, worker, doctor, calibrate):
        verbs.register(program)
    return program


def _version(wanted: bool) -> None:
    if wanted:
        from kinema.core.version import VERSION

        typer.echo(f"kinema {VERSION}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_root.__doc__ = f"""{SUMMARY}

\b
kinema generate "a rooster on a blue background"
kinema generate --help
"""


def _refuse(message: str) -> int:
    typer.echo(f"error: {one_line(message)}", err=True)
    return 2


def one_line(message: str) -> str:
    """A message without line breaks; a caret under a text becomes the text from there on."""
    *lines, last = message.splitlines() or [""]
    if lines and last.strip() == "^":
        *lines, text = lines
        last = f"(at {text[last.index('^') :].strip()!r})"
    line = " ".join(" ".join([*lines, last]).split())
    return "".join(sign if sign.isprintable() else "?" for sign in line)  # no escape codes from a file's name


def _usage(message: str, context: Any) -> str:
    """The parser's sentence, and where the right usage stands."""
    path = getattr(context, "command_path", "kinema")
    message = message.strip()
    message += "" if message.endswith((".", "?")) else "."
    if re.match(r"No such option:? '?-[^-]", message):
        message += " A text that begins with - comes last, after --."
    return f"{message} See {path} --help."


def _nobody_reads() -> int:
    """Let the interpreter's last flush go nowhere, as the reader of our output has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
