"""The samples are what they say: every shot is legal, and the storyboard renders to one clip that goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import kinema
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.pipelines.job import make_job
from kinema.story.storyboard import load

SAMPLES = Path(__file__).parents[2] / "samples"
GALLERY = yaml.safe_load((SAMPLES / "gallery.yaml").read_text())


@pytest.mark.parametrize("name", GALLERY)
def test_every_sample_is_a_legal_shot_whose_clip_carries_its_words(name):
    fields = GALLERY[name]
    keys = [str(SAMPLES / key) for key in fields.get("keyframes", [])]
    plan = make_job(kinema.Shot.from_mapping({**fields, "keyframes": keys})).plans[0]
    clip = SAMPLES / "clips" / f"{name}.mp4"
    record = read_record(clip)
    assert record is not None
    assert record.shot["prompt"] == plan.shot["prompt"]
    assert open_video(clip).frames == plan.geometry.keep


@pytest.mark.slow
def test_the_storyboard_becomes_one_clip_without_a_jump(tmp_path):
    out = kinema.render(load(SAMPLES / "storyboard.yaml")).save(tmp_path / "story.mp4")
    clip = open_video(out)
    assert clip.frames == 17 + 16
    frames = np.stack(list(clip)).astype(float)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert change[16] <= 3 * np.median(change) + 2  # the seam is no cut
