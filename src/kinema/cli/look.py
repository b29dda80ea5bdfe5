"""The verbs that only look: plan, inspect, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.make import SHOT_FILES, free_name, slug
from kinema.cli.options import OUTPUT, ShotOptions, Variables, with_options
from kinema.cli.progress import Reporter
from kinema.cli.values import read_vars
from kinema.core.errors import ConfigError

if TYPE_CHECKING:
    from kinema.story.shot import Shot
    from kinema.story.storyboard import Storyboard


def _output(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=OUTPUT, show_default=False)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (with_options(plan), inspect, schema):
        app.command(cls=VerbCommand, rich_help_panel="Look")(verb)


def plan(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="A prompt, a shot file (.yaml, .json), or a file that kinema made."
        ),
    ],
    shot: ShotOptions,
    var: Variables = None,
    tracks: Annotated[
        bool, _output("--tracks", help="Print the weights of every latent frame as numbers.")
    ] = False,
    plot: Annotated[
        Path | None, _output("--plot", metavar="FILE", help="Draw the tracks into a .png or .svg.")
    ] = None,
    preview: Annotated[
        bool,
        _output("--preview", help="Run it with a stand-in for the model: a contact sheet with the tracks."),
    ] = False,
    out: Annotated[
        Path | None,
        _output("--out", "-o", metavar="FILE", help="Of --preview: .png, .svg, or a clip: .mp4, .webp, ..."),
    ] = None,
    overwrite: Annotated[bool, _output("--overwrite", help="Replace existing pictures.")] = False,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="text (default), or json: one line a shot.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = "text",
) -> None:
    """Print what a render would do and cost, with its tracks as bars; no weight is read.

    The verbs that make a file print the same with --dry-run.

    \b
    kinema plan "a rooster" --guidance "0:(6), 16:(2)"
    kinema plan story.yaml --tracks --plot tracks.svg
    kinema plan story.yaml --preview -o preview.png
    """
    from kinema.cli.draw import draw_plot, draw_preview
    from kinema.cli.show import show_job, show_tracks
    from kinema.pipelines.job import make_job

    with Reporter(format, quiet=False) as report:
        job = make_job(_request(what, shot, var))
        if tracks:
            show_tracks(job, report)
        if plot is not None:
            draw_plot(job, plot, report, overwrite=overwrite)
        if preview or out is not None:
            name = Path(what).stem if _is_file_name(what) else slug(what) or "kinema"
            path = out or free_name(f"{name}-preview", ".png")
            draw_preview(job, path, report, overwrite=overwrite)
        if not (tracks or plot or preview or out):
            show_job(job, report)


def _request(what: str, shot: ShotOptions, var: list[str] | None) -> Shot | Storyboard:
    """What a file asks for, or a prompt."""
    from kinema.pipelines.source import read_request
    from kinema.story.shot import Shot

    if _is_file_name(what):
        return read_request(what, changes=shot.given(), variables=read_vars(var))
    if var:
        raise ConfigError(f"--var is for the variables of a shot file, and {what[:40]!r} is a prompt.")
    return Shot.from_mapping({"prompt": what, **shot.given()})


def _is_file_name(what: str) -> bool:
    """A file that exists, or a word that ends like one: a missing file should not be taken for a prompt."""
    from kinema.io.formats import CONTAINERS, STILLS

    if len(what) < 1000 and Path(what).is_file():
        return True
    return Path(what).suffix.lower() in (*SHOT_FILES, *CONTAINERS, *STILLS) and " " not in what


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that kinema made.", show_default=False)
    ],
) -> None:
    """Print how a file was made: the record that it carries, as JSON."""
    from kinema.core.errors import MediaError
    from kinema.io.names import frames_of
    from kinema.io.record import read_record

    if not file.is_file() and not file.is_dir() and not frames_of(file):
        what = "is not a file" if file.exists() else "does not exist"
        raise MediaError(f"{file} {what}; give a file that kinema made.")
    record = read_record(file)
    if record is None:
        raise MediaError(f"{file} carries no record; only files that kinema made without --no-record do.")
    typer.echo(json.dumps(json.loads(record.to_json()), indent=2, ensure_ascii=False))


def schema(
    what: Annotated[
        str,
        typer.Argument(metavar="[WHAT]", help="shot (default), or storyboard.", show_default=False),
    ] = "shot",
) -> None:
    """Print the JSON schema of a shot or a storyboard, for editors and programs."""
    from kinema.core.errors import unknown_name
    from kinema.story.shot import Shot
    from kinema.story.storyboard import Storyboard

    found = {"shot": Shot.model_json_schema, "storyboard": Storyboard.file_schema}
    if what not in found:
        raise unknown_name("schema", what, found)
    typer.echo(json.dumps(found[what](), indent=2, ensure_ascii=False))
