"""Pairs within groups: the tests of statsmodels and scipy, weights and clusters by simulation, the worst group, how far groups differ."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from attar.statistics import paired_proportions
from attar.statistics.multiplicity import benjamini_hochberg
from attar.statistics.subgroups import PairedShares, apart, found_by, largest_loss, paired_means, paired_shares, share_of

RNG = np.random.default_rng


def alike(rng: np.random.Generator, n: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of decisions that are mostly the same, right with probabilities a and b."""
    u = rng.random(n)
    v = np.where(rng.random(n) < 0.8, u, rng.random(n))
    return v < a, u < b


def test_shares_of_plain_rows_have_the_exact_test_and_tangos_interval() -> None:
    a, b = alike(RNG(0), 200, 0.7, 0.8)
    found = paired_shares(a, b)
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert found.p == pytest.approx(vars(mcnemar(table, exact=True))["pvalue"])
    assert found.interval(0.99) == paired_proportions(int((a & ~b).sum()), int((b & ~a).sum()), 200, 0.99)
    assert (found.a, found.b) == pytest.approx((a.mean(), b.mean()))
    assert paired_shares(a, a).p == 1.0


def test_equal_weights_change_nothing_but_the_last_row() -> None:
    a, b = alike(RNG(1), 300, 0.7, 0.8)
    plain, weighted = paired_shares(a, b), paired_shares(a, b, weight=np.full(300, 2.5))
    assert weighted.rows == pytest.approx(299)  # n − 1 under the root, which the exact test does not have
    assert weighted.interval() == pytest.approx(plain.interval(), abs=1e-3)
    score = mcnemar([[0, plain.only_a], [plain.only_b, 0]], exact=False, correction=False)
    assert weighted.p == pytest.approx(vars(score)["pvalue"], abs=1e-3)


def test_rows_that_are_told_twice_tell_no_more() -> None:
    a, b = alike(RNG(2), 150, 0.7, 0.8)
    once = paired_shares(a, b, row=np.arange(150))
    thrice = paired_shares(np.tile(a, 3), np.tile(b, 3), row=np.tile(np.arange(150), 3))
    assert thrice.rows == pytest.approx(once.rows)
    assert thrice.interval() == pytest.approx(once.interval())
    assert paired_shares(a, a, row=np.arange(150) // 2).rows == 75  # no decision differs: as many rows as there are
    assert paired_shares(a, a, weight=np.r_[np.full(75, 3.0), np.full(75, 1.0)]).rows == pytest.approx(120)  # Kish


def test_intervals_of_weighted_rows_with_several_decisions_hold_what_they_promise() -> None:
    rng, hits, wrong = RNG(3), 0, 0
    for _ in range(400):
        ease = np.repeat(rng.normal(size=120) * 0.15, 3)  # the decisions of a row are alike
        weight = np.repeat(rng.gamma(2, size=120), 3)
        u = rng.random(360)
        a, b = u < 0.75 + ease, np.where(rng.random(360) < 0.7, u, rng.random(360)) < 0.75 + ease
        found = paired_shares(a, b, weight=weight, row=np.repeat(np.arange(120), 3))
        hits += found.interval()[0] <= 0 <= found.interval()[1]
        wrong += found.p <= 0.05
    assert 0.92 <= hits / 400 <= 0.98
    assert wrong / 400 <= 0.08


def test_means_are_the_paired_t_test_and_weights_are_those_of_a_survey() -> None:
    rng = RNG(4)
    a, b, w = rng.gamma(2, size=80), rng.gamma(2, size=80), rng.gamma(3, size=80)
    found, test = paired_means(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(test.pvalue)
    assert found.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))
    weighted = paired_means(a, b, w)
    assert weighted.difference == pytest.approx(DescrStatsW(a - b, w).mean)
    off = a - b - weighted.difference
    assert weighted.se == pytest.approx(np.sqrt(sum((wi * x) ** 2 for wi, x in zip(w, off, strict=True)) * 80 / 79) / w.sum())
    assert paired_means([1.0], [2.0]).p == 1.0
    assert paired_means([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert paired_means([1.0, 2.0], [2.0, 3.0]).p == 0.0


def test_the_largest_loss_lies_in_its_interval_although_it_is_the_largest() -> None:
    rng, hits, excess = RNG(5), 0, []
    truth = [0.0, 0.0, 0.0, -0.03, -0.05]
    for _ in range(300):
        groups = [paired_shares(*alike(rng, 150, 0.8 + d, 0.8)) for d in truth]
        worst, loss, low, high = largest_loss(groups)
        assert loss == max(-g.difference for g in groups) == -groups[worst].difference
        hits += low <= 0.05 <= high
        excess.append(loss - 0.05)
    assert hits / 300 >= 0.93
    assert np.mean(excess) > 0.005  # the largest seen is too large, which is why it has this interval
    worse = [paired_means([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]), paired_means([1.0, 1.1, 0.9], [1.0, 1.0, 1.0])]
    assert largest_loss(worse, better=-1)[:2] == (0, pytest.approx(4 / 3))


def test_a_share_has_wilsons_interval_and_repeated_rows_do_not_narrow_it() -> None:
    hits = np.arange(40) < 31
    assert share_of(hits) == pytest.approx((31 / 40, *proportion_confint(31, 40, method="wilson")))
    thrice = share_of(np.tile(hits, 3), row=np.tile(np.arange(40), 3))
    assert thrice == pytest.approx((31 / 40, *proportion_confint(31 / 40 * 39, 39, method="wilson")))


def rates(rng: np.random.Generator, sizes: tuple[int, ...], a: tuple[float, ...], b: tuple[float, ...]) -> list[PairedShares]:
    return [paired_shares(*alike(rng, n, x, y)) for n, x, y in zip(sizes, a, b, strict=True)]


def test_how_far_groups_lie_apart_is_what_a_naive_loop_finds() -> None:
    rng = RNG(6)
    strata = [rates(rng, (80, 120, 60), (0.3, 0.5, 0.4), (0.3, 0.4, 0.4)), rates(rng, (50, 70, 90), (0.1, 0.2, 0.1), (0.1, 0.1, 0.3))]
    parity, odds = apart(strata[:1]), apart(strata)
    for who in ("a", "b"):
        found = [[getattr(g, who) for g in stratum] for stratum in strata]
        assert getattr(parity, who) == pytest.approx(max(found[0]) - min(found[0]))
        assert getattr(odds, who) == pytest.approx(max(max(r) - min(r) for r in found))
    for found in (parity, odds):
        assert found.of_a[0] <= found.a <= found.of_a[1]
        assert found.change[0] <= found.a - found.b <= found.change[1]
    g, h = strata[0][:2]
    two = apart([[g, h]])
    (p_low, p_high), (q_low, q_high) = (proportion_confint(x.a * x.rows, x.rows, method="wilson") for x in (h, g))
    d = h.a - g.a
    expected = d - np.hypot(h.a - p_low, q_high - g.a), d + np.hypot(p_high - h.a, g.a - q_low)
    assert two.of_a == pytest.approx(tuple(max(0.0, x) for x in expected))


@pytest.mark.parametrize(
    ("a", "b"), list(itertools.product([(0.3, 0.3, 0.3), (0.2, 0.3, 0.4)], repeat=2)), ids=["even", "evened out", "apart", "both"]
)
def test_intervals_of_how_far_groups_lie_apart_hold_what_they_promise(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    rng, hits = RNG(7), np.zeros(2)
    for _ in range(100):
        found = apart([rates(rng, (100, 150, 250), a, b)])
        truth = max(a) - min(a), max(a) - min(a) - (max(b) - min(b))
        hits += [found.of_a[0] <= truth[0] <= found.of_a[1], found.change[0] <= truth[1] <= found.change[1]]
    assert (hits >= 89).all()  # of 100; three standard errors below 95


def test_how_well_a_score_finds_hits_holds_what_it_promises_at_any_auroc() -> None:
    rng = RNG(8)
    for shift in (0.0, 1.0, 2.5):
        truth, hits = stats.norm.cdf(shift / np.sqrt(2)), 0
        positive = np.arange(150) < 20
        for _ in range(300):
            z = rng.normal(size=150) + shift * positive
            value, low, high = found_by(z, positive)
            hits += low <= truth <= high
            assert 0 <= low <= value <= high <= 1
            assert value == pytest.approx(roc_auc_score(positive, z))
        assert 0.92 <= hits / 300 <= 0.99
    assert found_by([1, 2, 3, 4, 5], [False, False, True, True, True]) == (1.0, pytest.approx(0.025**0.5), 1.0)
    assert found_by([1, 2, 3, 4, 5], [True, True, False, False, False]) == (0.0, 0.0, pytest.approx(1 - 0.025**0.5))
    low, high = proportion_confint(2, 2, method="beta")  # two pairs, both ranked right
    assert (low, high) == pytest.approx(found_by([1, 2, 3, 4, 5], [False, False, True, True, True])[1:])


def test_a_twentieth_of_what_is_called_significant_is_false_on_average() -> None:
    rng, shares = RNG(9), []
    for _ in range(800):
        z = rng.normal(size=40)
        z[:10] += 3
        found = benjamini_hochberg(2 * stats.norm.sf(abs(z))) <= 0.05
        shares.append(found[10:].sum() / max(found.sum(), 1))
    assert 0.02 < np.mean(shares) < 0.05  # m₀ / m · 5 % = 3.75 %
