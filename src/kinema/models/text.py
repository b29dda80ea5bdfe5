"""Text encoders: prompts of weighted spans in, token states for cross-attention out.

A prompt is a string, or spans `(text, weight)` whose texts are joined as they are. A weight w acts where
the prompt is used: log(w) is added to the cross-attention logits of the span's tokens,

    attention_l ~ w_l exp(q k_l / sqrt(d)),

which is what w copies of the token would do; w = 0 removes it. Token states themselves are those of the
plain text.

Two encoders give the same `TextStates`: the embedded model's MiniLM, and the UMT5 of a Wan checkpoint.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from tokenizers import Tokenizer
from torch import Tensor

from kinema.core.errors import ConfigError, ModelError
from kinema.models.config_values import check_code
from kinema.models.minilm import MiniLM
from kinema.models.pretrained import load_encoder
from kinema.models.tokenizer import JsonTokenizer, pad_token, readable
from kinema.models.umt5 import UMT5Encoder, known
from kinema.models.weight_files import read_object, require_files
from kinema.models.weights import read_config

log = logging.getLogger(__name__)

Span = tuple[str, float]
Prompt = str | Sequence[Span]


@dataclass(frozen=True, slots=True, eq=False)
class TextStates:
    """K encoded prompts, padded on the right to the longest.

    Attributes:
        states_KLD: token states `[K, L, D]`, zero where `mask_KL` is false.
        mask_KL: bool, true for real tokens.
        pooled_KD: one unit vector per prompt, or None where the encoder has no such state.
        bias_KL: float32 log-weights of the tokens, 0 where the weight is 1; None means all 0.
        pad_count_K: int64, how many zero rows a model expects after each prompt's tokens; None means none.

    Wan's transformer attends, without a mask, to 512 rows: the real tokens, then zeros. All zero rows give
    the same key k_0 and value v_0, so n of them add n exp(q k_0) to the softmax: exactly what *one* zero
    row with bias log(n) adds. `for_attention` appends that row; 30 tokens then cost 31 keys, not 512.
    """

    states_KLD: Tensor
    mask_KL: Tensor
    pooled_KD: Tensor | None = None
    bias_KL: Tensor | None = None
    pad_count_K: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextStates:
        """The same on another device; states (not biases) in another dtype."""
        return replace(
            self,
            states_KLD=self.states_KLD.to(device, dtype),
            mask_KL=self.mask_KL.to(device),
            pooled_KD=None if self.pooled_KD is None else self.pooled_KD.to(device, dtype),
            bias_KL=None if self.bias_KL is None else self.bias_KL.to(device),
            pad_count_K=None if self.pad_count_K is None else self.pad_count_K.to(device),
        )

    def for_attention(self) -> tuple[Tensor, Tensor | None]:
        """What cross-attention needs: states `[K, M, D]` and float32 biases of their logits `[K, M]`.

        M is L, plus one row where `pad_count_K` has entries above 0. The bias is -inf for padding and for
        tokens of weight 0, and None when every entry would be 0.
        """
        weights_KL = (
            torch.zeros_like(self.mask_KL, dtype=torch.float32) if self.bias_KL is None else self.bias_KL
        )
        bias_KM, states_KMD = weights_KL.masked_fill(~self.mask_KL, -math.inf), self.states_KLD
        if self.pad_count_K is not None and bool((self.pad_count_K > 0).any()):
            count_K1 = rearrange(self.pad_count_K, "K -> K 1")
            bias_KM = torch.cat([bias_KM, count_K1.float().log()], dim=1)  # log(0) = -inf: no row
            states_KMD = F.pad(states_KMD, (0, 0, 0, 1))
        return states_KMD, bias_KM if bool((bias_KM != 0).any()) else None


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised prompt: ids and log-weights, special tokens included."""

    ids: list[int]
    log_weights: list[float]


class EmbeddedTextEncoder:
    """The embedded model's text encoder: MiniLM-L6 and its WordPiece tokenizer, without transformers.

    Padding is masked everywhere, so a prompt's states do not depend on its neighbours in the batch.
    """

    def __init__(self, model: MiniLM, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @staticmethod
    def from_folder(folder: str | Path, device: torch.device | str = "cpu") -> EmbeddedTextEncoder:
        """Read `text_encoder/` and `tokenizer/tokenizer.json` of the embedded model's folder.

        Raises:
            ModelError: a file is missing or damaged.
        """
        folder = Path(folder)
        require_files(folder / "tokenizer", "tokenizer.json")
        path = folder / "tokenizer" / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises that very class
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path} is no tokenizer: {reason}; get it again.") from None
        return EmbeddedTextEncoder(MiniLM.from_folder(folder / "text_encoder").to(device), tokenizer)

    @property
    def width(self) -> int:
        """Channels of a token state."""
        return self.model.config.hidden_size

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt], max_length: int | None = None) -> TextStates:
        """Token states of K prompts.

        Args:
            prompts: strings or weighted spans; an empty one gives the states of `[CLS] [SEP]`.
            max_length: tokens kept of a prompt, 2 to the model's positions (the default).

        Returns:
            float32 states on the model's device. `pooled_KD` is MiniLM's sentence vector, the mean over
            tokens (counted by their weights) scaled to unit length.

        Raises:
            ConfigError: a weight is negative or not finite, or `max_length` is out of range.
        """
        most = self.model.config.max_position_embeddings
        length = most if max_length is None else max_length
        _check_length(length, 2, most)
        tokens = [self._tokenise(check_spans(prompt), length) for prompt in prompts]
        device = self.model.embeddings.word_embeddings.weight.device
        ids_KL, mask_KL, bias_KL = collate(tokens, pad=self._special("[PAD]"), device=device)
        states_KLD = self.model(ids_KL, mask_KL) * mask_KL[:, :, None]
        share_KL1 = rearrange(bias_KL.exp() * mask_KL, "K L -> K L 1")
        return TextStates(
            states_KLD=states_KLD,
            mask_KL=mask_KL,
            pooled_KD=F.normalize((states_KLD * share_KL1).sum(dim=1), dim=-1),
            bias_KL=bias_KL,
            pad_count_K=torch.zeros(len(tokens), dtype=torch.int64, device=device),
        )

    def _tokenise(self, spans: Sequence[Span], max_length: int) -> Tokens:
        found = self.tokenizer.encode(join(spans), add_special_tokens=False)
        kept = _truncate(found.ids, max_length - 2, join(spans))
        weights = log_weights(spans, found.offsets[: len(kept)])
        return Tokens([self._special("[CLS]"), *kept, self._special("[SEP]")], [0.0, *weights, 0.0])

    def _special(self, name: str) -> int:
        number: int | None = self.tokenizer.token_to_id(name)
        if number is None:
            raise ModelError(f"the embedded tokenizer has no {name} token; install kinema again.")
        return number


class CheckpointTextEncoder:
    """The UMT5 encoder of a Wan checkpoint, run on the true length of each prompt.

    Equal to the prompt states of diffusers' `WanPipeline`, whose zero rows up to `max_length` are counted in
    `TextStates.pad_count_K` and not stored.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @staticmethod
    def from_folder(
        folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> CheckpointTextEncoder:
        """Read `text_encoder/` (UMT5, safetensors) and `tokenizer/` of a checkpoint in diffusers' layout.

        Raises:
            ModelError: a file is missing, damaged, or a pickle.
        """
        folder = Path(folder)
        tokenizer = load_tokenizer(folder / "tokenizer")
        encoder = folder / "text_encoder"
        if known(read_config(encoder)):
            return CheckpointTextEncoder(UMT5Encoder.from_folder(encoder, dtype, device), tokenizer)
        return CheckpointTextEncoder(load_encoder(encoder, "UMT5EncoderModel", dtype, device), tokenizer)

    @property
    def width(self) -> int:
        """Channels of a token state."""
        return int(self.model.config.d_model)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its states."""
        return self.model.dtype

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt], max_length: int = 512) -> TextStates:
        """Token states of K prompts, cleaned as diffusers' `prompt_clean` does (`clean_spans`).

        Args:
            prompts: strings or weighted spans; an empty one gives the state of the end token.
            max_length: rows that the transformer was trained on; longer prompts are cut.

        Returns:
            States in the model's dtype on its device; `pad_count_K` is `max_length` less a prompt's tokens.

        Raises:
            ConfigError: a weight is negative or not finite, or `max_length` is below 1.
        """
        _check_length(max_length, 1, None)
        tokens = [self._tokenise(clean_spans(check_spans(prompt)), max_length) for prompt in prompts]
        ids_KL, mask_KL, bias_KL = collate(tokens, pad=self.tokenizer.pad_token_id or 0, device=self.device)
        hidden_KLD = self.model(ids_KL, attention_mask=mask_KL.long()).last_hidden_state
        return TextStates(
            states_KLD=hidden_KLD.to(self.dtype) * mask_KL[:, :, None],
            mask_KL=mask_KL,
            bias_KL=bias_KL,
            pad_count_K=max_length - mask_KL.sum(dim=1),
        )

    def _tokenise(self, spans: Sequence[Span], max_length: int) -> Tokens:
        if self.tokenizer.is_fast:
            found = self.tokenizer(join(spans), return_offsets_mapping=True)
            ids, weights = found["input_ids"], log_weights(spans, found["offset_mapping"])
        else:  # no offsets: the spans' tokens are known by tokenising each span alone
            ids, weights = self._tokenise_apart(spans)
        end = len(self.tokenizer("")["input_ids"])  # special tokens, which T5 puts last
        kept = _truncate(ids[: len(ids) - end], max_length - end, join(spans))
        return Tokens(kept + ids[len(ids) - end :], weights[: len(kept)] + [0.0] * end)

    def _tokenise_apart(self, spans: Sequence[Span]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in spans:
            found = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += found
            weights += [_log(weight)] * len(found)
        end = self.tokenizer("")["input_ids"]
        return ids + end, weights + [0.0] * len(end)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint, transformers' unless a `tokenizer.json` says all there is.

    Raises:
        ModelError: a file is missing or damaged.
    """
    require_files(folder, "tokenizer_config.json")
    config = read_object(folder / "tokenizer_config.json")
    check_code(config, folder / "tokenizer_config.json")
    try:
        if readable(folder, config):
            return JsonTokenizer(folder / "tokenizer.json", pad_token(config))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what those libraries raise about a stranger's file has many classes
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} does not load as a tokenizer: {reason}; get the folder again.") from error


def check_spans(prompt: Prompt) -> tuple[Span, ...]:
    """A prompt as spans; neighbours of one weight become one, so that plain spans read as a string.

    Raises:
        ConfigError: a weight is negative, infinite or not a number.
    """
    merged: list[Span] = []
    for text, weight in [(prompt, 1.0)] if isinstance(prompt, str) else prompt:
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(
                f"prompt weight {weight} of {text!r} is not a finite number >= 0; 1 is neutral."
            )
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return tuple(merged)


def clean_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Repaired encoding, HTML entities resolved, runs of white space as one space, none at the ends.

    The joined text of one span equals diffusers' `prompt_clean` (pipelines/wan/pipeline_wan.py).
    """
    import html  # only prompts of checkpoints need these

    import ftfy

    cleaned: list[Span] = []
    after_space = True
    for text, weight in spans:
        fixed = re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))))
        fixed = fixed.lstrip() if after_space else fixed
        if fixed:
            cleaned.append((fixed, weight))
            after_space = fixed.endswith(" ")
    if cleaned:
        cleaned[-1] = (cleaned[-1][0].rstrip(), cleaned[-1][1])
    return tuple(cleaned)


def join(spans: Sequence[Span]) -> str:
    """The text that is tokenised."""
    return "".join(text for text, _ in spans)


def log_weights(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> list[float]:
    """The log-weight of each token, given the characters `[start, end)` of the joined text that it covers.

    A token across spans takes the mean weight of its characters. White space does not count, as
    sentencepiece puts the space before a word into the word's token. A special token covers nothing and has
    weight 1.
    """
    text = join(spans)
    weights = [weight for part, weight in spans for _ in part]
    logs = []
    for start, end in offsets:
        inked = [i for i in range(start, end) if not text[i].isspace()] or list(range(start, end))
        logs.append(_log(sum(weights[i] for i in inked) / len(inked)) if inked else 0.0)
    return logs


def collate(tokens: Sequence[Tokens], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and log-weights of K prompts, `[K, L]` each, padded on the right to the longest."""
    longest = max(len(prompt.ids) for prompt in tokens)
    gaps = [longest - len(prompt.ids) for prompt in tokens]
    ids = [prompt.ids + [pad] * gap for prompt, gap in zip(tokens, gaps, strict=True)]
    mask = [[True] * len(prompt.ids) + [False] * gap for prompt, gap in zip(tokens, gaps, strict=True)]
    bias = [prompt.log_weights + [0.0] * gap for prompt, gap in zip(tokens, gaps, strict=True)]
    return (
        torch.tensor(ids, device=device),
        torch.tensor(mask, device=device),
        torch.tensor(bias, dtype=torch.float32, device=device),
    )


def _log(weight: float) -> float:
    return math.log(weight) if weight > 0 else -math.inf


def _truncate(ids: list[int], most: int, text: str) -> list[int]:
    if len(ids) > most:
        log.warning("prompt of %d tokens cut to %d: %r...", len(ids), most, text[:60])
    return ids[:most]


def _check_length(length: int, least: int, most: int | None) -> None:
    if length < least or (most is not None and length > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(f"max_length={length} is out of range; this text encoder takes {limit} tokens.")
