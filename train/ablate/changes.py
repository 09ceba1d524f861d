"""Changes of a recipe by dotted field, checked against the types of its dataclasses."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def changed(config: Config, path: str, value: Any) -> Config:
    """The config with one field changed.

    Args:
        config: a frozen dataclass.
        path: dotted names of fields: "fit.loss.unary".
        value: of the field's type; an int stands for a float, a list for a tuple.

    Raises:
        ValueError: there is no such field, the nearest is named; or the config refuses the value.
        TypeError: a value of another type.
    """
    result: Config = _changed(config, path, value, "")
    return result


def _changed(config: Any, path: str, value: Any, above: str) -> Any:
    name, _, rest = path.partition(".")
    if not is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{above or 'the recipe'} is {config!r} here and has no field {name!r}.")
    known = [field.name for field in fields(config)]
    dotted = f"{above}.{name}".strip(".")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no field {dotted!r}.{hint}")
    if rest:
        return replace(config, **{name: _changed(getattr(config, name), rest, value, dotted)})
    hint = get_type_hints(type(config))[name]
    return replace(config, **{name: fitted(value, hint, dotted)})


def fitted(value: Any, hint: Any, name: str) -> Any:
    """The value as the field holds it: equal configs have equal digests.

    Args:
        value: to be held.
        hint: resolved type of the field.
        name: of the field, for the error.

    Raises:
        TypeError: the value is not of that type.
    """
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in choices:
            if matches(value, choice):
                return fitted(value, choice, name)
    elif matches(value, hint):
        if hint is float:
            return float(value)
        if origin is tuple:
            inner = choices[0] if choices[1:] == (...,) else None
            hints = [inner] * len(value) if inner is not None else choices
            return tuple(fitted(v, h, name) for v, h in zip(value, hints, strict=True))
        return value
    wanted = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise TypeError(
        f"{name} must be {str(wanted).replace('typing.', '')}, got {value!r} "
        f"({type(value).__name__})."
    )


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: classes, Literal, unions and tuples of these."""
    origin, choices = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return any(value == c and type(value) is type(c) for c in choices)
    if origin in (Union, types.UnionType):
        return any(matches(value, choice) for choice in choices)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if choices[1:] == (...,):
            return all(matches(v, choices[0]) for v in value)
        return len(value) == len(choices) and all(map(matches, value, choices))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)
