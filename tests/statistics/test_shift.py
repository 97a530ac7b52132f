"""Shift: corruption errors against a naive loop, accuracy told without labels against simulation, and the alarm both ways."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from attar.statistics import Draws, bootstrap, metrics
from attar.statistics.shift import (
    CONFIDENCE,
    DECISIONS,
    LABELS,
    agreement_accuracy,
    clustered_mean,
    corruption_error,
    departure,
    error_of,
    mean_error,
    relative_error,
)

RNG = np.random.default_rng(0)


def drawn(right: np.ndarray, resamples: int = 400) -> list[Draws]:
    """(N, K) right or wrong → the accuracy of each column, on the same resamples."""
    found = bootstrap({k: partial(metrics.mean, right[:, k].astype(float)) for k in range(right.shape[1])}, len(right), resamples=resamples)
    return list(found.values())


def test_the_corruption_error_is_the_ratio_of_summed_errors_as_a_loop_would_find_it() -> None:
    student, teacher = RNG.random((300, 5)) < 0.6, RNG.random((300, 5)) < 0.8
    draws = drawn(np.hstack([student, teacher]))
    errors = [error_of(d, 1) for d in draws]
    found = corruption_error(errors[:5], errors[5:])
    wrong_s = sum(1 - student[:, k].mean() for k in range(5))
    wrong_t = sum(1 - teacher[:, k].mean() for k in range(5))
    assert found.value == pytest.approx(wrong_s / wrong_t)
    for r in (0, 17, 399):  # and on each resample
        assert found.draws[r] == pytest.approx(sum(1 - d.draws[r] for d in draws[:5]) / sum(1 - d.draws[r] for d in draws[5:]))
    low, high = found.interval()
    assert low < found.value < high


def test_the_relative_error_counts_what_was_added_to_clean_rows() -> None:
    columns = np.stack([RNG.random(500) < p for p in (0.6, 0.5, 0.8, 0.6, 0.9, 0.95)], 1)  # s, s, t, t under; s, t clean
    s1, s2, t1, t2, s0, t0 = (error_of(d, 1) for d in drawn(columns))
    wrong = 1 - columns.mean(0)
    found = relative_error([s1, s2], [t1, t2], s0, t0)
    assert found.value == pytest.approx((wrong[0] + wrong[1] - 2 * wrong[4]) / (wrong[2] + wrong[3] - 2 * wrong[5]))
    assert math.isnan(relative_error([s1, s2], [t0, t0], s0, t0).value)  # the teacher loses nothing
    noisy = relative_error([s1], [error_of(drawn(RNG.random((500, 1)) < 0.94)[0], 1)], s0, t0)
    assert math.isnan(noisy.value)  # nor more than chance would make of it


def test_errors_with_a_unit_are_themselves_and_the_mean_leaves_out_what_is_not_there() -> None:
    one = drawn(RNG.random((100, 1)) < 0.5)[0]
    assert error_of(one, -1) is one
    assert error_of(one, 1).value == pytest.approx(1 - one.value)
    never = corruption_error([one], [error_of(drawn(np.ones((100, 1), dtype=bool))[0], 1)])
    assert math.isnan(never.value)
    assert mean_error([one, never, one * 3]).value == pytest.approx(2 * one.value)
    assert math.isnan(mean_error([never]).value)


def test_the_intervals_of_corruption_errors_cover_the_truth() -> None:
    rng, hits, times = np.random.default_rng(1), 0, 200
    for _ in range(times):
        hard = rng.random(200)[:, None]  # rows are hard for both, and at every severity
        p = np.array([0.3, 0.4, 0.5, 0.2, 0.3, 0.35])
        wrong = rng.random((200, 6)) < 2 * p * hard
        errors = [error_of(d, 1) for d in drawn(~wrong, 200)]
        low, high = corruption_error(errors[:3], errors[3:]).interval()
        hits += low <= p[:3].sum() / p[3:].sum() <= high
    assert 0.90 <= hits / times <= 0.99


def simulated(rng: np.random.Generator, rows: int, agree: float, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    alike = rng.random(rows) < agree
    return alike, rng.random(rows) < np.where(alike, a, b)


def test_accuracy_told_without_labels_is_right_where_only_agreement_changes_and_its_interval_covers() -> None:
    rng, hits, off, times = np.random.default_rng(2), 0, [], 400
    for _ in range(times):
        home_alike, home_right = simulated(rng, 400, 0.9, 0.95, 0.25)
        alike, _ = simulated(rng, 300, 0.6, 0.95, 0.25)
        value, low, high = agreement_accuracy(home_alike, home_right, alike)
        truth = 0.6 * 0.95 + 0.4 * 0.25
        hits += low <= truth <= high
        off.append(value - truth)
    assert 0.92 <= hits / times <= 0.98
    assert abs(np.mean(off)) < 0.01


def test_weights_count_as_repeated_rows_do() -> None:
    rng = np.random.default_rng(3)
    home_alike, home_right = simulated(rng, 200, 0.8, 0.9, 0.3)
    alike, _ = simulated(rng, 150, 0.5, 0.9, 0.3)
    w, v = rng.integers(0, 4, 200), rng.integers(0, 4, 150)
    weighted = agreement_accuracy(home_alike, home_right, alike, w, v)
    repeated = agreement_accuracy(np.repeat(home_alike, w), np.repeat(home_right, w), np.repeat(alike, v))
    assert weighted[0] == pytest.approx(repeated[0], abs=0.01)
    assert weighted[2] - weighted[1] > repeated[2] - repeated[1]  # but rows that are repeated are no new rows


def test_too_few_labels_tell_nothing_and_disagreements_never_seen_are_a_wide_guess() -> None:
    few = agreement_accuracy([True] * (LABELS - 1), [True] * (LABELS - 1), [True])
    assert all(map(math.isnan, few))
    assert all(map(math.isnan, agreement_accuracy([True] * 50, [True] * 50, [])))
    value, low, high = agreement_accuracy([True] * 100, [True] * 95 + [False] * 5, [False] * 50)
    assert (value, low, high) == (0.5, 0.0, 1.0)


def answers(rng: np.random.Generator, rows: int, shares: np.ndarray, sure: float) -> tuple[np.ndarray, np.ndarray]:
    return rng.choice(len(shares), rows, p=shares), np.clip(rng.normal(sure, 0.1, rows), 0, 1)


@pytest.mark.parametrize(("rows", "classes", "most"), [(60, 2, 0.25), (400, 10, 0.02), (1000, 100, 0.02)])
def test_the_alarm_is_silent_at_home_but_where_rows_are_few(rows: int, classes: int, most: float) -> None:
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(classes, 5.0))
    alarms = sum(departure(answers(rng, rows, shares, 0.8), answers(rng, rows, shares, 0.8), classes).alarm for _ in range(200))
    assert alarms <= 200 * most  # of 60 rows the share of a class wavers by more than it may


def test_the_alarm_rings_where_a_confident_teacher_collapses_to_one_class() -> None:
    rng = np.random.default_rng(5)
    home = answers(rng, 500, np.full(10, 0.1), 0.9)
    found = departure(home, answers(rng, 500, np.array([0.7] + [0.3 / 9] * 9), 0.9), 10)
    assert found.alarm
    assert 0.45 < found.decisions < 0.6  # less what chance makes
    assert found.confidence < CONFIDENCE


def test_the_alarm_rings_where_the_teacher_is_less_sure_or_surer() -> None:
    rng = np.random.default_rng(6)
    shares = np.full(4, 0.25)
    home = answers(rng, 2000, shares, 0.8)
    for sure, rings in ((0.8 - CONFIDENCE - 0.05, True), (0.8 + CONFIDENCE + 0.05, True), (0.8 - CONFIDENCE / 2, False)):
        found = departure(home, answers(rng, 2000, shares, sure), 4)
        assert found.alarm is rings
        assert found.decisions < DECISIONS


def test_the_threshold_is_where_it_is_said_to_be() -> None:
    home = np.repeat([0, 1], 500_000), np.full(1_000_000, 0.9)
    for moved, rings in ((DECISIONS - 0.005, False), (DECISIONS + 0.005, True)):
        k = int((0.5 + moved) * 1_000_000)
        here = np.repeat([0, 1], [k, 1_000_000 - k]), np.full(1_000_000, 0.9)
        assert departure(home, here, 2).alarm is rings


def test_a_mean_over_clusters_has_the_cluster_robust_interval_of_a_constant() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 7, 60)
    values = rng.normal(size=60) + rng.normal(size=7)[cluster]
    fit = OLS(values, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True)
    assert clustered_mean(values, cluster) == pytest.approx((fit.params[0], *fit.conf_int()[0]))
    mean, low, high = clustered_mean(values, np.zeros(60))
    assert mean == pytest.approx(values.mean()) and math.isnan(low) and math.isnan(high)
