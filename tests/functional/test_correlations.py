"""Correlations: against numpy, weights, what does not vary, golden values and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.functional import class_relation, decorrelation, log_probabilities, pearson, row_relation
from attar.testing import golden


def probabilities(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(scale * torch.randn(shape, generator=g, dtype=torch.float64), -1)


def golden_pair(temperature: float) -> tuple[Tensor, Tensor]:
    rows = golden()
    p, q = (log_probabilities(s.output, temperature).exp() for s in (rows.teacher, rows.student))
    return p, q


@pytest.mark.parametrize(
    ("found", "temperature", "expected"),
    [
        (lambda p, q: decorrelation(p, q, 1), 1.0, 1.188160),
        (lambda p, q: decorrelation(p, q, 0), 1.0, 1.439228),
        (row_relation, 4.0, 0.000571),
        (class_relation, 4.0, 0.015432),
    ],
    ids=["dist inter", "dist intra", "mlkd batch", "mlkd class"],
)
def test_a_formula_equals_the_value_of_its_reference(found, temperature, expected):
    digits = 1e-3 if expected < 1e-3 else 1e-4  # the former is printed with three digits
    assert float(found(*golden_pair(temperature)).mean()) == pytest.approx(expected, rel=digits)


def test_pearson_is_numpys():
    p, q = probabilities(0, 7, 4), probabilities(1, 7, 4)
    rows = [np.corrcoef(p[i].numpy(), q[i].numpy())[0, 1] for i in range(7)]
    columns = [np.corrcoef(p[:, c].numpy(), q[:, c].numpy())[0, 1] for c in range(4)]
    assert pearson(p, q).tolist() == pytest.approx(rows)
    assert pearson(p, q, 0).tolist() == pytest.approx(columns)


@pytest.mark.parametrize("formula", [lambda p, q, w: pearson(p, q, 0, w[:, None]), row_relation, class_relation])
def test_a_row_of_weight_two_counts_as_two_and_one_of_weight_nothing_as_none(formula):
    p, q = probabilities(0, 5, 4), probabilities(1, 5, 4)
    taken = torch.tensor([0, 1, 1, 3])
    weighed = formula(p, q, torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(weighed, formula(p[taken], q[taken], torch.ones(4, dtype=torch.float64)))


def test_what_lies_at_weight_nothing_changes_neither_value_nor_gradient():
    p, q = probabilities(0, 4, 3), probabilities(1, 4, 3)
    w = torch.tensor([[1.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    found = []
    for other in (0.1, 0.9):
        ours = torch.cat((q[:3], torch.full((1, 3), other, dtype=torch.float64))).requires_grad_()
        value = decorrelation(p, ours, 0, w).sum()
        value.backward()
        assert ours.grad is not None
        found.append((float(value.detach()), ours.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-9)
    assert not found[0][1][3].any()


@pytest.mark.parametrize("formula", [pearson, decorrelation, row_relation, class_relation])
def test_gradients_of_both_sides_are_those_of_the_value(formula):
    p, q = probabilities(0, 4, 5).requires_grad_(), probabilities(1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(formula, (p, q))


def test_relations_are_the_loops_of_the_paper():
    p, q = probabilities(0, 5, 3), probabilities(1, 5, 3)
    rows = sum((float(p[i] @ p[j]) - float(q[i] @ q[j])) ** 2 for i in range(5) for j in range(5)) / 5
    classes = sum((float(p[:, c] @ p[:, d]) - float(q[:, c] @ q[:, d])) ** 2 for c in range(3) for d in range(3)) / 3
    assert float(row_relation(p, q)) == pytest.approx(rows)
    assert float(class_relation(p, q)) == pytest.approx(classes)


def test_an_answer_that_does_not_vary_correlates_with_nothing_and_has_no_gradient():
    """The reference divides by ‖v‖·‖u‖ + 1e-8: its gradient here is 1e8 times the teacher's spread."""
    p = probabilities(0, 1, 4).float()
    flat = torch.full((1, 4), 0.25, requires_grad=True)
    value = decorrelation(p, flat)
    assert float(value.detach()) == pytest.approx(1.0, rel=1e-6)
    value.sum().backward()
    assert flat.grad is not None and not flat.grad.any()


def test_variation_below_rounding_is_none():
    p = probabilities(0, 1, 1000).float()
    nearly = torch.full((1, 1000), 0.001)
    nearly[0, ::2] = torch.nextafter(nearly[0, 0], torch.tensor(1.0))
    assert float(pearson(p, nearly)) == 0.0


def test_small_probabilities_correlate_as_well_as_large_ones():
    u, v = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    assert float(pearson(1e-25 * u, 1e-25 * v)) == pytest.approx(float(pearson(u, v)), rel=1e-5)


def test_decorrelation_is_nothing_at_equality_also_of_classes_that_hardly_vary():
    """A batch of 8 of 100 classes, from a sure teacher. The reference says .9 of its 1 there, with a gradient."""
    p = probabilities(0, 8, 100, scale=12.0).float()
    ours = p.clone().requires_grad_()
    value = decorrelation(p, ours, 0).mean()
    value.backward()
    assert ours.grad is not None
    assert abs(float(value.detach())) < 1e-6
    assert float(ours.grad.abs().max()) < 1e-2
    u = p - p.mean(0)
    theirs = 1 - (u * u).sum(0) / (u.norm(dim=0) * u.norm(dim=0) + 1e-8)
    assert float(theirs.mean()) > 0.3
