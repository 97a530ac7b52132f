"""Tests and verdicts against statsmodels, published figures and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables

from attar.statistics import intervals, tests


@pytest.mark.parametrize(("a", "b"), [(10, 2), (3, 3), (0, 7)])
def test_mcnemar_is_that_of_statsmodels(a: int, b: int) -> None:
    theirs: Any = contingency_tables.mcnemar([[50, a], [b, 40]], exact=True)
    assert tests.mcnemar(a, b) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("margin", "rows"), [(0.005, 34_270), (0.01, 8_568), (0.02, 2_142)])
def test_planned_rows_are_the_golden_figures(margin: float, rows: int) -> None:
    # the golden figures were computed with z rounded to 1.645 and 1.282
    assert tests.discordance_rows(margin, 0.10) == pytest.approx(rows, rel=5e-4)


def test_planned_rows_give_the_planned_power_and_no_more_than_the_planned_error() -> None:
    margin, discordance = 0.04, 0.10
    rows = tests.discordance_rows(margin, discordance)
    rng = np.random.default_rng(0)

    def share(difference: float) -> float:
        p = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
        found = 0
        for a, b, _ in rng.multinomial(rows, p, size=1500):
            low, high = intervals.paired_proportions(int(a), int(b), rows, level=0.90)
            found += tests.non_inferiority((a - b) / rows, low, high, 0.01, margin=margin, rows=rows).answer == "yes"
        return found / 1500

    assert share(0.0) == pytest.approx(0.90, abs=0.03)
    assert share(-margin) == pytest.approx(0.05, abs=0.02)


def test_non_inferiority_says_yes_no_or_how_many_rows() -> None:
    assert tests.non_inferiority(0.001, -0.002, 0.004, 0.002, margin=0.005, rows=1000).answer == "yes"
    assert tests.non_inferiority(-0.02, -0.03, -0.01, 0.005, margin=0.005, rows=1000).answer == "no"
    unclear = tests.non_inferiority(0.0, -0.02, 0.02, 0.01, margin=0.005, rows=1000)
    assert unclear.answer == "insufficient evidence"
    # standard error .01 at 1000 rows: variance .1 a row, as 10 % discordance has it
    assert unclear.rows_needed == pytest.approx(tests.discordance_rows(0.005, 0.10), rel=0.05)
    assert unclear.rows_if_equal == unclear.rows_needed
    near = tests.non_inferiority(-0.004, -0.02, 0.01, 0.01, margin=0.005, rows=1000)
    assert near.rows_if_equal == unclear.rows_needed
    assert near.rows_needed == pytest.approx(25 * tests.discordance_rows(0.005, 0.10), rel=0.05)


def test_an_interval_without_width_is_no_evidence_on_few_rows() -> None:
    few = tests.non_inferiority(0.0, 0.0, 0.0, 0.0, margin=0.005, rows=40)
    assert (few.answer, few.rows_needed) == ("insufficient evidence", 598)
    assert tests.non_inferiority(0.0, 0.0, 0.0, 0.0, margin=0.005, rows=598).answer == "yes"
    assert tests.non_inferiority(12.0, 12.0, 12.0, 0.0, margin=300.0, rows=1).answer == "insufficient evidence"
    alike = tests.seed_effect([0.0] * 5, 0.0, [0.0] * 5, margin=0.005, rows=40)
    assert (alike.answer, alike.rows_needed) == ("insufficient evidence", 598)
    assert tests.seed_effect([0.0] * 5, 0.0, [0.0] * 5, margin=0.005, rows=598).answer == "no difference"


def test_thirty_rows_are_a_floor_not_a_promise() -> None:
    """19 rows without a disagreement, margin 0.005: the wide bounds ask for far more than the thirty that are the least."""
    few = tests.non_inferiority(0.0, -0.125, 0.125, 0.076, margin=0.005, rows=19)
    assert few.rows_needed is not None
    assert few.rows_needed > 10_000


def test_fewer_than_thirty_rows_decide_nothing() -> None:
    for low, high in ((-0.001, 0.2), (-0.9, -0.2)):
        found = tests.non_inferiority((low + high) / 2, low, high, 0.05, margin=0.005, rows=29)
        assert (found.answer, found.rows_needed) == ("insufficient evidence", 30)
    found = tests.seed_effect([0.6, 0.61, 0.59, 0.6, 0.6], 0.1, [0.1] * 5, margin=0.005, rows=3)
    assert (found.answer, found.rows_needed) == ("insufficient evidence", 30)


def test_rows_that_mislead_nobody_knows_how_far_decide_nothing() -> None:
    found = tests.seed_effect([0.1, 0.11, 0.1, 0.12, 0.1], math.nan, [math.nan] * 5, margin=0.005, rows=100)
    assert found.answer == "insufficient evidence"
    assert math.isnan(found.low) and math.isnan(found.high)


def test_what_seeds_and_rows_share_is_counted_once() -> None:
    of_rows, of_both, k = 0.003**2, 0.004**2, 5
    spread = np.array([0.01, 0.012, 0.008, 0.011, 0.009])
    found = tests.seed_effect(spread, math.sqrt(of_rows + of_both / k), [math.sqrt(of_rows + of_both)] * k, margin=0.005, rows=1000)
    assert found.row_se == pytest.approx(0.003)


def test_an_effect_needs_five_seeds() -> None:
    found = tests.seed_effect([0.02, 0.02, 0.021, 0.02], 0.001, [0.001] * 4, margin=0.005, rows=5000)
    assert found.answer == "insufficient evidence"
    assert found.seeds_needed == 5
    assert tests.seed_effect([0.02], 0.001, [0.001], margin=0.005, rows=5000).seeds_needed == 5


@pytest.mark.parametrize(
    ("differences", "row_se", "answer"),
    [
        ([0.02, 0.021, 0.019, 0.02, 0.022], 0.003, "helped"),
        ([-0.02, -0.021, -0.019, -0.02, -0.022], 0.003, "hurt"),
        ([0.001, -0.001, 0.0005, 0.0, -0.0005], 0.001, "no difference"),
        ([0.02, 0.021, 0.019, 0.02, 0.022], 0.02, "insufficient evidence"),
    ],
)
def test_an_effect_has_four_answers(differences: list[float], row_se: float, answer: str) -> None:
    assert tests.seed_effect(differences, row_se, [row_se] * 5, margin=0.005, rows=5000).answer == answer


def test_seeds_are_asked_for_where_they_spread_and_rows_where_rows_do() -> None:
    spread = tests.seed_effect([0.03, -0.02, 0.02, -0.01, 0.03], 0.0005, [0.0005] * 5, margin=0.005, rows=5000)
    assert spread.seeds_needed is not None
    assert spread.seeds_needed > 5
    assert spread.rows_needed is None
    few_rows = tests.seed_effect([0.01, 0.011, 0.009, 0.01, 0.01], 0.01, [0.01] * 5, margin=0.005, rows=500)
    assert few_rows.seeds_needed is None
    assert few_rows.rows_needed is not None
    assert few_rows.rows_needed > 4000


def test_without_spread_over_seeds_the_rows_alone_decide() -> None:
    found = tests.seed_effect([0.01] * 5, 0.004, [0.004] * 5, margin=0.005, rows=10_001)
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, 10_000) * 0.004, rel=1e-6)


@pytest.mark.parametrize(("seed_sd", "interaction"), [(0.02, 0.0), (0.002, 0.0), (0.01, 0.2), (0.0, 0.4)])
def test_the_interval_of_an_effect_covers_over_seeds_and_rows(seed_sd: float, interaction: float) -> None:
    # row i, seed s: difference = 0.01 + seed effect + row effect + their interaction
    rng = np.random.default_rng(1)
    rows, inside, trials = 400, 0, 1000
    for _ in range(trials):
        mean_of_rows = rng.normal(0, 0.2 / rows**0.5)
        table = 0.01 + rng.normal(0, seed_sd, 5) + mean_of_rows + rng.normal(0, interaction / rows**0.5, 5)
        row_se = np.sqrt((0.2**2 + interaction**2 / 5) / rows)
        pair_ses = np.full(5, np.sqrt((0.2**2 + interaction**2) / rows))
        found = tests.seed_effect(table, row_se, pair_ses, margin=0.005, rows=rows)
        inside += found.low <= 0.01 <= found.high
    assert 0.93 <= inside / trials <= 0.985
