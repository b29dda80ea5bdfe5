"""A folder with good and bad media to work in, and a stand-in for the model that refuses to be loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.io.clip import Clip


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Written once: a picture, a clip without a record, and files that are not what their names say."""
    folder = tmp_path_factory.mktemp("media")
    pixels = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Clip(pixels, 8).save(folder / "c.mp4")
    for name, size in (("a.png", 900), ("c.mp4", 2000)):
        (folder / f"cut-{name}").write_bytes((folder / name).read_bytes()[:size])
    (folder / "text.png").write_text("not a picture")
    (folder / "text.mp4").write_text("not a video")
    (folder / "bad.yaml").write_text("prompt: [1")
    (folder / "odd.yaml").write_text("promt: a fox")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def here(tmp_path, media, monkeypatch):
    """An empty working folder with links to the media."""
    for path in media.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_weights(monkeypatch):
    """Fails the test when a model is loaded."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("kinema.pipelines.run.load", load)  # first: it imports the other by name
    monkeypatch.setattr("kinema.pipelines.loading.load", load)
    monkeypatch.setattr("kinema.pipelines.model.load", load)
    monkeypatch.setattr("kinema.evaluation.subject.open_subject", load)
    monkeypatch.setattr("kinema.evaluation.examine.open_subject", load)


@pytest.fixture
def files(here):
    """Names that a command has added to the working folder since the test began, hidden ones included."""
    before = set(os.listdir(here))  # noqa: PTH208  # hidden names too
    return lambda: {path.name for path in Path(here).iterdir()} - before
