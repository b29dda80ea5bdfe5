"""Batches of a training stage: drawn ahead by processes as numbers, rendered and encoded where the model is.

Batch i depends on (seed, i) only. What a batch is made of (scenes, captions, how frames are held) is a few
hundred kilobytes, so processes draw it while the device works; pixels never pass between processes.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.errors import ConfigError, unknown_name
from kinema.core.runtime import generator
from kinema.training.captions import caption
from kinema.training.data import SpriteBank
from kinema.training.dit import HELD_FRAMES, Held, ObjectiveSettings, draw_held
from kinema.training.drawing import draw_scenes
from kinema.training.grammar import Grammar
from kinema.training.numbers import Numbers, numbers
from kinema.training.recipe import made
from kinema.training.render import Gather
from kinema.training.scenes import Identity
from kinema.training.travel import draw_course

AHEAD = 2  # batches that each process is ahead
GROUP = 4  # pixel frames of a latent frame


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSettings:
    """One kind of batch of a stage.

    Attributes:
        frames: pixel frames of a clip; 1 for stills.
        fps: frames per second.
        batch: clips a step.
        objective: how they are noised.
        grammar: settings that differ from the stage's grammar.
        cast: who appears: names of the recipe's `casts`, each with how often its members are in the hat;
            everyone, once, when empty.
        travel: whether every clip turns into the next one of its batch.
    """

    frames: int
    fps: float
    batch: int
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    grammar: Mapping[str, Any] = field(default_factory=dict)
    cast: Mapping[str, int] = field(default_factory=dict)
    travel: bool = False

    def __post_init__(self) -> None:
        if self.travel and self.frames < 2:
            raise ConfigError("a part with travel: true has frames: 1; a still cannot turn into another.")
        if self.frames < 1 or (self.frames - 1) % GROUP:
            raise ConfigError(f"frames={self.frames} is not 1 + a multiple of {GROUP}; write 1 or 17.")
        if not self.fps > 0 or self.batch < 1:
            raise ConfigError(f"fps={self.fps:g} and batch={self.batch} must be above 0.")
        latent_frames = 1 + (self.frames - 1) // GROUP
        for way, odds in self.objective.odds.items():
            if odds and latent_frames <= HELD_FRAMES.get(way, 0):  # the loss would be 0 / 0
                least = 1 + GROUP * HELD_FRAMES[way]
                raise ConfigError(
                    f"odds of {way!r} with frames={self.frames} leave nothing to learn; write "
                    f"frames: {least} or more, or none alone."
                )
        for name in self.grammar:
            if name == "held_out":
                raise ConfigError(
                    "held_out differs in a part, which would show what the others hold out; write it in the "
                    "recipe's grammar."
                )
            if name not in (names := [field.name for field in fields(Grammar)]):
                raise unknown_name("setting of the grammar", name, names)

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> PartSettings:
        """From a recipe.

        Raises:
            ConfigError: a setting is missing, unknown or out of range.
        """
        objective = values.get("objective", {}) if isinstance(values, Mapping) else {}
        own = made(ObjectiveSettings, objective, "objective")
        return made(
            PartSettings, {**values, "objective": own} if isinstance(values, Mapping) else values, "part"
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's clips before they are rendered.

    Attributes:
        step: its number.
        part: the place of its kind in the stage.
        held: how frames are held; "continue" needs clips without a special first frame.
        captions: what they show.
        values: the scenes as numbers.
        courses_BF: the next clip's weight in every frame of each, where clips travel.
    """

    step: int
    part: int
    held: Held
    captions: list[str]
    values: Numbers
    courses_BF: Tensor | None = None


class Drawer:
    """Draws batch i of a stage; small enough to be sent to a process.

    Args:
        bank: the sprites, of which only words and lengths are kept.
        grammar: what is drawn, how often.
        parts: kinds of batches, taken in turn.
        seed: names the stream.
        casts: names of identities by the names that parts use.

    Raises:
        ConfigError: a part names a cast that there is not, or a cast an identity that the bank lacks.
    """

    def __init__(
        self,
        bank: SpriteBank,
        grammar: Grammar,
        parts: Sequence[PartSettings],
        *,
        seed: int,
        casts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.hats = [hat(bank.identities, part.cast, casts or {}) for part in parts]
        self.offsets, self.lengths = np.array(bank.offsets), np.array(bank.lengths)
        self.fps, self.seed, self.parts = bank.fps, seed, tuple(parts)
        self.grammars = [replace(grammar, **part.grammar) for part in parts]

    def draw(self, step: int) -> Batch:
        """Batch number `step`."""
        number = step % len(self.parts)
        part, grammar = self.parts[number], self.grammars[number]
        held = draw_held(part.objective, generator(self.seed, f"held/{step}"))  # not the stream of the levels
        frames = part.frames
        if held == "continue":  # every latent frame stands for a whole group, the first one too
            frames = GROUP * (1 + (frames - 1) // GROUP)
        rng = Random(f"{self.seed}/{step}")
        scenes = draw_scenes(rng, grammar, self.hats[number], part.batch, still=part.frames == 1)
        captions = [caption(scene, rng, full=grammar.full) for scene in scenes]
        values = numbers(scenes, self.offsets, self.lengths, frames=frames, rate=self.fps / part.fps)
        courses = [draw_course(rng, frames) for _ in scenes] if part.travel else None
        return Batch(step, number, held, captions, values, None if courses is None else torch.tensor(courses))


def hat(
    identities: tuple[Identity, ...], cast: Mapping[str, int], casts: Mapping[str, Sequence[str]]
) -> tuple[Identity, ...]:
    """Whom a part draws from, an identity as often as its cast says."""
    if not cast:
        return identities
    by_name = {identity.name: identity for identity in identities}
    found: list[Identity] = []
    for name, times in cast.items():
        if name not in casts:
            raise unknown_name("cast", name, casts)
        for who in casts[name]:
            if who not in by_name:
                raise unknown_name(f"member of the cast {name!r}", who, by_name)
            found += [by_name[who]] * times
    return tuple(found)


def batches(drawer: Drawer, first: int, *, apart: int = 1, workers: int = 0) -> Generator[Batch, None, None]:
    """Batches `first`, `first + apart`, ... without end; drawn by processes when `workers` is above 0."""
    if workers == 0:
        step = first
        while True:
            yield drawer.draw(step)
            step += apart
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (drawer,)) as pool:
        waiting: deque[Future[bytes]] = deque()
        step = first
        try:
            while True:
                while len(waiting) < AHEAD * workers:
                    waiting.append(pool.submit(_draw, step))
                    step += apart
                yield pickle.loads(waiting.popleft().result())  # bytes of our own process, never a file
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Resident:
    """All sprite frames on a device, for renders there.

    Args:
        bank: the sprites.
        device: where they go.
    """

    def __init__(self, bank: SpriteBank, device: torch.device) -> None:
        self.table_NHWC = torch.from_numpy(np.array(bank.frames_NHWC)).to(device)

    def __call__(self, rows_N: Tensor) -> Tensor:
        """The frames in some rows."""
        return self.table_NHWC[rows_N.to(self.table_NHWC.device)]


def sprites_on(bank: SpriteBank, device: torch.device) -> Gather:
    """Look-up of sprite frames: from the mapped file on a CPU, from the device's memory elsewhere."""
    return bank.gather if device.type == "cpu" else Resident(bank, device)


_drawer: list[Drawer] = []


def _begin(drawer: Drawer) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains, which ends this one
    torch.set_num_threads(1)
    _drawer[:] = [drawer]


def _draw(step: int) -> bytes:
    # Plain bytes: tensors of other processes would go through shared memory, of which there may be little.
    return pickle.dumps(_drawer[0].draw(step))
