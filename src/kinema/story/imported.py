"""What comes out of another tool's file: settings of ours, and what of it they cannot hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kinema.core.errors import ConfigError
from kinema.story import prompts
from kinema.story.caret import Place
from kinema.story.dialects_numexpr import Formula

_BACKTICKS = re.compile(r"`([^`]*)`")
_LORA = re.compile(r"\s*<(?:lora|lyco|hypernet):[^>]*>")
KARRAS = "-karras"  # of the names of solvers
_NAMES = frozenset(("t", "max_f", "s"))


@dataclass(slots=True)
class Imported:
    """The settings of a shot, and one line for everything that was left behind or changed.

    Attributes:
        kind: of which tool the file is.
        values: what `kinema.story.storyboard.from_mapping` reads.
        lost: what could not be carried over, and what to look at.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def leave(self, name: str, why: str) -> None:
        """Remember that a setting was not carried over."""
        line = f"{name}: {why}"
        if line not in self.lost:
            self.lost.append(line)

    def tell_spacing(self, name: str, solver: str) -> None:
        """Say which models have a solver that spaces its steps by Karras' noise levels."""
        if solver.endswith(KARRAS):
            plainly = solver.removesuffix(KARRAS)
            self.leave(
                name, f"{solver} is of image models and AnimateDiff; elsewhere write solver: {plainly}"
            )

    def words(self, text: str, where: str, frame: int = 0, last: int = 0, seed: int = 0) -> str:
        """A prompt in our syntax: weights in backticks worked out at its frame, LoRAs taken out.

        Args:
            text: as the other tool has it.
            where: of which key, for the list.
            frame: `t` in the weights.
            last: `max_f` in the weights.
            seed: `s` in the weights.
        """
        if _LORA.search(text):
            self.leave(where, f"{', '.join(m.strip() for m in _LORA.findall(text))} (list it under loras)")
            text = _LORA.sub("", text)
        if "`" in text:
            self.leave(where, f"weights that run over frames are fixed at their value at frame {frame}")
            text = _BACKTICKS.sub(lambda m: self._weight(m[1], where, frame, last, seed), text)
        if re.search(r"\bAND\b", text):
            self.leave(where, "AND is kept as a word; use prompts by frame to mix prompts")
        text = " ".join(text.split())
        try:
            prompts.parse(text)
        except ConfigError as error:
            self.leave(where, f"its parentheses are taken as text ({str(error).splitlines()[0]})")
            text = re.sub(r"([()\[\]])", r"\\\1", text.replace("\\", ""))
        return text

    def _weight(self, written: str, where: str, frame: int, last: int, seed: int) -> str:
        try:
            formula = Formula(written.strip(), _NAMES, Place(written))
            value = float(formula.evaluate({"t": frame, "max_f": last, "s": seed}, 1)[0])
        except ConfigError:
            self.leave(where, f"`{written}` cannot be read; it is taken as 1")
            return "1"
        return f"{max(-prompts.MAX_WEIGHT, min(prompts.MAX_WEIGHT, value)):.4g}"


def plain(value: float, digits: int = 12) -> str:
    """A number that Deforum's readers take for one: an exponent would make a formula of it."""
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def split_negative(text: str) -> tuple[str, str]:
    """Words before and after `--neg`."""
    positive, _, negative = text.partition("--neg")
    return positive.strip(), negative.replace("--neg", " ").strip()


def prompt_track(texts: Mapping[int, str], head: str = "", tail: str = "", **more: str) -> Any:
    """Prompts by frame, each until the next unless `more` says otherwise; one text where there is one."""
    distinct = set(texts.values())
    if len(distinct) == 1 and not head and not tail:
        return distinct.pop()
    ends = {name: text for name, text in (("head", head), ("tail", tail)) if text}
    return {**ends, **more, **texts}
