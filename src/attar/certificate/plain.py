"""Dataclasses as what JSON holds, and back again by their annotations."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["plain", "whole"]

T = TypeVar("T")
KINDS: Mapping[type, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,), bool: (bool,)}  # what JSON may hold for each


def plain(value: Any) -> Any:
    """The value as dictionaries, lists, texts and numbers; what is not a finite number as None.

    >>> plain((1.0, float("nan")))
    [1.0, None]
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def whole(kind: type[T], value: Mapping[str, Any]) -> T:
    """The dataclass `kind` that `plain` turned into `value`; fields are read as they are annotated, and None as NaN where a float is.

    A field that is not there and has no default is a KeyError, a value of another kind than its field's a TypeError, and a word that is
    none of a field's a ValueError; a field that the class does not know is left alone.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} where {kind.__name__} has fields")
    hints = get_type_hints(kind)
    found = {}
    for f in fields(kind):  # type: ignore[arg-type]  # a dataclass, by its caller
        if f.name in value or (f.default is MISSING and f.default_factory is MISSING):
            found[f.name] = _read(hints[f.name], value[f.name])
    return kind(**found)


def _read(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _read(next(i for i in inner if i is not type(None)), value)
    if hint is float and value is None:
        return math.nan
    if is_dataclass(hint) and isinstance(hint, type):
        return whole(hint, value)
    if not _is(hint, value):
        raise TypeError(f"{value!r} where there is to be a value of type {hint.__name__}")
    if get_origin(hint) is Literal and value not in inner:
        raise ValueError(f"{value!r} is none of {', '.join(map(repr, inner))}")
    if origin is tuple:
        return tuple(_read(inner[0] if inner[-1] is Ellipsis else inner[i], v) for i, v in enumerate(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _read(inner[1], v) for name, v in value.items()}
    return value


def _is(hint: Any, value: object) -> bool:
    """Whether JSON holds `value` where `hint` is a number, a text or a yes; True of any other hint."""
    return hint not in KINDS or (isinstance(value, KINDS[hint]) and (hint is bool or not isinstance(value, bool)))
