"""A table's rows as the matrix that a tree file was grown on: columns by name, categories by their text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attar.errors import TeacherError
from attar.signal import Batch, Schema
from attar.sources.answers import text_of

__all__ = ["Feature", "features_of", "matrix"]


@dataclass(frozen=True)
class Feature:
    """One feature of a tree file. categories: its values, whose position is the number the trees split on; None for a plain number.
    () for categories that are whole numbers themselves."""

    name: str
    categories: tuple[Any, ...] | None = None


def features_of(schema: Schema) -> tuple[Feature, ...]:
    """A table's columns as features, names spelled as LightGBM bears them."""
    if schema.kind != "table":
        raise TeacherError(f"lightgbm grows on tables, the data are {schema.kind}", hint="taught(cnn(…), …) for images")
    return tuple(Feature(_spelled(c.name), c.categories if c.kind == "category" else None) for c in schema.columns)


def matrix(features: Sequence[Feature], batch: Batch, who: str) -> np.ndarray:
    """(B, F) float64 of a table's rows, in the order of `features`; raises TeacherError for a column that the data lack."""
    schema = batch.schema
    if isinstance(batch.inputs, Tensor) or (schema is None and set(batch.inputs) != {"numbers"}):
        raise TeacherError(f"{who} wants the named columns of a table, these rows have none", hint="is this the teacher of these data?")
    blocks = {name: block.cpu().numpy() for name, block in batch.inputs.items()}
    if schema is None or _nameless(features, schema):
        if blocks["numbers"].shape[1] != len(features):
            raise TeacherError(f"{who} wants {len(features)} columns, these rows have {blocks['numbers'].shape[1]}", hint="name them")
        return np.array(blocks["numbers"], np.float64, order="C")
    places = {_spelled(c.name): ("numbers", i, c) for i, c in enumerate(schema.numbers)}
    places |= {_spelled(c.name): ("categories", i, c) for i, c in enumerate(schema.categories)}
    if absent := [f.name for f in features if _spelled(f.name) not in places]:
        have = [c.name for c in schema.columns]
        raise TeacherError(f"{who} wants the columns {absent}, the data have {have}", hint="is this the teacher of these data?")
    rows = np.empty((len(batch), len(features)), np.float64)
    for j, feature in enumerate(features):
        block, i, column = places[_spelled(feature.name)]
        values = blocks[block][:, i]
        if block == "categories":
            rows[:, j] = np.array([math.nan, *_codes(column.categories, feature, who)])[values]
        elif not feature.categories:
            rows[:, j] = values
        else:
            seen, inverse = np.unique(values, return_inverse=True)
            rows[:, j] = np.array(_codes([float(v) for v in seen], feature, who))[inverse]
    return rows


def _codes(values: Sequence[Any], feature: Feature, who: str) -> list[float]:
    """The number the trees split on for each of `values`: NaN where the file does not know it."""
    if feature.categories:
        position = {_same(c): float(i) for i, c in enumerate(feature.categories)}
        return [position.get(_same(v), math.nan) for v in values]
    try:
        return [float(v) for v in values]  # the file has whole numbers for categories, or a plain number
    except ValueError:
        raise TeacherError(
            f"{who} takes {feature.name!r} for a number, in the data it is a category: {list(values)[:6]}",
            hint="train the teacher on a DataFrame whose column is a pandas category, or give the data the numbers it was trained on",
        ) from None


def _same(value: Any) -> str:
    """Categories are compared as text; True is also 1, and 1.0 is also 1."""
    return text_of(float(value)) if isinstance(value, bool) else text_of(value)


def _nameless(features: Sequence[Feature], schema: Schema) -> bool:
    """Whether a file fitted on a bare matrix meets a table of numbers only: then columns go by position."""
    return not schema.categories and all(re.fullmatch(r"Column_\d+|f\d+", f.name) for f in features)


def _spelled(name: str) -> str:
    """A column's name as LightGBM bears it: no blanks, and none of the signs that JSON uses."""
    return re.sub(r'[\s",:\[\]{}]', "_", name)
