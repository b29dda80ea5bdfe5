"""A checkpoint's configuration files as a whole: they name parts that kinema has, and usable numbers.

No name in them is ever imported; a part of another library's is refused, because it would be taken for ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError, ModelError
from kinema.models.config_values import check_code, check_values

if TYPE_CHECKING:
    from kinema.pipelines.card import ModelCard

# "stable_diffusion" is how diffusers writes its own safety checker.
_LIBRARIES = ("kinema", "diffusers", "transformers", "tokenizers", "stable_diffusion", None)
_SIZES = ("num_attention_heads", "attention_head_dim", "num_layers", "ffn_dim")


def check_index(index: Mapping[str, Any], path: Path) -> None:
    """Refuse a `model_index.json` that asks for code, or for classes of other libraries.

    Raises:
        ModelError: the part, the class, the way out.
    """
    check_code(index, path)
    for part, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] not in _LIBRARIES:
            raise ModelError(
                f"{path} wants {str(entry[0])[:60]!r}.{str(entry[1])[:60]} for its {part}, and kinema loads "
                "no code of a checkpoint's; use one of diffusers' own classes."
            )


@contextmanager
def reading(folder: object) -> Iterator[None]:
    """What goes wrong while a card is made from missing or mistyped entries becomes one line."""
    try:
        yield
    except KinemaError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        OSError,
    ) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:160]
        raise ModelError(
            f"the configuration of {str(folder)[:300]} is not that of its class: {what}; get it again."
        ) from None


def check_card(card: ModelCard) -> ModelCard:
    """The card, when a shot can be planned with its numbers.

    Raises:
        ModelError: a size or a default that is none.
    """
    check_values(card.transformer, card.folder / "transformer" / "config.json")
    patch = card.transformer.get("patch_size", [1, 2, 2])
    d = card.defaults
    numbers = {
        "stride in time": card.stride.time,
        "stride in space": card.stride.space,
        "latent channels": card.latent_channels,
        "grid": card.multiple,
        **{name: card.transformer[name] for name in _SIZES},
        **{f"patch_size[{i}]": side for i, side in enumerate(patch)},
        **{f"default {name}": getattr(d, name) for name in ("width", "height", "frames", "steps")},
    }
    for name, value in numbers.items():
        if type(value) is not int or not 1 <= value <= 1 << 20:
            raise ModelError(
                f"{card.folder}: {name}={str(value)[:40]!r} is no size; get the checkpoint again."
            )
    own = 1.0 if card.student is None else card.student.guidance
    for whose, s, guidance in (("student's", card.student, own), ("sampler of few steps:", card.few, 1.0)):
        if s is not None and not (
            type(s.steps) is int
            and 1 <= s.steps <= 1000
            and 0 < float(s.shift) <= 1000
            and 1 <= float(guidance) <= 100
            and 0 <= s.guidance_interval[0] <= s.guidance_interval[1] <= 1
        ):
            raise ModelError(
                f"{card.folder}: its {whose} steps={s.steps!r}, shift={s.shift!r}, guidance={guidance!r} or "
                f"guidance_interval={s.guidance_interval!r} is none; get it again."
            )
    if len(patch) != 3 or not 0.1 <= Fraction(d.fps) <= 1000 or not 0 < float(d.shift) <= 1000:
        raise ModelError(
            f"{card.folder}: patch_size={patch}, fps={d.fps} or shift={d.shift} is none; get it again."
        )
    return card
