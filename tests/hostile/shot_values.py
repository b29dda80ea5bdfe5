"""Values for every field of a shot, made from the shot's own JSON schema: near what it asks for, and wild.

Fields that are added later are covered without a word here. Numbers come from the edges of their range, texts
from the fields' own small languages, paths from a folder of good and bad media.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kinema.story.shot import Shot

PATHS = (
    "a.png",
    "c.mp4",
    "text.png",
    "none.png",
    "folder",
    "previous",
    "a\0.png",
    "-y.mp4",
    "http://x/y.png",
    "",
)
PATH_FIELDS = ("image", "path", "audio", "sound", "source", "extend", "keyframes", "mask", "model")
WORDS = (
    "a fox", "", "0:(1), 8:(2)", "0:(1", "sin(t)", "1/0", "9**9**9", "t.__class__", "(a:1.2) b", "(a:nan)",
    "((((((a", "{a|b}", "[a|b]", "1e999", "nan", "-inf", "0x10", "1_000", "١", "a" * 300, "a\nb", "\x1b[31m",
    "ü狐🦊", "\u202eabc", "\ud800", "a\0b", "%s%n", "2s", "50%", "-1", "30000/1001", "1/0", "24", "cuda:99",
    "zoom in 1.2, pan left", "fade 0.5s", "dissolve", "auto", "'", '"', "`", "$(touch x)", "--out", "null",
    "max_f-1", "0: a, 8: b", '{"0": "a"}', "1" * 400, "1e-400", "0..8", "audio.bass", "if(t>3, 1, 0)",
)  # fmt: skip
WILD = (
    None, True, False, -1, 0, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**70, 10**400, 0.5, -0.0, 1e308, 5e-324,
    math.nan, math.inf, -math.inf, [], {}, [[]], [None], {"": ""}, {0: 1}, {None: 1}, {"0": {"value": 1}},
    [1, 2], ["a", "b"], {"x": {"y": {"z": 1}}},
)  # fmt: skip
PYTHON_ONLY = (
    b"bytes", object(), {1, 2}, Decimal("1.5"), Fraction(1, 3), np.float64("nan"), np.int64(5), np.zeros(3),
    Path("a.png"), 1j, range(3), len, Ellipsis,
)  # fmt: skip


@cache
def schema() -> dict[str, Any]:
    """The shot's JSON schema."""
    return Shot.model_json_schema()


def fields() -> list[str]:
    """Every field of a shot."""
    return sorted(schema()["properties"])


def one_field(name: str, *, python: bool = False) -> st.SearchStrategy[Any]:
    """A value for this field: mostly near what its schema asks for."""
    near = _near(schema()["properties"][name], name, 0)
    wild = st.sampled_from(WILD + PYTHON_ONLY if python else WILD)
    return st.one_of(near, near, near, st.sampled_from(WORDS), wild)


def shots(*, python: bool = False, most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """A few fields of a shot at once, so that they can contradict each other; now and then an unknown one."""
    chosen = st.lists(st.sampled_from(fields()), max_size=most, unique=True)
    known = chosen.flatmap(
        lambda names: st.fixed_dictionaries({n: one_field(n, python=python) for n in names})
    )
    stray = st.dictionaries(
        st.sampled_from(["promt", "cfg", "size", "_x", ""]), st.sampled_from(WORDS), max_size=1
    )
    return st.one_of(known, known, known, st.builds(lambda a, b: a | b, known, stray))


def _near(node: Mapping[str, Any], name: str, depth: int) -> st.SearchStrategy[Any]:
    """A value that this part of the schema allows, or only just does not."""
    if "$ref" in node:
        return _near(schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]], name, depth)
    for key in ("anyOf", "oneOf"):
        if key in node:
            return st.one_of([_near(option, name, depth) for option in node[key]])
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from([*node["enum"], f"{node['enum'][0]}x"])
    kind = node.get("type", "string")
    if isinstance(kind, list):
        return st.one_of([_near({**node, "type": one}, name, depth) for one in kind])
    return {
        "null": lambda: st.none(),
        "boolean": lambda: st.booleans(),
        "integer": lambda: _numbers(node, whole=True),
        "number": lambda: _numbers(node, whole=False),
        "array": lambda: _lists(node, name, depth),
        "object": lambda: _objects(node, depth),
    }.get(kind, lambda: _texts(name))()


def _texts(name: str) -> st.SearchStrategy[str]:
    if name in PATH_FIELDS:
        return st.one_of(
            st.sampled_from(PATHS),
            st.sampled_from([f"{p}@{w}" for p in PATHS[:3] for w in ("0", "4", "-1:0.5", "x")]),
        )
    return st.one_of(st.sampled_from(WORDS), st.text(max_size=30))


def _numbers(node: Mapping[str, Any], *, whole: bool) -> st.SearchStrategy[Any]:
    """The edges of a range, what lies just outside, and what lies inside near the lower edge."""
    low = node.get("minimum", node.get("exclusiveMinimum", -10))
    high = node.get("maximum", node.get("exclusiveMaximum", 1000))
    step = 1 if whole else 1e-6
    edges = [low, low + step, low - step, high, high + step]
    small = st.integers(math.ceil(low), math.ceil(min(low + 40, high)))
    inside = small if whole else st.floats(float(low), float(min(low + 40, high)))
    return st.one_of(st.sampled_from(edges), inside, inside, inside)


def _lists(node: Mapping[str, Any], name: str, depth: int) -> st.SearchStrategy[Any]:
    if "prefixItems" in node:
        return st.tuples(*[_near(item, name, depth + 1) for item in node["prefixItems"]]).map(list)
    return st.lists(_near(node.get("items", {}), name, depth + 1), max_size=3)


def _objects(node: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    known = node.get("properties", {})
    if not known and "patternProperties" not in node:  # free names: texts with weights
        return st.dictionaries(
            st.sampled_from(WORDS), st.one_of(st.floats(-1, 3), st.sampled_from(WORDS)), max_size=3
        )
    if depth > 3:
        return st.just({})
    inner = {key: _near(value, key, depth + 1) for key, value in known.items()}
    required = [key for key in node.get("required", ()) if key in inner]
    optional = st.lists(st.sampled_from(sorted(inner)), max_size=3, unique=True) if inner else st.just([])
    named = optional.flatmap(lambda keys: st.fixed_dictionaries({k: inner[k] for k in {*required, *keys}}))
    places = st.sampled_from(["0", "4", "-1", "2s", "50%", "99", "0..8", "x", "max_f-1", "1b"])
    patterns = [_near(value, "", depth + 1) for value in node.get("patternProperties", {}).values()]
    if not patterns:
        return named
    return st.builds(lambda a, b: a | b, st.dictionaries(places, st.one_of(patterns), max_size=3), named)
