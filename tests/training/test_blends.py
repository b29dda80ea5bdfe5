"""Blends of finished weights: means by shares, from checkpoints and packed folders alike."""

import pytest
import torch
from safetensors.torch import save_file

from kinema.core.errors import ConfigError, ModelError
from kinema.training.blends import blend, finished, read_blend


@pytest.fixture
def checkpoint(tmp_path):
    """A run's file: weights as they are, their averages, a moment."""
    path = tmp_path / "run.safetensors"
    tensors = {
        "model/a": torch.full((2,), 9.0),
        "average/a": torch.tensor([1.0, 2.0]),
        "moment/0": torch.ones(1),
    }
    save_file(tensors, path, {"state": '{"step": 3}'})
    return path


@pytest.fixture
def packed(tmp_path):
    """A model's folder with half-precision weights."""
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    weights = {"a": torch.tensor([3.0, 6.0]).half()}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return folder


def test_finished_weights_are_a_runs_averages_and_a_folders_own(checkpoint, packed):
    assert finished(checkpoint)["a"].tolist() == [1.0, 2.0]
    assert list(finished(checkpoint)) == ["a"]
    assert finished(packed)["a"].dtype == torch.float32
    assert read_blend(str(packed))["a"].tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0.5, 0.5), [2.0, 4.0]), ((3, 1), [1.5, 3.0]), ((1, 0), [1.0, 2.0]), ((-0.5, 1.5), [4.0, 8.0])],
)
def test_a_blend_is_the_mean_by_shares(checkpoint, packed, shares, expected):
    text = f"{checkpoint}:{shares[0]}+{packed}:{shares[1]}"
    assert read_blend(text)["a"].tolist() == expected


def test_what_cannot_be_blended_is_told(checkpoint, packed, tmp_path):
    with pytest.raises(ConfigError, match="add up to 0"):
        read_blend(f"{checkpoint}:1+{packed}:-1")
    with pytest.raises(ConfigError, match=r"has no share; write FILE:SHARE"):
        read_blend(f"{checkpoint}:0.5+{packed}:half")
    with pytest.raises(ConfigError, match="different shapes"):
        blend([({"a": torch.ones(2)}, 1.0), ({"a": torch.ones(3)}, 1.0)])
    with pytest.raises(ConfigError, match="different shapes"):
        blend([({"a": torch.ones(2)}, 1.0), ({"b": torch.ones(2)}, 1.0)])
    with pytest.raises(ModelError, match="there is no checkpoint"):
        finished(tmp_path / "none.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no averaged weights"):
        finished(tmp_path / "other.safetensors")


@pytest.mark.parametrize("share", ["nan", "inf", ""])
def test_a_share_that_is_no_number_makes_no_weights(checkpoint, packed, share):
    with pytest.raises(ConfigError, match="has no share"):
        read_blend(f"{checkpoint}:1+{packed}:{share}")


def test_a_name_with_a_plus_is_one_file(checkpoint):
    path = checkpoint.rename(checkpoint.with_name("a+b:1.safetensors"))
    assert read_blend(str(path))["a"].tolist() == [1.0, 2.0]
