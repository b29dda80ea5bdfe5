"""Prompts as the transformer reads them: encoded once per clip, and shared out over latent frames.

Where two prompts can meet inside one frame, with weights `w[f, k]`:

    attention   sum_k w[f,k] attention(q_f, K_k, V_k)     inside every block (Wan's cross-attention, mixed)
    embedding   one prompt whose token states are the weighted means
    slerp       the same along arcs: every token's state keeps its length on the way
    velocity    sum_k w[f,k] v_k(x)                        one forward for each prompt
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import einsum
from torch import Tensor

from kinema.core.contracts import AttentionGuidance
from kinema.core.errors import NumericError
from kinema.diffusion.slerp import slerp
from kinema.models.careful import careful, finite
from kinema.models.condense import condense
from kinema.models.dit import Conditioning, Context, VideoDiT
from kinema.models.experts import ExpertContext, Experts
from kinema.models.text import TextStates
from kinema.pipelines.model import Model
from kinema.pipelines.plan import Prompts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One side of the guidance.

    Attributes:
        contexts: one, with the weights inside it; or, for the `velocity` blend, one for each prompt.
        shares_TK: of each context in each latent frame; None for a single context.
        given: what the contexts were prepared from.
    """

    contexts: tuple[Context | ExpertContext, ...]
    shares_TK: Tensor | None = None
    given: tuple[Conditioning, ...] = ()

    def at(self, frames: list[int]) -> Branch:
        """The same texts over these latent frames."""
        shares = None if self.shares_TK is None else self.shares_TK[frames]
        given = tuple(part.at(frames) for part in self.given)
        return Branch(tuple(context.at(frames) for context in self.contexts), shares, given)

    def led(self, negative: Branch, by: AttentionGuidance) -> Branch:
        """The same texts, from which attention is led away of a side of one context."""
        other, told = negative.contexts[0], negative.given[0]
        return replace(
            self,
            contexts=tuple(context.led(other, by) for context in self.contexts),  # type: ignore[arg-type]
            given=tuple(replace(part, negative=told, by=by) for part in self.given),
        )

    def skipping(self, blocks: frozenset[int]) -> Branch:
        """The same texts to a transformer without these blocks."""
        return replace(self, contexts=tuple(context.skipping(blocks) for context in self.contexts))

    def prepared(self, dit: VideoDiT | Experts) -> Branch:
        """The same texts, read once more by the transformer as it is now."""
        return replace(self, contexts=tuple(dit.prepare(part) for part in self.given))


def shares(prompts: Prompts, model: Model, context: int = 0) -> Tensor:
    """Each prompt's share of each latent frame `[T, K]`.

    Args:
        prompts: texts and their shares per latent frame.
        model: where the shares are wanted.
        context: frames of an earlier clip in front; they read what the first new frame reads.
    """
    weights_TK = torch.tensor(prompts.weights, dtype=torch.float32, device=model.device)
    return torch.cat([weights_TK[:1].expand(context, -1), weights_TK])


def branch_of(
    states: TextStates, weights_TK: Tensor, model: Model, *, blend: str, image_BND: Tensor | None = None
) -> Branch:
    """One side of the guidance, as the transformer reads it.

    Args:
        states: of K prompts.
        weights_TK: their shares per latent frame, rows with sum 1.
        model: reads them.
        blend: `attention`, `embedding`, `slerp` or `velocity`.
        image_BND: image tokens, for models that take them.
    """
    several = weights_TK.shape[1] > 1
    if several and blend == "velocity":
        parts = [_only(states, k) for k in range(weights_TK.shape[1])]
        several_given = tuple(_conditioning(part, None, image_BND) for part in parts)
        return Branch(tuple(map(model.dit.prepare, several_given)), weights_TK, several_given)
    if several and blend in ("embedding", "slerp"):
        states, weights_TK = mixed(states, weights_TK, arcs=blend == "slerp")
    given = _conditioning(states, weights_TK[None] if several else None, image_BND)
    return Branch((model.dit.prepare(given),), given=(given,))


def encoded(
    prompts: Prompts,
    model: Model,
    max_length: int | None = None,
    told: Callable[[str], None] | None = None,
) -> TextStates:
    """The states of each prompt; what overflows in half precision is encoded again in float32, and told.

    Raises:
        NumericError: they are not finite in float32 either.
    """
    limit = {} if max_length is None else {"max_length": max_length}
    states = model.text.encode(prompts.spans, **limit)
    if finite(states.states_KLD):
        return states
    with careful(getattr(model.text, "model", None)) as watch:
        states = model.text.encode(prompts.spans, **limit)
    if not finite(states.states_KLD):
        raise NumericError(
            f"the text encoder's states are not finite, in float32 either; it began {watch.place}. "
            "Get the text encoder's files again."
        )
    (told or log.warning)("the prompt's states were not finite and were computed again in float32.")
    return states


def _conditioning(states: TextStates, weights_BTK: Tensor | None, image_BND: Tensor | None) -> Conditioning:
    states_KLD, bias_KL = states.for_attention()
    return condense(
        Conditioning(
            states_BKLD=states_KLD[None],
            bias_BKL=None if bias_KL is None else bias_KL[None],
            weights_BTK=weights_BTK,
            pooled_BKD=None if states.pooled_KD is None else states.pooled_KD[None],
            image_BND=image_BND,
        )
    )


def _only(states: TextStates, k: int) -> TextStates:
    """One of the prompts."""
    return TextStates(
        states_KLD=states.states_KLD[k : k + 1],
        mask_KL=states.mask_KL[k : k + 1],
        pooled_KD=None if states.pooled_KD is None else states.pooled_KD[k : k + 1],
        bias_KL=None if states.bias_KL is None else states.bias_KL[k : k + 1],
        pad_count_K=None if states.pad_count_K is None else states.pad_count_K[k : k + 1],
    )


def mixed(states: TextStates, weights_TK: Tensor, *, arcs: bool = False) -> tuple[TextStates, Tensor]:
    """Prompts mixed token by token: one new prompt for each distinct row of weights, and who uses which.

    Where a prompt has no token, a model that attends to zero rows (Wan) reads a zero there, as if padded
    embeddings were mixed; a model that masks them reads the mean of the others, with their share of the
    attention. Either way a prompt whose weight goes to 0 vanishes without a jump. `arcs` turns every token
    from prompt to prompt instead of averaging, so that its state keeps its length.

    Returns:
        R mixed prompts, and one-hot weights `[T, R]` of them.
    """
    rows_RK, which_T = torch.unique(weights_TK, dim=0, return_inverse=True)
    padded = states.pad_count_K is not None and bool((states.pad_count_K > 0).any())
    present_KL = torch.ones_like(states.mask_KL) if padded else states.mask_KL
    share_RKL = rows_RK[:, :, None] * present_KL
    total_RL1 = share_RKL.sum(dim=1)[:, :, None].clamp(min=torch.finfo(torch.float32).tiny)
    mean_RLD = einsum(share_RKL, states.states_KLD.float(), "R K L, K L D -> R L D") / total_RL1
    pooled_RD = None if states.pooled_KD is None else rows_RK.to(states.pooled_KD) @ states.pooled_KD
    if arcs:
        mean_RLD = _turned(states.states_KLD.float(), share_RKL)
        if states.pooled_KD is not None:
            pooled_RD = _turned(states.pooled_KD[:, None], rows_RK[:, :, None])[:, 0]
    plain_KL = torch.zeros_like(states.mask_KL, dtype=torch.float32)
    bias_KL = plain_KL if states.bias_KL is None else states.bias_KL
    mask_RL = ((rows_RK[:, :, None] > 0) & states.mask_KL).any(dim=1)
    bias_RL = einsum(share_RKL, bias_KL.exp(), "R K L, K L -> R L").log().masked_fill(~mask_RL, 0.0)
    prompts = TextStates(
        states_KLD=mean_RLD.to(states.states_KLD) * mask_RL[:, :, None],
        mask_KL=mask_RL,
        pooled_KD=pooled_RD,
        bias_KL=_exact(bias_RL),
        pad_count_K=_padding(states, mask_RL) if padded else None,
    )
    return prompts, torch.nn.functional.one_hot(which_T, len(rows_RK)).to(weights_TK)


def _turned(states_KLD: Tensor, share_RKL: Tensor) -> Tensor:
    """From prompt to prompt along arcs, each by its share of those so far; `[R, L, D]`."""
    rows = len(share_RKL)
    turned_RLD, total_RL = states_KLD[0].expand(rows, -1, -1), share_RKL[:, 0]
    for state_LD, share_RL in zip(states_KLD[1:], share_RKL.unbind(dim=1)[1:], strict=True):
        total_RL = total_RL + share_RL
        t_RL1 = (share_RL / total_RL.clamp(min=torch.finfo(torch.float32).tiny))[:, :, None]
        turned_RLD = slerp(turned_RLD, state_LD.expand(rows, -1, -1), t_RL1, dims=(2,))
    return turned_RLD


def _exact(bias_RL: Tensor) -> Tensor:
    """0 where rounding left next to nothing, so that plain prompts need no attention mask."""
    return torch.where(bias_RL.abs() < 1e-6, torch.zeros_like(bias_RL), bias_RL)


def _padding(states: TextStates, mask_RL: Tensor) -> Tensor:
    """Zero rows after the tokens of each mixed prompt, so that the length stays what the model knows."""
    assert states.pad_count_K is not None
    return states.pad_count_K[0] + states.mask_KL[0].sum() - mask_RL.sum(dim=1)
