"""The tree of a text, unevaluated: seven kinds of node that say where they stand, and how each is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, NoReturn

from attar.errors import NotationError

__all__ = [
    "NOWHERE",
    "Call",
    "List",
    "Minus",
    "Name",
    "Node",
    "Place",
    "Product",
    "Sum",
    "Value",
    "cut",
    "is_number",
    "literal",
    "refuse",
    "say",
    "write",
]


@dataclass(frozen=True)
class Place:
    """Where in which text a node stands: characters start..end, counted from 0; printed as the text with a caret line below."""

    text: str = ""
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        line = re.sub(r"\s", " ", self.text)
        first = max(0, min(self.start - 30, len(line) - 68))
        shown = line[first : first + 68]
        before, after = "…" if first else "", "…" if first + 68 < len(line) else ""
        carets = "^" * max(1, min(self.end, first + 68) - self.start)
        return f"  {before}{shown}{after}\n  {' ' * (len(before) + self.start - first)}{carets}"


NOWHERE = Place()


@dataclass(frozen=True)
class Value:
    """A literal: a number, a text, True, False or None."""

    value: float | str | None
    at: Place = field(default=NOWHERE, compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and literal(self.value) == literal(other.value)  # so that 1, 1.0 and True differ

    def __hash__(self) -> int:
        return hash(literal(self.value))


@dataclass(frozen=True)
class Name:
    """A name that is not called. No vocabulary has any, but it takes one to say what was meant."""

    name: str
    at: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class List:
    """`[a, b]`."""

    items: tuple[Node, ...]
    at: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """`name(a, b, key=c)`."""

    name: str
    args: tuple[Node, ...] = ()
    kwargs: tuple[tuple[str, Node], ...] = ()
    at: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Sum:
    """`a + b + c`; the first item is never a Sum itself."""

    items: tuple[Node, ...]
    at: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Product:
    """`a * b * c`; the first item is never a Product itself."""

    items: tuple[Node, ...]
    at: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Minus:
    """`-a`, where a is not a number (that is a Value) and not a Minus."""

    item: Node
    at: Place = field(default=NOWHERE, compare=False, repr=False)


Node = Value | Name | List | Call | Sum | Product | Minus


def write(node: Node) -> str:
    """The canonical text of a tree: `parse(write(node)) == node`."""
    match node:
        case Value(value=value):
            return literal(value)
        case Name(name=name):
            return name
        case List(items=items):
            return "[" + ", ".join(write(i) for i in items) + "]"
        case Call(name=name, args=args, kwargs=kwargs):
            return f"{name}({', '.join([write(a) for a in args] + [f'{k}={write(v)}' for k, v in kwargs])})"
        case Sum(items=items):
            return " + ".join(_wrapped(i, Sum) for i in items)
        case Product(items=items):
            return " * ".join(_wrapped(i, Sum, Product) for i in items)
        case Minus(item=item):
            return "-" + _wrapped(item, Sum, Product)


def _wrapped(node: Node, *wrap: type) -> str:
    return f"({write(node)})" if isinstance(node, wrap) else write(node)


def say(name: str, /, *args: Any, **kwargs: Any) -> str:
    """The text of a call, which reads back to the same call: what a word's `__repr__` returns.

    Arguments that are None are left out, so an argument that may be None must have None for its default.
    Numbers, texts, booleans, None, lists, tuples (as lists) and paths are written as literals, anything else by its repr.

    >>> say("mlp", width=64, depth=3, dropout=0.0, activation=None)
    'mlp(width=64, depth=3, dropout=0.0)'
    >>> print(say("table", "credit.csv", label="default"))
    table("credit.csv", label="default")
    """
    words = [literal(a) for a in args] + [f"{k}={literal(v)}" for k, v in kwargs.items() if v is not None]
    return f"{name}({', '.join(words)})"


def literal(value: Any) -> str:
    """A value as the notation writes it."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | PurePath):
        return _quoted(str(value))
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    """`text` in double quotes, escaped as Python does: repr is led to single quotes, which are then turned."""
    body = repr('"' + text)[2:-1]
    return '"' + re.sub(r"\\(.)|\"", lambda m: '\\"' if m[0] == '"' else "'" if m[1] == "'" else m[0], body) + '"'


def is_number(node: Node) -> bool:
    """Whether the node is a literal number; True and False are none."""
    return isinstance(node, Value) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def refuse(message: str, place: Place, hint: str = "") -> NoReturn:
    """Raise a NotationError that shows the place."""
    raise NotationError(f"{message}\n{place}", hint=hint)


def cut(text: str, width: int = 60) -> str:
    """At most `width` characters of `text`."""
    return text if len(text) <= width else text[: width - 1] + "…"
