"""What student and teacher, or student and labels, are compared by: the words for single terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.tempered import Tempered
from attar.objective.weights import number_in
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Divergence", "Labels", "LogitDistance", "alpha_beta", "jsd", "kl", "labels", "mse", "reverse_kl", "skew_kl", "total_variation"]

ROWWISE: frozenset[Property] = frozenset({"positive", "rows", "shift", "accumulation"})
LIKENESS: frozenset[Property] = ROWWISE.union({"zero"})


@final
class Divergence(Tempered):
    """Any divergence of tempered probabilities, in the canonical unit: T^order · D(p_T ‖ q_T), summed over outcomes.

    word: the name. formula: (log p, log q, **arguments) → (...), the teacher first, as in `attar.functional`.
    temperature: T > 0, a number or a 0-dimensional tensor, which becomes a buffer that a cohort replaces, one value for each student.
    order: 2 where D is quadratic near equality, 1 where it is linear; with T^order, T does not set the learning rate: as T grows the
        gradient tends to that of half the centred logit `mse`. This is the one place where a temperature meets a formula.

    References use five units. A weight from DeiT or TAKD (mean over outcomes) is multiplied by 1/C, from TinyBERT by 1/(C T²), from TRL,
    DistiLLM and MiniLLM (no T²) by 1/T², to mean the same here; RepDistiller, mdistiller and DistilBERT agree with attar.

    >>> from attar import functional
    >>> Divergence("kl", functional.kl, temperature=4)
    kl(temperature=4.0)
    """

    min_outcomes: ClassVar[int] = 2  # of one logit the softmax is 1: every divergence is 0, and teaches nothing
    keeps: ClassVar[frozenset[Property]] = LIKENESS

    def __init__(
        self,
        word: str,
        formula: Callable[..., Tensor],
        arguments: Mapping[str, float | bool] | None = None,
        *,
        temperature: float | Tensor = 1.0,
        order: int = 2,
    ) -> None:
        super().__init__(word, temperature)
        self._formula = formula
        self.formula, self.arguments, self.order = formula, dict(arguments or {}), order

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        whole = bool((student.output > -math.inf).all())  # a student that excludes outcomes excludes them from the first batch on
        self._formula = functional.kl_to_finite if whole and self.formula is functional.kl else self.formula

    def at(self, temperature: float | Tensor) -> Divergence:
        """The same comparison at another temperature."""
        return Divergence(self._word, self.formula, self.arguments, temperature=temperature, order=self.order)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        temperature = self.temperature
        log_p = functional.log_probabilities(teacher.output, temperature)
        log_q = functional.log_probabilities(student.output, temperature)
        return self.in_unit(self._formula(log_p, log_q, **self.arguments))

    def __repr__(self) -> str:
        return say(self._word, **self.arguments, temperature=number_in(self.temperature))


@final
class LogitDistance(Term):
    """Squared distance of the answers themselves; the words `mse`."""

    keeps: ClassVar[frozenset[Property]] = LIKENESS

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        if teacher is not None and not bool(torch.isfinite(teacher.output).all()):
            raise ObjectiveError(
                "mse() of a teacher with infinite logits", hint="kl() takes absent outcomes; or floor the teacher's probabilities"
            )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None  # the objective has seen to it
        distance = functional.mse if self.task.outcomes > 1 else functional.squared_error
        return distance(teacher.output, student.output)

    def __repr__(self) -> str:
        return say("mse")


@final
class Labels(Term):
    """The task's own loss on known labels; the word `labels`."""

    needs_teacher: ClassVar[bool] = False
    keeps: ClassVar[frozenset[Property]] = ROWWISE

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ObjectiveError(f"labels(smoothing={smoothing:g}) is not a share", hint="0 ≤ smoothing < 1, such as 0.1")
        self.smoothing = float(smoothing)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        if self.smoothing and task.outcomes == 1:
            raise ObjectiveError(f"{self!r}: a number has no smoothing", hint="labels()")

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        output = student.output.float() if student.output.dtype in (torch.float16, torch.bfloat16) else student.output
        if batch.labels is None:  # nothing is known: 0, and a gradient of 0
            return output.masked_fill(output.new_ones((), dtype=torch.bool), 0.0).sum(-1)
        loss = self.task.label_loss(output, batch.labels, self.smoothing)
        paired = self._paired(batch)
        return loss if paired is None else loss.masked_fill(~paired, 0.0)

    def known(self, batch: Batch) -> Tensor | None:
        if batch.labels is None:
            return None
        known = None if batch.complete else self.task.known(batch.labels)
        paired = self._paired(batch)
        return paired if known is None else known if paired is None else known & paired

    def _paired(self, batch: Batch) -> Tensor | None:
        """(B,) bool, rows that have both texts whose score the label is; None: all, or no embedding."""
        if self.task.kind != "embedding" or batch.mask is None or batch.mask.dim() < 2:
            return None
        return batch.mask[:, :2].all(1)

    def __repr__(self) -> str:
        return say("labels", smoothing=self.smoothing)


def kl(temperature: float | Tensor = 2.0) -> Divergence:
    """T² KL(p_T ‖ q_T), the knowledge distillation of Hinton et al. 2015, arXiv:1503.02531, section 2: p the teacher, q the student.

        L = T² Σ_c p_c log(p_c / q_c),   p = softmax(z_t / T),  q = softmax(z_s / T)

    temperature: T. Above 1 it shows the student what the teacher holds for unlikely but not impossible. 2 is attar's default for every
        divergence: of 1, 2, 4 it lost least over student sizes in our pilot, where the best T grew with the student's capacity; papers
        take 4 on CIFAR-100, 1 on ImageNet with strong augmentation and for language models.

    Covers: it is largest where the student gives little to what the teacher gives much. `reverse_kl` seeks instead, `jsd` and `alpha_beta`
    lie between, `skew_kl` bounds the gradient; towards T → ∞ it is half of `mse`. With two outcomes it is Bernoulli distillation of the
    logit difference. The unit is that of the paper, mdistiller and RepDistiller: summed over outcomes, times T².

    >>> from attar.objective import blend
    >>> blend(kl(temperature=4), labels(), weight=0.9)
    0.9 * kl(temperature=4.0) + 0.1 * labels(smoothing=0.0)
    """
    return Divergence("kl", functional.kl, temperature=temperature)


def reverse_kl(temperature: float | Tensor = 2.0) -> Divergence:
    """T² KL(q_T ‖ p_T): the student's mass must lie where the teacher's does. MiniLLM, arXiv:2306.08543.

        L = T² Σ_c q_c log(q_c / p_c),   p = softmax(z_t / T),  q = softmax(z_s / T)

    temperature: T; 2 as for `kl`. The paper takes 1, on text that the student writes.

    Seeks: a student too small for all of the teacher's modes chooses some and leaves the rest, so it is sharper than with `kl`, and
    wrong more confidently. On fixed data it is only another projection. A teacher must not exclude outcomes (−inf) that the student allows.

    >>> reverse_kl()
    reverse_kl(temperature=2.0)
    """
    return Divergence("reverse_kl", functional.reverse_kl, temperature=temperature)


def jsd(beta: float = 0.5, temperature: float | Tensor = 2.0) -> Divergence:
    """Generalised Jensen-Shannon divergence, continuous in beta. After GKD, arXiv:2306.13649, eq. 1.

        L = T² [β KL(p ‖ m) + (1−β) KL(q ‖ m)] / (β (1−β)),   m = β p + (1−β) q,   p, q at temperature T

    beta: 0..1, from `kl` (0) to `reverse_kl` (1), both reached without a jump. 0.5 is symmetric, TRL's default.
    temperature: T; 2 as for `kl`. GKD takes 1.

    The paper's form is β (1−β) times this one, and jumps twelvefold at both ends; multiply a weight from GKD, TRL or Liger by β (1−β),
    0.25 at the default. DistiLLM's `lam` is 1−β. Bounded where `kl` is not: it forgives what the student cannot cover.

    >>> jsd(beta=0.1)
    jsd(beta=0.1, temperature=2.0)
    """
    _share("jsd", "beta", beta, closed=True)
    return Divergence("jsd", functional.jsd, {"beta": float(beta)}, temperature=temperature)


def skew_kl(skew: float = 0.1, reverse: bool = False, temperature: float | Tensor = 2.0) -> Divergence:
    """T² KL from one side to a mixture of both. DistiLLM, arXiv:2402.03898.

        L = T² KL(p ‖ a p + (1−a) q),   reversed: T² KL(q ‖ (1−a) p + a q),   p, q at temperature T

    skew: a, 0 ≤ a < 1, the share of the side itself in the mixture; 0.1 is the paper's, 0 is `kl` or `reverse_kl`.
    reverse: the second form, SRKL.
    temperature: T; 2 as for `kl`. The paper takes 1.

    Like `kl`, but the derivative with respect to a probability is at most (1−a)/a, 9 at the default, so that a rare token cannot take over
    a step; `jsd` mixes both sides at once. Near equality it is (1−a)² of `kl`: 0.81 at the default.

    >>> skew_kl()
    skew_kl(skew=0.1, reverse=False, temperature=2.0)
    """
    _share("skew_kl", "skew", skew)
    return Divergence("skew_kl", _skewed, {"skew": float(skew), "reverse": reverse}, temperature=temperature)


def alpha_beta(alpha: float = 0.2, beta: float = 0.7, temperature: float | Tensor = 2.0) -> Divergence:
    """T² times the α-β divergence, one family for most of the others. ABKD, arXiv:2505.04560; Cichocki et al. 2011, Entropy 13.

        L = −T²/(αβ) Σ_c [ pᵅ qᵝ − α/(α+β) pᵅ⁺ᵝ − β/(α+β) qᵅ⁺ᵝ ],   p, q at temperature T

    alpha, beta: (1, 0) is `kl`, (0, 1) `reverse_kl`, (½, ½) four times the squared Hellinger distance; every limit is exact. More alpha
        goes after what fits worst, more beta after what the student is sure of. (0.2, 0.7) is the paper's for language models; it takes
        about (0.9, 0.2) for images.
    temperature: T; 2 as for `kl`. The paper takes 1 for language models.

    `jsd` also runs from `kl` to `reverse_kl`, by one number and bounded; this one keeps its two effects apart.

    >>> alpha_beta(alpha=0.9, beta=0.2)
    alpha_beta(alpha=0.9, beta=0.2, temperature=2.0)
    """
    return Divergence("alpha_beta", functional.alpha_beta, {"alpha": float(alpha), "beta": float(beta)}, temperature=temperature)


def total_variation(temperature: float | Tensor = 2.0) -> Divergence:
    """T times the total variation distance, ½ Σ |p − q|. f-DISTILL, Wen et al. 2023, arXiv:2307.15190.

        L = T · ½ Σ_c |p_c − q_c|,   p = softmax(z_t / T),  q = softmax(z_s / T)

    temperature: T; 2 as for `kl`.

    The one that is linear near equality, so it takes T where the others take T²: its pull does not fade as the student comes near, and it
    does not settle either; let its weight or the learning rate fall. Symmetric and bounded by T.

    >>> total_variation(temperature=1)
    total_variation(temperature=1.0)
    """
    return Divergence("total_variation", functional.total_variation, temperature=temperature, order=1)


def mse() -> LogitDistance:
    """Mean squared distance of logits, each row centred; of a regression, squared error. Ba & Caruana 2014, arXiv:1312.6184.

        L = 1/C Σ_c (c(z_s) − c(z_t))²,   c(z) = z − mean_c z;   regression: (ŷ_s − ŷ_t)²

    Centred because a shift of all logits changes no answer, and a small student should not have to learn it; the paper does not centre.
    It asks for all of the teacher's logits alike, the tails included: twice the limit of `kl` as T → ∞. Good for large students, few
    classes and regression; a small student loses by it (1 to 4 points in our pilot). All logits must be finite.

    >>> from attar.objective import blend
    >>> blend(mse(), labels(), weight=0.9)
    0.9 * mse() + 0.1 * labels(smoothing=0.0)
    """
    return LogitDistance()


def labels(smoothing: float = 0.0) -> Labels:
    """The task's loss on labels: cross-entropy of classes, squared error of numbers; rows whose label is unknown take no part.

        L = −Σ_c y_c log softmax(z_s)_c,   y = (1−ε) onehot + ε/C;   regression: (ŷ_s − y)²

    smoothing: ε, 0 ≤ ε < 1, classes only. 0.1 is the usual one (Szegedy et al. 2016, arXiv:1512.00567), and equals distilling from a
        teacher that knows nothing: the control that a gain by distillation has to beat.

    The one term that needs no teacher. Temperature 1, always: labels are not tempered. The mean is over known labels only, so that many
    unlabelled rows do not thin it out.

    >>> labels(smoothing=0.1)
    labels(smoothing=0.1)
    """
    return Labels(smoothing)


def _skewed(log_p: Tensor, log_q: Tensor, skew: float, reverse: bool) -> Tensor:
    return (functional.skew_reverse_kl if reverse else functional.skew_kl)(log_p, log_q, skew)


def _share(word: str, name: str, value: float, closed: bool = False) -> None:
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ObjectiveError(f"{word}({name}={value:g}) is not a share", hint=f"0 ≤ {name} {'≤' if closed else '<'} 1")
