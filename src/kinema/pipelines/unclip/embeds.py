"""What a Kandinsky decoder reads at each frame: embeddings of prompts and of pictures, mixed by their shares.

    z(f) = sum_k w_k(f) prior(prompt_k) + sum_p s_p(f) encoder(picture_p)

or, with `blend: slerp`, along arcs. The prior draws each prompt's embedding from the same noise, that of the
shot's seed, so that only the words tell two of them apart (Razzhigaev et al. 2023, Kandinsky).
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from kinema.core.runtime import generator
from kinema.io.image import read_image
from kinema.models.text import join
from kinema.pipelines.images.model import ImageModel
from kinema.pipelines.images.texts import mixed
from kinema.pipelines.plan import Plan, Prompts


class FrameEmbeds:
    """Embeddings `[1, D]` of both sides of the guidance, for any frame.

    Args:
        plan: whose prompts and look they are of.
        model: with its prior.
    """

    def __init__(self, plan: Plan, model: ImageModel) -> None:
        self.plan, self.model = plan, model
        with torch.inference_mode():
            self._pairs = [
                [self._from_words(text, other) for other in _texts(plan.negatives)]
                for text in _texts(plan.prompts)
            ]
            self._pictures = [] if plan.look is None else [self._seen(path) for path in plan.look.pictures]

    def at(self, frame: int) -> dict[str, Tensor]:
        """What the pipeline reads at a frame, by the names of its arguments."""
        prompts, negatives = (side.weights[frame] for side in (self.plan.prompts, self.plan.negatives))
        look = () if self.plan.look is None else self.plan.look.shares[frame]
        rest = 1 - sum(look)
        words = [
            (rest * share * other, self._pairs[k][j][0])
            for k, share in enumerate(prompts)
            for j, other in enumerate(negatives)
        ]
        # a prompt's negative embedding does not depend on the prompt
        against = [(share, self._pairs[0][j][1]) for j, share in enumerate(negatives)]
        return {
            "image_embeds": self._mixed(words + list(zip(look, self._pictures, strict=True))),
            "negative_image_embeds": self._mixed(against),
        }

    def _mixed(self, parts: list[tuple[float, Tensor]]) -> Tensor:
        used = [(share, value) for share, value in parts if share > 1e-9]
        if self.plan.sampling.blend == "slerp":
            found = mixed(used, "slerp")
        else:
            found = torch.stack([share * value for share, value in used]).sum(dim=0)
        return found.to(self.model.device, self.model.dtype)

    def _from_words(self, text: str, negative: str) -> tuple[Tensor, Tensor]:
        """By the prior: a prompt's embedding and its negative's; without one, that of a black picture."""
        found = self.model.prior(
            text,
            negative_prompt=negative or None,
            generator=generator(self.plan.sampling.seed, "prior"),
        )
        return found.image_embeds, found.negative_image_embeds

    def _seen(self, path: str) -> Tensor:
        """A picture's own embedding."""
        prior = self.model.prior
        pixels = prior.image_processor(Image.fromarray(read_image(path)), return_tensors="pt").pixel_values
        seen: Tensor = prior.image_encoder(pixels.to(self.model.device, self.model.dtype)).image_embeds
        return seen


def _texts(side: Prompts) -> list[str]:
    return [join(spans) for spans in side.spans]
