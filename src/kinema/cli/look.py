"""The verbs that only look: plan, inspect, schema, models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinema.cli.options import OutputOptions, ShotOptions, with_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinema.pipelines.cards import ModelCard
    from kinema.pipelines.job import Job
    from kinema.pipelines.plan import Plan

BARS = " ▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(with_options(plan))
    for verb in (inspect, schema, models):
        app.command()(verb)


def plan(
    what: Annotated[str, typer.Argument(help="A prompt, a shot file, or a file that kinema made.")],
    shot: ShotOptions,
    output: OutputOptions,
) -> None:
    """Print what would be rendered, legal sizes, costs and tracks; no weight is read."""
    from kinema.pipelines.job import make_job
    from kinema.pipelines.source import TEXTS, read_request
    from kinema.story.shot import Shot

    if Path(what).is_file() or Path(what).suffix.lower() in TEXTS:
        request = read_request(what, changes=shot.given())
    else:
        request = Shot.from_mapping({"prompt": what, **shot.given()})
    show_job(make_job(request), json_lines=output.format == "json")


def show_job(job: Job, *, json_lines: bool) -> None:
    """Print every shot's plan."""
    from kinema.pipelines.estimate import estimate, measure_rate

    rate = measure_rate(job.plans[0].device)
    for index, item in enumerate(job.plans):
        card = job.cards[item.model]
        cost = estimate(item, card)
        if json_lines:
            data = {"tokens": cost.tokens, "forwards": cost.forwards, "seconds": cost.seconds(rate)}
            typer.echo(json.dumps({"event": "plan", "shot": item.shot, "digest": item.digest, **data}))
            continue
        if len(job.plans) > 1:
            typer.echo(f"shot {index + 1}")
        _show_plan(item, card)
        typer.echo(
            f"  costs      {cost.tokens:,} tokens, {cost.forwards} forwards, {cost.operations / 1e12:.3g} TFLOP; about "
            f"{_duration(cost.seconds(rate))} of sampling here"
        )
        typer.echo(
            f"  memory     weights {_size(cost.weight_bytes)} on disk, about {_size(cost.working_bytes)} of work space"
        )


def _show_plan(item: Plan, card: ModelCard) -> None:
    g, s = item.geometry, item.sampling
    typer.echo(f"  model      {card.id}: sizes in multiples of {card.multiple}, lengths {_lengths(card)}")
    typer.echo(
        f"  picture    {g.width}x{g.height}, {g.keep} frames at {g.fps} fps ({g.keep / _number(g.fps):.2f} s)"
    )
    typer.echo(
        f"  latents    {g.latent_frames} frames of {g.rows}x{g.columns}"
        + (f", {g.context} held in front" if g.context else "")
    )
    typer.echo(f"  sampling   {s.steps} steps of {s.solver}, grid {s.grid}, shift {s.shift:g}, seed {s.seed}")
    typer.echo(f"  guidance   {_bars(s.guidance)} {min(s.guidance):g} to {max(s.guidance):g} ({s.method})")
    for name, side in (("prompt", item.prompts), ("negative", item.negatives)):
        for k, spans in enumerate(side.spans):
            text = "".join(part if weight == 1 else f"({part}:{weight:g})" for part, weight in spans)
            if text or name == "prompt":
                typer.echo(f"  {name:<10} {_bars([row[k] for row in side.weights], top=1)} {text!r}")
    for held in item.given.held:
        typer.echo(
            f"  held       frame {held.frame} (latent frame {held.latent}): {held.image}, strength {held.strength:g}"
        )
    for note in item.notes:
        typer.echo(f"  note       {note}")


def inspect(file: Annotated[Path, typer.Argument(help="A file that kinema made.")]) -> None:
    """Print the record that a file carries, as JSON."""
    from kinema.core.errors import MediaError
    from kinema.io.record import read_record

    if not file.exists():
        raise MediaError(f"{file} does not exist.")
    record = read_record(file)
    if record is None:
        raise MediaError(f"{file} carries no record of kinema's.")
    typer.echo(json.dumps(json.loads(record.to_json()), indent=2, ensure_ascii=False))


def schema() -> None:
    """Print the JSON schema of a shot."""
    from kinema.story.shot import Shot

    typer.echo(json.dumps(Shot.model_json_schema(), indent=2, ensure_ascii=False))


def models(
    model: Annotated[
        str | None, typer.Argument(help="A folder or hub id to look at; else what is built in.")
    ] = None,
) -> None:
    """Say what a model can do, and which solvers there are."""
    from kinema.diffusion.flow import GRIDS
    from kinema.diffusion.solvers import SOLVERS
    from kinema.pipelines.cards import EMBEDDED, MODES, read_card

    card = read_card(model or EMBEDDED)
    d = card.defaults
    typer.echo(f"{card.id}")
    typer.echo(
        f"  default    {d.width}x{d.height}, {d.frames} frames at {d.fps} fps, {d.steps} steps of {d.solver}, guidance {d.guidance:g}"
    )
    typer.echo(f"  sizes      multiples of {card.multiple}; lengths {_lengths(card)}")
    for mode in MODES:
        typer.echo(f"  {'can' if mode in card.modes else 'cannot':<10} {MODES[mode]}")
    typer.echo(f"solvers      {', '.join(SOLVERS)}")
    typer.echo(f"grids        {', '.join(GRIDS)}")


def _lengths(card: ModelCard) -> str:
    time = card.stride.time
    return f"1 + a multiple of {time}: {', '.join(str(1 + time * n) for n in range(4))}, ..."


def _bars(values: Sequence[float], *, top: float | None = None) -> str:
    """One block per latent frame (at most 64), as high as its value."""
    shown = [values[i * len(values) // min(64, len(values))] for i in range(min(64, len(values)))]
    high = top or max(*shown, 1e-9) if len(shown) > 1 else top or max(shown[0], 1e-9)
    return "".join(BARS[max(0, min(8, round(8 * value / high)))] for value in shown)


def _number(fraction: str) -> float:
    from fractions import Fraction

    return float(Fraction(fraction))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
