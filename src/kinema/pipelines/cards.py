"""What a checkpoint is and can do, known from its configuration files alone: no torch, no weights.

A card is read before anything heavy, so that a mode which a checkpoint cannot do is refused by name
in a moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError, unknown_name
from kinema.pipelines.card_check import check_card, check_index, reading

EMBEDDED = "embedded"
STEM = "diffusion_pytorch_model"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "embedded"

Mechanism = Literal["levels", "channels", "none"]
Mode = Literal["text", "image", "first", "last", "keyframes", "strength", "video", "extend", "frame_by_frame"]

MODES: dict[Mode, str] = {
    "text": "text to video",
    "image": "a single image",
    "first": "image to video (a held first frame)",
    "last": "first and last frame",
    "keyframes": "held frames anywhere",
    "strength": "keyframes below full strength",
    "video": "video to video",
    "extend": "extension of a clip",
    "frame_by_frame": "frame by frame (each frame redrawn from the one before)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a shot gets where it says nothing.

    Attributes:
        width, height: pixels.
        frames: pixel frames.
        fps: frames per second, as a fraction's text.
        steps, solver, grid, shift, guidance: of the sampler.
        guidance_low: of the expert that works at low noise, where there are two.
    """

    width: int
    height: int
    frames: int
    fps: str
    steps: int
    solver: str
    grid: str
    shift: float
    guidance: float
    guidance_low: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """A checkpoint as its configuration describes it.

    Attributes:
        id: what the user called it.
        folder: where its files are.
        family: which loader reads it.
        stride: pixels and pixel frames per latent.
        multiple: sizes must be multiples of this many pixels (latent stride times patch).
        latent_channels: of the noise.
        mechanism: how held frames are told to the model: noise levels, extra channels, or not at all.
        modes: what it can do.
        defaults: what a shot gets where it says nothing.
        any_aspect: whether it takes other shapes than its default, so that pictures keep theirs.
        transformer: the transformer's configuration, for cost estimates.
        parts: where everything but the transformer comes from, where it stands in files of its own.
        files: those files, for each transformer; empty in diffusers layout.
        boundary: noise level in 0..1 at which a second transformer takes over; None for a single one.
    """

    id: str
    folder: Path
    family: Literal["embedded", "wan", "image"]
    stride: Stride
    multiple: int
    latent_channels: int
    mechanism: Mechanism
    modes: frozenset[Mode]
    defaults: Defaults
    any_aspect: bool
    transformer: Mapping[str, Any] = field(repr=False)
    boundary: float | None = None
    parts: str = ""
    files: tuple[tuple[Path, ...], ...] = ()

    def require(self, mode: Mode) -> None:
        """Refuse a mode that this checkpoint cannot do, naming what can."""
        if mode not in self.modes:
            able = "; ".join(MODES[m] for m in MODES if m in self.modes)
            raise ModelError(
                f"model {self.id!r} cannot do {MODES[mode]}; it does: {able}. {self._instead(mode)}"
            )

    def _instead(self, mode: Mode) -> str:
        if self.family == "image":
            return "It draws pictures: add --mode frame_by_frame, or --frames 1."
        return ALTERNATIVES[mode]


ALTERNATIVES: dict[Mode, str] = {
    "text": "Use --model embedded, a Wan T2V or a Wan 2.2 TI2V checkpoint.",
    "image": "Use --model embedded or a Wan T2V checkpoint.",
    "first": "Use --model embedded, a Wan I2V or a Wan 2.2 TI2V checkpoint.",
    "last": "Use --model embedded or a Wan FLF2V checkpoint.",
    "keyframes": "Use --model embedded or a Wan 2.2 TI2V checkpoint.",
    "strength": "Use strength 1, or --model embedded.",
    "video": "Use --model embedded or a Wan T2V checkpoint.",
    "extend": "Use --model embedded or a Wan 2.2 TI2V checkpoint.",
    "frame_by_frame": "Use --model embedded, a Wan T2V checkpoint, or an image model.",
}


def read_card(model: str, *, local_files_only: bool = False) -> ModelCard:
    """The card of `embedded`, of a folder, or of a hub id (whose configuration files alone are fetched).

    Raises:
        ModelError: nothing is there, a file is missing or damaged, or the checkpoint is of a kind that kinema
            does not run.
    """
    if model == EMBEDDED:
        return _embedded(EMBEDDED, EMBEDDED_FOLDER)
    if "@" in model or model.endswith(".safetensors"):
        from kinema.pipelines.original import original_card

        return original_card(model, local_files_only=local_files_only)
    folder = _local(model)
    if folder is None:
        folder = _from_hub(
            model, local_files_only=local_files_only, patterns=["*.json", "*/*.json", "tokenizer/*"]
        )
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    check_index(index, folder / "model_index.json")
    from kinema.pipelines.image_cards import KINDS, image_card  # it makes cards of this module

    with reading(folder):
        if kind == "KinemaPipeline":
            return check_card(_embedded(model, folder))
        if kind in ("WanPipeline", "WanImageToVideoPipeline"):
            transformer = read_json(folder / "transformer" / "config.json")
            return check_card(wan_card(model, folder, index, transformer))
        if (card := image_card(model, folder, index)) is not None:
            return card
    raise ModelError(
        f"model {model!r} is a {kind!r}; kinema runs 'KinemaPipeline', 'WanPipeline' and "
        "'WanImageToVideoPipeline' folders in diffusers layout, and, frame by frame, "
        f"{', '.join(repr(name) for name in KINDS)}."
    )


def local_folder(card: ModelCard, *, local_files_only: bool = False) -> Path:
    """The folder with the weights; a hub id is downloaded (resumably) now."""
    name = card.parts or card.id
    if name == EMBEDDED or _local(name) is not None:
        return card.folder
    weights = ["*/*.safetensors"]
    if card.parts:  # its own transformer is not wanted
        weights = [f"{part}/*.safetensors" for part in ("vae", "text_encoder", "image_encoder")]
    patterns = ["*.json", "*/*.json", *weights, "*/*.model", "*/*.txt"]
    return _from_hub(name, local_files_only=local_files_only, patterns=patterns)


def _local(model: str) -> Path | None:
    """The folder that a model's name is; None when it is none, or no name that the system can have."""
    try:
        folder = Path(model).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~ of a user who does not exist
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    try:
        if path.stat().st_size > 64 << 20:
            raise ModelError(f"{path} is larger than 64 MB, which no configuration file is.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing; a model folder in diffusers layout has it. Check the path."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} cannot be read as JSON ({reason}); get it again.") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds no JSON object; get it again.")
    return data


def _from_hub(model: str, *, local_files_only: bool, patterns: list[str]) -> Path:
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        if "/" not in model and "\\" not in model:
            raise unknown_name("model", model, [EMBEDDED])
        raise ModelError(
            f"model {model!r} is not a folder; give a folder, a hub id (owner/name) or 'embedded'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=local_files_only))
    except Exception as error:  # the hub's client has many error classes; all mean that it is not here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {model!r} is neither a folder nor to be had from the hub: {reason[:200]}"
        ) from None


def _embedded(name: str, folder: Path) -> ModelCard:
    index = read_json(folder / "model_index.json")
    vae = read_json(folder / "vae" / "config.json")
    transformer = read_json(folder / "transformer" / "config.json")
    stride = Stride(time=vae["time"], space=vae["patch"])
    return ModelCard(
        id=name,
        folder=folder,
        family="embedded",
        stride=stride,
        multiple=stride.space * transformer["patch_size"][1],
        latent_channels=transformer["out_channels"],
        mechanism="levels",
        modes=frozenset(MODES),
        defaults=Defaults(**index["defaults"]),
        any_aspect=False,
        transformer=transformer,
    )


def wan_card(name: str, folder: Path, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> ModelCard:
    """The card of a Wan checkpoint whose transformer has this configuration."""
    vae = read_json(folder / "vae" / "config.json")
    for part, config, expected in (
        ("transformer", transformer, "WanTransformer3DModel"),
        ("vae", vae, "AutoencoderKLWan"),
    ):
        if config.get("_class_name", expected) != expected:
            raise ModelError(
                f"the {part} of model {name!r} is a {config['_class_name']!r}; "
                f"kinema runs {expected!r} there."
            )
    boundary = _boundary(name, index)
    residual = bool(vae.get("is_residual"))
    stride = Stride(time=vae.get("scale_factor_temporal", 4), space=vae.get("scale_factor_spatial", 8))
    mechanism, modes = _wan_modes(transformer, stride, bool(index.get("expand_timesteps")))
    return ModelCard(
        id=name,
        folder=folder,
        family="wan",
        stride=stride,
        multiple=stride.space * transformer.get("patch_size", [1, 2, 2])[1],
        latent_channels=vae.get("z_dim", 16),
        mechanism=mechanism,
        modes=modes,
        defaults=_wan_defaults(folder, residual, boundary, mechanism),
        any_aspect=True,
        transformer=transformer,
        boundary=boundary,
    )


def _boundary(name: str, index: Mapping[str, Any]) -> float | None:
    """Where the second expert of a pair takes over; None for a single transformer."""
    if (index.get("transformer_2") or [None])[0] is None:
        return None
    boundary = index.get("boundary_ratio")
    if not isinstance(boundary, int | float) or isinstance(boundary, bool) or not 0 <= boundary <= 1:
        raise ModelError(
            f"model {name!r} has two experts and boundary_ratio={boundary!r} in model_index.json, "
            "which must be a noise level in 0..1 (Wan 2.2 has 0.875 or 0.9); get the folder again."
        )
    return float(boundary)


def _wan_modes(
    transformer: Mapping[str, Any], stride: Stride, per_token_time: bool
) -> tuple[Mechanism, frozenset[Mode]]:
    """How pictures are told to a Wan transformer, and what follows from it.

    Mask channels (one per frame of a group) and the picture's stand beside the noise; image tokens come
    from one picture, or, where they have learned positions, from exactly two.
    """
    seen, made = transformer.get("in_channels", 16), transformer.get("out_channels") or 16
    if seen == 2 * made + stride.time:
        if transformer.get("image_dim") is None:
            return "channels", frozenset({"first", "last"})
        return "channels", frozenset({"last"} if transformer.get("pos_embed_seq_len") else {"first"})
    if seen != made:
        raise ModelError(
            f"the transformer reads {seen} channels and makes {made}; kinema knows {made} and "
            f"{2 * made + stride.time} (with mask and picture). Use a Wan T2V, I2V, FLF2V or TI2V checkpoint."
        )
    if per_token_time:
        return "levels", frozenset(MODES)
    return "none", frozenset({"text", "image", "video", "frame_by_frame"})


def _wan_defaults(folder: Path, residual: bool, boundary: float | None, mechanism: Mechanism) -> Defaults:
    """The sizes and rates that the checkpoints' own programs use; two experts have a scale each."""
    scheduler = folder / "scheduler" / "scheduler_config.json"
    shift = read_json(scheduler).get("flow_shift", 3.0) if scheduler.is_file() else 3.0
    width, height, frames, fps = (1280, 704, 121, "24") if residual else (832, 480, 81, "16")
    low = None if boundary is None else 3.0 if mechanism == "none" else 3.5
    high = 5.0 if low is None else 4.0 if mechanism == "none" else 3.5
    return Defaults(
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=50 if boundary is None else 40,
        solver="unipc",
        grid="diffusers",
        shift=float(shift),
        guidance=high,
        guidance_low=low,
    )
