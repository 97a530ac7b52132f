"""Tables: a CSV or Parquet file, or a DataFrame, of numbers, categories and booleans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor

from attar.data.base import Asked, Data, Memory, assemble
from attar.data.columns import Raw, kind_of, missing_in, objects_of, read_column
from attar.data.deal import Shares, deal
from attar.data.groups import Group, read_groups, wanted
from attar.data.ids import number_keys, row_ids, text_key, text_keys
from attar.data.labels import Labels, label_statistics, no_labels, read_label, read_labels
from attar.data.munge import Munge, synthesise
from attar.data.numerals import is_number
from attar.errors import DataError, MissingExtra, near
from attar.notation import InPath, located, say
from attar.signal import IGNORE, Column, Schema

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Frame", "Roles", "Table", "frame", "read_frame", "read_like", "table"]


@dataclass(frozen=True)
class Roles:
    """Which column does what, and how the rows are split; columns named nowhere are inputs."""

    label: str | list[str] | None
    classes: list[str] | None = None
    weight: str | None = None
    id: str | None = None
    time: str | None = None
    group: str | None = None
    groups: str | list[str] | None = None
    drop: list[str] | None = None
    categories: list[str] | None = None
    missing: list[str] | None = None
    unlabelled: Literal["refuse", "keep"] = "refuse"
    valid: float = 0.1
    calibration: float = 0.1
    test: float = 0.2
    seed: int = 0
    augment: Munge | None = None

    @property
    def labels(self) -> list[str]:
        return [self.label] if isinstance(self.label, str) else list(self.label or ())

    @property
    def shares(self) -> Shares:
        return Shares(self.valid, self.calibration, self.test)

    def parted(self, columns: Sequence[str]) -> list[str]:
        """The columns by which rows are compared apart. Raises DataError for one that is not there, and for the label."""
        return wanted(self.groups, columns, label=self.labels)

    def inputs(self, columns: Sequence[str]) -> list[str]:
        """The columns that are inputs. Raises DataError for a name that is not there, or that has two roles."""
        named = [("label", name) for name in self.labels]
        named += [(role, name) for role in ("weight", "id", "time", "group") if (name := getattr(self, role)) is not None]
        named += [("drop", name) for name in self.drop or ()]
        named += [("categories", name) for name in self.categories or ()]
        taken: dict[str, str] = {}
        for role, name in named:
            if name not in columns:
                raise DataError(f"{role}: there is no column {name!r}", hint=near(name, columns))
            if name in taken:
                raise DataError(f"column {name!r} is named as {taken[name]} and as {role}", hint="one role for each column")
            taken[name] = role
        if self.time is not None and self.group is not None:
            raise DataError(f"time={self.time!r} and group={self.group!r}: a split follows one of them", hint="leave one out")
        for name in self.parted(columns):
            if taken.get(name) in ("weight", "id"):
                raise DataError(
                    f"column {name!r} is named as {taken[name]} and as groups", hint="rows that have much in common are a group"
                )
        if not (inputs := [c for c in columns if taken.get(c, "categories") == "categories"]):
            raise DataError("no column is left to be an input", hint=f"columns: {', '.join(columns)}")
        return inputs


@dataclass(frozen=True)
class Table:
    """A table in a file, described; `read` reads it."""

    path: InPath
    roles: Roles
    separator: str | None = None

    def __repr__(self) -> str:
        return say("table", self.path, **vars(self.roles), separator=self.separator)

    def read(self, kind: Asked = "auto") -> Data:
        """Read the file, check it and split its rows. Raises DataError for whatever cannot be used."""
        return read_frame(self._frame(), self.roles, kind)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        return read_frame(self._frame(), self.roles, home.kind, home=home.schema)

    def _frame(self) -> pd.DataFrame:
        if not isinstance(self.path, str | Path):
            raise DataError(f"table(...) reads a file, got a {type(self.path).__name__}", hint="frame(df, label=...) takes a DataFrame")
        return _read_file(located(self.path), self.separator, self.roles.missing or [])


@dataclass(frozen=True, eq=False)
class Frame:
    """A DataFrame, described; `read` checks and splits it. The frame itself is not changed."""

    frame: pd.DataFrame
    roles: Roles

    def __repr__(self) -> str:
        return say("frame", **vars(self.roles)).replace("(", f"(<{len(self.frame):,} rows>, ", 1)

    def read(self, kind: Asked = "auto") -> Data:
        """Check the frame and split its rows. Raises DataError for whatever cannot be used."""
        return read_frame(self._frame(), self.roles, kind)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        return read_frame(self._frame(), self.roles, home.kind, home=home.schema)

    def _frame(self) -> pd.DataFrame:
        frame = self.frame.reset_index(drop=True)
        frame.columns = [str(c) for c in frame.columns]
        if self.roles.missing:
            frame = frame.mask(frame.isin(self.roles.missing))
        return frame


def table(
    path: InPath,
    label: str | list[str] | None = None,
    *,
    classes: list[str] | None = None,
    weight: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    groups: str | list[str] | None = None,
    drop: list[str] | None = None,
    categories: list[str] | None = None,
    missing: list[str] | None = None,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    separator: str | None = None,
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: Munge | None = None,
) -> Table:
    """A table in a CSV (also .gz, .tsv) or Parquet file, one row for each row, the first line naming the columns.

    label: the column to predict; a list of columns of 0 and 1 for several labels. None: no row has a label, and the task says what
        is asked.
    classes: all the classes there may be, in the order of the teacher's outcomes; needed where no label shows them.
    weight: a column of row weights, 0 or more.
    id: a column that names each row once; it is checked and is no input. Rows of equal content lie in one split all the same.
    time: a column of numbers or dates: the oldest rows train, the newest test. It is no input.
    group: a column, such as a patient: all rows of a group lie in one split. It is no input.
    groups: columns such as "age,sex", by whose values student and teacher are compared apart; numbers are cut into four bands at the
        quartiles of the training rows. They stay inputs unless `drop` names them as well.
    drop: columns to leave out.
    categories: columns to take for names although they hold numbers.
    missing: texts that mean missing, besides the empty one, NA, NaN and null.
    unlabelled: rows without a label are refused, or kept for the teacher to label.
    valid, calibration, test: the shares of these splits; the rest trains. Without time and group a row's split is a hash of its
        content and `seed`: more rows move none.
    augment: `munge()` adds synthetic rows to the training split.
    Raises DataError when read: files, columns, labels or values that cannot be used.

    >>> table("credit.csv", label="default", test=0.3).roles.test
    0.3
    """
    roles = Roles(
        label, classes, weight, id, time, group, groups, drop, categories, missing, unlabelled, valid, calibration, test, seed, augment
    )
    _ = roles.shares  # refuses shares that leave nothing
    return Table(path, roles, separator)


def frame(
    frame: pd.DataFrame,
    label: str | list[str] | None = None,
    *,
    classes: list[str] | None = None,
    weight: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    groups: str | list[str] | None = None,
    drop: list[str] | None = None,
    categories: list[str] | None = None,
    missing: list[str] | None = None,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: Munge | None = None,
) -> Frame:
    """A pandas DataFrame; its index is ignored, and columns of dtype category are categories. Arguments as in `table`."""
    roles = Roles(
        label, classes, weight, id, time, group, groups, drop, categories, missing, unlabelled, valid, calibration, test, seed, augment
    )
    _ = roles.shares
    return Frame(frame, roles)


def read_frame(frame: pd.DataFrame, roles: Roles, kind: str = "auto", *, home: Schema | None = None) -> Data:
    """A DataFrame with text for column names and rows numbered from 0 → Data.

    home: of the data that these rows are another place of, read whole: few as they may be, a column of names there holds names here.
    """
    whole = home is not None
    if not len(frame):
        raise DataError("the table has no rows", hint="only the line of column names is there")
    columns = [str(c) for c in frame.columns]
    if repeated := sorted({c for c in columns if columns.count(c) > 1}):
        raise DataError(f"several columns are called {', '.join(map(repr, repeated[:5]))}", hint="give each column its own name")
    inputs = roles.inputs(columns)
    labels = _labels(frame, roles, kind, whole=whole)
    weight = None if roles.weight is None else _weight(_column(frame, roles.weight))
    if roles.id is not None:
        _check_id(_column(frame, roles.id))
    names = {c.name: c for c in home.categories} if home is not None else {}
    raws = [_read_as(_column(frame, name), names.get(name), name in (roles.categories or ())) for name in inputs]
    for raw in raws if not whole else ():  # of a few rows a column may well be the label by chance
        _refuse_copy(raw, labels, roles)
    ids = row_ids({raw.name: raw.keys for raw in raws})
    part, notes = deal(
        ids,
        roles.shares,
        seed=roles.seed,
        group=None if roles.group is None else _groups(_column(frame, roles.group)),
        time=None if roles.time is None else _times(_column(frame, roles.time)),
        whole=whole,
    )
    notes = (*(raw.note for raw in raws if raw.note), *_missing_note(raws), *notes)
    described = [raw.describe(np.flatnonzero(part == 0)) for raw in raws]
    notes += tuple(note for raw, column in zip(raws, described, strict=True) if (note := _unseen_note(raw, column)))
    schema = Schema("table", tuple(described), classes=labels.classes, label=", ".join(roles.labels) or "label")
    schema = label_statistics(schema, labels, np.flatnonzero(part == 0))
    if whole:
        groups = {name: Group.unknown(len(ids)) for name in roles.parted(columns)}
    else:
        groups, said = _parted(frame, roles, np.flatnonzero(part == 0))
        notes += said
    values = labels.values
    if roles.augment is not None and not whole:
        raws, ids, values, weight, part, note = _extend(roles.augment, raws, ids, values, weight, part)
        groups = {name: group.longer(len(ids) - len(group.codes)) for name, group in groups.items()}
        notes += (note,)
    block = Memory(_block(raws, described))
    if (wide := _needs_double(raws)) is not None:
        notes += (f"numbers are kept in double precision: {wide!r} does not fit in single",)
    return assemble(
        schema=schema,
        kind=labels.kind,
        ids=ids,
        labels=values,
        weight=weight,
        part=part,
        rows=block.take,
        notes=notes,
        groups=groups,
        whole=whole,
    )


def _read_as(series: pd.Series, home: Column | None, category: bool) -> Raw:
    """A column; what is a category at home is one here, if it holds texts or what is known there."""
    if home is None or category:
        return read_column(series, category=category)
    known = series[~missing_in(series)]
    texts = known.dtype.kind not in "biuf" and {kind_of(v) for v in known} <= {"text"} and not all(map(is_number, known))
    named = read_column(series, category=True)
    return named if texts or set(named.texts) <= set(home.categories) else read_column(series)


def read_like(
    path: Path, schema: Schema, *, separator: str | None = None, missing: Sequence[str] = ()
) -> tuple[np.ndarray, dict[str, Tensor], tuple[str, ...]]:
    """The rows of a file as a schema reads them: (N,) ids, inputs, and notes; columns that the schema does not have are not read.

    Raises DataError for a column that is not there, or holds something else than it does in the schema.
    """
    frame = _read_file(path, separator, list(missing))
    frame.columns = names = [str(c) for c in frame.columns]
    raws = []
    for column in schema.columns:
        if names.count(column.name) != 1:
            what = "no column" if column.name not in names else "more than one column"
            raise DataError(f"{path} has {what} {column.name!r}", hint=near(column.name, names))
        raw = read_column(_column(frame, column.name), category=column.kind == "category")
        flags = column.kind == "boolean" and raw.kind == "number" and bool(np.isin(raw.values[~np.isnan(raw.values)], (0, 1)).all())
        if raw.kind != column.kind and not flags and not (raw.kind == "number" and np.isnan(raw.values).all()):
            raise DataError(f"column {column.name!r} of {path} is a {raw.kind}, elsewhere a {column.kind}", hint="are the files alike?")
        raws.append(Raw(raw.name, column.kind, raw.values, raw.texts))
    others = [name for name in names if name not in {c.name for c in schema.columns}]
    notes = (f"{path.name}: {', '.join(map(repr, others[:5]))}{', …' * (len(others) > 5)} not read",) if others else ()
    notes += tuple(note for raw, column in zip(raws, schema.columns, strict=True) if (note := _unseen_note(raw, column)))
    return row_ids({raw.name: raw.keys for raw in raws}), _block(raws, list(schema.columns)), notes


def _read_file(path: Path, separator: str | None, missing: list[str]) -> pd.DataFrame:
    try:
        import pandas as pd
        import pyarrow as pa
        from pyarrow import csv
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "table") from error
    if not path.is_file():
        there = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {str(path)!r}", hint=near(path.name, there) if there else "look at the folder's name")
    suffixes = [s.lower() for s in path.suffixes]
    plain = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""
    if plain in (".parquet", ".pq"):
        try:
            return pd.read_parquet(path).reset_index(drop=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} does not read as Parquet: {_first_line(error)}", hint="is the file complete?") from error
    if plain not in (".csv", ".tsv", ".txt", ".data"):
        raise DataError(f"{path}: tables are read from .csv, .tsv, .csv.gz or .parquet", hint="save it as one of these")
    separator = separator or ("\t" if plain == ".tsv" else ",")
    try:
        read = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(strings_can_be_null=True, null_values=[*csv.ConvertOptions().null_values, *missing]),
        )
        frame = read.to_pandas()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        hint = "save it as UTF-8" if "utf" in str(error).lower() else "is the file complete, and each row as long as the first?"
        raise DataError(f"{path} does not read as a table: {_first_line(error)}", hint=hint) from error
    if len(frame.columns) == 1 and (found := [s for s in ";\t|," if s != separator and s in str(frame.columns[0])]):
        raise DataError(f"{path} reads as one column, {str(frame.columns[0])[:60]!r}", hint=f"separator={found[0]!r}")
    return frame


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def _labels(frame: pd.DataFrame, roles: Roles, kind: str, *, whole: bool = False) -> Labels:
    if roles.label is None:
        if kind == "embedding":
            raise DataError("task embedding, but this is a table", hint='text("pairs.tsv", text=["first", "second"])')
        return no_labels(kind, len(frame), roles.classes)
    columns = [_column(frame, name) for name in roles.labels]
    known = [~missing_in(c) for c in columns]
    values = [objects_of(c) for c in columns]
    if isinstance(roles.label, str):
        if columns[0].dtype.kind in "mM":
            raise DataError(f"label {roles.label!r} holds dates or times", hint="turn it into a number before: days since, month")
        return read_label(roles.label, values[0], known[0], kind, roles.unlabelled, classes=roles.classes, whole=whole)
    if kind not in ("auto", "multilabel"):
        raise DataError(f"task {kind} needs one label column, label={roles.labels} is {len(columns)}", hint="task: multilabel()")
    if roles.classes is not None:
        raise DataError(f"label={roles.labels} and classes={roles.classes}", hint="several labels are called like their columns")
    return read_labels(roles.labels, values, known, roles.unlabelled, whole=whole)


def _parted(frame: pd.DataFrame, roles: Roles, train: np.ndarray) -> tuple[dict[str, Group], tuple[str, ...]]:
    columns = {name: _column(frame, name) for name in roles.parted([str(c) for c in frame.columns])}
    found = {name: (objects_of(series), ~missing_in(series)) for name, series in columns.items()}
    return read_groups(found, train, categories=roles.categories or ())


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return cast("pd.Series", frame[name])


def _weight(series: pd.Series) -> np.ndarray:
    raw = read_column(series)
    if raw.kind == "category":
        raise DataError(f"weight {raw.name!r} holds text", hint="weights are numbers, 0 or more")
    if (bad := ~(raw.values >= 0)).any():
        at = int(np.flatnonzero(bad)[0])
        value = "missing" if np.isnan(raw.values[at]) else f"{raw.values[at]:g}"
        raise DataError(f"weight {raw.name!r} is {value} in row {at + 1}", hint="weights are numbers, 0 or more, in every row")
    return raw.values


def _check_id(series: pd.Series) -> None:
    if (missing := missing_in(series)).any():
        raise DataError(f"id {series.name!r} is missing in row {np.flatnonzero(missing)[0] + 1}", hint="each row needs a name of its own")
    if (again := series.duplicated()).any():
        examples = list(dict.fromkeys(series[again].tolist()))[:3]
        raise DataError(
            f"id {series.name!r} names {int(again.sum()):,} rows again: {', '.join(map(repr, examples))}",
            hint=f'rows of one customer? group="{series.name}" keeps them in one split; otherwise look for a join gone wrong',
        )


def _groups(series: pd.Series) -> np.ndarray:
    raw = read_column(series, category=True)
    if (raw.values < 0).any():
        at = int(np.flatnonzero(raw.values < 0)[0])
        raise DataError(f"group {raw.name!r} is missing in row {at + 1}", hint="name the group of each row, or leave these rows out")
    keys = np.array([text_key(t) for t in raw.texts], dtype=np.uint64)
    return keys[raw.values].view(np.int64)


def _times(series: pd.Series) -> np.ndarray:
    """(N,) numbers that grow with time: the numbers themselves, or microseconds since 1970."""
    import pandas as pd

    name = series.name
    if (missing := missing_in(series)).any():
        raise DataError(f"time {name!r} is missing in row {np.flatnonzero(missing)[0] + 1}", hint="each row needs a time, or another split")
    kinds = {kind_of(v) for v in series.unique()}
    if kinds == {"number"} or (kinds == {"text"} and all(map(is_number, series.unique()))):
        values = series.to_numpy(dtype=np.float64)
        if np.isinf(values).any():
            raise DataError(f"time {name!r} is infinite in row {np.flatnonzero(np.isinf(values))[0] + 1}", hint="correct it")
        return values
    if series.dtype.kind == "m" or kinds not in ({"text"}, {"date"}):
        raise DataError(f"time {name!r} holds {' and '.join(sorted(kinds))}: {series.iloc[0]!r}", hint="numbers, or dates as 2005-09-30")
    moments = pd.to_datetime(series.astype(object), utc=True, errors="coerce", format="ISO8601" if kinds == {"text"} else None)
    if (bad := moments.isna().to_numpy()).any():
        at = int(np.flatnonzero(bad)[0])
        raise DataError(f"time {name!r} is {series.iloc[at]!r} in row {at + 1}", hint="write times as numbers, or as 2005-09-30")
    return moments.dt.as_unit("us").astype("int64").to_numpy()


def _refuse_copy(raw: Raw, labels: Labels, roles: Roles) -> None:
    """A column that holds the label itself would teach nothing else."""
    values = labels.values.numpy()
    if roles.label is None:
        return
    if labels.kind == "regression":
        known = ~np.isnan(values)
        same = raw.kind == "number" and np.array_equal(raw.values[known].astype(np.float32), values[known])
    elif labels.kind == "classification":
        known = values >= 0
        keys = [text_keys(values[known], labels.classes)]
        if all(map(is_number, labels.classes)):
            keys.append(number_keys(np.array([float(c) for c in labels.classes])[values[known]]))
        elif set(labels.classes) == {"False", "True"}:
            keys.append(number_keys(values[known]))
        same = any(np.array_equal(raw.keys[known], k) for k in keys)
    else:
        known, same = values >= 0, False
        for i in range(values.shape[1]):
            there = known[:, i]
            same = same or (raw.kind != "category" and np.array_equal(raw.values[there], values[there, i]))
    if same:
        raise DataError(
            f"column {raw.name!r} equals the label {', '.join(roles.labels)!r} in every row", hint=f'leave it out: drop=["{raw.name}"]'
        )


def _extend(
    spec: Munge, raws: list[Raw], ids: np.ndarray, labels: Tensor, weight: np.ndarray | None, part: np.ndarray
) -> tuple[list[Raw], np.ndarray, Tensor, np.ndarray | None, np.ndarray, str]:
    """The rows with synthetic training rows behind them; one that equals a real row, of any split, is dropped."""
    train = np.flatnonzero(part == 0)
    made, origin = synthesise(spec, [Raw(r.name, r.kind, r.values[train], r.texts) for r in raws])
    new_ids = row_ids({raw.name: raw.keys for raw in made})
    _, first = np.unique(new_ids, return_index=True)
    keep = np.sort(first[~np.isin(new_ids[first], ids)])
    raws = [Raw(r.name, r.kind, np.concatenate([r.values, m.values[keep]]), r.texts) for r, m in zip(raws, made, strict=True)]
    unknown = float("nan") if labels.is_floating_point() else IGNORE
    labels = torch.cat([labels, torch.full((len(keep), *labels.shape[1:]), unknown, dtype=labels.dtype)])
    weight = None if weight is None else np.concatenate([weight, weight[train[origin[keep]]]])
    note = f"munge added {len(keep):,} unlabelled rows to train; {len(new_ids) - len(keep):,} that equal another row were dropped"
    return raws, np.concatenate([ids, new_ids[keep]]), labels, weight, np.concatenate([part, np.zeros(len(keep), part.dtype)]), note


def _block(raws: list[Raw], described: list[Column]) -> dict[str, Tensor]:
    """The inputs as Schema draws them; numbers in single precision where that loses nothing."""
    inputs: dict[str, Tensor] = {}
    if numbers := [raw.values for raw in raws if raw.kind != "category"]:
        double = np.stack(numbers, axis=1)
        exact = _needs_double(raws) is None
        inputs["numbers"] = torch.from_numpy(double.astype(np.float32) if exact else double)
    if codes := [raw.codes(column) for raw, column in zip(raws, described, strict=True) if raw.kind == "category"]:
        inputs["categories"] = torch.from_numpy(np.stack(codes, axis=1))
    return inputs


def _needs_double(raws: list[Raw]) -> str | None:
    """The first column that single precision would change: a tree's threshold may lie between the two."""
    for raw in raws:
        if raw.kind == "number":
            with np.errstate(over="ignore"):
                single = raw.values.astype(np.float32)
            if not np.array_equal(single, raw.values, equal_nan=True):
                return raw.name
    return None


def _missing_note(raws: list[Raw]) -> tuple[str, ...]:
    shares = {raw.name: float((raw.values < 0).mean() if raw.kind == "category" else np.isnan(raw.values).mean()) for raw in raws}
    some = sorted(((share, name) for name, share in shares.items() if share > 0), reverse=True)
    if not some:
        return ()
    listed = ", ".join(f"{name} {share:.1%}" for share, name in some[:5])
    return (f"values are missing in {len(some)} of {len(raws)} columns: {listed}{', …' if len(some) > 5 else ''}",)


def _unseen_note(raw: Raw, column: Column) -> str:
    if raw.kind != "category":
        return ""
    foreign = sorted(set(raw.texts) - set(column.categories))
    if not foreign:
        return ""
    rows = int(((raw.codes(column) == 0) & (raw.values >= 0)).sum())
    listed = ", ".join(map(repr, foreign[:3])) + (", …" if len(foreign) > 3 else "")
    return f"column {raw.name!r}: {listed} in {rows:,} rows, never in train: read as unknown"
