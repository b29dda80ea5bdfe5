"""Transitions as they are written: one kind each, lengths in frames or seconds, read back as they were."""

from __future__ import annotations

from fractions import Fraction

import pytest

from kinema.core.errors import ConfigError
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, from_mapping
from kinema.story.transition import Transition


@pytest.mark.parametrize(
    ("written", "kind", "frames"),
    [
        ("cut", "cut", 0),
        ("match", "match", 1),
        ("dissolve 8", "dissolve", 8),
        ("fade 0.5s", "fade", 12),
        ({"wipe": "1.02s", "direction": "up"}, "wipe", 24),
        ({"dissolve": "0.001s"}, "dissolve", 1),
        ({}, "cut", 0),
    ],
)
def test_kinds_and_lengths(written, kind, frames):
    shot = Shot(transition=written)
    assert (shot.begins.kind, shot.begins.frames(Fraction(24000, 1001))) == (kind, frames)
    again = Shot.from_mapping(shot.to_mapping())
    assert again.transition == shot.transition


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("disolve 8", "'disolve 8' is no transition; write cut, match"),
        ({"dissolve": 8, "fade": 3}, "dissolve and fade exclude each other"),
        ({"dissolve": 0}, "0 is no length"),
        ({"fade": "50%"}, "'50%' is no length"),
        ("dissolve 2b", "'2b' is no length; write frames (8) or seconds (0.5s)"),
        ({"wipe": "2b"}, "'2b' is no length"),
        ({"fade": 3, "color": "blu"}, "color='blu' is unknown"),
        ({"dissolve": 3, "color": "red"}, "color is of a fade"),
        ({"dissolve": 3, "direction": "left"}, "direction is of a wipe"),
        ({"wipe": 3, "direction": "north"}, "unknown transition.direction 'north'"),
        ({"dissolve": 3, "ease": "in_ot"}, "Did you mean 'in_out'"),
        ({"ease": "in"}, "a cut has no easing"),
        ({"dissolv": 3}, "Did you mean 'dissolve'?"),
    ],
)
def test_what_is_wrong_is_said(written, message):
    with pytest.raises(ConfigError) as error:
        Shot(transition=written)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ({"shots": [{"transition": "match"}]}, "shots[0].transition=match: nothing comes before the first"),
        ({"shots": ["a"], "end": "dissolve 3"}, "end=dissolve: nothing comes after the last"),
        (
            {"shots": ["a", {"extend": "previous", "transition": "dissolve 3"}]},
            "shots[1]: transition dissolve: extend: previous goes on without a seam",
        ),
    ],
)
def test_transitions_need_a_shot_on_both_sides(board, message):
    with pytest.raises(ConfigError) as error:
        from_mapping(board)
    assert message in str(error.value)


def test_a_storyboard_in_python_is_the_one_in_a_file():
    given = {
        "fps": 8,
        "seed": 3,
        "shots": ["a fox", {"prompt": "a wolf", "seed": 4, "transition": {"dissolve": 4}}],
        "end": "fade 8",
        "canvas": "96x64",
    }
    board = Storyboard(**given)
    assert board == from_mapping(given)
    assert [shot.seed for shot in board.shots] == [3, 4]
    assert board.canvas == (96, 64)
    assert board.end == Transition(fade=8)
    assert from_mapping(board.to_mapping()) == board


def test_shots_differ_in_size_on_a_canvas_only():
    shots = [{"size": "64x64"}, {"size": "32x64"}]
    assert len(Storyboard(shots=shots, canvas="64x64").shots) == 2
    with pytest.raises(ConfigError, match="width differs"):
        Storyboard(shots=shots)
    with pytest.raises(ConfigError, match="fps differs"):
        Storyboard(shots=[{"fps": 8}, {"fps": 9}], canvas="64x64")
