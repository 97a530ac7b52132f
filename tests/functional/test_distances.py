"""Distances of the answers themselves."""

from __future__ import annotations

import torch

from attar.functional import mse, squared_error


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


def test_half_precision_is_widened_before_it_is_squared():
    theirs = torch.tensor([[300.0, -300.0]], dtype=torch.float16)
    assert float(mse(theirs, -theirs)) == 600.0**2
    assert float(squared_error(theirs, -theirs)) == 600.0**2
