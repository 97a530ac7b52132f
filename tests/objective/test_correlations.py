"""Correlations as terms: rows that do not count, batches too small, scale, many classes, MLKD's relations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attar.errors import ObjectiveError
from attar.objective import Term, as_objective, dist, mlkd
from attar.objective.correlations import positions_weigh
from attar.signal import Batch, Schema, Signal
from attar.task import classification, regression
from attar.testing import Example, example

WHOLE = [dist, mlkd]


def value(term: Term, on: Example) -> Tensor:
    return as_objective(term).build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch).total


def taken(on: Example, rows: list[int]) -> Example:
    batch = Batch(torch.zeros(len(rows), 1))
    return replace(on, student=Signal(on.student.output[rows]), teacher=Signal(on.teacher.output[rows]), batch=batch)


@pytest.mark.parametrize("make", WHOLE)
def test_a_masked_row_is_as_good_as_absent_also_to_the_others(make):
    on = example()
    mask = torch.tensor([True, True, False, True, False, True, True, True])
    assert torch.allclose(
        value(make(), replace(on, batch=Batch(torch.zeros(8, 1), mask=mask))), value(make(), taken(on, [0, 1, 3, 5, 6, 7]))
    )


@pytest.mark.parametrize("make", WHOLE)
def test_a_row_of_weight_two_is_as_good_as_two(make):
    on = example()
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    weighed = replace(on, batch=Batch(torch.zeros(8, 1), weight=weight))
    assert torch.allclose(value(make(), weighed), value(make(), taken(on, [0, 1, 1, 3, 4, 7])))


@pytest.mark.parametrize("make", WHOLE)
def test_a_masked_token_is_as_good_as_absent(make):
    on = example(rows=8)
    tokens = replace(
        on,
        student=Signal(on.student.output.reshape(2, 4, 4)),
        teacher=Signal(on.teacher.output.reshape(2, 4, 4)),
        batch=Batch(torch.zeros(2, 1), mask=torch.tensor([[True, True, True, False], [True, True, False, False]])),
    )
    assert torch.allclose(value(make(), tokens), value(make(), taken(on, [0, 1, 2, 4, 5])))


def test_dist_refuses_a_batch_of_one_row_before_training():
    on = taken(example(), [0])
    with pytest.raises(ObjectiveError, match="correlates the rows of a batch, and this one has 1"):
        dist().build(on.student, on.teacher, on.task)
    dist(gamma=0).build(on.student, on.teacher, on.task)


@pytest.mark.parametrize("masked", [False, True])
def test_a_lone_row_later_on_is_compared_by_itself(masked):
    on = example()
    goal = as_objective(dist()).build(on.student, on.teacher, on.task)
    one = taken(on, [3])
    if masked:
        one = replace(on, batch=Batch(torch.zeros(8, 1), mask=torch.arange(8) == 3))
    output = one.student.output.clone().requires_grad_()
    total = goal(Signal(output), one.teacher, one.batch).total
    total.backward()
    assert float(total.detach()) == pytest.approx(float(value(dist(gamma=0), taken(on, [3]))))
    assert output.grad is not None and torch.isfinite(output.grad).all()


def test_without_columns_rows_add_up_and_with_them_they_do_not():
    on = example()
    halves = taken(on, [0, 1, 2, 3]), taken(on, [4, 5, 6, 7])
    for term, adds_up in ((dist(gamma=0), True), (dist(), False)):
        mean = sum(float(value(term, half)) for half in halves) / 2
        assert (float(value(term, on)) == pytest.approx(mean)) == adds_up
        assert ("accumulation" in term.keeps) == adds_up


def test_a_correlation_takes_no_power_of_the_temperature():
    """Far above the logits the pull no longer depends on T; the authors' T² would make it grow."""
    on = example()
    pulls = []
    for temperature in (500.0, 1000.0):
        output = on.student.output.clone().requires_grad_()
        value(dist(temperature=temperature), replace(on, student=Signal(output))).backward()
        assert output.grad is not None
        pulls.append(float(output.grad.norm()))
    assert pulls[0] == pytest.approx(pulls[1], rel=0.01)


def test_a_student_that_starts_with_equal_answers_gets_no_gradient_that_explodes():
    on = example()
    output = torch.zeros_like(on.student.output, dtype=torch.float32).requires_grad_()
    total = value(dist(), replace(on, student=Signal(output), teacher=Signal(on.teacher.output.float())))
    total.backward()
    assert float(total.detach()) == pytest.approx(2.0, rel=1e-4)
    assert output.grad is not None and float(output.grad.abs().max()) < 10


def test_a_thousand_classes_of_a_sure_teacher_are_nothing_at_equality():
    g = torch.Generator().manual_seed(0)
    theirs = 10 * torch.randn(16, 1000, generator=g)
    task = classification().bind(Schema("tensor", classes=tuple(map(str, range(1000)))))
    output = theirs.clone().requires_grad_()
    total = value(dist(), Example(Signal(output), Signal(theirs), Batch(torch.zeros(16, 1)), task))
    total.backward()
    assert abs(float(total.detach())) < 1e-5
    assert output.grad is not None and float(output.grad.norm()) < 1e-4


def test_mlkd_gives_one_number_for_a_batch():
    on = example()
    term = mlkd()
    term.build(on.student, on.teacher, on.task)
    assert term.measure(on.student, on.teacher, on.batch).shape == ()
    assert float(value(mlkd(rows=2.0, classes=3.0), on)) == pytest.approx(
        2 * float(value(mlkd(classes=0), on)) + 3 * float(value(mlkd(rows=0), on))
    )


@pytest.mark.parametrize("make", WHOLE)
def test_two_outcomes_or_a_number_are_refused(make):
    for on in (example(outcomes=2), example(regression().bind(Schema("tensor")))):
        with pytest.raises(ObjectiveError, match="at least 3 outcomes"):
            make().build(on.student, on.teacher, on.task)


@pytest.mark.parametrize(
    "call",
    [
        lambda: dist(beta=-1),
        lambda: dist(0, 0),
        lambda: dist(temperature=0),
        lambda: mlkd(rows=-1),
        lambda: mlkd(0, 0),
        lambda: mlkd(temperature=0),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ObjectiveError):
        call()


def test_positions_weigh_what_their_mask_and_their_row_say():
    mask = torch.tensor([[True, False], [True, True]])
    weight = torch.tensor([2.0, 3.0])
    assert positions_weigh(Batch(mask), torch.Size([2, 2]), torch.float32) is None
    found = positions_weigh(Batch(mask, mask=mask, weight=weight), torch.Size([2, 2]), torch.float32)
    assert found is not None and found.tolist() == [2.0, 0.0, 3.0, 3.0]
    rows = positions_weigh(Batch(mask, mask=mask & torch.tensor([[False], [True]])), torch.Size([2]), torch.float32)
    assert rows is not None and rows.tolist() == [0.0, 1.0]
