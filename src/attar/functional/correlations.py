"""How alike two sets of answers vary: Pearson correlation, along outcomes and along positions, and the relations MLKD compares.

What is compared is probabilities, teacher first. `weight` says how much each position counts, None all alike: a position of weight 0 takes
no part, whatever lies there, and one of weight 2 counts as two.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_relation", "decorrelation", "pearson", "row_relation"]


def pearson(target: Tensor, output: Tensor, dim: int = -1, weight: Tensor | None = None) -> Tensor:
    """Pearson correlation along one axis, −1..1; (..., N, ...) → (..., ...). DIST, Huang et al. 2022, arXiv:2205.10536.

        ρ = Σ w (u − ū)(v − v̄) / √(Σ w (u − ū)² Σ w (v − v̄)²)

    weight: of what lies along the axis, in a shape that spreads over `output`.
    Where one side does not vary, or by no more than rounding, nothing correlates: it is 0, without a gradient. The reference adds 1e-8
    to the denominator instead, and hands a student whose answers are all alike a gradient of up to 1e8.

    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 31.0]))
    tensor(0.9996)
    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.3, 0.3, 0.3]))
    tensor(0.)
    """
    return _correlate(target, output, dim, weight)[0]


def decorrelation(target: Tensor, output: Tensor, dim: int = -1, weight: Tensor | None = None, faint: float | Tensor = 1e-8) -> Tensor:
    """1 − ρ, 0..2, which fades out where the teacher hardly varies; (..., N, ...) → (..., ...). DIST, arXiv:2205.10536.

        V/(V + ε) · (1 − ρ),   V = Σ w (u − ū)² of the teacher

    faint: ε, the V at which half is left; 1e-8 as in the reference. Probabilities at temperature T vary by 1/T as much, and V by 1/T².
    The reference has 1 − cov/(‖u‖‖v‖ + ε). There, what does not vary counts 1 whatever the student answers, also where it answers as the
    teacher does; of a thousand classes most do not vary within a batch. This is 0 at equality, and elsewhere the same but for ε.

    >>> decorrelation(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.3, 0.2, 0.1]))
    tensor(2.0000)
    >>> decorrelation(torch.tensor([0.3, 0.3, 0.3]), torch.tensor([0.3, 0.2, 0.1]))
    tensor(0.)
    """
    rho, variation = _correlate(target, output, dim, weight)
    return variation / (variation + faint) * (1 - rho)


def row_relation(p: Tensor, q: Tensor, weight: Tensor | None = None) -> Tensor:
    """1/N Σ_ij (p_i·p_j − q_i·q_j)², how alike rows are to one another; (N, C), (N, C) → (). MLKD, Jin et al. 2023 (CVPR), batch level.

    weight: (N,); N is then their sum. The sum over N² pairs is divided by N, as in the authors' code, so it grows with the batch.

    >>> row_relation(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    tensor(0.5000)
    """
    gap = (p @ p.mT - q @ q.mT).square()  # (N, N)
    if weight is None:
        return gap.sum() / len(p)
    return (gap * weight * weight[:, None]).sum() / weight.sum().clamp(min=torch.finfo(p.dtype).tiny)


def class_relation(p: Tensor, q: Tensor, weight: Tensor | None = None) -> Tensor:
    """1/C Σ_cd (Σ_i p_ic p_id − Σ_i q_ic q_id)², which outcomes rise together; (N, C), (N, C) → (). MLKD, Jin et al. 2023, class level.

    weight: (N,). Neither sum is divided by N, as in the authors' code, so it grows with the square of the batch.

    >>> class_relation(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    tensor(0.5000)
    """
    w = 1.0 if weight is None else weight[:, None]
    gap = p.mT @ (w * p) - q.mT @ (w * q)  # (C, C)
    return gap.square().sum() / p.shape[-1]


def _correlate(target: Tensor, output: Tensor, dim: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """ρ, and the variation of the target, Σ w (u − ū)²."""
    u, flat, variation = _direction(target, dim, weight)
    v, also, _ = _direction(output, dim, weight)
    along = u * v if weight is None else u * v * weight
    return along.sum(dim).masked_fill((flat | also).squeeze(dim), 0.0), variation.squeeze(dim)


def _direction(values: Tensor, dim: int, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Values without their mean, of length 1, along an axis; where they do not vary; their length squared. The axis is kept."""
    size = values.detach().abs().amax(dim, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    values = values / size  # squares of small probabilities would vanish
    if weight is None:
        gap = values - values.mean(dim, keepdim=True)
        length, whole = gap.square().sum(dim, keepdim=True), values.square().sum(dim, keepdim=True)
    else:
        total = weight.sum(dim, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
        gap = values - (values * weight).sum(dim, keepdim=True) / total
        length, whole = ((weight * x.square()).sum(dim, keepdim=True) for x in (gap, values))
    flat = length <= (4 * torch.finfo(values.dtype).eps) ** 2 * whole
    return gap * length.masked_fill(flat, 1.0).rsqrt(), flat, length * size.square()
