"""Terms seen from one outcome: rows without a label, teachers that are wrong or sure, identities, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attar import functional
from attar.errors import NotationError, ObjectiveError
from attar.notation import read
from attar.objective import Term, as_objective, dkd, kl, labels, nkd, virtual_teacher
from attar.objective.conventions import check
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.task import classification, multilabel, regression
from attar.testing import Example, example, golden

LABELLED = [dkd, nkd, virtual_teacher]


def value(term: Term, on: Example) -> Tensor:
    return as_objective(term).build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch).total


def unlabelled(on: Example, rows: list[int]) -> Example:
    assert on.batch.labels is not None
    taught = on.batch.labels.clone()
    taught[rows] = IGNORE
    return replace(on, batch=replace(on.batch, labels=taught))


def kept(on: Example, rows: list[int]) -> Example:
    assert on.batch.labels is not None
    batch = Batch(torch.zeros(len(rows), 1), labels=on.batch.labels[rows])
    return replace(on, student=Signal(on.student.output[rows]), teacher=Signal(on.teacher.output[rows]), batch=batch)


@pytest.mark.parametrize("make", LABELLED)
def test_rows_without_a_label_take_no_part_and_do_not_thin_the_mean(make):
    on = example()
    assert torch.allclose(value(make(), unlabelled(on, [0, 3, 4, 5])), value(make(), kept(on, [1, 2, 6, 7])))


@pytest.mark.parametrize("make", LABELLED)
def test_without_any_label_it_is_nothing_and_pulls_nowhere(make):
    on = example()
    for batch in (Batch(torch.zeros(8, 1)), Batch(torch.zeros(8, 1), labels=torch.full((8,), IGNORE))):
        output = on.student.output.clone().requires_grad_()
        total = value(make(), replace(on, student=Signal(output), batch=batch))
        total.backward()
        assert float(total.detach()) == 0.0
        assert output.grad is not None and not output.grad.any()


@pytest.mark.parametrize("make", [dkd, nkd])
def test_seen_from_the_teachers_choice_every_row_counts(make):
    on = example()
    chosen = replace(on, batch=replace(on.batch, labels=on.teacher.output.argmax(-1)))
    without = replace(on, batch=Batch(torch.zeros(8, 1)))
    assert torch.allclose(value(make(target="teacher"), without), value(make(), chosen))
    assert make(target="teacher").known(on.batch) is None


@pytest.mark.parametrize("make", LABELLED)
def test_tokens_have_targets_of_their_own(make):
    g = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 3, 4, generator=g, dtype=torch.float64) for _ in range(2))
    y = torch.randint(0, 4, (2, 3), generator=g)
    y[0, 1] = IGNORE
    task = classification().bind(Schema("tensor", classes=tuple("abcd")))
    tokens = Example(Signal(s), Signal(t), Batch(torch.zeros(2, 1), labels=y), task)
    flat = Example(Signal(s.reshape(6, 4)), Signal(t.reshape(6, 4)), Batch(torch.zeros(6, 1), labels=y.reshape(6)), task)
    assert torch.allclose(value(make(), tokens), value(make(), flat))


@pytest.mark.parametrize("make", [dkd, nkd, lambda: dkd(target="teacher")])
def test_a_teacher_that_says_one_class_and_nothing_else_can_teach(make):
    on = example()
    sure = torch.full_like(on.teacher.output, -math.inf).scatter(-1, on.teacher.output.argmax(-1, keepdim=True), 0.0)
    output = on.student.output.clone().requires_grad_()
    total = value(make(), replace(on, student=Signal(output), teacher=Signal(sure)))
    total.backward()
    assert torch.isfinite(total)
    assert output.grad is not None and torch.isfinite(output.grad).all() and output.grad.any()


def test_plain_distillation_is_dkd_with_the_rest_weighed_by_what_the_teacher_leaves_to_it():
    on = example()
    assert on.batch.labels is not None
    p = functional.log_probabilities(on.teacher.output, 4.0).exp().gather(-1, on.batch.labels[:, None])[:, 0]
    parts = []
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0)):
        term = dkd(alpha=alpha, beta=beta)
        term.build(on.student, on.teacher, on.task)
        parts.append(term.measure(on.student, on.teacher, on.batch))
    assert torch.allclose((parts[0] + (1 - p) * parts[1]).mean(), value(kl(temperature=4), on))


def test_the_whole_loss_of_nkd_is_labels_and_the_term():
    """2.0246 + 3.9624 on the golden rows: the reference's figure is of the distillation part alone."""
    on = golden()
    goal = (labels() + nkd()).build(on.student, on.teacher, on.task)
    loss = goal(on.student, on.teacher, on.batch)
    assert float(loss.parts["nkd"]) == pytest.approx(3.962377, rel=1e-4)
    assert float(loss.total) == pytest.approx(float(loss.parts["labels"]) + 3.962377, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.5])
def test_a_virtual_teacher_at_temperature_one_is_label_smoothing_less_a_constant(smoothing):
    on = example(outcomes=5)
    accuracy = 1 - smoothing + smoothing / 5
    u = [accuracy, *[smoothing / 5] * 4]
    entropy = -sum(x * math.log(x) for x in u)
    assert float(value(virtual_teacher(accuracy, temperature=1), on)) == pytest.approx(float(value(labels(smoothing), on)) - entropy)


def test_a_virtual_teacher_needs_none():
    on = example()
    goal = as_objective(virtual_teacher()).build(on.student, None, on.task)
    assert float(goal(on.student, None, on.batch).total) == pytest.approx(float(value(virtual_teacher(), on)))


def test_a_virtual_teacher_of_several_labels_or_two_classes_is_one_of_two_outcomes():
    on = example(multilabel().bind(Schema("tensor", classes=("a", "b", "c"))))
    flat = example(outcomes=2)
    assert on.batch.labels is not None
    same = replace(
        flat,
        student=Signal(on.student.output.reshape(-1, 2)),
        batch=Batch(torch.zeros(24, 1), labels=on.batch.labels.reshape(-1)),
        teacher=Signal(on.teacher.output.reshape(-1, 2)),
    )
    assert torch.allclose(value(virtual_teacher(), on), value(virtual_teacher(), same))


@pytest.mark.parametrize("make", [dkd, nkd])
def test_two_outcomes_or_a_number_are_refused(make):
    for on in (
        example(outcomes=2),
        example(multilabel().bind(Schema("tensor", classes=("a", "b")))),
        example(regression().bind(Schema("tensor"))),
    ):
        with pytest.raises(ObjectiveError, match="at least 3 outcomes"):
            make().build(on.student, on.teacher, on.task)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dkd(alpha=-1), "alpha=-1"),
        (lambda: dkd(alpha=0, beta=0), "one of them above 0"),
        (lambda: dkd(temperature=0), "0 < temperature"),
        (lambda: nkd(gamma=-0.5), "gamma=-0.5"),
        (lambda: virtual_teacher(accuracy=1), "accuracy=1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ObjectiveError, match=message):
        call()


@pytest.mark.parametrize("make", [dkd, nkd])
def test_a_target_that_is_none_is_refused(make: Any):
    with pytest.raises(ObjectiveError, match="target='labels'") as caught:
        make(target="labels")
    assert "did you mean" in str(caught.value)


def test_a_recipe_that_misspells_the_target_is_told():
    with pytest.raises(NotationError, match="target of dkd"):
        read('dkd(target="labels")', {"dkd": dkd})


@pytest.mark.parametrize("make", [dkd, nkd, virtual_teacher])
def test_a_cohort_may_turn_the_temperature(make):
    on = example()
    goal = as_objective(make(temperature=torch.tensor(3.0))).build(on.student, on.teacher, on.task)
    knob = {"terms.0._temperature.value": torch.tensor(5.0, dtype=torch.float64)}
    turned = torch.func.functional_call(goal, knob, (on.student, on.teacher, on.batch)).total
    assert float(turned) == pytest.approx(float(value(make(temperature=5.0), on)))


@pytest.mark.parametrize("make", [dkd, nkd, virtual_teacher])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_self_test_finds_their_temperature_in_place(make, labelled):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g)

    class Teacher:
        fingerprint = "teacher"

        def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
            assert isinstance(batch.inputs, Tensor)
            return Signal(2 * batch.inputs)

        def prepare(self, batch: Batch):
            return lambda: self(batch)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 4)
    batch = Batch(x, labels=x.argmax(-1) if labelled else None)
    task = classification().bind(Schema("tensor", classes=tuple("abcd")))
    found = check(make(), net, Teacher(), batch, task)
    assert found.ok, "\n".join(found.lines())
    verdicts = {c.name: c.verdict for c in found.checks}
    assert verdicts[f"{make().word} temperature"] == ("ok" if labelled else "skipped")
