"""What models there are: a card, and the checkpoints of the hub that lie on this machine.

kinema models NAME           what a model can do
kinema models list           what was downloaded
kinema models fetch NAME     download it now
kinema models remove NAME    delete it again
"""

from __future__ import annotations

from typing import Annotated

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.progress import Reporter
from kinema.core.errors import ConfigError

DEEDS = ("list", "fetch", "remove")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Look")(models)


def models(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL | list | fetch | remove]",
            help="A folder or a hub id (owner/name, owner/name@revision), whose card is printed; or what to "
            "do with models of the hub.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Of fetch and remove: a hub id.", show_default=False),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="text (default), or json: one event a line.", show_default=False
        ),
    ] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Say what a model can do; list, fetch or remove models of the hub.

    \b
    kinema models Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    kinema models fetch Wan-AI/Wan2.1-T2V-1.3B-Diffusers@main
    kinema models list
    """
    with Reporter(format, quiet=quiet) as report:
        if what not in DEEDS:
            if name is not None:
                raise ConfigError(f"{what!r} is followed by {name!r}; write list, fetch or remove before it.")
            _card(what or "embedded")
        elif what == "list":
            _list(report)
        elif name is None:
            raise ConfigError(f"kinema models {what} needs a hub id, such as owner/name.")
        else:
            (_fetch if what == "fetch" else _remove)(name, report)


def _list(report: Reporter) -> None:
    from kinema.cli.show import size
    from kinema.pipelines.hub_cache import downloaded

    found = downloaded()
    for one in found:
        if report.json:
            report.emit("model", id=one.repo, revision=one.revision, bytes=one.size, complete=one.complete)
        else:
            state = "" if one.complete else ", unfinished: kinema models fetch goes on"
            typer.echo(f"{one.repo}@{one.revision[:12]}  {size(one.size)}{state}")
    if not found and not report.json:
        typer.echo("no model of the hub was downloaded yet; kinema models fetch OWNER/NAME does so.")


def _fetch(name: str, report: Reporter) -> None:
    from kinema.cli.show import size
    from kinema.pipelines.cards import local_folder, read_card
    from kinema.pipelines.hub import watched

    with watched(report):
        card = read_card(name)
        folder = local_folder(card)
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    report.done(f"{folder}  {size(held)}", path=str(folder), bytes=held)


def _remove(name: str, report: Reporter) -> None:
    from kinema.cli.show import size
    from kinema.pipelines.hub_cache import remove

    freed = remove(name)
    report.done(f"removed {name}, {size(freed)} freed", model=name, bytes=freed)


def _card(model: str) -> None:
    from kinema.cli.show import legal, row, sizes
    from kinema.diffusion.flow import GRIDS
    from kinema.diffusion.solvers import SOLVERS
    from kinema.pipelines.card import MODES, Student
    from kinema.pipelines.cards import read_card
    from kinema.pipelines.foreign.asked import option_defaults
    from kinema.pipelines.foreign.card import calls_of, family_of
    from kinema.pipelines.images.cards import kind_of_card

    card = read_card(model)
    d = card.defaults
    typer.echo(card.id)
    borrowed = card.borrowed
    typer.echo(row("takes", sizes(card) if card.family == "image" else legal(card)))
    typer.echo(row("default", f"{d.width}x{d.height}, {d.frames} frames at {d.fps} fps"))
    grid = "" if borrowed else f", grid {d.grid}, shift {d.shift:g}"
    typer.echo(row("", f"{d.steps} steps of {d.solver}{grid}, guidance {d.guidance:g}"))
    for note in card.notes:
        typer.echo(row("note", note))
    for speed, s in (("few", card.few), ("distilled", card.student)):
        if s is not None:
            scale = s.guidance if isinstance(s, Student) else d.guidance
            low, high = s.guidance_interval
            own = "no guidance" if scale == 1 else f"guidance {scale:g} at noise {low:g} to {high:g}"
            sampler = f"{s.steps} steps of {s.solver}, grid {s.grid}, shift {s.shift:g}, {own}"
            typer.echo(row(speed, f"{sampler} (--speed {speed})"))
    for mode, words in MODES.items():
        typer.echo(row("can" if mode in card.modes else "cannot", words))
    names = kind_of_card(card).solvers if card.family == "image" else SOLVERS
    if card.family == "foreign":
        names = family_of(card).solver_names
        for call in calls_of(card):
            typer.echo(f"options      {call.name}: {', '.join(option_defaults(family_of(card), call))}")
    typer.echo(f"solvers      {', '.join(names)}")
    grids = kind_of_card(card).grids if card.family == "image" else () if borrowed else tuple(GRIDS)
    if grids:
        typer.echo(f"grids        {', '.join(grids)}")
