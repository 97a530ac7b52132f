"""Gates: a weight for each row, by what teacher and labels say of it."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attar import notation, objective
from attar.errors import NotationError, ObjectiveError
from attar.objective import Distiller, Objective, Term, as_objective, blend, gate, kl, labels, mse, ramp
from attar.objective.gating import Gate
from attar.signal import IGNORE, Batch, Schema, Signal
from attar.task import classification, multilabel, regression
from attar.testing.terms import example

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
CLASSES = classification().bind(Schema("tensor", classes=("a", "b", "c", "d")))
TEACHER = Signal(torch.tensor([[4.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1], [4, 0, 0, 0], [0, 1, 0, 0]]))
Y = torch.tensor([0, 1, 3, 0, IGNORE, IGNORE])
BATCH = Batch(torch.zeros(6, 1), labels=Y)
STUDENT = Signal(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
OPEN = {
    "teacher_right": [1, 1, 0, 0, 0, 0],
    "teacher_wrong": [0, 0, 1, 1, 0, 0],
    "teacher_confident": [1, 0, 1, 0, 1, 0],  # softmax(4, 0, 0, 0) has .948 at best, (1, 0, 0, 0) .475
    "labelled": [1, 1, 1, 1, 0, 0],
    "unlabelled": [0, 0, 0, 0, 1, 1],
}


def value(goal: Term | Objective, batch: Batch = BATCH, student: Signal = STUDENT, teacher: Signal | None = TEACHER, progress=1.0):
    return as_objective(goal).build(student, teacher, CLASSES)(student, teacher, batch, progress)


def divergence(i: int) -> float:
    """T² KL(p ‖ q) of row i, as the sum says."""
    p, q = (torch.softmax(s.output[i].double() / 2, -1).tolist() for s in (TEACHER, STUDENT))
    return 4 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(("when", "open_"), OPEN.items())
def test_a_gate_is_open_where_its_condition_holds(when, open_):
    assert gate(when).rows(0.0, TEACHER, BATCH, CLASSES).tolist() == open_


@pytest.mark.parametrize(("above", "open_"), [(0.0, 6), (0.47, 6), (0.48, 3), (0.94, 3), (0.95, 0)])
def test_confidence_is_the_likeliest_outcome_at_temperature_one(above, open_):
    assert gate("teacher_confident", above=above).rows(0.0, TEACHER, BATCH, CLASSES).sum() == open_


@pytest.mark.parametrize(("when", "open_"), OPEN.items())
def test_the_mean_divides_by_all_rows_that_count(when, open_):
    weight = [1.0, 2.0, 0.5, 0.0, 3.0, 1.0]
    expected = sum(w * g * divergence(i) for i, (w, g) in enumerate(zip(weight, open_, strict=True))) / sum(weight)
    loss = value(0.5 * gate(when) * kl(), replace(BATCH, weight=torch.tensor(weight)))
    assert float(loss.total) == pytest.approx(0.5 * expected, rel=1e-5)
    assert float(loss.parts["kl"]) == pytest.approx(sum(w * divergence(i) for i, w in enumerate(weight)) / sum(weight), rel=1e-5)


def test_labels_under_a_gate_divide_by_the_known_ones():
    losses = [-torch.log_softmax(STUDENT.output[i], -1)[Y[i]] for i in range(4)]
    assert torch.isclose(value(gate("teacher_wrong") * labels()).total, (losses[2] + losses[3]) / 4)


def test_a_blend_by_a_gate_teaches_each_row_by_one_side():
    loss = value(blend(kl(), labels(), weight=gate("teacher_right")))
    by_labels = [-float(torch.log_softmax(STUDENT.output[i], -1)[Y[i]]) for i in (2, 3)]
    assert float(loss.total) == pytest.approx((divergence(0) + divergence(1)) / 6 + sum(by_labels) / 4, rel=1e-5)


@pytest.mark.parametrize("when", ["teacher_right", "teacher_wrong", "labelled"])
@pytest.mark.parametrize("unknown", [None, torch.full((6,), IGNORE)])
def test_where_no_gate_is_open_loss_and_gradient_are_zero(when, unknown):
    z = Signal(STUDENT.output.clone().requires_grad_())
    loss = value(gate(when) * (kl() + mse() + labels()), replace(BATCH, labels=unknown), z)
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert z.output.grad is not None
    assert (z.output.grad == 0).all()


def test_what_lies_behind_a_closed_gate_cannot_be_seen():
    z = STUDENT.output.clone()
    z[3] = math.inf
    z = Signal(z.requires_grad_())
    loss = value(gate("teacher_right") * mse(), BATCH, z)
    loss.total.backward()
    assert torch.isclose(loss.total, value(gate("teacher_right") * mse()).total)
    assert z.output.grad is not None
    assert torch.isfinite(z.output.grad[[0, 1, 2, 4, 5]]).all()


def test_micro_batches_of_equal_size_accumulate_to_the_whole():
    goal = blend(kl(), mse(), weight=0.9 * gate("teacher_confident"))
    halves = [
        value(goal, Batch(BATCH.inputs[at], labels=Y[at]), Signal(STUDENT.output[at]), Signal(TEACHER.output[at])).total  # pyright: ignore[reportArgumentType] a tensor
        for at in (slice(0, 3), slice(3, 6))
    ]
    assert torch.isclose(value(goal).total, sum(halves, torch.zeros(())) / 2)


def test_a_gate_takes_numbers_ramps_and_other_gates():
    assert 0.5 * gate("labelled") == gate("labelled", open=0.5)
    assert gate("labelled") * 0.5 == gate("labelled", open=0.5)
    moving = ramp(0, 2) * gate("labelled")
    assert moving == gate("labelled") * ramp(0, 2)
    assert float(value(moving * kl(), progress=0.25).total) == pytest.approx(0.5 * float(value(gate("labelled") * kl()).total))
    both = gate("teacher_right") * gate("teacher_confident")
    assert both.rows(0.0, TEACHER, BATCH, CLASSES).tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("weight", [gate("teacher_right"), 0.9 * gate("labelled"), ramp(0, 1) * gate("teacher_confident")])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_rest_of_a_gate_makes_it_one(weight, progress):
    both = [w.rows(progress, TEACHER, BATCH, CLASSES) for w in (weight, weight.rest())]
    assert torch.allclose(both[0] + both[1], torch.ones(6))


@pytest.mark.parametrize(
    "goal",
    [
        gate("teacher_confident", above=0.9) * kl(),
        0.5 * gate("labelled") * kl() + labels(),
        ramp(0, 1, until=0.2) * gate("teacher_right") * kl(),
        gate("teacher_right") * gate("teacher_confident") * kl(),
        blend(kl(), labels(), weight=gate("teacher_right")),
        blend(kl(), labels(), weight=ramp(0, 1) * gate("teacher_right")),
    ],
    ids=repr,
)
def test_a_gate_reads_back_and_survives_copy_and_pickle(goal):
    for again in (notation.read(repr(goal), WORDS), copy.deepcopy(goal), pickle.loads(pickle.dumps(goal))):
        assert again == goal
        assert torch.equal(value(again).total, value(goal).total)


def test_a_recipe_may_say_a_gate_as_a_product():
    read = notation.read('blend(kl(), labels(), weight=0.9 * gate("teacher_right"))', WORDS)
    assert read == blend(kl(), labels(), weight=0.9 * gate("teacher_right"))
    with pytest.raises(NotationError, match="teacher_rigth"):
        notation.read('gate("teacher_rigth") * kl()', WORDS)


def test_a_gate_with_a_tensor_inside_turns_with_its_knob():
    goal = as_objective(torch.tensor(0.5) * gate("labelled") * kl())
    assert len(list(goal.buffers())) == 1
    assert torch.isclose(value(goal).total, 0.5 * value(gate("labelled") * kl()).total)


def test_labels_of_many_are_gated_one_by_one():
    task = multilabel().bind(Schema("tensor", classes=("x", "y", "z")))
    on = example(task, rows=5)
    assert on.batch.labels is not None
    measured = kl()
    measured.build(on.student, on.teacher, task)
    each = measured.measure(on.student, on.teacher, on.batch)  # (5, 3)
    right = on.teacher.output.argmax(-1) == on.batch.labels
    assert right.any()
    assert not right.all()
    goal = as_objective(gate("teacher_right") * kl()).build(on.student, on.teacher, task)
    expected = sum(float(each[i, j]) for i in range(5) for j in range(3) if right[i, j]) / 15
    assert float(goal(on.student, on.teacher, on.batch).total) == pytest.approx(expected)


class ByRow(Term):
    """1 for each row, or for the whole batch."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        rows = student.output.flatten(1).sum(1) * 0 + 1
        return rows.sum() if self.whole else rows

    def __repr__(self) -> str:
        return "by_row()"


def test_a_term_with_one_number_for_a_row_takes_the_mean_of_the_rows_gates():
    task = multilabel().bind(Schema("tensor", classes=("x", "y", "z")))
    on = example(task, rows=5)
    assert on.batch.labels is not None
    right = (on.teacher.output.argmax(-1) == on.batch.labels).double()
    goal = as_objective(gate("teacher_right") * ByRow()).build(on.student, on.teacher, task)
    assert float(goal(on.student, on.teacher, on.batch).total) == pytest.approx(float(right.mean()))


def test_a_term_of_the_whole_batch_refuses_a_gate_before_training():
    distiller = Distiller(torch.nn.Linear(1, 4), gate("labelled") * ByRow(whole=True))
    with pytest.raises(ObjectiveError, match=r"gate\(.*weighs rows, and by_row\(\) gives one number for the whole batch"):
        distiller.build(BATCH, TEACHER)


def test_a_gate_that_asks_the_teacher_needs_one():
    goal = gate("teacher_wrong") * labels()
    assert goal.needs_teacher
    with pytest.raises(ObjectiveError, match="asks a teacher, there is none"):
        goal.build(STUDENT, None, CLASSES)
    alone = gate("labelled") * labels()
    assert not alone.needs_teacher
    assert value(alone, teacher=None).total > 0


def test_nobody_is_right_about_a_number():
    numbers = Signal(torch.zeros(6, 1))
    task = regression().bind(Schema("tensor"))
    with pytest.raises(ObjectiveError, match="no classes for a teacher to be right about"):
        as_objective(gate("teacher_right") * mse()).build(numbers, numbers, task)
    y = torch.tensor([1.0, math.nan, 2.0, math.nan, 1.0, 3.0])
    goal = as_objective(gate("unlabelled") * mse()).build(numbers, numbers, task)
    assert float(goal(Signal(torch.ones(6, 1)), numbers, Batch(BATCH.inputs, labels=y)).total) == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda: gate("labelled", above=0.5), "nothing is compared"),
        (lambda: gate("teacher_confident", above=1.0), "not a probability that can be exceeded"),
        (lambda: gate("teacher_confident", above=-0.1), "not a probability that can be exceeded"),
    ],
)
def test_a_threshold_is_a_probability_and_of_confidence_alone(asked, said):
    with pytest.raises(ObjectiveError, match=said):
        asked()


def test_the_self_test_sees_both_ends_of_a_gate():
    from attar.objective.conventions import check
    from attar.sources import module

    net = torch.nn.Linear(1, 4)
    found = check(gate("labelled", open=1.0, closed=-1.0) * kl() + labels(), net, module(torch.nn.Linear(1, 4)), BATCH, CLASSES)
    assert [c.name for c in found.checks if c.verdict == "failed"] == ["weights"]
    assert isinstance(found.checks[0].name, str)
    assert isinstance(gate("labelled").rest(), Gate)
