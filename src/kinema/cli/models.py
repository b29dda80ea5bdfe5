"""What models there are: a card, and the checkpoints of the hub that lie on this machine.

kinema models NAME           what a model can do
kinema models list           what was downloaded
kinema models fetch NAME     download it now
kinema models remove NAME    delete it again
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.progress import Reporter
from kinema.core.errors import ConfigError

if TYPE_CHECKING:
    from kinema.pipelines.card import ModelCard

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
            _card(what or "embedded", report)
        elif what == "list":
            if name is not None:
                raise ConfigError(
                    f"kinema models list is followed by {name!r}; it lists all, leave that out."
                )
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
        elif not report.quiet:
            state = "" if one.complete else ", unfinished: kinema models fetch goes on"
            typer.echo(f"{one.repo}@{one.revision[:12]}  {size(one.size)}{state}")
    if not found and not (report.json or report.quiet):
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


def _card(model: str, report: Reporter) -> None:
    from kinema.pipelines.cards import read_card

    card = read_card(model)
    if report.json:
        report.emit("card", **_facts(card))
    elif not report.quiet:
        for line in _lines(card):
            typer.echo(line)


def _facts(card: ModelCard) -> dict[str, Any]:
    """What a program is told of a model."""
    from kinema.pipelines.card import MODES

    d = card.defaults
    default = {"width": d.width, "height": d.height, "frames": d.frames, "fps": str(d.fps)}
    default |= {"steps": d.steps, "solver": d.solver, "guidance": d.guidance}
    default |= {} if card.borrowed else {"grid": d.grid, "shift": d.shift}
    return {
        "model": card.id,
        "family": card.family,
        "multiple": card.multiple,
        "time": card.stride.time,
        "default": default,
        "notes": list(card.notes),
        "speeds": [{"speed": speed, **facts} for speed, facts in _speeds(card)],
        "can": [mode for mode in MODES if mode in card.modes],
        "cannot": [mode for mode in MODES if mode not in card.modes],
        "solvers": _solvers(card),
        "grids": _grids(card),
        "options": dict(_options(card)),
    }


def _lines(card: ModelCard) -> Iterator[str]:
    """The same for a person."""
    from kinema.cli.show import legal, row, sizes
    from kinema.pipelines.card import MODES

    d = card.defaults
    yield card.id
    yield row("takes", sizes(card) if card.family == "image" else legal(card))
    yield row("default", f"{d.width}x{d.height}, {d.frames} frames at {d.fps} fps")
    grid = "" if card.borrowed else f", grid {d.grid}, shift {d.shift:g}"
    yield row("", f"{d.steps} steps of {d.solver}{grid}, guidance {d.guidance:g}")
    for note in card.notes:
        yield row("note", note)
    for speed, s in _speeds(card):
        low, high = s["guidance_interval"]
        scale = s["guidance"]
        own = "no guidance" if scale == 1 else f"guidance {scale:g} at noise {low:g} to {high:g}"
        sampler = f"{s['steps']} steps of {s['solver']}, grid {s['grid']}, shift {s['shift']:g}, {own}"
        yield row(speed, f"{sampler} (--speed {speed})")
    for mode, words in MODES.items():
        yield row("can" if mode in card.modes else "cannot", words)
    for name, options in _options(card):
        yield f"options      {name}: {', '.join(options)}"
    yield f"solvers      {', '.join(_solvers(card))}"
    if grids := _grids(card):
        yield f"grids        {', '.join(grids)}"


def _speeds(card: ModelCard) -> Iterator[tuple[str, dict[str, Any]]]:
    """How the tiers of few steps sample, where the model has them."""
    from kinema.pipelines.card import Student

    for speed, s in (("few", card.few), ("distilled", card.student)):
        if s is not None:
            scale = s.guidance if isinstance(s, Student) else card.defaults.guidance
            sampler = {"steps": s.steps, "solver": s.solver, "grid": s.grid, "shift": s.shift}
            yield speed, {**sampler, "guidance": scale, "guidance_interval": list(s.guidance_interval)}


def _solvers(card: ModelCard) -> list[str]:
    from kinema.diffusion.solvers import SOLVERS
    from kinema.pipelines.foreign.card import family_of
    from kinema.pipelines.images.solvers import solvers_of

    if card.family == "foreign":
        return list(family_of(card).solver_names)
    return list(solvers_of(card) if card.family == "image" else SOLVERS)


def _grids(card: ModelCard) -> list[str]:
    from kinema.diffusion.flow import GRIDS
    from kinema.pipelines.images.cards import kind_of_card

    if card.family == "image":
        return list(kind_of_card(card).grids)
    return [] if card.borrowed else list(GRIDS)


def _options(card: ModelCard) -> Iterator[tuple[str, list[str]]]:
    """Of a pipeline of diffusers, its calls, each with the names of the options that it takes."""
    from kinema.pipelines.foreign.asked import option_defaults
    from kinema.pipelines.foreign.card import calls_of, family_of

    if card.family == "foreign":
        for call in calls_of(card):
            yield call.name, list(option_defaults(family_of(card), call))
