"""Prediction intervals and shrinkage, against simulations that know nothing of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from attar.statistics.prediction import foreseen, next_share, shrunk

Array = NDArray[np.float64]
DRAWS, SEEDS = 400, 5


def accuracy(answers: Array, labels: Array, weight: Array) -> Array:
    return weight @ (answers * (2 * labels - 1) > -0.6).astype(float) / weight.sum(-1)


def loss(answers: Array, labels: Array, weight: Array) -> Array:
    return weight @ np.exp(0.8 * answers) / weight.sum(-1)


def auroc(answers: Array, labels: Array, weight: Array) -> Array:
    """The weight of pairs in order, pair by pair."""
    positive, negative = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    above = (answers[positive][:, None] > answers[negative]).astype(float)
    pairs = np.einsum("rp,pn,rn->r", weight[:, positive], above, weight[:, negative], optimize=True)
    return pairs / (weight[:, positive].sum(1) * weight[:, negative].sum(1))


@pytest.mark.parametrize("metric", [accuracy, loss, auroc])
@pytest.mark.parametrize("spread", [0.02, 0.3])  # of seeds: little beside that of rows, and much
def test_one_more_seed_on_other_rows_lies_in_the_interval_as_often_as_it_says(metric, spread: float) -> None:
    """A world of rows and seeds: rows are hard for all, some for one seed only; one seed is better than another."""
    rng, n, m, times = np.random.default_rng(0), 150, 300, 300

    def world(rows: int, seeds: Array) -> tuple[Array, Array]:
        labels = (rng.random(rows) < 0.3).astype(float)
        row, both = rng.normal(size=rows), rng.normal(size=(len(seeds), rows))
        return labels, labels + np.sqrt(0.8) * row + np.sqrt(0.2) * both + seeds[:, None] * (2 * labels - 1)

    inside = narrow = 0
    for _ in range(times):
        seeds = rng.normal(0, spread, SEEDS + 1)
        labels, answers = world(n, seeds[:SEEDS])
        resampled = rng.multinomial(n, np.full(n, 1 / n), 100).astype(float)
        values = [float(metric(a, labels, np.ones((1, n)))[0]) for a in answers]
        draws = np.stack([metric(a, labels, resampled) for a in answers])
        told = foreseen(values, float(draws.mean(0).std(ddof=1)), draws.std(1, ddof=1), rows=n, next_rows=m)
        labels, answers = world(m, seeds[SEEDS:])
        there = float(metric(answers[0], labels, np.ones((1, m)))[0])
        inside += told.low <= there <= told.high
        narrow += abs(told.value - there) <= 1.96 * float(draws.mean(0).std(ddof=1))
    assert 0.93 <= inside / times <= 0.99
    assert narrow / times < 0.90  # the interval of the mean promises no such thing


def test_without_seeds_that_differ_it_is_what_two_samples_of_rows_differ_by() -> None:
    told = foreseen([0.5] * 5, 0.03, [0.03] * 5, rows=400, next_rows=100)
    assert told.high - 0.5 == pytest.approx(stats.t.ppf(0.975, 399) * 0.03 * np.sqrt(1 + 4))


def test_without_rows_that_mislead_it_is_the_prediction_of_one_more_of_k_numbers() -> None:
    values = [0.50, 0.52, 0.49, 0.55, 0.51]
    told = foreseen(values, 0.0, [0.0] * 5, rows=400, next_rows=100)
    assert told.high - told.value == pytest.approx(stats.t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 5))
    assert foreseen(values[:1], 0.1, [0.1], rows=400, next_rows=100).high == np.inf
    assert np.isnan(foreseen(values, np.nan, [np.nan] * 5, rows=400, next_rows=100).high)


@pytest.mark.parametrize(("p", "n", "m"), [(0.9, 60, 200), (0.99, 200, 400), (0.5, 100, 30), (0.999, 300, 900)])
def test_a_share_to_come_lies_where_it_is_said_whatever_the_first_one_was(p: float, n: int, m: int) -> None:
    """Exactly: over all that both samples may be, by the binomial probabilities."""
    first, then = np.arange(n + 1), np.arange(m + 1) / m
    ends = np.array([next_share(k / n, n, m) for k in first])
    inside = (ends[:, :1] - 1e-12 <= then) & (then <= ends[:, 1:] + 1e-12)
    chance = stats.binom.pmf(first, n, p) @ inside @ stats.binom.pmf(np.arange(m + 1), m, p)
    assert chance > 0.93


def test_the_ends_of_a_share_solve_the_equation_that_they_come_from() -> None:
    z = stats.norm.ppf(0.975)
    for end in next_share(0.8, 120, 250):
        both = (0.8 * 120 + end * 250) / 370
        assert (0.8 - end) ** 2 == pytest.approx(z**2 * both * (1 - both) * (1 / 120 + 1 / 250))


@pytest.mark.parametrize("differ", [0.0, 0.5, 1.0, 3.0])  # true spread of candidates, in standard deviations of the luck
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_best_of_several_is_less_flattered_once_it_is_shrunk(differ: float, count: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, differ, (4000, count))
    seen = truth + rng.normal(size=truth.shape)
    winner = seen.argmax(1)
    drawn = np.array([shrunk(row, 1.0) for row in seen])
    at = np.arange(len(seen)), winner
    flattered, left = (seen[at] - truth[at]).mean(), (drawn[at] - truth[at]).mean()
    assert left < 0.65 * flattered
    assert left > -0.25  # of one standard deviation of luck: what is clearly merit is left
    assert ((drawn[at] - truth[at]) ** 2).mean() < 1.1 * ((seen[at] - truth[at]) ** 2).mean()


def test_shrinking_is_the_posterior_mean_by_numerical_integration() -> None:
    values, noise = np.array([0.81, 0.78, 0.80, 0.795]), 2e-4
    luck = np.linspace(1e-6, 1, 200_001)  # noise / (noise + τ²)
    spread = noise / luck  # of one figure about the common mean, which is flat
    log_p = -(len(values) - 1) / 2 * np.log(spread) - ((values - values.mean()) ** 2).sum() / (2 * spread)
    weight = np.exp(log_p - log_p.max()) / np.sqrt(luck)
    kept = 1 - float((luck * weight).sum() / weight.sum())
    assert shrunk(values, noise) == pytest.approx(values.mean() + kept * (values - values.mean()), abs=1e-6)


def test_one_alone_equals_and_no_luck_are_left_as_they_are() -> None:
    assert shrunk([0.8], 1e-4).tolist() == [0.8]
    assert shrunk([0.8, 0.8], 1e-4).tolist() == [0.8, 0.8]
    assert shrunk([0.8, 0.7], 0.0).tolist() == [0.8, 0.7]
    assert shrunk([0.8, 0.7], np.nan).tolist() == [0.8, 0.7]
