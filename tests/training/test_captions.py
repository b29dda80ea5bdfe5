"""Scenes and captions: what is drawn is what is said, and what is held out never appears."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.training.captions import FROZEN_PHRASES, GRADIENT_PHRASES, MOTION_PHRASES, caption
from kinema.training.drawing import draw_scene
from kinema.training.grammar import Grammar
from kinema.training.phrases import SIZE_WORDS, with_article
from kinema.training.scenes import COLOURS, DIRECTIONS, Identity, held_out

WHO = (Identity("rooster"), Identity("owl", ("hooter",), index=1), Identity("stone", animated=False, index=2))
LIVELY = Grammar(synonym=0.5, gradient=0.5, frozen=0.5, moving=0.5, resized=0.5)


def drawn(grammar=LIVELY, count=300, **kwargs):
    rng = Random(0)
    return [draw_scene(rng, grammar, WHO, **kwargs) for _ in range(count)]


def has_any(text, phrases):
    return any(phrase in text for phrase in phrases)


@given(st.integers(0, 2**32))
def test_every_factor_off_its_default_is_named_and_no_other(seed):
    rng = Random(seed)
    scene = draw_scene(rng, LIVELY, WHO)
    text = caption(scene, rng)
    assert scene.word in text
    assert all(name in text for name in scene.background.names)
    assert has_any(text, FROZEN_PHRASES) == (scene.native == "frozen")
    for motion, phrases in MOTION_PHRASES.items():
        assert has_any(text, phrases) == (scene.motion == motion)
    for size, words in SIZE_WORDS.items():
        assert has_any(text, words) == (scene.size == size)


@given(st.integers(0, 2**32))
def test_gradient_names_its_colours_in_the_order_of_the_pixels(seed):
    rng = Random(seed)
    scene = draw_scene(rng, replace(LIVELY, gradient=1.0), WHO)
    expected = [p.format(*scene.background.names) for p in GRADIENT_PHRASES[scene.background.layout]]
    assert has_any(caption(scene, rng), expected)


def test_jitter_stays_inside_its_width_and_keeps_the_nearest_name():
    for scene in drawn():
        for name, rgb in zip(scene.background.names, scene.background.rgb, strict=True):
            assert all(abs(a - b) <= LIVELY.colour_jitter for a, b in zip(rgb, COLOURS[name], strict=True))
            distance = {n: sum((a - b) ** 2 for a, b in zip(rgb, c, strict=True)) for n, c in COLOURS.items()}
            assert min(distance, key=distance.__getitem__) == name


def test_motion_is_a_crossing_in_the_named_direction():
    for scene in drawn():
        travel = tuple(end - start for start, end in zip(scene.start, scene.end, strict=True))
        dx, dy = DIRECTIONS.get(scene.motion, (0.0, 0.0))
        assert travel == pytest.approx((1.9 * dx, 1.9 * dy))


def test_stills_have_no_motion_and_still_sprites_never_play():
    assert all(s.motion == "none" and s.native == "plays" for s in drawn(still=True))
    assert all(s.native == "frozen" for s in drawn() if not s.identity.animated)
    assert any(s.native == "plays" for s in drawn())


def test_same_seed_same_scene_and_caption():
    first, second = Random(7), Random(7)
    scene = draw_scene(first, LIVELY, WHO)
    assert scene == draw_scene(second, LIVELY, WHO)
    assert caption(scene, first) == caption(scene, second)


def test_training_and_held_out_scenes_never_share_a_pair():
    grammar = Grammar(moving=0.5, gradient=0.0, held_out=0.2)
    seen, unseen = drawn(grammar, 2000), drawn(grammar, 200, unseen=True)
    colours = {(s.identity.name, s.background.names) for s in seen}
    motions = {(s.identity.name, s.motion) for s in seen}
    for scene in unseen:
        is_new_colour = (scene.identity.name, scene.background.names) not in colours
        assert is_new_colour or (scene.identity.name, scene.motion) not in motions


def test_held_out_share_is_the_fraction_and_grows_with_it():
    scenes = [
        draw_scene(Random(i), Grammar(moving=0, gradient=0, held_out=0), [Identity(f"thing {i}")])
        for i in range(4000)
    ]
    few, many = ({i for i, s in enumerate(scenes) if held_out(s, f)} for f in (0.05, 0.2))
    assert few < many
    assert len(few) / 4000 == pytest.approx(0.05, abs=0.015)
    assert len(many) / 4000 == pytest.approx(0.2, abs=0.03)


def test_held_out_pairs_are_the_same_on_every_machine():
    base = draw_scene(Random(0), Grammar(moving=0, gradient=0), [Identity("fox")])
    names = [
        n for n in COLOURS if held_out(replace(base, background=replace(base.background, names=(n,))), 0.2)
    ]
    assert names == ["red", "green", "gray"]


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("owl", "an owl"),
        ("small octopus", "a small octopus"),
        ("grapes", "grapes"),
        ("tiny rhinoceros", "a tiny rhinoceros"),
        ("face in clouds", "a face in clouds"),
        ("kiss", "a kiss"),
        ("face with heart-eyes", "a face with heart-eyes"),
    ],
)
def test_articles(noun, phrase):
    assert with_article(noun) == phrase


def test_grammar_loads_strictly(tmp_path: Path):
    path = tmp_path / "g.yaml"
    path.write_text("grammar: {moving: 0.25}\n")
    assert Grammar.load(path) == Grammar(moving=0.25)
    path.write_text("grammar: {movin: 0.25}\n")
    with pytest.raises(ConfigError, match="Did you mean 'moving'"):
        Grammar.load(path)
    path.write_text("data: {}\n")
    with pytest.raises(ConfigError, match="no 'grammar' section"):
        Grammar.load(path)
    with pytest.raises(ConfigError, match=r"moving=1.5 is outside 0..1"):
        Grammar(moving=1.5)


def test_the_shipped_config_is_a_grammar():
    path = Path(__file__).parents[2] / "configs" / "embedded-v0-data.yaml"
    assert 0 < Grammar.load(path).held_out < 0.5


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(ConfigError, match="identities is empty"):
        draw_scene(Random(0), Grammar(), [])
    with pytest.raises(ConfigError, match="holds nothing out"):
        draw_scene(Random(0), Grammar(held_out=0), WHO, unseen=True)
