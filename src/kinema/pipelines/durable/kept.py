"""The latents that a shot's state holds: finished, or the guess of them after some step."""

from __future__ import annotations

from pathlib import Path

from kinema.pipelines.durable.store import read_snapshot
from kinema.pipelines.foreign.steps import STEPS
from kinema.pipelines.render import LATENTS, SAMPLER, Sampled


def kept_latents(folder: Path, key: str) -> Sampled | None:
    """What a shot would be decoded from if it ended now; None where no latents are kept.

    Args:
        folder: of the shot's state.
        key: of the shot.

    Raises:
        ConfigError: the state is damaged.
    """
    for name in (LATENTS, SAMPLER, STEPS):
        found = read_snapshot(folder / f"{name}.state", key)
        if found is not None and LATENTS in found.tensors:
            return Sampled.of(found)
    return None
