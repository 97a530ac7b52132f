"""The perceptron reads raw tables: gaps, heavy tails, unknown categories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.errors import StudentError
from attar.signal import Column, Schema
from attar.students import mlp

AGE = Column("age", "number", mean=40.0, std=10.0, median=38.0)
PAID = Column("paid", "number", mean=100.0, std=1000.0, median=5.0, missing=0.2)
COLOUR = Column("colour", "category", categories=("blue", "red"))
CITY = Column("city", "category", categories=("Oslo", "Rome", "Wien"))
TABLE = Schema("table", (AGE, COLOUR, PAID, CITY), classes=("no", "yes"))


def rows(numbers: list[list[float]], codes: list[list[int]]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers), "categories": torch.tensor(codes)}


def test_numbers_become_asinh_of_standard_scores_with_flags_for_gaps() -> None:
    student = mlp()(Schema("table", (AGE, PAID), classes=("no", "yes")), 0)
    read = student.get_submodule("read")({"numbers": torch.tensor([[50.0, 1e6], [math.nan, math.nan]])})
    expected = np.arcsinh([[1.0, 999.9], [-0.2, -0.095]])
    torch.testing.assert_close(read[:, :2], torch.tensor(expected, dtype=torch.float32))
    assert read[:, 2].tolist() == [0.0, 1.0]
    assert read.shape == (2, 3)  # age had no gap in training: no flag


def test_a_gap_where_training_had_none_counts_as_the_median() -> None:
    student = mlp()(TABLE, 0).eval()
    gap, median = student(rows([[math.nan, 1.0]], [[1, 1]])), student(rows([[38.0, 1.0]], [[1, 1]]))
    assert torch.equal(gap, median)


@pytest.mark.parametrize("code", [-1, 3, 99])
def test_a_code_that_training_did_not_know_counts_as_unseen(code: int) -> None:
    student = mlp()(TABLE, 0).eval()
    unseen, known = student(rows([[40.0, 1.0]], [[0, 2]])), student(rows([[40.0, 1.0]], [[2, 2]]))
    assert torch.equal(student(rows([[40.0, 1.0]], [[code, 2]])), unseen)
    assert not torch.equal(unseen, known)


def test_each_column_has_its_own_categories() -> None:
    student = mlp()(TABLE, 0).eval()
    answers = [student(rows([[40.0, 1.0]], [[a, b]])) for a in range(3) for b in range(4)]
    assert len({tuple(a[0].tolist()) for a in answers}) == 12


def test_numbers_in_double_precision_are_read_as_single() -> None:
    student = mlp()(TABLE, 0).eval()
    one = rows([[41.5, 7.0]], [[1, 1]])
    assert torch.equal(student(one), student({**one, "numbers": one["numbers"].double()}))


def test_a_table_may_lack_either_block() -> None:
    only_codes = mlp()(Schema("table", (COLOUR, CITY), classes=("no", "yes")), 0)
    assert only_codes({"categories": torch.tensor([[1, 1]])}).shape == (1, 2)
    with pytest.raises(StudentError, match="no column"):
        mlp()(Schema("table", (), classes=("no", "yes")), 0)


def test_a_regression_answers_in_the_unit_of_its_label() -> None:
    schema = Schema("table", (AGE,), label_mean=5000.0, label_std=200.0)
    student = mlp()(schema, 0)
    plain = mlp()(Schema("table", (AGE,)), 0)
    x = {"numbers": torch.tensor([[25.0], [70.0]])}
    torch.testing.assert_close(student(x), plain(x) * 200 + 5000)
    assert student(x).shape == (2, 1)


def test_pixels_are_standardised_by_channel() -> None:
    schema = Schema("images", shape=(2, 2, 2), pixel_mean=(10.0, 100.0), pixel_std=(5.0, 0.0), classes=("a", "b"))
    read = mlp()(schema, 0).get_submodule("read")(torch.full((1, 2, 2, 2), 20, dtype=torch.uint8))
    assert read.tolist() == [[2.0] * 4 + [-80.0] * 4]  # a channel without spread is only centred


def test_depth_counts_hidden_layers_and_dropout_follows_each() -> None:
    student = mlp(width=8, depth=3, dropout=0.1)(TABLE, 0)
    kinds = [type(m).__name__ for m in student.get_submodule("hidden").children()]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 3


@pytest.mark.parametrize("bad", [{"width": 0}, {"depth": 0}, {"embed": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_sizes_out_of_range_are_refused_with_their_value(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(StudentError, match=rf"mlp\({name}={value}\)"):
        mlp(**bad)  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_the_wrong_rows_are_said() -> None:
    with pytest.raises(StudentError, match="reads a table"):
        mlp()(TABLE, 0)(torch.zeros(2, 3))
    with pytest.raises(StudentError, match="reads a tensor"):
        mlp()(Schema("tensor", shape=(3,), classes=("a", "b")), 0)(rows([[1.0, 1.0]], [[1, 1]]))


def test_its_text_reads_back() -> None:
    assert repr(mlp(width=32)) == "mlp(width=32, depth=3, dropout=0.0, embed=4)"
    assert mlp(32) == mlp(width=32)
