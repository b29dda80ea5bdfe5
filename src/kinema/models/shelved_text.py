"""The UMT5 encoder of a checkpoint with its matrices on a shelf: a block at a time, and rows of its table.

UMT5-XXL has 11 GB in bfloat16, 2 of them the table, and is asked for a few dozen words once per clip. The
states are those of `CheckpointTextEncoder` to the last bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.shelf import Shelf
from kinema.models.supply import StreamedBlocks, Supply, load_small
from kinema.models.text import CheckpointTextEncoder, load_tokenizer
from kinema.models.umt5 import TABLE, TIED, UMT5Config, UMT5Encoder, precision
from kinema.models.weight_files import require_files, weight_files
from kinema.models.weights import bare, read_config

TABLES = (TABLE, TIED)
BLOCKS = "encoder.block."


class ShelvedTable(nn.Module):
    """An embedding whose rows are read when they are asked for; `[..., D]` of ids of any shape."""

    def __init__(self, supply: Supply, name: str) -> None:
        super().__init__()
        self._supply, self._name = supply, name

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these ids."""
        rows, places = torch.unique(ids.cpu(), return_inverse=True)
        supply = self._supply
        table_RD = supply.shelf.rows(self._name, rows.tolist()).to(supply.device).to(supply.given(self._name))
        return table_RD[places.to(supply.device)]


class ShelvedTextEncoder(CheckpointTextEncoder):
    """The text encoder of a checkpoint, streamed from its files."""

    def __init__(self, model: Any, tokenizer: Any, supply: Supply) -> None:
        super().__init__(model, tokenizer)
        self._supply = supply

    @staticmethod
    def from_folder(
        folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> ShelvedTextEncoder:
        """As `CheckpointTextEncoder.from_folder`; errors too."""
        folder, where = Path(folder), torch.device(device)
        tokenizer = load_tokenizer(folder / "tokenizer")
        return _from_shelf(folder / "text_encoder", tokenizer, dtype, where)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._supply.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its states."""
        return self._supply.given(f"{BLOCKS}0.layer.0.SelfAttention.q.weight")


def _from_shelf(folder: Path, tokenizer: Any, dtype: torch.dtype, device: torch.device) -> ShelvedTextEncoder:
    require_files(folder, "config.json")
    shelf = Shelf.of(weight_files(folder, "model"))
    with bare():
        model = UMT5Encoder(UMT5Config.from_mapping(read_config(folder)))
    table = next((name for name in TABLES if name in shelf.places), None)
    if table is None:
        raise ModelError(f"{folder} lacks {TABLES[0]}, the table of its words; get the folder again.")
    supply = Supply(shelf, lambda name: precision(name, dtype), device)
    model.add_module("shared", ShelvedTable(supply, table))
    load_small(model, supply, origin=folder, besides=TABLES)
    blocks = model.encoder["block"]
    assert isinstance(blocks, nn.ModuleList)
    model.encoder["block"] = StreamedBlocks(blocks, supply, prefix=BLOCKS)
    return ShelvedTextEncoder(model.requires_grad_(False).eval(), tokenizer, supply)
