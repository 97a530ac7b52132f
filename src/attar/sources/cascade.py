"""A student that answers what its guard lets it answer, and a teacher that answers the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.guards import Promise
from attar.identity import digest
from attar.notation import say
from attar.signal import NOTHING, Batch, Remembering, Signal, Source, Weighed
from attar.sources.answers import as_logits, no_taps, take
from attar.sources.controls import Rows, training_ids
from attar.sources.told import told

__all__ = ["Cascade", "Guarded", "Guarding", "cascade", "joined"]


@dataclass(frozen=True)
class Guarded:
    """What a student with a guard says. output: (B, C) logits. confidence: (B,). answer: (B,) bool, whether it answers by itself.

    positive: of two outcomes, the column of the one that was positive when the guard was fitted; the batch's classes may lie otherwise.
    energy: (B,) log Σ exp of the tempered logits; None where the guard has no floor of it.
    """

    output: Tensor
    confidence: Tensor
    answer: Tensor
    positive: int = 1
    energy: Tensor | None = None


@runtime_checkable
class Guarding(Source, Protocol):
    """A source with a guard, as an exported folder is.

    promise: what its guard has been found to keep; TeacherError where it has none.
    """

    @property
    def promise(self) -> Promise: ...

    def guarded(self, batch: Batch) -> Guarded:
        """Its answers, and which of them it stands for. Raises TeacherError where it has no guard."""
        ...

    def prepare_guarded(self, batch: Batch) -> Callable[[], Any]:
        """As `prepare`, with confidence and answer."""
        ...


def cascade(student: Source, teacher: Source) -> Cascade:
    """The student's logits where its guard answers, the teacher's elsewhere: (B, C).

    student: an exported folder with a guard, `onnx("runs/a/student")`. teacher: is asked the other rows alone; one that answers from a
        store asks its live model for rows that it does not hold.
    What the student answers by itself keeps the guard's promise; see `attar.guard`. A guard that was not certified answers nothing, and the
    cascade is the teacher. Where student and teacher decide the positive of two outcomes from different log-odds, each by the rule that
    it had when the guard was fitted, the student's are moved so that the teacher's rule decides of both.
    Raises TeacherError for a student without a guard, for one with `recall_at_fpr` that was exported without its teacher, and where the
    teacher is none.

    A cascade is a source: it can be evaluated, stored and distilled like any other, and costs what both cost on the rows they are asked.
    Confidence decides, no rule is learned: that is near the best unless the teacher is bad where the student is unsure (arXiv:2307.02764).

    >>> cascade(onnx("runs/a/student"), lightgbm("teacher.txt"))        # doctest: +SKIP
    """
    if not isinstance(teacher, Source):
        raise TeacherError(f"cascade: {teacher!r} is no teacher to ask the rest of", hint='name a source: cascade(student, lightgbm("…"))')
    if not isinstance(student, Guarding):
        raise TeacherError(f"cascade: {student!r} has no guard", hint='an exported folder has one: onnx("runs/a/student")')
    promise = student.promise  # raises where there is none
    if promise.cut is not None and promise.target_cut is None:
        rule = f"from which log-odds the teacher decides was not known when {student!r} was exported"
        raise TeacherError(f"cascade: {rule}; its student does from {promise.cut:.3g}", hint="export(…, guard=…, teacher=teacher)")
    return Cascade(student, teacher)


@dataclass(frozen=True)
class Cascade:
    """See `cascade`."""

    student: Guarding
    teacher: Source

    def __repr__(self) -> str:
        return say("cascade", self.student, self.teacher)

    @property
    def fingerprint(self) -> str:
        return digest("cascade", self.student.fingerprint, self.teacher.fingerprint)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(self.student, self.teacher)

    @property
    def in_fold(self) -> bool:
        return any(isinstance(s, Remembering) and s.in_fold for s in (self.student, self.teacher))

    def told(self, rows: Rows) -> Cascade:
        """The same, its teacher told of these rows."""
        return Cascade(self.student, told(self.teacher, rows))

    @property
    def size_bytes(self) -> int | None:
        return _sum([s.size_bytes if isinstance(s, Weighed) else None for s in (self.student, self.teacher)])

    @property
    def parameters(self) -> int | None:
        return _sum([s.parameters if isinstance(s, Weighed) else None for s in (self.student, self.teacher)])

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "cascade")
        found = self.student.guarded(batch)
        rest = (~found.answer).nonzero().squeeze(1)
        if not len(rest):
            return Signal(joined(found.output, found.output, found.answer, self.student.promise, positive=found.positive))
        asked = take(batch, rest)
        answer = as_logits(self.teacher(asked).output, asked, repr(self.teacher)).to(found.output)
        theirs = found.output.index_copy(0, rest, answer)
        return Signal(joined(found.output, theirs, found.answer, self.student.promise, positive=found.positive))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The student's call of all rows, and the teacher's of those that the student leaves to it."""
        mine = self.student.prepare_guarded(batch)
        rest = (~self.student.guarded(batch).answer).nonzero().squeeze(1)
        if not len(rest):
            return mine
        theirs = self.teacher.prepare(take(batch, rest))
        return lambda: (mine(), theirs())


def joined(student: Tensor, teacher: Tensor, answer: Tensor, promise: Promise, *, positive: int = 1) -> Tensor:
    """(N, C) logits of both, (N,) which rows the student answers → (N, C), the student's moved onto the teacher's decision rule.

    positive: the column whose log-odds the rules are of.
    """
    if gap := (promise.target_cut or 0.0) - (promise.cut or 0.0):
        student = student + student.new_tensor([gap, 0.0] if positive == 0 else [0.0, gap])
    return torch.where(answer.unsqueeze(-1), student, teacher)


def _sum(values: list[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None
