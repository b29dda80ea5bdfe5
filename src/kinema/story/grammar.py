"""The grammar of formulas: text to a syntax tree, by precedence climbing.

    either    c if test else d  |  test ? c : d  |  if (test) c else d
    or, ||    and, &&    not, !    < <= > >= == !=  (chains: 0 < t < 9)    + -    * / % //    - +    **

from the loosest to the tightest; `**` groups to the right and binds tighter than the minus in front of it.
The tree is made of Python's `ast` nodes, with `col_offset` the column in the text; names may have dots.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kinema.core.errors import ConfigError
from kinema.story.caret import Place

MAX_LENGTH = 2000
MAX_DEPTH = 64

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<sign>\*\*|//|<=|>=|==|!=|&&|\|\||[-+*/%()<>!?:,]))",
    re.ASCII,
)
_HINTS = {
    "^": "; a power is written **",
    "&": "; write `and`",
    "|": "; write `or`",
    "=": "; equality is ==",
    "'": "; no quotes in a formula",
    '"': "; no quotes in a formula",
    "[": "; write ( )",
    "{": "; write ( )",
}
_BINARY: Mapping[str, tuple[int, type[ast.operator]]] = {
    "+": (5, ast.Add),
    "-": (5, ast.Sub),
    "*": (6, ast.Mult),
    "/": (6, ast.Div),
    "%": (6, ast.Mod),
    "//": (6, ast.FloorDiv),
    "**": (8, ast.Pow),
}
_COMPARE: Mapping[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
}
_LOGIC: Mapping[str, tuple[int, type[ast.boolop]]] = {
    "or": (1, ast.Or),
    "||": (1, ast.Or),
    "and": (2, ast.And),
    "&&": (2, ast.And),
}
_COMPARING, _POWER = 4, 8
_WORDS = frozenset(("if", "else", "and", "or", "not"))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, sign, word, or end
    text: str
    column: int


def parse(place: Place, text: str) -> ast.expr:
    """The syntax tree of `text`.

    Args:
        place: where the text stands in what the user wrote, for errors.
        text: the formula, at most 2000 characters, nested at most 64 deep.

    Raises:
        ConfigError: with the caret under the place.
    """
    if len(text) > MAX_LENGTH:
        raise place.error(f"an expression of {len(text)} characters; the most is {MAX_LENGTH}")
    if not text.strip():
        raise place.error("an empty expression; write a number or a formula such as 3 + sin(t / 10)")
    return _Parser(place, text).whole()


def _tokens(place: Place, text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise place.error(f"unexpected {text[at]!r} in an expression{_HINTS.get(text[at], '')}", at)
        kind, word = str(match.lastgroup), match[str(match.lastgroup)]
        kind = "word" if word in _WORDS else kind
        found.append(_Token(kind, word, match.start(str(match.lastgroup))))
        at = match.end()
    return [*found, _Token("end", "the end", end)]


class _Parser:
    def __init__(self, place: Place, text: str) -> None:
        self._place = place
        self._tokens = _tokens(place, text)
        self._at = 0
        self._depth = 0

    def whole(self) -> ast.expr:
        node = self._expression()
        token = self._next
        if token.kind != "end":
            raise self._stray(token)
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _accept(self, text: str) -> bool:
        found = self._next.text == text and self._next.kind != "end"
        self._at += found
        return found

    def _expect(self, text: str, message: str, token: _Token | None = None) -> None:
        if not self._accept(text):
            raise self._error(message, token or self._next)

    def _error(self, message: str, token: _Token) -> ConfigError:
        return self._place.error(message, token.column)

    def _stray(self, token: _Token) -> ConfigError:
        """What to say about a token where an operator or the end should stand."""
        before = self._tokens[self._at - 1]
        if token.text == ")":
            return self._error("')' is closed without being opened; remove it", token)
        if token.kind == "name" and before.kind == "number":
            return self._error(f"a number runs into a word; write {before.text}*{token.text}", token)
        if token.kind in ("number", "name") or token.text == "(":
            return self._error(f"two values side by side; write * or a comma before {token.text!r}", token)
        return self._error(f"unexpected {token.text!r}", token)

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"nested more than {MAX_DEPTH} deep; split or simplify the formula", token)

    def _expression(self) -> ast.expr:
        self._deeper(self._next)
        node = self._binary(1)
        if self._accept("if"):
            test = self._binary(1)
            self._expect("else", "an `if` without `else`; write a if condition else b")
            node = _at(ast.IfExp(test, node, self._expression()), node.col_offset)
        elif self._accept("?"):
            chosen = self._expression()
            self._expect(":", "a `?` without `:`; write condition ? a : b")
            node = _at(ast.IfExp(node, chosen, self._expression()), node.col_offset)
        self._depth -= 1
        return node

    def _binary(self, least: int) -> ast.expr:
        """Operators that bind at least as tightly as `least`."""
        left = self._unary()
        while True:
            token = self._next
            if token.kind not in ("sign", "word"):
                return left
            if token.text in _BINARY and _BINARY[token.text][0] >= least:
                left = self._arithmetic(left, self._take())
            elif token.text in _COMPARE and least <= _COMPARING:
                left = self._comparison(left)
            elif token.text in _LOGIC and _LOGIC[token.text][0] >= least:
                tightness, operator = _LOGIC[self._take().text]
                right = self._binary(tightness + 1)
                left = _at(ast.BoolOp(operator(), [left, right]), left.col_offset)
            else:
                return left

    def _arithmetic(self, left: ast.expr, token: _Token) -> ast.expr:
        tightness, operator = _BINARY[token.text]
        if tightness == _POWER:  # which groups to the right, one inside the other
            self._deeper(token)
            right = self._binary(tightness)
            self._depth -= 1
        else:
            right = self._binary(tightness + 1)
        return _at(ast.BinOp(left, operator(), right), left.col_offset)

    def _comparison(self, left: ast.expr) -> ast.expr:
        operators: list[ast.cmpop] = []
        sides: list[ast.expr] = []
        while self._next.kind == "sign" and self._next.text in _COMPARE:
            operators.append(_COMPARE[self._take().text]())
            sides.append(self._binary(_COMPARING + 1))
        return _at(ast.Compare(left, operators, sides), left.col_offset)

    def _unary(self) -> ast.expr:
        token = self._next
        if token.text not in ("-", "+", "not", "!") or token.kind not in ("sign", "word"):
            return self._primary()
        self._deeper(token)
        self._take()
        operator: ast.unaryop = {"-": ast.USub, "+": ast.UAdd}.get(token.text, ast.Not)()
        operand = self._binary(_COMPARING if isinstance(operator, ast.Not) else _POWER)
        self._depth -= 1
        return _at(ast.UnaryOp(operator, operand), token.column)

    def _primary(self) -> ast.expr:
        token = self._take()
        if token.kind == "number":
            return _at(ast.Constant(float(token.text)), token.column)
        if token.kind == "name":
            if self._accept("("):
                return _at(ast.Call(ast.Name(token.text), self._arguments(token), []), token.column)
            return _at(ast.Name(token.text), token.column)
        if token.text == "(":
            node = self._expression()
            if self._next.kind == "end":
                raise self._error("'(' is never closed; write ) where it ends", token)
            self._expect(")", f"unexpected {self._next.text!r} inside ( ); write an operator or )")
            return node
        if token.text == "if":
            return self._leading_if(token)
        if token.kind == "end":
            raise self._error("a value is missing at the end", token)
        raise self._error(f"a value is missing before {token.text!r}", token)

    def _leading_if(self, token: _Token) -> ast.expr:
        self._expect("(", "write if (condition) a else b, with the condition in ( )")
        test = self._expression()
        self._expect(")", "the condition of `if` is never closed; write )", token)
        chosen = self._expression()
        self._expect("else", "an `if` without `else`; write if (condition) a else b")
        return _at(ast.IfExp(test, chosen, self._expression()), token.column)

    def _arguments(self, name: _Token) -> list[ast.expr]:
        values: list[ast.expr] = []
        if self._accept(")"):
            return values
        while True:
            values.append(self._expression())
            if self._accept(")"):
                return values
            if self._next.kind == "end":
                raise self._error(f"the ( of {name.text} is never closed; write ) where it ends", name)
            self._expect(",", f"unexpected {self._next.text!r} in {name.text}( ); write a comma, * or )")


def _at(node: ast.expr, column: int) -> ast.expr:
    node.lineno, node.col_offset = 1, column
    return node
