"""Training clips made on the fly: banks of sprites, and endless sources of captioned clips."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.training.captions import caption
from kinema.training.drawing import draw_scene, draw_scenes
from kinema.training.grammar import Grammar
from kinema.training.numbers import numbers
from kinema.training.render import compose
from kinema.training.scenes import Identity, Scene

FRAMES_FILE = "frames.npy"
INDEX_FILE = "sprites.json"


@dataclass(frozen=True, slots=True)
class SpriteBank:
    """Looping sprites of one size, memory mapped.

    Attributes:
        frames_NHWC: uint8 premultiplied RGBA frames of all sprites, one sprite after the other.
        offsets: each sprite's first frame.
        lengths: each sprite's number of frames; 1 for a still.
        identities: each sprite's name and words, in the same order.
        fps: frames per second at which the sprites play.
        data_hash: sha256 of the frames and the index, which a training log quotes.
        licence: of the sprites, where their index says it.
    """

    frames_NHWC: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    identities: tuple[Identity, ...]
    fps: float
    data_hash: str
    licence: str = ""

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.frames_NHWC.shape[1])

    def gather(self, rows_N: Tensor) -> Tensor:
        """The frames `[N, H, W, 4]` in some rows, read from the mapped file."""
        return torch.from_numpy(self.frames_NHWC[rows_N.numpy()])

    @staticmethod
    def open(folder: Path) -> SpriteBank:
        """Map a folder that `scripts/prepare_emoji.py` wrote; `ConfigError` when it is not one."""
        index_path, frames_path = folder / INDEX_FILE, folder / FRAMES_FILE
        if not index_path.is_file() or not frames_path.is_file():
            raise ConfigError(
                f"{folder} holds no {INDEX_FILE} and {FRAMES_FILE}; make them with scripts/prepare_emoji.py."
            )
        try:
            index = json.loads(index_path.read_text(encoding="utf-8"))
            sprites = index["sprites"]
            bank = SpriteBank(
                frames_NHWC=np.load(frames_path, mmap_mode="r"),
                offsets=np.array([sprite["offset"] for sprite in sprites], dtype=np.int64),
                lengths=np.array([sprite["frames"] for sprite in sprites], dtype=np.int64),
                identities=_identities(sprites),
                fps=float(index["fps"]),
                data_hash=str(index["sha256"]),
                licence=str(index.get("licence", "")),
            )
            _check_rows(bank)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{folder} is no whole bank of sprites ({error!r}); prepare it anew.") from None
        return bank


def _check_rows(bank: SpriteBank) -> None:
    shape, kind = bank.frames_NHWC.shape, bank.frames_NHWC.dtype
    if kind != np.uint8 or len(shape) != 4 or shape[3] != 4 or shape[1] != shape[2]:
        raise ValueError(f"frames of shape {shape}, {kind}")
    last = bank.offsets + bank.lengths
    if not len(last) or bank.offsets.min() < 0 or bank.lengths.min() < 1 or last.max() > shape[0]:
        raise ValueError(f"an index of other frames than these {shape[0]}")
    if not 0 < bank.fps < float("inf"):
        raise ValueError(f"fps={bank.fps:g}")


class ClipSource:
    """An endless, resumable source of captioned clips: draw i depends on (seed, i, batch) only.

    Args:
        bank: the sprites.
        grammar: what is drawn, how often.
        frames: pixel frames of a clip; 1 draws stills at random moments of the animation.
        fps: frames per second of the clips.
        size: height and width in pixels; must divide the bank's.
        seed: names the stream.
        unseen: draw the held-out combinations instead of the training ones.
    """

    def __init__(
        self,
        bank: SpriteBank,
        grammar: Grammar,
        *,
        frames: int,
        fps: float,
        size: int,
        seed: int,
        unseen: bool = False,
    ) -> None:
        _check_clip(bank, frames=frames, fps=fps, size=size)
        self.bank, self.grammar = bank, grammar
        self.frames, self.fps, self.size = frames, fps, size
        self.seed, self.unseen = seed, unseen
        self.index = 0

    def draw(self, batch: int, *, index: int | None = None) -> tuple[Tensor, list[str], list[Scene]]:
        """The next batch, or batch number `index`, after which the source goes on with `index + 1`.

        Returns:
            float32 frames `[B, 3, F, H, W]` in -1..1, the captions, and the scenes behind them.
        """
        index = self.index if index is None else index
        self.index = index + 1
        rng = Random(f"{self.seed}/{index}")
        still = self.frames == 1
        if self.unseen:
            scenes = [
                draw_scene(rng, self.grammar, self.bank.identities, still=still, unseen=True)
                for _ in range(batch)
            ]
        else:
            scenes = draw_scenes(rng, self.grammar, self.bank.identities, batch, still=still)
        captions = [caption(scene, rng, full=self.grammar.full) for scene in scenes]
        frames_BCFHW = render(self.bank, scenes, frames=self.frames, fps=self.fps, size=self.size)
        return frames_BCFHW, captions, scenes


def render(bank: SpriteBank, scenes: Sequence[Scene], *, frames: int, fps: float, size: int) -> Tensor:
    """The scenes as float32 clips `[B, 3, F, H, W]` in -1..1; `size` divides the bank's size."""
    _check_clip(bank, frames=frames, fps=fps, size=size)
    values = numbers(scenes, bank.offsets, bank.lengths, frames=frames, rate=bank.fps / fps)
    return compose(values, bank.gather, size=size)


def _check_clip(bank: SpriteBank, *, frames: int, fps: float, size: int) -> None:
    if frames < 1:
        raise ConfigError(f"frames={frames} is below 1; use 1 for stills or 17 for two seconds at 8 fps.")
    if fps <= 0:
        raise ConfigError(f"fps={fps:g} is not above 0; the sprites play at {bank.fps:g}.")
    if size < 1 or bank.size % size:
        raise ConfigError(
            f"size={size} does not divide the sprites' {bank.size}; use {bank.size}, "
            "or prepare the sprites at another size."
        )


def _identities(sprites: Sequence[dict[str, object]]) -> tuple[Identity, ...]:
    """Identities whose synonyms mean one sprite only: a word that two sprites share names neither."""
    names = {str(sprite["name"]) for sprite in sprites}
    owners = Counter(str(tag) for sprite in sprites for tag in _tags(sprite))
    return tuple(
        Identity(
            name=str(sprite["name"]),
            synonyms=tuple(tag for tag in _tags(sprite) if owners[tag] == 1 and tag not in names),
            animated=sprite["frames"] != 1,
            index=index,
        )
        for index, sprite in enumerate(sprites)
    )


def _tags(sprite: dict[str, object]) -> list[str]:
    tags = sprite.get("tags", [])
    return [str(tag) for tag in tags] if isinstance(tags, list) else []
