"""Text ⇄ objects: `0.9 * kl(temperature=4.0) + 0.1 * labels()`, a closed vocabulary without code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import PurePath
from typing import Annotated, Any, Literal

__all__ = ["InPath", "OutPath", "say"]


@dataclass(frozen=True)
class _Place:
    """Marks a text argument as a path, and says relative to what."""

    of: Literal["recipe", "run"]


InPath = Annotated[str, _Place("recipe")]
"""A file or folder that is read; in a recipe relative to the recipe's own folder."""

OutPath = Annotated[str, _Place("run")]
"""A file or folder that is written; in a recipe relative to the run's folder."""


def say(name: str, /, *args: Any, **kwargs: Any) -> str:
    """The text of a call, which reads back to the same call: what a word's `__repr__` returns.

    Arguments that are None are left out, so an argument that may be None must have None for its default.
    Numbers, texts, booleans, None, lists, tuples (as lists) and paths are written as literals, anything else by its repr.

    >>> say("mlp", width=64, depth=3, dropout=0.0, activation=None)
    'mlp(width=64, depth=3, dropout=0.0)'
    >>> print(say("table", "credit.csv", label="default"))
    table("credit.csv", label="default")
    """
    words = [_literal(a) for a in args] + [f"{k}={_literal(v)}" for k, v in kwargs.items() if v is not None]
    return f"{name}({', '.join(words)})"


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | PurePath):
        return _quoted(str(value))
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    """`text` in double quotes, escaped as Python does: repr is led to single quotes, which are then turned."""
    body = repr('"' + text)[2:-1]
    return '"' + re.sub(r"\\(.)|\"", lambda m: '\\"' if m[0] == '"' else "'" if m[1] == "'" else m[0], body) + '"'
