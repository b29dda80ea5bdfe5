"""The cache of caption states: as good as encoding at once, each caption encoded once."""

from __future__ import annotations

from pathlib import Path

import torch

import kinema
from kinema.models.text import EmbeddedTextEncoder, TextStates
from kinema.training.captions_cache import CaptionCache

ASSETS = Path(kinema.__file__).parent / "assets" / "embedded"


class Letters:
    """One state per letter, its code in every channel, with rubbish beyond the end."""

    def __init__(self):
        self.asked = []

    def encode(self, prompts):
        self.asked.append(list(prompts))
        longest = max(map(len, prompts)) + 2
        states = torch.full((len(prompts), longest, 4), 9e3)
        for k, prompt in enumerate(prompts):
            for i, letter in enumerate(prompt):
                states[k, i] = ord(letter)
        mask = torch.tensor([[i < len(p) for i in range(longest)] for p in prompts])
        return TextStates(states_KLD=states, mask_KL=mask, pooled_KD=states[:, 0])


def letters(states, k):
    return "".join(chr(int(code)) for code in states.states_KLD[k, states.mask_KL[k], 0])


def test_equals_direct_encoding():
    encoder = EmbeddedTextEncoder.from_folder(ASSETS)
    captions = ["a rooster on a blue background", "a fox", "", "a fox"]
    cache = CaptionCache(encoder)
    cache(captions[1:])  # so that the first call below finds some and not others
    found, direct = cache(captions), encoder.encode(captions)
    assert torch.equal(found.mask_KL, direct.mask_KL)
    real = direct.mask_KL[..., None]
    torch.testing.assert_close(found.states_KLD * real, direct.states_KLD * real, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(found.pooled_KD, direct.pooled_KD, atol=2e-3, rtol=2e-3)
    assert found.states_KLD.dtype == torch.float32


def test_a_captions_state_does_not_depend_on_what_it_came_with():
    encoder = EmbeddedTextEncoder.from_folder(ASSETS)
    warm, new = CaptionCache(encoder), CaptionCache(encoder)
    warm(["a rooster on a blue background", "two small yellow cats in front of a gradient from red to green"])
    batch = ["a fox", "a rooster on a blue background", "a red rocket flies up on a starry sky", ""]
    found, alone = warm(batch), new(batch)
    assert torch.equal(found.states_KLD, alone.states_KLD)
    assert torch.equal(found.pooled_KD, alone.pooled_KD)


def test_each_caption_is_encoded_once_and_order_is_kept():
    encoder = Letters()
    cache = CaptionCache(encoder)
    first = cache(["fox", "wolf", "fox"])
    second = cache(["hen", "wolf"])
    assert encoder.asked == [["fox"], ["wolf"], ["hen"]]
    assert [letters(first, k) for k in range(3)] == ["fox", "wolf", "fox"]
    assert [letters(second, k) for k in range(2)] == ["hen", "wolf"]
    assert first.states_KLD.shape == (3, 4, 4)
    assert (first.states_KLD[~first.mask_KL] == 0).all()


def test_a_full_cache_starts_over_without_losing_the_batch():
    encoder = Letters()
    cache = CaptionCache(encoder, capacity=3)
    cache(["fox", "wolf"])
    mixed = cache(["wolf", "hen", "owl"])
    assert [letters(mixed, k) for k in range(3)] == ["wolf", "hen", "owl"]
    assert set(cache.kept) == {"wolf", "hen", "owl"}
    large = cache(["a", "b", "c", "d", "e"])
    assert [letters(large, k) for k in range(5)] == list("abcde")
