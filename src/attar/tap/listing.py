"""The names a model has, their shapes and the modules behind them, as lines to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby, takewhile

from torch import nn

from attar.errors import TapError
from attar.signal import Signal
from attar.tap.names import all_names, taps_of

__all__ = ["listing"]

Row = tuple[str, str, str]  # name, shape, path


def listing(model: nn.Module, ask: Callable[[frozenset[str]], Signal], rows: int) -> list[str]:
    """One line for each name of `model`, or for a run of blocks alike: name, shape, path; "*" is a number that runs along.

    ask: (taps) → what the model answers to a small batch of so many `rows`; a tap that cannot be read has its reason in place of a shape.

    >>> net = nn.Sequential(nn.Linear(3, 5))
    >>> listing(net, lambda taps: Signal(net[0].weight), rows=2)
    ['no names are known for Sequential; its module paths are taps']
    """
    names = taps_of(model)
    if not names:
        return [f"no names are known for {type(model).__name__}; its module paths are taps"]
    shapes = _shapes(list(names), ask, rows)
    found = [(name, shapes[name], _joined(paths)) for name, paths in names.items()]
    lines = [_together(list(alike)) for _, alike in groupby(found, key=_kind)]
    widths = [max((len(line[i]) for line in lines if line[1].startswith("(") or i == 0), default=0) for i in range(2)]
    told = [f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {path if shape.startswith('(') else ''}".rstrip() for name, shape, path in lines]
    return told + [f"{kind:<{widths[0]}}  {why}" for kind, why in all_names(model).refused.items()]


def _shapes(names: list[str], ask: Callable[[frozenset[str]], Signal], rows: int) -> dict[str, str]:
    """By name; each is asked by itself only where one of them cannot be read."""
    try:
        signal = ask(frozenset(names))
    except TapError as error:
        if len(names) == 1:
            return {names[0]: error.message}
        return {name: shape for one in names for name, shape in _shapes([one], ask, rows).items()}
    return {name: _shape(signal, name, rows) for name in names}


def _shape(signal: Signal, name: str, rows: int) -> str:
    """(B, L, 384): B rows and L tokens, which are another number in another batch; 2B where a row has two texts, each read by itself."""
    first = signal.taps[name].shape[0]
    sizes = [str(size) for size in signal.taps[name].shape]
    if first and first % rows == 0:
        sizes[0] = "B" if first == rows else f"{first // rows}B"
    if name in signal.masks:
        tokens = slice(1, 2) if len(sizes) == 3 else slice(2, 4)
        sizes[tokens] = ["L"] * len(sizes[tokens])
    return f"({', '.join(sizes)})"


def _joined(paths: Sequence[str]) -> str:
    """a.query, a.key → a.{query, key}."""
    if len(paths) == 1:
        return paths[0]
    steps = [path.split(".") for path in paths]
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*steps, strict=False))]
    return ".".join((*shared, "{" + ", ".join(".".join(one[len(shared) :]) for one in steps) + "}"))


def _kind(row: Row) -> tuple[str, str, str]:
    """Rows of one kind differ by the numbers in name and path, and in what stands for a shape where there is none."""
    name, shape, path = row
    return re.sub(r"\.\d+$", ".*", name), shape if shape.startswith("(") else re.sub(r"\d+", "*", shape), re.sub(r"\d+", "*", path)


def _together(alike: list[Row]) -> Row:
    """hidden.1 … hidden.6, encoder.layer.*: what differs from row to row is a star."""
    (first, shape, path), (last, _, other) = alike[0], alike[-1]
    if len(alike) == 1:
        return first, shape, path
    parts = zip(re.split(r"(\d+)", path), re.split(r"(\d+)", other), strict=True)
    return f"{first} … {last}", shape, "".join(one if one == two else "*" for one, two in parts)
