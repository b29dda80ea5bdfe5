"""Hashes of weights are computed once, and again when a file changes."""

from __future__ import annotations

import hashlib
import os

import pytest

from kinema.pipelines import hashes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "model" / "vae"
    weights.mkdir(parents=True)
    (weights / "a.safetensors").write_bytes(b"one")
    return tmp_path / "model"


def sha(data: bytes) -> dict[str, str]:
    return {"vae/a.safetensors": hashlib.sha256(data).hexdigest()}


def test_files_are_read_once(folder, monkeypatch):
    assert hashes.cached_hashes(folder) == sha(b"one")
    monkeypatch.setattr(hashes, "file_hashes", lambda _: pytest.fail("read again"))
    assert hashes.cached_hashes(folder) == sha(b"one")


def test_a_changed_file_is_read_again(folder):
    file = folder / "vae" / "a.safetensors"
    hashes.cached_hashes(folder)
    stat = file.stat()
    file.write_bytes(b"two")  # of the same size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert hashes.cached_hashes(folder) == sha(b"two")


def test_a_damaged_or_unwritable_cache_costs_time_only(folder, tmp_path, monkeypatch):
    hashes.cached_hashes(folder)
    for file in (tmp_path / "cache" / "hashes").iterdir():
        file.write_text("{")
    assert hashes.cached_hashes(folder) == sha(b"one")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "file"))
    assert hashes.cached_hashes(folder) == sha(b"one")
