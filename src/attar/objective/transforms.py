"""Answers that are transformed before they are compared: standardised on both sides, or flattened on the teacher's alone."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.tempered import Tempered
from attar.objective.terms import LIKENESS, ROWWISE
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Standardised", "TransformedTeacher", "standardised", "ttm", "wttm"]


@final
class Standardised(Tempered):
    """A divergence of standardised logits; the word `standardised`."""

    min_outcomes: ClassVar[int] = 3  # two logits, standardised, are always −1/√2 and 1/√2
    keeps: ClassVar[frozenset[Property]] = LIKENESS.union({"scale"})

    def __init__(self, term: Tempered) -> None:
        super().__init__("standardised", 1.0)  # the one that counts is inside
        self.term, self.order = term, term.order

    @property
    def temperature(self) -> float | Tensor:
        """That of the divergence inside."""
        return self.term.temperature

    def at(self, temperature: float | Tensor) -> Standardised:
        return Standardised(self.term.at(temperature))

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        self.term.build(_standard(student), None if teacher is None else _standard(teacher), task)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        return self.term.measure(_standard(student), _standard(teacher), batch)

    def known(self, batch: Batch) -> Tensor | None:
        return self.term.known(batch)

    def __repr__(self) -> str:
        return say("standardised", self.term)


@final
class TransformedTeacher(Term):
    """KL from the teacher's power transform to the student as it is; the words `ttm` and `wttm`."""

    min_outcomes: ClassVar[int] = 2
    keeps: ClassVar[frozenset[Property]] = ROWWISE

    def __init__(self, gamma: float, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted
        if not 0 < gamma < 1:
            raise ObjectiveError(f"{self._name}(gamma={gamma:g})", hint="0 < gamma < 1, such as 0.2; gamma = 1 is kl(temperature=1)")
        self.gamma = float(gamma)

    @property
    def _name(self) -> str:
        return "wttm" if self.weighted else "ttm"

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        flattened = functional.log_probabilities(teacher.output, 1 / self.gamma)
        measured = functional.kl(flattened, functional.log_probabilities(student.output))
        if not self.weighted:
            return measured
        return measured * functional.power_sum(functional.log_probabilities(teacher.output), self.gamma)

    def __repr__(self) -> str:
        return say(self._name, gamma=self.gamma)


def standardised(term: Term) -> Standardised:
    """A divergence of logits without their mean, and divided by their spread, row by row. Sun et al. 2024, arXiv:2403.01427.

        L = D(Z(z_t), Z(z_s)),   Z(z) = (z − mean_c z) / std_c z,   std unbiased;   temperature and unit are those of D

    term: `kl`, `jsd`, `reverse_kl`, `alpha_beta`, `skew_kl`, `total_variation` or `dkd`.

    The student need not reach the size of the teacher's logits, only their order and relative spacing; of |Z| ≤ (C−1)/√C a temperature
    below 1 makes little. The paper takes KL at T = 2, `standardised(kl(temperature=2))`, at 90 times the labels' weight where its plain KL
    has 9 times, so its gain is of both. Confidence is not taught: add `labels()`, and recalibrate; so mixed it was among the best
    calibrated of our pilot. `dist` compares rows by correlation, of probabilities instead of logits. Of two logits nothing is left: three
    outcomes at least.

    >>> from attar.objective.terms import kl
    >>> standardised(kl(temperature=2))
    standardised(kl(temperature=2.0))
    """
    if isinstance(term, Standardised):
        raise ObjectiveError(f"standardised({term!r}): it is so already", hint=f"{term!r}")
    if not isinstance(term, Tempered) or not term.keeps >= LIKENESS:
        raise ObjectiveError(
            f"standardised({term!r}) is not of a divergence, which compares tempered logits row by row and is 0 where they agree",
            hint="standardised(kl(temperature=2)); also jsd, reverse_kl, alpha_beta, skew_kl, total_variation, dkd",
        )
    return Standardised(term)


def ttm(gamma: float = 0.1) -> TransformedTeacher:
    """KL from a flattened teacher to the student as it is, untempered. Transformed teacher matching, Zheng & Yang 2024, arXiv:2402.11148.

        L = Σ_c u_c log(u_c / q_c),   u = pᵞ / Σ pᵞ;   p, q at temperature 1

    gamma: γ, 0 < γ < 1; u is the teacher at temperature 1/γ. 0.1 is the authors' example on CIFAR-100, at 45 times the labels' weight; they
        tune both for each pair.

    With T = 1/γ it is `kl(temperature=T)`/T plus (T − 1) (H(u) − H_γ(q)), H_γ the student's Rényi entropy: distillation, and a pull towards
    an unsure student. Without T²: the student is not tempered, so its gradient does not shrink with T. Not 0 where the student answers as
    the teacher, but where it answers as the flattened one: it teaches less confidence than the teacher has, so recalibrate. `wttm` weighs.

    >>> ttm()
    ttm(gamma=0.1)
    """
    return TransformedTeacher(gamma, weighted=False)


def wttm(gamma: float = 0.2) -> TransformedTeacher:
    """`ttm`, each row weighed by how smooth the teacher is there. Weighted TTM, Zheng & Yang 2024, arXiv:2402.11148.

        L = U Σ_c u_c log(u_c / q_c),   U = Σ_c pᵞ,   u = pᵞ / U;   p, q at temperature 1

    gamma: γ, 0 < γ < 1. 0.2 is the authors' example on CIFAR-100, at 4 times the labels' weight.

    U runs from 1, a certain teacher, to C^(1−γ), one that knows nothing: rows with more to tell count more, and a weight for `ttm` is too
    large here by about the mean of U.

    >>> wttm()
    wttm(gamma=0.2)
    """
    return TransformedTeacher(gamma, weighted=True)


def _standard(signal: Signal) -> Signal:
    return replace(signal, output=functional.standardise(signal.output))
