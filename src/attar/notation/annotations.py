"""What an annotation allows: whether a value fits it, and how it is said."""

from __future__ import annotations

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from attar.errors import near
from attar.notation.places import in_package
from attar.notation.tree import literal

__all__ = [
    "Called",
    "Folders",
    "InPath",
    "Mismatch",
    "OutPath",
    "folder_of",
    "hints_of",
    "parameters_of",
    "said",
    "said_to_people",
    "signature",
]


@dataclass(frozen=True)
class _Folder:
    """Marks a text argument as a path, and says relative to what."""

    of: Literal["recipe", "run"]


InPath = Annotated[str, _Folder("recipe")]
"""A file or folder that is read; in a recipe relative to the recipe's own folder, or "package:NAME/…" inside an installed package."""

OutPath = Annotated[str, _Folder("run")]
"""A file or folder that is written, relative to the run's folder, and inside it or beside it."""


@dataclass(frozen=True)
class Called:
    """In `Annotated`: how a message calls a type whose own name says nothing to those who write recipes."""

    text: str


class Mismatch(Exception):
    """A value that its annotation does not allow; carries a better hint where there is one."""

    def __init__(self, hint: str = "") -> None:
        super().__init__()
        self.hint = hint


@dataclass(frozen=True)
class Folders:
    """What paths are relative to; None leaves them as they are written.

    base: the recipe's folder, which an InPath is joined to. out: the run's folder, whose parent an OutPath may not leave; it stays
        relative to that folder, and whoever writes joins the two, so that a text names no folder of one machine.
    """

    base: Path | None = None
    out: Path | None = None

    def fit(self, value: Any, hint: Any) -> Any:
        """`value` as its annotation wants it: 1 → 1.0 for a float, a list → a tuple, a path → joined; Mismatch if it does not fit."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            folder = next((m for m in hint.__metadata__ if isinstance(m, _Folder)), None)
            return self.path(value, folder) if folder else self.fit(value, arguments[0])
        if origin in (typing.Union, types.UnionType):
            return self.either(value, arguments)
        if origin is Literal:
            if any(type(value) is type(a) and value == a for a in arguments):
                return value
            raise Mismatch(near(value, [a for a in arguments if isinstance(a, str)]) if isinstance(value, str) else "")
        if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
            items = self.items(value, (arguments[0],) * len(value) if isinstance(value, list) else ())
            return list(items) if origin is list else items
        if origin is tuple:
            length = len(value) if isinstance(value, list) else 0
            return self.items(value, (arguments[0],) * length if arguments[1:] == (...,) else arguments)
        if origin is collections.abc.Callable or hint is Callable or hint is collections.abc.Callable:
            return _require(callable(value), value)
        if hint in (None, types.NoneType):
            return _require(value is None, value)
        if hint is float:
            return float(_require(isinstance(value, int | float) and not isinstance(value, bool), value))
        if hint is int:
            return _require(isinstance(value, int) and not isinstance(value, bool), value)
        if hint is tuple:
            return self.items(value, (Any,) * len(value) if isinstance(value, list) else ())
        kind = origin or hint
        if kind is Any or not isinstance(kind, type):
            return value
        return _require(_is_instance(value, kind), value)

    def either(self, value: Any, hints: Sequence[Any]) -> Any:
        best = ""
        for hint in hints:
            try:
                return self.fit(value, hint)
            except Mismatch as mismatch:
                best = best or mismatch.hint
        raise Mismatch(best)

    def items(self, value: Any, hints: Sequence[Any]) -> tuple[Any, ...]:
        _require(isinstance(value, list) and len(value) == len(hints), value)
        return tuple(self.fit(v, h) for v, h in zip(value, hints, strict=True))

    def path(self, value: Any, folder: _Folder) -> str:
        if not isinstance(value, str) or not value:
            raise Mismatch
        if folder.of == "recipe":
            return value if self.base is None or in_package(value) else os.path.normpath(self.base / value)
        if self.out is None:
            return value
        beside = Path(os.path.abspath(self.out)).parent
        path = os.path.abspath(self.out / value)
        if not Path(path).is_relative_to(beside):
            raise Mismatch(f"a run writes into its own folder or beside it: inside {os.path.relpath(beside)}")
        return os.path.relpath(path, self.out)


def parameters_of(callee: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Parameters by name, in order."""
    return _parameters(callee) if isinstance(callee, types.FunctionType) else _parameters.__wrapped__(callee)


def hints_of(callee: Callable[..., Any]) -> Mapping[str, Any]:
    """Annotations by parameter, `InPath` and `OutPath` kept apart from `str`."""
    return _hints(callee) if isinstance(callee, types.FunctionType) else _hints.__wrapped__(callee)


@lru_cache(maxsize=1024)  # a search resolves the same few words thousands of times
def _parameters(callee: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(callee).parameters


@lru_cache(maxsize=1024)
def _hints(callee: Callable[..., Any]) -> Mapping[str, Any]:
    return typing.get_type_hints(callee.__init__ if isinstance(callee, type) else callee, include_extras=True)


def signature(name: str, callee: Callable[..., Any], *, types: bool = True) -> str:
    """How `callee` is written under `name`: every argument with its default and, if asked for, its type.

    >>> def kl(temperature: float = 1.0): ...
    >>> signature("kl", kl)
    'kl(temperature: float = 1.0)'
    """
    hints = hints_of(callee) if types else {}
    words = []
    for p in parameters_of(callee).values():
        text = ("*" if p.kind is p.VAR_POSITIONAL else "") + p.name
        if p.name in hints:
            text += f": {said(hints[p.name])}"
        if p.default is not p.empty:
            text += f"{' = ' if p.name in hints else '='}{literal(p.default)}"
        words.append(text)
    return f"{name}({', '.join(words)})"


def _require(holds: bool, value: Any) -> Any:
    if not holds:
        raise Mismatch
    return value


def _is_instance(value: Any, kind: type) -> bool:
    """isinstance; of a protocol, whether its members are there, found without running a property (Python 3.11 would run it)."""
    if not getattr(kind, "_is_protocol", False):
        return isinstance(value, kind)
    protocols = [k for k in kind.__mro__ if getattr(k, "_is_protocol", False) and k.__module__ not in ("typing", "builtins")]
    members = {m for k in protocols for m in [*vars(k), *vars(k).get("__annotations__", {})] if m == "__call__" or not m.startswith("_")}
    missing = object()
    return not isinstance(value, type) and all(inspect.getattr_static(value, m, missing) is not missing for m in members)


def said(hint: Any) -> str:
    """An annotation as it is written in a signature."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return "path" if any(isinstance(m, _Folder) for m in hint.__metadata__) else said(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(said(a) for a in arguments)
    if origin is Literal:
        return " | ".join(literal(a) for a in arguments)
    if origin is collections.abc.Callable:
        return "callable"
    if origin is not None:
        return f"{said(origin).lower()}[{', '.join('...' if a is ... else said(a) for a in arguments)}]"
    if hint in (None, types.NoneType):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def said_to_people(hint: Any) -> str:
    """An annotation as a message says it; Annotated[kind, Called("text")] as its text.

    >>> said_to_people(list[Annotated[dict, Called("a thing such as box()")]])
    'a list [...], each a thing such as box()'
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        folder = folder_of(hint)
        inside = " inside the run's folder" if folder and folder.of == "run" else ""
        if folder:
            return f"a path in quotes{inside}"
        return next((m.text for m in hint.__metadata__ if isinstance(m, Called)), None) or said_to_people(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(said_to_people(a) for a in arguments)
    if origin is Literal:
        return " or ".join(literal(a) for a in arguments)
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable) or (origin is tuple and arguments[1:] == (...,)):
        return f"a list [...], each {said_to_people(arguments[0])}"
    if origin is tuple:
        return f"a list [{', '.join(said_to_people(a) for a in arguments)}]"
    plain = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "True or False", types.NoneType: "None", None: "None"}
    if origin is None and hint in plain:
        return plain[hint]
    name = said(hint)
    return f"a{'n' if name[:1].lower() in 'aeiou' else ''} {name}"


def folder_of(hint: Any) -> _Folder | None:
    """The mark of an InPath or OutPath, also inside `| None` or a list."""
    if typing.get_origin(hint) is Annotated:
        return next((m for m in hint.__metadata__ if isinstance(m, _Folder)), None)
    return next((f for a in typing.get_args(hint) if (f := folder_of(a))), None)
