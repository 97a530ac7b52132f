"""Margins of scores against executed references and loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attar.functional import margin_mse, mse


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_golden_values_of_executed_references():
    ours = torch.tensor([[1, 2, 3, 0.5], [1, 0, -1, 2], [0.2, -0.3, 0.8, 1.1]])
    theirs = torch.tensor([[3, 1, 0, -1], [0, 2, 1, -2], [0.5, 0.1, 2, 1]])
    pair, every = margin_mse(theirs[:, :2], ours[:, :2]), margin_mse(theirs, ours, "all")
    assert math.isclose(float(pair.mean()), 6.003334, rel_tol=1e-4)
    assert math.isclose(float(every.mean()), 6.471250, rel_tol=1e-4)


def test_margins_are_the_loop():
    theirs, ours = random(3, 5), random(3, 5, seed=1)
    for row, (t, s) in enumerate(zip(theirs.tolist(), ours.tolist(), strict=True)):
        first = [((s[0] - s[k]) - (t[0] - t[k])) ** 2 for k in range(1, 5)]
        every = [((s[j] - s[k]) - (t[j] - t[k])) ** 2 for j in range(5) for k in range(5)]
        assert math.isclose(float(margin_mse(theirs, ours)[row]), sum(first) / 4, rel_tol=1e-9)
        assert math.isclose(float(margin_mse(theirs, ours, "all")[row]), sum(every) / 25, rel_tol=1e-9)


def test_all_pairs_are_twice_the_mse_of_centred_scores():
    theirs, ours = random(3, 5), random(3, 5, seed=1)
    assert torch.allclose(margin_mse(theirs, ours, "all"), 2 * mse(theirs, ours))


@pytest.mark.parametrize("pairs", ["first", "all"])
def test_candidates_that_are_not_there_take_no_part(pairs):
    theirs, ours = random(1, 5), random(1, 5, seed=1).requires_grad_()
    mask = torch.tensor([[True, True, True, False, False]])
    masked = margin_mse(theirs, ours, pairs, mask)
    assert torch.allclose(masked, margin_mse(theirs[:, :3], ours[:, :3], pairs))
    (grad,) = torch.autograd.grad(masked.sum(), ours)
    assert not grad[:, 3:].any()
    assert not margin_mse(theirs, ours, pairs, torch.tensor([[True, False, False, False, False]])).any()


def test_gradients_are_those_of_the_value():
    given = random(3, 4).requires_grad_(), random(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(margin_mse, given)
    assert torch.autograd.gradcheck(lambda t, s: margin_mse(t, s, "all"), given)
