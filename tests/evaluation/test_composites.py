"""Labelled composites: the right labels, resumable draws, damage that stays within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinema.evaluation.composites import Composites, CompositeSettings, damage, texture
from kinema.models.codec import PatchCodec, PatchCodecConfig

NONE = CompositeSettings(textured=0, blurred=0, coded=0, toned=0, grainy=0)
CENTRED = replace(NONE, scale=(1.0, 1.0), near=0.0, far_share=0.0)


@pytest.fixture(scope="module")
def codec():
    return PatchCodec(PatchCodecConfig(width=8, blocks=1, fine=4)).requires_grad_(False)


def test_draw_i_is_the_same_whatever_came_before(bank, codec):
    one, other = (Composites(bank, codec, CompositeSettings(), seed=2) for _ in range(2))
    one.draw(0, 6)
    frames, labels = one.draw(5, 6)
    again, same = other.draw(5, 6)
    assert torch.equal(frames, again)
    assert torch.equal(labels, same)
    assert not torch.equal(frames, Composites(bank, codec, CompositeSettings(), seed=3).draw(5, 6)[0])


def test_frames_are_in_range_and_labels_are_sprites(bank, codec):
    frames, labels = Composites(bank, codec, CompositeSettings(), seed=0).draw(0, 40)
    assert frames.shape == (40, 3, bank.size, bank.size)
    assert float(frames.abs().max()) <= 1
    assert set(labels.tolist()) == set(range(len(bank.identities)))


@pytest.mark.parametrize("textured", [0.0, 1.0])
def test_the_labelled_sprite_is_on_show_over_any_ground(bank, codec, textured):
    """At full size and in the middle, opaque pixels are the sprite's own, whatever lies behind."""
    settings = replace(CENTRED, textured=textured)
    frames, labels = Composites(bank, codec, settings, seed=4).draw(0, 12)
    middle = bank.size // 2 + 6  # below the wandering dot
    for frame, label in zip(frames, labels.tolist(), strict=True):
        pixel = torch.from_numpy(bank.frames_NHWC[bank.offsets[label], middle, middle].copy())
        if pixel[3] == 255:
            torch.testing.assert_close(frame[:, middle, middle], pixel[:3] / 127.5 - 1, atol=1e-3, rtol=0)


def test_textures_fill_the_range_with_more_than_one_colour():
    grounds = texture(30, 32, torch.Generator().manual_seed(0))
    assert grounds.shape == (30, 3, 32, 32)
    assert float(grounds.abs().max()) <= 1
    assert float(grounds.flatten(2).std(dim=2).mean(dim=1).min()) > 0.02


@pytest.mark.parametrize("kind", ["blurred", "coded", "toned", "grainy"])
def test_each_damage_changes_frames_and_none_changes_nothing(codec, kind):
    rng = torch.Generator().manual_seed(1)
    clean = torch.where(torch.rand(4, 3, 32, 32, generator=rng) < 0.5, -0.5, 0.5)
    assert torch.equal(damage(clean, codec, NONE, rng), clean)
    hurt = damage(clean, codec, replace(NONE, **{kind: 1.0}), rng)
    assert float((hurt - clean).abs().mean(dim=(1, 2, 3)).min()) > 1e-3
    assert float(hurt.abs().max()) <= 1
