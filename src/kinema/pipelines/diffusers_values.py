"""What callers of diffusers pass and get: pictures in memory, prompts, generators, frames as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.pipelines.render import to_uint8
from kinema.story.shot import Keyframe

Picture = Image.Image | np.ndarray | str | Path
Generators = torch.Generator | Sequence[torch.Generator]
OutputType = Literal["np", "pil", "pt", "latent"]


class Format(NamedTuple):
    """How frames -1..1 `[1, 3, F, H, W]` of one video are given out, and those of several put together."""

    convert: Callable[[Tensor], Any]
    join: Callable[[list[Any]], Any]


def _unit(frames_BCFHW: Tensor) -> Tensor:
    """`[F, C, H, W]` in 0..1."""
    frames: Tensor = rearrange(frames_BCFHW, "1 C F H W -> F C H W")
    return (frames.float() / 2 + 0.5).clamp(0, 1)


def _as_array(frames_BCFHW: Tensor) -> np.ndarray:
    array: np.ndarray = rearrange(_unit(frames_BCFHW), "F C H W -> F H W C").cpu().numpy()
    return array


FORMATS: dict[str, Format] = {
    "np": Format(_as_array, np.stack),
    "pt": Format(_unit, torch.stack),
    "pil": Format(lambda frames: [Image.fromarray(frame) for frame in to_uint8(frames)], list),
    "latent": Format(lambda latents: latents, torch.cat),
}


def prompt_pairs(
    prompt: str | Sequence[str], negative: str | Sequence[str] | None, repeats: int
) -> list[tuple[str, str]]:
    """Prompt and negative prompt of every video."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    negatives = [negative or ""] * len(prompts) if negative is None or isinstance(negative, str) else negative
    if len(prompts) != len(negatives):
        raise ConfigError(
            f"{len(prompts)} prompts and {len(negatives)} negative prompts; give one for all, "
            "or one for each."
        )
    if not prompts or repeats < 1:
        raise ConfigError(f"{len(prompts)} prompts, {repeats} videos of each: nothing to make; ask for 1.")
    return [pair for pair in zip(prompts, negatives, strict=True) for _ in range(repeats)]


def seeds_of(generator: Generators | None, count: int) -> list[int | None]:
    """A seed for what is random besides the first noise; None draws one."""
    if generator is None:
        return [None] * count
    if isinstance(generator, torch.Generator):
        return [(generator.initial_seed() + i) % 2**63 for i in range(count)]
    if len(generator) != count:
        raise ConfigError(f"{len(generator)} generators for {count} videos; give one, or one for each.")
    return [g.initial_seed() % 2**63 for g in generator]


def keyframes_of(first: Picture | None, last: Picture | None, folder: Path) -> tuple[Keyframe, ...]:
    """The pictures as keyframes; those in memory are written to a folder that the call removes."""
    places = {0: first, -1: last}
    return tuple(
        Keyframe.make(image=_on_disk(picture, folder / f"{i}.png"), frame=place)
        for i, (place, picture) in enumerate(places.items())
        if picture is not None
    )


def _on_disk(picture: Picture, path: Path) -> str:
    if isinstance(picture, str | Path):
        return str(picture)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3:
            raise ConfigError(
                f"image is {picture.dtype} {list(picture.shape)}; give a uint8 array [H, W, 3]."
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ConfigError(f"image is a {type(picture).__name__}; give a PIL image, a uint8 array or a path.")
    picture.save(path)
    return str(path)
