"""Metrics against scikit-learn and scipy, weighted and not, with ties; many weightings at once against one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy import stats

from attar.statistics import metrics

RNG = np.random.default_rng(3)
N = 400
POSITIVE = RNG.random(N) < 0.3
SCORES = np.round(POSITIVE + RNG.normal(size=N), 1)  # rounded: many ties
WEIGHT = RNG.random(N) + 0.1
LOGITS = RNG.normal(size=(N, 4))
LABELS = RNG.integers(0, 4, N)
DECIDED = LOGITS.argmax(-1)
NUMBERS = np.round(RNG.normal(size=N), 1)
PREDICTED = np.round(NUMBERS + RNG.normal(size=N) * 0.3, 1)
P = np.exp(metrics.log_softmax(LOGITS))

CASES = {
    "accuracy": (lambda w: metrics.accuracy(DECIDED, LABELS, w), lambda w: reference.accuracy_score(LABELS, DECIDED, sample_weight=w)),
    "balanced_accuracy": (
        lambda w: metrics.balanced_accuracy(DECIDED, LABELS, w),
        lambda w: reference.balanced_accuracy_score(LABELS, DECIDED, sample_weight=w),
    ),
    "cohen_kappa": (
        lambda w: metrics.cohen_kappa(DECIDED, LABELS, w),
        lambda w: reference.cohen_kappa_score(DECIDED, LABELS, sample_weight=w),
    ),
    "auroc": (lambda w: metrics.auroc(SCORES, POSITIVE, w), lambda w: reference.roc_auc_score(POSITIVE, SCORES, sample_weight=w)),
    "average_precision": (
        lambda w: metrics.average_precision(SCORES, POSITIVE, w),
        lambda w: reference.average_precision_score(POSITIVE, SCORES, sample_weight=w),
    ),
    "log_loss": (lambda w: metrics.log_loss(LOGITS, LABELS, w), lambda w: reference.log_loss(LABELS, P, sample_weight=w)),
    "brier": (
        lambda w: metrics.brier(LOGITS, LABELS, w),
        lambda w: np.average(((P - np.eye(4)[LABELS]) ** 2).sum(-1), weights=w),
    ),
    "rmse": (
        lambda w: metrics.rmse(PREDICTED, NUMBERS, w),
        lambda w: reference.root_mean_squared_error(NUMBERS, PREDICTED, sample_weight=w),
    ),
    "mae": (lambda w: metrics.mae(PREDICTED, NUMBERS, w), lambda w: reference.mean_absolute_error(NUMBERS, PREDICTED, sample_weight=w)),
    "r2": (lambda w: metrics.r2(PREDICTED, NUMBERS, w), lambda w: reference.r2_score(NUMBERS, PREDICTED, sample_weight=w)),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_that_of_scikit_learn(name: str, weighted: bool) -> None:
    ours, theirs = CASES[name]
    weight = WEIGHT if weighted else None
    assert float(ours(weight)) == pytest.approx(float(theirs(weight)), rel=1e-10)


@pytest.mark.parametrize("name", [*CASES, "spearman", "recall_at_fpr"])
def test_many_weightings_at_once_equal_repeated_rows(name: str) -> None:
    ours = {k: v[0] for k, v in CASES.items()} | {
        "spearman": lambda w: metrics.spearman(PREDICTED, NUMBERS, w),
        "recall_at_fpr": lambda w: metrics.recall_at_fpr(SCORES, POSITIVE, 0.1, w),
    }
    counts = np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), size=5)
    together = ours[name](counts)
    assert together.shape == (5,)
    for i in range(5):
        assert together[i] == pytest.approx(float(ours[name](counts[i])), rel=1e-12)
    rows = np.repeat(np.arange(N), counts[0])  # counting a row twice is having it twice
    again = {
        "auroc": lambda: reference.roc_auc_score(POSITIVE[rows], SCORES[rows]),
        "average_precision": lambda: reference.average_precision_score(POSITIVE[rows], SCORES[rows]),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(LABELS[rows], DECIDED[rows]),
        "spearman": lambda: stats.spearmanr(PREDICTED[rows], NUMBERS[rows])[0],
        "r2": lambda: reference.r2_score(NUMBERS[rows], PREDICTED[rows]),
    }
    if name in again:
        assert together[0] == pytest.approx(float(again[name]()), rel=1e-10)


def test_recall_at_a_false_positive_rate_is_a_point_of_the_curve() -> None:
    fpr, tpr, _ = reference.roc_curve(POSITIVE, SCORES, drop_intermediate=False)
    assert float(metrics.recall_at_fpr(SCORES, POSITIVE, 0.1)) == pytest.approx(tpr[fpr <= 0.1].max())
    assert math.isnan(metrics.recall_at_fpr(SCORES, np.ones_like(POSITIVE), 0.1))  # without negatives there is no such rate


def test_the_threshold_keeps_the_false_positive_rate_and_is_the_lowest_that_does() -> None:
    threshold = metrics.threshold_at_fpr(SCORES, POSITIVE, 0.1)
    negatives = SCORES[~POSITIVE]
    assert (negatives >= threshold).mean() <= 0.1
    assert (negatives >= threshold - 0.1).mean() > 0.1


def test_a_threshold_above_every_score_where_the_highest_already_alarms_too_often() -> None:
    threshold = metrics.threshold_at_fpr([1.0, 1.0, 0.0], [False, True, False], 0.1)
    assert threshold > 1.0
    assert np.float16(1.0) < np.float16(threshold)  # a graph compares in single precision, and stored answers have 11 bits


def test_impossible_positives_stay_below_the_threshold() -> None:
    scores = np.array([3.0, 2.0, -np.inf, -np.inf, -np.inf])
    threshold = metrics.threshold_at_fpr(scores, [True, True, False, False, False], 0.4)
    assert np.isfinite(threshold)
    assert (scores >= threshold).tolist() == [True, True, False, False, False]


def test_what_cannot_be_computed_is_nan() -> None:
    assert np.isnan(metrics.auroc([0.1, 0.2], [True, True]))
    assert np.isnan(metrics.average_precision([0.1, 0.2], [False, False]))
    nothing, again = np.zeros(3), np.array([0.0, 7.0, 0.0])  # no row at all; one row, drawn again and again
    numbers = [0.1, 1.7, 3.3]
    for w in (nothing, again):
        assert np.isnan(metrics.r2([1.0, 2.0, 3.0], numbers, w))
        assert np.isnan(metrics.pearson([1.0, 2.0, 3.0], numbers, w))
        assert np.isnan(metrics.spearman([1.0, 2.0, 3.0], numbers, w))
    assert np.isnan(metrics.cohen_kappa([0, 1, 1], [0, 1, 0], nothing))


def test_an_outcome_called_impossible_costs_a_hundred_nats_and_not_infinity() -> None:
    assert float(metrics.log_loss([[0.0, -np.inf]], [1])) == 100.0
