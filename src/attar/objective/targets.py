"""Terms that look at each row from one outcome, its target: DKD, NKD, and the teacher that is made up from the label."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError, near
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.tempered import Tempered
from attar.objective.terms import LIKENESS, ROWWISE
from attar.objective.weights import number_in
from attar.signal import Batch, Signal

__all__ = ["Decoupled", "Normalised", "Target", "VirtualTeacher", "dkd", "nkd", "virtual_teacher"]

Target = Literal["label", "teacher"]
"""Which outcome a row is seen from: that of its label, or the teacher's likeliest."""


@final
class Decoupled(Tempered):
    """T² (α TCKD + β NCKD); the word `dkd`."""

    min_outcomes: ClassVar[int] = 3  # of two outcomes one is the target, and the rest is certain
    keeps: ClassVar[frozenset[Property]] = LIKENESS

    def __init__(self, alpha: float, beta: float, temperature: float | Tensor, target: Target) -> None:
        super().__init__("dkd", temperature)
        _check_target("dkd", target)
        if min(alpha, beta) < 0 or alpha == beta == 0 or not math.isfinite(alpha + beta):
            raise ObjectiveError(f"dkd(alpha={alpha:g}, beta={beta:g})", hint="both 0 or more, one of them above 0")
        self.alpha, self.beta = float(alpha), float(beta)
        self.target: Target = target

    def at(self, temperature: float | Tensor) -> Decoupled:
        return Decoupled(self.alpha, self.beta, temperature, self.target)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        target, known = _target(self, self.target, teacher, batch)
        log_p = functional.log_probabilities(teacher.output, self.temperature)
        log_q = functional.log_probabilities(student.output, self.temperature)
        return _where(known, self.in_unit(functional.dkd(log_p, log_q, target, self.alpha, self.beta)))

    def known(self, batch: Batch) -> Tensor | None:
        return _known(self, batch) if self.target == "label" else None

    def __repr__(self) -> str:
        return say("dkd", alpha=self.alpha, beta=self.beta, temperature=number_in(self.temperature), target=self.target)


@final
class Normalised(Tempered):
    """−p_y log q_y − γ T² Σ p̂ log q̂; the word `nkd`."""

    min_outcomes: ClassVar[int] = 3
    keeps: ClassVar[frozenset[Property]] = ROWWISE

    def __init__(self, gamma: float, temperature: float | Tensor, target: Target) -> None:
        super().__init__("nkd", temperature)
        _check_target("nkd", target)
        if not 0 <= gamma < math.inf:
            raise ObjectiveError(f"nkd(gamma={gamma:g})", hint="0 or more; the paper takes 1.5")
        self.gamma = float(gamma)
        self.target: Target = target

    def at(self, temperature: float | Tensor) -> Normalised:
        return Normalised(self.gamma, temperature, self.target)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        target, known = _target(self, self.target, teacher, batch)
        log_p, log_q = (functional.log_probabilities(s.output) for s in (teacher, student))
        hot_p, hot_q = (functional.log_probabilities(s.output, self.temperature) for s in (teacher, student))
        rest = self.in_unit(functional.rest_cross_entropy(hot_p, hot_q, target))
        return _where(known, functional.target_cross_entropy(log_p, log_q, target) + self.gamma * rest)

    def known(self, batch: Batch) -> Tensor | None:
        return _known(self, batch) if self.target == "label" else None

    def __repr__(self) -> str:
        return say("nkd", gamma=self.gamma, temperature=number_in(self.temperature), target=self.target)


@final
class VirtualTeacher(Tempered):
    """T² KL from a teacher that the label makes up; the word `virtual_teacher`."""

    needs_teacher: ClassVar[bool] = False
    min_outcomes: ClassVar[int] = 2
    keeps: ClassVar[frozenset[Property]] = ROWWISE

    def __init__(self, accuracy: float, temperature: float | Tensor) -> None:
        super().__init__("virtual_teacher", temperature)
        if not 0 < accuracy < 1:
            raise ObjectiveError(f"virtual_teacher(accuracy={accuracy:g})", hint="0 < accuracy < 1, such as 0.99; 1 is labels()")
        self.accuracy = float(accuracy)

    def at(self, temperature: float | Tensor) -> VirtualTeacher:
        return VirtualTeacher(self.accuracy, temperature)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        target, known = _labelled(self, student.output, batch)
        log_q = functional.log_probabilities(student.output, self.temperature)
        there = student.output > -math.inf
        others = (there.sum(-1, keepdim=True) - 1).clamp(min=1)
        odds = math.log(self.accuracy / (1 - self.accuracy)) + others.to(log_q.dtype).log()  # log of a (C−1)/(1−a)
        made = torch.zeros_like(log_q).scatter(-1, target.unsqueeze(-1), odds).masked_fill(~there, -math.inf)
        return _where(known, self.in_unit(functional.kl(functional.log_probabilities(made, self.temperature), log_q)))

    def known(self, batch: Batch) -> Tensor | None:
        return _known(self, batch)

    def __repr__(self) -> str:
        return say("virtual_teacher", accuracy=self.accuracy, temperature=number_in(self.temperature))


def dkd(alpha: float = 1.0, beta: float = 2.0, temperature: float | Tensor = 4.0, target: Target = "label") -> Decoupled:
    """Decoupled knowledge distillation: KL's two halves with weights of their own. Zhao et al. 2022, arXiv:2203.08679, section 3.3.

        L = T² [α KL(b_p ‖ b_q) + β KL(p̂ ‖ q̂)],   b = (p_y, 1 − p_y),   p̂ over the C − 1 outcomes that are not y;  p, q at temperature T

    alpha: of the target half (TCKD), how sure of y. 1, the paper's.
    beta: of the other half (NCKD), which of the rest is less wrong; in plain `kl` its weight is 1 − p_y, next to nothing where the teacher
        is sure. The paper takes 8 for most CIFAR-100 pairs and tunes it from 1 to 10. 2 is the default because 8 cost a small student of 10
        classes 8 to 10 points in our pilot, and 2 at most 2.5: search it, upwards for large students and many classes.
    temperature: T; 4, the paper's, and what beta was tried at.
    target: "label" sees a row from its label, and rows without one take no part; "teacher" from the teacher's likeliest outcome, so all
        rows do. The two differ where the teacher is wrong.

    Three outcomes at least. The paper adds it to the labels' cross-entropy, at full weight, with a warm-up over 20 of 240 epochs:
    `labels() + ramp(0, 1, until=0.08) * dkd(beta=8)`. `nkd` normalises the second half the same way, and needs no warm-up. The unit is the
    paper's and mdistiller's; their code takes log(softmax) and subtracts 1000 from the target, which half precision does not survive.

    >>> dkd(beta=8)
    dkd(alpha=1.0, beta=8.0, temperature=4.0, target="label")
    """
    return Decoupled(alpha, beta, temperature, target)


def nkd(gamma: float = 1.5, temperature: float | Tensor = 1.0, target: Target = "label") -> Normalised:
    """Normalised knowledge distillation: labels weighed by the teacher's trust in them, and the rest. Yang et al. 2023, arXiv:2303.13005.

        L = −p_y log q_y − γ T² Σ_{c≠y} p̂_c log q̂_c;   p, q at temperature 1;   p̂, q̂ over the outcomes that are not y, at T

    gamma: of the rest; 1.5, the paper's for ImageNet.
    temperature: T of the rest; 1, the paper's.
    target: as of `dkd`.

    The paper's total is `labels() + nkd()`. Both halves are cross-entropies with the teacher's entropy left in, as the paper has them: at
    its minimum the value is not 0, and the first half draws q_y to 1, past p_y. `dkd` compares p_y with q_y instead, and stops there. Three
    outcomes at least.

    >>> nkd()
    nkd(gamma=1.5, temperature=1.0, target="label")
    """
    return Normalised(gamma, temperature, target)


def virtual_teacher(accuracy: float = 0.99, temperature: float | Tensor = 20.0) -> VirtualTeacher:
    """T² KL from a teacher that gives the label `accuracy` and all others the same: no teacher at all. Yuan et al. 2020, arXiv:1909.11723.

        L = T² Σ_c u_c log(u_c / q_c),   u, q at temperature T;   u_y = a, u_c = (1 − a)/(C − 1) elsewhere, at temperature 1

    accuracy: a, 0 < a < 1; the paper's 0.99.
    temperature: T; the paper's 20, which makes of 0.99 hardly more than a hint.

    A control: a gain that this term reaches too is not the teacher's. At T = 1 it is `labels(smoothing=ε)` less a constant, with
    a = 1 − ε + ε/C. Rows without a label take no part. The authors' code is not their formula: it takes the softmax of u/T rather than of
    (log u)/T, leaves the student at T = 1, and averages over outcomes; its multiplier does not carry over.

    >>> virtual_teacher()
    virtual_teacher(accuracy=0.99, temperature=20.0)
    """
    return VirtualTeacher(accuracy, temperature)


def _check_target(word: str, target: str) -> None:
    if target not in get_args(Target):
        raise ObjectiveError(f"{word}(target={target!r})", hint=near(target, get_args(Target)))


def _target(term: Term, target: Target, teacher: Signal, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """(...) int64 outcome of each position, and where it is known; None: everywhere."""
    return (teacher.output.argmax(-1), None) if target == "teacher" else _labelled(term, teacher.output, batch)


def _labelled(term: Term, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    if batch.labels is None:  # nothing is known: 0, and a gradient of 0
        nothing = torch.zeros(output.shape[:-1], dtype=torch.long, device=output.device)
        return nothing, nothing.bool()
    if batch.complete:
        return batch.labels, None
    known = term.task.known(batch.labels)
    return torch.where(known, batch.labels, 0), known


def _known(term: Term, batch: Batch) -> Tensor | None:
    return None if batch.labels is None or batch.complete else term.task.known(batch.labels)


def _where(known: Tensor | None, measured: Tensor) -> Tensor:
    return measured if known is None else measured.masked_fill(~known, 0.0)
