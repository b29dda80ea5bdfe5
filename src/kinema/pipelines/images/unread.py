"""Words at the end of a prompt that an image model does not read: its text encoder takes so many tokens."""

from __future__ import annotations

from typing import Any

from kinema.core.imports import importing
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.images.cards import kind_of_card
from kinema.pipelines.plan import Prompts

MOST_SHOWN = 160  # characters of what is not read
MOST_TOKENS = 1000  # beyond this a tokenizer names no bound of its own
CLIP_TOKENS = 77  # a start and an end among them


def unread_words(card: ModelCard, *sides: Prompts) -> tuple[str, ...]:
    """A note for every text whose end is cut off.

    Of models whose words come from CLIP alone (Stable Diffusion 1 and 2, SDXL); others have T5 beside it,
    which has room for hundreds. The tokenizer is read only where a text may be too long.

    Args:
        card: of an image model.
        sides: prompts and negative prompts that are read.
    """
    if not kind_of_card(card).weights:
        return ()
    most = _tokens(card)
    texts = dict.fromkeys("".join(text for text, _ in spans) for side in sides for spans in side.spans)
    long = [text for text in texts if len(text.encode()) + 2 > most]  # no token is shorter than a byte
    tokenizer = _tokenizer(card) if long else None
    if tokenizer is None or not tokenizer.is_fast:
        return ()
    notes = []
    for text in long:
        offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        if len(offsets) > most:
            rest = text[offsets[most - 1][0] :]  # in place of this token there is the end
            shown = rest if len(rest) <= MOST_SHOWN else f"{rest[:MOST_SHOWN]}..."
            notes.append(f"{card.id!r} reads {most - 2} tokens of a prompt and not its end: {shown!r}.")
    return tuple(notes)


def _tokens(card: ModelCard) -> int:
    """Tokens that a prompt is cut to, of the tokenizer's own configuration."""
    path = card.folder / "tokenizer" / "tokenizer_config.json"
    found = read_json(path).get("model_max_length") if path.is_file() else None
    return int(found) if isinstance(found, int) and 2 < found <= MOST_TOKENS else CLIP_TOKENS


def _tokenizer(card: ModelCard) -> Any:
    """The model's tokenizer; None where it cannot be read yet, which loading the model tells of."""
    with importing():
        from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            card.folder / "tokenizer", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
