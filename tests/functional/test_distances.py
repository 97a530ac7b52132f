"""Distances of the answers themselves."""

from __future__ import annotations

import torch

from attar.functional import cosine, mse, squared_error


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mse_is_the_mean_square_of_centred_differences():
    theirs, ours = logits(0, 3, 4), logits(1, 3, 4)
    for i in range(3):
        t, s = theirs[i].tolist(), ours[i].tolist()
        gap = [(b - sum(s) / 4) - (a - sum(t) / 4) for a, b in zip(t, s, strict=True)]
        assert torch.isclose(mse(theirs, ours)[i], torch.tensor(sum(g * g for g in gap) / 4, dtype=torch.float64))


def test_a_shift_of_all_logits_changes_mse_by_nothing_and_the_squared_error_by_its_square():
    theirs = logits(0, 3, 4)
    assert torch.allclose(mse(theirs, theirs + 3), torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(squared_error(theirs, theirs + 3), torch.full((3,), 9.0, dtype=torch.float64))


def test_gradients_are_those_of_the_value():
    theirs, ours = logits(0, 3, 4).requires_grad_(), logits(1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(mse, (theirs, ours))
    assert torch.autograd.gradcheck(squared_error, (theirs, ours))
    assert torch.autograd.gradcheck(cosine, (theirs, ours))


def test_half_precision_is_widened_before_it_is_squared():
    theirs = torch.tensor([[300.0, -300.0]], dtype=torch.float16)
    assert float(mse(theirs, -theirs)) == 600.0**2
    assert float(squared_error(theirs, -theirs)) == 600.0**2


def test_cosine_is_half_the_squared_distance_of_unit_vectors():
    theirs, ours = logits(0, 3, 4), logits(1, 3, 4)
    unit = [v / v.norm(dim=-1, keepdim=True) for v in (theirs, ours)]
    assert torch.allclose(cosine(theirs, ours), (unit[0] - unit[1]).square().sum(-1) / 2)
    assert torch.allclose(cosine(3 * theirs, 0.1 * ours), cosine(theirs, ours))


def test_a_vector_of_length_zero_has_a_cosine_and_a_gradient():
    ours = torch.zeros(2, 4).requires_grad_()
    cosine(torch.ones(2, 4), ours).sum().backward()
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) <= 1
