"""Clips that turn into the next one: what is seen, what is read, and that both say the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.pipelines.geometry import Geometry
from kinema.pipelines.geometry import per_latent as asked_per_latent
from kinema.training.dit import ObjectiveSettings
from kinema.training.grammar import Grammar
from kinema.training.stream import Drawer, PartSettings
from kinema.training.travel import dissolve, draw_course, per_latent
from training_sprites import make

CLIPS = PartSettings(frames=9, fps=12, batch=3, travel=True)
FULL = Grammar(acting=0.5, company=0.3, paired=0.3)


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_a_course_rises_evenly_from_one_scene_to_the_other(seed, frames):
    course = draw_course(Random(seed), frames)
    assert len(course) == frames
    assert min(course) >= 0
    assert max(course) <= 1
    steps = [after - before for before, after in pairwise(course)]
    assert min(steps) >= 0
    inside = [b - a for a, b in pairwise(course) if a > 0 and b < 1]
    assert not inside or max(inside) - min(inside) < 1e-6


def test_half_of_all_courses_take_the_whole_clip():
    courses = [draw_course(Random(i), 25) for i in range(2000)]
    whole = sum(course == pytest.approx([f / 24 for f in range(25)]) for course in courses)
    assert whole / len(courses) == pytest.approx(0.5, abs=0.04)


def test_a_clip_is_itself_at_weight_0_and_the_next_one_at_1():
    clips = torch.rand(3, 3, 5, 2, 2)
    weights = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]).expand(3, -1)
    made = dissolve(clips, weights)
    after = clips[[1, 2, 0]]
    torch.testing.assert_close(made[:, :, 0], clips[:, :, 0])
    torch.testing.assert_close(made[:, :, 2], (clips[:, :, 2] + after[:, :, 2]) / 2)
    torch.testing.assert_close(made[:, :, 4], after[:, :, 4])
    torch.testing.assert_close(made[:, :, 1], torch.lerp(clips[:, :, 1], after[:, :, 1], 0.104))


def test_latent_frames_get_the_weights_that_a_render_gives_them():
    """The mean over the pixel frames of each, as `pipelines.geometry` computes it for a prompt track."""
    course = torch.rand(1, 13, dtype=torch.float64)
    size = {"width": 64, "height": 64, "rows": 8, "columns": 8}
    place = {"context": 0, "first": 0, "shown": 0, "time": 4, "fps": "8"}
    geometry = Geometry(frames=13, keep=13, latent_frames=4, **size, **place)
    expected = torch.from_numpy(asked_per_latent(course[0].numpy(), geometry))
    made = per_latent(course, 4, first=True)
    torch.testing.assert_close(made[0, :, 1], expected)
    torch.testing.assert_close(made.sum(dim=2), torch.ones(1, 4, dtype=torch.float64))
    whole = per_latent(course[:, :12], 4, first=False)
    torch.testing.assert_close(whole[0, :, 1], course[0, :12].view(3, 4).mean(dim=1))


def test_a_part_that_travels_has_courses_of_its_clips(tmp_path):
    bank = make(tmp_path)
    held = replace(CLIPS, objective=ObjectiveSettings(odds={"continue": 1.0}))
    drawer = Drawer(bank, FULL, [CLIPS, replace(CLIPS, travel=False), held], seed=1)
    travelling, plain, longer = (drawer.draw(step) for step in range(3))
    assert travelling.courses_BF.shape == (3, 9)
    assert plain.courses_BF is None
    assert longer.courses_BF.shape == (3, 12)
    still = Drawer(bank, FULL, [replace(CLIPS, travel=False)], seed=1).draw(0)
    assert still.captions == travelling.captions


def test_a_still_cannot_travel():
    with pytest.raises(ConfigError, match="a still cannot turn into another"):
        replace(CLIPS, frames=1)
