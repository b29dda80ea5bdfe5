"""The verb that brings in the files of other tools: import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinema.cli.help import VerbCommand


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import", cls=VerbCommand, rich_help_panel="Look")(import_)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Deforum settings (.txt), a Parseq export or an animatediff-cli configuration (.json).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Shot file to write, .yaml or .json; printed when absent.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Turn a file of another animation tool into a shot file, and list what could not be carried over.

    \b
    kinema import deforum_settings.txt -o story.yaml
    kinema import travel.json
    """
    from kinema.core.errors import ConfigError
    from kinema.io.atomic import check_target
    from kinema.story.files import yaml_text
    from kinema.story.import_file import import_file
    from kinema.story.storyboard import dump, from_mapping
    from kinema.story.variables import escaped

    if out is not None:
        check_target(out, overwrite=overwrite)
    found = import_file(file)
    try:
        story = from_mapping(found.values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    if out is None:
        typer.echo(yaml_text(escaped(story.to_mapping())), nl=False)
    else:
        dump(story, out)
        typer.echo(f"{out}  from {found.kind}")
    if found.lost:
        typer.echo("not carried over, or to look at:", err=True)
    for line in found.lost:
        typer.echo(f"  {line}", err=True)
