"""Target and rest: the split, its identity, golden values, sure teachers, absent outcomes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attar.functional import (
    dkd,
    kl,
    log_probabilities,
    rest_cross_entropy,
    rest_kl,
    split,
    target_cross_entropy,
    target_kl,
)
from attar.testing import golden


def pair(shape: tuple[int, ...] = (5, 4), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    p, q = (log_probabilities(2 * torch.randn(shape, generator=g, dtype=torch.float64)) for _ in range(2))
    return p, q, torch.randint(0, shape[-1], shape[:-1], generator=g)


def golden_pair(temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = golden()
    assert rows.batch.labels is not None
    return log_probabilities(rows.teacher.output, temperature), log_probabilities(rows.student.output, temperature), rows.batch.labels


@pytest.mark.parametrize(
    ("found", "temperature", "expected"),
    [
        (target_kl, 4.0, 0.908152 / 16),
        (rest_kl, 4.0, 1.077037 / 16),
        (lambda p, q, y: dkd(p, q, y, 1.0, 8.0), 4.0, 9.524446 / 16),
        (lambda p, q, y: target_cross_entropy(p, q, y) + 1.5 * rest_cross_entropy(p, q, y), 1.0, 3.962377),
    ],
    ids=["tckd", "nckd", "dkd", "nkd"],
)
def test_a_formula_equals_the_value_of_its_reference(found, temperature, expected):
    assert float(found(*golden_pair(temperature)).mean()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_is_the_targets_part_and_the_rest_by_what_the_teacher_leaves_to_it(temperature):
    g = torch.Generator().manual_seed(1)
    z, w = (2 * torch.randn(50, 6, generator=g, dtype=torch.float64) for _ in range(2))
    p, q, y = log_probabilities(z, temperature), log_probabilities(w, temperature), torch.randint(0, 6, (50,), generator=g)
    left = 1 - p.gather(-1, y[:, None])[:, 0].exp()
    assert torch.allclose(target_kl(p, q, y) + left * rest_kl(p, q, y), kl(p, q), rtol=0, atol=1e-12)


def test_a_split_is_what_division_says():
    p, _, y = pair((3, 2, 5))
    log_y, log_other, log_rest = split(p, y)
    for at in torch.cartesian_prod(torch.arange(3), torch.arange(2)).tolist():
        row, target = p[tuple(at)].exp().tolist(), int(y[tuple(at)])
        other = sum(v for i, v in enumerate(row) if i != target)
        assert float(log_y[tuple(at)].exp()) == pytest.approx(row[target])
        assert float(log_other[tuple(at)].exp()) == pytest.approx(other)
        assert log_rest[tuple(at)].exp().tolist() == pytest.approx([0.0 if i == target else v / other for i, v in enumerate(row)])


def test_positions_are_kept_and_independent():
    p, q, y = pair((2, 3, 4))
    for formula in (target_kl, rest_kl, target_cross_entropy, rest_cross_entropy, dkd):
        whole = formula(p, q, y)
        assert whole.shape == (2, 3)
        assert float(formula(p[1, 2], q[1, 2], y[1, 2])) == pytest.approx(float(whole[1, 2]))


@pytest.mark.parametrize("formula", [target_kl, rest_kl, target_cross_entropy, rest_cross_entropy, dkd])
def test_gradients_of_both_sides_are_those_of_the_value(formula):
    p, q, y = pair((3, 4))
    z, w = p.clone().requires_grad_(), q.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: formula(torch.log_softmax(a, -1), torch.log_softmax(b, -1), y), (z, w))


def test_the_rests_cross_entropy_is_its_divergence_and_the_teachers_entropy():
    p, q, y = pair()
    rest = split(p, y)[2].exp()
    entropy = -torch.special.xlogy(rest, rest).sum(-1)
    assert torch.allclose(rest_cross_entropy(p, q, y), rest_kl(p, q, y) + entropy)


def test_a_sure_teachers_rest_keeps_its_digits_in_float32():
    """1 − p_y is 0 in float32 here, and log(softmax) of the references −inf: the rest would be lost, or NaN."""
    z = torch.tensor([[200.0, 1.0, 0.0, -1.0]])
    log_p, y = log_probabilities(z), torch.tensor([0])
    assert float(1 - log_p.exp()[0, 0]) == 0.0
    assert torch.isinf(torch.softmax(z, -1).log()[0, 1:]).all()
    _, log_other, log_rest = split(log_p, y)
    assert float(log_other) == pytest.approx(float(torch.logsumexp(z[0, 1:], 0)) - 200, rel=1e-6)
    assert torch.allclose(log_rest[0, 1:], torch.log_softmax(z[0, 1:], -1), atol=1e-4)
    student = torch.tensor([[0.0, 1.0, 0.0, -1.0]])
    assert float(rest_kl(log_p, log_probabilities(student), y)) == pytest.approx(0.0, abs=1e-6)


def test_subtracting_a_thousand_is_not_leaving_out():
    """The references' mask: with logits of ±2000, which a temperature below 1 makes, the target is still there, and takes all."""
    z = torch.tensor([[2000.0, 500.0, 400.0]], dtype=torch.float64)
    theirs = torch.softmax(z - 1000 * torch.tensor([1.0, 0.0, 0.0]), -1)
    assert float(theirs[0, 0]) > 0.99
    assert float(split(log_probabilities(z), torch.tensor([0]))[2].exp()[0, 0]) == 0.0


def test_a_teacher_that_allows_nothing_but_the_target_says_nothing_of_the_rest():
    p = torch.tensor([[0.0, -math.inf, -math.inf]], dtype=torch.float64)
    z = torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    value = dkd(p, torch.log_softmax(z, -1), torch.tensor([0]), 1.0, 8.0)
    assert float(value.detach()) == pytest.approx(-math.log(math.exp(0.3) / sum(map(math.exp, (0.3, 0.2, 0.1)))))
    value.sum().backward()
    assert z.grad is not None and torch.isfinite(z.grad).all()
    assert float(rest_cross_entropy(p, torch.log_softmax(z, -1), torch.tensor([0])).detach()) == 0.0


def test_a_student_that_allows_nothing_but_the_target_is_infinitely_far():
    q = torch.tensor([[0.0, -math.inf, -math.inf]])
    p = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert math.isinf(float(rest_kl(p, q, torch.tensor([0]))))
    assert math.isinf(float(target_kl(p, q, torch.tensor([0]))))


def test_an_absent_target_leaves_all_to_the_rest():
    p = torch.tensor([[-math.inf, math.log(0.25), math.log(0.75)]])
    z = torch.zeros(1, 3, requires_grad=True)
    q = torch.log_softmax(z, -1)
    value = dkd(p, q, torch.tensor([0]), 1.0, 1.0)
    assert float(value.detach()) == pytest.approx(float(kl(p, q).detach()), rel=1e-6)  # p_y = 0: KL itself
    value.sum().backward()
    assert z.grad is not None and torch.isfinite(z.grad).all()
