"""What kinema's own LoRAs say of themselves in their header: whom they show, their licence."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from kinema.core.errors import ModelError

FACT = "kinema."  # before the names of facts
MOST = 400  # characters that are told of one


def facts_of(path: Path) -> dict[str, str]:
    """The facts in a LoRA's header by name, none where another program wrote it.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"LoRA {path} is damaged or not safetensors ({error}); fetch it again.") from None
    return {name.removeprefix(FACT): value for name, value in metadata.items() if name.startswith(FACT)}


def shown(value: str) -> str:
    """A stranger's text in one short line."""
    line = "".join(c if c.isprintable() else " " for c in value)
    return line if len(line) <= MOST else line[:MOST] + "..."
