"""Shot files: YAML or JSON text to plain values, refusing what is ambiguous or meant to harm.

YAML is read by the rules of version 1.2's core schema (`no`, `12:30` and dates are text, `1e-4` is a number),
without tags, anchors or aliases. A name written twice is an error in both notations. At most 1 MB.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kinema.core.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000  # PyYAML reads about 13,000 values in a second
SUFFIXES = (".yaml", ".yml", ".json")

_TEXT_TAG = "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,4})?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


def read_values(path: Path) -> Any:
    """The values in a `.yaml`, `.yml` or `.json` file; `ConfigError` for anything unreadable."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is not a shot file; its name must end in {', '.join(SUFFIXES)}.")
    text = read_text(path, MAX_BYTES)
    try:
        return parse_json(text) if path.suffix.lower() == ".json" else parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_text(path: Path, most: int) -> str:
    """The UTF-8 text of a regular file of at most `most` bytes; `ConfigError` for anything else, at once."""
    try:
        with open(path, "rb", opener=_regular) as file:
            data = file.read(most + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    if len(data) > most:
        raise ConfigError(f"{path} is larger than {most} bytes, the most for such a file.")
    return text


def _regular(path: str, flags: int) -> int:
    """Open without waiting for a FIFO's writer, and only a regular file."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")
    return handle


def parse_json(text: str, *, constant: Callable[[str], Any] | None = None) -> Any:
    """Strict JSON: a name twice, `NaN` and `Infinity` are refused.

    Args:
        text: a document.
        constant: gives the value of `NaN`, `Infinity` or `-Infinity` instead, for files of others.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=constant or _refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from None
    except RecursionError:
        raise ConfigError("nested too deeply for a shot.") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("a number with too many digits.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ConfigError(f"{name!r} is written twice; remove one.")
        values[name] = value
    return values


def _refuse_constant(name: str) -> Any:
    raise ConfigError(f"{name} is not a finite number.")


def parse_yaml(text: str) -> Any:
    """The one document in `text`; every place in an error counts lines from 1."""
    try:
        node = _PlainLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{where}not YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}.") from None
    return None if node is None else _plain(node)


class _PlainLoader(yaml.BaseLoader):
    """Composes nodes only: no tag is resolved, no object built, no alias followed."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """One node, unless it is an alias or too deep."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _at(
                event, "anchors and aliases are not read; write the value out, or above `shots:` for all"
            )
        if self.depth >= MAX_DEPTH:
            raise _at(event, f"nested more than {MAX_DEPTH} deep")
        if self.nodes >= MAX_NODES:
            raise _at(event, f"more than {MAX_NODES} values; a shot file is not for data")
        self.depth += 1
        self.nodes += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _at(place: Any, message: str) -> ConfigError:
    return ConfigError(f"line {place.start_mark.line + 1}: {message}.")


def _plain(node: Node) -> Any:
    if isinstance(node, MappingNode):
        return dict(_items(node))
    if isinstance(node, SequenceNode):
        _refuse_tag(node, "tag:yaml.org,2002:seq")
        return [_plain(child) for child in node.value]
    _refuse_tag(node, _TEXT_TAG)
    assert isinstance(node, ScalarNode)
    return scalar(node.value) if node.style is None else node.value


def _items(node: MappingNode) -> Iterator[tuple[Hashable, Any]]:
    _refuse_tag(node, "tag:yaml.org,2002:map")
    seen = set()
    for key_node, value_node in node.value:
        key = _plain(key_node)
        if not isinstance(key, str | int | float | bool | None):
            raise _at(key_node, "a list or mapping cannot be a name")
        if str(key) in seen:
            raise _at(key_node, f"{key!r} is written twice; remove one")
        seen.add(str(key))
        yield key, _plain(value_node)


def _refuse_tag(node: Node, expected: str) -> None:
    if node.tag not in (expected, "!"):
        raise _at(node, f"the tag {node.tag} is not read; leave it out")


def scalar(text: str) -> Any:
    """An unquoted YAML value by the 1.2 core schema: null, true, false, a number, or else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would be read as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    printable = all(character.isprintable() or character == "\n" for character in text)
    style = '"' if not printable or not isinstance(scalar(text), str) else "|" if "\n" in text else None
    return dumper.represent_scalar(_TEXT_TAG, text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def yaml_text(values: Any) -> str:
    """The text that `parse_yaml` reads back."""
    return yaml.dump(
        _frames_as_numbers(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


def write_values(values: Any, path: Path) -> None:
    """Write JSON or YAML by the name's ending, whole or not at all; `ConfigError` when that fails."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is not a name for a shot file; end it in {', '.join(SUFFIXES)}.")
    if path.suffix.lower() == ".json":
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = yaml_text(values)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)  # noqa: PTH105  (the atomic one)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}.") from None


_WORDED = ("mix", "options")  # their keys are words, which stay in quotes


def _frames_as_numbers(values: Any, name: str = "") -> Any:
    """Keys such as "24" as 24: both are read alike, and the number needs no quotes."""
    if isinstance(values, dict):
        return {
            key if name in _WORDED else _frame(key): _frames_as_numbers(value, str(key))
            for key, value in values.items()
        }
    return [_frames_as_numbers(value) for value in values] if isinstance(values, list) else values


def _frame(key: Any) -> Any:
    return int(key) if isinstance(key, str) and re.fullmatch(r"-?\d{1,9}", key) else key
