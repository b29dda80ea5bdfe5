"""Batches: the same whoever draws them and whenever, small enough to be sent between processes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.training.dit import ObjectiveSettings, draw_levels, step_generator
from kinema.training.grammar import Grammar
from kinema.training.render import compose
from kinema.training.stream import Drawer, PartSettings, Resident, batches
from training_sprites import make

STILLS = PartSettings(frames=1, fps=12, batch=4)
CLIPS = PartSettings(frames=9, fps=12, batch=2, objective=ObjectiveSettings(odds={"continue": 1.0}))
FULL = Grammar(acting=0.5, viewed=0.3, patterned=0.3, company=0.3, hued=0.3, paired=0.3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sprites"))


def test_batch_i_depends_on_seed_and_i_only(bank):
    one, other = Drawer(bank, FULL, [STILLS, CLIPS], seed=1), Drawer(bank, FULL, [STILLS, CLIPS], seed=1)
    first = [one.draw(i) for i in range(4)]
    again = other.draw(3)
    assert first[3].captions == again.captions
    assert torch.equal(first[3].values.theta_BSF23, again.values.theta_BSF23)
    assert Drawer(bank, FULL, [STILLS, CLIPS], seed=2).draw(3).captions != again.captions


def test_parts_take_turns_and_continuations_have_no_first_frame(bank):
    drawer = Drawer(bank, FULL, [STILLS, CLIPS], seed=1)
    found = [drawer.draw(i) for i in range(4)]
    assert [batch.part for batch in found] == [0, 1, 0, 1]
    assert [batch.values.rows_BSF.shape[-1] for batch in found] == [1, 12, 1, 12]
    assert [len(batch.captions) for batch in found] == [4, 2, 4, 2]
    held = replace(CLIPS, objective=ObjectiveSettings())
    assert Drawer(bank, FULL, [held], seed=1).draw(0).values.rows_BSF.shape[-1] == 9


def test_a_batch_survives_the_way_between_processes_and_is_small(bank):
    batch = Drawer(bank, FULL, [CLIPS], seed=1).draw(0)
    data = pickle.dumps(batch)
    assert len(data) < 20_000 * len(batch.captions)
    frames = [compose(b.values, bank.gather, size=16) for b in (batch, pickle.loads(data))]
    assert torch.equal(*frames)


def test_a_part_draws_its_cast_and_some_more_often(bank):
    names = [identity.name for identity in bank.identities]
    casts = {"known": names[:1], "new": names[1:2]}
    stills = replace(STILLS, batch=400, cast={"known": 1, "new": 3})
    drawer = Drawer(bank, Grammar(synonym=0.0), [stills, CLIPS], seed=1, casts=casts)
    drawn = [caption for step in (0, 2) for caption in drawer.draw(step).captions]
    assert all(names[0] in caption or names[1] in caption for caption in drawn)
    assert 0.68 < sum(names[1] in caption for caption in drawn) / len(drawn) < 0.82
    assert drawer.hats[1] == bank.identities


def test_a_cast_that_is_not_there_is_named(bank):
    with pytest.raises(ConfigError, match="'new'"):
        Drawer(bank, FULL, [replace(STILLS, cast={"new": 1})], seed=1, casts={"known": []})
    with pytest.raises(ConfigError, match="'nobody'"):
        Drawer(bank, FULL, [replace(STILLS, cast={"new": 1})], seed=1, casts={"new": ["nobody"]})


@pytest.mark.slow
def test_processes_draw_what_this_one_draws(bank):
    drawer = Drawer(bank, FULL, [STILLS, CLIPS], seed=1)
    coming = batches(drawer, 5, workers=2)
    found = [next(coming) for _ in range(3)]
    coming.close()
    assert [batch.step for batch in found] == [5, 6, 7]
    assert found[2].captions == drawer.draw(7).captions


def test_sprites_in_memory_are_those_of_the_file(bank):
    rows = torch.tensor([3, 0, 12])
    assert torch.equal(Resident(bank, torch.device("cpu"))(rows), bank.gather(rows))


def test_part_of_a_batch_is_its_beginning(bank):
    values = Drawer(bank, FULL, [STILLS], seed=1).draw(0).values
    whole = compose(values, bank.gather, size=16)
    assert torch.equal(compose(values.part(0, 2), bank.gather, size=16), whole[:2])


def test_noise_levels_do_not_depend_on_how_frames_are_held(bank):
    odds = ObjectiveSettings(odds={"none": 0.8, "first": 0.1, "ends": 0.1})
    drawer = Drawer(bank, Grammar(), [PartSettings(frames=9, fps=12, batch=1, objective=odds)], seed=1)
    held = [step for step in range(600) if drawer.draw(step).held != "none"]
    assert len(held) > 80
    levels_NB = torch.stack(
        [draw_levels("none", 6, 1, odds, step_generator(1, step)).sigma_BT[:, 0] for step in held]
    )
    assert (levels_NB.mean(dim=0) - 0.5).abs().max() < 0.09  # 4 standard errors
    assert (levels_NB.std(dim=0) - 0.21).abs().max() < 0.06
