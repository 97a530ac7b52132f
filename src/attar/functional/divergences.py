"""Divergences between two distributions over outcomes, of log-probabilities: (..., C), (..., C) → (...).

`log_p` is the teacher, `log_q` the student, everywhere and in this order. Both come from `log_probabilities(logits, temperature)`:
the formulas know no temperature and carry no T², so that the unit is made in one place, where the temperature is known (the terms
of an objective). Sums run over outcomes; positions are never reduced.

An outcome with log-probability −inf is absent. 0 · (−inf) counts 0, absent on both sides adds nothing and has no gradient, and
absent on one side gives what the formula says, be it +inf: `kl` where the student excludes what the teacher allows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "alpha_beta",
    "jsd",
    "kl",
    "kl_to_finite",
    "log_probabilities",
    "power_sum",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "standardise",
    "total_variation",
]


def log_probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """log softmax(z / T) over the last axis, (..., C) → (..., C), in float32 at least.

    temperature: T > 0, a number or a 0-dimensional tensor; above 1 it flattens. Hinton et al. 2015, eq. 1, arXiv:1503.02531.
    Half precision is widened first: with logits of ±60 the tails of a bfloat16 softmax are rounding noise.
    Never `log(softmax(z))`, which is −inf where the probability underflows.

    >>> log_probabilities(torch.tensor([0.0, 0.0, -math.inf])).exp()
    tensor([0.5000, 0.5000, 0.0000])
    """
    if logits.dtype in _HALF:
        logits = logits.float()
    if not (isinstance(temperature, float) and temperature == 1.0):  # z / 1 is z: two kernels less
        logits = logits / temperature
    return torch.log_softmax(logits, -1)


def standardise(logits: Tensor) -> Tensor:
    """(z − mean z) / std z over the last axis, (..., C) → (..., C), in float32 at least. Sun et al. 2024, arXiv:2403.01427.

    The standard deviation is the unbiased one, as in the authors' code. Order and relative spacing stay, confidence goes: |Z| ≤ (C−1)/√C.
    Outcomes of −inf are absent: they count in neither, and stay. Where logits do not vary, or by no more than rounding, Z is 0 without a
    gradient. The authors' code divides by std z + 1e-7 instead, so that a head that starts at zero gets a gradient of 1e7.

    >>> standardise(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    tensor([[-1.,  0.,  1.],
            [ 0.,  0.,  0.]])
    """
    if logits.dtype in _HALF:
        logits = logits.float()
    absent = logits == -math.inf
    z = logits.masked_fill(absent, 0.0)
    n = (~absent).sum(-1, keepdim=True).to(z.dtype)
    gap = (z - z.sum(-1, keepdim=True) / n.clamp(min=1)).masked_fill(absent, 0.0)
    variance = gap.square().sum(-1, keepdim=True) / (n - 1).clamp(min=1)
    flat = variance <= (4 * torch.finfo(z.dtype).eps * z.detach().abs().amax(-1, keepdim=True)) ** 2
    found = gap * variance.masked_fill(flat, 1.0).rsqrt()
    return found.masked_fill(flat, 0.0).masked_fill(absent, -math.inf)


def power_sum(log_p: Tensor, power: float) -> Tensor:
    """Σ pᵞ, how smooth a distribution is; (..., C) → (...). 1 for a certain one, C^(1−γ) for a uniform one. WTTM, arXiv:2402.11148.

    power: γ, 0 < γ < 1. The normaliser of the power transform pᵞ/Σpᵞ, which is softmax at temperature 1/γ. Outcomes of −inf add nothing.

    >>> power_sum(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]).log(), 0.5)
    tensor([2., 1.])
    """
    return torch.logsumexp(power * log_p, -1).exp()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p ‖ q) = Σ p (log p − log q), in nats; (..., C) → (...). Hinton et al. 2015, arXiv:1503.02531.

    Covers: the student pays wherever the teacher has mass. The gradient to log q is that of the cross-entropy with p as its target; the
    teacher's entropy is subtracted, unlike in the references that call the cross-entropy "forward KL".

    >>> p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    >>> kl(p, torch.tensor([[0.25, 0.25, 0.5]]).log())
    tensor([0.6931])
    """
    return _times(log_p.exp(), log_p - log_q).sum(-1)  # Σ p (log p − log q)


def kl_to_finite(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`kl` where the student excludes nothing, no log q is −inf: the same number, and two kernels less in each direction.

    Outcomes that the teacher excludes still count 0. A log q of −inf there gives NaN.

    >>> kl_to_finite(torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log())
    tensor([0.6931])
    """
    finite = log_p.clamp(min=torch.finfo(log_p.dtype).min / 2)  # its exponential is 0 as before, and 0 · finite is 0
    return (log_p.exp() * (finite - log_q)).sum(-1)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q ‖ p) = Σ q (log q − log p), in nats; (..., C) → (...). MiniLLM, arXiv:2306.08543.

    Seeks: the student pays wherever it has mass that the teacher has not. +inf where the teacher excludes what the student allows.

    >>> reverse_kl(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]).log())
    tensor([0.1438])
    """
    return kl(log_q, log_p)


def jsd(log_p: Tensor, log_q: Tensor, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence, continuous in beta; (..., C) → (...). After GKD eq. 1, arXiv:2306.13649.

        m = β p + (1−β) q;   [β KL(p ‖ m) + (1−β) KL(q ‖ m)] / (β (1−β))

    beta: 0..1. Towards 0 it becomes KL(p ‖ q), which covers; towards 1 KL(q ‖ p), which seeks; both limits are exact.
    The paper's form is this one times β (1−β). It tends to 0 at both ends and is then defined there as KL, so that the loss jumps
    twelvefold between beta 0 and 0.1; a sweep over it compares learning rates. DistiLLM's `lam` is 1 − β.
    Bounded by ln 2 · 4 at β = 0.5, where `kl` is not: choose it when the student cannot cover the teacher.

    >>> p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    >>> [round(float(jsd(p, q, beta)), 4) for beta in (0.0, 0.001, 0.5, 1.0)]
    [0.3681, 0.3681, 0.407, 0.5108]
    """
    if beta == 0:
        return kl(log_p, log_q)
    if beta == 1:
        return kl(log_q, log_p)
    log_p, log_q = _present(log_p, log_q)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    gap = (log_p - log_m).exp() - (log_q - log_m).exp()  # (p − q) / m
    # β(p − m) + (1−β)(q − m) = 0 at each outcome: taking it off makes each summand m·h ≥ 0 with h(1+ε) = (1+ε) log(1+ε) − ε, and keeps
    # all digits for beta near 0 or 1, where q/m − 1 = −β (p − q)/m is small before it is divided by β.
    return (log_m.exp() * (_entropic((1 - beta) * gap) / (1 - beta) + _entropic(-beta * gap) / beta)).sum(-1)


def skew_kl(log_p: Tensor, log_q: Tensor, skew: float = 0.1) -> Tensor:
    """Skew divergence KL(p ‖ a p + (1−a) q); (..., C) → (...). DistiLLM, arXiv:2402.03898.

    skew: a, 0 ≤ a < 1; 0 is `kl`. 0.1 is the paper's.
    The derivative with respect to q is bounded by (1−a)/a, 9 at 0.1; that of `kl`, p/q, is not. Near equality it is (1−a)² times `kl`.

    >>> skew_kl(torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log())
    tensor(0.8304)
    """
    return kl(log_p, _mixture(log_p, log_q, skew))


def skew_reverse_kl(log_p: Tensor, log_q: Tensor, skew: float = 0.1) -> Tensor:
    """KL(q ‖ (1−a) p + a q); (..., C) → (...). DistiLLM, arXiv:2402.03898; the gradient also flows through the mixture.

    skew: a, 0 ≤ a < 1; 0 is `reverse_kl`. Finite, up to log(1/a), where the teacher excludes what the student allows.

    >>> skew_reverse_kl(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log())
    tensor(2.3026)
    """
    return kl(log_q, _mixture(log_q, log_p, skew))


def alpha_beta(log_p: Tensor, log_q: Tensor, alpha: float = 0.2, beta: float = 0.7) -> Tensor:
    """α-β divergence, the family around `kl` and `reverse_kl`; (..., C) → (...). ABKD, arXiv:2505.04560; Cichocki et al. 2011.

        D = −1/(αβ) Σ [ pᵅ qᵝ − α/(α+β) pᵅ⁺ᵝ − β/(α+β) qᵅ⁺ᵝ ]

    alpha, beta: (1, 0) is `kl`, (0, 1) `reverse_kl`, (½, ½) four times the squared Hellinger distance. More alpha weighs outcomes by
    their misfit, more beta by the student's confidence. All limits (α → 0, β → 0, α+β → 0) are this function's own values, not jumps:
    with ψ_a = (pᵃ − qᵃ)/a, ψ_0 = log p − log q, it is computed as Σ [ψ_{α+β} − qᵝ ψ_α]/β or as Σ [pᵅ ψ_β − ψ_{α+β}]/α, whichever divides
    by more. (0, 0) is ½ Σ (log p − log q)². The defaults are the paper's for language models; it takes (0.8..1, 0.2) for vision.

    >>> p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    >>> [round(float(alpha_beta(p, q, *pair)), 4) for pair in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))]
    [0.3681, 0.4223, 0.5108]
    """
    log_p, log_q = _present(log_p, log_q)
    if max(abs(alpha), abs(beta)) < _SQUARE:
        return 0.5 * (log_p - log_q).square().sum(-1)
    total = _power_gap(log_p, log_q, alpha + beta)  # ψ_{α+β}
    if abs(beta) >= abs(alpha):
        return ((total - _times((beta * log_q).exp(), _power_gap(log_p, log_q, alpha))) / beta).sum(-1)
    return ((_times((alpha * log_p).exp(), _power_gap(log_p, log_q, beta)) - total) / alpha).sum(-1)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """½ Σ |p − q|, the largest difference of probability that any event can have, 0..1; (..., C) → (...).

    The only one here that is linear, not quadratic, near equality: its gradient does not fade as student and teacher meet, and tempered it
    takes T, not T², to keep its size. Bounded, and with equal weight for rare and common outcomes.

    >>> total_variation(torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log())
    tensor(0.4000)
    """
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


_HALF = (torch.float16, torch.bfloat16)
_SQUARE = 1e-3  # below it, both exponents together: the quotient of small differences has lost its digits in float32


def _times(weight: Tensor, value: Tensor) -> Tensor:
    """weight · value, where 0 · anything is 0, in value and in gradient."""
    return weight * value.masked_fill(weight == 0, 0.0)


def _present(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Outcomes absent on both sides count as equal: log 1 on both sides adds 0 and has no gradient, where −inf − (−inf) is NaN."""
    absent = (log_p == -math.inf) & (log_q == -math.inf)
    return log_p.masked_fill(absent, 0.0), log_q.masked_fill(absent, 0.0)


def _mixture(log_own: Tensor, log_other: Tensor, share: float) -> Tensor:
    """log(a·own + (1−a)·other)."""
    if share == 0:
        return log_other
    log_own, log_other = _present(log_own, log_other)
    return torch.logaddexp(log_own + math.log(share), log_other + math.log1p(-share))


def _entropic(excess: Tensor) -> Tensor:
    """h(1+ε) = (1+ε) log(1+ε) − ε for ε ≥ −1; h(0) = 1. The clamp keeps 0 · log 0 and its gradient finite."""
    return (1 + excess) * torch.log1p(excess.clamp(min=-1 + 1e-7)) - excess


def _power_gap(log_p: Tensor, log_q: Tensor, power: float) -> Tensor:
    """ψ = (pᵃ − qᵃ)/a, log p − log q at a = 0; exponents never positive beyond those of the larger of both."""
    gap = log_p - log_q
    if power == 0:
        return gap
    gap = power * gap
    above, below = gap.clamp(min=0.0), -torch.relu(-gap)  # of which one is 0
    return ((power * log_q).exp() * torch.expm1(below) - (power * log_p).exp() * torch.expm1(-above)) / power
