"""Arithmetic over frames, typed by a user and evaluated safely: `3 + sin(tau * sec)`.

The text is parsed to Python's syntax tree and walked by a whitelist: numbers, names from a table, calls of
functions from a table, `+ - * / % **`, comparisons, `and or not`, and `a if c else b`. Nothing is compiled
or run by Python. Every value is a float64 array over frames, so the work is bounded by
length of the text x frames; a power that would not end in integers overflows to infinity at once, and a
result that is not finite is an error that names its frame.

Comparisons and `and or not` give 1 or 0. Both branches of `a if c else b` and of `where(c, a, b)` are
computed; only the chosen values have to be finite.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError, unknown_name
from kinema.story.caret import at_caret

Array = NDArray[np.float64]

MAX_LENGTH = 2000
MAX_DEPTH = 64

CONSTANTS = {"pi": float(np.pi), "e": float(np.e), "tau": float(2 * np.pi)}
VARIABLES = ("t", "f", "sec", "fps", "max_f", "seed")


def variables(frames: int, fps: float | Fraction, seed: int) -> dict[str, Array]:
    """What an expression may name: `t` and `f` (the frame, from 0), `sec`, `fps`, `seed`, and `max_f`.

    `max_f` is the index of the last frame, frames - 1. Arrays of F values, or of 1 for a constant.
    """
    t_F = np.arange(frames, dtype=np.float64)
    return {
        "t": t_F,
        "f": t_F,
        "sec": t_F / float(fps),
        "fps": np.float64(fps) * np.ones(1),
        "max_f": np.full(1, frames - 1.0),
        "seed": np.full(1, float(seed)),
    }


def _fraction(x: Array) -> Array:
    return x - np.floor(x)


def _smoothstep(low: Array, high: Array, x: Array) -> Array:
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def _pulse(x: Array, width: Array | float = 0.5) -> Array:
    return (_fraction(x) < width).astype(np.float64)


def _where(condition: Array, chosen: Array, otherwise: Array) -> Array:
    return np.asarray(np.where(condition != 0, chosen, otherwise))


def _hash(lattice: NDArray[np.uint64], salt: NDArray[np.uint64]) -> Array:
    """A value in -1..1 for each lattice point: the finaliser of SplitMix64 (Steele et al. 2014)."""
    z = lattice * np.uint64(0x9E3779B97F4A7C15) + salt * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    unit: Array = (z >> np.uint64(11)).astype(np.float64) / 2.0**52
    return unit - 1.0


def _whole(x: Array) -> NDArray[np.uint64]:
    """Floored and wrapped to 0..2^32, so that any float is a lattice point."""
    wrapped: Array = np.mod(np.nan_to_num(np.floor(x), posinf=0.0, neginf=0.0), 2.0**32)
    return wrapped.astype(np.uint64)


def value_noise(x: Array, stream: Array) -> Array:
    """Smooth noise in -1..1 through a random value at each whole `x`; `stream` picks which values."""
    low, salt, u = _whole(x), _whole(stream), _fraction(x)
    fade = u * u * u * (u * (6.0 * u - 15.0) + 10.0)
    return (1.0 - fade) * _hash(low, salt) + fade * _hash(low + np.uint64(1), salt)


def _round(x: Array) -> Array:
    return np.floor(x + 0.5)


@dataclass(frozen=True, slots=True)
class _Function:
    apply: Callable[..., Array]
    least: int
    most: int


def _variadic(pairwise: np.ufunc) -> Callable[..., Array]:
    def fold(first: Array, *rest: Array) -> Array:
        for value in rest:
            first = pairwise(first, value)
        return first

    return fold


FUNCTIONS: Mapping[str, _Function] = {
    **{
        name: _Function(getattr(np, numpy_name), 1, 1)
        for name, numpy_name in {
            "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
            "exp": "exp", "log": "log", "sqrt": "sqrt", "abs": "abs", "floor": "floor", "ceil": "ceil",
        }.items()
    },
    "atan2": _Function(np.arctan2, 2, 2),
    "round": _Function(_round, 1, 1),
    "min": _Function(_variadic(np.minimum), 1, 16),
    "max": _Function(_variadic(np.maximum), 1, 16),
    "clamp": _Function(lambda x, low, high: np.minimum(np.maximum(x, low), high), 3, 3),
    "where": _Function(_where, 3, 3),
    "mod": _Function(np.mod, 2, 2),
    "saw": _Function(_fraction, 1, 1),
    "tri": _Function(lambda x: 1.0 - np.abs(2.0 * _fraction(x) - 1.0), 1, 1),
    "pulse": _Function(_pulse, 1, 2),
    "smoothstep": _Function(_smoothstep, 3, 3),
    "noise": _Function(value_noise, 1, 2),
}  # fmt: skip

_BINARY: Mapping[type[ast.operator], Callable[..., Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[..., NDArray[np.bool_]]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_HINTS = {"^": "; a power is written **", "&": "; write `and`", "|": "; write `or`", "=": "; equality is =="}
_STRAY = re.compile(r"[^A-Za-z0-9_.+\-*/%()<>=!,\s]")
_GLUED = re.compile(r"(?<![\w.])(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?=[A-Za-z_])")


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression. Construction raises `ConfigError` with a caret, evaluation for non-finite values.

    Attributes:
        text: what the user wrote, at most 2000 characters, nested at most 64 deep.
        names: variables it may use; a caller that evaluates with more of them passes more.
    """

    text: str
    names: tuple[str, ...] = VARIABLES
    _body: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_body", _parse(self.text))
        _check(self._body, self, depth=1)

    def error(self, message: str, node: ast.expr | None = None) -> ConfigError:
        """A `ConfigError` about this expression with the caret under `node`."""
        column = 0 if node is None else node.col_offset + _indent(self.text)
        return at_caret(ConfigError, message, self.text, column)

    def evaluate(self, variables: Mapping[str, Array], frames: int) -> Array:
        """The value at each frame, float64 `[F]`.

        Args:
            variables: an array of F or 1 values for each of `names`; see `variables()`.
            frames: F.

        Raises:
            ConfigError: a value is infinite or not a number; the message names the first such frame.
        """
        with np.errstate(all="ignore"):
            value_F = np.broadcast_to(_value(self._body, variables), (frames,)).astype(np.float64)
        bad_F = ~np.isfinite(value_F)
        if bad_F.any():
            frame = int(np.argmax(bad_F))
            at = int(variables["t"][frame]) if "t" in variables else frame
            raise self.error(
                f"the expression gives {value_F[frame]} at frame {at}; values must be finite at every frame "
                "(guard the place with where(condition, a, b) or clamp(x, low, high))"
            )
        return value_F


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _parse(text: str) -> ast.expr:
    """The syntax tree, or a `ConfigError` with a caret; what Python's parser only warns about is refused."""
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"an expression of {len(text)} characters; the most is {MAX_LENGTH}.")
    if not text.strip():
        raise ConfigError("an empty expression; write a number or a formula such as 3 + sin(t / 10).")
    if stray := _STRAY.search(text):
        hint = _HINTS.get(stray[0], "")
        raise at_caret(ConfigError, f"unexpected {stray[0]!r} in an expression{hint}", text, stray.start())
    if glued := _GLUED.search(text):
        raise at_caret(ConfigError, "a number runs into a word; put * or a blank between", text, glued.end())
    try:
        return ast.parse(re.sub(r"\s", " ", text).lstrip(), mode="eval").body
    except SyntaxError as error:
        column = error.offset - 1 + _indent(text) if error.offset else len(text.rstrip())
        message = error.msg.partition(";")[0]
        raise at_caret(ConfigError, f"not an expression: {message}", text, column) from None
    except (ValueError, MemoryError, RecursionError):
        raise ConfigError(f"an expression nested too deeply; the most is {MAX_DEPTH} levels.") from None


def _check(node: ast.expr, owner: Expression, depth: int) -> None:
    """Every node is on the whitelist, or `ConfigError`."""
    if depth > MAX_DEPTH:
        raise owner.error(f"nested more than {MAX_DEPTH} deep; split the formula or simplify it", node)
    match node:
        case ast.Constant(value=(int() | float()) as value) if not isinstance(value, bool):
            _check_number(value, owner, node)
            children: list[ast.expr] = []
        case ast.Name(id=name):
            _check_name(name, owner, node)
            children = []
        case ast.UnaryOp(operand=operand) if not isinstance(node.op, ast.Invert):
            children = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            children = [left, right]
        case ast.BoolOp(values=values):
            children = values
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARE for op in ops):
            children = [left, *rest]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            children = [test, body, orelse]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            _check_call(name, args, owner, node)
            children = args
        case _:
            raise owner.error(
                "only numbers, + - * / % **, comparisons, and/or/not, if/else and functions", node
            )
    for child in children:
        _check(child, owner, depth + 1)


def _check_number(value: float, owner: Expression, node: ast.expr) -> None:
    try:
        finite = np.isfinite(float(value))
    except OverflowError:
        finite = False
    if not finite:
        raise owner.error("a number too large for a float; the most is about 1.8e308", node)


def _check_name(name: str, owner: Expression, node: ast.expr) -> None:
    if name in FUNCTIONS:
        raise owner.error(f"{name} is a function; call it with parentheses", node)
    if name not in owner.names and name not in CONSTANTS:
        raise owner.error(str(unknown_name("name", name, [*owner.names, *CONSTANTS])), node)


def _check_call(name: str, args: list[ast.expr], owner: Expression, node: ast.expr) -> None:
    if name not in FUNCTIONS:
        raise owner.error(str(unknown_name("function", name, FUNCTIONS)), node)
    function = FUNCTIONS[name]
    if not function.least <= len(args) <= function.most:
        takes = (
            f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
        )
        raise owner.error(f"{name} takes {takes} values, not {len(args)}", node)


def _truth(value: Array) -> Array:
    true: NDArray[np.bool_] = value != 0
    return true.astype(np.float64)


def _value(node: ast.expr, variables: Mapping[str, Array]) -> Array:
    """The value of a checked node, F or 1 values."""
    match node:
        case ast.Constant(value=(int() | float()) as value):
            return np.full(1, float(value))
        case ast.Name(id=name):
            return variables[name] if name in variables else np.full(1, CONSTANTS[name])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return 1.0 - _truth(_value(operand, variables))
        case ast.UnaryOp(op=op, operand=operand):
            value_F = _value(operand, variables)
            return -value_F if isinstance(op, ast.USub) else value_F
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, variables), _value(right, variables))
        case ast.BoolOp(op=op, values=values):
            fold = np.minimum if isinstance(op, ast.And) else np.maximum
            return _variadic(fold)(*(_truth(_value(value, variables)) for value in values))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _where(*(_value(part, variables) for part in (test, body, orelse)))
        case ast.Compare():
            return _comparison(node, variables)
        case ast.Call(func=ast.Name(id=name), args=args):
            values_F = [_value(arg, variables) for arg in args]
            if name == "noise":  # the shot's seed, shifted by the optional second value, picks the stream
                values_F = [values_F[0], variables["seed"] + sum(values_F[1:], np.zeros(1))]
            return FUNCTIONS[name].apply(*values_F)
    raise AssertionError(f"unchecked node {node!r}")


def _comparison(node: ast.Compare, variables: Mapping[str, Array]) -> Array:
    """`a < b < c` is true where every neighbouring pair compares true."""
    sides = [_value(side, variables) for side in (node.left, *node.comparators)]
    holds: NDArray[np.bool_] = np.ones(1, dtype=bool)
    for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
        holds = holds & _COMPARE[type(op)](left, right)
    return holds.astype(np.float64)
