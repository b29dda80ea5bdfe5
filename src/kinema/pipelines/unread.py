"""Words at the end of a prompt that a model does not read: its text encoder takes so many tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.core.imports import importing
from kinema.pipelines.card import ModelCard, read_json
from kinema.pipelines.foreign.families import Call
from kinema.pipelines.foreign.signature import call_arguments
from kinema.pipelines.images.cards import KANDINSKY, kind_of_card
from kinema.pipelines.plan import Prompts

MOST_SHOWN = 160  # characters of what is not read
MOST_TOKENS = 1000  # beyond this a tokenizer names no bound of its own
CLIP_TOKENS = 77  # a start and an end among them
WAN_TOKENS = 512
T5_TOKENS = {"StableDiffusion3Pipeline": ("tokenizer_3", 256), "FluxPipeline": ("tokenizer_2", 512)}
"""Of image models that have T5 beside CLIP, which reads the longest: its tokenizer, and diffusers' bound."""


@dataclass(frozen=True, slots=True)
class Reader:
    """What cuts a model's prompts into tokens.

    Attributes:
        folder: of the tokenizer.
        most: tokens that are kept, special ones among them.
        cleaned: texts are repaired first, as for Wan.
    """

    folder: Path
    most: int
    cleaned: bool = False


def unread_words(card: ModelCard, reader: Reader | None, *sides: Prompts) -> tuple[str, ...]:
    """A note for every text whose end is cut off.

    The tokenizer is read only where a text may be too long.

    Args:
        card: of the model.
        reader: of its prompts; None for one whose bound is not known.
        sides: prompts and negative prompts that are read.
    """
    if reader is None:
        return ()
    texts = dict.fromkeys("".join(text for text, _ in spans) for side in sides for spans in side.spans)
    long = [text for text in texts if len(text.encode()) + 2 > reader.most]  # no token is less than a byte
    tokenizer = _tokenizer(card, reader.folder) if long else None
    if tokenizer is None or not tokenizer.is_fast:
        return ()
    special = len(tokenizer("")["input_ids"])
    notes = []
    for written in long:
        text = _cleaned(written) if reader.cleaned else written
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) > reader.most:
            rest = text[offsets[reader.most - 1][0] :].lstrip()  # in place of this token there is the end
            shown = rest if len(rest) <= MOST_SHOWN else f"{rest[:MOST_SHOWN]}..."
            notes.append(
                f"{card.id!r} reads {reader.most - special} tokens of a prompt and not its end: {shown!r}."
            )
    return tuple(notes)


def reader_of(
    card: ModelCard, call: Call | None = None, options: Mapping[str, Any] | None = None
) -> Reader | None:
    """What reads a model's prompts.

    Args:
        card: of the model.
        call: of another diffusers pipeline, which says how many tokens it keeps.
        options: that this pipeline is given.
    """
    folder = card.folder / "tokenizer"
    if card.family == "embedded":
        config = card.folder / "text_encoder" / "config.json"
        most = read_json(config).get("max_position_embeddings") if config.is_file() else None
        return Reader(folder, most) if isinstance(most, int) else None
    if card.family == "wan":
        return Reader(folder, WAN_TOKENS, cleaned=True)
    if card.family == "foreign":
        return None if call is None else _of_call(folder, call, options or {})
    kind = kind_of_card(card).name
    if kind == KANDINSKY:  # whose prior reads them
        return None
    name, most = T5_TOKENS.get(kind, ("", 0))
    if name and (card.folder / name).is_dir():
        return Reader(card.folder / name, most)
    return Reader(folder, _tokens(folder))


def _of_call(folder: Path, call: Call, options: Mapping[str, Any]) -> Reader | None:
    """Not of pipelines that put words of their own around the prompt, for a second encoder (HunyuanVideo)."""
    if not folder.is_dir() or folder.with_name("tokenizer_2").is_dir():
        return None
    own = call_arguments(call.module, call.name).get("max_sequence_length")
    most = options.get("max_sequence_length", own)
    return Reader(folder, most if isinstance(most, int) else _tokens(folder))


def _tokens(folder: Path) -> int:
    """Tokens that a prompt is cut to, of the tokenizer's own configuration."""
    path = folder / "tokenizer_config.json"
    found = read_json(path).get("model_max_length") if path.is_file() else None
    return int(found) if isinstance(found, int) and 2 < found <= MOST_TOKENS else CLIP_TOKENS


def _tokenizer(card: ModelCard, folder: Path) -> Any:
    """The model's tokenizer; None where it cannot be read yet, which loading the model tells of."""
    with importing():
        from kinema.models.text import load_tokenizer
        from kinema.models.tokenizer import JsonTokenizer

    try:
        if card.family == "embedded":
            return JsonTokenizer(folder / "tokenizer.json", "[PAD]")
        found = load_tokenizer(folder)
        found.model_max_length = int(1e30)  # else transformers warns of what the note says
        return found
    except ModelError:
        return None


def _cleaned(text: str) -> str:
    with importing():
        from kinema.models.text import clean_spans, join

    return join(clean_spans(((text, 1.0),)))
