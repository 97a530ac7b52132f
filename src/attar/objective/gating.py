"""A weight that differs from row to row: open where a condition on the row holds, closed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.weights import Number, Weight, as_weight
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Gate", "When", "gate"]

When = Literal["teacher_right", "teacher_wrong", "teacher_confident", "labelled", "unlabelled"]
"""teacher_right, teacher_wrong: the label is known, and the teacher's likeliest outcome is it, or is not · teacher_confident: the teacher
holds its likeliest outcome more probable than `above`, at temperature 1 · labelled, unlabelled: the label is known, or is not."""

CONFIDENT = 0.8


def gate(when: When, above: float | None = None, open: float | Weight = 1.0, closed: float | Weight = 0.0) -> Gate:
    """A weight for each row, (...) over positions: `open` where `when` holds, `closed` elsewhere.

    when: "teacher_right" or "teacher_wrong" of rows whose label is known (both are closed for the others), "teacher_confident", "labelled",
        "unlabelled".
    above: of "teacher_confident" alone: the probability, 0..1, that the teacher's likeliest outcome has to exceed at temperature 1. Left
        out, 0.8, attar's default, which was not searched; FixMatch (Sohn et al. 2020, arXiv:2001.07685) takes 0.95 of its own labels.
    open, closed: numbers or ramps. 1 − gate exchanges 1 with 0, so a gate may be the weight of a `blend`.

        L = Σ_i w_i g_i ℓ_i / Σ_i w_i

    The mean divides by all rows that count, open or not: g is a factor of the row's loss, and not of its presence. So `0.5 * gate(...)` is
    half as strong, micro-batches add up to the whole, and few open gates pull little. The mean over open gates alone would pull as hard
    by one open row as by hundred. Where no gate is open the loss is 0, and so is every gradient. To leave rows out of a term altogether
    give them weight 0.

    Positions of many labels are gated one by one; a term that has one number for a row takes the mean over its positions. A term that has
    one for the whole batch cannot be gated, and refuses; so do the teacher's gates for a regression, where nobody is right.
    `corrected` mends a wrong teacher where this silences it; `ramp` follows the training instead of the row; `balance` the gradients.

    >>> from attar.objective import blend, kl, labels
    >>> blend(kl(), labels(), weight=0.9 * gate("teacher_right")).weights
    (gate("teacher_right", open=0.9, closed=0.0), gate("teacher_right", open=0.1, closed=1.0))
    """
    if above is not None and when != "teacher_confident":
        raise ObjectiveError(f'gate("{when}", above={above:g}): nothing is compared', hint='gate("teacher_confident", above=0.8)')
    if when == "teacher_confident":
        above = CONFIDENT if above is None else float(above)
        if not 0 <= above < 1:
            raise ObjectiveError(f"gate(above={above:g}) is not a probability that can be exceeded", hint="0 ≤ above < 1")
    return Gate(when, above, as_weight(open), as_weight(closed))


@dataclass(frozen=True, repr=False)
class Gate(Weight):
    """See `gate`."""

    composite: ClassVar[bool] = True
    by_rows: ClassVar[bool] = True

    when: When
    above: float | None
    open: Weight
    closed: Weight

    def at(self, progress: float) -> float | Tensor:
        """The larger of the two, for whoever asks without a row."""
        return max(self.open.at(progress), self.closed.at(progress), key=abs)

    def rows(self, progress: float, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
        holds = CONDITIONS[self.when](self, teacher, batch, task)  # (...)
        if self.open == Number(1.0) and self.closed == Number(0.0):
            return holds.float()
        inside, outside = (w.rows(progress, teacher, batch, task) for w in (self.open, self.closed))
        inside, outside = (torch.as_tensor(w, dtype=torch.float32, device=holds.device) for w in (inside, outside))
        return torch.where(holds, inside, outside)

    def check(self, task: Task) -> None:
        if self.needs_teacher and task.kind not in ("classification", "multilabel"):
            raise ObjectiveError(f"{self!r}: a {task.kind} has no classes for a teacher to be right about", hint='gate("labelled")')
        self.open.check(task)
        self.closed.check(task)

    @property
    def needs_teacher(self) -> bool:
        return self.when.startswith("teacher")

    @property
    def held(self) -> tuple[nn.Module, ...]:
        return self.open.held + self.closed.held

    @property
    def measured(self) -> tuple[tuple[Any, int], ...]:
        return self.open.measured + self.closed.measured

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.open.extremes + self.closed.extremes

    def scaled(self, factor: Weight) -> Weight:
        """Two gates multiplied are one inside the other: open where both are."""
        closed = self.closed if self.closed == Number(0.0) else self.closed.scaled(factor)
        return Gate(self.when, self.above, self.open.scaled(factor), closed)

    def rest(self) -> Weight:
        return Gate(self.when, self.above, self.open.rest(), self.closed.rest())

    def __repr__(self) -> str:
        return say("gate", self.when, above=self.above, open=self.open, closed=self.closed)


def _decision(teacher: Signal | None) -> tuple[Tensor, Tensor]:
    """(...) the teacher's likeliest outcome, and its probability."""
    assert teacher is not None  # the objective has seen to it
    best, place = teacher.output.float().softmax(-1).max(-1)
    return place, best


def _known(batch: Batch, task: Task, like: Tensor) -> Tensor:
    if batch.labels is None:
        return torch.zeros(like.shape, dtype=torch.bool, device=like.device)
    return task.known(batch.labels)


def _right(gate: Gate, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
    place, _ = _decision(teacher)
    known = _known(batch, task, place)
    return known if batch.labels is None else known & (place == batch.labels)


def _wrong(gate: Gate, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
    place, _ = _decision(teacher)
    known = _known(batch, task, place)
    return known if batch.labels is None else known & (place != batch.labels)


def _confident(gate: Gate, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
    assert gate.above is not None  # the word has seen to it
    return _decision(teacher)[1] > gate.above


def _labelled(gate: Gate, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
    if batch.labels is not None:
        return task.known(batch.labels)
    inputs = batch.inputs if isinstance(batch.inputs, Tensor) else next(iter(batch.inputs.values()))
    return torch.zeros(len(batch), dtype=torch.bool, device=inputs.device)


def _unlabelled(gate: Gate, teacher: Signal | None, batch: Batch, task: Task) -> Tensor:
    return ~_labelled(gate, teacher, batch, task)


CONDITIONS: dict[str, Callable[[Gate, Signal | None, Batch, Task], Tensor]] = {
    "teacher_right": _right,
    "teacher_wrong": _wrong,
    "teacher_confident": _confident,
    "labelled": _labelled,
    "unlabelled": _unlabelled,
}
