"""What a render would give if it ended now: finished shots, then the current guess of the clean clip.

Only reads; a render that is at work is not disturbed, since what it replaces it replaces whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from kinema.core.contracts import OnProgress
from kinema.core.errors import MediaError
from kinema.io.clip import Clip
from kinema.io.hidden import state_folder
from kinema.io.journal import FrameJournal
from kinema.pipelines.cards import read_card
from kinema.pipelines.durable.kept import kept_latents
from kinema.pipelines.durable.state import Facts, shot_folder
from kinema.pipelines.loading import load_decoder
from kinema.pipelines.render import Sampled, decoded


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one shot.

    Attributes:
        model: its name.
        journal: its frames.
        sampled: its latents, or the guess of them; None where there are none.
    """

    model: str
    journal: FrameJournal
    sampled: Sampled | None


def preview(file: str | Path, *, device: str = "auto", on_progress: OnProgress | None = None) -> Clip:
    """The clip as far as it is made, without transitions between shots.

    Args:
        file: the file that is being made, or its state folder.
        device: where the latents are decoded.
        on_progress: called with events.

    Returns:
        A stream of frames.

    Raises:
        MediaError: nothing is kept, or nothing yet that could be seen.
        ConfigError: the state is damaged.
    """
    folder = next((f for f in (Path(file), state_folder(Path(file))) if f.is_dir()), None)
    facts = None if folder is None else Facts.read(folder)
    if folder is None or facts is None:
        raise MediaError(f"no unfinished render of {file} is kept.")
    shots = [shot for shot in _kept(folder, facts) if shot.sampled is not None or shot.journal.count]
    if not shots:
        raise MediaError(f"there is nothing to see of {file} yet; try again after its first checkpoint.")
    return Clip(_frames(shots, facts, device, on_progress or (lambda _: None)), Fraction(facts.fps))


def _kept(folder: Path, facts: Facts) -> Iterator[Kept]:
    for key, model in zip(facts.keys, facts.models, strict=True):
        place = shot_folder(folder, key)
        yield Kept(model, FrameJournal(place / "frames.bin"), kept_latents(place, key))


def _frames(shots: list[Kept], facts: Facts, device: str, on_progress: OnProgress) -> Iterator[np.ndarray]:
    for shot, frames in zip(shots, facts.frames, strict=False):
        if shot.sampled is None or shot.journal.count >= frames:
            yield from shot.journal
        else:
            place = Path(facts.cwd) / shot.model
            card = read_card(str(place) if place.is_dir() else shot.model)
            yield from decoded(load_decoder(card, device=device), shot.sampled, on_progress)
