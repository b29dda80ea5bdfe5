"""The pack that travels: what comes out is what went in, but for what WebP loses."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from kinema.core.errors import ConfigError, ModelError
from kinema.training.data import SpriteBank
from kinema.training.pack import PackSettings, decode_strip, encode_strip, straight, unpack, write_pack
from training_sprites import index, table

BEST = PackSettings(quality=95, alpha_quality=100, method=2)


@pytest.fixture
def pack(tmp_path):
    frames, facts = table(), index()
    strips = [encode_strip(frames[s["offset"] : s["offset"] + s["frames"]], BEST) for s in facts["sprites"]]
    write_pack(tmp_path / "sprites.zip", strips, facts)
    return tmp_path / "sprites.zip"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_pack_opens_as_the_bank_it_was_made_from(pack, tmp_path, workers):
    unpack(pack, tmp_path / "data", workers=workers)
    bank = SpriteBank.open(tmp_path / "data")
    assert bank.identities[0].name == "fox"
    assert bank.lengths.tolist() == [4, 4, 4, 1]
    assert np.abs(bank.frames_NHWC.astype(int) - table()).mean() < 2
    assert np.array_equal(bank.frames_NHWC[..., 3], table()[..., 3])


def test_unpacking_twice_decodes_once(pack, tmp_path):
    unpack(pack, tmp_path / "data")
    os.utime(tmp_path / "data/frames.npy", (1, 1))  # two writes may have one time
    unpack(pack, tmp_path / "data")
    assert (tmp_path / "data/frames.npy").stat().st_mtime == 1
    facts = json.loads((tmp_path / "data/sprites.json").read_text())
    (tmp_path / "data/sprites.json").write_text(json.dumps(facts | {"sha256": "other"}))
    unpack(pack, tmp_path / "data")
    assert (tmp_path / "data/frames.npy").stat().st_mtime != 1
    written = (tmp_path / "data/sprites.json").read_bytes()
    (tmp_path / "data/sprites.json").write_bytes(written[:-40])  # a kill on the way
    unpack(pack, tmp_path / "data")
    assert (tmp_path / "data/sprites.json").read_bytes() == written


def test_half_transparent_colours_survive():
    frames = np.zeros((2, 16, 16, 4), dtype=np.uint8)
    frames[:, 4:12, 4:12] = (100, 50, 0, 128)
    assert straight(frames)[0, 8, 8].tolist() == [199, 100, 0, 128]
    found = decode_strip(encode_strip(frames, BEST), 2)
    assert np.abs(found[:, 6:10, 6:10].astype(int) - [100, 50, 0, 128]).max() <= 4
    assert found[:, 0, 0].max() == 0


def test_what_is_no_pack_is_refused(tmp_path):
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="not a sprite pack"):
        unpack(tmp_path / "no.zip", tmp_path / "data")
    with pytest.raises(ConfigError, match="too long for a strip"):
        encode_strip(np.zeros((130, 128, 128, 4), dtype=np.uint8), BEST)
