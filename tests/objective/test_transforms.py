"""Transformed answers: standardised divergences, the flattened teacher, and what they have in common with plain distillation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.objective import Term, alpha_beta, as_objective, dist, dkd, jsd, kl, labels, mse, nkd, reverse_kl, standardised, ttm, wttm
from attar.objective.conventions import check
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.task import classification, multilabel
from attar.testing import Example, example

INNER = [kl, jsd, reverse_kl, alpha_beta, dkd]


def value(term: Term, on: Example) -> Tensor:
    return as_objective(term).build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch).total


@pytest.mark.parametrize("inner", INNER)
def test_it_is_the_divergence_of_standardised_logits(inner):
    on = example()
    signals = [Signal((s.output - s.output.mean(-1, keepdim=True)) / s.output.std(-1, keepdim=True)) for s in (on.student, on.teacher)]
    assert torch.allclose(value(standardised(inner()), on), value(inner(), replace(on, student=signals[0], teacher=signals[1])))


@pytest.mark.parametrize("inner", INNER)
def test_neither_shift_nor_scale_of_either_side_matters(inner):
    on = example()
    moved = replace(on, student=Signal(0.3 * on.student.output + 4), teacher=Signal(9 * on.teacher.output - 2))
    assert torch.allclose(value(standardised(inner()), on), value(standardised(inner()), moved))


def test_rows_without_a_label_take_no_part_in_standardised_dkd():
    on = example()
    assert on.batch.labels is not None
    taught = on.batch.labels.clone()
    taught[4:] = IGNORE
    half = replace(on, student=Signal(on.student.output[:4]), teacher=Signal(on.teacher.output[:4]))
    half = replace(half, batch=Batch(torch.zeros(4, 1), labels=on.batch.labels[:4]))
    assert torch.allclose(value(standardised(dkd()), replace(on, batch=replace(on.batch, labels=taught))), value(standardised(dkd()), half))


@pytest.mark.parametrize("term", [mse, labels, nkd, dist, ttm])
def test_what_is_not_a_divergence_is_refused(term):
    with pytest.raises(ObjectiveError, match="is not of a divergence") as caught:
        standardised(term())
    assert "standardised(kl(temperature=2))" in str(caught.value)


def test_twice_is_refused():
    with pytest.raises(ObjectiveError, match="already"):
        standardised(standardised(kl()))


def test_two_logits_standardise_to_nothing_but_a_sign_and_are_refused():
    for on in (example(outcomes=2), example(multilabel().bind(Schema("tensor", classes=("a", "b"))))):
        with pytest.raises(ObjectiveError, match="at least 3 outcomes"):
            standardised(kl()).build(on.student, on.teacher, on.task)


def test_a_head_that_starts_at_zero_gets_no_gradient_that_explodes():
    on = example()
    output = torch.zeros_like(on.student.output, dtype=torch.float32).requires_grad_()
    total = value(standardised(kl()), replace(on, student=Signal(output), teacher=Signal(on.teacher.output.float())))
    total.backward()
    assert output.grad is not None and not output.grad.any()


def test_a_cohort_may_turn_the_temperature_inside():
    on = example()
    goal = as_objective(standardised(kl(temperature=torch.tensor(2.0)))).build(on.student, on.teacher, on.task)
    assert [name for name, _ in goal.named_buffers()] == ["terms.0.term._temperature.value"]
    turned = torch.func.functional_call(
        goal, {"terms.0.term._temperature.value": torch.tensor(3.0, dtype=torch.float64)}, (on.student, on.teacher, on.batch)
    ).total
    assert float(turned) == pytest.approx(float(value(standardised(kl(temperature=3)), on)))


class Teacher:
    """Twice its inputs."""

    fingerprint = "teacher"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        return Signal(2 * batch.inputs)

    def prepare(self, batch: Batch):
        return lambda: self(batch)


@pytest.mark.parametrize("make", [lambda: standardised(kl()), lambda: standardised(dkd()), dist, ttm])
def test_the_self_test_passes(make):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 4)
    task = classification().bind(Schema("tensor", classes=tuple("abcd")))
    found = check(make() + labels(), net, Teacher(), Batch(x, labels=x.argmax(-1)), task)
    assert found.ok, "\n".join(found.lines())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_the_flattened_teacher_is_distillation_and_a_pull_towards_an_unsure_student(gamma):
    """KL(u ‖ q) = T KL(u ‖ q_T) + (T − 1) (H(u) − H_γ(q)), the paper's theorem, with T = 1/γ and Rényi's entropy of order γ."""
    on, t = example(), 1 / gamma
    log_u, log_q = functional.log_probabilities(on.teacher.output, t), functional.log_probabilities(on.student.output)
    entropy = -(log_u.exp() * log_u).sum(-1)
    renyi = torch.logsumexp(gamma * log_q, -1) / (1 - gamma)
    found = float(value(kl(temperature=t), on)) / t + float(((t - 1) * (entropy - renyi)).mean())
    assert float(value(ttm(gamma), on)) == pytest.approx(found)


def test_a_teacher_that_is_hardly_flattened_is_plain_kl():
    on = example()
    assert float(value(ttm(1 - 1e-7), on)) == pytest.approx(float(value(kl(temperature=1), on)), rel=1e-5)
    assert float(value(wttm(1 - 1e-7), on)) == pytest.approx(float(value(kl(temperature=1), on)), rel=1e-5)


def test_its_gradient_is_the_student_less_the_flattened_teacher():
    on = example()
    output = on.student.output.clone().requires_grad_()
    value(ttm(0.2), replace(on, student=Signal(output))).backward()
    flattened = torch.softmax(0.2 * on.teacher.output, -1)
    assert output.grad is not None
    assert torch.allclose(output.grad, (torch.softmax(output.detach(), -1) - flattened) / 8)


def test_the_weighted_one_counts_rows_by_the_teachers_power_sum():
    on = example()
    term = ttm(0.2)
    term.build(on.student, on.teacher, on.task)
    rows = term.measure(on.student, on.teacher, on.batch)
    weight = torch.tensor([sum(p**0.2 for p in row) for row in torch.softmax(on.teacher.output, -1).tolist()], dtype=torch.float64)
    assert float(value(wttm(0.2), on)) == pytest.approx(float((weight * rows).mean()))
    assert ((weight >= 1) & (weight <= 4**0.8)).all()


def test_a_teacher_that_excludes_outcomes_excludes_them_flattened():
    on = example()
    theirs = on.teacher.output.clone()
    theirs[:, 0] = -math.inf
    output = on.student.output.clone().requires_grad_()
    for make in (ttm, wttm):
        total = value(make(), replace(on, student=Signal(output), teacher=Signal(theirs)))
        total.backward()
        assert torch.isfinite(total)
        assert output.grad is not None and torch.isfinite(output.grad).all()


@pytest.mark.parametrize(("make", "word"), [(ttm, "ttm"), (wttm, "wttm")])
@pytest.mark.parametrize("gamma", [0.0, 1.0, -0.5, 2.0])
def test_an_exponent_that_does_not_flatten_is_refused(make, word, gamma):
    with pytest.raises(ObjectiveError, match=rf"^{word}\(gamma="):
        make(gamma)
