"""Terms of regressions: labels that let go, answers that know their spread."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attar import functional
from attar.errors import ObjectiveError
from attar.objective import Distiller, Term, as_objective, blend, bounded, gaussian, labels, mse
from attar.signal import Batch, Schema, Signal
from attar.task import regression
from attar.testing import Example, example

TASK = regression().bind(Schema("tensor"))


def value(term: Term, on: Example) -> Tensor:
    return as_objective(term).build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch).total


def rows(student: list[float], teacher: list[float], labels: list[float]) -> Example:
    ours, theirs = torch.tensor(student)[:, None], torch.tensor(teacher)[:, None]
    return Example(Signal(ours), Signal(theirs), Batch(torch.zeros(len(labels), 1), labels=torch.tensor(labels)), TASK)


def test_a_label_counts_until_the_student_is_as_good_as_the_teacher():
    on = rows([3.0, 0.5, 2.0], [1.0, 1.0, -2.0], [0.0, 0.0, 0.0])  # worse, better, as good on the other side
    assert float(value(bounded(), on)) == 9.0 / 3


def test_with_a_margin_it_counts_until_the_student_is_better_by_that():
    on = rows([1.0, 0.9, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])  # squared errors .1 and .75 below the teacher's
    assert float(value(bounded(margin=0.5), on)) == pytest.approx((1.0 + 0.81) / 3)


def test_where_it_let_go_there_is_no_gradient():
    on = rows([3.0, 0.5], [1.0, 1.0], [0.0, 0.0])
    output = on.student.output.clone().requires_grad_()
    value(bounded(), replace(on, student=Signal(output))).backward()
    assert output.grad is not None
    assert output.grad[:, 0].tolist() == [3.0, 0.0]


def test_of_a_hopeless_teacher_it_is_nothing_and_of_a_perfect_one_the_labels():
    on = example(TASK)
    assert on.batch.labels is not None
    perfect, hopeless = Signal(on.batch.labels[:, None]), Signal(on.batch.labels[:, None] + 1e3)
    assert torch.allclose(value(bounded(), replace(on, teacher=perfect)), value(labels(), on))
    assert float(value(bounded(), replace(on, teacher=hopeless))) == 0.0


def test_rows_without_a_label_take_no_part():
    on = rows([3.0, 4.0, 5.0], [1.0, 1.0, 1.0], [0.0, float("nan"), 0.0])
    assert float(value(bounded(), on)) == pytest.approx((9 + 25) / 2)
    assert float(value(bounded(), replace(on, batch=Batch(torch.zeros(3, 1))))) == 0.0


def test_the_margin_decides_whether_equality_is_nothing():
    on = example(TASK)
    twin = replace(on, student=on.teacher)
    assert float(value(bounded(), twin)) == 0.0
    assert float(value(bounded(margin=0.1), twin)) > 0.0
    assert "zero" in bounded().keeps
    assert "zero" not in bounded(margin=0.1).keeps


def test_it_stands_beside_the_teachers_number():
    goal = blend(mse(), bounded(), weight=0.5)
    on = example(TASK)
    loss = goal.build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch)
    assert float(loss.total) == pytest.approx(0.5 * float(value(mse(), on)) + 0.5 * float(value(bounded(), on)))


@pytest.mark.parametrize("make", [bounded, lambda: gaussian("s", "t")])
def test_classes_are_refused(make):
    on = example()
    with pytest.raises(ObjectiveError, match="compares numbers, the task is classification"):
        make().build(on.student, on.teacher, on.task)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ObjectiveError, match=r"bounded\(margin="):
        bounded(margin=margin)


class Unsure(nn.Module):
    """A number, and beside it the log of its standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.log_std(x)  # only tapped
        return self.mean(x)


def test_a_students_spread_is_read_from_a_tap_and_learns():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Unsure()
    g = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(8, 3, generator=g), labels=torch.randn(8, generator=g))
    teacher = Signal(torch.randn(8, 1, generator=g), {"sigma": 0.3 * torch.randn(8, generator=g)})
    distiller = Distiller(net, gaussian(student="log_std", teacher="sigma"), TASK).build(batch, teacher)
    loss = distiller(batch, teacher)
    loss.total.backward()
    found = float(loss.total.detach())
    x = batch.inputs
    assert isinstance(x, Tensor)
    naive = functional.gaussian_kl(teacher.output[:, 0], teacher.taps["sigma"], net.mean(x)[:, 0], net.log_std(x)[:, 0]).mean()
    assert found == pytest.approx(float(naive.detach()))
    assert net.log_std.weight.grad is not None and net.log_std.weight.grad.any()


def test_with_one_spread_it_is_half_the_squared_error():
    on = example(TASK)
    zero = torch.zeros(8, 1, dtype=torch.float64)
    known = replace(on, student=Signal(on.student.output, {"s": zero}), teacher=Signal(on.teacher.output, {"t": zero}))
    assert float(value(gaussian("s", "t"), known)) == pytest.approx(0.5 * float(value(mse(), on)))


def test_a_spread_for_other_than_each_number_is_refused():
    on = example(TASK)
    ours, theirs = Signal(on.student.output, {"s": torch.zeros(8, 4)}), Signal(on.teacher.output, {"t": torch.zeros(8, 1)})
    with pytest.raises(ObjectiveError, match=r"'s' of the student has shape \(8, 4\), its answer \(8, 1\)"):
        gaussian("s", "t").build(ours, theirs, on.task)


def test_spreads_in_half_precision_and_beyond_all_bounds_stay_numbers():
    g = torch.Generator().manual_seed(0)
    for dtype, size in ((torch.float16, 2.0), (torch.bfloat16, 2.0), (torch.float32, 60.0)):
        ours, theirs = ((size * torch.randn(8, 1, generator=g)).to(dtype).requires_grad_() for _ in range(2))
        student, teacher = (
            Signal(torch.randn(8, 1, generator=g).to(dtype), {"s": ours}),
            Signal(torch.zeros(8, 1, dtype=dtype), {"t": theirs}),
        )
        total = value(gaussian("s", "t"), Example(student, teacher, Batch(torch.zeros(8, 1)), TASK))
        total.backward()
        assert torch.isfinite(total)
        assert ours.grad is not None and torch.isfinite(ours.grad).all()
        assert theirs.grad is None
