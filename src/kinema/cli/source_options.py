"""The options of `restyle`: how much of the clip changes, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel="Restyle", show_default=False)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a clip is made over."""

    strength: Annotated[
        str | None,
        _option(
            "--strength",
            metavar="X",
            help="0 keeps the clip, 1 ignores it; 0.6 by default, and 1 with a mask.",
        ),
    ] = None
    mask: Annotated[
        str | None,
        _option(
            "--mask",
            metavar="FILE",
            help="Picture or clip: white is made anew, black keeps the clip's own pixels; or bars, what "
            "--fit pad leaves open around it.",
        ),
    ] = None
    mask_invert: Annotated[bool, _option("--mask-invert", help="Black is made anew instead.")] = False
    mask_feather: Annotated[
        str | None, _option("--mask-feather", metavar="PIXELS", help="How far the mask's edge is softened.")
    ] = None

    def of(self, clip: Path) -> dict[str, Any]:
        """The shot's `source`, as text."""
        said = {"strength": self.strength, "mask": self.mask, "mask_feather": self.mask_feather}
        source: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        return {"path": str(clip), **source, **({"mask_invert": True} if self.mask_invert else {})}
