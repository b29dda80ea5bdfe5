"""What a checkpoint is and can do, known from its configuration files alone: no torch, no weights.

A card is read before anything heavy, so that a mode which a checkpoint cannot do is refused by name
in a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError, unknown_name
from kinema.pipelines.card import (
    EMBEDDED,
    EMBEDDED_FOLDER,
    MODES,
    Defaults,
    FewSteps,
    ModelCard,
    Student,
    read_json,
)
from kinema.pipelines.card_check import check_card, check_index, reading
from kinema.pipelines.foreign.card import MOTION_ADAPTER, foreign_card, with_adapter
from kinema.pipelines.foreign.families import CLASSES
from kinema.pipelines.hub import WEIGHTS, Address, Wanted, configurations, fetch, weights_of
from kinema.pipelines.images.cards import KINDS, image_card
from kinema.pipelines.original import original_card, read_transformers
from kinema.pipelines.unclip.card import PRIOR_PARTS, is_decoder, unclip_card
from kinema.pipelines.wan_card import wan_card


def read_card(model: str, *, local_files_only: bool = False) -> ModelCard:
    """The card of `embedded`, of a folder, or of a hub id (whose configuration files alone are fetched).

    A hub id may name a branch, a tag or a commit: `owner/name@revision`.

    Raises:
        ModelError: nothing is there, a file is missing or damaged, or the checkpoint is of a kind that kinema
            does not run.
    """
    if model == EMBEDDED:
        return _embedded(EMBEDDED, EMBEDDED_FOLDER)
    address = _address(model)
    if address is None and (decoder := _with_prior(model, local_files_only)) is not None:
        return decoder
    if address is None and (adapter := _motion_adapter(model, local_files_only)) is not None:
        parts = model.partition("@")[2]
        return with_adapter(model, adapter, read_card(parts, local_files_only=local_files_only), parts)
    if address is None and ("@" in model or model.endswith(".safetensors")):
        alone = read_transformers(model)
        base = read_card(alone.parts, local_files_only=local_files_only)
        return original_card(model, alone, base)
    folder = _local(model)
    if folder is None:
        folder = _from_hub(model, configurations, local_files_only)
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    check_index(index, folder / "model_index.json")
    with reading(folder):
        if kind == "KinemaPipeline":
            return check_card(_embedded(model, folder))
        if kind in ("WanPipeline", "WanImageToVideoPipeline"):
            transformer = read_json(folder / "transformer" / "config.json")
            return check_card(wan_card(model, folder, index, transformer))
        if is_decoder(index):
            return unclip_card(model, folder, index, prior=None)
        card = image_card(model, folder, index) or foreign_card(model, folder, index)
        if card is not None:
            return card
    raise ModelError(
        f"model {model!r} is a {kind!r}; kinema runs 'KinemaPipeline', 'WanPipeline' and "
        f"'WanImageToVideoPipeline' folders in diffusers layout, {', '.join(map(repr, CLASSES))}, and, frame "
        f"by frame, {', '.join(map(repr, KINDS))}."
    )


def _with_prior(model: str, local_files_only: bool) -> ModelCard | None:
    """The card of `DECODER@PRIOR`; None for anything else."""
    name, _, prior = model.partition("@")
    if not prior or name.endswith(".safetensors"):
        return None
    folder = _local(name)
    if folder is None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _from_hub(name, configurations, local_files_only)
    if folder is None or not (folder / "model_index.json").is_file():
        return None
    index = read_json(folder / "model_index.json")
    if not is_decoder(index):
        return None
    check_index(index, folder / "model_index.json")
    with reading(folder):
        found = prior_folder(prior, weights=False, local_files_only=local_files_only)
        return unclip_card(model, folder, index, decoder=name, prior=(prior, found))


def _motion_adapter(model: str, local_files_only: bool) -> Path | None:
    """The folder of the motion adapter in `ADAPTER@CHECKPOINT`; None for anything else."""
    name, at, parts = model.partition("@")
    if not (at and parts):
        return None
    folder = _local(name)
    if folder is None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        if name.endswith(".safetensors"):
            return None
        folder = _from_hub(name, _adapter_files, local_files_only)
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    return folder if config.get("_class_name") == MOTION_ADAPTER else None


def local_folder(card: ModelCard, *, local_files_only: bool = False) -> Path:
    """The folder with the weights; a hub id is downloaded (resumably) now."""
    name = card.parts or card.id
    if name == EMBEDDED or _local(name) is not None:
        return card.folder
    return _from_hub(name, weights_of(weight_parts(card), variants=card.family == "image"), local_files_only)


def weight_parts(card: ModelCard) -> list[str]:
    """The parts of a checkpoint whose weights are needed: those that its index names."""
    if card.parts and card.family == "wan":  # its own transformer is not wanted
        return ["vae", "text_encoder", "image_encoder"]
    index = read_json(card.folder / "model_index.json")
    named = {part: entry for part, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return [part for part, entry in named.items() if entry[0] is not None]


def _adapter_files(names: Sequence[str]) -> list[str]:
    """Of a motion adapter, which lies in its repository's own folder."""
    return [n for n in names if n == "config.json" or WEIGHTS.fullmatch(n)]


PART_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")


def part_folder(name: str, *, patterns: Sequence[str] = PART_FILES, local_files_only: bool = False) -> Path:
    """The folder of a part that comes by itself, such as a ControlNet; of a hub id, the files that match.

    Raises:
        ModelError: nothing is there.
    """
    found = _local(name)

    def wanted(names: Sequence[str]) -> list[str]:
        return [n for n in names if any(fnmatch(n, pattern) for pattern in patterns)]

    return found or _from_hub(name, wanted, local_files_only)


def prior_folder(name: str, *, weights: bool = True, local_files_only: bool = False) -> Path:
    """The folder of a prior; of a hub id, its configurations, and its weights where they are wanted.

    Raises:
        ModelError: nothing is there.
    """
    wanted = weights_of(PRIOR_PARTS) if weights else configurations
    return _local(name) or _from_hub(name, wanted, local_files_only)


def _local(model: str) -> Path | None:
    """The folder that a model's name is; None when it is none, or no name that the system can have."""
    try:
        folder = Path(model).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~ of a user who does not exist
        return None


def _address(model: str) -> Address | None:
    """Where on the hub; None for what is a folder, or a combination of several."""
    address = Address.parse(model)
    if address is None or _local(model) is not None:
        return None
    both = address.revision is not None and (_local(address.repo) or _local(address.revision))
    return None if both else address


def _from_hub(model: str, wanted: Wanted, local_files_only: bool) -> Path:
    address = _address(model)
    if address is None:
        if "/" not in model and "\\" not in model:
            raise unknown_name("model", model, [EMBEDDED])
        raise ModelError(
            f"model {model!r} is not a folder; give a folder, a hub id (owner/name) or 'embedded'."
        )
    return fetch(address, wanted, local_files_only=local_files_only)


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
        student=Student.from_mapping(index["student"]) if "student" in index else None,
        few=FewSteps.from_mapping(index["few"]) if "few" in index else None,
    )
