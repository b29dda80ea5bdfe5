"""Variables of a storyboard: `${name}` in any text of it, replaced before the text is read.

    vars: {subject: a fox, pace: 1.5}
    shots:
      - prompt: ${subject} on a hill          # "a fox on a hill"
        guidance: ${pace}                     # 1.5, the number itself
      - prompt: ${subject} in a wood
        vars: {subject: a wolf}               # for this shot

A text that is nothing but `${name}` becomes the value with its type. `$${` stands for `${`. Values are texts,
numbers, true or false; they cannot use variables themselves, so nothing is replaced twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kinema.core.errors import ConfigError, unknown_name

Variables = Mapping[str, str | int | float | bool]

MAX_TEXT = 100_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")


def read_variables(values: Any) -> Variables:
    """The entry `vars`, checked.

    Raises:
        ConfigError: not a mapping of names to texts and numbers, or a value that uses a variable.
    """
    if not isinstance(values, Mapping):
        raise ConfigError("vars is not a mapping; write vars: {name: value}.")
    for name, value in values.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"vars: {str(name)[:40]!r} is no name; write letters, digits and _.")
        if not isinstance(value, str | int | float | bool):
            raise ConfigError(f"vars.{name} is neither text nor number; a list or mapping cannot be one.")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"vars.{name}={value[:40]!r}: a variable cannot use another; write it out.")
    return dict(values)


def substituted(values: Any, variables: Variables) -> Any:
    """The same values with every `${name}` replaced, in keys too.

    Raises:
        ConfigError: an unknown variable, `${` without a name, a text that grows beyond 100,000 letters, or
            two keys that become one.
    """
    if isinstance(values, str):
        return _text(values, variables) if "${" in values else values
    if isinstance(values, Mapping):
        return _mapping(values, variables)
    if isinstance(values, list | tuple):
        return type(values)(substituted(value, variables) for value in values)
    return values


def _mapping(values: Mapping[Any, Any], variables: Variables) -> dict[Any, Any]:
    replaced: dict[Any, Any] = {}
    for written, value in values.items():
        key = _key(written, variables)
        if key in replaced:
            raise ConfigError(f"{key!r} is written twice; remove one.")
        replaced[key] = substituted(value, variables)
    return replaced


def _key(key: Any, variables: Variables) -> Any:
    return _shown(_text(key, variables)) if isinstance(key, str) and "${" in key else key


def escaped(values: Any) -> Any:
    """Values in which `substituted` finds no variable and gives these back."""
    if isinstance(values, str):
        return values.replace("${", "$${")
    if isinstance(values, Mapping):
        return {escaped(key): escaped(value) for key, value in values.items()}
    return [escaped(value) for value in values] if isinstance(values, list) else values


def _text(text: str, variables: Variables) -> str | int | float | bool:
    whole = _USE.fullmatch(text)
    if whole and whole[1] is not None:
        return _value(whole, variables)
    replaced = _USE.sub(lambda use: "${" if use[1] is None else _shown(_value(use, variables)), text)
    if len(replaced) > MAX_TEXT:
        raise ConfigError(
            f"a text grows to {len(replaced)} letters by its variables; the most is {MAX_TEXT}."
        )
    return replaced


def _value(use: re.Match[str], variables: Variables) -> str | int | float | bool:
    name = use[1].strip()
    if not use[0].endswith("}") or not _NAME.fullmatch(name):
        raise ConfigError(f"{use[0][:40]!r} is no variable; write ${{name}}, or $${{ for the characters.")
    if name not in variables:
        if not variables:
            raise ConfigError(f"${{{name}}}: there are no variables; add vars: {{{name}: ...}}.")
        raise unknown_name("variable", name, variables)
    return variables[name]


def _shown(value: str | int | float | bool) -> str:
    """A value inside a text: numbers as they are written, true and false as in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)
