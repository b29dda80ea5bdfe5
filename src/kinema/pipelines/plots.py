"""The tracks of a plan as a picture: what the model will see, latent frame by latent frame.

A prompt's lane is as high in a latent frame as its weight there, taken from the plan itself; numbers over
frames run between the least and the greatest value written beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from kinema.pipelines.figure import FAINT, INK, PALETTE, Figure, color_of, shortened
from kinema.pipelines.job import Job, shot_frames
from kinema.pipelines.listening import settle
from kinema.pipelines.plan import Plan, Prompts, Spans
from kinema.story.shot import Shot

WIDTH = 960
LEFT, RIGHT = 16, 16
LANE, LABEL, GAP = 22, 13, 5
RULER = 18
_TICKS = (1, 2, 4, 5, 8, 10, 16, 20, 24, 25, 30, 40, 50, 60, 80, 100, 120, 200, 240, 250, 500, 1000)
_LEAST_TICK = 34  # pixels between two numbers of a ruler


@dataclass(frozen=True, slots=True)
class Track:
    """A number over the frames of a shot.

    Attributes:
        name: what it is: `prompt`, `negative`, `guidance`, `held`, `camera.zoom`, ...
        label: what a person calls it.
        starts: pixel frame that each value begins at.
        values: one for each start, held until the next.
        low, high: the ends of its lane.
    """

    name: str
    label: str
    starts: tuple[int, ...]
    values: tuple[float, ...]
    low: float
    high: float

    @property
    def prompt(self) -> bool:
        """It is the weight of a prompt, whose words have a colour of their own."""
        return self.name in ("prompt", "negative")


def tracks(plan: Plan) -> list[Track]:
    """Every track of a plan: prompts, negative prompts, held pictures, and numbers that change."""
    starts = tuple(plan.geometry.group_starts())
    found = [*_prompts("prompt", plan.prompts, starts), *_prompts("negative", plan.negatives, starts)]
    for held in plan.given.held:
        values = tuple(held.strength * (t == held.latent) for t in range(plan.geometry.latent_frames))
        found.append(Track("held", f"{held.image} at {held.frame}", starts, values, 0.0, 1.0))
    found.append(_number("guidance", starts, plan.sampling.guidance))
    return [*found, *_scheduled(plan)]


def written(spans: Spans) -> str:
    """A prompt as a user would write it."""
    return "".join(text if weight == 1 else f"({text}:{weight:g})" for text, weight in spans)


def _prompts(name: str, side: Prompts, starts: tuple[int, ...]) -> Iterator[Track]:
    for k, spans in enumerate(side.spans):
        text = written(spans)
        if name == "prompt" or text:
            yield Track(name, text, starts, tuple(row[k] for row in side.weights), 0.0, 1.0)


def _number(name: str, starts: tuple[int, ...], values: Sequence[float]) -> Track:
    low, high = min(values), max(values)
    span = f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}"
    return Track(name, f"{name} {span}", starts, tuple(values), min(low, 0.0), max(high, 0.0))


def _scheduled(plan: Plan) -> Iterator[Track]:
    """What else of the shot changes over its pixel frames: the camera's tracks."""
    g, seed = plan.geometry, plan.sampling.seed
    fps = Fraction(g.fps)
    shot, _ = settle(Shot.from_mapping(plan.shot), g.keep, fps, seed, plan.begin)
    if shot.camera is None:
        return
    values = shot.camera.sample(g.keep, fps, seed)
    for name in shot.camera.tracks:
        low, high = float(values[name].min()), float(values[name].max())
        if low < high:
            label = f"camera.{name} {low:.4g} to {high:.4g}"
            yield Track(f"camera.{name}", label, tuple(range(g.keep)), tuple(values[name]), low, high)


def plot(job: Job) -> Figure:
    """Every shot of a job, one under the other."""
    figure = Figure(WIDTH, GAP)
    for index in range(len(job.plans)):
        heading(figure, job, index)
        draw_tracks(figure, job.plans[index])
    return figure


def heading(figure: Figure, job: Job, index: int) -> None:
    """Which shot it is, where it begins in the clip, and how."""
    plan, begin = job.plans[index], job.starts[index]
    number = f"shot {index + 1} of {len(job.plans)}" if len(job.plans) > 1 else "shot"
    name = plan.shot.get("name")
    title = f"{number}: {name}" if name else number
    how = job.joins[index].kind
    detail = f"frames {begin} to {begin + shot_frames(plan) - 1} at {plan.geometry.fps} fps"
    detail += "" if index == 0 and how == "cut" else f", begins with a {how}"
    figure.height += GAP
    figure.words(LEFT, figure.height, title, size=13)
    figure.words(WIDTH - RIGHT, figure.height + 1, detail, color="#707074", anchor="end")
    figure.height += 20


def draw_tracks(figure: Figure, plan: Plan) -> None:
    """A lane for every track of a plan, under a ruler of its frames."""
    frames = plan.geometry.frames
    draw_ruler(figure, frames)
    for i, track in enumerate(tracks(plan)):
        red, green, blue = color_of(track.label)
        shown = f"#{red:02x}{green:02x}{blue:02x}" if track.prompt else PALETTE[i % len(PALETTE)]
        draw_lane(figure, track, frames, shown)
    figure.height += GAP


def draw_ruler(figure: Figure, frames: int) -> None:
    """Frame numbers along the width."""
    room = (WIDTH - LEFT - RIGHT) / frames
    step = next((tick for tick in _TICKS if tick * room >= _LEAST_TICK), _TICKS[-1])
    for frame in range(0, frames, step):
        x = place(frame, frames)
        figure.line([(x, figure.height + 11), (x, figure.height + RULER - 2)], FAINT)
        figure.words(x + 2, figure.height, f"{frame}", size=9, color="#707074")
    figure.height += RULER


def draw_lane(figure: Figure, track: Track, frames: int, color: str) -> None:
    """A track's steps, filled from its low end, and its label."""
    prefix = f"{track.name}: " if track.prompt or track.name == "held" else ""
    figure.words(LEFT, figure.height, shortened(prefix + track.label, WIDTH - LEFT - RIGHT))
    if not track.prompt and len(set(track.values)) == 1:  # a number that stays needs no lane
        figure.height += LABEL + GAP
        return
    top = figure.height + LABEL + 2
    figure.box(LEFT, top, WIDTH - LEFT - RIGHT, LANE, "#f0f0ec")
    span = max(track.high - track.low, 1e-9)
    edges = [*track.starts, frames]
    outline: list[tuple[float, float]] = []
    for begin, end, value in zip(edges, edges[1:], track.values, strict=False):
        y = top + LANE * (1 - (value - track.low) / span)
        outline += [(place(begin, frames), y), (place(end, frames), y)]
    bottom = top + LANE
    figure.area([(outline[0][0], bottom), *outline, (outline[-1][0], bottom)], color)
    figure.line([(LEFT, bottom), (WIDTH - RIGHT, bottom)], INK, 0.5)
    figure.height = top + LANE + GAP


def place(frame: float, frames: int) -> float:
    """Where a frame begins, across the figure."""
    return LEFT + (WIDTH - LEFT - RIGHT) * frame / frames
