"""From Python, for storyboards and redrawn frames, with damaged, foreign and outdated states."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import faults
import kinema
import kinema.cli
from kinema.core.errors import BusyError, ConfigError, MediaError, NumericError
from kinema.io.hidden import state_folder
from kinema.io.journal import FrameJournal
from kinema.pipelines.durable.state import Facts
from kinema.pipelines.hashes import cached_hashes

OUT = "b.mp4"


class Enough(Exception):
    """Raised to stop a render."""


@pytest.fixture(scope="module")
def model(small) -> kinema.pipelines.model.Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> bytes:
    """The bytes of the plain shot, uninterrupted."""
    path = tmp_path_factory.mktemp("whole") / OUT
    kinema.render(shot(model), model=model, out=path)
    return path.read_bytes()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def shot(model, **fields) -> kinema.Shot:
    given = {"prompt": "a fox", "model": model.card.id, "seed": 3, "steps": 4, "frames": 9, "size": "64x64"}
    return kinema.Shot.from_mapping({**given, **fields})


def stop_at(phase: str, step: int, shot: int = 1):
    def on_progress(event: kinema.Progress) -> None:
        if (event.phase, event.step, event.shot) == (phase, step, shot):
            raise Enough

    return on_progress


def count(seen: Counter):
    return lambda event: seen.update([(event.phase, event.shot)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Python


@pytest.mark.parametrize(("out", "frames"), [("frames/%04d.png", 5), ("a.png", 1), ("a.webp", 5)])
def test_a_render_into_pictures_comes_back_with_its_rate(model, here, out, frames):
    clip = kinema.render(shot(model, steps=1, frames=frames, fps=12), model=model, out=out)
    assert (len(clip.array()), clip.fps, clip.record.shot["seed"]) == (frames, 12, 3)
    assert names(here) == {Path(out).parts[0]}


@pytest.mark.parametrize("solver", ["unipc", "dpm++2m-sde", "heun"])
def test_a_render_that_was_stopped_goes_on_with_the_same_bytes(model, here, solver):
    asked = shot(model, solver=solver)
    kinema.render(asked, model=model, out="whole.mp4")
    with pytest.raises(Enough):
        kinema.render(asked, model=model, out=OUT, on_progress=stop_at("denoise", 2))
    assert names(here) == {"whole.mp4", f".{OUT}.kinema"}
    seen: Counter = Counter()
    clip = kinema.render(asked, model=model, out=OUT, on_progress=count(seen))
    assert seen["denoise", 1] == 2
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()
    assert clip.array().shape == (9, 64, 64, 3)
    assert names(here) == {"whole.mp4", OUT}


def test_a_clip_in_memory_goes_on_from_a_state_folder(model, here):
    asked = shot(model)
    whole = kinema.render(asked, model=model).array()
    with pytest.raises(Enough):
        kinema.render(asked, model=model, state_dir="kept", on_progress=stop_at("decode", 2))
    seen: Counter = Counter()
    clip = kinema.render(asked, model=model, state_dir="kept", on_progress=count(seen))
    assert np.array_equal(clip.array(), whole)
    assert ("denoise", 1) not in seen
    assert names(here) == set()


def test_a_state_goes_on_elsewhere_when_its_outputs_folder_is_gone(model, here):
    (here / "old").mkdir()
    out = here / "old" / OUT
    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, out=out, state_dir="kept", on_progress=stop_at("decode", 2))
    (here / "old").rmdir()
    seen: Counter = Counter()
    kinema.render(shot(model), model=model, out=OUT, state_dir="kept", on_progress=count(seen))
    assert ("denoise", 1) not in seen
    assert names(here) == {OUT}


def test_what_another_render_is_writing_is_refused_before_anything_is_said(model, here):
    said: list[str] = []

    def again(event: kinema.Progress) -> None:
        if event.phase == "decode":
            with pytest.raises(BusyError, match=f"process {os.getpid()};"):
                kinema.render(shot(model), model=model, out=OUT, on_note=said.append)
            raise Enough

    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, out=OUT, on_progress=again)
    assert said == []


def test_without_a_state_nothing_is_left(model, here):
    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, out=OUT, state_dir=False, on_progress=stop_at("decode", 2))
    assert names(here) == set()


def test_other_files_in_a_state_folder_stay(model, here):
    (here / "kept").mkdir()
    (here / "kept" / "mine.txt").write_text("mine")
    kinema.render(shot(model), model=model, out=OUT, state_dir="kept")
    assert names(here / "kept") == {"mine.txt"}


def test_values_that_stop_being_finite_keep_no_state(model, here, monkeypatch):
    real = type(model.vae).stream

    def broken(self, latents, **options):
        for index, frames in enumerate(real(self, latents, **options)):
            yield frames * (float("nan") if index == 1 else 1)

    monkeypatch.setattr(type(model.vae), "stream", broken)
    with pytest.raises(NumericError, match="latent frame 2 of 3 are not finite"):
        kinema.render(shot(model), model=model, out=OUT)
    assert OUT not in names(here)


def test_an_encoder_that_fails_costs_neither_sampling_nor_decoding(model, here, whole, tmp_path, monkeypatch):
    from kinema.io.ffmpeg import executable

    program, calls = tmp_path / "ffmpeg", tmp_path / "calls"
    lines = [
        "#!/bin/sh",
        f'C="{calls}"',
        'case "$*" in *video.mp4) echo x >> "$C"; [ $(wc -l < "$C") -lt 3 ] && kill -9 $$;; esac',
        f'exec "{executable()}" "$@"',
    ]
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    monkeypatch.setattr("kinema.io.ffmpeg.executable", lambda: str(program))
    seen: Counter = Counter()
    notes: list[str] = []
    kinema.render(shot(model), model=model, out=OUT, on_progress=count(seen), on_note=notes.append)
    assert (here / OUT).read_bytes() == whole
    assert len(notes) == 2
    assert seen["denoise", 1] == 4
    assert names(here) == {OUT}


# Drafts


def test_a_draft_shows_the_current_guess_and_leaves_the_state_alone(model, here):
    guesses = []

    def watch(event: kinema.Progress) -> None:
        if event.phase == "denoise":
            guesses.append(event.clean)
        stop_at("denoise", 2)(event)

    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, out=OUT, on_progress=watch)
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    clip = kinema.preview(OUT)
    expected = torch.cat(list(model.vae.stream(guesses[-1])), dim=2)
    assert np.array_equal(clip.array(), kinema.pipelines.render.to_uint8(expected))
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before
    with pytest.raises(MediaError, match="no unfinished render"):
        kinema.preview("other.mp4")
    assert kinema.cli.run(["preview", OUT, "-q"]) == 0
    assert kinema.Clip.open("b-preview.mp4").array().shape == (9, 64, 64, 3)


def test_a_live_draft_is_gone_when_the_file_is_there_and_changes_nothing(model, here, whole):
    asked = shot(model)
    with pytest.raises(Enough):
        kinema.render(asked, model=model, out=OUT, live=True, on_progress=stop_at("decode", 3))
    assert "b.mp4.live.mp4" in names(here)
    assert kinema.Clip.open("b.mp4.live.mp4").array().shape[0] == 5
    kinema.render(asked, model=model, out=OUT, live=True)
    assert names(here) == {OUT}
    assert (here / OUT).read_bytes() == whole


# Storyboards and redrawn frames


def test_a_storyboard_redoes_the_shot_that_was_cut_alone(model, here):
    first = shot(model)
    board = kinema.Storyboard.from_mapping(
        {
            "shots": [
                first.to_mapping(),
                shot(model, frames=8, extend="previous").to_mapping(),
                shot(model, seed=5, transition={"dissolve": 2}).to_mapping(),
            ]
        }
    )
    kinema.render(board, model=model, out="whole.mp4")
    with pytest.raises(Enough):
        kinema.render(board, model=model, out=OUT, on_progress=stop_at("denoise", 3, shot=2))
    seen: Counter = Counter()
    kinema.render(board, model=model, out=OUT, on_progress=count(seen))
    assert (seen["denoise", 1], seen["denoise", 2], seen["denoise", 3]) == (0, 1, 4)
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()


def test_a_storyboard_whose_last_shot_is_rewritten_keeps_the_others(model, here):
    def board(seed: int) -> kinema.Storyboard:
        return kinema.Storyboard.from_mapping(
            {"shots": [shot(model).to_mapping(), shot(model, seed=seed).to_mapping()]}
        )

    notes: list[str] = []
    with pytest.raises(Enough):
        kinema.render(board(5), model=model, out=OUT, on_progress=stop_at("denoise", 1, shot=2))
    seen: Counter = Counter()
    kinema.render(board(6), model=model, out=OUT, on_progress=count(seen), on_note=notes.append)
    assert (seen["denoise", 1], seen["denoise", 2]) == (0, 4)
    assert "another request" in notes[0]
    kinema.render(board(6), model=model, out="whole.mp4", state_dir=False)
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()


def test_frames_drawn_one_after_the_other_go_on_where_they_were(model, here):
    asked = shot(model, frames=6, mode="frame_by_frame", steps=2)
    kinema.render(asked, model=model, out="whole.mp4")
    with pytest.raises(Enough):
        kinema.render(asked, model=model, out=OUT, on_progress=stop_at("draw", 4))
    seen: Counter = Counter()
    kinema.render(asked, model=model, out=OUT, on_progress=count(seen))
    assert seen["draw", 1] <= 4
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()
    assert names(here) == {"whole.mp4", OUT}


def test_a_loop_and_windows_go_on_where_they_were(model, here):
    for fields in ({"frames": 12, "loop": True}, {"frames": 25, "windows": {"length": 9}}):
        asked = shot(model, **fields)
        kinema.render(asked, model=model, out="whole.mp4", overwrite=True)
        for phase, step in (("denoise", 2), ("decode", 2)):
            with pytest.raises(Enough):
                kinema.render(asked, model=model, out=OUT, overwrite=True, on_progress=stop_at(phase, step))
        kinema.render(asked, model=model, out=OUT, overwrite=True)
        assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()


# States that are not to be used


def cut_at(model, phase: str, step: int, **fields) -> Path:
    with pytest.raises(Enough):
        kinema.render(shot(model, **fields), model=model, out=OUT, on_progress=stop_at(phase, step))
    return state_folder(Path(OUT))


def damaged(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if how == "flipped" else b"" if how == "empty" else data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
@pytest.mark.parametrize("file", ["job.json", "*/sampler.state", "*/latents.state", "*/frames.bin"])
def test_a_damaged_state_is_told_and_costs_work_but_not_the_clip(model, here, whole, file, how):
    folder = cut_at(model, "denoise", 2) if "sampler" in file else cut_at(model, "decode", 3)
    damaged(next(folder.glob(file)), how)
    notes: list[str] = []
    kinema.render(shot(model), model=model, out=OUT, on_note=notes.append)
    assert (here / OUT).read_bytes() == whole
    if "frames" not in file:  # torn frames at the end are what a power cut leaves; they are made again
        assert any("damaged" in note for note in notes)
    assert names(here) == {OUT}


def test_frames_of_another_run_are_not_mixed_in(model, here, whole):
    folder = cut_at(model, "decode", 3)
    path = next(folder.glob("*/frames.bin"))
    first = list(FrameJournal(path))
    path.unlink()
    with FrameJournal(path) as journal:
        journal.append(first[0])
        journal.append(255 - first[1])
    notes: list[str] = []
    kinema.render(shot(model), model=model, out=OUT, on_note=notes.append)
    assert (here / OUT).read_bytes() == whole
    assert any("frames from 1 on differ" in note for note in notes)


@pytest.mark.parametrize("what", ["version", "weights", "threads"])
def test_another_version_or_other_weights_are_refused_by_resume_and_begun_anew_by_the_command(
    model, here, what, monkeypatch, capsys
):
    folder = cut_at(model, "denoise", 2)
    place = "kinema.pipelines.durable.key"
    if what == "version":
        monkeypatch.setattr(f"{place}.versions", lambda: {"kinema": "9", "torch": "9", "python": "9"})
    elif what == "weights":
        monkeypatch.setattr(f"{place}._hashes", lambda *_: {"transformer": "other"})
    else:
        monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert kinema.cli.run(["resume", OUT]) == 2
    said = capsys.readouterr().err
    word = {"version": "torch", "weights": "weights", "threads": "threads 1 (now 64)"}[what]
    assert word in said
    assert len(said.splitlines()) == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    notes: list[str] = []
    seen: Counter = Counter()
    kinema.render(shot(model), model=model, out=OUT, on_note=notes.append, on_progress=count(seen))
    assert seen["denoise", 1] == 4
    assert word in notes[0]
    assert names(here) == {OUT}


def test_a_changed_picture_is_another_plan(model, here):
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save("a.png")
    fields = {"keyframes": ["a.png@0"]}
    cut_at(model, "denoise", 2, **fields)
    Image.new("RGB", (64, 64), "blue").save("a.png")
    seen: Counter = Counter()
    kinema.render(shot(model, **fields), model=model, out=OUT, on_progress=count(seen))
    assert seen["denoise", 1] == 4
    kinema.render(shot(model, **fields), model=model, out="whole.mp4")
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()


def test_a_state_of_another_format_is_refused(model, here):
    folder = cut_at(model, "denoise", 2)
    whole = json.loads((folder / "job.json").read_text())
    facts = Facts.read(folder)
    assert facts is not None
    from kinema.pipelines.durable.store import write_facts

    write_facts(folder / "job.json", {**whole["facts"], "format": 99}, point="job", durable=False)
    with pytest.raises(ConfigError, match="another version"):
        Facts.read(folder)
    assert kinema.cli.run(["resume", OUT]) == 2


def test_an_output_that_someone_else_put_there_is_not_replaced(model, here):
    cut_at(model, "decode", 3)
    (here / OUT).write_text("someone's")
    with pytest.raises(MediaError, match="exists"):
        kinema.render(shot(model), model=model, out=OUT)
    assert (here / OUT).read_text() == "someone's"


def test_a_sequence_that_was_cut_while_it_was_published_is_completed(small, here, tmp_path):
    (here / "out").mkdir()
    asked = ["generate", "a fox", "--model", str(small), "--seed", "3", "--steps", "1", "--frames", "5"]
    command = [*asked, "-q", "-o", "out/%04d.png"]
    cached_hashes(small)  # written down by whoever renders first, and then a file that is published too
    assert faults.run(command, tmp_path, point="publish.renamed:3").code == -signal.SIGKILL
    assert len([name for name in names(here / "out") if name.endswith(".png")]) == 3
    assert faults.run(command, tmp_path).code == 0
    assert names(here / "out") == {f"{i:04d}.png" for i in range(1, 6)}
    assert names(here) == {"out"}


# Cleanliness


def handles() -> set[str]:
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}  # noqa: PTH115


@pytest.mark.slow
def test_two_hundred_renders_in_one_process_leave_nothing_and_do_not_grow(model, here):
    import threading

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes, threads = [], threading.active_count()
    for number in range(200):
        kinema.render(shot(model, steps=1, frames=5, seed=number), model=model, out=OUT, overwrite=True)
        if number == 19:
            opened = handles()
        if number >= 19 and number % 20 == 19:
            sizes.append(resident())
    assert threading.active_count() == threads
    assert len(handles()) <= len(opened)
    assert names(here) == {OUT}
    print("resident", [size >> 20 for size in sizes])
    assert sizes[-1] - sizes[0] < 8 << 20
