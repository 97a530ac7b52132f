"""A distribution seen from one outcome, the target: its own probability, and how the rest is shared out among the others.

`log_p` is the teacher, `log_q` the student, as in `divergences`; both come from `log_probabilities`. `target` holds the index of one
outcome for each position, (...) int64. With b = (p_y, 1 − p_y) and p̂ the distribution over the outcomes that are not y,

    KL(p ‖ q) = KL(b_p ‖ b_q) + (1 − p_y) KL(p̂_p ‖ p̂_q),

so a teacher that is sure of y hides what it holds of the others behind a factor near 0. Which is what the losses here take apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attar.functional.divergences import kl

__all__ = ["dkd", "rest_cross_entropy", "rest_kl", "split", "target_cross_entropy", "target_kl"]


def split(log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p_y (...), log (1 − p_y) (...) and log p̂ (..., C), which is −inf at the target itself; of log-probabilities (..., C).

    All in log space, so that 1 − p_y of a sure teacher keeps its digits, and with −inf for what is left out: the references subtract 1000
    from the target's logit, which half precision does not survive, and take log(softmax), which is −inf too early.
    Where nothing but the target is allowed, log p̂ is −inf throughout: there is nothing to share out.

    >>> log_y, log_other, log_rest = split(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([0]))
    >>> log_y.exp(), log_other.exp(), log_rest.exp()
    (tensor([0.5000]), tensor([0.5000]), tensor([[0.0000, 0.6000, 0.4000]]))
    """
    at = target.unsqueeze(-1)
    rest = log_p.scatter(-1, at, -math.inf)  # (..., C)
    none = (rest == -math.inf).all(-1, keepdim=True)
    rest = rest.masked_fill(none, 0.0)  # any finite number: the gradient of a logsumexp of nothing is NaN
    log_other = torch.logsumexp(rest, -1).masked_fill(none.squeeze(-1), -math.inf)
    return log_p.gather(-1, at).squeeze(-1), log_other, torch.log_softmax(rest, -1).masked_fill(none, -math.inf)


def target_kl(log_p: Tensor, log_q: Tensor, target: Tensor) -> Tensor:
    """TCKD: KL between (p_y, 1 − p_y) and (q_y, 1 − q_y), in nats; (..., C) → (...). DKD section 3.1, arXiv:2203.08679.

    How sure of the target, and nothing else: how hard the row is.

    >>> target_kl(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.5, 0.1, 0.4]]).log(), torch.tensor([0]))
    tensor([0.])
    """
    return dkd(log_p, log_q, target, 1.0, 0.0)


def rest_kl(log_p: Tensor, log_q: Tensor, target: Tensor) -> Tensor:
    """NCKD: KL between how p and q share out what is not the target's, in nats; (..., C) → (...). DKD section 3.1, arXiv:2203.08679.

    The "dark knowledge": which wrong outcomes are less wrong. 0 where the teacher allows nothing but the target.

    >>> rest_kl(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.8, 0.12, 0.08]]).log(), torch.tensor([0])).abs() < 1e-6
    tensor([True])
    """
    return dkd(log_p, log_q, target, 0.0, 1.0)


def dkd(log_p: Tensor, log_q: Tensor, target: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """α TCKD + β NCKD, KL decoupled; (..., C) → (...). DKD section 3.3, arXiv:2203.08679.

    alpha, beta: of `target_kl` and of `rest_kl`. With β = 1 − p_y of each row, which is what KL itself takes, and α = 1 it is `kl`.

    >>> p, q = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.2, 0.2, 0.6]]).log()
    >>> dkd(p, q, torch.tensor([0]), 1.0, 0.5), kl(p, q)
    (tensor([0.3601]), tensor([0.3601]))
    """
    p_y, p_other, p_rest = split(log_p, target)
    q_y, q_other, q_rest = split(log_q, target)
    if beta == 0:
        return alpha * kl(torch.stack((p_y, p_other), -1), torch.stack((q_y, q_other), -1))
    rest = kl(p_rest, q_rest)
    if alpha == 0:
        return beta * rest
    return alpha * kl(torch.stack((p_y, p_other), -1), torch.stack((q_y, q_other), -1)) + beta * rest


def target_cross_entropy(log_p: Tensor, log_q: Tensor, target: Tensor) -> Tensor:
    """−p_y log q_y, the label's cross-entropy weighed by how sure the teacher is of it; (..., C) → (...). NKD, arXiv:2303.13005.

    Never 0 but at q_y = 1: it draws the student towards the target beyond the teacher's own probability.

    >>> target_cross_entropy(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0]))
    tensor([0.6931])
    """
    at = target.unsqueeze(-1)
    return _cross(log_p.gather(-1, at), log_q.gather(-1, at))


def rest_cross_entropy(log_p: Tensor, log_q: Tensor, target: Tensor) -> Tensor:
    """−Σ p̂ log q̂ over the outcomes that are not the target; (..., C) → (...). NKD, arXiv:2303.13005.

    `rest_kl` plus the entropy of p̂, so with the same gradient.

    >>> rest_cross_entropy(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.2, 0.4, 0.4]]).log(), torch.tensor([0]))
    tensor([0.6931])
    """
    return _cross(split(log_p, target)[2], split(log_q, target)[2])


def _cross(log_p: Tensor, log_q: Tensor) -> Tensor:
    """−Σ p log q, where 0 · (−inf) is 0 in value and in gradient."""
    p = log_p.exp()
    return -(p * log_q.masked_fill(p == 0, 0.0)).sum(-1)
