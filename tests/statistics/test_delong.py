"""DeLong's intervals against the double loop that defines them, and against the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from attar.statistics import auroc_difference, bootstrap, delong
from attar.statistics.metrics import Ranking

RNG = np.random.default_rng(4)
N = 300
POSITIVE = np.arange(N) < 90
SIGNAL = RNG.normal(size=N) + POSITIVE
SCORES = np.stack([SIGNAL + RNG.normal(size=N), SIGNAL + RNG.normal(size=N)])


def placements(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition: for every pair of a positive and a negative row 1, ½ or 0."""
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in scores[~POSITIVE]] for a in scores[POSITIVE]])
    return wins.mean(1), wins.mean(0)


@pytest.mark.parametrize("decimals", [8, 0])  # rounded to whole numbers most pairs are ties
def test_delong_is_the_double_loop_over_pairs(decimals: int) -> None:
    scores = SCORES.round(decimals)
    value, covariance = delong(scores, POSITIVE)
    by_row = [placements(s) for s in scores]
    assert value == pytest.approx([reference.roc_auc_score(POSITIVE, s) for s in scores], abs=1e-12)
    assert covariance == pytest.approx(np.cov([p for p, _ in by_row]) / 90 + np.cov([q for _, q in by_row]) / 210, abs=1e-14)


def test_the_difference_is_about_that_of_the_bootstrap() -> None:
    found = auroc_difference(SCORES[0], SCORES[1], POSITIVE)
    a, b = (Ranking.of(s, POSITIVE).auroc for s in SCORES)
    draws = bootstrap({"a": a, "b": b}, N, resamples=4000)
    low, high = (draws["a"] - draws["b"]).interval()
    assert found.value == pytest.approx((draws["a"] - draws["b"]).value, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_rankings_that_are_the_same_have_no_interval_and_no_evidence_of_a_difference() -> None:
    found = auroc_difference(SCORES[0], 3 * SCORES[0] + 1, POSITIVE)
    assert found.value == 0 and np.isnan(found.low) and np.isnan(found.high) and found.p == 1


def test_one_kind_of_row_has_no_auroc_and_one_row_of_a_kind_no_variance() -> None:
    value, covariance = delong(SCORES, np.zeros(N, dtype=bool))
    assert np.isnan(value).all() and np.isnan(covariance).all()
    value, covariance = delong(SCORES, np.arange(N) < 1)
    assert np.isfinite(value).all() and np.isnan(covariance).all()
    assert np.isnan(auroc_difference(SCORES[0], SCORES[1], np.arange(N) < 1).low)
