"""The image encoder of a Wan image-to-video checkpoint: CLIP's penultimate layer as image tokens.

An image is resized, cropped, and normalised per channel, `x = (pixel * rescale_factor - mean) / std`, then
run through CLIP's vision transformer; the tokens are the states before its last layer, class token first.
Equal to `WanImageToVideoPipeline.encode_image` of diffusers with transformers' Pillow image processor;
needs no torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models.pretrained import load_encoder
from kinema.models.weight_files import read_object, require_files

# OpenAI's CLIP statistics (Radford et al. 2021, arXiv:2103.00020), which preprocessor files may leave out.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparation:
    """How an image becomes CLIP's input; field names are those of `preprocessor_config.json`.

    Attributes:
        size: the shortest edge in pixels (aspect kept), or exact (height, width); None leaves the size.
        crop_size: (height, width) cut from the middle, black where the image is smaller; None cuts nothing.
        resample: Pillow's filter number; 3 is bicubic.
    """

    size: int | tuple[int, int] | None = 224
    crop_size: tuple[int, int] | None = (224, 224)
    resample: int = 3
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD

    @staticmethod
    def from_dict(config: Mapping[str, Any]) -> ImagePreparation:
        """Read a `preprocessor_config.json`; missing entries are CLIP's."""
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        if isinstance(size, Mapping):
            size = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
        crop = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
        normal = config.get("do_normalize", True)
        return ImagePreparation(
            size=size if config.get("do_resize", True) else None,
            crop_size=crop if config.get("do_center_crop", True) else None,
            resample=config.get("resample", 3),
            rescale_factor=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
            image_mean=tuple(config.get("image_mean", CLIP_MEAN)) if normal else (0.0, 0.0, 0.0),
            image_std=tuple(config.get("image_std", CLIP_STD)) if normal else (1.0, 1.0, 1.0),
        )

    def __call__(self, image_HWC: NDArray[np.uint8]) -> Tensor:
        """uint8 RGB of any size -> float32 `[C, H, W]`."""
        image = Image.fromarray(image_HWC)
        if self.size is not None:
            image = image.resize(self._resized(image.width, image.height), Image.Resampling(self.resample))
        if self.crop_size is not None:
            image = crop_centre(image, *self.crop_size)
        pixels_HWC = np.asarray(image).astype(np.float64) * self.rescale_factor
        normal_HWC = (pixels_HWC - np.array(self.image_mean)) / np.array(self.image_std)
        normal_CHW: Tensor = rearrange(torch.from_numpy(normal_HWC.astype(np.float32)), "H W C -> C H W")
        return normal_CHW

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the resize, the longer edge rounded down."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        assert self.size is not None
        longest = int(self.size * max(width, height) / min(width, height))
        return (self.size, longest) if width <= height else (longest, self.size)


def crop_centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle `height` x `width` pixels; of an odd margin, the larger half lies right and below."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


class CheckpointImageEncoder:
    """CLIP's vision transformer of a checkpoint, run by transformers."""

    def __init__(self, model: Any, prepare: ImagePreparation) -> None:
        self.model = model
        self.prepare = prepare

    @staticmethod
    def from_folder(
        folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> CheckpointImageEncoder:
        """Read `image_encoder/` (safetensors) and `image_processor/preprocessor_config.json`.

        Raises:
            ModelError: a file is missing, damaged, or a pickle.
        """
        folder = Path(folder)
        settings = folder / "image_processor" / "preprocessor_config.json"
        require_files(settings.parent, settings.name)
        try:
            prepare = ImagePreparation.from_dict(read_object(settings))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{settings} is not a CLIP image processor: {error!r}; get the file again."
            ) from error
        return CheckpointImageEncoder(
            load_encoder(folder / "image_encoder", "CLIPVisionModel", dtype, device), prepare
        )

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, images_HWC: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Image tokens `[B, N, D]` in the model's dtype, on its device; N counts the class token.

        Args:
            images_HWC: uint8 RGB images `[H, W, 3]`, each of any size.
        """
        pixels_BCHW = torch.stack([self.prepare(image) for image in images_HWC])
        pixels_BCHW = pixels_BCHW.to(self.model.device, self.model.dtype)
        tokens_BND: Tensor = self.model(pixel_values=pixels_BCHW, output_hidden_states=True).hidden_states[-2]
        return tokens_BND
