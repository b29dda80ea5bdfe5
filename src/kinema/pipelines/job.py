"""A request made ready to render: the plans of its shots, one after the other in one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from kinema.core.errors import ConfigError, GeometryError, MediaError, ModelError
from kinema.io.audio_source import open_audio
from kinema.io.mux import AudioPart
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import read_card
from kinema.pipelines.carried import at_made_rate
from kinema.pipelines.compose import CUT, Join, join
from kinema.pipelines.listening import each_file_once, same_sound
from kinema.pipelines.plan import Plan
from kinema.pipelines.planning import make_plan
from kinema.pipelines.post import Post, after_clip, plan_post
from kinema.pipelines.soundtrack import ON_TIME, Place, moment, soundtrack
from kinema.pipelines.upscale import Enlargement, plan_upscale
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard


@dataclass(frozen=True, slots=True)
class Job:
    """What one output file is made of.

    Attributes:
        plans: in order; a plan whose `given.extend` is "previous" goes on from the one before.
        cards: by the model's name.
        shot: the resolved request as JSON values, for the record.
        joins: how each shot begins.
        end: how the last one ends.
        canvas: (width, height) that every shot is brought to; None where all shots have one size.
        audio: what is heard.
        post: what is done to the frames once they are composed.
        upscale: and how they are made larger then.
    """

    plans: tuple[Plan, ...]
    cards: dict[str, ModelCard]
    shot: dict[str, Any]
    joins: tuple[Join, ...] = (CUT,)
    end: Join = CUT
    canvas: tuple[int, int] | None = None
    audio: tuple[AudioPart, ...] = ()
    post: Post | None = None
    upscale: Enlargement | None = None

    @property
    def is_image(self) -> bool:
        """One frame in all."""
        return self.frames == 1

    @property
    def frames(self) -> int:
        """Pixel frames of the file that are made; a clip that is extended adds its own in front."""
        made = sum(plan.geometry.keep for plan in self.plans) - self.overlaps
        return made if self.post is None else self.post.made(made)

    @property
    def length(self) -> int:
        """Pixel frames of the file, with those of a clip that is extended."""
        return self.composed if self.post is None else self.post.count(self.composed)

    @property
    def composed(self) -> int:
        """Pixel frames of all shots together, at the rate at which they are made."""
        return sum(map(shot_frames, self.plans)) - self.overlaps

    @property
    def overlaps(self) -> int:
        """Frames that two shots share."""
        return sum(join.overlap for join in self.joins)

    @property
    def starts(self) -> tuple[int, ...]:
        """The frame in which each shot begins, at the rate at which they are made."""
        return tuple(place.begin for place in places(self.plans, self.joins))

    @property
    def width(self) -> int:
        """Pixels of the file."""
        return (self.made_size if self.upscale is None else self.upscale.new_size)[0]

    @property
    def height(self) -> int:
        """Pixels of the file."""
        return (self.made_size if self.upscale is None else self.upscale.new_size)[1]

    @property
    def made_size(self) -> tuple[int, int]:
        """(width, height) in which the shots are made, or brought to."""
        first = self.plans[0].geometry
        return self.canvas or (first.width, first.height)

    @property
    def fps(self) -> str:
        """Frames per second of the file, as a fraction's text."""
        return self.made_fps if self.post is None else self.post.new_fps

    @property
    def made_fps(self) -> str:
        """Frames per second at which the shots are made."""
        return self.plans[0].geometry.fps

    @property
    def seed(self) -> int:
        """Of the first shot."""
        return self.plans[0].sampling.seed

    @property
    def notes(self) -> tuple[str, ...]:
        """What was rounded or moved, in every shot."""
        return tuple(note for plan in self.plans for note in plan.notes)


def make_job(request: Shot | Storyboard, *, local_files_only: bool = False) -> Job:
    """Plan every shot of a request; what is wrong with it is found here, before weights are read."""
    board = request if isinstance(request, Storyboard) else Storyboard.make(shots=(request,))
    shots = at_made_rate(board.shots)
    cards = {
        model: read_card(model, local_files_only=local_files_only)
        for model in dict.fromkeys(s.model for s in shots)
    }
    plans = _plans(board, shots, cards)
    _check_one_clip(plans, sized=board.canvas is not None)
    fps = Fraction(plans[0].geometry.fps)
    joins = tuple(join(shot.transition, fps, first=i == 0) for i, shot in enumerate(shots))
    end = join(board.end, fps, end=True)
    _check_room(plans, (*joins, end))
    resolved = [plan.shot for plan in plans]
    whole = {**board.whole(), "shots": resolved} if isinstance(request, Storyboard) else resolved[0]
    for path in {shot.audio: None for shot in shots if shot.audio is not None}:
        open_audio(path)
    post = _post(board, shots, plans)
    audio = soundtrack(shots, places(plans, joins), fps, _late(post))
    job = Job(tuple(plans), cards, whole, joins, end, board.canvas, audio, post)
    return replace(job, upscale=plan_upscale(shots, job.made_size))


def _plans(board: Storyboard, shots: Sequence[Shot], cards: Mapping[str, ModelCard]) -> list[Plan]:
    """The plan of each shot; every one may go on from the one before."""
    plans: list[Plan] = []
    with each_file_once():
        for i, shot in enumerate(shots):
            _check_same_model(i + 1, shot, plans)
            after = plans[-1].geometry if plans else None
            late = ON_TIME if shot.audio is None else _late(_post(board, shots, plans))
            with _told_which(i, len(shots)):
                plans.append(make_plan(shot, cards[shot.model], after, _sound_begins(shots, plans, late)))
    return plans


@contextmanager
def _told_which(index: int, shots: int) -> Iterator[None]:
    """Put the shot in front of what is wrong with it, where there are several."""
    try:
        yield
    except (ConfigError, GeometryError, MediaError, ModelError) as error:
        if shots == 1 or type(error) not in (ConfigError, GeometryError, MediaError, ModelError):
            raise
        raise type(error)(f"shots[{index}]: {error}") from None


def _post(board: Storyboard, shots: Sequence[Shot], plans: Sequence[Plan]) -> Post | None:
    """What is done to the frames once they are composed, as far as the first plan says it."""
    if not plans:
        return None
    geometry = plans[0].geometry
    fps = Fraction(geometry.fps)
    joins = [join(shot.transition, fps, first=i == 0) for i, shot in enumerate(shots)]
    joins.append(join(board.end, fps, end=True))
    loop = len(shots) == 1 and geometry.loop and joins[0] == joins[-1] == CUT
    post = plan_post(shots, geometry.fps, loop=loop)
    if post is not None and board.canvas is None and joins[0] == CUT:
        post = after_clip(post, plans[0], joins[1].leaving)
    return post


def _late(post: Post | None) -> Fraction:
    return ON_TIME if post is None else post.late


def _sound_begins(shots: Sequence[Shot], plans: Sequence[Plan], late: Fraction) -> float:
    """Seconds from the first shot with the sound of the next one to plan, to that shot."""
    index = len(plans)
    if not plans or shots[index].audio is None:
        return 0.0
    fps = Fraction(plans[0].geometry.fps)
    joins = [join(shot.transition, fps, first=i == 0) for i, shot in enumerate(shots[: index + 1])]
    placed = places(plans, joins[:index])
    begin = placed[-1].end - joins[index].overlap
    first = same_sound(shots, index)
    if first == index:
        return 0.0
    return float(moment(begin, fps, late) - moment(placed[first].begin, fps, late))


def places(plans: Sequence[Plan], joins: Sequence[Join]) -> tuple[Place, ...]:
    """Where each shot lies in the clip."""
    found: list[Place] = []
    for plan, begin in zip(plans, joins, strict=True):
        first = found[-1].end - begin.overlap if found else 0
        found.append(Place(first, first + shot_frames(plan), begin.overlap))
    return tuple(found)


def shot_frames(plan: Plan) -> int:
    """Pixel frames that one shot brings: those made, and those of a clip on disk that it extends."""
    return plan.geometry.shown + plan.geometry.keep


def _check_room(plans: Sequence[Plan], joins: Sequence[Join]) -> None:
    """A frame takes part in one transition at most."""
    for i, (plan, (begin, follow)) in enumerate(zip(plans, pairwise(joins), strict=True)):
        taken, frames = begin.arriving + follow.leaving, shot_frames(plan)
        if taken > frames:
            raise GeometryError(
                f"shots[{i}] has {frames} frames and the transitions around it take {taken}; "
                "make it longer, or them shorter."
            )


def _check_same_model(number: int, shot: Shot, before: Sequence[Plan]) -> None:
    """A shot that goes on from the one before takes over its latents, which only the same model can read."""
    if shot.extend is None or not shot.extend.previous:
        return
    if not before:
        raise ConfigError("extend: previous needs a shot before it in a storyboard; name a clip's file.")
    if before[-1].model != shot.model:
        raise ConfigError(
            f"shot {number} goes on from the shot before in model {shot.model!r}, and that one is in "
            f"{before[-1].model!r}; use one model, or extend the first shot's file."
        )
    g = before[-1].geometry
    if g.keep != g.frames:
        raise ConfigError(
            f"shot {number} goes on from a shot of {g.keep} frames, which is cut from {g.frames}; "
            f"give that one {g.frames} frames."
        )


def _check_one_clip(plans: Sequence[Plan], *, sized: bool) -> None:
    """A file has one rate, and one size unless it is `sized` by a canvas."""
    first = plans[0].geometry
    for i, plan in enumerate(plans[1:], start=2):
        g = plan.geometry
        if g.fps != first.fps or (not sized and (g.width, g.height) != (first.width, first.height)):
            raise ConfigError(
                f"shot {i} is {g.width}x{g.height} at {g.fps} fps and shot 1 "
                f"{first.width}x{first.height} at {first.fps}; one clip has one size and rate: set size and "
                "fps for all shots, or a canvas that shots of other sizes are fitted to."
            )
