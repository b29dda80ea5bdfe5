"""Checked, frozen settings whose errors are one line: the value, the rule, the way out.

`Settings` is a pydantic model; what pydantic finds wrong reaches the user as a `ConfigError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from kinema.core.errors import ConfigError, unknown_name


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where, such as `("keyframes", 0, "strength")`, and what to tell the user."""

    location: tuple[str | int, ...]
    message: str


class Settings(BaseModel):
    """Base of what a user writes: frozen, unknown names refused, NaN and infinity refused, `True` is not 1.

    The constructor raises `ConfigError`; so do `make` and `from_mapping`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=False,
        use_attribute_docstrings=False,
    )

    spoken: ClassVar[Mapping[str, str]] = {}
    """Names that other tools use for our fields, for the hint in the error."""

    outranked: ClassVar[frozenset[str]] = frozenset()
    """Fields for which a model or another setting speaks where nothing was written, even the default."""

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(_summary(error, type(self))) from error

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """The same as the constructor."""
        return cls(**fields)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From parsed YAML or JSON, or a record; `ConfigError` when it is not a mapping of known names."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{str(values)[:40]!r} is not a mapping of names to values.")
        for name in values:
            if not isinstance(name, str):
                raise unknown_name("setting", name, cls.names())
        return cls(**values)

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Everything that is wrong with `values`, for a form to mark its fields; empty when all is well."""
        try:
            cls.from_mapping(values)
        except ConfigError as error:
            if isinstance(error.__cause__, ValidationError):
                return tuple(_problems(error.__cause__, cls))
            return (Problem((), str(error)),)
        return ()

    @classmethod
    def names(cls) -> list[str]:
        """The names a user may write."""
        return list(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        """A `pathlib.Path` in place of the whole is its file, whatever @ and : mean in a text."""
        file = next((name for name in ("path", "image") if name in cls.model_fields), None)
        return {file: os.fspath(value)} if file and isinstance(value, os.PathLike) else value

    @model_validator(mode="before")
    @classmethod
    def _refuse_nameless(cls, values: Any) -> Any:
        """Settings inside settings are made with keywords, which `{0: 1}` cannot be."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            inner = list(_models_in(field.annotation)) if field is not None else []
            for part in value if isinstance(value, list | tuple) else (value,):
                for key in part if inner and isinstance(part, Mapping) else ():
                    if not isinstance(key, str):
                        raise unknown_name(f"{name} setting", key, inner[0].names())
        return values

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans(cls, values: Any) -> Any:
        """Pydantic reads `True` as 1; a user who writes it has mistaken one setting for another."""
        if isinstance(values, Mapping):
            for name, value in values.items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field is not None and field.annotation is not bool:
                    raise ConfigError(f"{name}={value} is not a number or a text.")
        return values

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What was set; fifty settings that were not would hide it."""
        yield from self.given().items()

    def with_(self, **changes: Any) -> Self:
        """A checked copy with `changes`; what was never given stays ungiven."""
        return type(self)(**{**self.given(), **changes})

    def given(self) -> dict[str, Any]:
        """The fields that were set, defaults left out, as Python values."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }

    def to_mapping(self, *, all_fields: bool = False) -> dict[str, Any]:
        """JSON values that `from_mapping` reads back to an equal object, which means the same to every model.

        Args:
            all_fields: also those that have their default value. Without it these are left out, but for the
                `outranked` ones that were written: left out, they would be another's to say.
        """
        values = self.model_dump(mode="json", exclude_defaults=not all_fields)
        stands = (self.outranked & self.model_fields_set) - values.keys()
        if stands:
            values |= self.model_dump(mode="json", include=set(stands))
        return {name: values[name] for name in type(self).model_fields if name in values}


def _summary(error: ValidationError, model: type[Settings]) -> str:
    first, *more = _problems(error, model)
    if not more:
        return first.message
    also = ", ".join(dict.fromkeys(_path(problem.location) or "the whole" for problem in more))
    return f"{first.message} Also wrong: {also}."


def _problems(error: ValidationError, model: type[Settings]) -> Iterator[Problem]:
    for item in _items(error, ()):
        yield Problem(item["loc"], _message(item, model))


def _items(error: ValidationError, outside: tuple[str | int, ...]) -> Iterator[dict[str, Any]]:
    """Pydantic's findings, those of settings inside settings included, each with its whole location."""
    for item in error.errors(include_url=False):
        location = (*outside, *item["loc"])
        inner = getattr((item.get("ctx") or {}).get("error"), "__cause__", None)
        if isinstance(inner, ValidationError):
            yield from _items(inner, location)
        else:
            yield {**item, "loc": location}


def _message(item: Mapping[str, Any], model: type[Settings]) -> str:
    path, kind, context = _path(item["loc"]), item["type"], item.get("ctx") or {}
    if kind == "extra_forbidden":
        return str(_unknown(item["loc"], model))
    if kind == "value_error":
        return _labelled(path, str(context["error"]))
    if kind == "missing":
        return f"{path} is missing."
    if kind == "literal_error":
        return str(unknown_name(path, item["input"], _choices(str(context["expected"]))))
    return f"{path}={_shown(item['input'])} {_rule(kind, context, item['msg'])}{_range(item['loc'], model)}."


def _labelled(path: str, message: str) -> str:
    """The message with its whole field in front: `interpolate.fps=0 is` where it says `fps=0 is`."""
    if not path or message.startswith(path):
        return message
    last = path.split(".")[-1]
    return f"{path}{message.removeprefix(last)}" if message.startswith(f"{last}=") else f"{path}: {message}"


def _path(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())  # an array's has line breaks
    return text if len(text) <= 60 else f"{text[:59]}…"


def _choices(expected: str) -> list[str]:
    """Pydantic writes `'a', 'b' or 'c'`."""
    return [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]


def _unknown(location: tuple[str | int, ...], model: type[Settings]) -> ConfigError:
    *parents, name = location
    owner = _owner(tuple(parents), model)
    kind = f"{_path(tuple(parents))} setting" if parents else "setting"
    if name in owner.spoken:
        return ConfigError(f"unknown {kind} {name!r}. Here it is called {owner.spoken[str(name)]!r}.")
    return unknown_name(kind, name, owner.names())


def _owner(parents: tuple[str | int, ...], model: type[Settings]) -> type[Settings]:
    """The model that the innermost field belongs to."""
    for part in parents:
        if isinstance(part, str):
            model = next(
                (
                    t
                    for t in _models_in(
                        model.model_fields[part].annotation if part in model.model_fields else None
                    )
                ),
                model,
            )
    return model


def _models_in(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


_RULES = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "is not a whole number of this size",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not finite",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text; put it in quotes",
    "string_unicode": "has half a surrogate pair, which cannot be stored",
    "tuple_type": "is not a list",
    "model_type": "is neither text nor a mapping; pictures and clips are given by their paths",
}


def _rule(kind: str, context: Mapping[str, Any], fallback: str) -> str:
    if kind.startswith(("greater_than", "less_than")):
        return "is out of range"
    if kind == "string_too_short":
        return f"is too short: the least is {context['min_length']} character"
    if kind == "string_pattern_mismatch":
        return r"has a character that it cannot have, such as / or \ or a line break"
    if kind == "string_too_long":
        return f"is too long: the most is {context['max_length']} characters"
    if kind in ("too_long", "too_short"):
        bound = "the most is" if kind == "too_long" else "the least is"
        limit = context.get("max_length", context.get("min_length"))
        return f"has {context['actual_length']} entries; {bound} {limit}"
    return _RULES.get(kind, f"is refused: {fallback[:1].lower()}{fallback[1:]}")


def _range(location: tuple[str | int, ...], model: type[Settings]) -> str:
    """`; write 1 to 1000`, from the field's own JSON schema, where it has bounds."""
    names = [part for part in location if isinstance(part, str)]
    owner = _owner(tuple(names[:-1]), model)
    schema = _properties(owner).get(names[-1] if names else "", {})
    for option in (schema, *schema.get("anyOf", ()), *schema.get("prefixItems", ())[:1]):
        low, high = option.get("minimum"), option.get("maximum")
        if "exclusiveMinimum" in option:
            return f"; write more than {option['exclusiveMinimum']:g}" + (f", up to {high:g}" if high else "")
        if low is not None and high is not None:
            return (
                f"; write {low:.12g} to {high:.12g}"
                if isinstance(high, float)
                else f"; write {low} to {high}"
            )
    return ""


@cache
def _properties(model: type[Settings]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties
