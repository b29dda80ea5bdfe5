"""The verbs for renders that were cut off: resume, preview."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.make import check_target, finish, free_name
from kinema.cli.options import OUTPUT, OutputOptions
from kinema.cli.progress import Reporter
from kinema.core.errors import MediaError
from kinema.core.imports import importing

if TYPE_CHECKING:
    from kinema.pipelines.durable.state import Facts

Place = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The file that was being made, or its state folder.", show_default=False
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="text (default), or json: one event a line.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=OUTPUT)]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(cls=VerbCommand, rich_help_panel="Make a file")(resume)
    app.command(cls=VerbCommand, rich_help_panel="Look")(preview)


def resume(file: Place, format: Format = "text", quiet: Quiet = False) -> None:
    """Go on with a render that was cut off; the bytes are those of an uninterrupted one.

    The same command as before goes on, too.

    \b
    kinema resume fox.mp4
    """
    with importing():  # torch among it
        from kinema.pipelines.durable.opening import seeded
        from kinema.pipelines.job import make_job
        from kinema.story.storyboard import from_mapping

    with Reporter(format, quiet=quiet) as report:
        folder, out, facts = _found(file)
        with _folder_of(facts):
            request = from_mapping(facts.asked)
            job = make_job(seeded(request, facts.seeds))
            path = Path(out.name) if out.parent == Path.cwd() else out
            options = _options(facts, folder, out, quiet=quiet)
            ours = facts.owns(path, sidecar=options.sidecar)
            if path.exists() and not (ours or options.overwrite):
                raise MediaError(f"{path} was made by something else meanwhile; move it away, then go on.")
            check_target(path, job, options, ours=ours)
            finish(job, request, path, options, report, only=True)


def preview(
    file: Place,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write; by default FILE-preview.mp4.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=OUTPUT)
    ] = False,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Show what an unfinished render has so far; it may be at work meanwhile.

    \b
    kinema preview fox.mp4
    """
    from kinema.io.video_write import check_output
    from kinema.pipelines.durable.preview import preview as draft

    with Reporter(format, quiet=quiet) as report:
        folder, target, _ = _found(file)
        path = out or free_name(f"{target.stem}-preview", ".mp4")
        check_output(path, fps=8, overwrite=overwrite)
        draft(folder, on_progress=report).save(path, overwrite=overwrite, on_note=report.note)
        report.done(str(path), path=str(path))


def _found(file: Path) -> tuple[Path, Path, Facts]:
    """The state folder that is meant, the output, both absolute, and what the folder says of itself."""
    from kinema.io.hidden import state_folder
    from kinema.pipelines.durable.state import Facts

    for folder in (file, state_folder(file)):
        if folder.is_dir() and (facts := Facts.read(folder)) is not None:
            if facts.out is None:
                raise MediaError(
                    f"{folder} keeps a clip in memory; call kinema.render again with this folder."
                )
            out = Path(facts.out) if folder is file else file.absolute()
            return folder.resolve(), out.resolve(), facts
    if file.is_file():
        raise MediaError(f"{file} is finished; there is nothing to go on with.")
    raise MediaError(
        f"no unfinished render of {file} is kept; give the file that was being made, or its state folder."
    )


@contextlib.contextmanager
def _folder_of(facts: Facts) -> Any:
    """Work where the first process did: the request's paths are relative to it, and go into the record."""
    before = Path.cwd()
    try:
        os.chdir(facts.cwd)
    except OSError as error:
        raise MediaError(f"the render was begun in {facts.cwd}: {error.strerror}; bring it back.") from None
    try:
        yield
    finally:
        os.chdir(before)


def _options(facts: Facts, folder: Path, out: Path, *, quiet: bool) -> OutputOptions:
    from kinema.io.hidden import state_folder

    known = {field.name for field in fields(OutputOptions)}
    given = OutputOptions(**{name: value for name, value in facts.options.items() if name in known})
    own = None if folder == state_folder(out) else folder
    return replace(given, out=out, state_dir=own, quiet=quiet)
