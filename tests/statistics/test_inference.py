"""Prediction-powered inference: its formula by hand, how often it covers, when it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from attar.statistics import PredictionPowered, prediction_powered, wilson
from attar.statistics.inference import FEWEST_DISAGREEMENTS


def drawn(rng: np.random.Generator, rows: int, *, teacher: float, student: float, copied: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows,), (rows,): whether the student is right, and whether it decides as a teacher that is right so often.

    Where the teacher errs, the student makes the same error with probability `copied`, and is right in half of the rest.
    """
    teacher_right = rng.random(rows) < teacher
    u = rng.random(rows)
    right_where_wrong = (1 - copied) / 2
    right_where_right = (student - (1 - teacher) * right_where_wrong) / teacher
    right = np.where(teacher_right, u < right_where_right, u < right_where_wrong)
    agrees = np.where(teacher_right, right, u > 1 - copied)
    return right, agrees


def test_the_estimate_takes_the_teachers_errors_out_again() -> None:
    rng = np.random.default_rng(0)
    right, agrees = drawn(rng, 4000, teacher=0.8, student=0.75, copied=0.7)
    far = drawn(rng, 40_000, teacher=0.8, student=0.75, copied=0.7)[1]
    found = prediction_powered(right, agrees, far)
    assert abs(far.mean() - 0.75) > 0.03  # agreement alone is far off
    assert found.low < 0.75 < found.high
    assert found.value == pytest.approx(far.mean() + (right.astype(float) - agrees.astype(float)).mean(), abs=1e-12)


def test_with_many_labels_the_variance_is_that_of_the_two_means() -> None:
    rng = np.random.default_rng(1)
    right, agrees = drawn(rng, 50_000, teacher=0.9, student=0.8, copied=0.5)
    far = drawn(rng, 20_000, teacher=0.9, student=0.8, copied=0.5)[1]
    found = prediction_powered(right, agrees, far)
    correction = right.astype(float) - agrees.astype(float)
    se = np.sqrt(far.var() / len(far) + correction.var() / len(right))
    assert found.high - found.low == pytest.approx(2 * 1.959964 * se, rel=1e-3)


@pytest.mark.parametrize("copied", [0.1, 0.6, 1.0])
def test_it_covers_and_is_narrower_than_the_labels_alone(copied: float) -> None:
    rng = np.random.default_rng(2)
    inside, widths, plain = 0, [], []
    for _ in range(1000):
        right, agrees = drawn(rng, 200, teacher=0.98, student=0.89, copied=copied)
        found = prediction_powered(right, agrees, drawn(rng, 5000, teacher=0.98, student=0.89, copied=copied)[1])
        inside += found.low <= 0.89 <= found.high
        widths.append(found.high - found.low)
        low, high = wilson(int(right.sum()), 200)
        plain.append(high - low)
    assert inside / 1000 >= 0.93  # a binomial of 1,000 at 0.94 stays above 0.922
    assert np.mean(plain) > 1.9 * np.mean(widths)


def test_few_disagreements_are_refused_with_the_labels_that_would_do() -> None:
    right, agrees = np.ones(30, dtype=bool), np.arange(30) >= 3
    found = prediction_powered(right, agrees, np.arange(1000) >= 100)
    assert found.refused and np.isnan(found.value) and np.isnan(found.low)
    assert found.disagreements == 3 and found.labels_needed == 80
    counts = np.random.default_rng(0).binomial(80, 0.1, size=10_000)
    assert (counts >= FEWEST_DISAGREEMENTS).mean() == pytest.approx(0.9, abs=0.02)


def test_two_models_that_never_disagree_need_no_number_of_labels() -> None:
    alike = np.ones(50, dtype=bool)
    found = prediction_powered(alike, alike, np.ones(500, dtype=bool))
    assert found == PredictionPowered(found.value, found.low, found.high, 50, 500, 0, None)
    assert found.refused


def test_without_an_unlabelled_row_there_is_nothing_to_add() -> None:
    right = np.arange(100) % 2 == 0
    assert prediction_powered(right, right, np.zeros(0, dtype=bool)).refused


def test_a_share_and_its_interval_stay_within_what_a_share_can_be() -> None:
    right, agrees = np.ones(200, dtype=bool), np.arange(200) >= 6
    found = prediction_powered(right, agrees, np.arange(5000) >= 5)  # the two means are 0.999 and 0.03
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.9 < found.low < 1.0
