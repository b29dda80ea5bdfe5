"""What a model folder says about its training: whom it knows and which factors it has seen.

The file `training.json` is written when a model is packed; without it only what any clip shows can be judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError
from kinema.training.data import SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.scenes import Identity

FILE = "training.json"


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Whom a model knows, and what its captions said.

    Attributes:
        identities: in the order of the bank that it was trained on.
        grammar: how often each factor was drawn.
        data_sha256: of that bank.
    """

    identities: tuple[Identity, ...]
    grammar: Grammar
    data_sha256: str

    @staticmethod
    def of(bank: SpriteBank, grammar: Grammar) -> TrainingFacts:
        """Of a training run."""
        return TrainingFacts(bank.identities, grammar, bank.data_hash)

    def write(self, folder: Path) -> None:
        """Write `training.json`."""
        data = {
            "data_sha256": self.data_sha256,
            "grammar": asdict(self.grammar),
            "identities": [[i.name, i.animated, list(i.synonyms)] for i in self.identities],
        }
        (folder / FILE).write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> TrainingFacts:
        """Read what `write` wrote.

        Raises:
            ModelError: the folder has no such file, or it is damaged.
        """
        try:
            data: Mapping[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
            identities = tuple(
                Identity(name, tuple(words), animated, index)
                for index, (name, animated, words) in enumerate(data["identities"])
            )
            return TrainingFacts(identities, Grammar(**data["grammar"]), data["data_sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{folder / FILE}: {error}; only models packed with scripts/pack_embedded.py --data "
                "say what they know."
            ) from None
