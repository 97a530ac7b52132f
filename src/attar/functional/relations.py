"""Relations: how rows lie to each other, where a map is bright, which token attends to which; teacher first, student second.

The number of features may differ from one side to the other: each side is reduced to a relation of its own, and relations are compared.
Terms that relate rows answer (n,), one number for each row as the anchor, whose mean is the paper's number: n rows in, each of them
related to all. Half precision is widened before anything is squared.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, smooth_l1_loss

from attar.functional.divergences import kl

__all__ = [
    "attention_kl",
    "attention_map",
    "attention_transfer",
    "cka",
    "relation_kl",
    "rkd_angle",
    "rkd_distance",
    "similarity",
    "similarity_kl",
    "similarity_mse",
    "similarity_preserving",
]


def attention_map(features: Tensor, power: float = 2.0) -> Tensor:
    """Where a map is bright, (B, C, H, W) → (B, H·W), (B, L, D) → (B, L): mean over channels of |F|^p. arXiv:1612.03928, section 3.1.

    power: p ≥ 1; more of it looks at the brightest spots alone.

    >>> attention_map(torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]))
    tensor([[5., 2.]])
    """
    wide = _wide(features)
    bright = wide.square() if power == 2 else wide.abs().pow(power)
    return bright.mean(-1) if features.dim() == 3 else bright.mean(1).flatten(1)


def attention_transfer(
    teacher: Tensor, student: Tensor, power: float = 2.0, form: Literal["code", "paper"] = "code", mask: Tensor | None = None
) -> Tensor:
    """Distance of unit-length attention maps; (B, C, H, W), (B, C', H', W') → (B,), tokens (B, L, D) likewise. arXiv:1612.03928, eq. 2.

        a = Q / ‖Q‖₂, Q = vec(mean_c |F|^p);   code: mean over positions of (a_s − a_t)²;   paper: ‖a_s − a_t‖₂

    power: p. form: "code" is what the authors' repository and everyone after it computes, "paper" the formula of the paper.
    mask: (B, L) bool, which tokens are real; the others take no part.
    Maps of different size are averaged to the smaller height and width first.

    >>> map = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> attention_transfer(map, 4 * map), attention_transfer(map, map.flip(-1), form="paper")
    (tensor([0.]), tensor([0.5724]))
    """
    if teacher.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        grid = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        teacher, student = adaptive_avg_pool2d(_wide(teacher), grid), adaptive_avg_pool2d(_wide(student), grid)
    bright = [attention_map(features, power) for features in (student, teacher)]
    if mask is not None:
        bright = [b.masked_fill(~mask, 0.0) for b in bright]
    gap = _unit(bright[0]) - _unit(bright[1])
    if form == "paper":
        return torch.linalg.vector_norm(gap, dim=-1)
    return gap.square().mean(-1) if mask is None else gap.square().sum(-1) / mask.sum(-1).clamp(min=1)


def similarity_preserving(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference of row-normalised Gram matrices; (n, ...), (n, ...) → (n,). Tung & Mori 2019, arXiv:1907.09682, section 3.

        G = F Fᵀ, each row divided by its length;   L_i = 1/n Σ_j (G_s − G_t)²_ij

    Features are flattened. The mean over rows is ‖G_s − G_t‖² / n², the paper's.

    >>> rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> similarity_preserving(rows, rows.flip(1)), similarity_preserving(rows, rows[:, :1])
    (tensor([0., 0., 0.]), tensor([0.0000, 0.1953, 0.3333]))
    """
    ours, theirs = (_unit(f @ f.T) for f in (_flat(student), _flat(teacher)))
    return (ours - theirs).square().mean(-1)


def rkd_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Smooth L1 of distances between rows, each side's in units of its mean; (n, ...), (n, ...) → (n,). RKD, arXiv:1904.05068, 3.2.1.

        ψ_ij = ‖f_i − f_j‖ / μ,  μ the mean over pairs that differ;   L_i = 1/n Σ_j smooth_l1(ψ_s, ψ_t)

    The mean over rows counts the n pairs of a row with itself, as the references do.

    >>> rows = torch.tensor([[0.0], [1.0], [3.0]])
    >>> rkd_distance(rows, 7 * rows)
    tensor([0., 0., 0.])
    """
    ours, theirs = _in_means(_distances(student)), _in_means(_distances(teacher))
    return smooth_l1_loss(ours, theirs, reduction="none").mean(-1)


def rkd_angle(teacher: Tensor, student: Tensor, pairs: Tensor | None = None) -> Tensor:
    """Smooth L1 of the angles that rows span, seen from each row; (n, ...), (n, ...) → (n,). RKD, arXiv:1904.05068, 3.2.2.

        L_i = mean over j, k of smooth_l1(cos ∠_s(j i k), cos ∠_t(j i k)),   cos ∠ = (d_ij² + d_ik² − d_jk²) / (2 d_ij d_ik)

    pairs: (n, m, 2) int64, the (j, k) that each row i looks at; None: all n², and n³ numbers in memory.
    By the law of cosines angles come from the n × n distances, whatever the number of features. An angle at or to a row in the same place
    counts 0, as in the references.

    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rkd_angle(corner, 4 * corner), rkd_angle(corner, corner[:, :1])
    (tensor([0., 0., 0.]), tensor([0.0556, 0.0095, 0.1111]))
    """
    ours, theirs = _cosines(_distances(student), pairs), _cosines(_distances(teacher), pairs)
    return smooth_l1_loss(ours, theirs, reduction="none").flatten(1).mean(-1)


def cka(teacher: Tensor, student: Tensor, unbiased: bool = True) -> Tensor:
    """Linear centred kernel alignment of two sets of features, −1..1; (n, ...), (n, ...) → (). Kornblith et al. 2019, arXiv:1905.00414.

        HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)),   K = F_s F_sᵀ,  L = F_t F_tᵀ

    unbiased: HSIC₁ of Song et al. 2012, used for mini-batches by Nguyen et al. 2021, arXiv:2010.15327: Gram matrices without diagonal,
        U-centred; it wants n ≥ 4, and is near 0 for unrelated features, where the biased one grows with features over rows: .72 on three
        rows of four. False: the usual one, of column-centred features, 0..1.
    Does not change if either side is rotated, shifted or scaled as a whole. Features that are all alike give 0.

    >>> rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 1.0]])
    >>> cka(rows, 3 * rows.flip(1) + 1), cka(rows, 3 * rows.flip(1) + 1, unbiased=False)
    (tensor(1.0000), tensor(1.))
    """
    centre = _u_centred if unbiased else _centred
    ours, theirs = (centre(_flat(f - f.mean(0, keepdim=True))) for f in (_wide(student), _wide(teacher)))
    shared = (ours * theirs).sum()
    size = (ours.square().sum() * theirs.square().sum()).clamp(min=torch.finfo(shared.dtype).tiny)
    return shared / size.sqrt()


def similarity(features: Tensor) -> Tensor:
    """Cosines of all rows with all; (n, D) → (n, n)."""
    unit = _unit(_flat(features))
    return unit @ unit.T


def similarity_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference of the matrices of cosines; (n, D), (n, D') → (n,): L_i = 1/n Σ_j (S_s − S_t)²_ij.

    Unlike `similarity_preserving` rows of the matrix keep their size: two texts as close as .9 must be .9 apart for the student too.
    """
    return (similarity(student) - similarity(teacher)).square().mean(-1)


def similarity_kl(teacher: Tensor, student: Tensor, temperature: float = 0.05) -> Tensor:
    """KL of whom a row lies near, itself left out; (n, D), (n, D') → (n,), without T². SEED, arXiv:2101.04731, within a batch.

        L_i = KL(p_i ‖ q_i),   p_ij = softmax over j ≠ i of cos(t_i, t_j) / T,  q likewise of the student

    temperature: T, in units of cosine.
    """
    self_ = torch.eye(len(student), dtype=torch.bool, device=student.device)
    ours, theirs = ((similarity(f) / temperature).masked_fill(self_, -torch.inf).log_softmax(-1) for f in (student, teacher))
    return kl(theirs, ours)


def attention_kl(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL of attention distributions from scores before the softmax; (B, heads, L, L), the same → (B, heads, L).

    MiniLM, arXiv:2002.10957, section 3.1.

    mask: (B, L) bool, which tokens are real: the others are attended to by nobody, and their own attention counts 0.
    """
    ours, theirs = _wide(student), _wide(teacher)
    if mask is not None:
        keys, queries = mask[:, None, None, :], mask[:, None, :, None]
        # a padded query attends evenly, to everything: any finite row will do, for what it says is put to 0
        ours, theirs = (s.masked_fill(~queries, 0.0).masked_fill(queries & ~keys, -torch.inf) for s in (ours, theirs))
    gap = kl(theirs.log_softmax(-1), ours.log_softmax(-1))
    return gap if mask is None else gap.masked_fill(~mask[:, None, :], 0.0)


def relation_kl(teacher: Tensor, student: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """KL of self-relations, softmax(X Xᵀ / √d_r); (B, L, D), (B, L, D') → (B, heads, L). MiniLMv2, arXiv:2012.15828.

    heads: relation heads A_r into which each side's vectors are cut, d_r = D / A_r of them in each; D and D' may differ.
    mask: (B, L) bool, which tokens are real, as for `attention_kl`.

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    >>> relation_kl(tokens, tokens.flip(-1), heads=1).shape
    torch.Size([1, 1, 3])
    """
    return attention_kl(_self_scores(teacher, heads), _self_scores(student, heads), mask)


def _self_scores(vectors: Tensor, heads: int) -> Tensor:
    """(B, L, D) → (B, heads, L, L), X Xᵀ / √d_r of each head."""
    x = _wide(vectors).unflatten(-1, (heads, -1)).transpose(1, 2)
    return x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5


def _distances(features: Tensor) -> Tensor:
    """(n, ...) → (n, n), from differences, not from products: a row lies 0 from its twin, and the gradient there is 0."""
    flat = _flat(features)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")


def _in_means(distances: Tensor) -> Tensor:
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.clamp(min=torch.finfo(mean.dtype).tiny)


def _cosines(distances: Tensor, pairs: Tensor | None) -> Tensor:
    """(n, n) → (n, n, n), entry (i, j, k) the cosine at i between j and k; or of (n, m, 2) pairs, (n, m)."""
    if pairs is None:
        to_j, to_k, across = distances[:, :, None], distances[:, None, :], distances[None]
    else:
        j, k = pairs.unbind(-1)
        to_j, to_k, across = distances.gather(1, j), distances.gather(1, k), distances[j, k]
    sides = 2 * to_j * to_k
    flat = sides == 0
    return ((to_j.square() + to_k.square() - across.square()) / sides.masked_fill(flat, 1.0)).masked_fill(flat, 0.0)


def _centred(features: Tensor) -> Tensor:
    """The Gram matrix of column-centred features."""
    return features @ features.T


def _u_centred(features: Tensor) -> Tensor:
    """The Gram matrix without its diagonal, centred so that products of two such matrices are unbiased: Székely & Rizzo 2014, eq. 3.1."""
    n = len(features)
    self_ = torch.eye(n, dtype=torch.bool, device=features.device)
    gram = (features @ features.T).masked_fill(self_, 0.0)
    rows = gram.sum(1)
    return (gram - (rows[:, None] + rows[None]) / (n - 2) + gram.sum() / ((n - 1) * (n - 2))).masked_fill(self_, 0.0)


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1 along the last axis; 0 stays 0, with a gradient of ordinary size, where F.normalize has one of 10¹²."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length == 0, 1.0)


def _flat(features: Tensor) -> Tensor:
    return _wide(features).flatten(1)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
