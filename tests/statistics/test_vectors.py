"""Vectors: what is found near a query, and whether two models agree on what is near what, against loops over plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ortho_group

from attar.statistics import vectors


def some(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)))


def rank_by_hand(queries: np.ndarray, documents: np.ndarray, texts: list[tuple[str, str]], row: int) -> int:
    """1 + the distinct documents nearer to the row's query than its own, the query itself and its other documents left out."""
    query, own = texts[row]
    mine = {d for q, d in texts if q == query}
    candidates = {d: documents[i] for i, (_, d) in enumerate(texts)}
    nearness = cosine(queries[row], candidates[own])
    return 1 + sum(cosine(queries[row], v) > nearness for d, v in candidates.items() if d not in mine and d != query)


@pytest.mark.parametrize("k", [1, 3])
def test_recall_counts_distinct_documents_once_and_leaves_out_the_query_and_its_other_documents(k: int) -> None:
    names = np.random.default_rng(1).integers(0, 8, size=(40, 2))
    texts = [(f"t{q}", f"t{d}") for q, d in names]
    known = dict(zip(sorted({t for pair in texts for t in pair}), some(16, 4), strict=False))
    queries, documents = (np.array([known[pair[i]] for pair in texts]) for i in (0, 1))
    hits, reciprocal = vectors.retrieved(queries, documents, k, names)
    ranks = [rank_by_hand(queries, documents, texts, row) for row in range(40)]
    assert hits.tolist() == [float(rank <= k) for rank in ranks]
    assert reciprocal == pytest.approx([1 / rank for rank in ranks])


def test_a_model_that_answers_the_same_to_everything_finds_what_chance_finds() -> None:
    same = np.ones((20, 3))
    hits, reciprocal = vectors.retrieved(same, same, 5)
    assert hits == pytest.approx(np.full(20, 5 / 20))
    assert reciprocal == pytest.approx(np.full(20, 1 / 10.5))


def test_recall_does_not_depend_on_how_many_cosines_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vectors.retrieved(some(30, 5), some(30, 5, 1), 2)
    monkeypatch.setattr(vectors, "HELD", 70)
    assert all(np.array_equal(a, b) for a, b in zip(whole, vectors.retrieved(some(30, 5), some(30, 5, 1), 2), strict=True))


def test_neighbours_are_those_of_a_loop_over_all_pairs() -> None:
    a, b, k = some(25, 4), some(25, 6, 1), 3
    for row, share in enumerate(vectors.neighbour_overlap(a, b, k)):
        named = [set(sorted((i for i in range(25) if i != row), key=lambda i, v=v: -cosine(v[row], v[i]))[:k]) for v in (a, b)]
        assert share == pytest.approx(len(named[0] & named[1]) / k)


def test_turning_and_scaling_vectors_changes_neither_neighbours_nor_cka() -> None:
    a = some(40, 6)
    turned = 3 * a @ ortho_group.rvs(6, random_state=0)
    assert vectors.neighbour_overlap(a, turned).tolist() == [1.0] * 40
    assert vectors.cka(a, turned) == pytest.approx(1)


def test_cka_of_what_has_nothing_in_common_is_nothing_though_coordinates_are_many() -> None:
    assert np.mean([vectors.cka(some(60, 40, 2 * s), some(60, 40, 2 * s + 1)) for s in range(40)]) == pytest.approx(0, abs=0.01)


def test_cka_is_the_unbiased_one_by_its_definition_over_quadruples() -> None:
    # HSIC without bias is a mean over all ordered quadruples of distinct rows of k(1,2) (l(1,2) + l(3,4) − 2 l(1,3)): Gretton et al. 2005
    a, b = some(7, 3), some(7, 2, 1)

    def hsic(x: np.ndarray, y: np.ndarray) -> float:
        k, m = x @ x.T, y @ y.T
        rows = range(len(x))
        quads = [(i, j, u, v) for i in rows for j in rows for u in rows for v in rows if len({i, j, u, v}) == 4]
        return sum(k[i, j] * (m[i, j] + m[u, v] - 2 * m[i, u]) for i, j, u, v in quads) / len(quads)

    assert vectors.cka(a, b) == pytest.approx(hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b)))


def test_too_few_vectors_give_no_figure() -> None:
    assert math.isnan(vectors.cka(some(3, 2), some(3, 2)))
    assert np.isnan(vectors.neighbour_overlap(some(1, 2), some(1, 2))).all()


def test_a_vector_of_zeros_is_near_nothing() -> None:
    assert vectors.cosines([[0.0, 0.0], [1.0, 2.0]], [[1.0, 1.0], [2.0, 4.0]]) == pytest.approx([0.0, 1.0])
