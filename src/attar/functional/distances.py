"""Distances between two answers themselves, not between the distributions they stand for: (..., C), (..., C) → (...)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cosine", "mse", "squared_error"]


def mse(target: Tensor, output: Tensor) -> Tensor:
    """Mean over outcomes of (c(z_s) − c(z_t))², c taking each row's mean off; (..., C) → (...). Ba & Caruana 2014, arXiv:1312.6184.

    Centred, because a softmax does not see a shift of all logits, and a student should not spend capacity on it; the paper does not centre.
    As T → ∞, T² · KL at temperature T tends to half of it (Hinton et al. 2015, section 2.1; Kim et al. 2021, arXiv:2105.08919).
    All logits must be finite.

    >>> mse(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[11.0, 12.0, 16.0]]))
    tensor([2.])
    """
    gap = _wide(output) - _wide(target)
    return gap.var(-1, correction=0)  # the mean square of what is left when the mean is taken off


def squared_error(target: Tensor, output: Tensor) -> Tensor:
    """Mean over the last axis of (output − target)²; (..., C) → (...). What `mse` is without centring: for numbers, where a shift matters.

    >>> squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor([2.])
    """
    return (_wide(output) - _wide(target)).square().mean(-1)


def cosine(target: Tensor, output: Tensor) -> Tensor:
    """1 − cos of the angle between two vectors, 0..2; (..., D), (..., D) → (...). A vector of length 0 has cosine 0 with any.

    DistilBERT's third loss, arXiv:1910.01108, and sentence encoders'. Half the squared distance of the unit vectors: lengths do not matter.

    >>> cosine(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    tensor([0., 1.])
    """
    return 1 - (_unit(output) * _unit(target)).sum(-1)


def _unit(vectors: Tensor) -> Tensor:
    """Of length 1; 0 stays 0, and its gradient is of ordinary size."""
    wide = _wide(vectors)
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return wide / length.masked_fill(length == 0, 1.0)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
