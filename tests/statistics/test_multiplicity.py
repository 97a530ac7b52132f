"""Adjusted p values: those of scipy and statsmodels, in any order, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attar.statistics import benjamini_hochberg


@pytest.mark.parametrize("m", [1, 2, 7, 100])
def test_adjusted_p_values_are_those_of_scipy_and_statsmodels(m: int) -> None:
    rng = np.random.default_rng(m)
    p = rng.random(m) ** 3
    p[m // 2] = p[0]  # equal ones too
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_no_test_needs_no_adjustment_and_what_is_no_p_value_is_refused() -> None:
    assert benjamini_hochberg([]).tolist() == []
    for wrong in ([0.1, 1.2], [-0.1]):
        with pytest.raises(ValueError, match="is no p-value"):
            benjamini_hochberg(wrong)


def test_a_twentieth_of_what_is_called_significant_is_false_on_average() -> None:
    rng, shares = np.random.default_rng(0), []
    for _ in range(800):
        z = rng.normal(size=40)
        z[:10] += 3
        found = benjamini_hochberg(2 * stats.norm.sf(abs(z))) <= 0.05
        shares.append(found[10:].sum() / max(found.sum(), 1))
    assert 0.02 < np.mean(shares) < 0.05  # m₀ / m · 5 % = 3.75 %


def test_what_was_not_tested_stays_unknown_and_does_not_count() -> None:
    found = benjamini_hochberg([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx(benjamini_hochberg([0.01, 0.04]))
