"""Labels straight from arrays: what numpy has and pandas has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attar.data.labels import read_label, read_labels
from attar.errors import DataError
from attar.signal import IGNORE


def read(values: Any, kind: str = "auto", known: Any = None):
    array = np.asarray(values)
    return read_label("y", array, np.ones(len(array), dtype=bool) if known is None else np.asarray(known), kind, "keep")


def test_classes_are_numbered_in_the_order_of_their_names() -> None:
    labels = read(np.array(["b", "a", "c", "a"]))
    assert labels.classes == ("a", "b", "c")
    assert labels.values.tolist() == [1, 0, 2, 0]


def test_classes_that_are_numbers_are_in_the_order_of_their_value() -> None:
    assert read([10.0, 9.0, 10.0]).classes == ("9", "10")
    assert read(np.array(["10", "9"], dtype=object)).classes == ("9", "10")
    assert read([0.5, 1.5, 0.5], "classification").classes == ("0.5", "1.5")


def test_codes_with_leading_zeros_stay_text() -> None:
    assert read(np.array(["007", "010"])).classes == ("007", "010")


def test_booleans_are_two_classes() -> None:
    assert read([True, False]).classes == ("False", "True")
    assert read(np.array([True, False, None], dtype=object), known=[True, True, False]).values.tolist() == [1, 0, IGNORE]


def test_what_is_unknown_stays_unknown() -> None:
    labels = read([0.5, np.nan, 2.5], known=[True, False, True])
    assert labels.kind == "regression"
    assert labels.values.isnan().tolist() == [False, True, False]


def test_a_regression_of_booleans_is_refused() -> None:
    with pytest.raises(DataError, match="is not a number"):
        read([True, False], "regression")


def test_several_labels_need_several_columns() -> None:
    with pytest.raises(DataError, match="several label columns, got"):
        read_labels(["a"], [np.array([0, 1])], [np.ones(2, dtype=bool)])
    with pytest.raises(DataError, match="label 'b' is 1 in every row"):
        read_labels(["a", "b"], [np.array([0, 1]), np.array([1, 1])], [np.ones(2, dtype=bool)] * 2)


def test_a_number_that_32_bits_would_make_infinite_is_refused() -> None:
    with pytest.raises(DataError, match=r"label 'y' is 1e\+300 in row 2, more than"):
        read([2.5, 1e300, 1.0], "regression")
    assert read([2.5, 3e38, 1.0], "regression").values.isfinite().all()
