"""The columns of a table: what kind each one is, its values, and its statistics in the training split."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from attar.data.ids import number_keys, text_keys
from attar.data.numerals import is_date, is_number, share
from attar.errors import DataError
from attar.signal import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Raw", "kind_of", "missing_in", "objects_of", "read_column"]

MANY = 20  # a text column with more values than this, and than half its rows, is taken for an identifier


@dataclass(frozen=True, eq=False)
class Raw:
    """One column as read, before any split: numbers with NaN, or codes into texts with −1 where missing."""

    name: str
    kind: Literal["number", "category", "boolean"]
    values: np.ndarray
    texts: tuple[str, ...] = ()
    note: str = ""

    @property
    def keys(self) -> np.ndarray:
        """(N,) uint64, equal where the values are equal."""
        return text_keys(self.values, self.texts) if self.kind == "category" else number_keys(self.values)

    def describe(self, train: np.ndarray) -> Column:
        """The column as the training rows, (M,) positions, show it."""
        values = self.values[train]
        if self.kind == "category":
            seen = np.unique(values[values >= 0])
            return Column(self.name, "category", tuple(sorted(self.texts[i] for i in seen)), missing=float((values < 0).mean()))
        known = values[~np.isnan(values)]
        missing = 1 - len(known) / len(values)
        if not len(known):
            return Column(self.name, self.kind, missing=1.0)
        mean, std = float(known.mean()), float(known.std())
        flat = std <= 1e-12 * max(1e-300, abs(mean))  # a constant's std is rounding, or 0
        return Column(self.name, self.kind, (), mean, 1.0 if flat else std, float(np.median(known)), missing)

    def codes(self, column: Column) -> np.ndarray:
        """(N,) int64 codes of a category column: 1 + the place among `column.categories`, 0 for missing or never seen."""
        place = {text: i + 1 for i, text in enumerate(column.categories)}
        return np.array([place.get(t, 0) for t in self.texts] + [0], dtype=np.int64)[self.values]


def read_column(series: pd.Series, *, category: bool = False) -> Raw:
    """A column, its rows numbered from 0, as numbers, booleans or categories; whatever is neither is refused with a way out.

    category: take whatever it holds for names, as with numbers that are codes.
    Text that reads as a number throughout is a number; blank text is missing. Dates, infinite values, mixtures, and text that
    differs in nearly every row raise DataError.
    """
    name = str(series.name)
    kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else getattr(series.dtype, "kind", "O")
    if category or str(series.dtype) == "category":
        return _category(name, series, checked=False)
    if kind in "mM" or str(series.dtype).startswith("period"):
        raise _date(name, series)
    if kind == "c":
        raise DataError(f"column {name!r} holds complex numbers", hint="split it into two columns, or leave it out: drop=[...]")
    if kind in "biuf":
        return _number(name, "boolean" if kind == "b" else "number", _floats(name, series))
    missing = missing_in(series)
    known = cast("pd.Series", series[~missing])
    if not len(known):
        return _number(name, "number", np.full(len(series), np.nan))
    values = list(known.unique())
    kinds = {kind_of(v) for v in values}
    if kinds == {"boolean"} or kinds == {"number"} or kinds == {"boolean", "number"}:
        filled = series.astype(object).where(~missing, np.nan)  # blanks among them are missing
        return _number(name, "boolean" if kinds == {"boolean"} else "number", _floats(name, filled))
    if "date" in kinds:
        raise _date(name, series)
    if kinds != {"text"}:
        raise _mixed(name, known)
    return _text(name, series, [str(v) for v in values])


def missing_in(series: pd.Series) -> np.ndarray:
    """(N,) bool: NaN, None, NaT, and text of nothing but blanks. Raises DataError for lists, bytes and other nested values."""
    there = series.isna().to_numpy()
    if series.dtype == object or str(series.dtype) in ("str", "string"):
        if series.dtype == object:
            _refuse_nested(series)
        values = cast("pd.Series", series[~there]).unique()
        if blank := [v for v in values if isinstance(v, str) and not v.strip()]:
            there = there | series.isin(blank).to_numpy()
    return there


def objects_of(series: pd.Series) -> np.ndarray:
    """(N,) as numpy has it: booleans and numbers as they are, anything else as objects."""
    return series.to_numpy() if series.dtype.kind in "biuf" and isinstance(series.dtype, np.dtype) else series.to_numpy(dtype=object)


def _refuse_nested(series: pd.Series) -> None:
    for row, value in enumerate(series.tolist(), 1):
        if isinstance(value, bytes | bytearray):
            raise DataError(
                f"column {str(series.name)!r} holds bytes that are not UTF-8 text in row {row}: {bytes(value[:20])!r}",
                hint="save the file as UTF-8",
            )
        if isinstance(value, list | dict | set | np.ndarray):
            raise DataError(
                f"column {str(series.name)!r} holds a {type(value).__name__} in row {row}",
                hint="one value for each row and column; spread it over columns, or leave it out: drop=[...]",
            )


def kind_of(value: Any) -> str:
    """What a cell holds: "boolean", "number", "text", "date", or the name of its type."""
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | float | np.integer | np.floating | Decimal):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
        return "date"
    return type(value).__name__


def _floats(name: str, series: pd.Series) -> np.ndarray:
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if series.dtype.kind in "iu" and (long := np.abs(values) >= 2.0**53).any():
        at = int(np.flatnonzero(long)[0])
        raise DataError(
            f"column {name!r} holds {series.iat[at]} in row {at + 1}: too long a number to be told from its neighbours",
            hint=f'an identifier? id="{name}" or drop=["{name}"]; a code? categories=["{name}"]',
        )
    return values


def _number(name: str, kind: Literal["number", "boolean"], values: np.ndarray) -> Raw:
    if (bad := np.isinf(values)).any():
        at = np.flatnonzero(bad)
        raise DataError(
            f"column {name!r} is {values[at[0]]} in row {at[0] + 1}" + (f" and {len(at) - 1:,} more" if len(at) > 1 else ""),
            hint="write nothing where a value is missing, and the largest value that makes sense where it overflowed",
        )
    known = values[~np.isnan(values)]
    if len(known) and (largest := np.abs(known).max()) > 1e150:
        raise DataError(
            f"column {name!r} reaches {largest:.3g}, and its square is beyond what a number holds",
            hint=f'take its logarithm, or leave it out: drop=["{name}"]',
        )
    counts = kind == "number" and len(known) == len(values) > MANY and bool((np.diff(values) == 1).all())
    note = ""
    if not len(known):
        note = f"column {name!r} is missing in every row: it says nothing"
    elif len(values) > 1 and (known == known[0]).all() and len(known) == len(values):
        note = f"column {name!r} is {known[0]:g} in every row: it says nothing"
    elif counts:
        note = f"column {name!r} counts the rows, {values[0]:.0f} to {values[-1]:.0f}: leave it out unless the order means something"
    return Raw(name, kind, values, note=note)


def _text(name: str, series: pd.Series, texts: list[str]) -> Raw:
    texts = [t for t in texts if t.strip()]
    if share(map(is_date, texts)) > 0.5:
        raise _date(name, series)
    numbers = share(map(is_number, texts))
    if numbers == 1:
        values = series.astype(object).where(~missing_in(series), np.nan).to_numpy(dtype=np.float64)
        return _number(name, "number", values)
    if numbers > 0.5 and len(texts) > 2:
        odd = [t for t in texts if not is_number(t)]
        at = int(np.flatnonzero((series == odd[0]).to_numpy())[0]) + 1
        raise DataError(
            f"column {name!r} holds numbers, and also {', '.join(map(repr, odd[:3]))} (first in row {at})",
            hint=f'is it missing there? missing=["{odd[0]}"]; are the numbers codes? categories=["{name}"]',
        )
    return _category(name, series, checked=True)


def _category(name: str, series: pd.Series, *, checked: bool) -> Raw:
    import pandas as pd

    missing = missing_in(series)
    codes, values = pd.factorize(series.astype(object).where(~missing, None))
    names = [_name(v) for v in values]
    known = int((~missing).sum())
    if checked and len(names) > max(MANY, known // 2):
        raise DataError(
            f"column {name!r} holds {len(names):,} different texts in {known:,} rows, such as {names[0]!r}: an identifier or free text",
            hint=f'leave it out: id="{name}" or drop=["{name}"]; if it is a category indeed: categories=["{name}"]',
        )
    note = ""
    if not known:
        note = f"column {name!r} is missing in every row: it says nothing"
    elif len(names) == 1 and known == len(series):
        note = f"column {name!r} is {names[0]!r} in every row: it says nothing"
    texts = tuple(dict.fromkeys(names))
    if len(texts) < len(names):  # 1 and 1.0 are one name
        place = {t: i for i, t in enumerate(texts)}
        codes = np.array([place[n] for n in names] + [-1])[codes]
    return Raw(name, "category", np.asarray(codes, dtype=np.int64), texts, note)


def _name(value: Any) -> str:
    """A category's name: whole numbers without a point, so that a missing value elsewhere in the column renames none."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _date(name: str, series: pd.Series) -> DataError:
    first = next((f", such as {str(v)!r}" for v, missing in zip(series, series.isna(), strict=True) if not missing), "")
    return DataError(
        f"column {name!r} holds dates or times{first}",
        hint=f'split by it: time="{name}"; or leave it out: drop=["{name}"]; or turn it into a number (days since, month) before',
    )


def _mixed(name: str, known: pd.Series) -> DataError:
    examples: dict[str, str] = {}
    for row, value in zip(known.index.tolist(), known.tolist(), strict=True):
        examples.setdefault(kind_of(value), f"{value!r} (row {row + 1})")
    return DataError(
        f"column {name!r} mixes " + " and ".join(f"{kind} {example}" for kind, example in list(examples.items())[:3]),
        hint=f'make them one kind, or take all for names: categories=["{name}"]; or leave it out: drop=["{name}"]',
    )
