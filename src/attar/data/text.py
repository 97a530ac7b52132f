"""Texts: JSONL, CSV, TSV, or a text on each line; one file, or a folder of domains; sentences and pairs; with labels, scores or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np

from attar.data.base import Asked, Data, Memory, assemble
from attar.data.deal import SPLITS, Shares, deal
from attar.data.groups import Group, read_groups, wanted
from attar.data.ids import text_key, texts_ids
from attar.data.labels import Labels, label_statistics, no_labels, read_label, read_labels, read_scores
from attar.data.records import Records, files_of, read_records, stem
from attar.errors import DataError
from attar.notation import InPath, located, say
from attar.signal import Schema, Texts

__all__ = ["Text", "guess_texts", "read_texts", "text"]

ALONE = ("text", "sentence", "review", "content", "comment", "message", "utterance", "question", "tweet", "snippet", "document", "body")
PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text_a", "text_b"),
    ("query", "document"),
)


@dataclass(frozen=True)
class Text:
    """Texts in a file or a folder, described; `read` reads them."""

    path: InPath
    text: str | list[str] | None
    label: str | list[str] | None
    classes: list[str] | None
    group: str | None
    groups: str | list[str] | None
    unlabelled: Literal["refuse", "keep"]
    separator: str | None
    valid: float | InPath
    calibration: float | InPath
    test: float | InPath
    seed: int

    def __repr__(self) -> str:
        given = dict(vars(self))
        return say("text", given.pop("path"), **given)

    @property
    def files(self) -> dict[str, InPath]:
        """The splits that lie in files of their own."""
        return {name: share for name in SPLITS[1:] if isinstance(share := getattr(self, name), str)}

    @property
    def shares(self) -> Shares:
        """Of the splits dealt from `path`."""
        return Shares(*(0.0 if n in self.files else getattr(self, n) for n in SPLITS[1:]), given=tuple(self.files))

    def domains(self) -> dict[str, Text]:
        """Each file of the folder as data of its own, by the file's name without its suffix."""
        return {stem(file): replace(self, path=str(file)) for file in files_of(located(self.path))[0]}

    def read(self, kind: Asked = "auto") -> Data:
        """Read the files, check them and split their rows. Raises DataError, naming file and line, for whatever cannot be used."""
        return _read(self, kind)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        return _read(self, home.kind, whole=True)


def text(
    path: InPath,
    text: str | list[str] | None = None,
    label: str | list[str] | None = None,
    *,
    classes: list[str] | None = None,
    group: str | None = None,
    groups: str | list[str] | None = None,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    separator: str | None = None,
    valid: float | InPath = 0.1,
    calibration: float | InPath = 0.1,
    test: float | InPath = 0.2,
    seed: int = 0,
) -> Text:
    """Texts in a file, or in all files of a folder, UTF-8: .jsonl, .csv, .tsv with a line of column names, .txt with a text on each line.

    path: the file (also with .gz), or a folder of files of one form; each file of it is a domain, `domains()` names them apart.
    text: the column of texts, or the columns of a pair in order. Without it the usual names are looked for, alone ("text",
        "sentence", …) or as a pair ("sentence1" and "sentence2", "premise" and "hypothesis", …), and exactly one must be there.
    label: the column of classes or numbers, a list of columns of 0 and 1 for several labels, or, where the task is `embedding`, of
        scores of the first text with the second. None: no row has a label, and the task says what is asked.
    classes: all the classes there may be, in the order of the teacher's outcomes; needed where no label shows them, and good for a
        domain that does not show all. A label that is none of them is refused.
    group: a column, such as an author: all rows of a group lie in one split. It is no text.
    groups: columns such as "language,year", by whose values student and teacher are compared apart, as in `table`. They are no texts.
    unlabelled: rows without a label, an empty cell or null, are refused, or kept for the teacher to label.
    separator: of the columns of .csv (a comma) and .tsv (a tab). Quotes are read as the csv module reads them; in a file of tabs
        with a quote that is not one of a pair around a whole field, all are signs like any other, as in GLUE's files.
    valid, calibration, test: the share of `path`'s rows, or a file that is this split, as benchmarks have them: test="test.tsv".
        Rows of `path` are split by the hash of their texts and `seed`, and left out where one of these files has them too.

    Rows that have no text, or lack one of a pair, are left out with a note. For `embedding` they stay as long as one text is there:
    `Batch.mask` says which, and a row that is no pair has no score.
    Raises DataError when read, naming file and line.

    >>> text("reviews.tsv", label="stars", test="official.tsv").files
    {'test': 'official.tsv'}
    """
    made = Text(path, text, label, classes, group, groups, unlabelled, separator, valid, calibration, test, seed)
    _ = made.shares  # refuses shares that leave nothing
    if group is not None and made.files:
        raise DataError(f"group={group!r} and {next(iter(made.files))}={next(iter(made.files.values()))!r}", hint="leave one of them out")
    return made


def read_texts(records: Records, names: Sequence[str]) -> list[np.ndarray]:
    """Columns of texts, (N,) str each, "" where one is missing or blank. Raises DataError for what is no text, or cannot be written."""
    return [_texts(records, name) for name in names]


def guess_texts(records: Records, others: Sequence[str] = ()) -> list[str]:
    """The columns that hold texts, by their usual names; `others` have another role. Raises DataError unless exactly one choice fits."""
    free = {name.lower(): name for name in records.columns if name not in others}
    fits = [[free[a], free[b]] for a, b in PAIRS if a in free and b in free]
    fits = fits or [[free[name]] for name in ALONE if name in free]
    if not fits and len(free) == 1:
        fits = [list(free.values())]
    if len(fits) != 1:
        said = " or ".join(map(repr, [f[0] if len(f) == 1 else f for f in fits]))
        raise DataError(
            f"which column of {records.place(0).rpartition(', ')[0]} holds the texts, {said}?"
            if fits
            else f"no column of {records.place(0).rpartition(', ')[0]} is called like one of texts",
            hint=f"text= one of {', '.join(map(repr, free.values()))}; of a pair a list of two",
        )
    return fits[0]


def _read(spec: Text, kind: str, *, whole: bool = False) -> Data:
    records = read_records(located(spec.path), spec.separator)
    labels = [] if spec.label is None else [spec.label] if isinstance(spec.label, str) else list(spec.label)
    parted = wanted(spec.groups, list(records.columns), label=labels)
    others = [*labels, *([spec.group] if spec.group else []), *(name for name in parted if name != spec.group)]
    names = guess_texts(records, others) if spec.text is None else [spec.text] if isinstance(spec.text, str) else list(spec.text)
    _check_roles(records, names, labels, spec.group)
    if both := [name for name in parted if name in names]:
        raise DataError(f"column {both[0]!r} is named as text and as groups", hint="a group is what many texts have in common")
    records, given = _with_files(spec, records, [*names, *others])
    embeds = kind == "embedding"
    columns = read_texts(records, names)
    there = np.array([[bool(t) for t in column] for column in columns], dtype=bool).T  # (N, K)
    kept = np.asarray(there.any(1) if embeds else there.all(1))
    if not kept.any():
        raise DataError(f"no row of {spec.path} has a text in {', '.join(map(repr, names))}", hint="is it the right column?")
    notes = (*records.notes, *_blank_note(records, kept))
    records, given, there = records.take(np.flatnonzero(kept)), given[kept], there[kept]
    columns = [column[kept] for column in columns]
    found = _labels(spec, records, labels, kind, there, embeds, whole=whole)
    ids = texts_ids([column.tolist() for column in columns])
    group = None if spec.group is None else _groups(records, spec.group)
    part, dealt = deal(ids, spec.shares, seed=spec.seed, group=group, given=given if spec.files else None, whole=whole)
    schema = Schema("text", classes=found.classes, label=", ".join(labels) or "label", texts=tuple(names), embeds=embeds)
    schema = label_statistics(schema, found, np.flatnonzero(part == 0))
    cells = {name: _cells(records, name, "groups") for name in parted}
    known = {name: np.array([v is not None for v in values.tolist()], dtype=bool) for name, values in cells.items()}
    groups = {name: Group.unknown(len(records)) for name in parted}
    if not whole:
        groups, said = read_groups({name: (values, known[name]) for name, values in cells.items()}, np.flatnonzero(part == 0))
        notes += said
    notes += _single_note(there, labels, records) + _shared_note(columns, part) if embeds else ()
    return assemble(
        schema=schema,
        kind=found.kind,
        ids=ids,
        labels=found.values,
        weight=None,
        part=part,
        rows=Memory({name: Texts(column) for name, column in zip(names, columns, strict=True)}).take,
        notes=(*notes, *dealt),
        mask=there if embeds else None,
        groups=groups,
        whole=whole,
    )


def _check_roles(records: Records, names: list[str], labels: list[str], group: str | None) -> None:
    if not names:
        raise DataError("text=[]: no column of texts is named", hint="the column of texts, or the columns of a pair")
    taken: dict[str, str] = {}
    roles = [*(("text", n) for n in names), *(("label", n) for n in labels), *((("group", group),) if group else ())]
    for role, name in roles:
        records.column(name, role)
        if name in taken:
            raise DataError(f"column {name!r} is named as {taken[name]} and as {role}", hint="one role for each column")
        taken[name] = role


def _with_files(spec: Text, records: Records, names: list[str]) -> tuple[Records, np.ndarray]:
    """The records of all files, and (N,) the split of those that lie in a file of their own, −1 of the others."""
    others = {split: read_records(located(path), spec.separator) for split, path in spec.files.items()}
    sizes = [(-1, len(records)), *((SPLITS.index(split), len(r)) for split, r in others.items())]
    given = np.concatenate([np.full(size, number) for number, size in sizes])
    return records.join(list(others.values()), names), given


def _texts(records: Records, name: str) -> np.ndarray:
    values = records.column(name, "text")
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values.tolist()):
        if value is None:
            out[i] = ""
        elif isinstance(value, str):
            out[i] = value if value and not value.isspace() else ""
        else:
            what = f"text {name!r} is {_cut(value)} in {records.place(i)}, of type {type(value).__name__}"
            raise DataError(what, hint="texts are strings; is it the right column?")
        if "\0" in out[i]:
            raise DataError(f"text {name!r} holds a NUL byte in {records.place(i)}", hint="is it a text?")
    for i, value in enumerate(out.tolist()):
        if not value.isascii() and any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise DataError(f"text {name!r} holds half of a surrogate pair in {records.place(i)}", hint="write the file as UTF-8 again")
    return out


def _labels(spec: Text, records: Records, names: list[str], kind: str, there: np.ndarray, embeds: bool, *, whole: bool) -> Labels:
    if not names:
        return no_labels(kind, len(records), spec.classes)
    if embeds and spec.classes is not None:
        raise DataError(f"task embedding, but classes={spec.classes}", hint="its label is a score")
    columns = [_cells(records, name) for name in names]
    known = [np.array([v is not None for v in column.tolist()], dtype=bool) for column in columns]
    for name, column, k in zip(names, columns, known, strict=True):
        _check_types(records, name, column, k)
    if isinstance(spec.label, list):
        if kind not in ("auto", "multilabel"):
            raise DataError(f"task {kind} needs one label column, label={names} is {len(names)}", hint="task: multilabel()")
        if spec.classes is not None:
            raise DataError(f"label={names} and classes={spec.classes}", hint="several labels are called like their columns")
        return read_labels(names, columns, known, spec.unlabelled, place=records.place, whole=whole)
    if embeds:
        pairs = there[:, :2].sum(1) == 2
        return read_scores(names[0], columns[0], known[0], pairs, spec.unlabelled, place=records.place)
    return read_label(names[0], columns[0], known[0], kind, spec.unlabelled, classes=spec.classes, place=records.place, whole=whole)


def _cells(records: Records, name: str, role: str = "label") -> np.ndarray:
    """A column of labels or groups, None where missing: null, NaN, or nothing but blanks."""
    values = records.column(name, role).copy()
    for i, value in enumerate(values.tolist()):
        if (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and math.isnan(value)):
            values[i] = None
    return values


def _check_types(records: Records, name: str, values: np.ndarray, known: np.ndarray) -> None:
    """Labels are all text, all numbers or all booleans."""
    first: dict[str, int] = {}
    for i in np.flatnonzero(known).tolist():
        value = values[i]
        kind = "bool" if isinstance(value, bool) else "number" if isinstance(value, Real) else type(value).__name__
        first.setdefault(kind, i)
    if strange := [k for k in first if k not in ("bool", "number", "str")]:
        i = first[strange[0]]
        raise DataError(f"label {name!r} is {_cut(values[i])} in {records.place(i)}", hint="a label is a text, a number, true or false")
    if len(first) > 1:
        said = " and ".join(f"{_cut(values[i])} ({records.place(i)})" for i in list(first.values())[:3])
        raise DataError(f"label {name!r} mixes {said}", hint="labels are all text, all numbers or all booleans")


def _groups(records: Records, name: str) -> np.ndarray:
    values = records.column(name, "group").tolist()
    for i, value in enumerate(values):
        if value is None or value == "":
            raise DataError(f"group {name!r} is missing in {records.place(i)}", hint="name the group of each row, or leave these rows out")
    return np.array([text_key(str(v)) for v in values], dtype=np.uint64).view(np.int64)


def _blank_note(records: Records, kept: np.ndarray) -> tuple[str, ...]:
    out = np.flatnonzero(~kept)
    return (f"{len(out):,} rows without their text are left out, the first in {records.place(int(out[0]))}",) if len(out) else ()


def _single_note(there: np.ndarray, labels: list[str], records: Records) -> tuple[str, ...]:
    if there.shape[1] < 2:
        return ()
    single = there[:, :2].sum(1) < 2
    notes = [f"{int(single.sum()):,} rows hold one text and no pair"] if single.any() else []
    if labels and (scored := single & np.array([v is not None for v in _cells(records, labels[0]).tolist()])).any():
        first = records.place(int(np.flatnonzero(scored)[0]))
        notes.append(f"{int(scored.sum()):,} scores of rows that hold no pair are left out, the first in {first}")
    return tuple(notes)


def _shared_note(columns: list[np.ndarray], part: np.ndarray) -> tuple[str, ...]:
    """Pairs that differ may share a text: whoever trains on one has read half of the other."""
    train, test = ({t for column in columns for t in column[part == number].tolist() if t} for number in (0, 3))
    shared = len(train & test)
    return (f"{shared:,} of the {len(test):,} texts of test stand in a training row as well",) if shared else ()


def _cut(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:60] + "…"
