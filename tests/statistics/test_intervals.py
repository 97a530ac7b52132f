"""Intervals against scipy, a second derivation, and by how often they cover the truth."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from attar.statistics import intervals, metrics


def test_bca_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=150)
    ours = intervals.bootstrap({"m": lambda w: metrics.mean(values, w)}, 150, resamples=20_000)["m"].interval()
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)  # 20,000 resamples leave about 0.004


def test_grouping_the_jackknife_hardly_moves_bca() -> None:
    values = np.random.default_rng(1).exponential(size=3000) ** 2
    draws = intervals.bootstrap({"m": lambda w: metrics.mean(values, w)}, 3000, resamples=4000)["m"]
    off = values - values.mean()
    exact = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    whole = intervals.Draws(draws.value, draws.draws, values.mean() - off / 2999, 3000)
    assert exact > 0.01
    assert draws.interval() == pytest.approx(whole.interval(), abs=0.1 * draws.se)


def test_a_difference_of_draws_is_paired() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000)
    b = a + 0.01 * rng.normal(size=2000)
    found = intervals.bootstrap({"a": lambda w: metrics.mean(a, w), "b": lambda w: metrics.mean(b, w)}, 2000, resamples=500)
    assert (found["a"] - found["b"]).se < 0.05 * found["a"].se
    assert intervals.Draws.average(found.values()).value == pytest.approx((a.mean() + b.mean()) / 2)


def test_the_bootstrap_is_the_same_for_a_seed_and_unmoved_by_other_statistics() -> None:
    values = np.arange(300.0)
    figures = {"x": lambda w: metrics.rmse(values, values * 2, w), "m": lambda w: metrics.mean(values, w)}
    one = intervals.bootstrap({"m": figures["m"]}, 300, resamples=100, seed=5)["m"]
    two = intervals.bootstrap(figures, 300, resamples=100, seed=5)
    assert np.array_equal(one.draws, two["m"].draws)


def test_bca_of_an_auroc_difference_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    inside, trials = 0, 300
    # scores N(d, 1) against N(0, 1): AUROC = Φ(d/√2)
    truth = stats.norm.cdf(1.2 / 2**0.5) - stats.norm.cdf(1.0 / 2**0.5)
    y = np.arange(250) < 80
    for trial in range(trials):
        common = rng.normal(size=250)
        scores = {d: 0.8 * common + 0.6 * rng.normal(size=250) + d * y for d in (1.2, 1.0)}
        figures = {str(d): partial(metrics.auroc, s, y) for d, s in scores.items()}
        found = intervals.bootstrap(figures, 250, resamples=400, seed=trial)
        low, high = (found["1.2"] - found["1.0"]).interval()
        inside += low <= truth <= high
    assert 0.91 <= inside / trials <= 0.98  # a binomial of 300 at 0.95 stays within ±0.03


def test_too_many_resamples_without_a_figure_give_no_interval() -> None:
    y = np.arange(40) < 1
    draws = intervals.bootstrap({"a": lambda w: metrics.auroc(np.arange(40.0), y, w)}, 40, resamples=200)["a"]
    assert np.isnan(draws.interval()[0])
    assert np.isnan(draws.se)


@pytest.mark.parametrize(("hits", "rows"), [(0, 20), (7, 50), (50, 50)])
def test_intervals_of_a_proportion_are_those_of_statsmodels(hits: int, rows: int) -> None:
    assert intervals.wilson(hits, rows) == pytest.approx(proportion_confint(hits, rows, method="wilson"), abs=1e-9)
    assert intervals.clopper_pearson(hits, rows) == pytest.approx(proportion_confint(hits, rows, method="beta"), abs=1e-9)


@pytest.mark.parametrize(("only_a", "only_b", "rows"), [(12, 3, 100), (0, 4, 60), (30, 28, 400)])
def test_tangos_interval_ends_where_the_constrained_likelihood_says(only_a: int, only_b: int, rows: int) -> None:
    def score(difference: float) -> float:
        # the same statistic with the nuisance parameter found by numerical maximum likelihood instead of the closed form
        def minus_log_likelihood(q: float) -> float:
            p = q + difference
            rest = 1 - p - q
            terms = [(only_a, p), (only_b, q), (rows - only_a - only_b, rest)]
            return -sum(count * np.log(max(x, 1e-300)) for count, x in terms if count)

        low, high = max(0.0, -difference), (1 - difference) / 2
        best: Any = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
        q = best.x
        return (only_a - only_b - rows * difference) / np.sqrt(rows * (2 * q + difference - difference**2))

    low, high = intervals.paired_proportions(only_a, only_b, rows)
    assert score(low) == pytest.approx(1.959964, abs=2e-3)
    assert score(high) == pytest.approx(-1.959964, abs=2e-3)


def test_tangos_interval_covers_and_has_a_width_without_a_discordant_row() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        a, b, _ = rng.multinomial(200, [0.06, 0.02, 0.92])
        low, high = intervals.paired_proportions(int(a), int(b), 200)
        inside += low <= 0.04 <= high
    assert 0.93 <= inside / 1000 <= 0.975
    low, high = intervals.paired_proportions(0, 0, 200)
    assert low < -0.01 < 0.01 < high


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_of_rows_that_are_all_alike_the_exact_interval_is_clopper_and_pearsons(rows: int) -> None:
    for hits in (0, rows):
        assert intervals.unanimous(hits / rows, rows) == pytest.approx(intervals.clopper_pearson(hits, rows))
    assert intervals.unanimous(1.0, 10.5)[0] > intervals.unanimous(1.0, 10)[0]


def test_newcombes_interval_without_correlation_is_that_of_two_samples() -> None:
    # equal products of the diagonals: φ is 0, and each share is as if it were alone
    ours = intervals.newcombe(40, 20, 10, 5)
    theirs: Any = confint_proportions_2indep(60, 75, 50, 75, method="newcomb", compare="diff")
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_newcombes_interval_is_the_published_one() -> None:
    # 21 children before and after stem-cell transplantation; Fagerland, Lydersen and Laake 2014: square-and-add
    assert intervals.newcombe(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert intervals.paired_proportions(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)  # and its asymptotic score, Tango's


@pytest.mark.parametrize("cells", [(0.84, 0.06, 0.02, 0.08), (0.5, 0.1, 0.1, 0.3), (0.97, 0.02, 0.005, 0.005)])
def test_newcombes_interval_covers(cells: tuple[float, ...]) -> None:
    rng, inside = np.random.default_rng(0), 0
    for both, only_a, only_b, neither in rng.multinomial(200, cells, size=1000):
        low, high = intervals.newcombe(int(both), int(only_a), int(only_b), int(neither))
        inside += low <= cells[1] - cells[2] <= high
    assert 0.93 <= inside / 1000 <= 0.98


def test_a_ratio_of_draws_is_paired_too() -> None:
    a = np.random.default_rng(0).normal(10, 1, size=2000)
    found = intervals.bootstrap({"a": lambda w: metrics.mean(a, w), "b": lambda w: metrics.mean(2 * a, w)}, 2000, resamples=200)
    ratio = found["b"] / found["a"]
    assert ratio.value == pytest.approx(2) and ratio.se < 1e-12
