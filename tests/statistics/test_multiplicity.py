"""Adjusted p-values against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attar.statistics import benjamini_hochberg


@pytest.mark.parametrize("count", [1, 2, 25])
def test_adjusted_values_are_those_of_scipy_and_statsmodels(count: int) -> None:
    p = np.random.default_rng(count).beta(0.4, 2, size=count).round(2)  # rounded: some are equal
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-15)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-15)


def test_what_was_not_tested_stays_unknown_and_does_not_count() -> None:
    found = benjamini_hochberg([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx(benjamini_hochberg([0.01, 0.04]))
    assert len(benjamini_hochberg([])) == 0
