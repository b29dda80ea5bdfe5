"""Five tiny sprites that differ in shape and colour, each with a dot that wanders while it plays."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kinema.evaluation.identity import IdentityJudge, IdentityNet, IdentityNetConfig, settle
from kinema.training.data import ClipSource, SpriteBank
from kinema.training.grammar import Grammar

SIZE, LOOP = 32, 4
NAMES = ("disc", "square", "cross", "ring", "stairs")


def shapes():
    """One boolean mask `[SIZE, SIZE]` per name."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x, y)
    cross = ((abs(x) < 4) | (abs(y) < 4)) & (radius < 13)
    stairs = (np.floor(x / 5) + np.floor(y / 5) > 0) & (abs(x) < 12) & (abs(y) < 12)
    return radius < 12, (abs(x) < 10) & (abs(y) < 10), cross, (radius < 13) & (radius > 7), stairs


def make_bank(folder):
    inks = [(200, 30, 40), (40, 60, 220), (30, 160, 60), (240, 200, 40), (150, 60, 180)]
    frames = np.zeros((len(NAMES) * LOOP, SIZE, SIZE, 4), dtype=np.uint8)
    for index, (mask, ink) in enumerate(zip(shapes(), inks, strict=True)):
        for moment in range(LOOP):
            frame = frames[index * LOOP + moment]
            frame[mask] = (*ink, 255)
            column = 8 + 4 * moment
            frame[14:18, column : column + 4][mask[14:18, column : column + 4]] = (255, 255, 255, 255)
    np.save(folder / "frames.npy", frames)
    sprites = [
        {"name": name, "tags": [], "offset": LOOP * index, "frames": LOOP} for index, name in enumerate(NAMES)
    ]
    (folder / "sprites.json").write_text(json.dumps({"fps": 8, "sha256": "ab", "sprites": sprites}))
    return SpriteBank.open(folder)


@pytest.fixture(scope="session")
def bank(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("sprites"))


@pytest.fixture(scope="session")
def judge(bank):
    """An identity net that a few seconds taught the five sprites."""
    torch.manual_seed(0)
    net = IdentityNet(IdentityNetConfig(classes=len(NAMES), size=SIZE, widths=(8, 16, 24, 32)))
    source = ClipSource(bank, Grammar(moving=0, resized=0.5), frames=1, fps=8, size=SIZE, seed=1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(60):
        frames_BCFHW, _, scenes = source.draw(24)
        labels_B = torch.tensor([scene.identity.index for scene in scenes])
        loss = torch.nn.functional.cross_entropy(net(frames_BCFHW[:, :, 0]), labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    settle(net, (source.draw(24)[0][:, :, 0] for _ in range(8)))
    return IdentityJudge(net, NAMES)
