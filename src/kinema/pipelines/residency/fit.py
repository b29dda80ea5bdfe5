"""What each arrangement needs for a shot, and the fastest that fits.

    whole       sum of the parts, and the most that one of them works in
    component   the most of any part with what it works in
    block       the same, where of the transformer three blocks count, of the text encoder two

Counted is what comes on top of a process that has planned: torch is there, nothing of the checkpoint is.
The numbers come from configuration files, before any weight is read. Work space is counted in tensors that
are alive at once, by the sizes of the layers; scripts/bench/memory.py compares it with what a process takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, get_args

import torch

from kinema.core.errors import ConfigError, ResourceError, unknown_name
from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.pipelines.card import ModelCard
from kinema.pipelines.loading import AnyModel
from kinema.pipelines.plan import Plan
from kinema.pipelines.residency.loading import Tier, checked_tier, refuse_others
from kinema.pipelines.residency.machine import free_on
from kinema.pipelines.residency.sizes import Sizes, Transformer, sizes

MEMORY = ("auto", "low", *get_args(Tier))
TIERS: tuple[Tier, ...] = get_args(Tier)  # fastest first
LIVE_TOKENS = 10  # token-sized float32 tensors alive at once in a block
LIVE_FRAMES = 24  # encoder tensors of a latent frame's pixels at full width, with what convolutions remember
HOLES = 1.15  # what a decode takes over what is counted: the C library keeps holes between tensors
TEXT_TOKENS = 512  # rows that a text has at most
MARGIN = 1.05  # what is asked for over the estimate
ELSEWHERE = (1.15, 300 << 20)  # the same, and libraries, where it was not measured: on accelerators
BASE = 28 << 20  # what is imported between a plan and its last frame, and the encoder of the file
CODING = 4  # blocks in full that lie about while matrices are made into codes
HEAP = 32 << 20  # pieces below this stay with the process when they are freed, as glibc has it
READER = 2  # blocks that the thread which reads them keeps of what it freed
READY = 2  # blocks that are held again, ready for use, while they stream
LOWEST = 64  # pixels: no smaller size is proposed


@dataclass(frozen=True, slots=True)
class Scene:
    """What is made, as far as memory is concerned.

    Attributes:
        width, height: pixels.
        frames: latent frames that the transformer sees at once.
        length: pixel frames of the clip.
        prompts: on both sides together.
        tokens: of the longest, at most.
        encodes: whether pictures or clips are encoded.
        together: parts that stay while the others work.
        tiled: whether frames are decoded in the smallest tiles.
    """

    width: int
    height: int
    frames: int
    length: int
    prompts: int
    tokens: int
    encodes: bool
    together: bool
    tiled: bool = False

    @staticmethod
    def of(plan: Plan) -> Scene:
        """Of a plan."""
        g = plan.geometry
        seen = g.latent_frames + g.context if plan.windows is None else plan.windows.length
        spans = (*plan.prompts.spans, *plan.negatives.spans)
        longest = max(len("".join(text for text, _ in side).encode()) for side in spans)
        return Scene(
            width=g.width,
            height=g.height,
            frames=seen if plan.redraw is None else 1,
            length=g.frames,
            prompts=len(spans),
            tokens=min(TEXT_TOKENS, longest + 2),  # a byte is a token at worst; begin and end
            encodes=bool(plan.given.held or plan.given.source or plan.given.extend or plan.camera),
            together=plan.redraw is not None,
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found for a job's shots of one model.

    Attributes:
        tier: the arrangement to use.
        needs: bytes of each, where the model computes, margin included.
        free: bytes there.
        device: where.
        asked: whether the user named the arrangement.
    """

    tier: Tier
    needs: dict[Tier, int]
    free: int
    device: torch.device
    asked: bool

    @property
    def note(self) -> str | None:
        """What a user should know; None where everything is simply in memory."""
        gigabytes = f"needs about {self.needs[self.tier] / 1e9:.3g} GB, {self.free / 1e9:.3g} GB are free"
        if self.asked:
            short = self.needs[self.tier] > self.free
            return f"memory {self.tier} may not be enough: it {gigabytes}." if short else None
        return None if self.tier == "whole" else f"memory {self.tier}: it {gigabytes}."


@dataclass(frozen=True, slots=True)
class Offers:
    """What each arrangement needs for a shot.

    Attributes:
        needs: bytes, margin included; empty for pipelines of diffusers.
        free: bytes where it computes.
        device: where.
        taken: the one that was asked for, or else the fastest that fits; None when none does.
    """

    needs: dict[Tier, int]
    free: int
    device: torch.device
    taken: Tier | None

    def facts(self) -> dict[str, Any]:
        """For a program."""
        return {"needs": self.needs, "free": self.free, "device": str(self.device), "taken": self.taken}


def offers(*plans: Plan, card: ModelCard) -> Offers:
    """What the shots of one model need, and what there is."""
    device = resolve_device(plans[0].device)
    free = free_on(device)
    if card.family not in ("wan", "embedded"):
        return Offers({}, free, device, "whole")
    found, dtype, weights = sizes(card), resolve_dtype(plans[0].dtype, device), plans[0].weights
    scenes = [Scene.of(plan) for plan in plans]
    on = On(dtype, weights, cpu=device.type == "cpu")
    needs = {tier: max(_roomy(tier, s, found, card, on, free) for s in scenes) for tier in TIERS}
    merged = any(lora.merge for plan in plans for lora in plan.loras)
    possible = ("whole",) if merged else TIERS
    return Offers(needs, free, device, next((tier for tier in possible if needs[tier] <= free), None))


def shown(plan: Plan, card: ModelCard, memory: str = "auto") -> Offers:
    """The same with what a render with this `memory` would take; `ConfigError` as in `fit`."""
    found = offers(plan, card=card)
    return found if memory == "auto" else replace(found, taken=fit((plan,), card, memory).tier)


def check_memory(memory: str) -> None:
    """`ConfigError` for a name that is no arrangement."""
    if memory not in MEMORY:
        raise unknown_name("memory", memory, MEMORY)


def fit(plans: Sequence[Plan], card: ModelCard, memory: str = "auto") -> Fit:
    """The arrangement for the shots of one model.

    Args:
        plans: of the shots.
        card: of their model.
        memory: `auto` takes the fastest that fits, `low` the smallest; or one by name.

    Raises:
        ResourceError: none fits; the message says what would.
        ConfigError: an unknown name, or LoRAs to be merged into weights that are not there as they are.
    """
    check_memory(memory)
    there, weights = offers(*plans, card=card), plans[0].weights
    if not there.needs:
        refuse_others(card, "whole" if memory == "auto" else checked_tier(memory, "full"), weights)
        return Fit("whole", {"whole": 0}, there.free, there.device, False)
    if any(lora.merge for plan in plans for lora in plan.loras):
        refuse_merge(memory, weights)
    if memory != "auto":
        return Fit(checked_tier(memory, weights), there.needs, there.free, there.device, True)
    if there.taken is None:
        raise ResourceError(_refusal(plans, card, there))
    return Fit(there.taken, there.needs, there.free, there.device, False)


Fits = dict[str, Fit]
"""By the model's name."""


def refuse_merge(memory: str, weights: str) -> None:
    """`ConfigError` where a LoRA cannot be folded into matrices that are not simply there."""
    if memory not in ("auto", "whole") or weights != "full":
        raise ConfigError(
            f"loras: merge changes matrices, which memory {memory} with weights {weights} does not hold as "
            "they are; leave out merge, or memory and weights."
        )


def arrangements(
    plans: Sequence[Plan], cards: Mapping[str, ModelCard], memory: str, loaded: Mapping[str, AnyModel]
) -> Fits:
    """For each model of a job that is not loaded yet; errors as in `fit`, and before anything is fetched.

    Raises:
        ConfigError: a loaded model keeps its weights in another way than its shots ask for.
    """
    found: Fits = {}
    for name in dict.fromkeys(plan.model for plan in plans):
        own = [plan for plan in plans if plan.model == name]
        if name not in loaded:
            found[name] = fit(own, cards[name], memory)
        elif any(plan.weights != loaded[name].weights for plan in own):
            raise ConfigError(
                f"the model in memory has weights {loaded[name].weights} and the shot asks for "
                f"{own[0].weights}; say the same for both."
            )
    return found


def tell(fits: Fits, note: Callable[[str], None]) -> None:
    """Say what was chosen, where that is not simply everything."""
    for found in fits.values():
        if found.note is not None:
            note(found.note)


@dataclass(frozen=True, slots=True)
class On:
    """How and where the numbers are kept.

    Attributes:
        dtype: of the transformer and the text encoder.
        weights: of the transformer's matrices.
        cpu: whether a CPU computes.
    """

    dtype: torch.dtype
    weights: str
    cpu: bool

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize


def _roomy(tier: Tier, scene: Scene, found: Sizes, card: ModelCard, on: On, free: int) -> int:
    """What an arrangement needs with whole pictures decoded, or in tiles where that does not fit."""
    whole = need(tier, scene, found, card, on)
    return whole if whole <= free else need(tier, replace(scene, tiled=True), found, card, on)


def need(tier: Tier, scene: Scene, found: Sizes, card: ModelCard, on: On) -> int:
    """Bytes of one arrangement, margin included."""
    stages = list(_stages(tier, scene, found, card, on))
    if tier == "whole":
        total = sum(held for held, _ in stages) + max(work for _, work in stages)
    elif scene.together:
        total = max(sum(stages[0]), sum(held for held, _ in stages[1:]) + max(work for _, work in stages[1:]))
    else:
        total = max(held + work for held, work in stages)
    margin, base = (MARGIN, BASE) if on.cpu else ELSEWHERE
    return int(margin * (total + (base if card.family == "wan" else 0)))


def _stages(tier: Tier, scene: Scene, found: Sizes, card: ModelCard, on: On) -> Iterator[tuple[int, int]]:
    """Weights and work space, in bytes, of the text encoder, the image encoder, the transformer, the VAE."""
    text = found.text
    attention = 3 * text.heads * scene.tokens**2 * 4 if card.family == "wan" else 0
    yield (2 * text.block if tier == "block" else text.total) * on.size, attention
    yield found.image * on.size, 64 << 20 if found.image else 0
    held, work = _transformer(tier, found.transformer, on)
    yield held, work + _contexts(scene, card, on.size) + _tokens(scene, card)
    yield found.vae * 4, _pixels(scene, card) + _left(tier, found.transformer, on)


def _transformer(tier: Tier, dit: Transformer, on: On) -> tuple[int, int]:
    """What its weights take, and what is made of them while it works."""
    per_matrix = 1 if on.weights != "full" else on.size
    work = _copies(tier, dit, on)
    if on.weights != "full":  # a block is read in full before it is codes, and decoded, matrix by matrix
        work += CODING * dit.block * on.size + min((dit.block + dit.outside) * on.size, 2 * dit.largest * 4)
    blocks = dit.total - dit.outside
    if tier == "block":  # one leaves, one works, one comes
        return dit.outside * on.size + min(3 * dit.block, blocks) * per_matrix, work
    held = blocks * per_matrix + dit.outside * on.size
    return held * (dit.count if tier == "whole" else 1), work


def _left(tier: Tier, dit: Transformer, on: On) -> int:
    """What a transformer of small matrices leaves behind on a CPU: freed, not given back to the system."""
    if not on.cpu or dit.largest * on.size > HEAP:
        return 0
    if tier == "block":
        return sum(_transformer(tier, dit, on)) + READER * dit.block * on.size
    return _copies(tier, dit, on)


def _copies(tier: Tier, dit: Transformer, on: On) -> int:
    """Matrices that a CPU holds a second time, in the layout that is fastest; none of a large transformer."""
    from kinema.models.inference import COPIED_BYTES

    if not on.cpu or on.weights != "full" or dit.total * on.size > COPIED_BYTES:
        return 0
    every = dit.total - dit.texts
    return (min(READY * dit.block, every) if tier == "block" else every) * on.size


def _contexts(scene: Scene, card: ModelCard, size: int) -> int:
    """Keys and values of every text in every block."""
    c = card.transformer
    width = c["num_attention_heads"] * c["attention_head_dim"]
    rows = min(scene.tokens, TEXT_TOKENS if card.family == "wan" else 128) + 1  # padding is one row
    pairs = 1 if card.boundary is None else 2
    return int(pairs * scene.prompts * rows * width * 2 * c["num_layers"] * size)


def _tokens(scene: Scene, card: ModelCard) -> int:
    """What a block works in."""
    c = card.transformer
    width = c["num_attention_heads"] * c["attention_head_dim"]
    _, y, x = c.get("patch_size", (1, 2, 2))
    space = card.stride.space
    tokens = scene.frames * (scene.height // space // y) * (scene.width // space // x)
    return int(tokens * (LIVE_TOKENS * width + c["ffn_dim"]) * 4)


def _pixels(scene: Scene, card: ModelCard) -> int:
    """What the VAE works in, flat in length, and the pixels that are encoded, which are not."""
    from kinema.pipelines.card import read_json

    given = scene.length * scene.width * scene.height * 3 * 4 * 2 if scene.encodes else 0
    if card.family == "embedded":
        return given + scene.width * scene.height * card.stride.time * 3 * 4 * 16
    config = read_json(card.folder / "vae" / "config.json")
    if not scene.encodes:
        return _decoded(json.dumps(config), scene.width, scene.height, scene.tiled)
    base = config.get("decoder_base_dim") or config.get("base_dim", 96)
    pixels = scene.width * scene.height // (config.get("patch_size") or 1) ** 2
    return int(LIVE_FRAMES * base * card.stride.time * pixels * 4) + given


@lru_cache(maxsize=256)
def _decoded(config: str, width: int, height: int, tiled: bool) -> int:
    """What a decode works in; of compiled kernels less, which are not looked for here."""
    from kinema.models.vae import CausalVideoVAE
    from kinema.models.vae_config import CausalVideoVAEConfig
    from kinema.pipelines.residency.turns import SHARE, SMALLEST

    with torch.device("meta"):
        vae = CausalVideoVAE(CausalVideoVAEConfig.from_mapping(json.loads(config)))
    sides = (-(-height // vae.stride.space), -(-width // vae.stride.space))
    counted = vae.needs((1, vae.latent_channels, 1, *sides), SMALLEST if tiled else None)
    return int(counted / SHARE if tiled else counted * HOLES)


def _refusal(plans: Sequence[Plan], card: ModelCard, there: Offers) -> str:
    dtype, found = resolve_dtype(plans[0].dtype, there.device), sizes(card)
    on = On(dtype, plans[0].weights, cpu=there.device.type == "cpu")

    def least(other: Scene) -> int:
        return need("block", replace(other, tiled=True), found, card, on)

    scene = max(map(Scene.of, plans), key=least)
    ways = [
        f"{s.width}x{s.height} with {s.length} frames"
        for s in _smaller(scene, card)
        if least(s) <= there.free
    ][:1]
    ways += [f"{s.length} frames at this size" for s in _shorter(scene, card) if least(s) <= there.free][:1]
    way = f"{' or '.join(ways)} would fit" if ways else "use a smaller model or a machine with more memory"
    return (
        f"{scene.width}x{scene.height} with {scene.length} frames needs about {least(scene) / 1e9:.3g} GB of "
        f"memory and {there.free / 1e9:.3g} GB are free on {there.device}; {way}. "
        "--memory low tries it all the same."
    )


def _smaller(scene: Scene, card: ModelCard) -> Iterator[Scene]:
    """Sizes of about the same shape, larger ones first."""
    multiple = card.multiple
    for tall in range(scene.height // multiple - 1, 0, -1):
        height = tall * multiple
        width = max(1, round(scene.width * height / scene.height / multiple)) * multiple
        if min(width, height) >= min(LOWEST, scene.width, scene.height):
            yield replace(scene, width=width, height=height)


def _shorter(scene: Scene, card: ModelCard) -> Iterator[Scene]:
    """Lengths, longer ones first."""
    for latent in range(scene.frames - 1, 0, -1):
        yield replace(scene, frames=latent, length=card.stride.pixel_frames(latent))
