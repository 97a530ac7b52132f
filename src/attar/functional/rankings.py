"""Scores of candidates against each other: (..., K) of teacher and student → (...), teacher first."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["margin_mse"]


def margin_mse(teacher: Tensor, student: Tensor, pairs: Literal["first", "all"] = "first", mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of score margins; (..., K), (..., K) → (...). Hofstätter et al. 2020, arXiv:2010.02666.

        first: mean over k > 1 of ((s_1 − s_k) − (t_1 − t_k))²;   all: the same over all j, k  (CL-DRD, arXiv:2204.13679)

    pairs: "first" compares the first candidate, the positive, with each other one; "all" all K² pairs, each with itself among them.
    mask: (..., K) bool, which candidates are there; those that are not take no part. Without a pair it is 0.
    Does not change with a number added to all scores of one side. "all" is twice the variance of s − t, and so twice `mse`.

    >>> margin_mse(torch.tensor([9.0, 7.0, 4.0]), torch.tensor([3.0, 2.0, 1.0])), margin_mse(torch.zeros(3), torch.arange(3.0), "all")
    (tensor(5.), tensor(1.3333))
    """
    gap = _wide(student) - _wide(teacher)
    if mask is not None:
        gap = gap.masked_fill(~mask, 0.0)
    if pairs == "all":
        if mask is None:
            return 2 * gap.var(-1, correction=0)
        count = mask.sum(-1).clamp(min=1)
        centred = (gap - (gap.sum(-1) / count)[..., None]).masked_fill(~mask, 0.0)
        return 2 * centred.square().sum(-1) / count
    squares = (gap[..., :1] - gap[..., 1:]).square()
    if mask is None:
        return squares.mean(-1)
    there = mask[..., :1] & mask[..., 1:]
    return squares.masked_fill(~there, 0.0).sum(-1) / there.sum(-1).clamp(min=1)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
