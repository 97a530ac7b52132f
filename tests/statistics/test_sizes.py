"""The curve of error over size: its posterior against a random walk, its intervals against simulated students, and data it must not fit."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from attar.errors import EvidenceError
from attar.statistics import sizes
from attar.statistics.sizes import best_of_each, error_of, fit_sizes, score_of

SIZES = np.geomspace(300, 30_000, 6)


def law(n: NDArray[np.float64] | float, floor: float = 0.03, power: float = 0.5) -> NDArray[np.float64]:
    return floor + (0.3 - floor) * (300 / np.asarray(n)) ** power


def noisy(errors: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """√error off by a share of `noise` / 2 of what 0.12 has."""
    return (np.sqrt(errors) + rng.normal(size=np.shape(errors)) * noise / 2 * math.sqrt(0.12)) ** 2


def test_a_curve_without_scatter_is_found_again() -> None:
    curve = fit_sizes(SIZES, law(SIZES))
    assert curve.floor == pytest.approx(0.03, abs=0.003)
    assert curve.power == pytest.approx(0.5, abs=0.03)
    for n in (300, 3000, 30_000):
        assert curve.floor + (curve.scale / n) ** curve.power == pytest.approx(float(law(n)), rel=0.01)
        assert curve.error(n) == pytest.approx(float(law(n)), rel=0.01)


@pytest.mark.parametrize("count", [4, 6, 12])
@pytest.mark.parametrize("noise", [0.02, 0.15])
@pytest.mark.parametrize("known", [False, True])
def test_ninety_percent_of_new_students_lie_in_their_intervals(count: int, noise: float, known: bool) -> None:
    """Whatever power and floor are, for few sizes and many, where seeds scatter little and much; wider where little is known."""
    rng = np.random.default_rng(count)
    n = np.geomspace(300, 30_000, count)
    hits = []
    for seed in range(40):
        power, floor = rng.uniform(0.3, 1.0), rng.choice([0.0, 0.03, 0.1])
        spread = float(noisy(np.full((3, 5), law(3000, floor, power)), noise, rng).std(1, ddof=1).mean())
        curve = fit_sizes(n, noisy(law(n, floor, power), noise, rng), seed_sd=spread if known else None, seed=seed)
        for _ in range(20):
            at = math.exp(rng.uniform(math.log(300), math.log(curve.reach[1])))
            low, high = curve.interval(at)
            hits.append(low <= noisy(law(at, floor, power), noise, rng) <= high)
    assert np.mean(hits) >= 0.86  # 40 curves know it to some 2 %
    assert np.mean(hits) <= 0.96 or count < 12


def test_the_posterior_is_that_of_a_random_walk() -> None:
    errors = noisy(law(SIZES), 0.04, np.random.default_rng(1))
    curve = fit_sizes(SIZES, errors)
    spread = 4 * law(SIZES)  # what the weights of the fit come to, nearly
    level = math.sqrt(float(np.median(errors)))
    rng = np.random.default_rng(0)

    def log_p(x: NDArray[np.float64]) -> NDArray[np.float64]:
        floor, rise, log_power, log_noise = x.T[..., None]
        with np.errstate(over="ignore"):
            off = errors - floor - rise * np.exp(-np.exp(log_power) * np.log(SIZES / 300))
        # flat in the errors at both ends, whose rise is `rise` × (1 − what is left of it at the end)
        flat = np.log1p(-np.exp(-np.exp(log_power[:, 0]) * math.log(100)))
        found = flat - len(SIZES) * log_noise[:, 0] - (off**2 / spread).sum(1) / (2 * np.exp(2 * log_noise[:, 0]))
        found = found - ((log_power[:, 0] - math.log(sizes.POWER)) / sizes.POWER_SPREAD) ** 2 / 2
        found = found - ((log_noise[:, 0] - math.log(sizes.NOISE * level)) / sizes.NOISE_SPREAD) ** 2 / 2
        end = floor[:, 0] + rise[:, 0] * np.exp(-np.exp(log_power[:, 0]) * math.log(200))  # at twice the largest size
        return np.where((end >= 0) & (rise[:, 0] >= 0), found, -np.inf)

    x = np.array([0.03, 0.27, math.log(0.5), math.log(0.01)]) * np.exp(0.05 * rng.normal(size=(400, 4)))
    now, kept = log_p(x), []
    for step in range(3000):
        a, b = (rng.permutation(400) for _ in range(2))  # differential evolution: steps as long as the walkers lie apart
        new = x + 0.8 * (x[a] - x[b]) + 1e-4 * rng.normal(size=x.shape)
        then = log_p(new)
        taken = np.log(rng.random(400)) < then - now
        x, now = np.where(taken[:, None], new, x), np.where(taken, then, now)
        if step > 1000 and step % 20 == 0:
            kept.append(x)
    floor, rise, log_power, _ = np.concatenate(kept).T
    for at in (600.0, 5000.0, 60_000.0):
        theirs = floor + rise * (300 / at) ** np.exp(log_power)
        ours = curve.drawn[0] + curve.drawn[1] * (300 / at) ** curve.drawn[2]
        for q in (0.1, 0.5, 0.9):
            assert np.quantile(ours, q) == pytest.approx(np.quantile(theirs, q), abs=0.15 * np.ptp(np.quantile(theirs, (0.05, 0.95))))


def test_the_smallest_size_is_where_the_chance_reaches_nine_in_ten() -> None:
    curve = fit_sizes(SIZES, noisy(law(SIZES), 0.03, np.random.default_rng(2)))
    smallest = curve.smallest(0.08)
    assert smallest is not None
    assert curve.chance(smallest, 0.08) >= 0.9 > curve.chance(0.98 * smallest, 0.08)
    surer = curve.smallest(0.08, chance=0.95)
    assert surer is not None and surer > smallest
    assert curve.smallest(0.5) == 300  # never below the smallest that was tried
    assert curve.smallest(0.001) is None
    assert curve.floor_chance(0.001) > 0.9 > curve.floor_chance(0.08)


def test_uncertain_rows_widen_intervals_and_ask_for_more() -> None:
    curve = fit_sizes(SIZES, law(SIZES))
    alone, (low, high) = np.ptp(curve.interval(3000)), curve.interval(3000, rows_sd=0.02)
    assert high - low == pytest.approx(math.hypot(2 * 1.645 * 0.02, alone), rel=0.1)
    sure, unsure = curve.smallest(0.08), curve.smallest(0.08, rows_sd=0.01)
    assert sure is not None and unsure is not None and unsure > sure


def test_known_scatter_of_seeds_sets_the_width() -> None:
    errors = noisy(law(SIZES), 0.03, np.random.default_rng(3))
    narrow, wide = (np.ptp(fit_sizes(SIZES, errors, seed_sd=sd).interval(3000)) for sd in (0.003, 0.02))
    assert wide > 1.5 * narrow


def test_scale_of_errors_and_sizes_does_not_matter() -> None:
    errors = noisy(law(SIZES), 0.03, np.random.default_rng(4))
    plain, scaled = fit_sizes(SIZES, errors), fit_sizes(100 * SIZES, 50 * errors)  # rmse in another unit
    np.testing.assert_allclose(np.multiply(50, plain.interval(2000)), scaled.interval(200_000), rtol=1e-6)
    assert scaled.power == pytest.approx(plain.power, rel=1e-3)


def test_where_size_does_not_matter_the_smallest_tried_is_enough() -> None:
    curve = fit_sizes(SIZES, 0.2 + 0.001 * np.random.default_rng(0).normal(size=6))
    assert curve.smallest(0.205) == 300
    assert curve.smallest(0.19) is None


def test_it_does_not_speak_of_sizes_far_from_those_tried() -> None:
    curve = fit_sizes(SIZES, law(SIZES))
    assert curve.interval(60_000)[1] < 0.1
    with pytest.raises(EvidenceError, match=r"from 300 to 30,000 were tried, and the curve is asked about 60,100") as caught:
        curve.interval(60_100)
    assert "150 to 60,000" in caught.value.hint
    with pytest.raises(EvidenceError, match="asked about 100"):
        curve.chance(100, 0.1)


def test_larger_students_that_do_worse_are_left_out_and_it_is_said() -> None:
    curve = fit_sizes([100, 300, 1000, 3000, 10_000, 30_000], [0.4, 0.3, 0.22, 0.17, 0.25, 0.3])
    assert curve.sizes.tolist() == [100, 300, 1000, 3000]
    assert curve.reach == (50, 3000)
    assert "beyond 3,000 error rises again" in curve.notes[0]


@pytest.mark.parametrize(
    ("n", "e", "why"),
    [
        ([100, 200, 400], [0.3, 0.2, 0.1], "3 sizes of students tried, and a curve needs 4"),
        ([100] * 6, [0.3, 0.2, 0.1, 0.2, 0.2, 0.2], "1 size of student tried"),
        ([100, 200, 400, 800], [0.1, 0.15, 0.2, 0.25], "error rises with size"),
        ([100, 200, 400, 800], [0.0] * 4, "no error at all"),
        ([100, 200, 400, 800], [0.1, math.nan, 0.2, 0.25], "errors not below it"),
        ([100, 200, 400, 0], [0.1, 0.1, 0.2, 0.25], "sizes are above 0"),
        ([100, 200, 400, 800], [0.1, -0.1, 0.2, 0.25], "errors not below it"),
    ],
)
def test_without_a_curve_it_says_why(n: list[float], e: list[float], why: str) -> None:
    with pytest.raises(EvidenceError, match=re.escape(why)):
        fit_sizes(n, e)


def test_errors_that_reach_zero_are_fitted() -> None:
    curve = fit_sizes([100, 1000, 10_000, 100_000, 1_000_000], [0.2, 0.03, 0.004, 0.0, 0.0])
    assert 0 <= curve.interval(1_000_000)[0] <= curve.interval(1_000_000)[1] < 0.02


def test_each_size_gives_its_best_trial() -> None:
    n, e = best_of_each([200, 100, 200, 100, 400], [0.2, 0.5, 0.1, 0.4, 0.05])
    assert n.tolist() == [100, 200, 400]
    assert e.tolist() == [0.4, 0.1, 0.05]


def test_many_sizes_share_at_most_twelve_places_and_few_trials_share_four() -> None:
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(math.log(100), math.log(100_000), 200)).round()
    e = law(n) + rng.exponential(0.05, 200)
    at, best = best_of_each(n, e)
    assert 10 <= len(at) <= 12
    assert all((float(a), float(b)) in set(zip(n.tolist(), e.tolist(), strict=True)) for a, b in zip(at, best, strict=True))
    assert len(best_of_each(n[:14], e[:14])[0]) <= 4
    curve = fit_sizes(n, e)
    assert curve.tried == (n.min(), n.max())  # and not those of the best alone
    assert curve.reach == (n.min() / 2, n.max() * 2)


def test_the_best_of_many_trials_is_what_a_tuned_student_reaches() -> None:
    """Trials of which most are badly tuned: a curve through all would promise far too little, one through the best does not."""
    rng = np.random.default_rng(1)
    hits = []
    for seed in range(40):
        n = np.exp(rng.uniform(math.log(300), math.log(30_000), 120))
        curve = fit_sizes(n, noisy(law(n), 0.02, rng) * (1 + rng.exponential(0.2, 120)), seed=seed)
        for _ in range(5):
            at = math.exp(rng.uniform(math.log(400), math.log(30_000)))
            tuned = noisy(law(np.full(12, at)), 0.02, rng) * (1 + rng.exponential(0.2, 12))  # the best of as many trials as a place has
            hits.append(curve.interval(at)[0] <= tuned.min() <= curve.interval(at)[1])
    assert np.mean(hits) >= 0.85


def test_every_metric_has_an_error_and_comes_back() -> None:
    assert error_of(0.78, 1) == pytest.approx(0.22)
    assert error_of(-0.3, 1) == pytest.approx(1.3)  # R² of something worse than the mean
    assert error_of(2.5, -1) == 2.5
    assert error_of(1.0, 1) == 0
    assert score_of(error_of(0.78, 1), 1) == pytest.approx(0.78)
    assert score_of(error_of(2.5, -1), -1) == 2.5
    with pytest.raises(EvidenceError, match="the best is 1"):
        error_of(78, 1)
    with pytest.raises(EvidenceError, match="the best is 0"):
        error_of(-0.2, -1)
    with pytest.raises(EvidenceError, match="nan"):
        error_of(math.nan, 1)
