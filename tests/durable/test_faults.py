"""Killed anywhere and started again, a render gives the bytes of an uninterrupted one, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import faults
import kinema.cli
from kinema.core.failpoints import POINTS
from kinema.pipelines.model import load

OUT = "b.mp4"


@pytest.fixture(scope="module")
def command(small) -> list[str]:
    """A render of three steps that keeps its state after each."""
    shot = ["--model", str(small), "--seed", "3", "--steps", "3", "--frames", "5", "--size", "64x64"]
    return ["generate", "a fox", *shot, "--checkpoint-every", "1", "-o", OUT, "--solver", "unipc"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def whole(command, small, tmp_path_factory) -> Iterator[bytes]:
    """The bytes of an uninterrupted render; the model stays in memory, so that forks need not read it."""
    folder = tmp_path_factory.mktemp("whole")
    model = load(str(small), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.pipelines.run.load", lambda *_, **__: model)
        patch.setattr("kinema.pipelines.run.load_vae", lambda *_, **__: model.vae)
        with pytest.MonkeyPatch.context() as inside:
            inside.chdir(folder)
            assert kinema.cli.run([*command, "--quiet"]) == 0
        yield (folder / OUT).read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_and_started_again(point, command, whole, here, tmp_path):
    cut = faults.run(command, tmp_path, point=point)
    assert cut.code == -signal.SIGKILL, f"{point} was not reached: {cut.err}"
    before = (here / OUT).read_bytes() if (here / OUT).exists() else None
    assert before in (None, whole), "half a file under the final name"
    again = faults.run(command, tmp_path)
    if point in ("clean.job", "clean.done"):  # all was over but the last breath; it is not made twice
        assert again.code == 2
        assert "exists" in again.err
    else:
        assert again.code == 0, again.err
    assert (here / OUT).read_bytes() == whole
    assert names(here) == {OUT}


@pytest.mark.parametrize("point", ["step.synced:2", "latents.renamed", "frame.half:3", "encode.done"])
def test_resume_goes_on_without_the_command(point, command, whole, here, tmp_path, monkeypatch):
    assert faults.run(command, tmp_path, point=point).code == -signal.SIGKILL
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert faults.run(["resume", f"../{OUT}"], tmp_path).code == 0
    assert (here / OUT).read_bytes() == whole
    assert names(here) == {OUT, "elsewhere"}
    over = faults.run(["resume", f"../{OUT}"], tmp_path)
    assert over.code == 2
    assert "is finished" in over.err


def phases(said: str) -> list[str]:
    events = [json.loads(line) for line in said.splitlines()]
    return [e["phase"] for e in events if e["event"] == "progress"]


def test_nothing_that_is_done_is_done_again(command, whole, here, tmp_path):
    told = [*command, "--format", "json"]
    faults.run(told, tmp_path, point="step.renamed:2")
    seen = phases(faults.run(told, tmp_path, point="latents.renamed").out)
    assert seen.count("denoise") == 1  # the third step
    seen = phases(faults.run(told, tmp_path, point="frame.written:3").out)
    assert "denoise" not in seen
    assert "text" not in seen
    seen = phases(faults.run(told, tmp_path, point="encode.done").out)
    assert set(seen) == {"load", "decode"}  # the decoder alone
    seen = phases(faults.run(told, tmp_path).out)
    assert set(seen) == {"write"}  # encoding alone: nothing is loaded
    assert (here / OUT).read_bytes() == whole


def kills(count: int, command: list[str], whole: bytes, here: Path, said: Path, seed: int) -> int:
    """`count` kills at random moments, with the same command again after each; how many hit a render."""
    rng, hits = random.Random(seed), 0
    began = time.monotonic()
    faults.run(command, said)
    length = 1.2 * (time.monotonic() - began)
    (here / OUT).unlink()
    while count:
        ended = faults.killed_after(rng.uniform(0, length), command, said)
        hits += ended.code == -signal.SIGKILL
        count -= 1
        if (here / OUT).exists():
            assert (here / OUT).read_bytes() == whole
        if ended.code == 0 or not count or rng.random() < 0.4:
            faults.run(command, said)
            assert (here / OUT).read_bytes() == whole
            assert names(here) == {OUT}
            (here / OUT).unlink()
    return hits


TIMES = {"step.half": 2, "step.renamed": 2, "frame.half": 5, "frame.written": 5, "encode.frame": 5}
"""How often a render of the command passes a point."""


def test_ten_kills_at_random_moments(command, whole, here, tmp_path):
    rng = random.Random(0)
    for point in rng.sample(sorted(TIMES), 3):  # those by the clock may all come too late, or too early
        said = f"{point}:{rng.randint(1, TIMES[point])}"
        assert faults.run(command, tmp_path, point=said).code == -signal.SIGKILL, said
        assert faults.run(command, tmp_path).code == 0
        assert (here / OUT).read_bytes() == whole
        assert names(here) == {OUT}
        (here / OUT).unlink()
    kills(7, command, whole, here, tmp_path, seed=0)


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments(command, whole, here, tmp_path):
    hits = kills(100, command, whole, here, tmp_path, seed=1)
    print(f"{hits} of 100 kills hit a render; all bytes equal")
    assert hits >= 50


def test_a_drawn_seed_is_the_states(command, here, tmp_path):
    at = command.index("--seed")
    unseeded = [*command[:at], *command[at + 2 :]]
    told = [*unseeded, "--format", "json"]
    assert faults.run(unseeded, tmp_path, point="latents.renamed").code == -signal.SIGKILL
    kept = json.loads((here / f".{OUT}.kinema" / "job.json").read_text())["facts"]["seeds"]
    assert json.loads(faults.run(told, tmp_path).out.splitlines()[-1])["seed"] == kept[0]
    nameless = [word for word in unseeded if word not in ("-o", OUT)]
    assert faults.run(nameless, tmp_path, point="encode.begun").code == -signal.SIGKILL
    assert faults.run(nameless, tmp_path).code == 0
    assert len(names(here) - {OUT}) == 1  # one name, one file: the second run went on with the first's
    assert names(here) == {OUT, next(iter(names(here) - {OUT}))}


def after_a_step(*signals: int) -> None:
    """For `prepare`: the process sends itself these, once, when the first step's state is offered."""
    from kinema.pipelines.durable.plan import Place

    offer, left = Place.offer, list(signals)

    def offered(self, name, make):
        offer(self, name, make)
        while left:
            os.kill(os.getpid(), left.pop(0))

    Place.offer = offered


def test_the_first_ctrl_c_keeps_the_state_and_says_how_to_go_on(command, whole, here, tmp_path):
    rare = [*command, "--checkpoint-every", "1h"]
    cut = faults.run(rare, tmp_path, prepare=lambda: after_a_step(signal.SIGINT))
    assert cut.code == 130
    assert cut.err.splitlines()[-1] == f"interrupted; go on with: kinema resume {OUT}"
    assert names(here) == {f".{OUT}.kinema"}
    told = faults.run(["resume", OUT, "--format", "json"], tmp_path)
    assert phases(told.out).count("denoise") == 2
    assert (here / OUT).read_bytes() == whole
    assert names(here) == {OUT}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_to_stop_do_the_same_with_their_own_code(command, here, tmp_path, number, code):
    cut = faults.run(command, tmp_path, prepare=lambda: after_a_step(number, signal.SIGWINCH))
    assert cut.code == code
    assert "kinema resume" in cut.err
    assert names(here) == {f".{OUT}.kinema"}


def test_a_second_ctrl_c_does_not_wait_for_the_step(command, here, tmp_path):
    waited = tmp_path / "waited"

    def twice_while_the_prompt_is_read() -> None:
        def impatient(*_, **__):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            waited.touch()

        import kinema.pipelines.render as render

        render.condition = impatient

    cut = faults.run(command, tmp_path, prepare=twice_while_the_prompt_is_read)
    assert cut.code == 130
    assert not waited.exists()
    assert cut.err.splitlines()[-1] == "interrupted; nothing was written."
    assert names(here) == set()


def test_a_second_writer_is_told_who_is_first(command, whole, here, tmp_path):
    (tmp_path / "second").mkdir()
    first = faults.start(command, tmp_path, prepare=lambda: after_a_step(signal.SIGSTOP))
    assert os.WIFSTOPPED(os.waitpid(first.pid, os.WUNTRACED)[1])
    second = faults.run(command, tmp_path / "second")
    os.kill(first.pid, signal.SIGCONT)
    assert second.code == 2
    assert f"process {first.pid}; wait for it, stop it, or choose another name." in second.err
    assert len(second.err.splitlines()) == 1
    assert first.wait().code == 0
    assert (here / OUT).read_bytes() == whole
    assert names(here) == {OUT}


@pytest.mark.parametrize("size", [30_000, 60_000])
def test_a_full_disk_is_one_line_and_the_frames_made_are_kept(size, command, whole, here, tmp_path):
    full = faults.run(command, tmp_path, prepare=faults.largest_file(size))
    assert full.code == 2, full.err
    assert "Traceback" not in full.err
    assert "kinema resume" in full.err.splitlines()[-1]
    assert names(here) == {f".{OUT}.kinema"}
    assert faults.run(["resume", OUT], tmp_path).code == 0
    assert (here / OUT).read_bytes() == whole


AT_THE_END = ["job.written:2", "encode.done", "publish.synced", "publish.renamed", "publish.done"]


@pytest.mark.parametrize("point", AT_THE_END)
def test_a_disk_that_is_full_at_the_end_is_one_line(point, command, whole, here, tmp_path):
    point = point if ":" in point else f"{point}:1"
    full = faults.run(command, tmp_path, point=f"{point}:full")
    assert full.code == 2, full.err
    assert "Traceback" not in full.err
    assert "No space left on device; make room, or choose another" in full.err.splitlines()[-1]
    assert "kinema resume" in full.err.splitlines()[-1]
    assert not (here / OUT).exists() or (here / OUT).read_bytes() == whole
    assert faults.run(command, tmp_path).code == 0
    assert (here / OUT).read_bytes() == whole
    assert names(here) == {OUT}


@pytest.mark.parametrize("point", ["clean.begun", "clean.shots"])
def test_a_state_that_cannot_be_removed_does_not_cost_the_clip(point, command, whole, here, tmp_path):
    full = faults.run(command, tmp_path, point=f"{point}:1:full")
    assert full.code == 0, full.err
    assert "cannot be removed: No space left on device" in full.err
    assert (here / OUT).read_bytes() == whole
    assert faults.run(command, tmp_path).code == 0  # which sees that all is there
    assert names(here) == {OUT}


def test_too_little_memory_is_one_line(command, here, tmp_path):
    big = [*command, "--size", "2048x2048", "--frames", "17"]
    poor = faults.run(big, tmp_path, prepare=faults.most_memory(400 << 20))
    assert poor.code == 2, poor.err
    assert "memory" in poor.err.splitlines()[-1]
    assert "Traceback" not in poor.err
