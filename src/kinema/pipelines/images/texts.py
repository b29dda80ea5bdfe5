"""Prompts of a diffusers image model, encoded once and mixed for any frame.

    embedding   sum_k w_k z_k              token by token
    slerp       the arc from z_a to z_b    token by token, each at its own angle

A whole-tensor arc would be ruled by the padding behind the words. Weighted words are moved away from what the
encoder says to an empty prompt at their place: e + w (z - e), as is usual for these models. Where LoRAs
change the encoders, by scales that run over frames, prompts are encoded anew for each scale, but for what T5
makes of them: LoRAs leave it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.diffusion.slerp import slerp
from kinema.models.text import join, log_weights
from kinema.pipelines.images.loras import ImageLoras, Scales
from kinema.pipelines.images.model import ImageModel
from kinema.pipelines.plan import Prompts, Spans

Embeds = Mapping[str, Tensor]
CACHED = 8  # encoded prompts beside one of each, where the scales of LoRAs change


class ImageTexts:
    """One side of the guidance.

    Args:
        prompts: texts and their shares per frame.
        model: encodes them.
        blend: `embedding` or `slerp`.
        zeros: an empty text is all zeros, as the checkpoint was trained on its negative side.
        loras: which change the encoders, from frame to frame by other scales; None for none.
    """

    def __init__(
        self,
        prompts: Prompts,
        model: ImageModel,
        *,
        blend: str,
        zeros: bool = False,
        loras: ImageLoras | None = None,
    ) -> None:
        self.prompts, self.model, self.blend, self.zeros = prompts, model, blend, zeros
        self._loras = loras
        self._by_t5: dict[str, Tensor] = {}
        self._embeds = lru_cache(len(prompts.spans) + CACHED)(self._read)
        for index in range(len(prompts.spans)):
            self._embeds(index, self._scales(0))

    def at(self, frame: int) -> Embeds:
        """What the pipeline reads at a frame, by the names of its arguments."""
        scales, shares = self._scales(frame), self.prompts.weights[frame]
        used = [(share, self._embeds(index, scales)) for index, share in enumerate(shares) if share > 0]
        return {
            name: mixed([(share, embeds[name]) for share, embeds in used], self.blend) for name in used[0][1]
        }

    def _scales(self, frame: int) -> Scales:
        return () if self._loras is None else self._loras.text_scales(frame)

    def _read(self, index: int, scales: Scales) -> Embeds:
        """A prompt by the encoders with their LoRAs on at these scales."""
        worn = nullcontext() if self._loras is None else self._loras.on_texts(scales)
        with torch.inference_mode(), worn, _remembered(self.model.pipe, self._by_t5):
            return self._weighted(self.prompts.spans[index])

    def _weighted(self, spans: Spans) -> Embeds:
        text = join(spans)
        if self.zeros and not text:
            return {name: torch.zeros_like(value) for name, value in self._encoded("").items()}
        embeds = self._encoded(text)
        if all(weight == 1.0 for _, weight in spans):
            return embeds
        plain = self._encoded("")["prompt_embeds"]
        states = embeds["prompt_embeds"]
        weight_1L1 = self._token_weights(spans, states.shape[1]).to(states)[None, :, None]
        moved = torch.where(weight_1L1 == 1, states, plain + weight_1L1 * (states - plain))
        return {**embeds, "prompt_embeds": moved}

    def _encoded(self, text: str) -> Embeds:
        kind, pipe = self.model.kind, self.model.pipe
        options: dict[str, Any] = {"device": self.model.device, "num_images_per_prompt": 1}
        if "_" in kind.encoded[:2]:
            options["do_classifier_free_guidance"] = False
        if kind.name == "StableDiffusionPipeline":
            found = pipe.encode_prompt(text, **options)
        elif kind.name == "StableDiffusion3Pipeline":
            found = pipe.encode_prompt(prompt=text, prompt_2=None, prompt_3=None, **options)
        else:
            found = pipe.encode_prompt(prompt=text, prompt_2=None, **options)
        return {name: value for name, value in zip(kind.encoded, found, strict=True) if name != "_"}

    def _token_weights(self, spans: Spans, length: int) -> Tensor:
        """Of the rows of the prompt's embedding: the start token, the words, then padding."""
        tokenizer = self.model.pipe.tokenizer
        if not tokenizer.is_fast:
            raise ConfigError(
                f"weights of words need a fast tokenizer, which {self.model.card.id!r} has not; "
                "write the prompt without them."
            )
        found = tokenizer(join(spans), truncation=True, max_length=length, return_offsets_mapping=True)
        weights = torch.tensor(log_weights(spans, found["offset_mapping"])).exp()
        return torch.cat([weights, torch.ones(length - len(weights))])


@contextmanager
def _remembered(pipe: Any, states: dict[str, Tensor]) -> Iterator[None]:
    """A pipeline whose T5, where it has one, reads each text once."""
    own = getattr(pipe, "_get_t5_prompt_embeds", None)
    if own is None:
        yield
        return

    def once(*args: Any, **options: Any) -> Tensor:
        asked = repr((args, sorted(options.items())))
        if asked not in states:
            states[asked] = own(*args, **options)
        return states[asked]

    pipe._get_t5_prompt_embeds = once
    try:
        yield
    finally:
        del pipe._get_t5_prompt_embeds


def mixed(parts: list[tuple[float, Tensor]], blend: str) -> Tensor:
    """By shares with sum 1; arcs are taken from prompt to prompt, each by its share of those so far."""
    total, mixed = parts[0]
    for share, value in parts[1:]:
        total += share
        if blend == "slerp":
            mixed = slerp(mixed, value, share / total, dims=(mixed.ndim - 1,))
        else:
            mixed = torch.lerp(mixed, value, share / total)
    return mixed
