"""What is kept is whole, unchanged and of this very render, or it is not used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.errors import ConfigError, MediaError
from kinema.io.atomic import staging, write_whole
from kinema.io.journal import FrameJournal
from kinema.io.locks import Lock
from kinema.pipelines.durable.opening import StateOptions, earlier
from kinema.pipelines.durable.pace import SHARE, YOUNG, Every, Pace
from kinema.pipelines.durable.state import Facts, Keep
from kinema.pipelines.durable.store import read_facts, read_snapshot, write_facts, write_snapshot
from kinema.pipelines.memory import Snapshot
from kinema.story.shot import Shot


def frames(count: int, side: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 256, (side, side + 1, 3), dtype=np.uint8) for _ in range(count)]


def write(path: Path, given: list[np.ndarray], **options) -> None:
    with FrameJournal(path) as journal:
        for frame in given:
            journal.append(frame, **options)


# Journal


@pytest.mark.parametrize("deflate", [False, True])
def test_a_journal_gives_back_what_it_got_and_goes_on(tmp_path, deflate):
    path, given = tmp_path / "f", frames(6)
    write(path, given[:4], deflate=deflate)
    write(path, given[4:])
    read = list(FrameJournal(path))
    assert len(read) == 6
    assert all(np.array_equal(a, b) for a, b in zip(read, given, strict=True))


@settings(max_examples=60)
@given(st.data())
def test_damage_anywhere_costs_the_frames_from_there_on_and_no_more(tmp_path_factory, data):
    path, given = tmp_path_factory.mktemp("j") / "f", frames(5)
    write(path, given)
    whole = bytearray(path.read_bytes())
    size = len(whole) // 5
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[at:]
    path.write_bytes(whole)
    journal = FrameJournal(path)
    assert journal.count == at // size
    for frame in given[journal.count :]:
        journal.append(frame)
    journal.close()
    assert all(np.array_equal(a, b) for a, b in zip(FrameJournal(path), given, strict=True))


def test_reading_a_journal_changes_nothing(tmp_path):
    path = tmp_path / "f"
    write(path, frames(2))
    torn = path.read_bytes()[:-3]
    path.write_bytes(torn)
    assert len(list(FrameJournal(path))) == 1
    assert path.read_bytes() == torn
    assert FrameJournal(tmp_path / "none").count == 0


def test_a_write_that_fails_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("kinema.io.journal._write_all", full_after(2))
    journal = FrameJournal(tmp_path / "f")
    one, two = frames(2)
    journal.append(one)
    with pytest.raises(OSError, match="No space"):
        journal.append(two)
    monkeypatch.undo()
    journal.append(two)
    journal.close()
    assert [np.array_equal(a, b) for a, b in zip(FrameJournal(tmp_path / "f"), [one, two], strict=True)] == [
        True,
        True,
    ]


def full_after(writes: int):
    from kinema.io import journal

    real, left = journal._write_all, [writes]

    def write_all(file, data):
        if not left[0]:
            real(file, data[:3])
            raise OSError(28, "No space left on device")
        left[0] -= 1
        real(file, data)

    return write_all


# Snapshots


def snapshot() -> Snapshot:
    x = torch.arange(6.0).reshape(2, 3)
    tensors = {"x": x, "view": x[0], "half": x.bfloat16(), "n": torch.tensor(3)}
    return Snapshot(tensors, {"index": 2, "name": "é"})


def test_a_snapshot_keeps_numbers_types_and_facts(tmp_path):
    path, kept = tmp_path / "s", snapshot()
    write_snapshot(path, kept, "key", point="step", durable=True)
    read = read_snapshot(path, "key")
    assert read is not None
    assert read.facts == kept.facts
    assert {k: t.dtype for k, t in read.tensors.items()} == {k: t.dtype for k, t in kept.tensors.items()}
    assert all(torch.equal(t, kept.tensors[k]) for k, t in read.tensors.items())
    assert read_snapshot(tmp_path / "none", "key") is None
    with pytest.raises(ConfigError, match="another render"):
        read_snapshot(path, "other")


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_snapshot_is_never_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "s"
    write_snapshot(path, snapshot(), "key", point="step", durable=False)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[at:]
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match="damaged"):
        read_snapshot(path, "key")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"facts": {}, "sha256": "0"}', b"\xff", b"[" * 5000])
def test_damaged_facts_are_never_read(tmp_path, text):
    path = tmp_path / "job.json"
    write_facts(path, {"a": [1, "é"]}, point="job", durable=True)
    assert read_facts(path) == {"a": [1, "é"]}
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="damaged"):
        read_facts(path)


def test_every_write_is_on_the_disk_before_its_name_and_its_folder_after(tmp_path, monkeypatch):
    """A power cut may undo what was not synced: the order is file, name, folder."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def renamed(self, target):
        done.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_whole(tmp_path / "a", b"12", point="job")
    assert done == ["file", "name", "folder"]


def test_a_full_disk_is_told_once_and_sampling_goes_on(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kinema.pipelines.durable.plan.write_snapshot", full)
    notes: list[str] = []
    keep = Keep(tmp_path / "kept", every=Every(steps=1), note=notes.append)
    facts = {"asked": {}, "seeds": (1,), "out": None, "cwd": "/", "options": {}, "models": ("m",), "fps": "8"}
    keep.start(Facts(**facts, keys=("k" * 64,), frames=(5,), made_with={}))
    for _ in range(3):
        keep.place(0).offer("sampler", snapshot)
    assert notes == ["the state cannot be kept (No space left on device); the render goes on without."]


def test_a_state_that_cannot_even_begin_says_why_and_leaves_no_empty_folder(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kinema.pipelines.durable.state.write_facts", full)
    notes: list[str] = []
    keep = Keep(tmp_path / "kept", every=Every(steps=1), note=notes.append)
    facts = {"asked": {}, "seeds": (1,), "out": None, "cwd": "/", "options": {}, "models": ("m",), "fps": "8"}
    keep.start(Facts(**facts, keys=("k" * 64,), frames=(5,), made_with={}))
    for _ in range(3):
        keep.place(0).offer("sampler", snapshot)
    assert len(notes) == 1
    assert "No space left on device" in notes[0]
    assert not (tmp_path / "kept").exists()


def test_a_state_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(MediaError, match="another state folder, or keep none"):
        earlier(Shot(prompt="a fox"), StateOptions(folder=tmp_path / "kept"), None, print)
    with pytest.raises(MediaError, match=r"; choose another folder\.$"):  # no other state folder would help
        earlier(Shot(prompt="a fox"), StateOptions(), tmp_path / "fox.mp4", print)


# Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.0, 0.001, 0.5, 7.0])
def test_keeping_costs_no_more_than_its_share(cost):
    clock = Clock()
    pace = Pace(clock=clock)
    while clock.now < 10_000:
        clock.now += 0.5
        pace.step()
        if pace.due():
            clock.now += cost
            pace.wrote(cost)
    assert pace.count > 0
    assert pace.spent <= SHARE * clock.now + cost
    assert pace.count <= clock.now / YOUNG


def test_a_young_render_keeps_nothing_unless_told_to():
    clock = Clock()
    pace = Pace(clock=clock)
    clock.now = YOUNG - 0.1
    assert (pace.due(), pace.lasting) == (False, False)
    clock.now = YOUNG
    assert (pace.due(), pace.lasting) == (True, True)
    told = Pace(Every(steps=2), clock)
    told.step()
    assert (told.due(), told.lasting) == (False, True)
    told.step()
    assert told.due()


def test_intervals_are_read_and_others_refused():
    read = {"5": (5, None), "5 steps": (5, None), "1 step": (1, None), "30s": (None, 30.0)}
    read |= {"1.5min": (None, 90.0), "2 h": (None, 7200.0)}
    assert {text: (Every.parse(text).steps, Every.parse(text).seconds) for text in read} == read
    assert Every.parse(7).steps == 7
    for wrong in ("0", "-1", "often", "", "5 frames", "1e9s", "s"):
        with pytest.raises(ConfigError, match="no interval"):
            Every.parse(wrong)


# Claims


def test_a_claim_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    with Lock(path, "fox.mp4"):
        with pytest.raises(MediaError, match=rf"fox.mp4 is being written by process {os.getpid()};"):
            Lock(path, "fox.mp4").acquire()
        pid = os.fork()
        if not pid:
            os._exit(0)  # a child's end does not release its parent's claim
        os.waitpid(pid, 0)
        with pytest.raises(MediaError, match="being written"):
            Lock(path, "fox.mp4").acquire()
    assert not path.exists()
    path.write_text("12345 of a process that was killed")
    with Lock(path, "fox.mp4"):
        assert path.read_text() == f"{os.getpid()}\n"
    assert Lock(path, "fox.mp4").sure is False


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_where_there_are_no_locks_nothing_is_taken_for_a_dead_process(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".a.mp4.kinema").mkdir()  # a state that is about to be written
    (tmp_path / ".b.mp4.kinema.lock").write_text("1")
    with staging(tmp_path) as first:
        (first / "a").write_text("half")
        before = {path.name for path in tmp_path.iterdir()}
        with staging(tmp_path):
            pass
        assert {path.name for path in tmp_path.iterdir()} == before
        assert (first / "a").read_text() == "half"
    with Lock(tmp_path / "lock", "fox.mp4") as one, Lock(tmp_path / "lock", "fox.mp4") as other:
        assert {one.sure, other.sure} == {False}


def test_a_full_disk_has_room_for_a_claim(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        first = Lock(tmp_path / "lock", "fox.mp4")
        first.acquire()
    with pytest.raises(MediaError, match="being written by process unknown"):
        Lock(tmp_path / "lock", "fox.mp4").acquire()
    first.release()


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(MediaError, match=r"cannot lock .*Input/output error; choose another folder"):
        Lock(tmp_path / "lock", "fox.mp4").acquire()


def test_working_folders_of_the_dead_are_removed_and_of_the_living_not(tmp_path):
    pid = os.fork()
    if not pid:
        with staging(tmp_path) as work:
            (work / "a").write_text("half")
            os._exit(9)
    os.waitpid(pid, 0)
    (tmp_path / ".a.mp4.kinema.lock").write_text("1\n")
    (tmp_path / ".kinema-notes").write_text("someone's own")
    assert len(list(tmp_path.iterdir())) == 3
    with staging(tmp_path) as mine:
        (mine / "b").write_text("whole")
        with staging(tmp_path) as other:
            assert (mine / "b").exists()
            assert {p.name for p in tmp_path.iterdir()} == {mine.name, other.name, ".kinema-notes"}
    assert [p.name for p in tmp_path.iterdir()] == [".kinema-notes"]
