"""Arithmetic over frames, typed by a user and evaluated safely: `3 + sin(tau * sec)`.

The text is parsed (`kinema.story.grammar`) and walked by a whitelist: numbers, names from a table, calls of
functions from a table, `+ - * / % // **`, comparisons, `and or not`, and `a if c else b`. Nothing is compiled
or run by Python. Every value is a float64 array over frames, so the work is bounded by
length of the text x frames; a power that would not end in integers overflows to infinity at once, and a
result that is not finite is an error that names its frame.

Comparisons and `and or not` give 1 or 0. Both branches of `a if c else b` and of `where(c, a, b)` are
computed; only the chosen values have to be finite.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.core.errors import ConfigError
from kinema.story.caret import Place, unknown
from kinema.story.grammar import MAX_DEPTH, parse
from kinema.story.music import FEATURES, Music
from kinema.story.waves import FUNCTIONS, SEEDED, highest, lowest, where

Array = NDArray[np.float64]

CONSTANTS = {"pi": float(np.pi), "e": float(np.e), "tau": float(2 * np.pi)}
VARIABLES = ("t", "f", "sec", "beat", "bpm", "fps", "max_f", "seed")
_NEAR = 1000  # frames between two parts of a clip that are heard in one go
_ELSEWHERE = {
    "s": "seed",
    "i": "t",
    "frame": "t",
    "k": "t",
    "max_frames": "max_f + 1",
    "time": "sec",
    "PI": "pi",
}


class Scope(Mapping[str, Array]):
    """What an expression may name, at some frames `at_N` of a clip of F frames.

    `t` and `f` (the frame, from 0), `sec`, `beat`, `bpm`, `fps`, `seed`, `max_f` (the last frame's number,
    F - 1) and the features of the sound, such as `audio.rms` or `audio.band(60.0, 200.0)`: arrays with a
    value per frame, or with one for a constant.
    """

    def __init__(
        self,
        frames: int,
        fps: float | Fraction,
        seed: int,
        music: Music,
        at_N: NDArray[np.intp] | None = None,
    ) -> None:
        self._clip = (frames, fps, seed, music)
        self._at_N = np.arange(frames) if at_N is None else at_N
        self._known: dict[str, Array] = {}

    def at(self, at_N: NDArray[np.intp]) -> Scope:
        """The same clip at other frames, in any order; they may lie past its end."""
        return Scope(*self._clip, at_N)

    def __getitem__(self, name: str) -> Array:
        if name not in self._known:
            self._known[name] = self._compute(name)
        return self._known[name]

    def _compute(self, name: str) -> Array:
        frames, fps, seed, music = self._clip
        t_N, rate = self._at_N.astype(np.float64), float(fps)
        if name in ("t", "f"):
            return t_N
        if name == "sec":  # one rounding, so that frame 30000 of 30000/1001 is second 1001
            exact = Fraction(fps)
            return t_N * float(exact.denominator) / float(exact.numerator)
        if name == "beat":
            return music.beat_at(t_N / rate)
        if name.startswith("audio."):
            return self._heard(name, rate)
        constant = {"fps": rate, "bpm": music.tempo, "max_f": frames - 1.0, "seed": float(seed)}
        return np.full(1, constant[name])

    def _heard(self, name: str, rate: float) -> Array:
        """A feature at the frames; what lies far between them, as before a key past the end, is not heard."""
        *_, music = self._clip
        feature, _, numbers = name.partition("(")
        values = tuple(float(number) for number in numbers.rstrip(")").split(",") if number)
        frame_M, which_N = np.unique(self._at_N, return_inverse=True)
        far = np.flatnonzero(np.diff(frame_M) > _NEAR) + 1
        parts = [
            music.feature(feature, values, np.arange(part[0], part[-1] + 2) / rate)[part - part[0]]
            for part in np.split(frame_M, far)
        ]
        return np.concatenate(parts)[which_N]

    def __iter__(self) -> Iterator[str]:
        return iter(VARIABLES)

    def __len__(self) -> int:
        return len(VARIABLES)


def variables(frames: int, fps: float | Fraction, seed: int) -> Scope:
    """What an expression may name in a clip of `frames` frames without sound."""
    return Scope(frames, fps, seed, Music())


_BINARY: Mapping[type[ast.operator], Callable[..., Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: lambda a, b: np.floor(a / b),
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


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression. Construction raises `ConfigError` with a caret, evaluation for non-finite values.

    Attributes:
        text: what the user wrote, at most 2000 characters, nested at most 64 deep.
        names: variables it may use; a caller that evaluates with more of them passes more.
        place: where it stands in what the user wrote.
    """

    text: str
    names: tuple[str, ...] = VARIABLES
    place: Place | None = field(default=None, compare=False, repr=False)
    _body: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.place is None:
            object.__setattr__(self, "place", Place(self.text))
        object.__setattr__(self, "_body", parse(self._place, self.text))
        _check(self._body, self, depth=1)

    @property
    def _place(self) -> Place:
        assert self.place is not None
        return self.place

    def at(self, place: Place) -> Expression:
        """The same expression, written at another place."""
        other = copy(self)
        object.__setattr__(other, "place", place)
        return other

    @property
    def uses(self) -> frozenset[str]:
        """The names in it."""
        return frozenset(node.id for node in ast.walk(self._body) if isinstance(node, ast.Name))

    def error(self, message: str, node: ast.expr | None = None) -> ConfigError:
        """A `ConfigError` about this expression with the caret under `node`."""
        column = len(self.text) - len(self.text.lstrip()) if node is None else node.col_offset
        return self._place.error(message, column)

    def evaluate(self, variables: Mapping[str, Array], frames: int) -> Array:
        """The value at each frame, float64 `[F]`.

        Args:
            variables: an array of F or 1 values for each of `names`; see `Scope`.
            frames: F.

        Raises:
            ConfigError: a value is infinite or not a number; the message names the first such frame.
        """
        value_F = self.raw(variables, frames)
        bad_F = ~np.isfinite(value_F)
        if bad_F.any():
            frame = int(np.argmax(bad_F))
            at = int(variables["t"][frame]) if "t" in variables else frame
            raise self.not_finite(float(value_F[frame]), at)
        return value_F

    def raw(self, variables: Mapping[str, Array], frames: int) -> Array:
        """The same; infinities and NaN may be among the values."""
        with np.errstate(all="ignore"):
            return np.broadcast_to(self._value(self._body, variables), (frames,)).astype(np.float64)

    def not_finite(self, value: float, frame: int) -> ConfigError:
        """The error about such a value."""
        return self.error(
            f"the expression gives {value} at frame {frame}; values must be finite at every frame "
            "(guard the place with where(condition, a, b) or clamp(x, low, high))"
        )

    def _value(self, node: ast.expr, variables: Mapping[str, Array]) -> Array:
        """The value of a checked node, F or 1 values."""
        match node:
            case ast.Constant(value=(int() | float()) as value):
                return np.full(1, float(value))
            case ast.Name(id=name):
                return (
                    np.full(1, CONSTANTS[name]) if name in CONSTANTS else self._named(name, node, variables)
                )
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return 1.0 - _truth(self._value(operand, variables))
            case ast.UnaryOp(op=op, operand=operand):
                value_F = self._value(operand, variables)
                return -value_F if isinstance(op, ast.USub) else value_F
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, variables), self._value(right, variables))
            case ast.BoolOp(op=op, values=values):
                fold = lowest if isinstance(op, ast.And) else highest
                return fold(*(_truth(self._value(value, variables)) for value in values))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return where(*(self._value(part, variables) for part in (test, body, orelse)))
            case ast.Compare():
                return self._comparison(node, variables)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(name, args, node, variables)
        raise AssertionError(f"unchecked node {node!r}")

    def _named(self, name: str, node: ast.expr, variables: Mapping[str, Array]) -> Array:
        try:
            return variables[name]
        except ConfigError as error:
            raise self.error(str(error), node) from None

    def _call(self, name: str, args: list[ast.expr], node: ast.expr, variables: Mapping[str, Array]) -> Array:
        if name in FEATURES:
            numbers = ",".join(repr(_number(arg)) for arg in args)
            return self._named(f"{name}({numbers})", node, variables)
        values_F = [self._value(arg, variables) for arg in args]
        if name in SEEDED:  # the shot's seed, shifted by the optional second value, picks the stream
            values_F = [values_F[0], variables["seed"] + sum(values_F[1:], np.zeros(1))]
        return FUNCTIONS[name].apply(*values_F)

    def _comparison(self, node: ast.Compare, variables: Mapping[str, Array]) -> Array:
        """`a < b < c` is true where every neighbouring pair compares true."""
        sides = [self._value(side, variables) for side in (node.left, *node.comparators)]
        holds: NDArray[np.bool_] = np.ones(1, dtype=bool)
        for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
            holds = holds & _COMPARE[type(op)](left, right)
        return holds.astype(np.float64)


def _check(node: ast.expr, owner: Expression, depth: int) -> None:
    """Every name and number is known, or `ConfigError`."""
    if depth > MAX_DEPTH:
        raise owner.error(f"nested more than {MAX_DEPTH} deep; split the formula or simplify it", node)
    match node:
        case ast.Constant(value=value):
            if not np.isfinite(value):  # type: ignore[arg-type]
                raise owner.error("a number too large for a float; the most is about 1.8e308", node)
        case ast.Name(id=name):
            _check_name(name, owner, node)
        case ast.Call(func=ast.Name(id=name), args=args):
            _check_call(name, args, owner, node)
    for child in _children(node):
        _check(child, owner, depth + 1)


def _children(node: Any) -> list[ast.expr]:
    match node:
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.BoolOp(values=values):
            return values
        case ast.Compare(left=left, comparators=rest):
            return [left, *rest]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case ast.Call(args=args):
            return args
    return []


def _number(node: ast.expr) -> float | None:
    """The value of a plain number, which may have a minus."""
    match node:
        case ast.Constant(value=float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=float() as value)):
            return -value
    return None


def _check_name(name: str, owner: Expression, node: ast.expr) -> None:
    if name in FUNCTIONS:
        raise owner.error(f"{name} is a function; call it with parentheses", node)
    if name in FEATURES:
        if FEATURES[name][0]:
            raise owner.error(f"{name} takes two frequencies, as in {name}(60, 200)", node)
    elif name not in owner.names and name not in CONSTANTS:
        if name in _ELSEWHERE:
            raise owner.error(f"unknown name {name!r}; here it is called {_ELSEWHERE[name]}", node)
        raise owner.error(unknown("name", name, [*owner.names, *CONSTANTS, *FEATURES]), node)


def _check_call(name: str, args: list[ast.expr], owner: Expression, node: ast.expr) -> None:
    if name in FEATURES:
        _check_feature(name, args, owner, node)
        return
    if name not in FUNCTIONS:
        raise owner.error(unknown("function", name, [*FUNCTIONS, "audio.band", "audio.level"]), node)
    function = FUNCTIONS[name]
    if not function.least <= len(args) <= function.most:
        takes = (
            f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
        )
        raise owner.error(f"{name} takes {takes} values, not {len(args)}", node)


def _check_feature(name: str, args: list[ast.expr], owner: Expression, node: ast.expr) -> None:
    takes = FEATURES[name][0]
    numbers = [_number(arg) for arg in args]
    if len(args) != takes or None in numbers:
        example = f"{name}(60, 200), two plain numbers" if takes else name
        raise owner.error(f"write {example}", node)
    if takes and not 0 <= (numbers[0] or 0) < (numbers[1] or 0):
        raise owner.error("two frequencies in Hz, the lower first, as in (60, 200)", node)


def _truth(value: Array) -> Array:
    true: NDArray[np.bool_] = value != 0
    return true.astype(np.float64)
