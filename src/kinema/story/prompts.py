r"""Prompt syntax: words with weights, and words moved to the negative prompt.

    (word:1.3)   weight 1.3                 (word)   1.1            [word]   1 / 1.1
    (fog:-0.5)   to the negative prompt, weight 0.5                 (-bad hands)   the same, weight 1
    \( \) \[ \] \: \- \\                    the character itself

Nested weights multiply. A phrase inside a negative one stays negative. Weight 0 leaves the phrase out.
The notation is that of the Stable Diffusion web UIs; negative weights follow Deforum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from kinema.core.errors import ConfigError
from kinema.story.caret import at_caret

Spans = tuple[tuple[str, float], ...]

EMPHASIS = 1.1
MAX_WEIGHT = 10.0
MAX_DEPTH = 64
MAX_LENGTH = 32_000

_ESCAPABLE = "()[]:-\\"
_PLAIN = re.compile(r"[^\\()\[\]:]+")
_BRACKET_WEIGHT = re.compile(r":\s*[+-]?[\d.]+\s*\]")
_MINUS = re.compile(r"\s*-\s*")
_WEIGHT = re.compile(
    r":\s*([+-]?(?:\d{1,20}\.?\d{0,20}|\.\d{1,20})(?:[eE][+-]?\d{1,4})?|[+-]?(?:nan|inf)\w*)\s*\)", re.I
)


class PromptError(ConfigError):
    """A prompt whose weights cannot be read; the message has a caret under the place."""


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A prompt taken apart.

    Attributes:
        spans: text with weight in (0, 10], in order; joined they are the prompt without its notation.
        negative: phrases for the negative prompt, with weight in (0, 10].
    """

    spans: Spans
    negative: Spans

    @property
    def text(self) -> str:
        """The words without the notation."""
        return "".join(text for text, _ in self.spans)

    @property
    def plain(self) -> bool:
        """No span has a weight other than 1."""
        return all(weight == 1.0 for _, weight in self.spans)


@dataclass(slots=True)
class _Piece:
    text: str
    weight: float = 1.0
    negative: bool = False


@dataclass(slots=True)
class _Group:
    bracket: str
    column: int
    negative: bool = False
    pieces: list[_Piece] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Literal text, joined to the plain text before it."""
        if self.pieces and self.pieces[-1].weight == 1.0 and not self.pieces[-1].negative:
            self.pieces[-1].text += text
        else:
            self.pieces.append(_Piece(text))


def parse(text: str) -> ParsedPrompt:
    """Read the weights of a prompt.

    Raises:
        PromptError: unbalanced or too deep parentheses, a weight outside -10..10, or too long a text.
    """
    if len(text) > MAX_LENGTH:
        raise PromptError(f"a prompt of {len(text)} characters; the most is {MAX_LENGTH}.")
    stack, column = [_Group("", 0)], 0
    while column < len(text):
        column = _read(text, column, stack)
    if len(stack) > 1:
        raise _unbalanced(text, stack[-1].column)
    spans, negative = _separate(stack[0].pieces)
    return ParsedPrompt(spans, negative)


def _read(text: str, column: int, stack: list[_Group]) -> int:
    """Take one token at `column`; returns the column after it."""
    character, group = text[column], stack[-1]
    if character == "\\" and text[column + 1 : column + 2] and text[column + 1] in _ESCAPABLE:
        group.add(text[column + 1])
        return column + 2
    if character in "([":
        return _open(text, column, stack)
    if character == ":" and group.bracket == "(" and (match := _WEIGHT.match(text, column)):
        _close(text, column, stack, _written_weight(text, match))
        return match.end()
    if character in ")]":
        if group.bracket != {")": "(", "]": "["}[character]:
            raise _unbalanced(text, column)
        _close(text, column, stack, None)
        return column + 1
    if character == ":" and group.bracket == "[" and _BRACKET_WEIGHT.match(text, column):
        message = "[ ] takes no weight; write ( ) around it, or \\: for a plain colon"
        raise at_caret(PromptError, message, text, column)
    run = _PLAIN.match(text, column)
    group.add(run[0] if run else character)
    return run.end() if run else column + 1


def _open(text: str, column: int, stack: list[_Group]) -> int:
    if len(stack) > MAX_DEPTH:
        raise at_caret(
            PromptError, f"parentheses nested more than {MAX_DEPTH} deep; use (word:1.3)", text, column
        )
    minus = _MINUS.match(text, column + 1) if text[column] == "(" else None
    stack.append(_Group(text[column], column, negative=bool(minus)))
    return minus.end() if minus else column + 1


def _written_weight(text: str, match: re.Match[str]) -> float:
    weight = float(match[1])
    if not abs(weight) <= MAX_WEIGHT:
        message = f"weight {match[1]} is outside -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise at_caret(PromptError, f"{message}; write \\: for a plain colon", text, match.start(1))
    return weight


def _close(text: str, column: int, stack: list[_Group], weight: float | None) -> None:
    """End the innermost group: scale what is in it and hand it to the group around."""
    group = stack.pop()
    if weight is None:
        weight = 1.0 / EMPHASIS if group.bracket == "[" else 1.0 if group.negative else EMPHASIS
    negative = group.negative or weight < 0
    for piece in group.pieces:
        piece.weight *= abs(weight)
        piece.negative |= negative
        if piece.weight > MAX_WEIGHT:
            message = f"nested weights multiply to {piece.weight:.4g}; the most is {MAX_WEIGHT:g}"
            raise at_caret(PromptError, message, text, column)
    stack[-1].pieces += group.pieces


def _unbalanced(text: str, column: int) -> PromptError:
    bracket = text[column]
    what = "never closed" if bracket in "([" else "closed without being opened"
    return at_caret(PromptError, f"{bracket} is {what}; write \\{bracket} for a plain one", text, column)


def _separate(pieces: list[_Piece]) -> tuple[Spans, Spans]:
    """Positive and negative spans; equal neighbours become one, a removed phrase takes its comma along."""
    positive: list[tuple[str, float]] = []
    negative: list[tuple[str, float]] = []
    removed = False
    for piece in pieces:
        if piece.negative or piece.weight == 0.0:
            removed = True
            if piece.weight > 0.0 and piece.text.strip(" ,"):
                negative.append((piece.text.strip(" ,"), piece.weight))
            continue
        text = _after_removal(piece.text, positive[-1][0] if positive else ",") if removed else piece.text
        removed = removed and not text
        _append(positive, text, piece.weight)
    if removed and positive:
        last, weight = positive.pop()
        _append(positive, last.rstrip(" ,"), weight)
    return tuple(positive), tuple(negative)


def _after_removal(text: str, before: str) -> str:
    """`text` without the comma or blank that the removed phrase leaves doubled."""
    if before.rstrip(" ").endswith(","):
        text = text.lstrip(" ").removeprefix(",")
        return text if before.endswith(",") and before != "," else text.lstrip(" ")
    return text.lstrip(" ") if before.endswith(" ") else text


def _append(spans: list[tuple[str, float]], text: str, weight: float) -> None:
    if not text:
        return
    if spans and spans[-1][1] == weight:
        text = spans.pop()[0] + text
    spans.append((text, weight))


def render(spans: Iterable[tuple[str, float]]) -> str:
    """The notation that `parse` reads back: weights in (0, 10], neighbours of different weight."""
    return "".join(_render_span(text, weight) for text, weight in spans)


def _render_span(text: str, weight: float) -> str:
    if weight == 1.0:
        return re.sub(r"([()\[\]\\])", r"\\\1", text)
    escaped = re.sub(r"([()\[\]\\:])", r"\\\1", text)
    escaped = re.sub(r"^(\s*)-", r"\1\\-", escaped)
    return f"({escaped}:{weight!r})"


def both_sides(prompt: str, negative: str) -> tuple[Spans, Spans]:
    """The spans of the prompt and of the negative prompt, each with what the other one moved there.

    `both_sides("a fox (fog:-1)", "blurry")` is `(("a fox ", 1.0),)` and `(("blurry, fog", 1.0),)`.
    """
    first, second = parse(prompt), parse(negative)
    return _joined(first.spans, second.negative), _joined(second.spans, first.negative)


def _joined(spans: Spans, phrases: Spans) -> Spans:
    joined = list(spans)
    for phrase, weight in phrases:
        if joined:
            _append(joined, ", ", 1.0)
        _append(joined, phrase, weight)
    return tuple(joined)
