"""What is done to finished frames may change between two processes: nothing is sampled again for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import kinema
import kinema.cli
import upscalers
from kinema.core.errors import MediaError, NumericError
from kinema.io.hidden import state_folder
from kinema.pipelines.durable.state import Facts, Keep

OUT = "b.mp4"


class Enough(Exception):
    """Raised to stop a render."""


@pytest.fixture(scope="module")
def model(small) -> kinema.pipelines.model.Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shot(model, **fields) -> kinema.Shot:
    given = {"prompt": "a fox", "model": model.card.id, "steps": 2, "frames": 5, "size": "64x64", "fps": 8}
    return kinema.Shot.from_mapping({**given, **fields})


def stopped(model, request, out=OUT, *, phase="decode", step=2) -> None:
    def stop(event: kinema.Progress) -> None:
        if (event.phase, event.step) == (phase, step):
            raise Enough

    with pytest.raises(Enough):
        kinema.render(request, model=model, out=out, on_progress=stop)


def test_another_network_goes_on_from_the_frames_of_one_that_failed(model, here):
    state = upscalers.compact(2, blocks=1)
    state["body.0.weight"][:] = 1e38
    upscalers.saved(here / "mad.safetensors", state)
    upscalers.doubled(here / "2x.safetensors")
    with pytest.raises(NumericError, match="use another"):
        kinema.render(shot(model, upscale="mad.safetensors"), model=model, out=OUT)
    seeds = Facts.read(state_folder(Path(OUT))).seeds  # drawn, since none was given
    for upscale, size in (("2x.safetensors", 128), (3, 192), (None, 64)):
        stopped(model, shot(model, upscale="2x.safetensors"), phase="upscale", step=2)
        seen: Counter = Counter()
        notes: list[str] = []
        clip = kinema.render(
            shot(model, upscale=upscale), model=model, out=OUT, on_note=notes.append,
            on_progress=lambda event, seen=seen: seen.update([event.phase]), overwrite=True,
        )  # fmt: skip
        assert seen["denoise"] == 0
        assert clip.size == (size, size)
        clip.array()
        assert len(notes) == (upscale != "2x.safetensors")
        if upscale == "2x.safetensors":
            assert clip.record.shot["seed"] == seeds[0]
            whole = kinema.render(shot(model, seed=seeds[0], upscale=upscale), model=model, out="whole.mp4")
            assert whole.record.shot == clip.record.shot
            assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()
        (here / OUT).unlink()


def test_a_network_that_was_replaced_is_told_by_resume_and_costs_no_sampling(model, here, capsys):
    upscalers.doubled(here / "2x.safetensors")
    stopped(model, shot(model, seed=3, upscale="2x.safetensors"))
    upscalers.saved(here / "2x.safetensors", upscalers.compact(2))
    before = {p: p.read_bytes() for p in state_folder(Path(OUT)).rglob("*") if p.is_file()}
    assert kinema.cli.run(["resume", OUT]) == 2
    said = capsys.readouterr().err
    assert "was made with upscaling network 2x.safetensors " in said
    assert len(said.splitlines()) == 1
    assert {p: p.read_bytes() for p in state_folder(Path(OUT)).rglob("*") if p.is_file()} == before
    seen: Counter = Counter()
    clip = kinema.render(
        shot(model, seed=3, upscale="2x.safetensors"), model=model, out=OUT,
        on_progress=lambda event: seen.update([event.phase]),
    )  # fmt: skip
    assert (seen["denoise"], clip.size) == (0, (128, 128))
    assert kinema.cli.run(["resume", OUT]) == 2  # finished


def test_resume_makes_what_was_asked_for_last(model):
    stopped(model, shot(model, seed=3, upscale=2))
    stopped(model, shot(model, seed=3, upscale=3, interpolate="16:blend"))
    assert kinema.cli.run(["resume", OUT, "-q"]) == 0
    clip = kinema.Clip.open(OUT)
    assert (clip.size, clip.fps, len(clip)) == ((192, 192), 16, 9)
    assert clip.record.shot["upscale"] == {"scale": 3, "method": "lanczos"}


def test_a_storyboard_may_be_made_larger_otherwise(model):
    def board(upscale):
        shots = [shot(model, seed=3).to_mapping(), shot(model, seed=4).to_mapping()]
        return kinema.Storyboard.from_mapping({"upscale": upscale, "shots": shots})

    stopped(model, board(2))
    seen: Counter = Counter()
    clip = kinema.render(
        board(3), model=model, out=OUT, on_progress=lambda event: seen.update([(event.phase, event.shot)])
    )
    assert (seen["denoise", 1], clip.size, len(clip)) == (0, (192, 192), 10)


def test_a_file_that_was_published_is_not_taken_for_another_size(model, monkeypatch):
    def cut(self):
        raise Enough

    with monkeypatch.context() as patch:
        patch.setattr(Keep, "discard", cut)
        with pytest.raises(Enough):
            kinema.render(shot(model, seed=3, upscale=2), model=model, out=OUT)
    with pytest.raises(MediaError, match="exists"):
        kinema.render(shot(model, seed=3, upscale=3), model=model, out=OUT)
    assert kinema.render(shot(model, seed=3, upscale=3), model=model, out=OUT, overwrite=True).size == (
        192,
        192,
    )
    assert not state_folder(Path(OUT)).exists()


def test_a_file_in_the_way_of_a_resume_is_no_reason_to_resume(model, here, capsys):
    stopped(model, shot(model, seed=3))
    assert Facts.read(state_folder(Path(OUT))) is not None
    (here / OUT).write_text("mine")
    assert kinema.cli.run(["resume", OUT]) == 2
    printed = capsys.readouterr().err
    assert printed == f"error: {OUT} was made by something else meanwhile; move it away, then go on.\n"
    assert (here / OUT).read_text() == "mine"
    (here / OUT).unlink()
    assert kinema.cli.run(["resume", OUT, "-q"]) == 0
    assert kinema.Clip.open(OUT).array().shape == (5, 64, 64, 3)
