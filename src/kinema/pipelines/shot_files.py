"""A file for each shot of a storyboard beside the whole clip: its frames before transitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io.formats import CONTAINERS, Quality, choose_codec, container_of
from kinema.io.tee import tee
from kinema.io.video_read import open_video
from kinema.io.video_write import OnReady, check_output, write_video
from kinema.pipelines.durable.key import versions
from kinema.pipelines.job import Job
from kinema.pipelines.plan import Plan
from kinema.story.post import Interpolate
from kinema.story.shot import PREVIOUS

Overwrite = bool | Callable[[Path], bool]
OnShot = Callable[[int, Iterator[np.ndarray]], Iterator[np.ndarray]]


def shot_paths(job: Job, folder: Path, suffix: str) -> list[Path]:
    """`02-flight.mp4`: number and name of each shot; the clip's own format where it holds several frames."""
    suffix = suffix if suffix.lower() in CONTAINERS else ".mp4"
    digits = max(2, len(str(len(job.plans))))
    names = [re.sub(r"[^\w-]+", "-", plan.shot.get("name") or "").strip("-") for plan in job.plans]
    stems = [f"{i:0{digits}}-{name}" if name else f"{i:0{digits}}" for i, name in enumerate(names, start=1)]
    return [folder / f"{stem}{suffix}" for stem in stems]


def check_shots_dir(job: Job, folder: Path, suffix: str, *, overwrite: Overwrite, quality: Quality) -> None:
    """Refuse, as `shot_files` would, a folder in which files of shots cannot be; it is not made.

    Raises:
        MediaError, ConfigError: a file is in the way, or the quality is not possible in it.
    """
    paths = shot_paths(job, folder, suffix)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise MediaError(f"shots_dir={str(folder)!r}: {str(there)!r} is a file; write a folder.")
    choose_codec(container_of(paths[0]), None, quality)
    for path in paths if there == folder else ():
        check_output(path, fps=job.made_fps, overwrite=_may(overwrite, path), quality=quality)


def _may(overwrite: Overwrite, path: Path) -> bool:
    return overwrite if isinstance(overwrite, bool) else overwrite(path)


def shot_files(
    job: Job,
    folder: Path,
    suffix: str,
    *,
    overwrite: Overwrite,
    quality: Quality = "high",
    on_ready: OnReady | None = None,
) -> OnShot:
    """What each shot's frames go through so that they are written too.

    Args:
        job: whose shots.
        folder: made when it is missing.
        suffix: of the whole clip.
        overwrite: whether files may be replaced; or which.
        quality: of the files.
        on_ready: told of each finished file before it gets its name.

    Raises:
        MediaError: a file that exists, or a folder that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot make the folder {str(folder)!r}: {error.strerror}.") from None
    paths = shot_paths(job, folder, suffix)
    for path in paths:
        check_output(path, fps=job.made_fps, overwrite=_may(overwrite, path), quality=quality)
    written: set[int] = set()

    def each(index: int, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        again = index in written or _may(
            overwrite, paths[index]
        )  # a clip whose writing failed is drawn once more
        written.add(index)
        save = partial(
            write_video,
            paths[index],
            fps=job.made_fps,
            record=_record(job.plans[index]),
            overwrite=again,
            quality=quality,
            on_ready=on_ready,
        )
        return tee(frames, save)

    return each


def _record(plan: Plan) -> Record | None:
    """What makes the shot again by itself; None where no shot by itself does.

    That is one that begins from the shot before it, or goes on from a clip faster than that clip is.
    """
    if plan.given.extend == PREVIOUS or any(held.image == PREVIOUS for held in plan.given.held):
        return None
    of_clip = ("transition", "interpolate", "upscale")
    alone = {name: value for name, value in plan.shot.items() if name not in of_clip}
    made = Fraction(plan.geometry.fps)
    rate = made if plan.given.extend is None else open_video(plan.given.extend, still_fps=made).fps
    if made > rate:
        return None
    if made < rate:  # alone, a shot goes on at a lower rate only where its file has the clip's
        alone["interpolate"] = _up_to(rate, plan.shot.get("interpolate"))
    return Record(alone, {"id": plan.model}, versions())


def _up_to(rate: Fraction, asked: Any) -> dict[str, Any]:
    """How frames are brought to a rate: as it was asked for, if it was this rate."""
    if asked is not None and Fraction(Interpolate.from_mapping(asked).fps) == rate:
        return dict(asked)
    return Interpolate.from_mapping({"fps": rate}).model_dump(mode="json")
