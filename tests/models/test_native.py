"""Compiled code is built once, and its absence is a note, never an error."""

from __future__ import annotations

import shutil

import pytest

from kinema.models import native
from kinema.models.native import library

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in native.COMPILERS), reason="no C++ compiler"
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "seven.cpp"
    path.write_text('extern "C" int seven() { return 7; }\n')
    return path


def fine(code):
    return None if code.seven() == 7 else "not seven"


def files():
    return list((native.cache_folder() / "native").iterdir())


@needs_compiler
def test_a_library_is_built_once(source, monkeypatch):
    assert library(source, fine).loaded.seven() == 7
    (built,) = files()

    def again(*_):
        raise AssertionError("built twice")

    monkeypatch.setattr(native, "_compile", again)
    assert library(source, fine).note == str(built)


@needs_compiler
def test_another_source_or_processor_is_another_library(source, monkeypatch):
    library(source, fine)
    source.write_text(source.read_text() + "// changed\n")
    library(source, fine)
    monkeypatch.setattr(native, "processor", lambda: "another")
    library(source, fine)
    assert len(files()) == 3


def test_without_a_compiler_there_is_a_note(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source.parent))
    found = library(source, fine)
    assert found.loaded is None
    assert "no C++ compiler" in found.note


@needs_compiler
def test_a_build_that_fails_leaves_a_note_and_no_file(source):
    source.write_text("this is not C++\n")
    found = library(source, fine)
    assert found.loaded is None
    assert "failed" in found.note
    assert files() == []


@needs_compiler
@pytest.mark.parametrize(
    ("check", "note"), [(lambda code: "wrong sums", "wrong sums"), (lambda code: code.six(), "six")]
)
def test_code_that_computes_wrongly_is_not_used(source, check, note):
    found = library(source, check)
    assert found.loaded is None
    assert note in found.note


@needs_compiler
def test_a_folder_that_others_can_write_is_not_trusted(source):
    folder = native.cache_folder() / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert "written by others" in library(source, fine).note


@needs_compiler
def test_a_damaged_library_is_built_again(source):
    library(source, fine)
    (built,) = files()
    built.unlink()  # what is loaded must stay as it is; the next process finds the damage
    built.write_bytes(b"not a library")
    assert library(source, fine).loaded.seven() == 7


@pytest.mark.parametrize("value", ["0", "off", "No"])
def test_the_environment_switches_it_off(source, monkeypatch, value):
    monkeypatch.setenv(native.OFF, value)
    assert library(source, fine).note == "switched off by KINEMA_NATIVE"
