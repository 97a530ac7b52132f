"""Scores of how much at home a row looks, and how well they tell foreign rows: against scikit-learn, scipy, naive loops and simulation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import special, stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from attar.statistics import foreign, metrics


def two_clouds(home: int = 300, away: int = 200, gap: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.append(rng.normal(gap, 1, home), rng.normal(0, 1.5, away))
    return scores.round(1), np.append(np.ones(home, bool), np.zeros(away, bool))  # rounded, so that there are ties


def test_confidence_has_the_order_of_the_largest_probability_and_no_ties_where_it_rounds_to_one() -> None:
    z = np.random.default_rng(0).normal(0, 3, (200, 5))
    p = special.softmax(z, axis=1).max(1)
    assert special.expit(foreign.confidence(z)) == pytest.approx(p)
    sure = foreign.confidence([[0.0, 60.0], [0.0, 61.0], [-np.inf, 0.0]])
    assert (np.diff(sure) > 0).all()
    assert foreign.confidence([[[0.0, 2.0], [0.0, -1.0]]]).tolist() == [2.0]


def test_energy_is_the_papers_with_its_sign_turned() -> None:
    z = np.random.default_rng(0).normal(0, 3, (50, 4))
    for t in (1.0, 2.5):
        naive = [t * np.log(sum(np.exp(v / t) for v in row)) for row in z]
        assert foreign.energy(z, t) == pytest.approx(naive)
    assert foreign.energy(metrics.log_softmax(z)) == pytest.approx(np.zeros(50), abs=1e-12)  # log-probabilities have none
    labels = np.random.default_rng(1).normal(size=(6, 3))
    pairs = np.stack([np.zeros_like(labels), labels], -1)
    assert foreign.energy(pairs) == pytest.approx(np.log1p(np.exp(labels)).sum(1))


@pytest.mark.parametrize("held", [4_000_000, 100])
def test_the_kth_neighbour_is_that_of_scikit_learn(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.statistics.foreign.HELD", held)
    rng = np.random.default_rng(0)
    fitted, x = rng.normal(size=(80, 6)) + 1, rng.normal(size=(30, 6))
    tree = NearestNeighbors(n_neighbors=7).fit(normalize(fitted))
    assert foreign.knn(x, fitted, 7) == pytest.approx(-tree.kneighbors(normalize(x))[0][:, -1])
    assert foreign.knn(3 * x, 2 * fitted, 7) == pytest.approx(foreign.knn(x, fitted, 7))  # length says nothing
    assert foreign.knn(x, fitted[:4], 50) == pytest.approx(
        -NearestNeighbors(n_neighbors=4).fit(normalize(fitted[:4])).kneighbors(normalize(x))[0][:, -1]
    )


def test_mahalanobis_is_that_of_scikit_learns_covariance_and_the_relative_one_takes_that_of_all_rows_off() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200) * 5  # classes need not be counted from 0
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + y[:, None]
    x = np.append(x, np.full((200, 1), 2.0), axis=1)  # a unit that never fires
    means = {c: x[y == c].mean(0) for c in (0, 5, 10)}
    shared = EmpiricalCovariance(assume_centered=True).fit(x - np.stack([means[c] for c in y]))
    asked = rng.normal(2, 4, (40, 5))
    nearest = np.min([shared.mahalanobis(asked - mean) for mean in means.values()], axis=0)
    fitted = foreign.Gaussians.fit(x, y)
    assert fitted.mahalanobis(asked) == pytest.approx(-nearest)
    assert fitted.relative(asked) == pytest.approx(EmpiricalCovariance().fit(x).mahalanobis(asked) - nearest)


def test_auroc_and_fpr_are_those_of_scikit_learn_with_home_as_the_positive_class() -> None:
    scores, home = two_clouds()
    fpr, tpr, _ = roc_curve(home, scores, drop_intermediate=False)
    found = foreign.figures(scores, home)
    ones = np.ones(len(scores))
    assert float(found["auroc"](ones)) == pytest.approx(roc_auc_score(home, scores))
    assert float(found["fpr_at_95"](ones)) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    threshold = np.sort(scores[home])[::-1][int(np.ceil(0.95 * home.sum())) - 1]
    assert (scores[home] >= threshold).mean() >= 0.95
    assert float(found["fpr_at_95"](ones)) == pytest.approx((scores[~home] >= threshold).mean())


def test_fpr_of_weights_is_that_of_rows_repeated() -> None:
    scores, home = two_clouds(60, 40)
    counts = np.random.default_rng(2).integers(0, 4, (8, 100)).astype(float)
    naive = []
    for row in counts:
        s, h = np.repeat(scores, row.astype(int)), np.repeat(home, row.astype(int))
        fpr, tpr, _ = roc_curve(h, s, drop_intermediate=False)
        naive.append(fpr[np.argmax(tpr >= 0.95)])
    assert foreign.fpr_at_tpr(scores, home, counts) == pytest.approx(naive)
    assert np.isnan(foreign.fpr_at_tpr(scores, home, np.where(home, 1.0, 0.0)))


def test_the_curve_lies_on_that_of_scikit_learn() -> None:
    scores, home = two_clouds(2000, 1500)
    fpr, tpr = foreign.roc(scores, home, points=20)
    exact = roc_curve(home, scores, drop_intermediate=False)
    on = {(round(a, 9), round(b, 9)) for a, b in zip(exact[0], exact[1], strict=True)}
    assert {(round(a, 9), round(b, 9)) for a, b in zip(fpr, tpr, strict=True)} <= on
    assert len(fpr) <= 21
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_two_samples_are_resampled_apart() -> None:
    """A difference of means of two samples has the spread of both, and BCa is that of scipy for two samples."""
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=120), rng.exponential(2, size=60) ** 1.5
    both, first = np.append(a, b), np.append(np.ones(120), np.zeros(60))

    seen: list[np.ndarray] = []

    def gap(w: np.ndarray) -> np.ndarray:
        seen.append(np.atleast_2d(w))
        return metrics.mean(both, w * first) - metrics.mean(both, w * (1 - first))

    found = foreign.resampled_apart({"gap": gap}, 120, 60, resamples=20_000)["gap"]
    assert found.value == pytest.approx(a.mean() - b.mean())
    drawn = np.concatenate(seen)[:20_000]
    assert (drawn[:, :120].sum(1) == 120).all()
    assert (drawn[:, 120:].sum(1) == 60).all()
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.interval() == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


@pytest.mark.parametrize("figure", ["auroc", "fpr_at_95"])
def test_intervals_cover_what_a_large_sample_shows(figure: str) -> None:
    """Nominal 95 %: of 200 pairs of samples at least 90 % cover, where 189 ± 3 do."""
    truth = float(foreign.figures(*two_clouds(200_000, 200_000, seed=99))[figure](np.ones(400_000)))
    covered = 0
    for seed in range(200):
        scores, home = two_clouds(300, 150, seed=seed)
        low, high = foreign.resampled_apart({"f": foreign.figures(scores, home)[figure]}, 300, 150, resamples=300, seed=seed)[
            "f"
        ].interval()
        covered += low <= truth <= high
    assert 180 <= covered <= 199


def test_a_difference_of_two_detectors_is_paired() -> None:
    scores, home = two_clouds()
    other = scores + np.random.default_rng(5).normal(0, 0.05, len(scores))
    found = foreign.resampled_apart({i: partial(metrics.auroc, s, home) for i, s in enumerate((scores, other))}, 300, 200, resamples=300)
    assert (found[0] - found[1]).se < 0.3 * found[0].se
