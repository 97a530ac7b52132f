"""Conformal sets against MAPIE, and by how often they hold the right outcome."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from attar.errors import EvidenceError
from attar.statistics import conformal_rows, conformal_sets, conformal_spread, conformal_thresholds


class Told(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose rows are their own probabilities."""

    classes_ = np.arange(4)

    def fit(self, x: np.ndarray, y: np.ndarray) -> Told:
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(-1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def drawn(rng: np.random.Generator, rows: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (rows, classes) and labels that follow others: a model that is wrong about its own certainty."""
    z = rng.normal(size=(rows, classes)) * 1.5 + np.linspace(-1, 1, classes)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    true = np.exp(0.7 * z) / np.exp(0.7 * z).sum(-1, keepdims=True)
    return p, (true.cumsum(-1) < rng.random((rows, 1))).sum(-1)


@pytest.mark.parametrize(("rows", "alpha"), [(200, 0.1), (333, 0.05), (50, 0.2)])
def test_sets_are_those_of_mapie(rows: int, alpha: float) -> None:
    mapie = pytest.importorskip("mapie.classification", reason="MAPIE is a reference for tests alone")
    rng = np.random.default_rng(rows)
    (p, y), (new, _) = drawn(rng, rows), drawn(rng, 500)
    theirs = mapie.SplitConformalClassifier(Told(), confidence_level=1 - alpha, conformity_score="lac").conformalize(p, y)
    sets = theirs.predict_set(new)[1][:, :, 0]
    ours = conformal_sets(np.log(new), conformal_thresholds(np.log(p), y, alpha))
    assert np.array_equal(ours, sets)


def test_coverage_over_calibration_splits_is_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        (p, y), (new, label) = drawn(rng, 60), drawn(rng, 400)
        sets = conformal_sets(new, conformal_thresholds(p, y, 0.1))
        covered.append(sets[np.arange(400), label].mean())
    assert np.mean(covered) == pytest.approx(55 / 61, abs=0.007)  # ⌈61 · 0.9⌉ = 55 of n + 1; three standard errors
    low, high = conformal_spread(60, 0.1)
    share = np.mean([low <= c <= high for c in covered])  # test rows add their own spread, so that a little less than 95 % lie inside
    assert 0.88 <= share <= 0.98


def test_by_class_each_class_is_covered_where_one_threshold_leaves_some_behind() -> None:
    rng = np.random.default_rng(1)
    (p, y), (new, label) = drawn(rng, 20_000), drawn(rng, 20_000)
    for by_class in (False, True):
        sets = conformal_sets(new, conformal_thresholds(p, y, 0.1, by_class=by_class))
        coverage = [sets[label == c, c].mean() for c in range(4)]
        assert min(coverage) > 0.88 if by_class else min(coverage) < 0.8
        assert sets[np.arange(len(label)), label].mean() == pytest.approx(0.9, abs=0.01)


def test_too_few_rows_are_refused_with_the_number_that_would_do() -> None:
    p, y = drawn(np.random.default_rng(2), 8)
    with pytest.raises(EvidenceError, match="8 calibration rows, and 9 are needed"):
        conformal_thresholds(p, y, 0.1)
    p, y = drawn(np.random.default_rng(2), 400)
    with pytest.raises(EvidenceError, match="0 calibration rows of class 2"):
        conformal_thresholds(p[y != 2], y[y != 2], 0.1, by_class=True)
    with pytest.raises(EvidenceError, match="not between 0 and 1"):
        conformal_thresholds(p, y, 1.0)
    with pytest.raises(EvidenceError, match="19 are needed"):
        conformal_spread(18, 0.05)


@pytest.mark.parametrize("alpha", [0.3, 0.25, 0.1, 0.05, 1 / 3])
def test_the_rows_needed_are_the_fewest_that_leave_an_outcome_out(alpha: float) -> None:
    n = conformal_rows(alpha)
    score = np.stack([np.arange(n) + 1.0, np.zeros(n)], -1)
    assert conformal_thresholds(score, np.zeros(n, dtype=int), alpha)[0] == 1.0  # the lowest right score: the loosest threshold there is
    with pytest.raises(EvidenceError):
        conformal_thresholds(score[: n - 1], np.zeros(n - 1, dtype=int), alpha)
