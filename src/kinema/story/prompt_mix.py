"""Several prompts at once, each with a weight over frames.

prompt:
  head: oil painting
  mix:
    a fox: 1 - t / max_f
    a wolf: {0: 0, 50%: {value: 1, ease: in_out}, -1: 0.5}
    fog: 0.3 * audio.rms

share_k(f) = w_k(f) / sum_j w_j(f)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.core.errors import ConfigError
from kinema.story.keyed import Array, entries

if TYPE_CHECKING:
    from kinema.story.tracks import Schedule

MAX_PROMPTS = 100

Mix = tuple[tuple[str, "Schedule"], ...]


def read_mix(source: Any) -> Mix:
    """Texts and their weights, from a mapping or from a list of `{prompt: ..., weight: ...}`.

    Raises:
        ConfigError: no prompts, one twice, or a weight that cannot be read.
    """
    found = list(_pairs(source))
    if not 1 <= len(found) <= MAX_PROMPTS:
        raise ConfigError(f"mix has {len(found)} prompts; write 1 to {MAX_PROMPTS}.")
    texts = [text for text, _ in found]
    if twice := next((text for i, text in enumerate(texts) if text in texts[:i]), None):
        raise ConfigError(f"mix has {twice[:40]!r} twice; write one weight.")
    return tuple(found)


def _pairs(source: Any) -> Iterator[tuple[str, Schedule]]:
    if isinstance(source, Mapping):
        for text, weight in source.items():
            yield text, _weight(text, weight)
    elif isinstance(source, Sequence) and not isinstance(source, str):
        for i, item in enumerate(source):
            if not isinstance(item, Mapping):
                raise ConfigError(f"mix[{i}] is no mapping; write {{prompt: a fox, weight: 0.5}}.")
            entry = entries(item, ("prompt", "weight"), f"mix[{i}]")
            yield entry["prompt"], _weight(entry["prompt"], entry.get("weight", 1))
    else:
        raise ConfigError(f"mix={str(source)[:40]!r} is no mapping; write mix: {{a fox: 0.5, a wolf: 0.5}}.")


def _weight(text: Any, weight: Any) -> Schedule:
    from kinema.story.tracks import Schedule  # which hands on the track that is made of mixes

    try:
        schedule = Schedule.coerce(weight)
    except ConfigError as error:
        raise ConfigError(f"mix, weight of {str(text)[:40]!r}: {error}") from None
    if any(callable(key.value) or callable(key.ease) for key in schedule.keys):
        raise ConfigError(f"mix, weight of {str(text)[:40]!r} is a function; write numbers or a formula.")
    return schedule


def shares(mix: Mix, frames: int, fps: float | Fraction, seed: int) -> Array:
    """The share of each prompt in each frame, float64 `[F, K]`, rows with sum 1.

    Raises:
        ConfigError: a weight below 0, or a frame where all are 0.
    """
    weights_FK = np.stack([schedule.sample(frames, fps, seed) for _, schedule in mix], axis=1)
    if (weights_FK < 0).any():
        f, k = np.argwhere(weights_FK < 0)[0]
        raise ConfigError(
            f"mix, weight of {mix[k][0][:40]!r} is {weights_FK[f, k]:.4g} at frame {f}; a weight is at least "
            "0: write max(0, ...), or move the words to the negative prompt."
        )
    sum_F1 = weights_FK.sum(axis=1, keepdims=True)
    if (sum_F1 <= 0).any():
        raise ConfigError(
            f"mix: all weights are 0 at frame {int(np.argmax(sum_F1 <= 0))}; leave one above 0."
        )
    normalised: Array = weights_FK / sum_F1
    return normalised
