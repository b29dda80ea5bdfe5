"""Words that a text encoder has no room for are told, of every kind of model."""

from __future__ import annotations

import pytest

from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot

SIZES = {"image": {"frames": 1, "size": "32x32"}, "foreign": {"frames": 9, "size": "64x64"}}


def cut(card, words, **fields):
    """Notes on a prompt of so many words, each of which is one token of T5's tiny tokenizer."""
    prompt = " ".join(["fox"] * words)
    shot = Shot(model=card.id, prompt=prompt, seed=1, **{**SIZES.get(card.family, {}), **fields})
    return [note for note in make_plan(shot, card).notes if "not its end" in note]


def told(card, room, rest):
    return [f"{card.id!r} reads {room} tokens of a prompt and not its end: {rest!r}."]


@pytest.mark.parametrize(("kind", "room"), [("sd3", 255), ("flux", 511)])
def test_of_image_models_with_t5_what_that_does_not_read(image_model, kind, room):
    card = read_card(str(image_model(kind)))
    assert cut(card, room) == []
    assert cut(card, room + 2) == told(card, room, "fox fox")


def test_of_wan_in_the_text_that_it_reads(wan):
    card = read_card(str(wan("t2v")))
    assert cut(card, 511) == []
    assert cut(card, 512) == told(card, 511, "fox")
    coded = Shot(model=card.id, prompt="&#102;ox " * 511 + "dog")
    assert told(card, 511, "dog")[0] in make_plan(coded, card).notes


def test_of_the_model_inside_the_package():
    card = read_card("embedded")
    assert cut(card, 126) == []
    assert cut(card, 128) == told(card, 126, "fox fox")


@pytest.mark.parametrize(("kind", "room"), [("ltx", 127), ("cogvideo", 225), ("mochi", 255)])
def test_of_other_pipelines_by_what_their_call_says(foreign, kind, room):
    card = read_card(str(foreign(kind)))
    size = {} if kind == "ltx" else {"frames": card.defaults.frames, "size": None}
    assert cut(card, room, **size) == []
    assert cut(card, room + 1, **size) == told(card, room, "fox")
    wider = {"max_sequence_length": room + 3}
    assert cut(card, room + 1, options=wider, **size) == []
    assert cut(card, room + 3, options=wider, **size) == told(card, room + 2, "fox")
