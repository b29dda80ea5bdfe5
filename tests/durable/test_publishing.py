"""A finished file gets its name whole, replaces nothing that it may not, and is not lost where it cannot."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import run
from kinema.core import failpoints
from kinema.core.contracts import Record
from kinema.core.errors import BusyError, MediaError
from kinema.io.atomic import TakenError, publish, staging
from kinema.io.clip import Clip
from kinema.io.hidden import lock_of
from kinema.io.image import write_image
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.io.video_write import write_video

NEW, OLD = Record({"prompt": "new"}), Record({"prompt": "old"})


def grey(count: int, level: int = 90) -> np.ndarray:
    return np.full((count, 16, 16, 3), level, np.uint8)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def and_then(frames: np.ndarray, act: Callable[[], object]) -> Iterator[np.ndarray]:
    """The frames; before the last of them something happens."""
    yield from frames[:-1]
    act()
    yield frames[-1]


def killed(point: str, work: Callable[[], object]) -> None:
    """Do the work in a process that dies at a point."""
    pid = os.fork()
    if not pid:
        os.environ[failpoints.VARIABLE] = point
        failpoints._armed.cache_clear()
        failpoints._reached.clear()
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


# One writer


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "s/%02d.png"])
def test_what_is_being_written_is_refused_to_a_second_writer(tmp_path, name):
    (tmp_path / "s").mkdir()

    def second() -> None:
        with pytest.raises(BusyError, match=rf"process {os.getpid()}; wait for it"):
            write_video(tmp_path / name, grey(1, 200), fps=8, overwrite=True)

    write_video(tmp_path / name, and_then(grey(1), second), fps=8)
    assert not any(found.startswith(".") for found in names(tmp_path) | names(tmp_path / "s"))


@pytest.mark.parametrize("verb", ["interpolate", "upscale"])
def test_the_verbs_for_clips_claim_their_file(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    Clip(grey(3), 8).save("a.mkv")
    with lock_of(Path("b.mkv")):
        assert run([verb, "a.mkv", "-o", "b.mkv"]) == 2
    said = capsys.readouterr().err
    assert "b.mkv is being written by process" in said
    assert names(tmp_path) == {"a.mkv"}
    assert run([verb, "a.mkv", "-o", "b.mkv", "-q"]) == 0
    assert names(tmp_path) == {"a.mkv", "b.mkv"}


# What appears meanwhile


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.gif"])
def test_a_file_that_appears_meanwhile_stays_and_what_was_made_has_another_name(
    tmp_path, monkeypatch, name, links
):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / Path(name).with_stem("a-2")).write_text("taken too")
    path = tmp_path / name
    with pytest.raises(
        TakenError, match=rf"has appeared meanwhile .* made here is '.*{path.stem}-3"
    ) as caught:
        write_video(path, and_then(grey(1), lambda: path.write_text("theirs")), fps=8, record=NEW)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "theirs"
    assert read_record(tmp_path / Path(name).with_stem("a-3")) == NEW
    assert len(names(tmp_path)) == 3


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False])
def test_a_sidecar_that_appears_meanwhile_takes_its_clip_along(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    beside = tmp_path / "a.mp4.json"
    frames = and_then(grey(2), lambda: beside.write_text("theirs"))
    with pytest.raises(TakenError, match=r"made here is '.*a-2\.mp4'"):
        write_video(tmp_path / "a.mp4", frames, fps=8, record=NEW, sidecar=True)
    assert names(tmp_path) == {"a.mp4.json", "a-2.mp4", "a-2.mp4.json"}
    assert beside.read_text() == "theirs"
    assert read_record(tmp_path / "a-2.mp4.json") == NEW


@pytest.mark.parametrize("there", [True, False])
def test_a_sequence_that_appears_meanwhile_stays_whole(tmp_path, there):
    folder = tmp_path / "s"
    if there:
        folder.mkdir()

    def theirs() -> None:
        folder.mkdir(exist_ok=True)
        (folder / "02.png").write_text("theirs")

    with pytest.raises(TakenError, match="has appeared meanwhile") as caught:
        write_video(folder / "%02d.png", and_then(grey(3), theirs), fps=8, record=NEW, sidecar=True)
    assert (folder / "02.png").read_text() == "theirs"
    assert {n for n in names(folder) if n.endswith(".png")} == {"02.png"}
    kept = next(path for path in tmp_path.rglob("*-2") if path.is_dir())
    assert str(kept) in str(caught.value)
    assert names(kept) == {"01.png", "02.png", "03.png", "01.png.json"}
    assert open_video(kept).frames == 3


def test_overwriting_is_overwriting_whenever_the_file_appears(tmp_path):
    path = tmp_path / "a.mp4"
    frames = and_then(grey(2), lambda: path.write_text("theirs"))
    write_video(path, frames, fps=8, record=NEW, overwrite=True)
    assert read_record(path) == NEW
    assert names(tmp_path) == {"a.mp4"}


def test_a_picture_and_any_published_file_replace_nothing(tmp_path, monkeypatch):
    import kinema.io.image as image

    real, path = image.encode_image, tmp_path / "a.png"

    def slow(*given, **options):
        path.write_text("theirs")
        return real(*given, **options)

    monkeypatch.setattr(image, "encode_image", slow)
    with pytest.raises(TakenError, match=r"a-2\.png"):
        write_image(path, grey(1)[0])
    assert path.read_text() == "theirs"
    with staging(tmp_path) as work:
        (work / "x").write_text("ours")
        with pytest.raises(TakenError):
            publish(work / "x", path, overwrite=False)
        (work / "y").write_text("ours")
        publish(work / "y", path, overwrite=True)
    assert path.read_text() == "ours"


# Sequences


def test_overwriting_a_sequence_that_is_killed_loses_no_frame(tmp_path):
    pattern = tmp_path / "s" / "%02d.png"
    write_video(pattern, grey(6, 10), fps=8, record=OLD)
    killed(
        "publish.renamed:2",
        lambda: write_video(pattern, grey(3, 200), fps=8, record=NEW, overwrite=True),
    )
    shown = [int(Clip.open(tmp_path / "s" / f"{i:02d}.png").array()[0, 0, 0, 0]) for i in range(1, 7)]
    assert shown == [10, 200, 200, 10, 10, 10]
    assert read_record(tmp_path / "s") == OLD  # the first comes last, so the record is still of the old one
    write_video(pattern, grey(3, 200), fps=8, record=NEW, overwrite=True)
    assert names(tmp_path / "s") == {"01.png", "02.png", "03.png"}
    assert read_record(tmp_path / "s") == NEW


def test_all_frames_are_on_the_disk_before_the_first_replaces_another(tmp_path, monkeypatch):
    pattern = tmp_path / "s" / "%02d.png"
    write_video(pattern, grey(3, 10), fps=8)
    done: list[str] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def synced(handle):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def renamed(self, target):
        done.append(f"name {target.name}")
        return replace(self, target)

    def removed(self, missing_ok=False):
        if self.suffix == ".png":
            done.append(f"remove {self.name}")
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    write_video(pattern, grey(2, 200), fps=8, overwrite=True)
    steps = list(dict.fromkeys(done))
    assert steps == ["file", "name 02.png", "name 01.png", "folder", "remove 03.png"]
    assert "file" not in done[done.index("name 02.png") :]


def test_a_folder_under_a_frames_name_is_refused_before_the_first_frame(tmp_path):
    (tmp_path / "s" / "02.png").mkdir(parents=True)

    def never() -> Iterator[np.ndarray]:
        raise AssertionError("a frame was drawn")
        yield

    with pytest.raises(MediaError, match=r"02\.png.* is not a regular file"):
        write_video(tmp_path / "s" / "%02d.png", never(), fps=8, overwrite=True)
    assert names(tmp_path / "s") == {"02.png"}


# Full disks


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "s/%02d.png"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_record_or_a_name_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, name, code):
    def fails(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    way = "make room, or choose another folder" if code == errno.ENOSPC else "choose another folder"
    for broken in ("write_text", "link", "sync"):
        with monkeypatch.context() as patch:
            if broken == "write_text":  # the sidecar
                patch.setattr(Path, "write_text", fails)
            elif broken == "link":
                patch.setattr(os, "link", fails)
                patch.setattr(Path, "replace", fails)
            else:
                patch.setattr("kinema.io.atomic.sync", fails)
            with pytest.raises(MediaError, match=f"cannot write .*{os.strerror(code)}; {way}"):
                write_video(tmp_path / name, grey(2), fps=8, record=NEW, sidecar=True)
        assert names(tmp_path) == set()


def test_sound_that_finds_the_disk_full_names_the_file_and_the_way_out(tmp_path, monkeypatch):
    from fractions import Fraction

    from kinema.io import ffmpeg
    from kinema.io.mux import AudioPart

    real = ffmpeg.run

    def full(arguments, **options):
        if "[sound]" in arguments:
            return ffmpeg.Result(228, b"", "Error writing trailer: No space left on device")
        return real(arguments, **options)

    monkeypatch.setattr("kinema.io.mux.open_audio", lambda path: type("Source", (), {"arguments": []}))
    monkeypatch.setattr(ffmpeg, "run", full)
    part = AudioPart(path="s.wav", at=Fraction(0), seconds=Fraction(1))
    with pytest.raises(
        MediaError, match=r"cannot write '.*/a\.mp4': .*No space left .*; make room"
    ) as caught:
        write_video(tmp_path / "a.mp4", grey(2), fps=8, audio=[part])
    assert "video.mp4" not in str(caught.value)
