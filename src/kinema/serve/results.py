"""What a job has made, from a worker's folder to its final names: all of it or nothing, and once.

    states/<id>/clip.mp4 -> results/.<id>.<lease>.mp4 (synced) -> results/<id>.mp4, inside the transaction
                                                                  that makes the job done

A worker whose lease has ended publishes nothing, since the renames happen only when the queue is sure.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kinema.core.errors import MediaError
from kinema.core.failpoints import reach
from kinema.io import atomic
from kinema.io.atomic import sync
from kinema.io.locks import LOCK_END
from kinema.io.video_read import open_video
from kinema.serve.folders import Folders
from kinema.serve.jobs import ID, Job, Result
from kinema.serve.queue import Queue

SUFFIXES = (".mp4", ".png")
THUMBNAIL_SIDE = 320
ABANDONED = 3600.0
"""Seconds after which nobody is about to publish a file any more."""
SHEET_FRAMES, SHEET_COLUMNS, SHEET_SIDE = 16, 4, 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A finished file and what is shown of it.

    Attributes:
        file: it ends in `.mp4` or `.png`.
        frames: pixel frames.
        fps: frames per second, as a fraction's text.
        width: pixels.
        height: pixels.
        seed: of the first shot.
        partial: it was cancelled, and this is what was made by then.
        thumbnail: its middle frame, WebP.
        spritesheet: frames evenly apart in rows, JPEG.
    """

    file: Path
    frames: int
    fps: str
    width: int
    height: int
    seed: int
    partial: bool
    thumbnail: bytes
    spritesheet: bytes

    @staticmethod
    def of(file: Path, *, fps: str, seed: int, partial: bool = False) -> Made:
        """Look at a file that was just written."""
        reader = open_video(file)
        width, height = reader.size
        middle, *shown = reader.read([reader.frames // 2, *sheet_indices(reader.frames)])
        return Made(
            file=file,
            frames=reader.frames,
            fps=fps,
            width=width,
            height=height,
            seed=seed,
            partial=partial,
            thumbnail=thumbnail(middle),
            spritesheet=spritesheet(shown),
        )

    def result(self, id: str) -> Result:
        """For the queue, which knows the time taken."""
        return Result(
            file=f"{id}{self.file.suffix}",
            frames=self.frames,
            fps=self.fps,
            width=self.width,
            height=self.height,
            bytes=self.file.stat().st_size,
            seed=self.seed,
            seconds_taken=0.0,
            partial=self.partial,
        )


def sheet_indices(frames: int) -> list[int]:
    """The frames of a spritesheet."""
    count = min(frames, SHEET_FRAMES)
    return [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]


def thumbnail(frame_HWC: np.ndarray) -> bytes:
    """A WebP of at most `THUMBNAIL_SIDE` pixels a side."""
    picture = Image.fromarray(frame_HWC)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return _encoded(picture, "WEBP")


def spritesheet(frames: list[np.ndarray]) -> bytes:
    """A JPEG with `SHEET_COLUMNS` frames in a row."""
    pictures = [Image.fromarray(frame) for frame in frames]
    for picture in pictures:
        picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
    width, height = pictures[0].size
    columns = min(SHEET_COLUMNS, len(pictures))
    sheet = Image.new("RGB", (width * columns, height * -(-len(pictures) // columns)))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return _encoded(sheet, "JPEG")


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=80)
    return buffer.getvalue()


def publish(queue: Queue, folders: Folders, id: str, token: str, made: Made) -> Job | None:
    """Finish a job with what was made; told again with the same token, nothing more happens.

    Returns:
        The job; None when it was deleted meanwhile, and nothing is kept.

    Raises:
        Lost: the lease has ended; nothing has changed.
        MediaError: the disk did not take it; the job is still the worker's.
    """
    if made.file.suffix not in SUFFIXES:
        raise MediaError(f"{made.file.suffix!r} is no ending of a result; they are {', '.join(SUFFIXES)}.")
    staged: Mapping[Path, Path] = {}
    try:
        staged = _staged(folders, id, token, made)
        reach("result.staged")
        job = queue.finish(id, token, made.result(id), publish=lambda: _rename(staged))
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"cannot publish the result of {id}: {error.strerror}.") from None
    finally:
        for path in staged:
            path.unlink(missing_ok=True)
    reach("result.committed")
    folders.preview(id).unlink(missing_ok=True)
    return job


def _staged(folders: Folders, id: str, token: str, made: Made) -> Mapping[Path, Path]:
    """The files beside their final places, on the disk: where they are, and where they belong."""
    targets = {
        f"{made.file.suffix}": folders.results / f"{id}{made.file.suffix}",
        ".thumbnail.webp": folders.thumbnail(id),
        ".spritesheet.jpg": folders.spritesheet(id),
    }
    found = {folders.results / f".{id}.{token[:12]}{ending}": target for ending, target in targets.items()}
    clip, thumb, sheet = found
    for path in found:
        path.unlink(missing_ok=True)
    try:
        os.link(made.file, clip)
    except OSError:  # another disk, or one without links
        shutil.copyfile(made.file, clip)
    thumb.write_bytes(made.thumbnail)
    sheet.write_bytes(made.spritesheet)
    for path in found:
        sync(path)
    return found


def _rename(staged: Mapping[Path, Path]) -> None:
    for path, target in staged.items():
        path.replace(target)
    sync(next(iter(staged.values())).parent)
    reach("result.renamed")


def sweep(queue: Queue, folders: Folders) -> int:
    """Remove the files of jobs that are gone, and what dead workers have left; how many."""
    removed = 0
    atomic.sweep(folders.states)
    for path in folders.incoming.iterdir():  # only the one server of this folder writes there
        removed += 1
        path.unlink(missing_ok=True)
    for folder in (folders.results, folders.states, folders.previews):
        for path in folder.iterdir():
            if not _is_needed(path, queue):
                removed += 1
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed


def _is_needed(path: Path, queue: Queue) -> bool:
    if path.name.startswith("."):  # a lock that is held, or what a worker is about to publish
        return path.name.endswith(LOCK_END) or time.time() - path.stat().st_ctime < ABANDONED
    match = ID.match(path.name)
    return match is not None and queue.knows(match[0])
