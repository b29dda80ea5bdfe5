"""Where a server keeps what: the layout of its data folder. Names come from us alone: ids and hashes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from kinema.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Folders:
    """A data folder.

    Attributes:
        root: of everything.
    """

    root: Path

    @property
    def queue(self) -> Path:
        """The queue's file."""
        return self.root / "queue.sqlite3"

    @property
    def media(self) -> Path:
        """Uploads by the sha256 of their content."""
        return self.root / "media"

    @property
    def results(self) -> Path:
        """What jobs have made: `<id>.mp4`, `<id>.png`, and the pictures about them."""
        return self.root / "results"

    @property
    def incoming(self) -> Path:
        """Uploads while they arrive."""
        return self.root / "incoming"

    @property
    def states(self) -> Path:
        """Renders that are not finished, a folder each."""
        return self.root / "states"

    @property
    def previews(self) -> Path:
        """What jobs will be, about."""
        return self.root / "previews"

    def upload(self, sha256: str) -> Path:
        """An upload."""
        return self.media / sha256

    def state(self, job: str) -> Path:
        """The state of a render."""
        return self.states / job

    def preview(self, job: str) -> Path:
        """The latest preview of a job."""
        return self.previews / f"{job}.webp"

    def thumbnail(self, job: str) -> Path:
        """A still of a result."""
        return self.results / f"{job}.thumbnail.webp"

    def spritesheet(self, job: str) -> Path:
        """Frames of a result side by side."""
        return self.results / f"{job}.spritesheet.jpg"

    def make(self) -> None:
        """Make what is missing, for this user alone; `ConfigError` where that cannot be."""
        try:
            for folder in (
                self.root,
                self.media,
                self.results,
                self.incoming,
                self.states,
                self.previews,
            ):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{str(self.root)!r} cannot be used: {str(error.strerror).lower()}"
            raise ConfigError(f"the data folder {reason}; choose another --data.") from None

    def forget(self, job: str) -> None:
        """Remove all files of a job that was deleted."""
        for file in (self.preview(job), *self.results.glob(f"{job}.*")):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.state(job), ignore_errors=True)
