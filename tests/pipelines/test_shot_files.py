"""A file for each shot: its own frames before transitions, its own record where it can be made alone."""

from __future__ import annotations

import numpy as np
import pytest

import kinema
from kinema.core.errors import MediaError
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.pipelines.job import make_job
from kinema.pipelines.run import write
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard


def test_each_shot_is_written_as_it_was_made(small, tmp_path):
    model = kinema.load(str(small), device="cpu")
    board = Storyboard(
        model=model.card.id,
        frames=9,
        seed=2,
        shots=["a fox", {"name": "the/one".replace("/", " "), "prompt": "a wolf", "transition": "dissolve 4"},
               {"prompt": "a bear", "transition": "match"}],
    )  # fmt: skip
    job, out = make_job(board), tmp_path / "story.mkv"
    write(job, out, request=board, model=model, shots_dir=tmp_path / "shots")
    files = sorted((tmp_path / "shots").iterdir())
    assert [path.name for path in files] == ["01.mkv", "02-the-one.mkv", "03.mkv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shots", "story.mkv"]
    whole = np.stack(list(open_video(out)))
    fox, wolf, bear = (np.stack(list(open_video(path))) for path in files)
    assert len(whole) == 9 + 9 + 9 - 4 - 1
    assert np.array_equal(whole[:5], fox[:5])
    assert np.array_equal(whole[14:], bear[1:])
    alone = kinema.render(board.shots[1].with_(transition="cut"), model=model).array()
    assert np.array_equal(wolf, alone)
    record = read_record(files[1])
    assert record is not None
    assert Shot.from_mapping(record.shot).prompt.source == "a wolf"
    assert Shot.from_mapping(record.shot).transition is None
    assert read_record(files[2]) is None
    with pytest.raises(MediaError, match=r"01\.mkv' exists"):
        write(job, tmp_path / "again.mkv", request=board, model=model, shots_dir=tmp_path / "shots")
    assert not (tmp_path / "again.mkv").exists()


def test_a_render_that_goes_on_replaces_the_files_of_its_shots_and_no_others(small, tmp_path):
    model, folder, out = kinema.load(str(small), device="cpu"), tmp_path / "shots", tmp_path / "story.mkv"
    board = Storyboard(model=model.card.id, frames=5, seed=2, steps=2, shots=["a fox", "a wolf"])

    def render(stop=False):
        def watch(event):
            if stop and (event.shot, event.phase) == (2, "decode"):
                raise KeyboardInterrupt

        write(make_job(board), out, request=board, model=model, shots_dir=folder, on_progress=watch)

    with pytest.raises(KeyboardInterrupt):
        render(stop=True)
    assert [path.name for path in folder.iterdir()] == ["01.mkv"]
    first = (folder / "01.mkv").read_bytes()
    (folder / "02.mkv").write_bytes(b"another's")
    with pytest.raises(MediaError, match=r"02\.mkv' exists"):
        render()
    (folder / "02.mkv").unlink()
    (folder / "01.mkv").write_bytes(b"another's")
    with pytest.raises(MediaError, match=r"01\.mkv' exists"):
        render()
    assert (folder / "01.mkv").read_bytes() == b"another's"
    (folder / "01.mkv").write_bytes(first)
    render()
    assert (folder / "01.mkv").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shots", "story.mkv"]


def test_a_shot_that_goes_on_from_a_faster_clip_can_be_made_again(small, tmp_path):
    """Alone, such a shot is brought to the clip's rate; what was made for it is the same."""
    model = kinema.load(str(small), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3), np.uint8)
    clip = tmp_path / "clip24.mkv"
    kinema.Clip(frames, 24).save(clip)
    fields = {"fps": 8, "interpolate": {"fps": 24, "method": "blend"}}
    first = {"prompt": "a wolf", "extend": str(clip), "frames": 4}
    later = {"prompt": "a fox", "extend": str(clip), "frames": 4}
    board = Storyboard.from_mapping(
        {"model": model.card.id, "seed": 2, "steps": 2, **fields, "shots": [first, later]}
    )
    job = make_job(board)
    write(job, tmp_path / "story.mkv", request=board, model=model, shots_dir=tmp_path / "shots")
    for path in sorted((tmp_path / "shots").iterdir()):
        assert open_video(path).fps == 8
        record = read_record(path)
        again = make_job(Shot.from_mapping(record.shot))
        assert again.made_fps == "8"
        whole = kinema.render(Shot.from_mapping(record.shot), model=model).array()
        assert np.array_equal(whole[:25], frames)
        piece = np.stack(list(open_video(path)))
        assert np.array_equal(whole[24::3], piece[8:])
    slower = {"prompt": "a fox", "extend": str(tmp_path / "shots" / "01.mkv"), "frames": 4}
    board = Storyboard.from_mapping(
        {"model": model.card.id, "fps": 24, "steps": 2, "shots": [{"prompt": "a", "frames": 5}, slower]}
    )
    write(make_job(board), tmp_path / "b.mkv", request=board, model=model, shots_dir=tmp_path / "more")
    assert read_record(tmp_path / "more" / "01.mkv") is not None
    assert read_record(tmp_path / "more" / "02.mkv") is None  # no shot by itself goes on faster than its clip
