"""Clips on disk that go on: at the rate that was made, each frame at its time, joined at the file's rate."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.animation.interpolate import interpolated
from kinema.cli import run
from kinema.core.contracts import Record
from kinema.core.errors import GeometryError
from kinema.io.record import read_record
from kinema.pipelines.job import make_job
from kinema.pipelines.known import to_pixels
from kinema.pipelines.model import Model
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


def smooth_frames(count: int, side: int = 64) -> np.ndarray:
    """A slow change between two pictures, uint8 `[F, side, side, 3]`."""
    ends = np.random.default_rng(count).integers(0, 256, (2, side, side, 3)).astype(float)
    return np.stack([ends[0] + (ends[1] - ends[0]) * f / count for f in range(count)]).astype(np.uint8)


def stored(path: Path, frames: np.ndarray, fps: object, record: Record | None = None) -> str:
    kinema.Clip(frames, fps, record).save(path)
    return str(path)


@pytest.fixture
def thinned(tmp_path) -> str:
    """A clip of 9 frames at 8 a second."""
    return stored(tmp_path / "thinned.mkv", smooth_frames(25)[::3], 8)


@pytest.fixture
def smooth(tmp_path) -> str:
    """The same with frames drawn in between, 25 at 24 a second, as its record says."""
    record = Record({"fps": 8, "interpolate": {"fps": 24, "method": "blend"}})
    return stored(tmp_path / "smooth.mkv", smooth_frames(25), 24, record)


def test_an_interpolated_clip_goes_on_at_the_rate_it_was_made_at(model, smooth, thinned):
    plain = kinema.generate("a fox", model=model, seed=2, frames=8, extend=thinned)
    clip = kinema.generate("a fox", model=model, seed=2, frames=8, extend=smooth)
    shown = clip.array()
    assert (clip.fps, len(shown)) == (24, 25 + 3 * 8)
    assert np.array_equal(shown[:25], smooth_frames(25))  # the clip's own frames, those in between too
    assert torch.equal(clip.latents, plain.latents)
    drawn = interpolated(plain.array()[8:], Fraction(3), "blend")  # from the clip's last frame on
    assert np.array_equal(shown[24:], np.stack(list(drawn)))
    assert clip.record.shot["fps"] == 8
    assert clip.record.shot["interpolate"] == {"fps": 24, "method": "blend"}
    job = make_job(Shot.from_mapping(dict(clip.record.shot)))
    assert (job.length, job.frames, job.fps, job.plans[0].geometry.fps) == (49, 24, "24", "8")


def test_what_the_clip_before_was_asked_for_goes_on_without_its_record(model, smooth, tmp_path):
    """As the page asks: the settings of the clip, with its file to go on from."""
    bare = stored(tmp_path / "bare.mkv", smooth_frames(25), 24)
    asked = {"seed": 2, "frames": 8, "fps": 8, "interpolate": "24:blend"}
    clip = kinema.generate("a fox", model=model, **asked, extend=bare)
    told = kinema.generate("a fox", model=model, seed=2, frames=8, extend=smooth)
    assert np.array_equal(clip.array(), told.array())
    for rate, way in (
        (8, r"leave fps out, or add interpolate: 24"),
        (48, r"keeps its own; leave fps out\.$"),
    ):
        with pytest.raises(GeometryError, match=rf"fps={rate} is not the rate of .* \(24\).*{way}"):
            make_job(Shot(model=model.card.id, fps=rate, extend=bare))
    assert make_job(Shot(model=model.card.id, extend=bare)).made_fps == "24"


@pytest.mark.parametrize(
    ("fields", "fps", "made"),
    [
        ({"fps": 24}, "24", "24"),
        ({"fps": 12}, "24", "12"),
        ({"interpolate": "24:flow"}, "24", "8"),
        ({"interpolate": 48}, "48", "24"),
    ],
)
def test_what_a_shot_says_of_rates_holds(small, smooth, fields, fps, made):
    job = make_job(Shot(model=str(small), extend=smooth, frames=8, **fields))
    assert (job.fps, job.made_fps) == (fps, made)


@pytest.mark.parametrize(
    "record",
    [
        Record({"fps": 8, "interpolate": {"fps": 30, "method": "flow"}}),  # of a file that is another one now
        Record({"fps": 48, "interpolate": {"fps": 24, "method": "flow"}}),
        Record({"fps": "soon", "interpolate": {"fps": 24}}),
        Record({"fps": 8, "interpolate": [24]}),
        Record({"shots": [8], "interpolate": 24}),
        Record({}, post=["fps"]),  # type: ignore[arg-type]
    ],
)
def test_a_record_that_does_not_fit_its_file_is_passed_over(small, tmp_path, record):
    path = stored(tmp_path / "clip.mkv", smooth_frames(9), 24, record)
    assert make_job(Shot(model=str(small), extend=path)).made_fps == "24"


def test_a_strangers_clip_that_was_interpolated_here_goes_on_too(model, thinned, tmp_path):
    smooth = tmp_path / "smooth.mkv"
    run(["interpolate", thinned, "--fps", "24", "--method", "blend", "-o", str(smooth), "-q"])
    assert not read_record(smooth).shot
    job = make_job(Shot(model=model.card.id, extend=str(smooth), frames=4))
    assert (job.fps, job.made_fps, job.length) == ("24", "8", 25 + 12)


def test_in_a_storyboard_a_clip_is_shown_at_the_rate_of_the_others(model, smooth):
    shots = [{"prompt": "a", "frames": 5}, {"prompt": "b", "frames": 4, "extend": smooth}]
    board = Storyboard.from_mapping(
        {"model": model.card.id, "fps": None, "seed": 1, "steps": 2, "shots": shots}
    )
    job = make_job(board)
    assert (job.fps, job.length) == ("8", 5 + 9 + 4)
    assert any("plays at 24 fps; the new frames are made at 8" in note for note in job.notes)
    shown = kinema.render(board, model=model).array()
    assert np.array_equal(shown[5:14], smooth_frames(25)[::3])


def test_a_clip_that_fades_in_is_drawn_anew_as_a_whole(model, smooth):
    """Its own frames are not what is shown; the fade is counted in frames that were made."""
    fields = {"model": model.card.id, "seed": 2, "steps": 2, "frames": 4, "extend": smooth}
    shown = kinema.render(Shot(**fields, transition="fade 4"), model=model).array()
    assert len(shown) == 3 * (9 + 4 - 1) + 1
    assert not shown[0].any()
    assert np.array_equal(shown[12:25:3], smooth_frames(25)[12:25:3])
    board = {"shots": [fields, {"model": model.card.id, "frames": 9, "steps": 2, "transition": "dissolve 6"}]}
    job = make_job(Storyboard.from_mapping(board))  # of the 4 new frames none is left before the dissolve
    assert job.post.head is None
    assert job.length == 3 * (9 + 4 + 9 - 6 - 1) + 1


def test_minterpolate_goes_on_with_every_frame(model, smooth):
    fields = {"seed": 2, "steps": 2, "frames": 4, "fps": 8, "interpolate": "24:minterpolate"}
    clip = kinema.generate("", model=model, **fields, extend=smooth)
    assert clip.array().shape[0] == clip.count == 25 + 12
    assert np.array_equal(clip.array()[:25], smooth_frames(25))


def test_frames_drawn_one_by_one_go_on_too(model, smooth):
    fields = {"mode": "frame_by_frame", "frames": 2, "steps": 3, "seed": 1, "redraw": {"strength": 0}}
    clip = kinema.generate("a fox", model=model, **fields, extend=smooth)
    assert clip.array().shape[0] == clip.count == 25 + 6
    assert np.array_equal(clip.array()[:25], smooth_frames(25))
    assert clip.fps == 24


def test_pictures_of_a_variable_rate_keep_their_times(model, tmp_path):
    frames = smooth_frames(5)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / "uneven.webp", save_all=True, append_images=pictures[1:], lossless=True,
                     quality=100, duration=[100, 1000, 100, 100, 100])  # fmt: skip
    path = str(tmp_path / "uneven.webp")
    job = make_job(Shot(model=model.card.id, seed=2, frames=4, extend=path))
    assert job.made_fps == "25/7"  # 5 frames in 1.4 s
    assert any("has a variable rate; it is brought to 25/7 fps" in note for note in job.notes)
    clip = kinema.generate("", model=model, seed=2, steps=2, frames=4, extend=path)
    places = [0, 1, 1, 2, 4]  # what begins nearest to 0, 0.28, 0.56 and 0.84 s, and the last
    assert np.array_equal(clip.array()[:5], frames[places])
    assert len(clip) == 5 + 4
    held = model.vae.encode(to_pixels(frames[places], CPU))
    assert torch.equal(clip.latents[:, :, : held.shape[2]], held)


def test_the_verb_goes_on_with_an_interpolated_clip(small, smooth, tmp_path):
    out = tmp_path / "longer.mkv"
    line = ["extend", smooth, "a fox", "--frames", "4", "--steps", "2", "--model", str(small), "-q"]
    run([*line, "--seed", "3", "-o", str(out)])
    clip = kinema.Clip.open(out)
    assert (clip.fps, len(clip)) == (Fraction(24), 25 + 12)
    assert clip.record.shot["fps"] == 8


@pytest.mark.parametrize("given", ["where the first says its rate", "beside the shots"])
def test_a_later_shot_of_a_storyboard_goes_on_from_a_clip_of_another_rate_again(model, tmp_path, given):
    """What a record says of such a shot is what the storyboard gave it, and is taken again."""
    path = stored(tmp_path / "clip24.mkv", smooth_frames(25), 24)
    shots = [{"prompt": "a", "frames": 5}, {"prompt": "b", "frames": 4, "extend": path}]
    board = {"model": model.card.id, "seed": 1, "steps": 2, "shots": shots}
    if given == "beside the shots":
        board["fps"] = 8
    else:
        shots[0]["fps"] = 8
    job = make_job(Storyboard.from_mapping(board))
    assert (job.fps, job.length) == ("8", 5 + 9 + 4)
    again = make_job(Storyboard.from_mapping(dict(job.shot)))
    assert [plan.digest for plan in again.plans] == [plan.digest for plan in job.plans]


def test_sounds_after_a_clip_begin_with_their_shots(model, tmp_path):
    """Its last frame, from which new ones are counted, need not be one that was made at their rate."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\1\70" * 80000)
    record = Record({"fps": 12, "interpolate": {"fps": 29.97, "method": "blend"}})
    path = stored(tmp_path / "smooth.mkv", smooth_frames(49), Fraction(30000, 1001), record)
    shots = [
        {"prompt": "a", "frames": 4, "extend": path},
        {"prompt": "b", "frames": 5, "audio": str(tmp_path / "a.wav")},
    ]
    job = make_job(Storyboard.from_mapping({"model": model.card.id, "seed": 1, "steps": 2, "shots": shots}))
    head = job.post.head
    assert (head.frames, job.made_fps, job.fps) == (49, "12", "30000/1001")
    (part,) = job.audio
    assert part.at == Fraction(48 * 1001, 30000) + Fraction(4 + 1, 12)  # its last frame, then 12 a second
    assert part.seconds == Fraction(5, 12)
    shots[0]["audio"] = shots[1]["audio"]
    job = make_job(Storyboard.from_mapping({"model": model.card.id, "seed": 1, "steps": 2, "shots": shots}))
    assert (job.audio[0].at, job.audio[0].start) == (0, 0)
    assert job.audio[0].seconds == part.at + part.seconds
