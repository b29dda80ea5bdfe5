"""Prompts at once: shares are weights over their sum, at every frame; what is no share is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.pipelines.cards import read_card
from kinema.pipelines.geometry import per_latent
from kinema.pipelines.planning import make_plan
from kinema.story.prompt_track import PromptTrack
from kinema.story.shot import Shot

CARD = read_card("embedded")


def test_weights_run_over_frames_and_sum_to_one():
    track = PromptTrack(
        {
            "head": "oil",
            "mix": {"a fox": "2 - 2 * t / max_f", "a wolf": "0:(0), 8:(2)", "fog": 0.5},
            "tail": "wet",
        }
    )
    texts, weights_FK = track.sample(9, 8)
    assert texts == ("oil, a fox, wet", "oil, a wolf, wet", "oil, fog, wet")
    t = np.arange(9)
    raw = np.stack([2 - 2 * t / 8, 2 * t / 8, np.full(9, 0.5)], axis=1)
    assert weights_FK == pytest.approx(raw / raw.sum(axis=1, keepdims=True))
    assert track.mixed
    assert track.constant is None


def test_a_list_says_the_same_and_is_remembered():
    mapping = {"mix": {"a fox": 1, "a wolf": "t"}}
    listed = {"mix": [{"prompt": "a fox"}, {"prompt": "a wolf", "weight": "t"}]}
    one, other = (PromptTrack(source) for source in (mapping, listed))
    assert np.array_equal(one.sample(5, 8)[1], other.sample(5, 8)[1])
    shot = Shot(prompt=listed)
    assert Shot.from_mapping(shot.to_mapping()) == shot


def test_prompts_that_are_never_seen_are_left_out():
    texts, weights_FK = PromptTrack({"mix": {"a": 1, "b": "t - t", "c": "t"}}).sample(3, 8)
    assert texts == ("a", "c")
    assert weights_FK.shape == (3, 2)


def test_the_model_is_given_the_means_of_the_shares():
    mix = {"a fox": "1 + sin(tau * sec)", "a wolf": 1}
    shot = Shot(
        prompt={"mix": mix}, negative={"mix": {"text": "t", "blur": "16 - t"}}, frames=17, seed=5, fps=8
    )
    plan = make_plan(shot, CARD)
    for track, side in ((shot.prompt, plan.prompts), (shot.negative, plan.negatives)):
        expected = per_latent(track.sample(17, 8, 5)[1], plan.geometry)
        assert np.array(side.weights) == pytest.approx(expected)
    assert [spans[0][0] for spans in plan.negatives.spans] == ["text", "blur"]


def test_the_seed_is_known_to_the_weights():
    track = PromptTrack({"mix": {"a": "1 + noise(t)", "b": "2"}})
    assert not np.array_equal(track.sample(9, 8, 1)[1], track.sample(9, 8, 2)[1])


def test_a_loop_takes_the_weights_as_they_are():
    shot = Shot(prompt={"mix": {"a": "2 + sin(tau * t / 16)", "b": 2}}, frames=16, loop=True, seed=1)
    plan = make_plan(shot, CARD)
    assert np.array(plan.prompts.weights) == pytest.approx(
        per_latent(shot.prompt.sample(16, 8, 1)[1], plan.geometry)
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"mix": {}}, "mix has 0 prompts"),
        ({"mix": 3}, "is no mapping"),
        ({"mix": ["a"]}, "mix[0] is no mapping"),
        ({"mix": [{"prompt": "a"}, {"prompt": "a"}]}, "mix has 'a' twice"),
        ({"mix": {"a": "1 +"}}, "mix, weight of 'a'"),
        ({"mix": {"a": 1}, 0: "b"}, "0 beside mix"),
        ({"mix": {"a": 1}, "ease": "in"}, "'ease' beside mix"),
        ({"mix": {"(a:99)": 1}}, "outside -10 to 10"),
        ({"mix": {"a": lambda t: 1.0}}, "is a function"),
        ({"mix": {3: 1}}, "is not text"),
    ],
)
def test_what_is_no_mix_is_refused(prompt, message):
    with pytest.raises(ConfigError) as error:
        Shot(prompt=prompt)
    assert message in str(error.value)


def test_weights_that_are_no_shares_are_refused_with_their_frame():
    with pytest.raises(ConfigError, match=r"weight of 'a' is -1 at frame 4; .* max\(0, \.\.\.\)"):
        PromptTrack({"mix": {"a": "3 - t", "b": 1}}).sample(9, 8)
    with pytest.raises(ConfigError, match="all weights are 0 at frame 3"):
        PromptTrack({"mix": {"a": "3 - t if t < 3 else 0", "b": 0}}).sample(9, 8)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3))
def test_any_weights_become_shares(weights):
    texts, shares_FK = PromptTrack({"mix": {f"p{i}": w for i, w in enumerate(weights)}}).sample(3, 8)
    assert shares_FK.sum(axis=1) == pytest.approx([1, 1, 1])
    assert len(texts) == sum(w / sum(weights) > 0 for w in weights)
