"""A live draft is a file of its own: it replaces nothing, and nothing but it is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

import kinema
import kinema.cli
from kinema.core.errors import MediaError
from kinema.io.hidden import state_folder
from kinema.io.live import live_path

OUT = "fox.mp4"
DRAFT = "fox.mp4.live.mp4"


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
    given = {"prompt": "a fox", "model": model.card.id, "seed": 3, "steps": 1, "frames": 9, "size": "64x64"}
    return kinema.Shot.from_mapping({**given, **fields})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cut(model, **options) -> None:
    def stop(event: kinema.Progress) -> None:
        if (event.phase, event.step) == ("decode", 3):
            raise Enough

    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, live=True, on_progress=stop, **{"out": OUT, **options})


def test_no_two_outputs_share_a_draft_and_none_has_an_outputs_name(here):
    (here / "s").mkdir()
    outs = ["fox.mp4", "fox.webm", "fox.live.mp4", "v1.2.mp4", "v1.3.mp4", "%04d.png", "s/%04d.png",
            "new/%04d.png", "new2/%04d.png", "fox-%04d.png"]  # fmt: skip
    drafts = {live_path(Path(out)) for out in outs}
    assert len(drafts) == len(outs)
    assert not drafts & {Path(out) for out in outs}
    assert all(path.parent.is_dir() for path in drafts)


@pytest.mark.parametrize("out", ["fox.live.mp4", "v1.2.mp4", "new/%02d.png"])
def test_the_clip_is_there_and_its_draft_is_not(model, here, out):
    shown: list[str] = []
    kinema.render(shot(model), model=model, out=out, live=True, on_note=shown.append)
    assert names(here) == {Path(out).parts[0]}
    assert any("shows the frames so far" in text for text in shown)
    assert len(kinema.Clip.open(out)) == 9


@pytest.mark.parametrize("state_dir", [None, False])
def test_a_file_in_the_drafts_way_is_refused_before_anything_is_made(model, here, state_dir):
    (here / DRAFT).write_text("theirs")

    def never(event: kinema.Progress) -> None:
        raise AssertionError(f"{event.phase} was begun")

    with pytest.raises(MediaError, match=rf"{DRAFT}' exists, .* move it away, or do without"):
        kinema.render(shot(model), model=model, out=OUT, live=True, state_dir=state_dir, on_progress=never)
    assert (here / DRAFT).read_text() == "theirs"
    assert names(here) == {DRAFT}


def test_a_file_that_comes_into_the_drafts_way_costs_only_the_draft(model, here):
    notes: list[str] = []

    def comes(event: kinema.Progress) -> None:
        if event.phase == "denoise":
            (here / DRAFT).write_text("theirs")

    kinema.render(shot(model), model=model, out=OUT, live=True, on_progress=comes, on_note=notes.append)
    assert (here / DRAFT).read_text() == "theirs"
    assert len([text for text in notes if "the draft is given up" in text]) == 1
    assert names(here) == {OUT, DRAFT}


def test_a_draft_of_a_render_that_was_cut_is_gone_on_with_and_removed(model, here):
    for live in (True, False):  # the second goes on without one
        cut(model)
        assert DRAFT in names(here)
        inode = (here / DRAFT).stat().st_ino
        seen: list[int] = []

        def look(event: kinema.Progress, seen=seen) -> None:
            seen.append((here / DRAFT).stat().st_ino)

        kinema.render(shot(model), model=model, out=OUT, live=live, on_progress=look)
        assert set(seen) == {inode}
        assert names(here) == {OUT}
        (here / OUT).unlink()


def test_resume_goes_on_with_the_draft(small, here, monkeypatch):
    argv = [
        "generate",
        "a fox",
        "--model",
        str(small),
        "--seed",
        "3",
        "--steps",
        "1",
        "--frames",
        "5",
        "-o",
        OUT,
    ]
    from kinema.pipelines.durable.state import Keep

    def enough(*_):
        raise Enough

    with monkeypatch.context() as patch:
        patch.setattr(Keep, "publishing", enough)
        with pytest.raises(Enough):
            kinema.cli.run([*argv, "--live", "-q"])
    assert DRAFT in names(here)
    assert kinema.cli.run(["resume", OUT, "-q"]) == 0
    assert OUT in names(here)
    assert not any(DRAFT in name or name.startswith(".fox") for name in names(here))


def test_another_request_for_the_same_output_takes_the_draft_over(model, here):
    cut(model)
    kinema.render(shot(model, seed=4), model=model, out=OUT, live=True)
    assert names(here) == {OUT}


def test_what_has_replaced_a_draft_since_is_not_taken_for_it(model, here):
    cut(model)
    (here / "theirs").write_text("theirs")
    (here / "theirs").replace(here / DRAFT)
    with pytest.raises(MediaError, match="exists"):
        kinema.render(shot(model), model=model, out=OUT, live=True)
    kinema.render(shot(model), model=model, out=OUT)
    assert (here / DRAFT).read_text() == "theirs"
    assert names(here) == {OUT, DRAFT}
    assert not state_folder(Path(OUT)).exists()


def test_without_a_state_a_draft_that_was_left_is_not_taken_either(model, here):
    cut(model, state_dir=False)
    assert names(here) == {DRAFT}
    with pytest.raises(MediaError, match="exists"):
        kinema.render(shot(model), model=model, out=OUT, live=True, state_dir=False)
