"""Bounds against scipy and statsmodels; thresholds keep what they promise, in every cell, and the naive ones do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from attar.errors import EvidenceError
from attar.statistics.guarantees import Sample, damage, least_abstention, path_of, rows_needed, start_of, upper_bound, walk


def test_the_bound_is_one_sided_clopper_pearson_as_scipy_and_statsmodels_have_it() -> None:
    for k, n in ((0, 10), (0, 45), (3, 100), (99, 100), (17, 2000)):
        for delta in (0.01, 0.1, 0.5):
            other = stats.binomtest(k, n, alternative="less").proportion_ci(1 - delta, method="exact").high
            assert upper_bound(k, n, delta) == pytest.approx(other, abs=1e-9)
            assert upper_bound(k, n, delta) == pytest.approx(proportion_confint(k, n, alpha=2 * delta, method="beta")[1], abs=1e-9)
    assert upper_bound([0, 5], [0, 5], 0.1).tolist() == [1.0, 1.0]


def test_the_fewest_rows_are_those_of_which_one_less_would_not_do() -> None:
    for epsilon, delta in ((0.05, 0.1), (0.01, 0.05), (0.3, 0.5)):
        n = rows_needed(epsilon, delta)
        assert n is not None
        assert n == math.ceil(math.log(delta) / math.log(1 - epsilon))
        assert upper_bound(0, n, delta) <= epsilon < upper_bound(0, n - 1, delta)
    n = rows_needed(0.05, 0.1, rate=0.02)
    assert n is not None
    assert upper_bound(math.ceil(0.02 * n), n, 0.1) <= 0.05
    assert upper_bound(math.ceil(0.02 * (n - 51)), n - 51, 0.1) > 0.05  # an error less
    assert rows_needed(0.05, 0.1, rate=0.06) is None


def test_no_guard_does_with_less_abstention_than_the_bound_and_an_oracle_does_with_it() -> None:
    wrong = np.arange(1000) < 110
    least = float(least_abstention(0.11, 0.05))
    kept = np.sort(wrong)[: math.floor(1000 * (1 - least))]  # the oracle leaves wrong rows alone, to somebody else
    assert kept.mean() == pytest.approx(0.05, abs=1e-3)
    assert least_abstention(0.03, 0.05) == 0


def test_counts_are_those_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    s = Sample(rng.random(50).astype(np.float32), rng.integers(0, 3, 50), rng.random(50) < 0.3, rng.integers(0, 2, 50))
    path = np.sort(rng.random((7, 3)).astype(np.float32), axis=0)[::-1]
    path[2, 1] = path[3, 1] = s.confidence[s.decision == 1][0]  # a threshold that is a row's own confidence
    path = np.sort(path, axis=0)[::-1]
    rows, errors = s.counts(path, 2)
    for j, thresholds in enumerate(path):
        for cell in range(2):
            mine = [i for i in range(50) if s.cell[i] == cell and s.confidence[i] >= thresholds[s.decision[i]]]
            assert rows[j, cell] == len(mine)
            assert errors[j, cell] == sum(bool(s.wrong[i]) for i in mine)


def test_a_path_goes_from_strict_to_one_that_all_rows_reach() -> None:
    s, _ = drawn(np.random.default_rng(0), 400)
    path = path_of(s, np.array([1.0, 0.3, 0.2]))
    assert (np.diff(path, axis=0) <= 0).all()
    assert s.answered(path[-1]).all()
    answered = s.answered(path).sum(1)
    assert answered[0] <= 8
    assert len(np.unique(answered)) > 100


def test_an_error_costs_more_where_the_cell_it_falls_into_is_rare() -> None:
    decision = np.array([0] * 98 + [1] * 2)
    two = damage(decision, np.tile([0.97, 0.03], (100, 1)), np.array([0.98, 0.02]))
    np.testing.assert_allclose(two, [1.0, 0.02 / 0.98])
    even = damage(np.arange(90) % 3, np.full((90, 3), 1 / 3), np.full(3, 1 / 3))
    np.testing.assert_allclose(even, 1.0)


def test_a_walk_starts_where_rows_suffice_and_stops_before_the_first_threshold_that_fails() -> None:
    rng = np.random.default_rng(1)
    (valid, _), (calibration, _) = drawn(rng, 1000), drawn(rng, 1000)
    path = path_of(valid, np.ones(3))
    steps = walk(path, valid, calibration, 3, epsilon=0.1, delta=0.1)
    assert steps.last is not None
    assert steps.start == start_of(path, valid, 3, 1000, epsilon=0.1, delta=0.1) > 0
    assert (valid.counts(path, 3)[0][steps.start] >= 2 * 22).all()  # ⌈ln .1 / ln .9⌉ = 22
    assert (steps.bounds[steps.start : steps.last + 1] <= 0.1).all()
    assert (steps.bounds[steps.last + 1] > 0.1).any()
    k, n = steps.errors[steps.last], steps.rows[steps.last]
    np.testing.assert_allclose(steps.bounds[steps.last], upper_bound(k, n, 0.1))


def test_a_walk_that_fails_at_once_has_no_last_threshold() -> None:
    s, _ = drawn(np.random.default_rng(2), 500)
    wrong = Sample(s.confidence, s.decision, np.ones(500, dtype=bool), s.cell)
    steps = walk(path_of(s, np.ones(3)), s, wrong, 3, epsilon=0.05, delta=0.1)
    assert steps.last is None
    assert steps.bounds[steps.nearest].max() == 1


def test_a_confidence_that_is_no_number_is_refused() -> None:
    confidence = np.array([0.5, np.nan, np.inf], np.float32)
    with pytest.raises(EvidenceError, match="2 of 3 confidences are not finite"):
        Sample(confidence, np.zeros(3, int), np.zeros(3, bool), np.zeros(3, int))


@pytest.mark.parametrize("cells", [1, 3])
def test_the_promise_is_broken_no_more_often_than_it_may_be_and_the_naive_one_is(cells: int) -> None:
    """600 draws of validation and calibration rows; the truth is that of the 60,000 rows drawn from."""
    epsilon, delta, draws = 0.1, 0.1, 600
    rng = np.random.default_rng(3)
    world, _ = drawn(rng, 60_000, cells)
    broken, naive, certified = np.zeros(cells), 0, 0
    joint = 0
    for _ in range(draws):
        valid, calibration = taken(world, rng.integers(0, 60_000, 400)), taken(world, rng.integers(0, 60_000, 400 * cells))
        steps = walk(path_of(valid, np.ones(3)), valid, calibration, cells, epsilon=epsilon, delta=delta)
        if steps.last is not None:
            certified += 1
            over = risk(world, steps.path[steps.last], cells) > epsilon
            broken += over
            joint += over.any()
        rates = steps.errors / np.maximum(steps.rows, 1)
        kind = np.flatnonzero((rates <= epsilon).all(1))
        naive += bool(len(kind) and (risk(world, steps.path[kind[-1]], cells) > epsilon).any())
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / draws)
    assert certified > 0.6 * draws
    assert (broken / draws <= allowed).all()
    assert joint / draws <= allowed
    assert naive / draws > allowed


def drawn(rng: np.random.Generator, rows: int, cells: int = 3) -> tuple[Sample, np.ndarray]:
    """Rows of three outcomes with a student that knows its probabilities; the cells are what is right, or one."""
    z = rng.normal(size=(rows, 3)) * 2.5
    q = np.exp(z - z.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    right = (q.cumsum(1) < rng.random((rows, 1))).sum(1).clip(max=2)
    decision = q.argmax(1)
    return Sample(q.max(1).astype(np.float32), decision, decision != right, right if cells > 1 else np.zeros(rows, int)), q


def taken(s: Sample, index: np.ndarray) -> Sample:
    return Sample(s.confidence[index], s.decision[index], s.wrong[index], s.cell[index])


def risk(s: Sample, thresholds: np.ndarray, cells: int) -> np.ndarray:
    rows, errors = s.counts(thresholds[None], cells)
    return errors[0] / np.maximum(rows[0], 1)
