"""Divergences between normal distributions, each a mean and the log of a standard deviation: tensors of one shape → that shape."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussian_kl"]


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(N(μ_p, σ_p²) ‖ N(μ_q, σ_q²)), in nats; (...) → (...), p the teacher.

        log(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²) / (2 σ_q²) − ½

    In float32 at least. With both σ fixed at 1 it is half the squared error.

    >>> zero = torch.zeros(1)
    >>> gaussian_kl(zero, zero, zero + 2, zero)
    tensor([2.])
    """
    mean_p, log_std_p, mean_q, log_std_q = (t.float() if t.dtype in _HALF else t for t in (mean_p, log_std_p, mean_q, log_std_q))
    wider = log_std_p - log_std_q
    # ½ (e^{2d} − 1) − d by expm1: near equality the three summands cancel
    return 0.5 * torch.expm1(2 * wider) - wider + 0.5 * ((mean_p - mean_q) * (-log_std_q).exp()).square()


_HALF = (torch.float16, torch.bfloat16)
