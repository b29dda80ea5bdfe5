"""The paragraph `parameters` that A1111's web UI and its relatives write into pictures, as a shot.

a fox, (running:1.2)
Negative prompt: text
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 5, Size: 512x512, Model: dreamshaper
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from kinema.core.errors import ConfigError
from kinema.story.import_deforum import solver_of
from kinema.story.imported import KARRAS, Imported
from kinema.story.size import parse_size

MOST = 1 << 20
_SETTING = re.compile(r'\s*([A-Za-z][\w /+-]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_NUMBERS = {"Steps": ("steps", int), "CFG scale": ("guidance", float), "Seed": ("seed", int)}
_SILENT = frozenset({"Version", "Model hash", "VAE hash", "Lora hashes", "TI hashes", "Hashes", "RNG"})
_SAMPLER = frozenset({"Sampler", "Schedule type"})
_NEGATIVE = re.compile(r"^\s*Negative prompt:", re.MULTILINE)


def read_parameters(text: str) -> Imported:
    """The settings in such a paragraph.

    Raises:
        ConfigError: it has no line of settings.
    """
    lines = text[:MOST].strip().splitlines()
    if not lines or len(pairs := _SETTING.findall(lines[-1])) < 2:
        raise ConfigError("the picture's parameters have no line such as Steps: 20, Sampler: Euler, ...")
    found = Imported("a1111")
    words, *after = _NEGATIVE.split("\n".join(lines[:-1]), maxsplit=1)
    negative = after[0] if after else ""
    found.values["prompt"] = found.words(words, "prompt")
    if negative.strip():
        found.values["negative"] = found.words(negative, "negative")
    _read_settings(found, {name.strip(): _unquoted(value) for name, value in pairs})
    return found


def _read_settings(found: Imported, settings: Mapping[str, str]) -> None:
    _read_sampler(found, settings)
    for name, value in settings.items():
        if name in _NUMBERS:
            ours, kind = _NUMBERS[name]
            try:
                found.values[ours] = kind(value)
            except ValueError:
                found.leave(name, f"{value[:40]!r} is no number")
        elif name == "Size":
            _read_size(found, value)
        elif name == "Model":
            found.leave(name, f"{value[:80]} is not asked for; choose a model here")
        elif name not in _SILENT | _SAMPLER:
            found.leave(name, f"{value[:80]} has no counterpart here")


def _read_sampler(found: Imported, settings: Mapping[str, str]) -> None:
    """The solver; since version 1.9 the spacing of its steps is a setting of its own."""
    schedule, solver = settings.get("Schedule type", "Automatic"), None
    karras = schedule == "Karras"
    if "Sampler" in settings:
        solver = solver_of(found, "Sampler", settings["Sampler"], karras=karras)
    if solver is not None:
        found.values["solver"] = solver
    if schedule not in ("Automatic", "Uniform") and not (karras and str(solver).endswith(KARRAS)):
        found.leave("Schedule type", f"{schedule[:80]}; steps are spread as the model's own scheduler does")


def _read_size(found: Imported, value: str) -> None:
    try:
        found.values["width"], found.values["height"] = parse_size(value)
    except ConfigError:
        found.leave("Size", f"{value[:40]!r} is no size")


def _unquoted(value: str) -> str:
    value = value.strip()
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('"')
