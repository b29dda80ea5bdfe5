"""How the seed goes on from redrawn frame to redrawn frame.

    iter        seed, seed + 1, seed + 2, ...; each for `every` frames
    fixed       seed, seed, seed, ...
    ladder      seed, seed + 2, seed + 1, seed + 3, seed + 2, ...: two up, one down
    alternate   seed, seed + 1, seed, seed + 1, ...
    random      a different one for every frame, the same list for the same seed
    schedule    the value of a schedule at each frame, rounded; below 0 one is drawn

Names and rules are those of Deforum's `seed_behavior`, but for three. There the first of `iter`'s seeds lasts
one frame whatever `every` is, scheduled values lose their fraction (`dialect="deforum"` does both too), and
`random` cannot be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from kinema.core.errors import ConfigError, unknown_name

Dialect = Literal["native", "deforum"]
SeedBehaviour = Literal["iter", "fixed", "ladder", "alternate", "random", "schedule"]
LIMIT = 2**63  # seeds are in 0..LIMIT - 1 and wrap around


def seeds(
    behaviour: SeedBehaviour,
    seed: int,
    frames: int,
    *,
    every: int = 1,
    schedule: Sequence[float] | None = None,
    dialect: Dialect = "native",
) -> list[int]:
    """The seed of each of `frames` redrawn frames, each in 0..2^63 - 1.

    Args:
        behaviour: one of the names above.
        seed: the first one.
        frames: how many are drawn: with a cadence, the redrawn ones only.
        every: for `iter`, how many frames keep one seed.
        schedule: for `schedule` alone, the seeds themselves, one per frame, rounded; negative ones are drawn.
        dialect: `deforum` gives the first seed of `iter` one frame only, and cuts scheduled ones towards 0.

    Raises:
        ConfigError: an unknown behaviour, `every` below 1, or a schedule of another length.
    """
    if behaviour not in get_args(SeedBehaviour):
        raise unknown_name("seed behaviour", behaviour, get_args(SeedBehaviour))
    if every < 1:
        raise ConfigError(f"seed_every={every} is out of range; write 1 or more.")
    if behaviour == "schedule":
        return _scheduled(seed, frames, schedule, dialect)
    if behaviour == "iter":
        late = every - 1 if dialect == "deforum" else 0
        return [(seed + (i + late) // every) % LIMIT for i in range(frames)]
    rule = _RULES[behaviour]
    return [rule(seed, i) % LIMIT for i in range(frames)]


def _scheduled(seed: int, frames: int, schedule: Sequence[float] | None, dialect: Dialect) -> list[int]:
    if schedule is None or len(schedule) != frames:
        got = "none" if schedule is None else str(len(schedule))
        raise ConfigError(f"seed behaviour schedule needs {frames} seeds, one per frame, and got {got}.")
    whole = [int(value) if dialect == "deforum" else round(value) for value in schedule]
    return [_drawn(seed, i) if value < 0 else value % LIMIT for i, value in enumerate(whole)]


def _drawn(seed: int, index: int) -> int:
    """A number in 0..2^32 - 1 that depends on the seed and the frame's index only."""
    digest = hashlib.sha256(f"seed {seed} frame {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


_RULES: Mapping[str, Callable[[int, int], int]] = {
    "fixed": lambda seed, i: seed,
    "ladder": lambda seed, i: seed + i // 2 + 2 * (i % 2),
    "alternate": lambda seed, i: seed + i % 2,
    "random": lambda seed, i: _drawn(seed, i) if i else seed,
}
