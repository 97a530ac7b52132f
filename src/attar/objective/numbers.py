"""Terms of regressions beyond `mse`: labels that count until the teacher is reached, and answers that know their spread."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.correlations import positions_weigh
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Bounded", "BoundedByMargin", "Gaussian", "bounded", "gaussian"]

SPREAD = 20.0  # of log σ: e^80 is a number in float32, e^90 is none


class Bounded(Term):
    """The label's squared error where the student is worse than the teacher, else 0; the word `bounded`."""

    keeps: ClassVar[frozenset[Property]] = frozenset({"zero", "rows", "accumulation"})

    def __init__(self, margin: float) -> None:
        super().__init__()
        if not 0 <= margin < math.inf:
            raise ObjectiveError(f"bounded(margin={margin:g})", hint="0 or more, in the label's unit, squared")
        self.margin = float(margin)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        _need_regression(self, task, "labels()")

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        if batch.labels is None:  # nothing is known: 0, and a gradient of 0
            return student.output.masked_fill(student.output.new_ones((), dtype=torch.bool), 0.0).sum(-1)
        ours, theirs = (self.task.label_loss(_wide(s.output), batch.labels) for s in (student, teacher))
        return torch.where(ours + self.margin > theirs, ours, 0.0)

    def known(self, batch: Batch) -> Tensor | None:
        return None if batch.labels is None or batch.complete else self.task.known(batch.labels)

    def __repr__(self) -> str:
        return say("bounded", margin=self.margin)


@final
class BoundedByMargin(Bounded):
    """The same with a margin: the label still pulls at a student that answers as the teacher."""

    keeps: ClassVar[frozenset[Property]] = frozenset({"rows", "accumulation"})


@final
class Gaussian(Term):
    """KL from the teacher's normal distribution to the student's; the word `gaussian`."""

    keeps: ClassVar[frozenset[Property]] = frozenset({"zero", "positive", "rows", "accumulation"})

    def __init__(self, student: str, teacher: str) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.student_taps, self.teacher_taps = frozenset({student}), frozenset({teacher})

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        _need_regression(self, task, "kl()")
        assert teacher is not None  # the objective has seen to it
        for whose, signal, tap in (("student", student, self.student), ("teacher", teacher, self.teacher)):
            if (found := signal.taps[tap]).numel() != signal.output.numel():
                raise ObjectiveError(
                    f"{self!r}: {tap!r} of the {whose} has shape {tuple(found.shape)}, its answer {tuple(signal.output.shape)}",
                    hint="the log of one standard deviation for each number that is answered",
                )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        shape = student.output.shape
        ours, theirs = student.taps[self.student].reshape(shape), teacher.taps[self.teacher].reshape(shape)
        weight = positions_weigh(batch, shape[:-1], ours.dtype)
        if weight is not None:  # the objective blanks what does not count in answers, and knows nothing of these taps
            gone = (weight == 0).reshape(*shape[:-1], 1)
            ours, theirs = ours.masked_fill(gone, 0.0), theirs.masked_fill(gone, 0.0)
        ours, theirs = ours.clamp(-SPREAD, SPREAD), theirs.clamp(-SPREAD, SPREAD)
        return functional.gaussian_kl(teacher.output, theirs, student.output, ours).sum(-1)

    def __repr__(self) -> str:
        return say("gaussian", student=self.student, teacher=self.teacher)


def bounded(margin: float = 0.0) -> Bounded:
    """The label's squared error until the student is better than the teacher by a margin, then 0. Chen et al. 2017, NeurIPS.

        L = (ŷ_s − y)²  if  (ŷ_s − y)² + m > (ŷ_t − y)²,  else 0

    margin: m ≥ 0, in the label's unit, squared: by how much the student must beat the teacher before a label lets it go. 0 is the default:
        be as good as the teacher.

    For labels with noise in them: the student does not go on to fit what even the teacher could not. Needs teacher and label; rows without
    a label take no part. `labels()` never lets go, and `mse()` goes after the teacher, not the label: `blend(mse(), bounded())` has both.
    The paper uses it for the boxes of a detector, beside the labels' smooth L1. The value jumps where the condition turns.

    >>> bounded(margin=0.1)
    bounded(margin=0.1)
    """
    return Bounded(margin) if margin == 0 else BoundedByMargin(margin)


def gaussian(student: str, teacher: str) -> Gaussian:
    """KL between normal distributions, of a teacher and a student that each know how sure they are of a number.

        L = log(σ_s/σ_t) + (σ_t² + (μ_t − μ_s)²) / (2 σ_s²) − ½,   μ the answers

    student, teacher: the taps that hold log σ, σ in the label's unit: module paths, one value for each number answered; beyond ±20, where
        float32 ends, they count as ±20. The answer itself stays the one number μ that the task asks for, so that metrics, export and guard
        need not know of σ.

    `mse()` is twice this with σ = 1 on both sides. A teacher that is unsure of a row asks little of the student's μ, and all of its σ.

    >>> gaussian(student="log_std", teacher="head.log_std")
    gaussian(student="log_std", teacher="head.log_std")
    """
    return Gaussian(student, teacher)


def _need_regression(term: Term, task: Task, instead: str) -> None:
    if task.kind != "regression":
        raise ObjectiveError(f"{term!r} compares numbers, the task is {task.kind}", hint=f"{instead} compares outcomes")


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
