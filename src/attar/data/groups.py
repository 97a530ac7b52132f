"""Declared groups of rows, such as age bands: one way to part them for each column; numbers are cut into bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.data.columns import kind_of
from attar.data.numerals import is_number
from attar.errors import DataError, near

__all__ = ["MISSING", "NO_COLUMNS", "Columns", "Group", "read_group", "read_groups", "wanted"]

MISSING = "missing"  # what rows are called of which the column says nothing
Columns = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""(values, known) by name, (N,) each."""

NO_COLUMNS: Columns = MappingProxyType({})
BANDS = 4  # of a column of numbers, each with about as many training rows
FEW = 6  # different numbers that stay as they are
MOST = 50  # groups of one column: of more each has few rows, and the correction for their number hides what there is


@dataclass(frozen=True, eq=False)
class Group:
    """One way to part N rows.

    names: of the parts, in order. codes: (N,) int64 into `names`, −1 where nobody knows.
    """

    names: tuple[str, ...]
    codes: Tensor

    def take(self, at: Tensor) -> Group:
        """The rows at (M,) int64 positions."""
        return Group(self.names, self.codes[at])

    @classmethod
    def unknown(cls, rows: int) -> Group:
        """Of so many rows, of which nobody knows."""
        return cls((), torch.full((rows,), -1, dtype=torch.int64))

    def longer(self, rows: int) -> Group:
        """With so many rows behind them of which nobody knows."""
        return Group(self.names, torch.cat([self.codes, self.codes.new_full((rows,), -1)]))

    def parts(self) -> dict[str, Tensor]:
        """(N,) bool for each part that has a row, those of which nobody knows last, as "missing".

        >>> {name: rows.tolist() for name, rows in Group(("F", "M"), torch.tensor([1, 0, -1])).parts().items()}
        {'F': [False, True, False], 'M': [True, False, False], 'missing': [False, False, True]}
        """
        found = {name: self.codes == code for code, name in enumerate(self.names)}
        if MISSING in found:
            found[MISSING] |= self.codes < 0
        else:
            found[MISSING] = self.codes < 0
        return {name: rows for name, rows in found.items() if bool(rows.any())}


def wanted(groups: str | Sequence[str] | None, columns: Sequence[str], *, label: Sequence[str] = ()) -> list[str]:
    """The names of the columns in `groups`, a text with commas or a list.

    Raises DataError for one that is not there or stands twice, and for the label, whose classes are compared anyway.
    """
    if groups is None:
        return []
    names = list(groups) if not isinstance(groups, str) else [groups] if groups in columns else [n.strip() for n in groups.split(",")]
    if not names or not all(names):
        raise DataError(f"groups={groups!r} names no column", hint='groups="age_band,sex"')
    for at, name in enumerate(names):
        if name in label:
            raise DataError(f"groups: {name!r} is the label", hint="its classes are compared without being asked for; leave it out")
        if name not in columns:
            raise DataError(f"groups: there is no column {name!r}", hint=near(name, columns))
        if name in names[:at]:
            raise DataError(f"groups: {name!r} stands twice", hint="once is enough")
    return names


def read_groups(columns: Columns, train: np.ndarray, *, categories: Sequence[str] = ()) -> tuple[dict[str, Group], tuple[str, ...]]:
    """`read_group` of each column, and notes on parts that no training row has."""
    found, notes = {}, []
    for name, (values, known) in columns.items():
        found[name] = group = read_group(name, values, known, train, category=name in categories)
        seen = torch.zeros(len(group.names), dtype=torch.bool)
        codes = group.codes[torch.from_numpy(train)]
        seen[codes[codes >= 0]] = True
        if new := [n for n, s in zip(group.names, seen.tolist(), strict=True) if not s]:
            notes.append(f"groups: no training row has {name} {', '.join(map(repr, new[:5]))}{', …' * (len(new) > 5)}")
    return found, tuple(notes)


def read_group(name: str, values: np.ndarray, known: np.ndarray, train: np.ndarray, *, category: bool = False) -> Group:
    """(N,) values of a column, and where they are known → a way to part the rows.

    Texts, booleans and up to six different numbers stay as they are. Other numbers are cut into four bands at the quartiles of the rows
    at (M,) positions `train`; fewer where quartiles are equal. category: numbers are names.
    Raises DataError for dates and other values that are neither, for one value in every row, and for more than fifty texts.
    """
    if values.ndim != 1:
        raise DataError(f"groups: {name!r} has the shape {values.shape}", hint="one value for each row")
    there = values[known]
    kinds = {kind_of(v) for v in (there[:1] if there.dtype != object else there).tolist()}
    if strange := sorted(kinds - {"boolean", "number", "text"}):
        hint = "write the year or the quarter into a column of its own" if "date" in strange else "texts, numbers or booleans"
        raise DataError(f"groups: {name!r} holds a {strange[0]}", hint=hint)
    texts = [str(v) for v in there.tolist()] if kinds == {"text"} else []
    if not category and (kinds == {"number"} or (texts and all(map(is_number, set(texts))))):
        numbers = np.full(len(values), np.nan)
        numbers[known] = np.array([float(v) for v in there.tolist()])
        group = _bands(name, numbers, train)
    else:
        group = _names([_name(v) if ok else None for v, ok in zip(values.tolist(), known.tolist(), strict=True)])
    if len(group.names) > MOST:
        hint = "put them together in a column of their own, such as regions for towns"
        raise DataError(f"groups: {name!r} has {len(group.names):,} different values, {MOST} at most are compared", hint=hint)
    if len(group.parts()) < 2:
        what = f"{group.names[0]!r} in every row" if group.names else "missing in every row"
        raise DataError(f"groups: {name!r} is {what}", hint="there is nothing to compare; leave it out")
    return group


def _names(texts: Sequence[str | None]) -> Group:
    names = tuple(sorted({t for t in texts if t is not None}))
    place: dict[str | None, int] = {text: code for code, text in enumerate(names)}
    return Group(names, torch.tensor([place.get(t, -1) for t in texts], dtype=torch.int64))


def _name(value: Any) -> str:
    """A value as text, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _bands(name: str, values: np.ndarray, train: np.ndarray) -> Group:
    if np.isinf(values).any():
        raise DataError(f"groups: {name!r} is infinite in row {int(np.flatnonzero(np.isinf(values))[0]) + 1}", hint="correct it")
    known = ~np.isnan(values)
    different = np.unique(values[known])
    if len(different) <= FEW:
        names = tuple(_short(v, 15) for v in different.tolist())
        codes = np.searchsorted(different, np.where(known, values, 0.0)).astype(np.int64)
        return Group(names, torch.from_numpy(np.where(known, codes, -1)))
    shown = values[train]
    shown = shown[~np.isnan(shown)]
    if not len(shown):
        raise DataError(f"groups: {name!r} is missing in every training row", hint="its bands are cut at quartiles of the training rows")
    whole = bool((different == np.round(different)).all())
    edges = _edges(np.quantile(shown, np.arange(1, BANDS) / BANDS), shown, whole)
    codes = np.searchsorted(edges, np.where(known, values, 0.0), side="left").astype(np.int64)  # a band ends with its edge
    return Group(_band_names(edges, whole), torch.from_numpy(np.where(known, codes, -1)))


def _edges(quantiles: np.ndarray, shown: np.ndarray, whole: bool) -> np.ndarray:
    """Where bands end: the quantiles, rounded to as few digits as keep them apart, so that the names say exactly what they hold."""
    edges = np.floor(quantiles)
    if not whole:
        rounded = (np.array([float(f"{q:.{digits}g}") for q in quantiles.tolist()]) for digits in range(2, 18))
        edges = next(r for r in rounded if len(np.unique(r)) == len(np.unique(quantiles)))  # 17 digits are the number itself
    edges = np.unique(edges)
    return edges[(edges >= shown.min()) & (edges < shown.max())]


def _band_names(edges: np.ndarray, whole: bool) -> tuple[str, ...]:
    """ "up to 34", "35–52", "53 and more"; of numbers that are not whole "up to 0.2", "0.2–0.5", "above 0.5"."""
    if not len(edges):
        return ("any number",)
    ends = [_short(e, 15) for e in edges.tolist()]
    starts = [_short(e + 1, 15) for e in edges.tolist()] if whole else ends
    between = [low if low == high else f"{low}–{high}" for low, high in zip(starts[:-1], ends[1:], strict=True)]
    return (f"up to {ends[0]}", *between, f"{starts[-1]} and more" if whole else f"above {ends[-1]}")


def _short(value: float, digits: int) -> str:
    if value == math.floor(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.{digits}g}"
