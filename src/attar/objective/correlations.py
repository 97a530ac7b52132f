"""Terms of how answers vary together, over a row's outcomes and over a batch's rows: DIST, and the relations of MLKD."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.tempered import Tempered
from attar.objective.terms import LIKENESS
from attar.objective.weights import number_in
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Correlation", "Relation", "RowCorrelation", "dist", "mlkd"]

WHOLE: frozenset[Property] = LIKENESS - {"accumulation"}  # rows are compared with one another: half a batch is another question


class Correlation(Tempered):
    """β (1 − ρ of the row) + γ (1 − mean ρ of the columns); the word `dist`, and the comparison of rows alone where γ is 0."""

    min_outcomes: ClassVar[int] = 3  # of two outcomes a row's correlation is ±1
    keeps: ClassVar[frozenset[Property]] = WHOLE
    order = 0  # a correlation does not see scale

    def __init__(self, beta: float, gamma: float, temperature: float | Tensor) -> None:
        super().__init__("dist", temperature)
        if min(beta, gamma) < 0 or beta == gamma == 0 or not math.isfinite(beta + gamma):
            raise ObjectiveError(f"dist(beta={beta:g}, gamma={gamma:g})", hint="both 0 or more, one of them above 0")
        self.beta, self.gamma = float(beta), float(gamma)

    def at(self, temperature: float | Tensor) -> Correlation:
        return type(self)(self.beta, self.gamma, temperature)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        if self.gamma and (rows := student.output[..., 0].numel()) < 2:
            raise ObjectiveError(f"{self!r} correlates the rows of a batch, and this one has {rows}", hint="64 rows or more; or gamma=0")
        self._whole = bool((student.output > -math.inf).all())  # a student that excludes outcomes excludes them from the first batch on

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        p, q = (functional.log_probabilities(s.output, self.temperature).exp() for s in (teacher, student))
        there = None if self._whole else ((teacher.output > -math.inf) | (student.output > -math.inf)).to(p.dtype)
        faint = 1e-8 / self.temperature**2  # so that at no temperature more fades than at 1
        measured = q.new_zeros(q.shape[:-1])
        if self.beta:
            measured = measured + self.beta * functional.decorrelation(p, q, -1, there, faint)  # (...)
        if self.gamma:
            weight = positions_weigh(batch, p.shape[:-1], p.dtype)  # (N,)
            by = None if weight is None else weight[:, None]
            columns = functional.decorrelation(p.flatten(0, -2), q.flatten(0, -2), 0, by, faint)  # (C,)
            apart = columns.mean() if there is None else columns.sum() / there.flatten(0, -2).amax(0).sum().clamp(min=1)
            measured = measured + self.gamma * apart
        return measured

    def __repr__(self) -> str:
        return say("dist", beta=self.beta, gamma=self.gamma, temperature=number_in(self.temperature))


@final
class RowCorrelation(Correlation):
    """The same with γ = 0: each row by itself."""

    keeps: ClassVar[frozenset[Property]] = LIKENESS


@final
class Relation(Term):
    """MLKD's relations among rows and among outcomes; the word `mlkd`."""

    min_outcomes: ClassVar[int] = 3
    keeps: ClassVar[frozenset[Property]] = WHOLE

    def __init__(self, rows: float, classes: float, temperature: float) -> None:
        super().__init__()
        if min(rows, classes) < 0 or rows == classes == 0 or not math.isfinite(rows + classes):
            raise ObjectiveError(f"mlkd(rows={rows:g}, classes={classes:g})", hint="both 0 or more, one of them above 0")
        if not 0 < temperature < math.inf:
            raise ObjectiveError(f"mlkd(temperature={temperature:g})", hint="0 < temperature < ∞; 1 leaves logits as they are")
        self.rows, self.classes, self.temperature = float(rows), float(classes), float(temperature)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        self._whole = bool((student.output > -math.inf).all())  # as in Correlation

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        p, q = (functional.log_probabilities(s.output, self.temperature).exp().flatten(0, -2) for s in (teacher, student))  # (N, C)
        weight = positions_weigh(batch, student.output.shape[:-1], p.dtype)
        measured = q.new_zeros(())
        if self.rows:
            measured = measured + self.rows * functional.row_relation(p, q, weight)
        if self.classes:
            by = self.classes
            if not self._whole:  # of the outcomes that are there
                by = by * p.shape[-1] / ((teacher.output > -math.inf) | (student.output > -math.inf)).flatten(0, -2).any(0).sum()
            measured = measured + by * functional.class_relation(p, q, weight)
        return measured

    def __repr__(self) -> str:
        return say("mlkd", rows=self.rows, classes=self.classes, temperature=self.temperature)


def dist(beta: float = 1.0, gamma: float = 1.0, temperature: float | Tensor = 1.0) -> Correlation:
    """Correlation instead of equality: over each row's outcomes, and over each outcome's rows. DIST, Huang et al. 2022, arXiv:2205.10536.

        L = β (1 − ρ(p_i, q_i)) + γ (1 − 1/C Σ_c ρ(p_:c, q_:c)),   ρ Pearson's;   p, q at temperature T

    beta: of the rows ("inter-class"): the order and spacing of outcomes, whatever the student's confidence.
    gamma: of the columns ("intra-class"): for which rows of the batch an outcome is likelier. It needs a batch, of 64 rows or more; with
        fewer than 2 it is refused on the first batch, and says nothing of a later one. 0 leaves it out.
    temperature: T; 1, as for ImageNet and Cityscapes. The authors take T = 4 and β = γ = 2 on CIFAR-100.

    For teachers much stronger than the student, which `kl` asks to be copied. In our pilot only this and `kl(temperature=1)` lost nowhere.
    Without T², for a correlation does not see scale; the authors' code for classification has it: multiply a β or γ from there by T².
    Rows that are masked, or weigh nothing, take no part in the columns either. Gradients of half batches do not add up to the whole's.
    Confidence is not taught: add `labels()`, and recalibrate. `standardised(kl())` keeps the logits' order and spacing, too, row by row.

    >>> dist(temperature=4)
    dist(beta=1.0, gamma=1.0, temperature=4.0)
    """
    return Correlation(beta, gamma, temperature) if gamma else RowCorrelation(beta, gamma, temperature)


def mlkd(rows: float = 1.0, classes: float = 1.0, temperature: float = 4.0) -> Relation:
    """The relations of multi-level logit distillation: how alike rows are, and which outcomes rise together. Jin et al. 2023, CVPR.

        L = ρ/N Σ_ij (p_i·p_j − q_i·q_j)² + κ/C Σ_cd (Σ_i p_ic p_id − Σ_i q_ic q_id)²,   p, q at temperature T

    rows: ρ, of the batch level, over pairs of the N rows.
    classes: κ, of the class level, over pairs of the C outcomes.
    temperature: T; 4, the authors'. No T², and no other convention of scale: both parts grow with the batch, as the authors' do, so that a
        weight holds for one batch size.

    One number for a batch. Rows that are masked, or weigh nothing, take no part. The paper's instance level is `kl` at several
    temperatures: `kl(temperature=2) + kl(temperature=4) + kl(temperature=6) + mlkd()`; the authors also leave
    out rows of little confidence. `dist` compares the same columns by correlation, which has no scale.

    >>> mlkd()
    mlkd(rows=1.0, classes=1.0, temperature=4.0)
    """
    return Relation(rows, classes, temperature)


def positions_weigh(batch: Batch, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
    """(N,) how much each of the flattened positions of `shape` counts, by mask and row weight; None: all alike. For whole batches."""

    def spread(values: Tensor) -> Tensor:  # (B, ...) → shape; of a mask finer than the positions, where any part counts
        if values.dim() > len(shape):
            values = values.flatten(len(shape)).amax(-1)
        return values.reshape(values.shape + (1,) * (len(shape) - values.dim())).expand(shape).flatten()

    parts = [spread(v) for v in (batch.mask, batch.weight) if v is not None]
    return None if not parts else torch.stack([p.to(dtype) for p in parts]).prod(0)
