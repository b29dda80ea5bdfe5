"""A checkpoint's `tokenizer.json`, read by the tokenizers library alone, with the few calls that are needed.

The face is that of transformers' fast tokenizers, which read the same file; importing that library takes
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

KINDS = ("T5Tokenizer", "T5TokenizerFast")
"""The classes whose fast form is their `tokenizer.json` and nothing else."""


class JsonTokenizer:
    """Text to ids, special tokens included.

    Args:
        path: of `tokenizer.json`.
        pad: the padding token.
    """

    is_fast = True

    def __init__(self, path: Path, pad: str) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.pad_token_id: int | None = self._tokenizer.token_to_id(pad)

    def __call__(
        self, text: str, *, return_offsets_mapping: bool = False, add_special_tokens: bool = True
    ) -> dict[str, list[Any]]:
        """`input_ids`, and where each token begins and ends in the text."""
        found = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        offsets = {"offset_mapping": found.offsets} if return_offsets_mapping else {}
        return {"input_ids": found.ids, **offsets}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """The pieces of these ids."""
        return [self._tokenizer.id_to_token(i) for i in ids]


def readable(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer's folder needs nothing but its `tokenizer.json`."""
    return config.get("tokenizer_class") in KINDS and (folder / "tokenizer.json").is_file()


def pad_token(config: Mapping[str, Any]) -> str:
    """The padding token of a `tokenizer_config.json`."""
    found = config.get("pad_token", "<pad>")
    return str(found["content"] if isinstance(found, Mapping) else found)
