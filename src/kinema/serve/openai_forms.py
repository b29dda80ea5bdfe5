"""Bodies as OpenAI's clients write them: JSON, forms with files, and forms whose names have brackets.

input_reference[image_url]=...        {"input_reference": {"image_url": "..."}}
tags[]=x  tags[]=y                    {"tags": ["x", "y"]}
loras[][path]=a  loras[][scale]=0.5   {"loras": [{"path": "a", "scale": "0.5"}]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request

from kinema.serve.bodies import is_form, parse_object, read_form, read_json
from kinema.serve.errors import ApiError

MOST_DEPTH = 6
_NAME = re.compile(r"(?P<head>[^\[\]]{1,100})(?P<rest>(?:\[[^\[\]]{0,100}\])*)")
_JSON_IN_FORM = ("extra_params", "extra_body")


async def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a body: texts of a form stay texts, files are `UploadFile`.

    Raises:
        ApiError: 400 for what is neither strict JSON nor a form, or for names that contradict each other.
    """
    fields = nested(await read_form(request)) if is_form(request) else await read_json(request)
    for name in _JSON_IN_FORM:
        if name in fields:
            more = fields.pop(name)
            fields |= parse_object(more) if isinstance(more, str) else _mapping(more, name)
    return fields


def nested(items: Iterable[tuple[str, UploadFile | str]]) -> dict[str, Any]:
    """Fields of a form as the values that their bracketed names describe."""
    found: dict[str, Any] = {}
    for name, value in items:
        match = _NAME.fullmatch(name)
        if match is None or match["rest"].count("[") > MOST_DEPTH:
            raise ApiError(400, f"{name[:60]!r} is no name of a field.", code="invalid_form", param=name[:60])
        steps = re.findall(r"\[([^\[\]]*)\]", match["rest"])
        _put(found, [match["head"], *steps], value, name)
    return found


def _put(holder: Any, steps: list[str], value: Any, name: str) -> None:
    """Lay a value where the steps lead; an empty step is the end of a list."""
    first, *rest = steps
    if first == "":
        if not isinstance(holder, list):
            raise _contradiction(name)
        if not rest:
            holder.append(value)
            return
        if not holder or not isinstance(holder[-1], dict) or rest[0] in holder[-1]:
            holder.append({})
        _put(holder[-1], rest, value, name)
    elif not isinstance(holder, dict):
        raise _contradiction(name)
    elif not rest:
        if first in holder:
            raise _contradiction(name)
        holder[first] = value
    else:
        _put(holder.setdefault(first, [] if rest[0] == "" else {}), rest, value, name)


def _contradiction(name: str) -> ApiError:
    return ApiError(
        400, f"{name[:60]!r} stands there twice, or in two forms.", code="invalid_form", param=name[:60]
    )


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, f"{name} is not an object.", code="invalid_value", param=name)
    return value
