"""The verb that judges a model: evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kinema.cli.help import VerbCommand


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Look")(evaluate)


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="'embedded', or a folder of an embedded model.")
    ] = "embedded",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="Sprites from scripts/prepare_emoji.py: real clips, codec and retrieval beside the model.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a .json, and beside it the table and what went wrong."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report.")] = False,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Of each factor, trained combinations.")] = 16,
    held_out: Annotated[int, typer.Option("--held-out", min=0, help="And combinations never shown.")] = 8,
    steps: Annotated[int | None, typer.Option("--steps", help="Instead of the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Instead of the model's own.")] = None,
    speed: Annotated[
        str, typer.Option("--speed", metavar="TIER", help="exact, few, or distilled.", show_default=True)
    ] = "exact",
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="text, or json.", show_default=True)
    ] = "text",
) -> None:
    """Judge what a model shows against what it was asked for, factor by factor.

    Every prompt is fixed, sampled once, and counts; factors that the model was never taught show "-".

    \b
    kinema evaluate
    kinema evaluate runs/mine --data data/emoji-64 --out report.json
    """
    from kinema.core.errors import ConfigError
    from kinema.evaluation.exam import report_table
    from kinema.evaluation.examine import Wishes, check_report, examine, save_report

    if format not in ("text", "json"):
        raise ConfigError(f"--format {format} is not one of text, json.")
    wishes = Wishes(seen=clips, unseen=held_out, steps=steps, guidance=guidance, speed=speed)
    if out is not None:
        check_report(out, overwrite=overwrite)
    report, facts = examine(model, data, wishes, say=lambda line: typer.echo(line, err=True))
    if out is not None:
        save_report(report, facts, out, overwrite=overwrite)
    if format == "json":
        typer.echo(json.dumps({**facts, "table": report.table, "modes": report.modes}))
        return
    typer.echo(report_table(report))
    for name, value in report.modes.items():
        typer.echo(f"{name}: {value:.4g}")
