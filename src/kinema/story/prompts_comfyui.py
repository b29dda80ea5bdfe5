r"""Prompts as ComfyUI reads them, in the notation of `kinema.story.prompts`.

    (word)       1.1 times the weight around it          (word:1.3)   weight 1.3, whatever is around it
    [word]       is [word]                               \( \)        the parentheses themselves

The web UIs that the notation comes from multiply nested weights and read `[ ]` as 1 / 1.1; so
`((fox:1.2) snow:1.5)` is a fox at 1.2 here and at 1.8 there.
"""

from __future__ import annotations

import re

from kinema.story.prompts import EMPHASIS, MAX_DEPTH, MAX_WEIGHT, render

_TOKEN = re.compile(r"\\[()]|[()]|[^\\()]+|\\")
_WEIGHT = re.compile(r"(?s)(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")


def from_comfyui(text: str) -> str:
    """The same words with the same weights for `kinema.story.prompts.parse`.

    Parentheses that are not closed, or closed without being opened, are taken as text. Weights are kept
    within 10 of 0; a phrase of weight 0 is left out, one below 0 goes to the negative prompt.
    """
    spans = [span for span in _weighted(text, 1.0, 0) if span[0] and span[1]]
    return "".join(_written(words, max(-MAX_WEIGHT, min(weight, MAX_WEIGHT))) for words, weight in spans)


def _written(words: str, weight: float) -> str:
    if weight > 0:
        return render([(words, weight)])
    bare = re.sub(r"([()\[\]\\:-])", r"\\\1", words)
    return f"({bare}:{weight!r})"


def _weighted(text: str, weight: float, depth: int) -> list[tuple[str, float]]:
    """Words with weights; what stands in parentheses by its own or by `EMPHASIS` times the one around."""
    found: list[tuple[str, float]] = []
    for part, grouped in _parts(text):
        if not grouped or depth > MAX_DEPTH:
            found.append((_unescaped(part), weight))
            continue
        inner, own = part[1:-1], weight * EMPHASIS
        if (match := _WEIGHT.fullmatch(inner)) and match[1]:
            inner, own = match[1], float(match[2])
        found += _weighted(inner, own, depth + 1)
    return found


def _parts(text: str) -> list[tuple[str, bool]]:
    """The text cut into what stands in outermost parentheses, with them, and what stands between."""
    parts: list[tuple[str, bool]] = []
    begin = level = 0
    for token in _TOKEN.finditer(text):
        if token[0] == "(":
            if level == 0:
                parts.append((text[begin : token.start()], False))
                begin = token.start()
            level += 1
        elif token[0] == ")" and level:
            level -= 1
            if level == 0:
                parts.append((text[begin : token.end()], True))
                begin = token.end()
    return [*parts, (text[begin:], False)]


def _unescaped(words: str) -> str:
    return re.sub(r"\\([()])", r"\1", words)
