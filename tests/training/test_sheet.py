"""Sample sheets: drawn with the averaged weights, which are taken back however the drawing ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kinema.models.text import TextStates
from kinema.training.loop import OptimiserSettings, Trainer
from kinema.training.sheet import Look, averaged, guided_euler


def test_averaged_weights_are_put_in_and_taken_back():
    run = Trainer(nn.Linear(2, 2), (), OptimiserSettings(), steps=3)
    for p in run.average.values():
        p.fill_(7)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    with averaged(run):
        assert all((p == 7).all() for p in run.model.parameters())
    with pytest.raises(RuntimeError, match="no room"), averaged(run):
        raise RuntimeError("no room")
    for name, p in run.model.named_parameters():
        assert torch.equal(p, before[name])


class Guided:
    """Velocity 1 for words, 0.25 for none: Euler from s = 1 to 0 adds minus their guided mix."""

    def prepare(self, conditioning):
        return conditioning.states_BKLD.mean(dim=(1, 2, 3))

    def __call__(self, x_BCTYX, time_BT, level_B):
        assert (time_BT == time_BT[0, 0]).all()
        return torch.ones_like(x_BCTYX) * level_B[:, None, None, None, None]


def words(captions):
    states = torch.stack([torch.full((1, 4), 1.0 if caption else 0.25) for caption in captions])
    return TextStates(states_KLD=states, mask_KL=torch.ones(len(captions), 1, dtype=torch.bool))


def test_sampling_is_guided():
    noise = torch.randn(2, 3, 2, 2, 2)
    made = guided_euler(Guided(), noise, ["a fox", "a hen"], words, Look(guidance=3.0))
    mix = 0.25 + 3 * (1 - 0.25)
    torch.testing.assert_close(made, noise - mix)
