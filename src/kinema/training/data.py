"""Training clips made on the fly: premultiplied sprites placed over a background, with their captions.

    frame = warp(sprite) + (1 - warp(alpha)) * background

Sprites carry premultiplied alpha, so warping them mixes colour and coverage together and leaves no halo.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinema.core.errors import ConfigError
from kinema.training.captions import Grammar, Identity, Scene, caption, draw_scene

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
    """

    frames_NHWC: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    identities: tuple[Identity, ...]
    fps: float
    data_hash: str

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.frames_NHWC.shape[1])

    @staticmethod
    def open(folder: Path) -> SpriteBank:
        """Map a folder that `scripts/prepare_emoji.py` wrote; `ConfigError` when it is not one."""
        index_path, frames_path = folder / INDEX_FILE, folder / FRAMES_FILE
        if not index_path.is_file() or not frames_path.is_file():
            raise ConfigError(
                f"{folder} holds no {INDEX_FILE} and {FRAMES_FILE}; make them with scripts/prepare_emoji.py."
            )
        index = json.loads(index_path.read_text(encoding="utf-8"))
        sprites = index["sprites"]
        return SpriteBank(
            frames_NHWC=np.load(frames_path, mmap_mode="r"),
            offsets=np.array([sprite["offset"] for sprite in sprites], dtype=np.int64),
            lengths=np.array([sprite["frames"] for sprite in sprites], dtype=np.int64),
            identities=_identities(sprites),
            fps=float(index["fps"]),
            data_hash=str(index["sha256"]),
        )


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
        scenes = [
            draw_scene(rng, self.grammar, self.bank.identities, still=still, unseen=self.unseen)
            for _ in range(batch)
        ]
        captions = [caption(scene, rng) for scene in scenes]
        frames_BCFHW = render(self.bank, scenes, frames=self.frames, fps=self.fps, size=self.size)
        return frames_BCFHW, captions, scenes


def render(bank: SpriteBank, scenes: Sequence[Scene], *, frames: int, fps: float, size: int) -> Tensor:
    """The scenes as float32 clips `[B, 3, F, H, W]` in -1..1; `size` divides the bank's size."""
    _check_clip(bank, frames=frames, fps=fps, size=size)
    rows_N = rearrange(_frame_rows(bank, scenes, frames, fps), "B F -> (B F)")
    sprites_NHWC = torch.from_numpy(bank.frames_NHWC[rows_N])
    sprites_NCHW = rearrange(sprites_NHWC, "N H W C -> N C H W").to(torch.float32, copy=True)
    if size != bank.size:
        sprites_NCHW = functional.avg_pool2d(sprites_NCHW, bank.size // size)
    theta_N23 = rearrange(_affine(scenes, frames), "B F R C -> (B F) R C")
    grid_NHW2 = functional.affine_grid(theta_N23, [len(rows_N), 4, size, size], align_corners=False)
    warped_NCHW = functional.grid_sample(sprites_NCHW, grid_NHW2, mode="bilinear", align_corners=False)
    warped_BCFHW = rearrange(warped_NCHW, "(B F) C H W -> B C F H W", F=frames).div(127.5)
    colour_BCFHW, alpha_BCFHW = warped_BCFHW[:, :3], warped_BCFHW[:, 3:] * 0.5
    ground_BCFHW = rearrange(_backgrounds(scenes, size), "B C H W -> B C 1 H W") * 2
    return torch.addcmul(colour_BCFHW, 1 - alpha_BCFHW, ground_BCFHW).sub_(1).clamp_(-1, 1)


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


def _frame_rows(bank: SpriteBank, scenes: Sequence[Scene], frames: int, fps: float) -> NDArray[np.int64]:
    """Rows `[B, F]` of the frame table; time wraps around, and a frozen sprite stays where it starts."""
    sprite_B = np.array([scene.identity.index for scene in scenes])
    speed_B = np.array([bank.fps / fps if scene.native == "plays" else 0.0 for scene in scenes])
    length_B = bank.lengths[sprite_B]
    start_B = np.array([scene.phase for scene in scenes]) * length_B
    time_BF = np.floor(start_B[:, None] + speed_B[:, None] * np.arange(frames)).astype(np.int64)
    rows_BF: NDArray[np.int64] = bank.offsets[sprite_B][:, None] + time_BF % length_B[:, None]
    return rows_BF


def _affine(scenes: Sequence[Scene], frames: int) -> Tensor:
    """`[B, F, 2, 3]` maps from frame to sprite coordinates: u = (x - centre) / scale."""
    start_B2 = torch.tensor([scene.start for scene in scenes], dtype=torch.float32)
    end_B2 = torch.tensor([scene.end for scene in scenes], dtype=torch.float32)
    scale_B = torch.tensor([scene.scale for scene in scenes], dtype=torch.float32)
    time_F = torch.linspace(0, 1, frames)
    centre_BF2 = start_B2[:, None] + time_F[None, :, None] * (end_B2 - start_B2)[:, None]
    theta_BF23 = torch.zeros(len(scenes), frames, 2, 3)
    theta_BF23[..., 0, 0] = theta_BF23[..., 1, 1] = (1 / scale_B)[:, None]
    theta_BF23[..., 2] = -centre_BF2 / scale_B[:, None, None]
    return theta_BF23


def _backgrounds(scenes: Sequence[Scene], size: int) -> Tensor:
    """Backgrounds `[B, 3, H, W]` in 0..1: a blend of the first and the last colour along an axis."""
    first_BC = torch.tensor([scene.background.rgb[0] for scene in scenes], dtype=torch.float32)
    last_BC = torch.tensor([scene.background.rgb[-1] for scene in scenes], dtype=torch.float32)
    is_horizontal_B = torch.tensor([scene.background.layout == "horizontal" for scene in scenes])
    ramp = torch.linspace(0, 1, size)
    down_HW, across_HW = ramp[:, None].expand(size, size), ramp[None, :].expand(size, size)
    blend_BHW = torch.where(is_horizontal_B[:, None, None], across_HW, down_HW)
    return torch.lerp(first_BC[:, :, None, None], last_BC[:, :, None, None], blend_BHW[:, None])


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
