"""What `kinema travel` says of its prompts and seeds, as fields of a shot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kinema.core.errors import ConfigError

PLACE = r"[+-]?\d+(?:\.\d+)?[sb%]?|max_f(?: ?[-/] ?\d+)?"
TRAVEL_KEY = re.compile(rf"\s*((?:{PLACE})(?:\.\.(?:{PLACE}))?)\s*:\s*(.*)", re.DOTALL)


def latent_travel(seeds: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Shot fields of a clip whose frames do not see each other: the noise travels, and the prompt with it.

    Args:
        seeds: `7,9,12`, evenly apart, or a schedule by frame; None for one noise in all frames.
        said: other settings of `redraw`.
    """
    redraw: dict[str, Any] = {"strength": 1, "colour": "off", "seed": "fixed", **said}
    if seeds is not None:
        redraw |= {"seed": "travel", "seeds": seeds if ":" in seeds else _evenly(seeds)}
    return {"mode": "frame_by_frame", "redraw": redraw}


def _evenly(seeds: str) -> dict[str, int]:
    parts = seeds.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--seeds {seeds!r} is not two or more whole numbers; write for example 7,9,12.")
    last = len(parts) - 1
    return {f"{100 * i / last:.6g}%": int(part) for i, part in enumerate(parts)}


def travel_keys(prompts: list[str]) -> dict[str, str]:
    """Place to prompt, as written."""
    keys: dict[str, str] = {}
    for text in prompts:
        match = TRAVEL_KEY.fullmatch(text)
        if match is None:
            raise ConfigError(
                f'{text!r} does not begin with a place; write "0: a rooster", "2s: a penguin" or '
                '"50%: a snowman".'
            )
        if match[1] in keys:
            raise ConfigError(f"two prompts at {match[1]}; move one.")
        keys[match[1]] = match[2]
    return keys
