"""The label column: classes, several labels or a number; what is unknown, and what the classes are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attar.data.base import Kind
from attar.data.numerals import is_number
from attar.errors import DataError, near
from attar.signal import IGNORE, Schema

__all__ = ["Labels", "label_statistics", "no_labels", "read_label", "read_labels", "read_scores"]

FEW = 20  # whole numbers with at most as many different values are classes unless told otherwise


@dataclass(frozen=True, eq=False)
class Labels:
    """kind; values as in Batch; classes as in Schema."""

    kind: Kind
    values: Tensor
    classes: tuple[str, ...]


def _nth_row(i: int) -> str:
    return f"row {i + 1}"


def read_label(
    name: str,
    values: np.ndarray,
    known: np.ndarray,
    kind: str = "auto",
    unlabelled: Literal["refuse", "keep"] = "refuse",
    *,
    classes: Sequence[str] | None = None,
    place: Callable[[int], str] = _nth_row,
    whole: bool = False,
) -> Labels:
    """One label column (N,) of text, booleans or numbers → classes or numbers.

    known: (N,) bool, False where the label is missing; such rows are refused, or kept with IGNORE or NaN.
    classes: all there may be, in the order of the outcome axis; rows need not show each of them, and show no other.
    place: what a message calls the row at a position. whole: the rows are judged and teach nothing, so that one class or number will do.
    kind "auto": text, booleans and at most 20 different whole numbers are classes; numbers with fractions are a regression; more
    whole numbers than that could be either, and are refused until `task:` says which. Classes are in the order of the alphabet,
    or of their value where they are numbers.
    """
    if kind == "multilabel":
        raise DataError(f"task multilabel needs several label columns, label={name!r} is one", hint='label=["a", "b", "c"]')
    if kind == "embedding":
        raise DataError("task embedding, but these are no texts", hint='text("pairs.tsv", text=["first", "second"], label="score")')
    if classes is not None:
        return _declared(name, values, known, kind, unlabelled, classes, place)
    _check_known(name, known, unlabelled, place)
    given = values[known]
    numbers = _as_numbers(name, given)
    if numbers is not None and (bad := ~np.isfinite(numbers)).any():
        raise DataError(f"label {name!r} is {numbers[bad][0]} in {place(_first(known, bad))}", hint="correct it, or leave the row out")
    if kind == "auto":
        kind = _guess(name, numbers)
    if kind == "regression":
        if numbers is None or given.dtype == bool:
            raise DataError(f"task regression, but label {name!r} is not a number: {given[0]!r}", hint="task: classification()")
        if not whole and (numbers == numbers[0]).all():
            raise DataError(f"label {name!r} is {numbers[0]:g} in every row", hint="is it the right column?")
        _check_size(name, numbers, known, place)
        out = np.full(len(values), np.nan, dtype=np.float32)
        out[known] = numbers
        return Labels("regression", torch.from_numpy(out), ())
    texts, codes = _classes(given, numbers)
    if len(texts) == 1 and not whole:
        raise DataError(f"label {name!r} has one class only: {texts[0]!r} in all {len(given):,} rows", hint="is it the right column?")
    if len(texts) > max(FEW, len(given) // 2) and not whole:
        raise DataError(f"label {name!r} has {len(texts):,} classes in {len(given):,} rows", hint="task: regression(), or another column")
    out = np.full(len(values), IGNORE, dtype=np.int64)
    out[known] = codes
    return Labels("classification", torch.from_numpy(out), texts)


def _declared(
    name: str, values: np.ndarray, known: np.ndarray, kind: str, unlabelled: str, classes: Sequence[str], place: Callable[[int], str]
) -> Labels:
    """The label column of a classification whose classes were said beforehand."""
    _check_classes(classes, kind)
    if unlabelled == "refuse" or not known.any():
        _check_known(name, known, unlabelled, place)
    given = values[known]
    texts, codes = _classes(given, _as_numbers(name, given))
    at = {text: i for i, text in enumerate(classes)}
    if foreign := [i for i, text in enumerate(texts) if text not in at]:
        first, rows = texts[foreign[0]], np.isin(codes, foreign)
        kinds = f"{len(foreign)} {'classes' if len(foreign) > 1 else 'class'}"
        raise DataError(
            f"label {name!r} is {first!r} in {place(_first(known, codes == foreign[0]))}, which classes={list(classes)} does not name"
            + (f"; so it is with {int(rows.sum()):,} rows and {kinds} in all" if rows.sum() > 1 else ""),
            hint=near(first, classes),
        )
    out = np.full(len(values), IGNORE, dtype=np.int64)
    out[known] = np.array([at[text] for text in texts])[codes]
    return Labels("classification", torch.from_numpy(out), tuple(classes))


def _check_classes(classes: Sequence[str], kind: str) -> None:
    if kind not in ("auto", "classification", "multilabel"):
        raise DataError(f"task {kind}, but classes={list(classes)}", hint="task: classification()")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise DataError(f"classes={list(classes)}", hint="two different names at least")


def no_labels(kind: str, rows: int, classes: Sequence[str] | None = None) -> Labels:
    """Labels of rows that have none: IGNORE or NaN throughout, and the classes as they are declared.

    kind: what is asked; "auto" is a classification if there are classes. Raises DataError where nobody says what is asked.
    """
    if classes is not None:
        _check_classes(classes, kind)
        if kind == "multilabel":
            return Labels("multilabel", torch.full((rows, len(classes)), IGNORE), tuple(classes))
        return Labels("classification", torch.full((rows,), IGNORE), tuple(classes))
    if kind == "auto":
        ways = 'task: regression() or embedding(); for a classification classes=["no", "yes"]'
        raise DataError("there is no label that would say what is asked", hint=ways)
    if kind in ("classification", "multilabel"):
        raise DataError("there is no label that would say which classes there are", hint='classes=["no", "yes"], in the teacher\'s order')
    unknown = torch.full((rows,), float("nan"))
    return Labels("embedding" if kind == "embedding" else "regression", unknown, ())


def read_scores(
    name: str,
    values: np.ndarray,
    known: np.ndarray,
    pairs: np.ndarray,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    *,
    place: Callable[[int], str] = _nth_row,
) -> Labels:
    """A column (N,) of scores of pairs of texts → float32, NaN where missing; a row that is no pair has none, whatever stands there.

    pairs: (N,) bool, which rows hold two texts.
    """
    if not pairs.any():
        raise DataError(f"label={name!r} scores pairs of texts, but no row holds two", hint='text=["sentence1", "sentence2"]')
    known = known & pairs
    _check_known(name, known | ~pairs if known.any() else known, unlabelled, place)
    numbers = _as_numbers(name, values[known])
    if numbers is None:
        wrong = next(i for i in np.flatnonzero(known).tolist() if not is_number(values[i]))
        raise DataError(f"label {name!r} is {values[wrong]!r} in {place(wrong)}: a score is a number", hint="is it the right column?")
    if (bad := ~np.isfinite(numbers)).any():
        raise DataError(f"label {name!r} is {numbers[bad][0]} in {place(_first(known, bad))}", hint="correct it, or leave the row out")
    _check_size(name, numbers, known, place)
    out = np.full(len(values), np.nan, dtype=np.float32)
    out[known] = numbers
    return Labels("embedding", torch.from_numpy(out), ())


def read_labels(
    names: Sequence[str],
    columns: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    unlabelled: Literal["refuse", "keep"] = "refuse",
    *,
    place: Callable[[int], str] = _nth_row,
    whole: bool = False,
) -> Labels:
    """Several label columns of 0 and 1 (or booleans) → (N, L) int64, IGNORE where unknown and kept; whole as in `read_label`."""
    if len(names) < 2:
        raise DataError(f"task multilabel needs several label columns, got {list(names)}", hint='label=["a", "b", "c"]')
    out = np.full((len(columns[0]), len(names)), IGNORE, dtype=np.int64)
    for i, (name, values, there) in enumerate(zip(names, columns, known, strict=True)):
        _check_known(name, there, unlabelled, place)
        numbers = _as_numbers(name, values[there])
        if numbers is None or not np.isin(numbers, (0, 1)).all():
            bad = repr(values[there][0]) if numbers is None else f"{numbers[~np.isin(numbers, (0, 1))][0]:g}"
            raise DataError(f"label {name!r} holds {bad}", hint="each of several labels is 0 or 1, true or false")
        if not whole and (numbers == numbers[0]).all():
            raise DataError(f"label {name!r} is {numbers[0]:g} in every row", hint=f"leave {name!r} out of the labels")
        out[there, i] = numbers
    return Labels("multilabel", torch.from_numpy(out), tuple(names))


def label_statistics(schema: Schema, labels: Labels, train: np.ndarray) -> Schema:
    """The schema with mean and spread of the training rows' labels, where these are numbers and some are known.

    Raises DataError for a regression with labels, none of them in a training row; scores may all be of pairs that are held out.
    """
    if labels.kind not in ("regression", "embedding") or bool(labels.values.isnan().all()):
        return schema
    values = labels.values.numpy()[train].astype(np.float64)
    values = values[~np.isnan(values)]
    if len(values):
        return replace(schema, label_mean=float(values.mean()), label_std=float(values.std()) or 1.0)
    if labels.kind == "embedding":
        return schema
    raise DataError(f"no training row has its label {schema.label!r}", hint="more labelled rows, or another seed of the split")


def _check_size(name: str, numbers: np.ndarray, known: np.ndarray, place: Callable[[int], str]) -> None:
    """Raise DataError for a number that 32 bits would make infinite."""
    if (large := np.abs(numbers) > np.finfo(np.float32).max).any():
        said = f"label {name!r} is {numbers[large][0]:g} in {place(_first(known, large))}, more than a number of 32 bits holds"
        raise DataError(said, hint="another unit, or its logarithm")


def _check_known(name: str, known: np.ndarray, unlabelled: str, place: Callable[[int], str]) -> None:
    if not known.any():
        raise DataError(f"label {name!r} is missing in all {len(known):,} rows", hint="is it the right column? without one: label=None")
    if unlabelled == "refuse" and not known.all():
        raise DataError(
            f"label {name!r} is missing in {(~known).sum():,} of {len(known):,} rows, first in {place(_first(~known))}",
            hint='leave these rows out, or keep them for the teacher to label: unlabelled="keep"',
        )


def _first(mask: np.ndarray, within: np.ndarray | None = None) -> int:
    """The position of the first row that is True in `mask` (and, among those, in `within`)."""
    at = np.flatnonzero(mask)
    return int((at if within is None else at[within])[0])


def _as_numbers(name: str, given: np.ndarray) -> np.ndarray | None:
    """As float64, or None where they are text; text that reads as numbers throughout counts as numbers."""
    if given.dtype.kind in "biuf":
        return given.astype(np.float64)
    kinds = {bool if isinstance(v, bool | np.bool_) else Real if isinstance(v, Real | Decimal) else type(v) for v in given.tolist()}
    if len(kinds) > 1 or not kinds <= {bool, Real, str}:
        examples = {type(v).__name__: v for v in given.tolist()}
        raise DataError(
            f"label {name!r} {'mixes' if len(kinds) > 1 else 'holds'} "
            + " and ".join(f"{k} ({v!r})" for k, v in list(examples.items())[:3]),
            hint="labels are all text, all numbers or all booleans",
        )
    if kinds == {str} and not all(map(is_number, set(given.tolist()))):
        return None
    return given.astype(np.float64)


def _guess(name: str, numbers: np.ndarray | None) -> Kind:
    if numbers is None:
        return "classification"
    if (numbers != np.round(numbers)).any():
        return "regression"
    if (different := len(np.unique(numbers))) <= FEW:
        return "classification"
    raise DataError(
        f"label {name!r} has {different:,} different whole numbers from {numbers.min():g} to {numbers.max():g}: classes, or a number?",
        hint="say so: task: classification() or task: regression()",
    )


def _classes(given: np.ndarray, numbers: np.ndarray | None) -> tuple[tuple[str, ...], np.ndarray]:
    if given.dtype == bool or all(isinstance(v, bool | np.bool_) for v in given[:1].tolist()):
        values, codes = np.unique(given.astype(bool), return_inverse=True)
        return tuple(str(bool(v)) for v in values), codes
    if numbers is not None:
        values, codes = np.unique(numbers, return_inverse=True)
        return tuple(str(int(v)) if v == round(v) else repr(float(v)) for v in values), codes
    values, codes = np.unique(given.astype(str), return_inverse=True)
    return tuple(values.tolist()), codes
