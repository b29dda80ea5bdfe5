"""Formulas of the Deforum dialect: Python's grammar, the arithmetic of numexpr, evaluated by a whitelist.

What differs from our own formulas: whole numbers stay whole (int64, wrapping), `&`, `|`, `~` and `^` work on
bits and on comparisons, comparisons do not chain, `where` wants a comparison first, and a value that is not
finite is a value. `/` always divides truly; `**` binds tighter than the minus in front of it; `%` has the
sign of the divisor. Numbers among themselves are worked out as Python does.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError
from kinema.story.caret import Place, unknown

Value = Any  # an int64, float64 or bool array over frames, or a plain number

MAX_LENGTH = 2000
MAX_DEPTH = 64
MAX_BITS = 4096
MAX_MULTIPLIED = 50  # higher whole powers go by way of real numbers

_ONE = (
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "ceil", "cos", "cosh", "exp",
    "expm1", "floor", "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
_TWO = ("arctan2", "fmod", "hypot", "copysign", "nextafter", "maximum", "minimum")
_PREDICATES = ("isnan", "isinf", "isfinite", "signbit")
_UNCHANGED = ("sum", "prod", "min", "max", "copy")  # over the one value that a frame has


def _as_float(value: Value) -> Value:
    """Functions of whole numbers give float64, of comparisons float32."""
    array = np.asarray(value)
    return array.astype(np.float32 if array.dtype == np.bool_ else np.float64)


def _real_function(name: str) -> Callable[..., Value]:
    function = getattr(np, name)
    return lambda *values: function(*(_as_float(value) for value in values))


def _where(condition: Value, chosen: Value, otherwise: Value) -> Value:
    if _plain(condition):
        return chosen if condition else otherwise
    if np.asarray(condition).dtype != np.bool_:
        raise _Refused("the first value of where is a comparison, such as t > 10")
    return np.where(condition, chosen, otherwise)


_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    **{name: (1, _real_function(name)) for name in _ONE},
    **{name: (2, _real_function(name)) for name in _TWO},
    **{name: (1, _real_function(name)) for name in _PREDICATES},
    **{name: (1, lambda value: value) for name in _UNCHANGED},
    "round": (1, _real_function("rint")),
    "sign": (1, np.sign),
    "ones_like": (1, np.ones_like),
    "real": (1, _as_float),
    "imag": (1, lambda value: np.zeros_like(_as_float(value))),
    "where": (3, _where),
}


class _Refused(Exception):
    """An operation that numexpr does not have for these values; the message is for the user."""


def _power(base: Value, exponent: Value) -> Value:
    if _plain(base, exponent):
        return _plain_power(base, exponent)
    whole = all(np.asarray(value).dtype == np.int64 for value in (base, exponent))
    if not whole:
        return np.power(_as_float(base), _as_float(exponent))
    if isinstance(exponent, np.ndarray) or exponent > MAX_MULTIPLIED:
        return np.power(_as_float(base), _as_float(exponent)).astype(np.int64)
    if exponent < 0:
        raise _Refused("a whole number to a negative power; write it with a point, such as 2.0**-1")
    return np.power(base, exponent)


def _plain_power(base: float, exponent: float) -> Value:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and int(base).bit_length() * exponent > MAX_BITS:
        return np.power(float(base), float(exponent))  # 9**9**9 in whole numbers would not end
    power = base**exponent
    if isinstance(power, complex):
        raise _Refused("a negative number has no such power")
    return power


def _negative(value: Value) -> Value:
    if np.asarray(value).dtype == np.bool_ and isinstance(value, np.ndarray):
        raise _Refused("a comparison has no minus; write 1.0 * in front of it")
    return -value


def _floor_divide(left: Value, right: Value) -> Value:
    kinds = {np.asarray(value).dtype.kind for value in (left, right)}
    return np.floor(left / right) if "f" in kinds and not _plain(left, right) else left // right


def _modulo(left: Value, right: Value) -> Value:
    """Of real numbers by their quotient: 20.0 % 1e-3 is 0, where the exact remainder is 1e-3."""
    if _plain(left, right):
        return left % right
    kinds = {np.asarray(value).dtype.kind for value in (left, right)}
    return left - np.floor(left / right) * right if "f" in kinds else left % right


def _bitwise(operation: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    def apply(left: Value, right: Value) -> Value:
        if any(np.asarray(value).dtype == np.float64 for value in (left, right)):
            raise _Refused("& | ^ << >> take comparisons or whole numbers; put each comparison in ( )")
        return operation(left, right)

    return apply


def _shift(operation: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    def apply(left: Value, right: Value) -> Value:
        if not isinstance(right, np.ndarray) and not 0 <= right < 63:
            raise _Refused("a shift by 0 to 62 places")
        return operation(left, right)

    return _bitwise(apply)


_BINARY: Mapping[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.BitAnd: _bitwise(lambda a, b: a & b),
    ast.BitOr: _bitwise(lambda a, b: a | b),
    ast.BitXor: _bitwise(lambda a, b: a ^ b),
    ast.LShift: _shift(lambda a, b: a << b),
    ast.RShift: _shift(lambda a, b: a >> b),
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Value, Value], Value]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Value], Value]] = {
    ast.UAdd: lambda a: a,
    ast.USub: _negative,
    ast.Invert: lambda a: ~a,
}


def _plain(*values: Value) -> bool:
    return not any(isinstance(value, np.ndarray | np.generic) for value in values)


@dataclass(frozen=True, slots=True)
class Formula:
    """A checked formula. Construction raises `ConfigError` with a caret.

    Attributes:
        text: the formula.
        names: the variables it may use.
        place: where it stands in what the user wrote.
    """

    text: str
    names: frozenset[str]
    place: Place
    _body: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_body", self._parse())
        self._check(self._body, 1)

    def evaluate(self, variables: Mapping[str, Value], frames: int) -> NDArray[np.float64]:
        """The value at each frame, float64 `[F]`; NaN and infinities are values here.

        Args:
            variables: for each of `names`, an array of F values or a plain number.
            frames: F.

        Raises:
            ConfigError: an operation on the wrong kind of value, or a plain division by zero.
        """
        with np.errstate(all="ignore"):
            value = self._value(self._body, variables)
        try:
            return np.broadcast_to(np.asarray(value, np.float64), (frames,))
        except OverflowError:
            raise self.error("a whole number too large; write it with a point") from None

    def error(self, message: str, node: ast.expr | None = None) -> ConfigError:
        """An error with the caret under `node`."""
        return self.place.error(message, 0 if node is None else self._column(node))

    def _column(self, node: ast.expr) -> int:
        lines = self.text.split("\n")
        line = lines[node.lineno - 1].encode()[: node.col_offset].decode("utf-8", "replace")
        return sum(len(before) + 1 for before in lines[: node.lineno - 1]) + len(line)

    def _parse(self) -> ast.expr:
        if not self.text.strip():
            raise self.place.error("there is no value; write one, such as (1)")
        if len(self.text) > MAX_LENGTH:
            raise self.place.error(f"a formula of {len(self.text)} characters; the most is {MAX_LENGTH}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about numbers that run into words
                return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            column = error.offset - 1 if error.offset and error.lineno == 1 else len(self.text)
            raise self.place.error(f"not a formula: {error.msg.partition(';')[0]}", column) from None
        except (ValueError, MemoryError, RecursionError):
            raise self.place.error(f"nested too deeply; the most is {MAX_DEPTH} levels") from None

    def _check(self, node: ast.expr, depth: int) -> None:
        """Every node is on the whitelist."""
        if depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep; split the formula", node)
        for child in self._children(node):
            self._check(child, depth + 1)

    def _children(self, node: ast.expr) -> list[ast.expr]:
        match node:
            case ast.Constant(value=bool() | float()):
                return []
            case ast.Constant(value=int() as value):
                if abs(value) >= 2**63:
                    raise self.error("a whole number too large; write it with a point", node)
                return []
            case ast.Name(id=name) if name in self.names:
                return []
            case ast.Name(id=name):
                raise self.error(unknown("name", name, self.names), node)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return [left, right]
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return [left, right]
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                if len(args) != (takes := _FUNCTIONS[name][0]):
                    raise self.error(f"{name} takes {takes} values, not {len(args)}", node)
                return args
        raise self.error(_unreadable(node), node)

    def _value(self, node: ast.expr, variables: Mapping[str, Value]) -> Value:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return variables[name]
            case ast.UnaryOp(op=op, operand=operand):
                return self._apply(node, _UNARY[type(op)], [operand], variables)
            case ast.BinOp(left=left, op=op, right=right):
                return self._apply(node, _BINARY[type(op)], [left, right], variables)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._apply(node, _COMPARE[type(op)], [left, right], variables)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._apply(node, _FUNCTIONS[name][1], args, variables)
        raise AssertionError(f"unchecked node {node!r}")

    def _apply(
        self,
        node: ast.expr,
        operation: Callable[..., Value],
        operands: list[ast.expr],
        variables: Mapping[str, Value],
    ) -> Value:
        values = [self._value(operand, variables) for operand in operands]
        try:
            return operation(*values)
        except _Refused as error:
            raise self.error(str(error), node) from None
        except ZeroDivisionError:
            raise self.error("a division by zero; guard it with where(condition, a, b)", node) from None
        except (TypeError, OverflowError):
            raise self.error("this operation has no value for these numbers", node) from None


def _unreadable(node: ast.expr) -> str:
    match node:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return "and, or, not are not read in this dialect; write (a) & (b), (a) | (b), a == 0"
        case ast.Compare():
            return "comparisons do not chain in this dialect; write (a < t) & (t < b)"
        case ast.IfExp():
            return "if and else are not read in this dialect; write where(condition, a, b)"
        case ast.Call(func=ast.Name(id=name)):
            return unknown("function", name, _FUNCTIONS)
        case ast.Call():
            return "two values side by side; write * between them"
    return "only numbers, variables, + - * / % **, comparisons, & | ~ and functions"
