"""`kinema calibrate`: measure what `--speed near` and `--speed fast` may leave out on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.progress import Reporter
from kinema.core.errors import ConfigError, MediaError, ModelError

USUAL = 12  # clips


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Look")(calibrate)


def _option(*names: str, help: str, metavar: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="embedded, a folder, or a hub id.")],
    prompts: Annotated[
        Path | None, _option("--prompts", metavar="FILE", help="Prompts to measure with, one a line.")
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            "--clips", metavar="N", help="How many clips, 12 by default.", min=1, show_default=False
        ),
    ] = None,
    size: Annotated[str | None, _option("--size", metavar="WxH", help="Of the clips.")] = None,
    frames: Annotated[str | None, _option("--frames", metavar="N", help="Of each clip.")] = None,
    steps: Annotated[str | None, _option("--steps", metavar="N", help="Of the exact run.")] = None,
    solver: Annotated[str | None, _option("--solver", metavar="NAME", help="Of the exact run.")] = None,
    grid: Annotated[str | None, _option("--grid", metavar="NAME", help="Of the exact run.")] = None,
    shift: Annotated[str | None, _option("--shift", metavar="X", help="Of the exact run.")] = None,
    guidance: Annotated[str | None, _option("--guidance", metavar="X", help="Of the exact run.")] = None,
    device: Annotated[str | None, _option("--device", metavar="NAME", help="auto, cpu, cuda, ...")] = None,
    dtype: Annotated[str | None, _option("--dtype", metavar="NAME", help="auto, float32, ...")] = None,
    format: Annotated[str, _option("--format", metavar="NAME", help="text (default), or json.")] = "text",
) -> None:
    """Make clips exactly and by cheaper means, and keep the cheapest that come near: for --speed.

    Takes the time of some dozens of clips; smaller and shorter ones than yours are fine.

    \b
    kinema calibrate ./Wan2.1-T2V-1.3B-Diffusers --size 480x272 --frames 33 --clips 4
    """
    from kinema.pipelines.cards import read_card
    from kinema.pipelines.loading import load
    from kinema.pipelines.model import Model
    from kinema.pipelines.planning import make_plan
    from kinema.pipelines.speed.calibration import store
    from kinema.pipelines.speed.measure import calibrate as measure
    from kinema.pipelines.speed.measure import saving_kinds
    from kinema.pipelines.speed.prompts import PROMPTS
    from kinema.story.shot import Shot

    asked = {
        "size": size, "frames": frames, "steps": steps, "solver": solver, "grid": grid, "shift": shift,
        "guidance": guidance, "device": device, "dtype": dtype,
    }  # fmt: skip
    said = {name: value for name, value in asked.items() if value is not None}
    shot = Shot.from_mapping({"model": model, "seed": 0, **said})
    lines = list(PROMPTS) if prompts is None else _lines(prompts)
    if clips is not None and clips > len(lines):
        more = "--prompts FILE, with as many" if prompts is None else "more of them"
        raise ConfigError(f"--clips {clips} is more than the {len(lines)} prompts; give {more}.")
    with Reporter(format, quiet=False) as report:
        card = read_card(model)
        if card.family not in ("wan", "embedded"):
            raise ModelError(f"model {model!r} is no video model of kinema's own, and tiers are for those.")
        saving_kinds(make_plan(shot.with_(prompt=lines[0]), card))
        loaded = load(model, device=shot.device, dtype=shot.dtype, card=card)
        assert isinstance(loaded, Model)
        found = measure(shot, lines[: clips or USUAL], loaded, say=report.note)
        place = store(loaded.card, found)
        for name, tier in found.tiers.items():
            text = f"{name}: {tier.forwards} of {found.forwards} forwards, {tier.psnr:.1f} dB from exact"
            report.done(f"{text} (the lowest of {found.clips} clips {tier.worst:.1f})", tier=name)
        report.done(f"{place}", path=str(place), **found.to_json())


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(
            f"{path} cannot be read as text ({error}); give a file with a prompt a line."
        ) from None
    found = [line for line in lines if line.strip()]
    if not found:
        raise MediaError(f"{path} has no prompts; write one a line.")
    return found
