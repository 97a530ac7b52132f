"""The contract of a term, as checks that anyone can run on a term of their own: `check_term(lambda: my_term())`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
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
    "check_padding",
    "check_reads",
    "check_term",
    "example",
    "golden",
    "tapped",
]

Make = Callable[[], Term]
Loop = Callable[[list[float], list[float], int], float]
TOLERANCE = 1e-8  # of float64 figures, relative


@dataclass(frozen=True)
class Example:
    """Two signals of the same rows, the rows, and the task: what a term is tried on. Float64, so that identities are seen as such.

    least: rows below which the term is empty, such as a relation of three rows. twin: the student's signal that equals the teacher's; None:
    the teacher's outputs, and its taps under the student's names, in order of name.
    """

    student: Signal
    teacher: Signal
    batch: Batch
    task: Task
    least: int = 2
    twin: Signal | None = None


def example(task: Task | None = None, rows: int = 8, outcomes: int = 4, seed: int = 0) -> Example:
    """Random answers of student and teacher to labelled rows; classification with so many outcomes unless a bound task is given.

    Of an embedding `outcomes` is the number of coordinates.
    """
    g = torch.Generator().manual_seed(seed)
    task = task or task_for(Schema("tensor", classes=tuple(str(i) for i in range(outcomes))))
    shape = (rows, task.labels, 2) if task.labels else (rows, task.outcomes)
    if task.kind == "embedding":
        shape = (rows, task.texts, outcomes)
    student, teacher = (2 * torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    if task.kind == "embedding":
        labels = None
    elif task.outcomes == 1:
        labels = torch.randn(rows, generator=g, dtype=torch.float64)
    else:
        labels = torch.randint(0, task.outcomes, shape[:-1], generator=g)
    return Example(Signal(student), Signal(teacher), Batch(torch.zeros(rows, 1), labels=labels), task)


def tapped(
    student: Mapping[str, Sequence[int]],
    teacher: Mapping[str, Sequence[int]],
    *,
    lengths: Sequence[int] = (),
    rows: int = 8,
    task: Task | None = None,
    least: int = 2,
    seed: int = 0,
) -> Example:
    """`example` with random taps: of either side the shape of one row by name, {"stage3": (4, 6, 6), "hidden": (5, 8)}.

    lengths: real tokens of each row; then taps (L, D) and (heads, L, L) have masks, the others are padded.
    """
    on = example(task, rows, seed=seed)
    g = torch.Generator().manual_seed(seed + 1)

    def with_taps(signal: Signal, shapes: Mapping[str, Sequence[int]]) -> Signal:
        taps = {name: torch.randn(rows, *shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
        if not lengths:
            return Signal(signal.output, taps)
        real = {n: torch.arange(t.shape[-2])[None] < torch.tensor(lengths)[:, None] for n, t in taps.items() if t.dim() >= 3}
        return Signal(signal.output, taps, real)

    return replace(on, student=with_taps(on.student, student), teacher=with_taps(on.teacher, teacher), least=least)


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

    Where positions are rows, masking a row is the same as leaving it out. Of terms of taps the same is asked of rows that are masked or of
    weight 0, and of padded tokens.
    """
    on = on or example()
    if make().student_taps:
        _check_rows_of_taps(make, on)
        check_padding(make, on)
        return
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
            goal = _built(make, replace(on, student=_map(student, torch.detach), teacher=teacher))
            total = goal(student, teacher, on.batch).total
            total.backward()
            grads = [t.grad for t in (student.output, *student.taps.values()) if t.grad is not None]
            assert bool(torch.isfinite(total)), f"{make()!r} is {float(total.detach())} in {dtype} with logits of {ours:g} and {theirs:g}"
            finite = all(bool(torch.isfinite(g).all()) for g in grads)
            assert finite, f"{make()!r}: gradient in {dtype} with logits of {ours:g}, {theirs:g}"


def check_gradcheck(make: Make, on: Example | None = None) -> None:
    """The gradient equals a numerical one, in float64."""
    on = on or example()
    goal = _built(make, on)

    def loss(output: Tensor, *taps: Tensor) -> Tensor:
        return goal(Signal(output, dict(zip(on.student.taps, taps, strict=True)), on.student.masks), on.teacher, on.batch).total

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
    """Ready, with projectors that are drawn by a seed, and chance as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
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

    def of(signal: Signal) -> Signal:
        return replace(_map(signal, lambda t: t[rows]), masks={name: mask[rows] for name, mask in signal.masks.items()})

    return replace(on, student=of(on.student), teacher=of(on.teacher), batch=replace(on.batch, inputs=taken, labels=labels))


def _check_rows_of_taps(make: Make, on: Example) -> None:
    """Rows that are masked, or of weight 0: nothing in them is seen, and they are as good as absent."""
    counts = torch.ones(len(on.batch), dtype=torch.bool)
    counts[:: max(3, len(counts) // max(1, len(counts) - on.least))] = False
    goal = _built(make, on)
    absent = _rows(on, counts.nonzero()[:, 0])
    expected = _pulls(goal, absent)
    for batch in (replace(on.batch, mask=counts), replace(on.batch, weight=counts.double())):
        for junk in (0.0, 7.0, math.inf, math.nan):
            filled = [_map(s, lambda t, fill=junk: _filled(t, counts, fill)) for s in (on.student, on.teacher)]
            total, grads, learnt = _pulls(goal, replace(on, student=filled[0], teacher=filled[1], batch=batch))
            assert _same(total, expected[0]), f"{make()!r}: a row that does not count is not as good as absent"
            for name, grad in grads.items():
                assert not bool((grad[~counts] != 0).any()), f"{make()!r}: a row that does not count has a gradient at {name!r}"
                assert _close(grad[counts], expected[1][name]), f"{make()!r}: a row that does not count changes a gradient of others"
            assert all(map(_close, learnt, expected[2])), f"{make()!r}: a row that does not count changes the gradient of a projector"


def check_padding(make: Make, on: Example) -> None:
    """What lies at a padded token of a tap, be it NaN, changes neither the loss nor any gradient, and gets a gradient of exactly 0."""
    goal = _built(make, on)
    found = []
    for junk in (0.0, 7.0, math.inf, math.nan):
        student, teacher = (_padded(s, junk) for s in (on.student, on.teacher))
        found.append(_pulls(goal, replace(on, student=student, teacher=teacher)))
        for name, mask in on.student.masks.items():
            grad = found[-1][1].get(name)
            if grad is not None:
                real = _real(mask, grad)
                assert not bool((grad.masked_select(~real) != 0).any()), f"{make()!r}: a padded token has a gradient at {name!r}"
    for total, grads, learnt in found[1:]:
        assert _same(total, found[0][0]), f"{make()!r}: a padded token changes the loss"
        assert all(_close(grads[name], found[0][1][name]) for name in grads), f"{make()!r}: a padded token changes a gradient"
        assert all(map(_close, learnt, found[0][2])), f"{make()!r}: a padded token changes the gradient of a projector"


def _pulls(goal: Objective, on: Example) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """The loss, its gradients by tap, and those of what the objective learns."""
    fresh, student = copy.deepcopy(goal), _leaf(on.student)
    total = fresh(student, on.teacher, on.batch).total
    total.backward()
    learnt = [p.grad for p in fresh.parameters() if p.grad is not None]
    return total.detach(), {name: t.grad for name, t in student.taps.items() if t.grad is not None}, learnt


def _filled(held: Tensor, counts: Tensor, junk: float) -> Tensor:
    return torch.where(counts.reshape(-1, *(1,) * (held.dim() - 1)), held, junk)


def _padded(signal: Signal, junk: float) -> Signal:
    masks = signal.masks
    return replace(signal, taps={n: torch.where(_real(masks[n], t), t, junk) if n in masks else t for n, t in signal.taps.items()})


def _real(mask: Tensor, held: Tensor) -> Tensor:
    """(B, L) → which entries of (B, L, D) or (B, heads, L, L) are of real tokens alone."""
    return mask[:, :, None] if held.dim() == 3 else (mask[:, :, None] & mask[:, None, :])[:, None]


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def _keeps_zero(make: Make, on: Example) -> bool:
    twin = on.twin
    if twin is None:
        names = dict(zip(sorted(on.student.taps), sorted(on.teacher.taps), strict=True))
        taps, masks = on.teacher.taps, on.teacher.masks
        twin = Signal(on.teacher.output, {o: taps[t] for o, t in names.items()}, {o: masks[t] for o, t in names.items() if t in masks})
    student = _leaf(twin)
    total = _built(make, replace(on, student=twin))(student, on.teacher, on.batch).total
    total.backward()
    grads = [t.grad for t in (student.output, *student.taps.values()) if t.grad is not None]
    return abs(float(total.detach())) < TOLERANCE and all(float(g.abs().max()) < TOLERANCE for g in grads)


def _keeps_positive(make: Make, on: Example) -> bool:
    n = len(on.batch)
    values = [_value(make, _rows(on, (torch.arange(on.least) + i) % n)) for i in range(n)]
    return all(float(v) > 0 for v in values)


def _keeps_rows(make: Make, on: Example) -> bool:
    return _same(*_again(make, on, _rows(on, torch.arange(len(on.batch)).flip(0).roll(1))))


def _keeps_shift(make: Make, on: Example) -> bool:
    if make().student_taps:
        g = torch.Generator().manual_seed(3)

        def moved(signal: Signal) -> Signal:
            return replace(signal, taps={n: t + torch.randn(t.shape[1:], generator=g, dtype=t.dtype) for n, t in signal.taps.items()})

        return _same(*_again(make, on, replace(on, student=moved(on.student)))) and _same(
            *_again(make, on, replace(on, teacher=moved(on.teacher)))
        )
    steps = torch.linspace(-3, 4, len(on.batch), dtype=on.student.output.dtype).reshape(-1, *(1,) * (on.student.output.dim() - 1))
    ours = replace(on, student=replace(on.student, output=on.student.output + steps))
    theirs = replace(on, teacher=replace(on.teacher, output=on.teacher.output - 2 * steps))
    return _same(*_again(make, on, ours)) and _same(*_again(make, on, theirs))


def _keeps_scale(make: Make, on: Example) -> bool:
    student, teacher = (_map(s, lambda t: 2.5 * t) for s in (on.student, on.teacher))
    return _same(*_again(make, on, replace(on, student=student, teacher=teacher)))


def _keeps_rotation(make: Make, on: Example) -> bool:
    def turned(signal: Signal, seed: int) -> Signal:
        g = torch.Generator().manual_seed(seed)
        taps = {}
        for path, tap in signal.taps.items():
            axis = 1 if tap.dim() == 4 else -1  # of maps the channels are the features
            q, _ = torch.linalg.qr(torch.randn(tap.shape[axis], tap.shape[axis], generator=g, dtype=tap.dtype))
            taps[path] = (tap.movedim(axis, -1) @ q).movedim(-1, axis)
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
