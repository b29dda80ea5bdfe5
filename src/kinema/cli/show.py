"""A plan as a person reads it: sizes, costs, and the tracks as bars over the latent frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import typer

from kinema.pipelines.plan_facts import prompt_texts

if TYPE_CHECKING:
    from kinema.cli.progress import Reporter
    from kinema.pipelines.card import ModelCard
    from kinema.pipelines.estimate import Estimate
    from kinema.pipelines.job import Job
    from kinema.pipelines.plan import Plan
    from kinema.pipelines.residency.fit import Offers

BARS = " ▁▂▃▄▅▆▇█"
COLUMNS = 64
MOST_SEEDS = 6
MOST_WINDOWS = 12


def show_job(job: Job, report: Reporter, memory: str = "auto") -> None:
    """Print every shot's plan, or emit one event for each; then the file, where it is not as it is made.

    Args:
        job: what would be rendered.
        report: who is told.
        memory: the arrangement that was asked for.
    """
    from kinema.pipelines.estimate import estimate, measure_rate
    from kinema.pipelines.plan_costs import file_facts, shot_facts
    from kinema.pipelines.residency.fit import shown

    rate = measure_rate(job.plans[0].device)
    for index, plan in enumerate(job.plans):
        card = job.cards[plan.model]
        if report.json:
            report.emit("plan", **shot_facts(plan, card, rate, memory))
            continue
        if len(job.plans) > 1:
            typer.echo(f"shot {index + 1} of {len(job.plans)}")
        cost = costs(estimate(plan, card), rate)
        for line in [*lines(plan, card), *cost, *room(shown(plan, card, memory))]:
            typer.echo(line)
    if job.post is None and job.upscale is None:
        return
    if report.json:
        report.emit("file", **file_facts(job, rate))
    else:
        typer.echo(of_file(job, rate))


def of_file(job: Job, rate: float) -> str:
    """What becomes of the frames on their way into the file."""
    from kinema.pipelines.plan_costs import file_facts

    facts = file_facts(job, rate)
    steps = [] if job.post is None else [f"drawn in between by {job.post.method}"]
    if job.upscale is not None:
        about = "" if facts["seconds"] is None else f", about {duration(facts['seconds'])}"
        steps.append(f"{job.upscale.words()}{about}")
    shape = f"{facts['width']}x{facts['height']}, {facts['frames']} frames at {facts['fps']} fps"
    return row("file", f"{shape}: {'; '.join(steps)}")


def show_tracks(job: Job, report: Reporter) -> None:
    """Print what each latent frame is told: guidance, and the share of every prompt above 0."""
    for index, plan in enumerate(job.plans):
        if report.json:
            report.emit("tracks", shot=index + 1, rows=list(track_rows(plan)))
            continue
        if len(job.plans) > 1:
            typer.echo(f"shot {index + 1} of {len(job.plans)}")
        typer.echo(row("frames", f"{'guidance':<9} prompts"))
        for found in track_rows(plan):
            shares = [f"{text['weight']:7.2%} {text['text']!r}" for text in found["prompts"]]
            shares += [f"{text['weight']:7.2%} not {text['text']!r}" for text in found["negatives"]]
            typer.echo(row(found["frames"], f"{found['guidance']:<9.4g} {'  '.join(shares)}"))


def track_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """For each latent frame: its pixel frames, guidance, and the weights above 0 that the model will see."""
    g = plan.geometry
    starts = g.group_starts()
    for t, (first, after) in enumerate(zip(starts, [*starts[1:], g.frames], strict=True)):
        sides = {
            name: [
                {"text": text, "weight": weights[t]}
                for text, weights in prompt_texts(name.rstrip("s"), side)
                if weights[t] > 0
            ]
            for name, side in (("prompts", plan.prompts), ("negatives", plan.negatives))
        }
        frames = f"{first}" if after == first + 1 else f"{first}-{after - 1}"
        yield {"frames": frames, "guidance": plan.sampling.guidance[t], **sides}


def lines(plan: Plan, card: ModelCard) -> list[str]:
    """What will be sampled: one fact a line, then the tracks under a ruler of pixel frames."""
    g, s = plan.geometry, plan.sampling
    seconds = float(g.keep / Fraction(g.fps))
    return [
        row("model", f"{card.id}: {legal(card) if plan.redraw is None else sizes(card)}"),
        row("picture", f"{g.width}x{g.height}, {g.keep} frames at {g.fps} fps: {seconds:.2f} s"),
        row("latents", f"{g.latent_frames} frames of {g.rows}x{g.columns}{_context(g.context)}"),
        *windows(plan),
        row("sampling", f"{s.steps} steps of {s.solver}, grid {s.grid}, shift {s.shift:g}, seed {s.seed}"),
        *quicker(plan),
        *drawing(plan),
        *tracks(plan),
        *(row("note", note) for note in plan.notes),
    ]


def windows(plan: Plan) -> list[str]:
    """The windows of the first step, as shares of each latent frame: taller counts more."""
    cover = plan.windows
    if cover is None:
        return []
    turns = len(cover.turns)
    cell = cell_of(plan)
    skip = plan.geometry.context
    shown = [w.shares_over(cover.total)[skip:] for turn in range(turns) for w in cover.windows(turn, 0)]
    how = {"fuse": "averaged at every step", "continue": "one after the other"}[cover.kind]
    found = [
        row(
            "windows",
            f"{len(shown)} of {cover.length} latent frames, {cover.overlap} shared, {how}"
            f"{', around the loop' * plan.geometry.loop}",
        )
    ]
    found += [row("", bars(shares, 1, cell)) for shares in shown[:MOST_WINDOWS]]
    more = len(shown) - MOST_WINDOWS
    return found + ([row("", f"and {more} more")] if more > 0 else [])


def quicker(plan: Plan) -> list[str]:
    """What is left out, step by step: both sides computed, one, or none."""
    cuts = plan.sampling.shortcuts
    if cuts is None or not cuts.acts:
        return []
    skipped, reused = cuts.skipped(plan.sampling.steps), set(cuts.reuse)
    steps = [0 if j in skipped else 1 if j in reused else 2 for j in range(plan.sampling.steps)]
    name = plan.tier.name if plan.tier is not None else "shortcuts"
    more = f"; first block {cuts.threshold:g}" if cuts.cache == "first-block" else ""
    return [row("speed", f"{bars(steps, 2, 1)}  {name}: both sides, one, or none in each step{more}")]


def beside(plan: Plan) -> str:
    """What guides beside the prompts."""
    nag, skip = plan.sampling.nag, plan.sampling.skip
    found = "" if nag is None else f", nag {nag.scale:g}"
    if skip is None:
        return found
    how = "negative" if skip.scale is None else f"{skip.scale:g}"
    return f"{found}, without {', '.join(map(str, skip.layers))}: {how}"


def drawing(plan: Plan) -> list[str]:
    """What frame-by-frame mode draws, and how much of each frame may change."""
    if plan.redraw is None:
        return []
    strokes, colour = plan.redraw.strokes, plan.redraw.colour
    strengths = [stroke.strength for stroke in strokes[1:]] or [1.0]
    low, high = min(strengths), max(strengths)
    strength = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
    alone = ", no frame sees the one before" if plan.redraw.independent else f", colours {colour}"
    control = plan.control
    followed = [] if control is None else [row("control", f"{control.path}, read by {control.model}")]
    return [
        *followed,
        *_look(plan),
        row("drawn", f"{len(strokes)} of {plan.geometry.keep} frames, strength {strength}{alone}"),
        row(
            "",
            "seeds "
            + ", ".join(_seeds(stroke.seeds) for stroke in strokes[:MOST_SEEDS])
            + ", ..." * (len(strokes) > MOST_SEEDS),
        ),
    ]


def _look(plan: Plan) -> list[str]:
    """The pictures that stand in for words, each with the largest share that it has."""
    if plan.look is None:
        return []
    most = [max(shares) for shares in zip(*plan.look.shares, strict=True)]
    shown = [f"{path} {share:.0%}" for path, share in zip(plan.look.pictures, most, strict=True)]
    return [row("look", ", ".join(shown[:MOST_SEEDS]) + ", ..." * (len(shown) > MOST_SEEDS))]


def _seeds(seeds: tuple[int, int, float]) -> str:
    first, second, share = seeds
    return f"{first}" if not share else f"{first}>{second} {share:.0%}"


def cell_of(plan: Plan) -> int:
    """Columns of a latent frame's bar."""
    return max(1, min(5, COLUMNS // plan.geometry.latent_frames))


def tracks(plan: Plan) -> list[str]:
    """Bars for guidance, prompts and held frames, one per latent frame, under the frame it begins with."""
    cell = cell_of(plan)
    guidance = plan.sampling.guidance
    low, high = min(guidance), max(guidance)
    scale = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
    found = [
        row("frame", ruler(plan.geometry.group_starts(), cell)),
        row("guidance", f"{bars(guidance, high, cell)}  {scale}, {plan.sampling.method}{beside(plan)}"),
    ]
    for name, side in (("prompt", plan.prompts), ("negative", plan.negatives)):
        found += [
            row(name, f"{bars(weights, 1, cell)}  {text!r}") for text, weights in prompt_texts(name, side)
        ]
    for held in plan.given.held:
        weights = [held.strength * (t == held.latent) for t in range(plan.geometry.latent_frames)]
        place = f"frame {held.frame}, strength {held.strength:g}"
        found.append(row("held", f"{bars(weights, 1, cell)}  {held.image} at {place}"))
    return found + source(plan, cell)


def source(plan: Plan, cell: int) -> list[str]:
    """The clip that is made over, and how much of each latent frame its mask lets change."""
    given = plan.given
    if given.source is None:
        return []
    found = [row("source", f"{given.source}, strength {given.strength:g}")]
    if given.mask is not None:
        from kinema.pipelines.inpaint import open_latents

        shares = open_latents(plan)[0].mean(dim=(1, 2)).tolist()
        free = f"{sum(shares) / len(shares):.0%} of the latents are free"
        found.append(row("mask", f"{bars(shares, 1, cell)}  {given.mask.mask}, {free}"))
    return found


def costs(cost: Estimate, rate: float) -> list[str]:
    """Work, time and memory, about."""
    seconds = cost.seconds(rate)
    done = "" if cost.operations is None else f", {cost.operations / 1e12:.3g} TFLOP"
    time = [] if seconds is None else [row("time", f"about {duration(seconds)} of sampling on this machine")]
    if cost.working_bytes is None:
        work = f"{cost.tokens:,} latents, {cost.forwards} forwards of the model's own network{done}"
        return [row("work", work), *time, row("memory", f"weights {size(cost.weight_bytes)}")]
    work = f"{cost.tokens:,} tokens, {cost.forwards} forwards{done}"
    space = f"weights {size(cost.weight_bytes)}, work space about {size(cost.working_bytes)}"
    return [row("work", work), *time, row("memory", space)]


def room(found: Offers) -> list[str]:
    """What each arrangement of memory needs, and what is free; what is taken is marked."""
    marks = {tier: " (taken)" * (tier == found.taken) for tier in found.needs}
    told = [f"{tier} {size(count)}{marks[tier]}" for tier, count in found.needs.items()]
    if not told:
        return []
    none = "" if found.taken else "; none fits"
    return [row("", f"needs {', '.join(told)}; {size(found.free)} free on {found.device}{none}")]


def legal(card: ModelCard) -> str:
    """The sizes and lengths that a model takes."""
    time = card.stride.time
    lengths = ", ".join(str(1 + time * n) for n in range(1, 5))
    return f"{sizes(card)}, lengths {lengths}, ... frames"


def sizes(card: ModelCard) -> str:
    """The sizes that a model takes."""
    return f"sizes in multiples of {card.multiple}"


def row(name: str, text: str) -> str:
    """One line of a table with two columns."""
    return f"  {name:<10} {text}".rstrip()


def bars(values: Sequence[float], top: float, cell: int) -> str:
    """One block of `cell` columns per value, as high as its share of `top`; longer tracks are thinned out."""
    shown = [values[at] for at in _columns(len(values))]
    high = max(top, 1e-9)
    return "".join(BARS[max(0, min(8, round(8 * value / high)))] * cell for value in shown)


def ruler(starts: Sequence[int], cell: int) -> str:
    """The pixel frame that each bar begins with, as many as there is room for."""
    text, free = "", 0
    for column, at in enumerate(_columns(len(starts))):
        if column * cell >= free:
            text = f"{text.ljust(column * cell)}{starts[at]}"
            free = len(text) + 1
    return text


def duration(seconds: float) -> str:
    """`0.8 s`, `75 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in powers of a thousand."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _columns(count: int) -> list[int]:
    """Which of `count` values are drawn: all, or `COLUMNS` of them evenly apart."""
    shown = min(COLUMNS, count)
    return [i * count // shown for i in range(shown)]


def _context(latent_frames: int) -> str:
    return f", {latent_frames} held in front" if latent_frames else ""
