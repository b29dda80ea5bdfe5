"""What a pipeline of the installed diffusers can be called with, read from its source: no import, no weights.

Importing a pipeline costs seconds; its `__call__` is a list of names, which a parser reads in milliseconds.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kinema.core.errors import ModelError


class Computed:
    """A default that is no plain value."""


COMPUTED = Computed()


@lru_cache(maxsize=64)
def call_arguments(module: str, name: str) -> Mapping[str, Any]:
    """Arguments of a pipeline's `__call__` with their defaults, in order; `COMPUTED` for no plain value.

    Args:
        module: below `diffusers.pipelines`, such as `ltx.pipeline_ltx`.
        name: of the class.

    Raises:
        ModelError: the installed diffusers has no such class.
    """
    path = _root().joinpath("pipelines", *module.split(".")).with_suffix(".py")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError:
        tree = ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__call__":
                    return _arguments(part.args)
    raise ModelError(
        f"the installed diffusers has no {name}; kinema needs the versions that its own package asks for: "
        "pip install --upgrade kinema."
    )


def _root() -> Path:
    spec = find_spec("diffusers")
    assert spec is not None, "diffusers is required by kinema"
    return Path(str(spec.origin)).parent


def _arguments(args: ast.arguments) -> dict[str, Any]:
    names = [arg.arg for arg in args.args[1:]]
    bare = len(names) - len(args.defaults)
    found: dict[str, Any] = dict.fromkeys(names[:bare], COMPUTED)
    for name, default in zip(names[bare:], args.defaults, strict=True):
        found[name] = _value(default)
    return found


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED
