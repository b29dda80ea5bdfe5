"""Mixed prompts: means of padded embeddings where a model reads padding, shares of attention elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kinema.models.attention import attend
from kinema.models.text import TextStates
from kinema.pipelines.texts import mixed

LENGTHS = (5, 3)
TOTAL = 12


@pytest.fixture
def states() -> TextStates:
    """Two prompts of 5 and 3 tokens."""
    g = torch.Generator().manual_seed(0)
    mask_KL = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return TextStates(
        states_KLD=torch.randn(2, 5, 8, generator=g) * mask_KL[:, :, None],
        mask_KL=mask_KL,
        pooled_KD=torch.randn(2, 8, generator=g),
    )


def padded(states: TextStates) -> TextStates:
    return TextStates(states.states_KLD, states.mask_KL, pad_count_K=TOTAL - torch.tensor(LENGTHS))


def read(states: TextStates, row: int) -> torch.Tensor:
    """What cross-attention makes of one prompt."""
    g = torch.Generator().manual_seed(1)
    q, to_k, to_v = (torch.randn(*shape, generator=g) for shape in ((1, 1, 4, 8), (8, 8), (8, 8)))
    states_KMD, bias_KM = states.for_attention()
    text = states_KMD[row][None, None]
    bias = None if bias_KM is None else bias_KM[row : row + 1]
    return attend(q, text @ to_k, text @ to_v, bias)


def test_padded_prompts_mix_as_their_padded_embeddings(states):
    weights_TK = torch.tensor([[0.25, 0.75]])
    found, _ = mixed(padded(states), weights_TK)
    full_KLD = F.pad(states.states_KLD, (0, 0, 0, TOTAL - 5))
    mean_LD = torch.einsum("k,kld->ld", weights_TK[0], full_KLD)
    expected = TextStates(mean_LD[None], torch.ones(1, TOTAL, dtype=torch.bool))
    torch.testing.assert_close(read(found, 0), read(expected, 0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pads", [True, False])
def test_pure_rows_are_the_prompts_themselves(states, pads):
    given = padded(states) if pads else states
    found, onehot_TR = mixed(given, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert onehot_TR.tolist() in ([[1, 0], [0, 1], [1, 0]], [[0, 1], [1, 0], [0, 1]])
    for frame, prompt in ((0, 0), (1, 1)):
        row = int(onehot_TR[frame].argmax())
        torch.testing.assert_close(read(found, row), read(given, prompt), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pads", [True, False])
def test_a_prompt_that_fades_vanishes_without_a_jump(states, pads):
    given = padded(states) if pads else states
    found, onehot_TR = mixed(given, torch.tensor([[1e-5, 1 - 1e-5]]))
    assert onehot_TR.tolist() == [[1]]
    assert (read(found, 0) - read(given, 1)).abs().max() < 1e-3


def test_token_weights_mix_like_states(states):
    bias_KL = torch.zeros(2, 5)
    bias_KL[0, 1], bias_KL[1, 1], bias_KL[0, 2] = torch.tensor([2.0, 0.5, 0.0]).log()
    given = TextStates(states.states_KLD, states.mask_KL, bias_KL=bias_KL)
    found, _ = mixed(given, torch.tensor([[0.5, 0.5]]))
    assert found.bias_KL is not None
    # both present: the mean weight; one hidden: half; one absent: half
    torch.testing.assert_close(found.bias_KL.exp()[0], torch.tensor([1, 1.25, 0.5, 0.5, 0.5]))
    torch.testing.assert_close(found.states_KLD[0, 4], states.states_KLD[0, 4])


def test_pooled_states_mix_as_the_model_mixes_them(states):
    found, _ = mixed(states, torch.tensor([[0.25, 0.75]]))
    assert states.pooled_KD is not None
    torch.testing.assert_close(found.pooled_KD, 0.25 * states.pooled_KD[:1] + 0.75 * states.pooled_KD[1:])


def test_along_arcs_tokens_keep_their_length_and_ends_stay(states):
    found, onehot_TR = mixed(states, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), arcs=True)
    straight, _ = mixed(states, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    row = onehot_TR.argmax(dim=1)
    for t in (0, 2):
        assert torch.equal(found.states_KLD[row[t]], straight.states_KLD[row[t]])
    both = states.mask_KL.all(dim=0)
    lengths = [values.states_KLD[row[1]][both].norm(dim=-1) for values in (found, straight)]
    ends = states.states_KLD[:, both].norm(dim=-1).mean(dim=0)
    assert torch.allclose(lengths[0], ends, rtol=1e-3)
    assert bool((lengths[1] < ends * 0.999).all())
