"""What tests of several layers share: one thread, small checkpoints, built once, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How sums are split over threads changes their last bits, and many tests ask for equal bits. Set before torch
# is imported, and for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

from checkpoints import save_embedded, save_image_model, save_wan
from foreign_checkpoints import save_foreign

settings.register_profile("no deadline", deadline=None)  # no test depends on the clock
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing that a test remembers reaches the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINEMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a Wan checkpoint by kind; see `checkpoints.WAN`."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_wan(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a diffusers image checkpoint by kind: sd, sdxl, flux."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_image_model(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of another diffusers video pipeline by kind; see `foreign_checkpoints.KINDS`."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_foreign(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model of the embedded one's kind."""
    return save_embedded(tmp_path_factory.mktemp("small"))
