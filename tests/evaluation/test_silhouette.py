"""Signatures that ignore place and size, and a gallery that finds the sprite it was shown."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from kinema.evaluation.identity import ranks
from kinema.evaluation.silhouette import FRAMES, Gallery, clearest, signatures
from kinema.training.data import render
from kinema.training.drawing import draw_scene
from kinema.training.grammar import Grammar


def still(bank, index, **changes):
    grammar = Grammar(gradient=0, moving=0, resized=0, held_out=0)
    scene = replace(draw_scene(Random(1), grammar, bank.identities), native="frozen", phase=0.0)
    scene = replace(scene, identity=bank.identities[index], start=(0, 0), end=(0, 0), scale=0.9, **changes)
    return scene, render(bank, [scene], frames=1, fps=8, size=bank.size)


def test_signature_hardly_depends_on_place_and_size(bank):
    _, centred = still(bank, 0)
    moved_scene, _ = still(bank, 0)
    moved_scene = replace(moved_scene, start=(0.3, -0.2), end=(0.3, -0.2), scale=0.6)
    moved = render(bank, [moved_scene], frames=1, fps=8, size=bank.size)
    _, other = still(bank, 1)
    same = (signatures(moved) - signatures(centred)).norm()
    assert same < 0.5 * (signatures(other) - signatures(centred)).norm()


@pytest.mark.parametrize("index", range(5))
def test_the_nearest_render_is_the_sprite_itself(bank, index):
    scene, frames = still(bank, index)
    gallery = Gallery(bank)
    distance = gallery.distances(frames, [scene])
    assert distance.shape == (1, 5)
    assert ranks(-distance, [index]).tolist() == [0]
    assert float(distance[0, index]) < 1e-3  # the very same phase is in the gallery


def test_frames_at_the_edge_are_passed_over():
    coverage = torch.zeros(9, 20, 20)
    for frame in range(9):
        coverage[frame, 8:12, max(0, 3 * frame - 6) : max(0, 3 * frame - 2)] = 1  # enters left, leaves right
    chosen = clearest(coverage)
    assert len(chosen) == FRAMES
    assert chosen == sorted(chosen)
    assert {0, 1} & set(chosen) == set()
