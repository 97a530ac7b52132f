"""How rows of a batch lie to each other: the words that compare relations, which need no projector whatever the widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.layers import Layers, Pair, Rows, layers, rows_of
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Relation", "cka", "rkd_angle", "rkd_distance", "similarity_preserving"]

RELATION: frozenset[Property] = frozenset({"zero", "positive", "rows", "rotation"})


@final
class Relation(Term):
    """Relations of tapped features among the rows that count: (B,), one number for each row as the anchor, or () for the batch.

    word: the name. formula: (teacher, student, batch, places) → (n,) or (), of the n rows at `places` (None: all).
    compared: the taps; several add up. arguments: what else the text says.
    least: rows below which the relation is empty: `build` refuses a first batch of fewer, a later one of fewer teaches nothing.

    Rows of weight 0 and masked rows are nobody's neighbours; other weights weigh anchors alone. A relation knows the rows it sees: the mean
    over two half batches is not that over the whole, and of several processes each relates its own rows.
    """

    compares_outputs: ClassVar[bool] = False

    def __init__(
        self,
        word: str,
        formula: Callable[[Tensor, Tensor, Batch, Tensor | None], Tensor],
        compared: Layers,
        arguments: dict[str, int],
        *keeps: Property,
        least: int,
    ) -> None:
        super().__init__()
        self._word, self.formula, self.compared, self.arguments, self.least = word, formula, compared, arguments, least
        self.student_taps, self.teacher_taps = frozenset(compared.student), frozenset(compared.teacher)
        self.keeps = RELATION.union(keeps)  # pyright: ignore[reportAttributeAccessIssue] - it depends on the formula

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        for pair in self.compared.pairs(student, teacher, repr(self)):
            if min(pair.student.dim(), pair.teacher.dim()) < 2:
                raise ObjectiveError(f"{pair.who} are not rows of features", hint="(B, D), (B, L, D) or (B, C, H, W)")
            if len(pair.student) < self.least:
                raise ObjectiveError(
                    f"{self!r} relates at least {self.least} rows, a batch has {len(pair.student)}", hint="fit(batch=64) or more"
                )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        pairs = self.compared.pairs(student, teacher, repr(self))
        rows = rows_of(batch, self.task, len(pairs[0].student), pairs[0].who)
        places = rows.chosen()
        measured = [self._layer(pair.blank(rows), batch, rows, places) for pair in pairs]
        return sum(measured[1:], measured[0])

    def _layer(self, pair: Pair, batch: Batch, rows: Rows, places: Tensor | None) -> Tensor:
        ours, theirs = (f if places is None else f.index_select(0, places) for f in (pair.student, pair.teacher))
        if len(ours) < self.least:  # a batch of leftovers: nothing to relate, and a gradient of 0
            return rows.placed(pair.student.flatten(1).sum(1) * 0.0)
        measured = self.formula(theirs, ours, batch, places)
        return measured if measured.dim() == 0 else rows.placed(measured, places)

    def __repr__(self) -> str:
        return say(self._word, **self.compared.said, **self.arguments)


def similarity_preserving(student: str | list[str] = "embedding", teacher: str | list[str] = "embedding") -> Relation:
    """Squared difference of who resembles whom; taps → (B,). SP, Tung & Mori 2019, arXiv:1907.09682, section 3.

        G = F Fᵀ, F (B, all features of a row), rows of G divided by their length;   L = Σ_layers ‖G_s − G_t‖² / B²

    student, teacher: taps of any shape and width. The paper takes the last map before the classifier; "embedding" is its mean.

    The unit is the authors' and RepDistiller's, whose weight is 3000. Noisy below 32 rows. Not centred: it sees how far features lie from
    the origin, which `rkd_distance` and `cka` do not; rows of G lose their size, which `similarity_mse` keeps.

    >>> similarity_preserving("stage3", "stage3")
    similarity_preserving(student="stage3", teacher="stage3")
    """
    compared = layers("similarity_preserving", student, teacher)
    return Relation("similarity_preserving", _plain(functional.similarity_preserving), compared, {}, "scale", least=2)


def rkd_distance(student: str | list[str] = "embedding", teacher: str | list[str] = "embedding") -> Relation:
    """Smooth L1 of the distances between rows, in units of their mean; taps → (B,). RKD-D, arXiv:1904.05068, section 3.2.1.

        ψ_ij = ‖f_i − f_j‖ / mean;   L = Σ_layers mean over i, j of smooth_l1(ψ_s, ψ_t)

    student, teacher: taps of any shape and width; the paper takes the pooled vector before the classifier, which is "embedding".

    The mean is over all B² pairs, as in the authors' code, with the weight 25 (`rkd`). Costs B² D operations and B² numbers. `rkd_angle`
    adds what three rows span; `similarity_preserving` compares products, which see the origin.

    >>> rkd_distance()
    rkd_distance(student="embedding", teacher="embedding")
    """
    compared = layers("rkd_distance", student, teacher)
    return Relation("rkd_distance", _plain(functional.rkd_distance), compared, {}, "shift", "scale", least=3)


def rkd_angle(
    student: str | list[str] = "embedding", teacher: str | list[str] = "embedding", triplets: int = 262144, seed: int = 0
) -> Relation:
    """Smooth L1 of the cosines of the angles that rows span; taps → (B,). RKD-A, arXiv:1904.05068, section 3.2.2.

        L = Σ_layers mean over i, j, k of smooth_l1(cos ∠_s(j i k), cos ∠_t(j i k)),   the angle at row i

    student, teacher: taps of any shape and width.
    triplets: while B³ is at most this, all triplets count, which is the authors' loss; 262144 is 64³, and keeps 5 MB. Of larger batches
        each row looks at so many of its pairs (j, k), with replacement, that there are about as many triplets in all: unbiased, and memory
        stays at 20 MB, where B = 256 in full would keep 310 MB. 0 takes all triplets always.
    seed: of that draw. It is a function of seed and row ids alone: the same batch looks at the same triplets, also after a restart.

    The mean over all B³, with the weight 50 (`rkd`). Distances cost B² D operations; angles come from them by the law of cosines.

    >>> rkd_angle(triplets=0)
    rkd_angle(student="embedding", teacher="embedding", triplets=0, seed=0)
    """
    if triplets < 0:
        raise ObjectiveError(f"rkd_angle(triplets={triplets})", hint="0 for all, or how many a batch looks at, such as 262144")

    def formula(theirs: Tensor, ours: Tensor, batch: Batch, places: Tensor | None) -> Tensor:
        rows = len(ours)
        if not triplets or rows**3 <= triplets:
            return functional.rkd_angle(theirs, ours)
        ids = torch.arange(rows, device=ours.device) if batch.ids is None else batch.ids.to(ours.device)
        return functional.rkd_angle(theirs, ours, _drawn(ids, rows, max(1, triplets // rows), seed))

    compared = layers("rkd_angle", student, teacher)
    return Relation("rkd_angle", formula, compared, {"triplets": triplets, "seed": seed}, "shift", "scale", least=3)


def cka(student: str | list[str] = "embedding", teacher: str | list[str] = "embedding") -> Relation:
    """1 − CKA, linear and unbiased; taps → (), one number for the batch. Kornblith et al. 2019, arXiv:1905.00414, eq. 3–4.

        L = Σ_layers 1 − HSIC₁(K, L) / √(HSIC₁(K, K) · HSIC₁(L, L)),   K = F_s F_sᵀ,  L = F_t F_tᵀ

    student, teacher: taps of any shape and width.

    HSIC₁ is the unbiased estimator of Song et al. 2012, as Nguyen et al. 2021 (arXiv:2010.15327) use it for batches; the usual biased CKA
    is near 1 for any two features once there are more of them than rows, and then there is nothing to learn. Wants 4 rows, and more for
    little noise. Does not see rotation, shift or scale: what linear models can read off the features. Of this room the one to begin with
    where widths differ: nothing is to be tuned but its weight, and 1 is its natural size. 0 at equality, 2 at most.

    >>> cka("hidden", "hidden")
    cka(student="hidden", teacher="hidden")
    """

    def formula(theirs: Tensor, ours: Tensor, batch: Batch, places: Tensor | None) -> Tensor:
        return 1 - functional.cka(theirs, ours)

    return Relation("cka", formula, layers("cka", student, teacher), {}, "shift", "scale", least=4)


def _plain(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Batch, Tensor | None], Tensor]:
    """A formula of two sets of features, which does not ask for the batch."""
    return lambda theirs, ours, batch, places: formula(theirs, ours)


def _drawn(ids: Tensor, rows: int, each: int, seed: int) -> Tensor:
    """(B,) ids → (rows, each, 2) places below `rows`, by a counter-based hash of seed, ids and count: no state, no generator."""
    key = _mixed(_mixed(ids) + seed).sum()  # of the rows as a set
    count = torch.arange(rows * each * 2, device=ids.device)
    return (_mixed(_mixed(count) ^ key) & _WHOLE).remainder(rows).reshape(rows, each, 2)


_WHOLE = (1 << 63) - 1


def _mixed(value: Tensor) -> Tensor:
    """int64 → int64, a bijection that scatters: SplitMix64's finisher (Steele et al. 2014), with shifts that bring zeros in from above."""
    value = value + -7046029254386353131
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return value ^ ((value >> 31) & ((1 << 33) - 1))
