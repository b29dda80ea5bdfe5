"""What a cancelled job keeps: the frames that were decoded, or else the clean estimate, decoded now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np

from kinema.core.contracts import OnProgress, Record
from kinema.core.errors import ConfigError
from kinema.io.clip import Clip
from kinema.io.image import fit_image
from kinema.io.journal import FrameJournal
from kinema.pipelines.durable.kept import kept_latents
from kinema.pipelines.durable.key import identity, versions
from kinema.pipelines.durable.state import Facts, shot_folder
from kinema.pipelines.inpaint import restored
from kinema.pipelines.job import Job
from kinema.pipelines.loading import AnyModel, decoder_of, load_decoder
from kinema.pipelines.plan import Plan
from kinema.pipelines.render import Sampled, decoded


def save_part(
    job: Job, state: Path, out: Path, *, model: AnyModel | None, on_progress: OnProgress
) -> int | None:
    """Write what is kept of a render, finished shots and then as far as the next one is.

    Args:
        job: what was rendered.
        state: its state folder.
        out: the file to make.
        model: loaded already, perhaps; its decoder is used then.
        on_progress: called with events; what it raises stops the writing.

    Returns:
        Frames of the file; None when nothing is kept that could be shown.
    """
    try:
        facts = Facts.read(state)
    except ConfigError:
        return None
    if facts is None or len(facts.keys) != len(job.plans):
        return None
    count, frames = _frames(job, facts, state, model, on_progress)
    if not count:
        return None
    fitted = (fit_image(frame, *job.made_size) for frame in frames)
    shown = islice(fitted, 1 if job.is_image else None)
    count = 1 if job.is_image else count
    record = Record(job.shot, identity(job, {}), versions(), {"partial": count})
    clip = Clip(shown, Fraction(job.made_fps), record, count=count, size=job.made_size)
    clip.save(out, overwrite=True)
    return count


def _frames(
    job: Job, facts: Facts, state: Path, model: AnyModel | None, on_progress: OnProgress
) -> tuple[int, Iterator[np.ndarray]]:
    """Shot after shot, up to the first that is not whole: how many frames, and what they are drawn from."""
    total, parts = 0, list[Iterable[np.ndarray]]()
    for plan, key, count in zip(job.plans, facts.keys, facts.frames, strict=True):
        folder = shot_folder(state, key)
        journal = FrameJournal(folder / "frames.bin")
        if journal.count:
            total, parts = total + journal.count, [*parts, journal]
            if journal.count < count:
                break
            continue
        found = kept_latents(folder, key)
        if found is not None:
            total += plan.geometry.keep
            parts.append(_decoded(plan, job, found, model, on_progress))
        break
    return total, chain.from_iterable(parts)


def _decoded(
    plan: Plan, job: Job, sampled: Sampled, model: AnyModel | None, on_progress: OnProgress
) -> Iterator[np.ndarray]:
    there = None if model is None or model.card.id != plan.model else decoder_of(model)
    vae = there or load_decoder(job.cards[plan.model], device=plan.device)
    yield from restored(plan, decoded(vae, sampled, on_progress))
