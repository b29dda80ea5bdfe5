"""A render that goes on where it was cut: the state folder of one output.

    .fox.mp4.kinema/
      job.json            the request, the seeds that were drawn, what is about to be published
      <key of a shot>/
        sampler.state     latents, solver history, the current clean estimate
        latents.state     finished latents
        frames.bin        decoded frames so far

Every file in it appears whole or not at all. The folder is made when there is something to keep and removed
once the output is published.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import ConfigError, MediaError, NumericError
from kinema.core.failpoints import reach
from kinema.io.atomic import sync
from kinema.io.live import Draft
from kinema.io.names import is_numbered, numbered, sidecar_path
from kinema.pipelines.durable.pace import Every, Pace
from kinema.pipelines.durable.plan import Place
from kinema.pipelines.durable.store import read_facts, write_facts

FORMAT = 1
JOB = "job.json"
_KEY_LETTERS = 24


class _Again:
    """Frames that are drawn anew each time."""

    def __init__(self, draw: Callable[[], Iterator[np.ndarray]]) -> None:
        self._draw = draw

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._draw()


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a state folder says of itself.

    Attributes:
        asked: the request as it was given, JSON values.
        seeds: of each shot, drawn ones included.
        out: the output's absolute path; None for a clip in memory.
        cwd: the folder that relative paths are taken from.
        options: how the output is written, for whoever goes on.
        keys: of each shot.
        frames: of each shot.
        models: of each shot.
        fps: of the clip, as a fraction's text.
        made_with: versions, arithmetic and the network that upscales, to say what has changed.
        published: sha256 of each file that is about to get its final name, by absolute path.
        drafts: inode of each live draft that was made, by absolute path.
        shots: sha256 of each file of one shot that was made, by absolute path.
    """

    asked: Mapping[str, Any]
    seeds: tuple[int, ...]
    out: str | None
    cwd: str
    options: Mapping[str, Any]
    keys: tuple[str, ...]
    frames: tuple[int, ...]
    models: tuple[str, ...]
    fps: str
    made_with: Mapping[str, Any]
    published: Mapping[str, str] = field(default_factory=dict)
    drafts: Mapping[str, int] = field(default_factory=dict)
    shots: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"format": FORMAT, **{k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}}

    @staticmethod
    def read(folder: Path) -> Facts | None:
        """Those of a folder; None when it keeps no state; `ConfigError` when they are damaged."""
        values = read_facts(folder / JOB)
        if values is None:
            return None
        if values.pop("format", None) != FORMAT:
            raise ConfigError(f"the state in {str(folder)!r} is of another version of kinema.")
        try:
            lists = {name: tuple(values[name]) for name in ("seeds", "keys", "frames", "models")}
            return Facts(**{**values, **lists})
        except (KeyError, TypeError):
            raise ConfigError(f"the state in {str(folder)!r} is of another version of kinema.") from None

    def owns(self, out: Path, *, sidecar: bool = False) -> bool:
        """Whether something stands where this output shall be, and all of it was published by this render."""
        if is_numbered(out):
            present = numbered(out) if out.parent.is_dir() else []
        else:
            present = [out]
        present += [sidecar_path(out)] if sidecar else []
        there = [path for path in present if os.path.lexists(path)]
        return bool(there) and all(self._made(path) for path in there)

    def owns_shot(self, path: Path) -> bool:
        """Whether a file of one shot is there as this render has made it."""
        digest = self.shots.get(str(path.absolute()))
        return digest is not None and digest == _digest(path)

    def _made(self, path: Path) -> bool:
        for known in (path, path.parent):  # a new folder of frames is published as a whole
            if (digest := self.published.get(str(known.absolute()))) is not None:
                return digest == _digest(known)
        return False

    @property
    def finished(self) -> bool:
        """Whether everything that was to be published is there, byte for byte."""
        paths = [Path(path) for path in self.published]
        return bool(paths) and all(path.exists() and self._made(path) for path in paths)


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """Tell the same thing once; a disk that is full stays full at the next step."""
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            note(text)

    return tell


def shot_folder(folder: Path, key: str) -> Path:
    """Where the shot with this key keeps its state."""
    return folder / key[:_KEY_LETTERS]


class Keep:
    """The state folder of a render at work.

    Args:
        folder: what to keep the state in.
        every: how often.
        note: told in one line what was found, left out, or could not be kept.

    Attributes:
        pace: when states are written, and what that has cost.
    """

    def __init__(self, folder: Path, *, every: Every | None = None, note: Callable[[str], None]) -> None:
        self.folder = folder
        self.pace = Pace(every)
        self._note = _once(note)
        self._facts: Facts | None = None
        self._places: list[Place] = []

    def start(self, facts: Facts, *, renewed: bool = False) -> None:
        """Say what is rendered; nothing is written yet, unless a folder's facts are to be `renewed`."""
        self._facts = facts
        shots = zip(facts.keys, facts.frames, strict=True)
        self._places = [
            Place(
                shot_folder(self.folder, key),
                key,
                frames=frames,
                pace=self.pace,
                begin=self._begin,
                note=self._note,
            )
            for key, frames in shots
        ]
        if renewed:
            self._begin()

    def place(self, index: int) -> Place:
        """Where shot `index` keeps its state."""
        return self._places[index]

    @property
    def places(self) -> list[Place]:
        """Those of all shots."""
        return self._places

    def frames(self, draw: Callable[[], Iterator[np.ndarray]]) -> Iterable[np.ndarray]:
        """Frames that can be drawn again: what is kept by then is read, and only the rest made."""
        return _Again(lambda: self._flushed(draw()))

    def _flushed(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames; however their drawing ends, the last state is on disk then."""
        try:
            yield from frames
        except NumericError:  # the state that leads there is no good
            self.close()
            raise
        except BaseException:
            self.flush()
            raise

    def close(self) -> None:
        """Close what is open; everything stays on disk."""
        for place in self._places:
            place.close()

    @property
    def finished(self) -> bool:
        """Whether an earlier process has published everything, and only its state is left."""
        return self._facts is not None and self._facts.finished

    def owns(self, out: Path, *, sidecar: bool) -> bool:
        """Whether all that stands where this output shall be was published by this render."""
        return self._facts is not None and self._facts.owns(out, sidecar=sidecar)

    @property
    def kept(self) -> bool:
        """Whether there is a state on disk to go on from."""
        return (self.folder / JOB).exists()

    def _begin(self) -> None:
        """Make the folder, and its file before anything else is in it."""
        assert self._facts is not None
        try:
            self.folder.mkdir(exist_ok=True, parents=True)
            if not self.kept or self._read() != self._facts:
                self._write(self._facts)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # a folder with nothing in it is no state
            raise MediaError(
                f"cannot keep the state in {str(self.folder)!r}: {error.strerror}; choose another state "
                "folder, or keep none."
            ) from None

    def _read(self) -> Facts | None:
        with contextlib.suppress(ConfigError):
            return Facts.read(self.folder)
        return None

    def _write(self, facts: Facts) -> None:
        write_facts(self.folder / JOB, facts.to_json(), point="job", durable=self.pace.lasting)
        if self.pace.lasting:
            sync(self.folder.parent)

    def flush(self) -> None:
        """Keep the last state of every shot now; what cannot be kept is told, not raised."""
        for place in self._places:
            try:
                place.flush()
            except (OSError, MediaError) as error:
                self._note(f"the last state cannot be kept: {error}")
            place.close()

    def publishing(self, files: Mapping[Path, Path]) -> None:
        """Remember the finished files, by their final names, before they get them.

        A render that is killed in between then knows its own files again.
        """
        if self._facts is None or not self.kept:
            return
        try:
            digests = {str(target.absolute()): _digest(staged) for staged, target in files.items()}
            facts = replace(self._facts, published=digests)
            self._write(facts)
        except OSError as error:
            raise MediaError(
                f"cannot keep the state in {str(self.folder)!r}: {error.strerror}; make room, or choose "
                "another state folder."
            ) from None
        self._facts = facts
        reach("publish.marked")

    def owns_shot(self, path: Path) -> bool:
        """Whether a file of one shot is there as this render has made it."""
        return self._facts is not None and self._facts.owns_shot(path)

    def publishing_shot(self, files: Mapping[Path, Path]) -> None:
        """Remember the finished file of a shot by its final name; what cannot be kept is told, not raised.

        A later process of this render then knows it again, and replaces no file that is another's.
        """
        assert self._facts is not None
        digests = {str(target.absolute()): _digest(staged) for staged, target in files.items()}
        self._facts = replace(self._facts, shots={**self._facts.shots, **digests})
        try:
            self._begin()
        except MediaError as error:
            self._note(str(error))

    def draft(self, path: Path) -> Draft:
        """The draft at a path, which a later process of this render will know for its own."""
        assert self._facts is not None
        name = str(path.absolute())

        def made(inode: int) -> None:
            assert self._facts is not None
            self._facts = replace(self._facts, drafts={**self._facts.drafts, name: inode})
            self._begin()

        return Draft(path, self._facts.drafts.get(name), made)

    def discard(self) -> None:
        """Remove all that belongs to the state, drafts first, the job's file last; other files stay.

        What cannot be removed is told: the output is there, and a later process of this render sees that.
        """
        try:
            self._discard()
        except OSError as error:
            self._note(f"the state in {str(self.folder)!r} cannot be removed: {error.strerror or error}.")

    def _discard(self) -> None:
        reach("clean.begun")
        for name, inode in ({} if self._facts is None else self._facts.drafts).items():
            Draft(Path(name), inode).remove()
        for place in self._places:
            place.close()
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.is_dir() and _is_key(path.name):
                    shutil.rmtree(path, ignore_errors=True)
            reach("clean.shots")
            for name in (f"{JOB}.new", JOB):
                (self.folder / name).unlink(missing_ok=True)
            reach("clean.job")
            with contextlib.suppress(OSError):  # not empty: someone else's files are in it
                self.folder.rmdir()
        reach("clean.done")


def _is_key(name: str) -> bool:
    return len(name) == _KEY_LETTERS and set(name) <= set("0123456789abcdef")


def _digest(path: Path) -> str:
    """sha256 of a file, or over those of a folder of frames; empty for anything else."""
    if path.is_dir():
        parts = [f"{part.name} {_digest(part)}" for part in sorted(path.iterdir()) if part.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
