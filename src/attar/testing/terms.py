"""The contract of a term, as checks that anyone can run on a term of their own: `check_term(lambda: my_term())`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from attar import notation
from attar.errors import ObjectiveError
from attar.objective import Objective, Property, Term, as_objective
from attar.signal import Batch, Schema, Signal
from attar.task import Task, classification, task_for

__all__ = [
    "Example",
    "check_absent",
    "check_golden",
    "check_gradcheck",
    "check_gradient",
    "check_half",
    "check_keeps",
    "check_loop",
    "check_mask",
    "check_reads",
    "check_term",
    "example",
    "golden",
]

Make = Callable[[], Term]
Loop = Callable[[list[float], list[float], int], float]
TOLERANCE = 1e-8  # of float64 figures, relative


@dataclass(frozen=True)
class Example:
    """Two signals of the same rows, the rows, and the task: what a term is tried on. Float64, so that identities are seen as such."""

    student: Signal
    teacher: Signal
    batch: Batch
    task: Task


def example(task: Task | None = None, rows: int = 8, outcomes: int = 4, seed: int = 0) -> Example:
    """Random answers of student and teacher to labelled rows; classification with so many outcomes unless a bound task is given."""
    g = torch.Generator().manual_seed(seed)
    task = task or task_for(Schema("tensor", classes=tuple(str(i) for i in range(outcomes))))
    shape = (rows, task.labels, 2) if task.labels else (rows, task.outcomes)
    student, teacher = (2 * torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    if task.outcomes == 1:
        labels = torch.randn(rows, generator=g, dtype=torch.float64)
    else:
        labels = torch.randint(0, task.outcomes, shape[:-1], generator=g)
    return Example(Signal(student), Signal(teacher), Batch(torch.zeros(rows, 1), labels=labels), task)


def golden() -> Example:
    """The three rows of four outcomes on which the reference implementations were executed; float32."""
    student = torch.tensor([[1, 2, 3, 0.5], [1, 0, -1, 2], [0.2, -0.3, 0.8, 1.1]])
    teacher = torch.tensor([[3, 1, 0, -1], [0, 2, 1, -2], [0.5, 0.1, 2, 1]])
    task = classification().bind(Schema("tensor", classes=("0", "1", "2", "3")))
    return Example(Signal(student), Signal(teacher), Batch(torch.zeros(3, 1), labels=torch.tensor([0, 1, 2])), task)


def check_term(
    make: Make,
    *,
    on: Example | None = None,
    vocabulary: Mapping[str, Any] | None = None,
    loop: Loop | None = None,
    value: float | None = None,
) -> None:
    """The whole contract; raises AssertionError with what does not hold.

    make: a fresh term. on: what to try it on, for terms with taps; else a classification. vocabulary: the words its text is read with;
    left out, its text is not read back. loop: the same for one position in plain Python, (teacher logits, student logits, label) → number.
    value: the mean over `golden()`, of another implementation.
    """
    check_keeps(make, on)
    check_gradient(make, on)
    check_mask(make, on)
    check_half(make, on)
    check_gradcheck(make, on)
    check_absent(make, on)
    if vocabulary is not None:
        check_reads(make, vocabulary)
    if loop is not None:
        check_loop(make, loop, on)
    if value is not None:
        check_golden(make, value)


def check_keeps(make: Make, on: Example | None = None) -> None:
    """The properties a term declares hold, and those it does not declare fail. Rotation is asked of terms with taps alone."""
    on = on or example()
    keeps = make().keeps
    for name in get_args(Property):
        if name == "rotation" and not make().student_taps:
            assert name not in keeps, f"{make()!r} has no taps, so there is nothing to rotate"
            continue
        holds = _HOLDS[name](make, on)
        assert holds == (name in keeps), f"{make()!r} {'keeps' if holds else 'does not keep'} {name!r}, and declares {sorted(keeps)}"


def check_gradient(make: Make, on: Example | None = None) -> None:
    """The student gets a finite gradient that is not 0; the teacher gets none, though its answers ask for one."""
    on = on or example()
    student, teacher = _leaf(on.student), _leaf(on.teacher)
    _built(make, on)(student, teacher, on.batch).total.backward()
    grads = [t.grad for t in (student.output, *student.taps.values())]
    given = [g for g in grads if g is not None]
    assert given and all(bool(torch.isfinite(g).all()) for g in given), f"{make()!r}: no finite gradient for the student"
    assert any(bool((g != 0).any()) for g in given), f"{make()!r}: a gradient of 0 where student and teacher differ"
    assert all(t.grad is None for t in (teacher.output, *teacher.taps.values())), f"{make()!r}: a gradient reaches the teacher"


def check_mask(make: Make, on: Example | None = None) -> None:
    """What lies at a masked position, be it NaN, changes neither the loss nor any gradient, and gets a gradient of exactly 0.

    Where positions are rows, masking a row is the same as leaving it out.
    """
    on = on or example()
    if make().student_taps:
        return  # the positions of taps have masks of their own
    shape = on.student.output.shape[:-1]
    mask = torch.ones(shape, dtype=torch.bool)
    mask.view(-1)[::3] = False
    found = []
    for junk in (0.0, 7.0, math.inf, math.nan):
        student = _leaf(Signal(torch.where(mask[..., None], on.student.output, junk)))
        teacher = Signal(torch.where(mask[..., None], on.teacher.output, junk))
        total = _built(make, on)(student, teacher, replace(on.batch, mask=mask)).total
        total.backward()
        grad = student.output.grad
        assert grad is not None
        assert not bool((grad[~mask] != 0).any()), f"{make()!r}: a masked position has a gradient"
        found.append((total.detach(), grad))
    for total, grad in found[1:]:
        assert torch.equal(total, found[0][0]), f"{make()!r}: a masked position changes the loss"
        assert torch.equal(grad, found[0][1]), f"{make()!r}: a masked position changes a gradient"
    if mask.dim() == 1:
        assert _same(found[0][0], _value(make, _rows(on, mask.nonzero()[:, 0]))), f"{make()!r}: a masked position is not as good as absent"


def check_half(make: Make, on: Example | None = None) -> None:
    """Loss and gradient are finite in bfloat16 and float16, with logits of ±60 on either side."""
    on = on or example()
    for dtype in (torch.bfloat16, torch.float16):
        for ours, theirs in ((60.0, 60.0), (60.0, -60.0), (60.0, 0.0), (0.0, 60.0)):
            student = _leaf(_map(on.student, lambda t, size=ours, to=dtype: (t.sign() * size).to(to)))
            teacher = _map(on.teacher, lambda t, size=theirs, to=dtype: (t.sign() * size).to(to))
            total = _built(make, on)(student, teacher, on.batch).total
            total.backward()
            grad = student.output.grad
            assert bool(torch.isfinite(total)), f"{make()!r} is {float(total.detach())} in {dtype} with logits of {ours:g} and {theirs:g}"
            assert grad is None or bool(torch.isfinite(grad).all()), f"{make()!r}: gradient in {dtype} with logits of {ours:g}, {theirs:g}"


def check_gradcheck(make: Make, on: Example | None = None) -> None:
    """The gradient equals a numerical one, in float64."""
    on = on or example()
    goal = _built(make, on)

    def loss(output: Tensor, *taps: Tensor) -> Tensor:
        return goal(Signal(output, dict(zip(on.student.taps, taps, strict=True))), on.teacher, on.batch).total

    given = [t.detach().clone().requires_grad_() for t in (on.student.output, *on.student.taps.values())]
    assert torch.autograd.gradcheck(loss, given), f"{make()!r}: the gradient is not that of the value"


def check_absent(make: Make, on: Example | None = None) -> None:
    """An outcome that both sides exclude with −inf is as good as not there; or the term refuses it with ObjectiveError."""
    on = on or example()
    if make().student_taps or on.task.outcomes < 2 or on.task.labels:
        return
    absent = torch.full_like(on.student.output[..., :1], -math.inf)
    wide = task_for(Schema("tensor", classes=tuple(str(i) for i in range(on.task.outcomes + 1))))
    student = _leaf(Signal(torch.cat((on.student.output, absent), -1)))
    more = Example(student, Signal(torch.cat((on.teacher.output, absent), -1)), on.batch, wide)
    try:
        goal = _built(make, more)
    except ObjectiveError:
        return
    total = goal(more.student, more.teacher, more.batch).total
    total.backward()
    grad = student.output.grad
    assert grad is not None
    assert bool(torch.isfinite(grad).all()), f"{make()!r}: an absent outcome has no finite gradient"
    assert _same(total.detach(), _value(make, on)), f"{make()!r}: an absent outcome changes the loss"


def check_reads(make: Make, vocabulary: Mapping[str, Any]) -> None:
    """`read(repr(term))` is the term, alone and in a sum."""
    for thing in (make(), as_objective(make()), 0.25 * make() + make()):
        assert notation.read(repr(thing), vocabulary) == thing, f"{thing!r} does not read back"


def check_loop(make: Make, loop: Loop, on: Example | None = None) -> None:
    """The term equals a loop over positions in plain Python."""
    on = on or example()
    term = make()
    term.build(on.student, on.teacher, on.task)
    measured = term.measure(on.student, on.teacher, on.batch).reshape(-1)
    outcomes = on.student.output.shape[-1]
    labels = on.batch.labels.reshape(-1).tolist() if on.batch.labels is not None else [0] * len(measured)
    rows = zip(on.teacher.output.reshape(-1, outcomes).tolist(), on.student.output.reshape(-1, outcomes).tolist(), labels, strict=True)
    expected = torch.tensor([loop(*row) for row in rows], dtype=measured.dtype)
    assert torch.allclose(measured, expected, rtol=1e-7, atol=1e-10), f"{make()!r} is {measured}, the loop says {expected}"


def check_golden(make: Make, value: float) -> None:
    """The mean over `golden()` equals what another implementation computed, to 1e-4 relative."""
    found = float(_value(make, golden()))
    assert math.isclose(found, value, rel_tol=1e-4), f"{make()!r} is {found:.6f} on the golden rows, another implementation has {value:.6f}"


def _built(make: Make, on: Example) -> Objective:
    return as_objective(make()).build(on.student, on.teacher, on.task)


def _value(make: Make, on: Example) -> Tensor:
    return _built(make, on)(on.student, on.teacher, on.batch).total.detach()


def _again(make: Make, on: Example, changed: Example) -> tuple[Tensor, Tensor]:
    """The loss on both, by one and the same term: projectors are not drawn anew."""
    goal = _built(make, on)
    one, other = (goal(e.student, e.teacher, e.batch).total.detach() for e in (on, changed))
    return one, other


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))


def _map(signal: Signal, change: Callable[[Tensor], Tensor]) -> Signal:
    return Signal(change(signal.output), {path: change(tap) for path, tap in signal.taps.items()}, signal.masks)


def _leaf(signal: Signal) -> Signal:
    return _map(signal, lambda t: t.detach().clone().requires_grad_())


def _rows(on: Example, rows: Tensor) -> Example:
    labels = None if on.batch.labels is None else on.batch.labels[rows]
    inputs = on.batch.inputs
    taken = inputs[rows] if isinstance(inputs, Tensor) else {k: v[rows] for k, v in inputs.items()}
    return Example(
        _map(on.student, lambda t: t[rows]), _map(on.teacher, lambda t: t[rows]), replace(on.batch, inputs=taken, labels=labels), on.task
    )


def _keeps_zero(make: Make, on: Example) -> bool:
    paths = dict(zip(sorted(on.student.taps), sorted(on.teacher.taps), strict=True))
    twin = Signal(on.teacher.output, {ours: on.teacher.taps[theirs] for ours, theirs in paths.items()})
    student = _leaf(twin)
    total = _built(make, replace(on, student=twin))(student, on.teacher, on.batch).total
    total.backward()
    grads = [t.grad for t in (student.output, *student.taps.values()) if t.grad is not None]
    return abs(float(total.detach())) < TOLERANCE and all(float(g.abs().max()) < TOLERANCE for g in grads)


def _keeps_positive(make: Make, on: Example) -> bool:
    values = [_value(make, _rows(on, torch.tensor([i, (i + 1) % len(on.batch)]))) for i in range(len(on.batch))]
    return all(float(v) > 0 for v in values)


def _keeps_rows(make: Make, on: Example) -> bool:
    return _same(*_again(make, on, _rows(on, torch.arange(len(on.batch)).flip(0).roll(1))))


def _keeps_shift(make: Make, on: Example) -> bool:
    steps = torch.linspace(-3, 4, len(on.batch), dtype=on.student.output.dtype).reshape(-1, *(1,) * (on.student.output.dim() - 1))
    ours = replace(on, student=replace(on.student, output=on.student.output + steps))
    theirs = replace(on, teacher=replace(on.teacher, output=on.teacher.output - 2 * steps))
    return _same(*_again(make, on, ours)) and _same(*_again(make, on, theirs))


def _keeps_scale(make: Make, on: Example) -> bool:
    student, teacher = (replace(s, output=2.5 * s.output) for s in (on.student, on.teacher))
    return _same(*_again(make, on, replace(on, student=student, teacher=teacher)))


def _keeps_rotation(make: Make, on: Example) -> bool:
    def turned(signal: Signal, seed: int) -> Signal:
        g = torch.Generator().manual_seed(seed)
        taps = {}
        for path, tap in signal.taps.items():
            q, _ = torch.linalg.qr(torch.randn(tap.shape[-1], tap.shape[-1], generator=g, dtype=tap.dtype))
            taps[path] = tap @ q
        return replace(signal, taps=taps)

    return _same(*_again(make, on, replace(on, student=turned(on.student, 1), teacher=turned(on.teacher, 2))))


def _keeps_accumulation(make: Make, on: Example) -> bool:
    goal, half = _built(make, on), len(on.batch) // 2
    parts = [_rows(on, torch.arange(half)), _rows(on, torch.arange(half, 2 * half))]
    whole = _rows(on, torch.arange(2 * half))
    values, pulls = [], []
    for piece in (whole, *parts):
        fresh = copy.deepcopy(goal)
        student = _leaf(piece.student)
        total = fresh(student, piece.teacher, piece.batch).total
        total.backward()
        values.append(total.detach())
        pulls.append([t.grad for t in (student.output, *student.taps.values()) if t.grad is not None])
    joined = [torch.cat(pair) / 2 for pair in zip(pulls[1], pulls[2], strict=True)]
    return _same(values[0], (values[1] + values[2]) / 2) and all(
        torch.allclose(g, j, rtol=TOLERANCE, atol=TOLERANCE) for g, j in zip(pulls[0], joined, strict=True)
    )


_HOLDS: dict[str, Callable[[Make, Example], bool]] = {
    "zero": _keeps_zero,
    "positive": _keeps_positive,
    "rows": _keeps_rows,
    "shift": _keeps_shift,
    "scale": _keeps_scale,
    "rotation": _keeps_rotation,
    "accumulation": _keeps_accumulation,
}
