"""Uploads: whole and named by their content, or not there; no path of a stranger's choice is ever read."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import struct
import wave
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from kinema.core.errors import ConfigError, MediaError
from kinema.io.clip import Clip
from kinema.serve.media import (
    MediaStore,
    _marked,
    _marked_in,
    localized,
    named_models,
    named_paths,
    references,
    renamed,
)
from kinema.serve.media_facts import MediaLimits, measure
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard
from serve import forks

SHA = "ab" * 32
REF = f"media:{SHA}"


@pytest.fixture
def store(tmp_path) -> MediaStore:
    folder = tmp_path / "media"
    folder.mkdir()
    return MediaStore(folder)


def names(store: MediaStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


# The store


def test_a_file_is_named_by_its_content(store):
    sha256 = store.receive([b"ab", b"c"], most=3)
    assert sha256 == hashlib.sha256(b"abc").hexdigest()
    assert store.path(sha256).read_bytes() == b"abc"
    assert store.receive([b"abc"], most=3) == sha256
    assert names(store) == [sha256]
    assert store.held() == 3


@pytest.mark.parametrize(
    ("pieces", "options", "words"),
    [
        ([b"abcd"], {"most": 3}, "larger than 3"),
        ([], {"most": 3}, "empty"),
        ([b"abc"], {"most": 3, "sha256": SHA}, "damaged"),
    ],
)
def test_what_is_too_large_empty_or_something_else_leaves_nothing(store, pieces, options, words):
    with pytest.raises(MediaError, match=words):
        store.receive(pieces, **options)
    assert names(store) == []


def test_a_client_that_leaves_half_way_leaves_nothing(store):
    def broken():
        yield b"a"
        raise ConnectionResetError

    with pytest.raises(MediaError):
        store.receive(broken(), most=9)
    assert names(store) == []


def test_killed_before_it_has_its_name_it_is_not_there(store):
    code = forks.run(lambda: store.receive([b"abc"], most=3), point="media.written")
    assert code == -signal.SIGKILL
    assert not store.has(hashlib.sha256(b"abc").hexdigest())
    assert store.collect((), older_than=-1.0) == 1
    assert names(store) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "x" * 64, "AB" * 32, f"{SHA}\n"])
def test_only_hashes_are_names(store, name):
    with pytest.raises(MediaError, match="no sha256"):
        store.path(name)


def test_only_what_is_old_and_not_named_is_collected(store):
    used, old, new = (store.receive([text], most=9) for text in (b"used", b"old", b"new"))
    for sha256 in (used, old):
        os.utime(store.path(sha256), (0, 0))
    assert store.collect([used], older_than=3600) == 1
    assert names(store) == sorted([used, new])


def test_an_upload_that_is_sent_again_is_young_again(store):
    sha256 = store.receive([b"old"], most=9)
    os.utime(store.path(sha256), (0, 0))
    store.receive([b"old"], most=9)
    assert store.collect((), older_than=3600) == 0


# Requests


def every_path_field(kind: type, seen: set | None = None) -> set[tuple[type[BaseModel], str]]:
    """(class, field) of every path that a shot or storyboard can have, from the types alone."""
    seen = set() if seen is None else seen
    found: set[tuple[type[BaseModel], str]] = set()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind in seen:
            return set()
        seen.add(kind)
        for name, field in kind.model_fields.items():
            if _marked(field.metadata) or _marked_in(field.annotation):
                found.add((kind, name))
            found |= every_path_field(field.annotation, seen)
    for inner in get_args(kind):
        found |= every_path_field(inner, seen)
    return found


FULL = {
    "prompt": "a fox",
    "mode": "frame_by_frame",
    "frames": 9,
    "keyframes": [{"image": "/a/key.png"}],
    "audio": "/a/sound.wav",
    "loras": [{"path": "/a/lora.safetensors"}],
    "redraw": {"mask": "/a/mask.png", "colour_from": "/a/colour.png"},
    "control": {"path": "/a/control.png", "model": "canny"},
    "camera": {"z": "t", "depth": {"path": "/a/depth.png"}},
    "upscale": {"model": "/a/net.safetensors"},
}
OTHERS = (
    {"prompt": "b", "source": {"path": "/a/source.mp4", "mask": "/a/open.png"}},
    {"prompt": "c", "extend": "/a/extend.mp4"},
)


def test_every_field_that_the_types_know_is_found_in_a_request():
    fields = every_path_field(Storyboard)
    assert len(fields) >= 9
    for kind, name in fields:
        settings = kind.model_construct(**{**dict.fromkeys(kind.model_fields), name: "/a/path"})
        assert dict(named_paths(settings)) == {name: "/a/path"}


def test_paths_are_found_wherever_they_are():
    story = Storyboard.make(shots=tuple(Shot.from_mapping(values) for values in (FULL, *OTHERS)))
    found = dict(named_paths(story))
    assert sorted(Path(path).name for path in found.values()) == [
        "colour.png", "control.png", "depth.png", "extend.mp4", "key.png", "lora.safetensors", "mask.png",
        "net.safetensors", "open.png", "sound.wav", "source.mp4",
    ]  # fmt: skip
    assert found["shots[0].keyframes[0].image"] == "/a/key.png"


def test_every_name_of_a_model_is_found():
    camera = {"z": "t", "depth": {"model": "some/depth"}}
    found = dict(named_models(Shot.from_mapping({**FULL, "model": "embedded", "camera": camera})))
    assert found == {"model": "embedded", "control.model": "canny", "camera.depth.model": "some/depth"}


@pytest.mark.parametrize("values", [FULL, *OTHERS])
def test_a_path_is_refused_by_the_name_of_its_field(values):
    with pytest.raises(ConfigError, match=r"is not media:<sha256>"):
        localized(values, lambda sha256: Path("/media") / sha256, {})


@pytest.mark.parametrize(
    "values",
    [
        {"source": {"path": REF, "mask": "bars"}, "fit": "pad"},
        {"mode": "frame_by_frame", "keyframes": [REF], "redraw": {"mask": "bars"}, "fit": "pad"},
    ],
)
def test_bars_are_a_word_and_no_path(values):
    story, back = localized({"prompt": "a", **values}, lambda sha256: Path("/media") / sha256, {})
    told = renamed(story.to_mapping(), back)
    assert (told.get("source") or told["redraw"])["mask"] == "bars"


def test_references_become_paths_here_and_references_again_in_the_file():
    request = {
        "prompt": "a fox",
        "keyframes": [f"{REF}@4:0.5"],
        "loras": [{"path": "style"}],
        "mode": "frame_by_frame",
        "redraw": {"colour_from": "keyframes"},
    }
    story, back = localized(
        request, lambda sha256: Path("/media") / sha256, {"style": "/l/style.safetensors"}
    )
    assert story.keyframes[0].image == f"/media/{SHA}"
    assert story.keyframes[0].strength == 0.5
    assert story.loras[0].path == "/l/style.safetensors"
    told = renamed(story.to_mapping(), back)
    assert told["keyframes"][0]["image"] == REF
    assert told["loras"][0]["path"] == "style"
    assert list(references(request)) == [SHA]


def test_words_stand_only_in_their_own_field():
    with pytest.raises(ConfigError, match="keyframes"):
        localized({"prompt": "x", "keyframes": ["previous"]}, Path, {})


def test_a_missing_file_is_told():
    def place(sha256):
        raise MediaError("gone")

    with pytest.raises(MediaError, match="gone"):
        localized({"prompt": "x", "source": REF}, place, {})


# What an upload is


def written(tmp_path, data: bytes) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(data)
    return path


def png(width: int, height: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(buffer, form)
    return buffer.getvalue()


def test_pictures_clips_and_sounds_are_known_by_content(tmp_path):
    assert measure(written(tmp_path, png(30, 20))).to_json() == {
        "kind": "image", "width": 30, "height": 20, "frames": 1, "fps": None, "seconds": None,
    }  # fmt: skip
    clip = tmp_path / "clip.mp4"
    Clip(np.zeros((5, 32, 48, 3), np.uint8), 8).save(clip)
    facts = measure(written(tmp_path, clip.read_bytes()))
    assert (facts.kind, facts.width, facts.height, facts.frames, facts.fps) == ("video", 48, 32, 5, "8")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 4000)
    facts = measure(written(tmp_path, sound.getvalue()))
    assert (facts.kind, facts.seconds) == ("audio", 0.5)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.pkl", pickle.dumps(1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps({"a": 1}, 2), "pickle"),
        (pickle.dumps({"a": 1}, 5), "pickle"),
        (archive(), "zip archive or PyTorch"),
        (struct.pack("<Q", 40) + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\n<!DOCTYPE html><script>alert(1)</script>", "web page"),
        (b"#EXTM3U\nfile:///etc/passwd", "playlist"),
        (b"ffconcat version 1.0\nfile other.mp4", "list of files"),
        (b"#!/bin/sh\necho", "no picture, clip or sound"),
        (b"\x7fELF" + b"\0" * 60, "no picture, clip or sound"),
        (b"GIF89a" + b"\0" * 20, "no picture"),
        (png(64, 64)[:-30], "damaged"),
    ],
)
def test_all_else_is_refused_by_what_it_is(tmp_path, data, words):
    with pytest.raises(MediaError, match=words):
        measure(written(tmp_path, data))


def test_limits_are_told_with_what_the_file_has(tmp_path):
    with pytest.raises(MediaError, match="bytes"):
        measure(written(tmp_path, png(30, 20)), MediaLimits(bytes=20))
    with pytest.raises(MediaError, match="30 pixels a side"):
        measure(written(tmp_path, png(30, 20)), MediaLimits(side=16))
    clip = tmp_path / "clip.mp4"
    Clip(np.zeros((5, 32, 48, 3), np.uint8), 8).save(clip)
    for limits, words in (
        (MediaLimits(frames=4), "5 frames"),
        (MediaLimits(pixels=100), "pixels in all"),
        (MediaLimits(seconds=0.1), "seconds"),
    ):
        with pytest.raises(MediaError, match=words):
            measure(clip, limits)
