"""Relations against executed references, plain loops, limits and the maps that must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attar import functional
from attar.functional import (
    attention_kl,
    attention_map,
    attention_transfer,
    cka,
    relation_kl,
    rkd_angle,
    rkd_distance,
    similarity_kl,
    similarity_mse,
    similarity_preserving,
)

FS = torch.tensor([[1, 0, 2, -1], [0.5, 1, -1, 0], [2, 1, 0, 1]])  # the rows on which the reference implementations were executed
FT = torch.tensor([[0, 1, 1, 1], [1, -1, 0.5, 0], [1, 2, 0, -1]])
A = torch.sin(torch.arange(96.0).reshape(2, 3, 4, 4) / 10)
B = torch.cos(torch.arange(96.0).reshape(2, 3, 4, 4) / 7)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth_l1(gap: float) -> float:
    return gap * gap / 2 if abs(gap) < 1 else abs(gap) - 0.5


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def less(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(s) for s in scores]
    return [p / sum(powers) for p in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        (lambda: attention_transfer(B, A).mean(), 0.003369),
        (lambda: similarity_preserving(FT, FS).mean(), 0.150548),
        (lambda: rkd_distance(FT, FS).mean(), 0.031557),
        (lambda: rkd_angle(FT, FS).mean(), 0.020157),
        (lambda: 25 * rkd_distance(FT, FS).mean() + 50 * rkd_angle(FT, FS).mean(), 1.796788),
        (lambda: cka(FT, FS, unbiased=False), 0.715766),
        (lambda: relation_kl(FT[None], FS[None], heads=2).mean(), 0.305090),
    ],
    ids=["attention_transfer", "similarity_preserving", "rkd_distance", "rkd_angle", "rkd", "cka", "relation_kl"],
)
def test_the_golden_values_of_executed_references(value, reference):
    assert math.isclose(float(value()), reference, rel_tol=1e-4, abs_tol=5e-7)  # the last printed digit is rounded


# --- against loops


def test_similarity_preserving_is_the_loop():
    theirs, ours = random(5, 3), random(5, 4, seed=1)
    grams = [[[dot(a, b) for b in f] for a in f] for f in (ours.tolist(), theirs.tolist())]
    ours_g, theirs_g = ([[v / math.sqrt(dot(row, row)) for v in row] for row in gram] for gram in grams)
    expected = [sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 5 for s, t in zip(ours_g, theirs_g, strict=True)]
    assert torch.allclose(similarity_preserving(theirs, ours), torch.tensor(expected, dtype=torch.float64))


def test_rkd_distance_is_the_double_loop():
    theirs, ours = random(5, 3), random(5, 4, seed=1)

    def psi(features: Tensor) -> list[list[float]]:
        rows = features.tolist()
        d = [[math.sqrt(dot(less(a, b), less(a, b))) for b in rows] for a in rows]
        mean = sum(map(sum, d)) / 20  # of the 5 · 4 pairs that differ
        return [[x / mean for x in row] for row in d]

    expected = [sum(smooth_l1(a - b) for a, b in zip(s, t, strict=True)) / 5 for s, t in zip(psi(ours), psi(theirs), strict=True)]
    assert torch.allclose(rkd_distance(theirs, ours), torch.tensor(expected, dtype=torch.float64))


def naive_angle(features: Tensor, i: int, j: int, k: int) -> float:
    rows = features.tolist()
    a, b = less(rows[j], rows[i]), less(rows[k], rows[i])
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) if i not in (j, k) else 0.0


def test_rkd_angle_is_the_triple_loop():
    theirs, ours = random(4, 3), random(4, 5, seed=1)
    for i in range(4):
        gaps = [smooth_l1(naive_angle(ours, i, j, k) - naive_angle(theirs, i, j, k)) for j in range(4) for k in range(4)]
        assert math.isclose(float(rkd_angle(theirs, ours)[i]), sum(gaps) / 16, rel_tol=1e-9)


def test_rkd_angle_of_all_pairs_by_name_is_that_of_all():
    theirs, ours = random(4, 3), random(4, 5, seed=1)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4)).expand(4, 16, 2)
    assert torch.allclose(rkd_angle(theirs, ours, every), rkd_angle(theirs, ours))
    chosen = torch.tensor([[[1, 2]], [[0, 3]], [[3, 3]], [[2, 1]]])
    expected = [smooth_l1(naive_angle(ours, i, j, k) - naive_angle(theirs, i, j, k)) for i, [[j, k]] in enumerate(chosen.tolist())]
    assert torch.allclose(rkd_angle(theirs, ours, chosen), torch.tensor(expected, dtype=torch.float64))


def test_attention_transfer_is_the_loop():
    theirs, ours = random(2, 3, 2, 2), random(2, 5, 2, 2, seed=1)

    def bright(features: Tensor, row: int) -> list[float]:
        maps = features[row].flatten(1).tolist()
        mean = [sum(abs(m[p]) ** 3 for m in maps) / len(maps) for p in range(4)]
        return [v / math.sqrt(dot(mean, mean)) for v in mean]

    for row in range(2):
        gap = less(bright(ours, row), bright(theirs, row))
        assert math.isclose(float(attention_transfer(theirs, ours, power=3)[row]), dot(gap, gap) / 4, rel_tol=1e-9)
        assert math.isclose(float(attention_transfer(theirs, ours, power=3, form="paper")[row]), math.sqrt(dot(gap, gap)), rel_tol=1e-9)


def test_the_two_forms_of_attention_transfer_differ_by_a_square_and_the_number_of_positions():
    code, paper = attention_transfer(B, A), attention_transfer(B, A, form="paper")
    assert torch.allclose(code, paper**2 / 16)


def test_cka_unbiased_is_the_formula_of_song_with_its_three_sums():
    """HSIC₁ = [tr(K̃L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n−1)(n−2)) − 2/(n−2) 1ᵀK̃L̃1] / (n(n−3)), no U-centring in it."""
    x, y = random(7, 3), random(7, 4, seed=1)

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        n = len(a)
        k, m = ((f @ f.T) * (1 - torch.eye(n, dtype=f.dtype)) for f in (a, b))
        total = (k @ m).trace() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return total / (n * (n - 3))

    assert torch.isclose(cka(y, x), hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt())


def test_cka_of_unrelated_features_is_near_zero_only_if_unbiased():
    unbiased = torch.stack([cka(random(12, 40, seed=s), random(12, 40, seed=100 + s)) for s in range(60)])
    biased = torch.stack([cka(random(12, 40, seed=s), random(12, 40, seed=100 + s), unbiased=False) for s in range(60)])
    assert abs(float(unbiased.mean())) < 3 * float(unbiased.std()) / math.sqrt(60) + 0.01
    assert float(biased.min()) > 0.5


def test_biased_cka_is_that_of_centred_products():
    x, y = (f - f.mean(0) for f in (random(7, 3), random(7, 4, seed=1)))
    assert torch.isclose(cka(y, x, unbiased=False), (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def test_relation_kl_is_the_loop_over_heads_and_queries():
    theirs, ours = random(1, 3, 8), random(1, 3, 4, seed=1)

    def relation(x: Tensor, head: int, query: int) -> list[float]:
        width = x.shape[-1] // 2
        rows = x[0, :, head * width : (head + 1) * width].tolist()
        return softmax([dot(rows[query], key) / math.sqrt(width) for key in rows])

    expected = [[naive_kl(relation(theirs, h, q), relation(ours, h, q)) for q in range(3)] for h in range(2)]
    assert torch.allclose(relation_kl(theirs, ours, 2)[0], torch.tensor(expected, dtype=torch.float64))


def test_similarity_kl_is_the_loop_without_the_row_itself():
    theirs, ours = random(5, 3), random(5, 4, seed=1)

    def near(features: Tensor, i: int) -> list[float]:
        rows = features.tolist()
        cos = [dot(rows[i], r) / math.sqrt(dot(rows[i], rows[i]) * dot(r, r)) for r in rows]
        return softmax([c / 0.1 for j, c in enumerate(cos) if j != i])

    expected = [naive_kl(near(theirs, i), near(ours, i)) for i in range(5)]
    assert torch.allclose(similarity_kl(theirs, ours, temperature=0.1), torch.tensor(expected, dtype=torch.float64))


def test_similarity_mse_is_the_mean_square_of_differences_of_cosines():
    theirs, ours = random(4, 3), random(4, 5, seed=1)
    cos = [torch.nn.functional.cosine_similarity(f[:, None], f[None], dim=-1) for f in (ours, theirs)]
    assert torch.isclose(similarity_mse(theirs, ours).mean(), (cos[0] - cos[1]).square().mean())


# --- masks


@pytest.mark.parametrize("junk", [0.0, 9.0, math.nan, math.inf])
def test_padded_tokens_take_no_part_neither_as_query_nor_as_key(junk):
    mask = torch.tensor([[True, True, True, False, False]])
    theirs, ours = random(1, 5, 4), random(1, 5, 4, seed=1)
    filled = ours.masked_fill(~mask[..., None], junk).nan_to_num(7.0, 7.0)
    padded = relation_kl(theirs, filled.requires_grad_(), 2, mask)
    assert torch.allclose(padded[..., :3], relation_kl(theirs[:, :3], ours[:, :3], 2))
    assert not padded[..., 3:].any()
    (grad,) = torch.autograd.grad(padded.sum(), filled)
    assert not grad[:, 3:].any()
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_scores_of_padded_tokens_may_be_anything(junk):
    mask = torch.tensor([[True, True, False]])
    theirs, ours = random(1, 2, 3, 3), random(1, 2, 3, 3, seed=1)
    both = mask[:, None, None, :] & mask[:, None, :, None]
    filled = ours.masked_fill(~both, junk).requires_grad_()
    padded = attention_kl(theirs.masked_fill(~both, junk), filled, mask)
    assert torch.allclose(padded[..., :2], attention_kl(theirs[..., :2, :2], ours[..., :2, :2]))
    (grad,) = torch.autograd.grad(padded.sum(), filled)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("form", ["code", "paper"])
def test_attention_of_padded_tokens_is_that_without_them(form):
    mask = torch.tensor([[True, True, True, False]])
    theirs, ours = random(1, 4, 6), random(1, 4, 3, seed=1)
    assert torch.allclose(attention_transfer(theirs, ours, form=form, mask=mask), attention_transfer(theirs[:, :3], ours[:, :3], form=form))


# --- what does not change them


def turned(features: Tensor, seed: int) -> Tensor:
    q, _ = torch.linalg.qr(random(features.shape[1], features.shape[1], seed=seed))
    return features @ q


@pytest.mark.parametrize("measure", [similarity_preserving, rkd_distance, rkd_angle, cka, similarity_kl, similarity_mse])
def test_a_rotation_of_either_side_changes_nothing(measure):
    theirs, ours = random(6, 3), random(6, 4, seed=1)
    assert torch.allclose(measure(turned(theirs, 2), turned(ours, 3)), measure(theirs, ours))


@pytest.mark.parametrize("measure", [rkd_distance, rkd_angle, cka])
def test_a_common_vector_and_a_factor_change_nothing(measure):
    theirs, ours = random(6, 3), random(6, 4, seed=1)
    assert torch.allclose(measure(3 * theirs - 1, 0.1 * ours + 2), measure(theirs, ours))


@pytest.mark.parametrize("measure", [similarity_preserving, rkd_distance, rkd_angle, cka, similarity_kl, similarity_mse])
def test_gradients_are_those_of_the_value(measure):
    theirs, ours = random(5, 3).requires_grad_(), random(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(measure, (theirs, ours))


@pytest.mark.parametrize("measure", [similarity_preserving, rkd_distance, rkd_angle, cka, similarity_kl, similarity_mse])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_and_empty_rows_have_finite_gradients(measure, dtype):
    ours = torch.zeros(6, 4, dtype=dtype)
    ours[3:, 0] = 60.0  # three dead rows, three twins
    ours.requires_grad_()
    value = measure(random(6, 3).to(dtype), ours)
    assert torch.isfinite(value).all()
    value.sum().backward()
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) < 1e3


def test_a_brighter_map_of_higher_power_looks_at_its_brightest_spot():
    share = [float(torch.max(m / m.sum())) for m in (attention_map(A[:1], p) for p in (1.0, 2.0, 4.0))]
    assert share == sorted(share)


def test_maps_of_different_size_are_averaged_to_the_smaller():
    wide, small = random(2, 3, 8, 8), random(2, 5, 4, 2, seed=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(wide, (4, 2))
    assert torch.equal(attention_transfer(wide, small), attention_transfer(pooled, small))
    assert torch.equal(attention_transfer(small, wide), attention_transfer(small, pooled))


def test_margins_have_no_room_for_a_number_added_to_all_scores():
    scores = random(4, 6)
    for pairs in ("first", "all"):
        assert torch.allclose(functional.margin_mse(scores, scores + 3, pairs), torch.zeros(4, dtype=torch.float64))
