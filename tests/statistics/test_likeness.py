"""Likeness: figures of two models' answers against loops over rows and pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from attar.statistics import likeness, metrics


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def values(figures: dict[str, likeness.Figure], w: np.ndarray) -> dict[str, float]:
    return {name: float(figure(w)) for name, figure in figures.items()}


@pytest.mark.parametrize("shape", [(30, 3), (30, 4, 2)])
def test_decisions_are_compared_position_by_position(shape: tuple[int, ...]) -> None:
    t, s, w = some(*shape), some(*shape, seed=1), np.random.default_rng(2).random(shape[0])
    found = values(likeness.of_decisions(t.argmax(-1), s.argmax(-1), t, s), w)
    p, q = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (t, s))
    each = {"agreement": t.argmax(-1) == s.argmax(-1), "kl": (p * np.log(p / q)).sum(-1)}
    assert found == pytest.approx({name: np.average(v.reshape(shape[0], -1).mean(1), weights=w) for name, v in each.items()})
    assert next(iter(found)) == "agreement"


def test_numbers_are_compared_by_distance_and_rank() -> None:
    t, s = some(40), some(40, seed=1)
    found = values(likeness.of_numbers(t, s), np.ones(40))
    assert found["root_mean_square_distance"] == pytest.approx(math.sqrt(((t - s) ** 2).mean()))
    assert found["mean_distance"] == pytest.approx(np.abs(t - s).mean())
    assert found["rank_correlation"] == pytest.approx(spearmanr(t, s)[0])


def test_cosines_of_all_pairs_of_texts_that_are_there_are_correlated() -> None:
    t, s = some(12, 2, 5), some(12, 2, 3, seed=1)
    mask = np.random.default_rng(2).random((12, 2)) < 0.8
    flat = [(i, k) for i in range(12) for k in range(2) if mask[i, k]]
    ours, theirs = ([cosine(v[a], v[b]) for a, b in itertools.combinations(flat, 2)] for v in (t, s))
    found = values(likeness.of_vectors(t, s, mask), np.ones(12))
    assert found["similarity_correlation"] == pytest.approx(spearmanr(ours, theirs)[0])
    assert "mean_cosine" not in found  # of different widths nothing of the kind exists
    assert "mean_cosine" in likeness.of_vectors(t, t)


def test_a_row_drawn_twice_counts_in_each_of_its_pairs() -> None:
    t, s, w = some(9, 1, 4), some(9, 1, 4, seed=1), np.array([2.0, 0, 1, 1, 0, 3, 1, 1, 1])
    pairs = list(itertools.combinations(range(9), 2))
    ours, theirs = ([cosine(v[a, 0], v[b, 0]) for a, b in pairs] for v in (t, s))
    expected = metrics.spearman(ours, theirs, [w[a] * w[b] for a, b in pairs])
    found = likeness.of_vectors(t, s)
    assert float(found["similarity_correlation"](w)) == pytest.approx(float(expected))
    both = np.stack([w, np.ones(9)])
    assert found["similarity_correlation"](both) == pytest.approx([float(expected), float(found["similarity_correlation"](np.ones(9)))])
    alike = np.array([cosine(t[i, 0], s[i, 0]) for i in range(9)])
    assert float(found["mean_cosine"](w)) == pytest.approx(np.average(alike, weights=w))


def test_texts_that_come_twice_do_not_name_each_other() -> None:
    t = np.repeat(some(15, 1, 4), 3, 0)
    assert float(likeness.of_vectors(t, t)["neighbour_overlap"](np.ones(45))) == pytest.approx(1)
    s = np.repeat(some(15, 1, 4, seed=1), 3, 0)
    single = likeness.of_vectors(t[::3], s[::3])["neighbour_overlap"](np.ones(15))
    assert float(likeness.of_vectors(t, s)["neighbour_overlap"](np.ones(45))) == pytest.approx(float(single))


def test_of_many_things_the_pairs_are_random_different_and_always_the_same() -> None:
    pairs = likeness.pairs_of(1000, pairs=500)
    assert len(pairs) == 500
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert np.array_equal(pairs, likeness.pairs_of(1000, pairs=500))
    assert len(np.unique(pairs)) > 500
