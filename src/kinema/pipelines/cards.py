"""What a checkpoint is and can do, known from its configuration files alone: no torch, no weights.

A card is read before anything heavy, so that a mode which a checkpoint cannot do is refused by name
in a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError, unknown_name
from kinema.pipelines.card import EMBEDDED, EMBEDDED_FOLDER, MODES, Defaults, ModelCard, read_json
from kinema.pipelines.card_check import check_card, check_index, reading
from kinema.pipelines.foreign.card import MOTION_ADAPTER, foreign_card, with_adapter
from kinema.pipelines.foreign.families import CLASSES
from kinema.pipelines.image_cards import KINDS, image_card
from kinema.pipelines.original import original_card, read_transformers
from kinema.pipelines.wan_card import wan_card


def read_card(model: str, *, local_files_only: bool = False) -> ModelCard:
    """The card of `embedded`, of a folder, or of a hub id (whose configuration files alone are fetched).

    Raises:
        ModelError: nothing is there, a file is missing or damaged, or the checkpoint is of a kind that kinema
            does not run.
    """
    if model == EMBEDDED:
        return _embedded(EMBEDDED, EMBEDDED_FOLDER)
    if (adapter := _motion_adapter(model, local_files_only)) is not None:
        parts = model.partition("@")[2]
        return with_adapter(model, adapter, read_card(parts, local_files_only=local_files_only), parts)
    if "@" in model or model.endswith(".safetensors"):
        alone = read_transformers(model)
        base = read_card(alone.parts, local_files_only=local_files_only)
        return original_card(model, alone, base)
    folder = _local(model)
    if folder is None:
        folder = _from_hub(
            model, local_files_only=local_files_only, patterns=["*.json", "*/*.json", "tokenizer/*"]
        )
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    check_index(index, folder / "model_index.json")
    with reading(folder):
        if kind == "KinemaPipeline":
            return check_card(_embedded(model, folder))
        if kind in ("WanPipeline", "WanImageToVideoPipeline"):
            transformer = read_json(folder / "transformer" / "config.json")
            return check_card(wan_card(model, folder, index, transformer))
        card = image_card(model, folder, index) or foreign_card(model, folder, index)
        if card is not None:
            return card
    raise ModelError(
        f"model {model!r} is a {kind!r}; kinema runs 'KinemaPipeline', 'WanPipeline' and "
        f"'WanImageToVideoPipeline' folders in diffusers layout, {', '.join(map(repr, CLASSES))}, and, frame "
        f"by frame, {', '.join(map(repr, KINDS))}."
    )


def _motion_adapter(model: str, local_files_only: bool) -> Path | None:
    """The folder of the motion adapter in `ADAPTER@CHECKPOINT`; None for anything else."""
    name, at, parts = model.partition("@")
    if not (at and parts):
        return None
    folder = _local(name)
    if folder is None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        if name.endswith(".safetensors"):
            return None
        folder = _from_hub(name, local_files_only=local_files_only, patterns=["config.json", "*.safetensors"])
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    return folder if config.get("_class_name") == MOTION_ADAPTER else None


def local_folder(card: ModelCard, *, local_files_only: bool = False) -> Path:
    """The folder with the weights; a hub id is downloaded (resumably) now."""
    name = card.parts or card.id
    if name == EMBEDDED or _local(name) is not None:
        return card.folder
    weights = ["*/*.safetensors"]
    if card.parts and card.family != "foreign":  # its own transformer is not wanted
        weights = [f"{part}/*.safetensors" for part in ("vae", "text_encoder", "image_encoder")]
    patterns = ["*.json", "*/*.json", *weights, "*/*.model", "*/*.txt"]
    return _from_hub(name, local_files_only=local_files_only, patterns=patterns)


PART_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")


def part_folder(name: str, *, patterns: Sequence[str] = PART_FILES, local_files_only: bool = False) -> Path:
    """The folder of a part that comes by itself, such as a ControlNet; of a hub id, the files that match.

    Raises:
        ModelError: nothing is there.
    """
    found = _local(name)
    return found or _from_hub(name, local_files_only=local_files_only, patterns=list(patterns))


def _local(model: str) -> Path | None:
    """The folder that a model's name is; None when it is none, or no name that the system can have."""
    try:
        folder = Path(model).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~ of a user who does not exist
        return None


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
