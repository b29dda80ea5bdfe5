"""Building a model to load weights into draws no random numbers and touches no other result."""

from __future__ import annotations

import torch
from torch import nn

from kinema.models.uninitialised import Uninitialised


def test_building_leaves_the_global_generator_alone_and_loads_like_any_model():
    reference = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Embedding(3, 2), nn.Conv3d(1, 2, 3))
    before = torch.get_rng_state()
    with Uninitialised():
        model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Embedding(3, 2), nn.Conv3d(1, 2, 3))
    assert torch.equal(torch.get_rng_state(), before)
    model.load_state_dict(reference.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), reference.parameters(), strict=True))


def test_initialisers_work_again_afterwards():
    with Uninitialised():
        weight = nn.init.constant_(torch.zeros(3), 5.0)
    assert not weight.any()
    assert nn.init.constant_(weight, 5.0).tolist() == [5.0, 5.0, 5.0]
