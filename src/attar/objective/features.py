"""What a net holds inside, place by place: the words that compare tapped features after bringing them into one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, cast, final

from torch import Tensor, nn

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.align import Align, Aligned, aligned
from attar.objective.layers import Layers, Pair, layers, rows_of, tapped
from attar.signal import NOTHING, Batch, Signal
from attar.task import Task

__all__ = ["AttentionTransfer", "Feature", "Regrasp", "attention_transfer", "hint", "regrasp"]

ROWWISE: frozenset[Property] = frozenset({"positive", "rows", "accumulation"})


@final
class Feature(Term):
    """Tapped features, projected to the teacher's shape and compared position by position: (B,), the mean over what is real of a row.

    word: the name. formula: (teacher, student) → (...), reduces the last axis, which is that of features.
    compared: the taps; several add up. align: how the student's are brought to the teacher's shape, see `aligned`; each layer has a
        projector of its own, made by `build`, trained with the student and left behind with the objective.
    keeps: what the formula promises; "zero" falls away where a projector is learnt even between equal widths.
    """

    compares_outputs: ClassVar[bool] = False

    def __init__(
        self, word: str, formula: Callable[[Tensor, Tensor], Tensor], compared: Layers, align: Align, *keeps: Property, least: int = 2
    ) -> None:
        super().__init__()
        self.align: Align = align
        self._word, self.formula, self.compared, self.least = word, formula, compared, least
        self.student_taps, self.teacher_taps = frozenset(compared.student), frozenset(compared.teacher)
        zero: frozenset[Property] = frozenset() if align in ("linear", "conv") else frozenset({"zero"})
        self.keeps = ROWWISE.union(keeps) | zero  # pyright: ignore[reportAttributeAccessIssue] - it depends on the arguments
        self.aligns = nn.ModuleList()

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        """Makes a projector for each layer. Raises ObjectiveError for shapes that cannot be brought together."""
        super().build(student, teacher, task)
        made = []
        for pair in self.compared.pairs(student, teacher, repr(self)):
            if min(pair.student.dim(), pair.teacher.dim()) < self.least:
                raise ObjectiveError(
                    f"{pair.who} have the shapes {tuple(pair.student.shape)} and {tuple(pair.teacher.shape)}",
                    hint="it compares tokens, (B, L, D)" if self.least == 3 else "rows of features: (B, D), (B, L, D) or (B, C, H, W)",
                )
            if self.least == 3:
                pair.mask()
            made.append(aligned(self.align, pair.student, pair.teacher, repr(self)))
            if pair.student.dim() == pair.teacher.dim() == 3 and made[-1].form == "same":
                pair.check()
        self.aligns = nn.ModuleList(made)

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        pairs = self.compared.pairs(student, teacher, repr(self))
        rows = rows_of(batch, self.task, len(pairs[0].student), pairs[0].who)
        measured = [self._layer(cast(Aligned, align), pair.blank(rows)) for align, pair in zip(self.aligns, pairs, strict=True)]
        return rows.placed(sum(measured[1:], measured[0]))

    def _layer(self, align: Aligned, pair: Pair) -> Tensor:
        """(B,), the mean of one layer over positions that are real."""
        tokens = align.form == "same" and pair.student.dim() == 3
        mask = pair.mask() if tokens else None
        ours, theirs = align(pair.student, pair.teacher, pair.student_mask, pair.teacher_mask)
        if ours.dim() == 4:
            ours, theirs = ours.movedim(1, -1), theirs.movedim(1, -1)
        gap = self.formula(theirs, ours)
        if mask is not None:
            return gap.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        return gap.flatten(1).mean(1) if gap.dim() > 1 else gap

    def __repr__(self) -> str:
        return say(self._word, **self.compared.said, align=self.align)


@final
class AttentionTransfer(Term):
    """Where maps are bright; the word `attention_transfer`."""

    compares_outputs: ClassVar[bool] = False

    def __init__(self, compared: Layers, power: float, form: Literal["code", "paper"]) -> None:
        super().__init__()
        if not power >= 1:
            raise ObjectiveError(f"attention_transfer(power={power:g})", hint="power ≥ 1; below, a dark place has an infinite gradient")
        if form not in ("code", "paper"):
            raise ObjectiveError(f"attention_transfer(form={form!r})", hint='"code" or "paper"')
        self.form: Literal["code", "paper"] = form
        self.compared, self.power = compared, float(power)
        self.student_taps, self.teacher_taps = frozenset(compared.student), frozenset(compared.teacher)
        turns: frozenset[Property] = frozenset({"rotation"}) if power == 2 else frozenset()  # the sum of squares is a length
        self.keeps = ROWWISE | {"zero", "scale"} | turns  # pyright: ignore[reportAttributeAccessIssue] - it depends on the arguments

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        for pair in self.compared.pairs(student, teacher, repr(self)):
            dims = pair.student.dim(), pair.teacher.dim()
            if dims not in ((3, 3), (4, 4)):
                raise ObjectiveError(
                    f"{pair.who} have the shapes {tuple(pair.student.shape)} and {tuple(pair.teacher.shape)}",
                    hint="it compares maps, (B, C, H, W), or tokens, (B, L, D), of both; hint() aligns one to the other",
                )
            if dims == (3, 3):
                pair.mask()
                pair.check()

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        pairs = self.compared.pairs(student, teacher, repr(self))
        rows = rows_of(batch, self.task, len(pairs[0].student), pairs[0].who)
        measured = []
        for pair in (p.blank(rows) for p in pairs):
            mask = pair.mask() if pair.student.dim() == 3 else None
            measured.append(functional.attention_transfer(pair.teacher, pair.student, self.power, self.form, mask))
        return rows.placed(sum(measured[1:], measured[0]))

    def __repr__(self) -> str:
        return say("attention_transfer", **self.compared.said, power=self.power, form=self.form)


@final
class Regrasp(Term):
    """What the teacher's own head says of the student's features, against what the teacher says; the word `regrasp`."""

    compares_outputs: ClassVar[bool] = False
    keeps: ClassVar[frozenset[Property]] = frozenset({"zero", "positive", "rows", "accumulation"})

    def __init__(self, student: str) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = frozenset({student}), NOTHING
        self.tap = student

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        assert teacher is not None
        ours, theirs = task.canonical(tapped(student, self.tap, f"{self!r}: the student")), teacher.output
        if ours.shape != theirs.shape:
            raise ObjectiveError(
                f"{self!r}: the tap answers {tuple(ours.shape)}, the teacher {tuple(theirs.shape)}",
                hint='the head must be this teacher\'s: graft(..., onto=teacher, output="student")',
            )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        ours = self.task.canonical(tapped(student, self.tap, f"{self!r}: the student"))
        there = rows_of(batch, self.task, len(ours), repr(self)).there
        if there is not None:
            ours = ours.masked_fill(~there.reshape(-1, *(1,) * (ours.dim() - 1)), 0.0)
        return functional.squared_error(teacher.output, ours)

    def __repr__(self) -> str:
        return say("regrasp", student=self.tap)


def hint(student: str | list[str], teacher: str | list[str], align: Align = "auto") -> Feature:
    """Mean squared difference of features, the student's projected to the teacher's shape; taps → (B,). FitNets, arXiv:1412.6550, eq. 3.

        L = Σ_layers mean over positions and channels of (r(F_s) − F_t)²,   r the projector

    student, teacher: taps, (B, D), (B, L, D) or (B, C, H, W); lists of equal length compare several layers, which add up.
    align: what brings the student's to the teacher's shape, "auto" what is needed: nothing, a linear map, a 1 × 1 convolution, a mean over
        the grid. "linear" and "conv" learn one even between equal shapes, as the paper does.

    A mean over elements, as in RepDistiller and mdistiller, whose weight of 100 carries over; the paper takes half the sum. Their projector
    ends in batch normalisation and ReLU, this one is linear. The paper trains by hints first and distils afterwards: two ramps. Of padded
    tokens nothing is asked, and each row counts alike, however many tokens it has. Helps where student and teacher are of one family;
    alone, it falls below no distillation at all in 4 of RepDistiller's 13 pairs. `similarity_preserving`, `rkd_distance` and `cka` need no
    projector, for they compare how rows lie to each other; `attention_transfer` needs none, for it looks where maps are bright.

    >>> hint("stage3", "stage3")
    hint(student="stage3", teacher="stage3", align="auto")
    """
    return Feature("hint", functional.squared_error, layers("hint", student, teacher), align)


def attention_transfer(
    student: str | list[str], teacher: str | list[str], power: float = 2.0, form: Literal["code", "paper"] = "code"
) -> AttentionTransfer:
    """Distance of maps of where activations are strong, each of length 1; taps → (B,). AT, arXiv:1612.03928, section 3.1, eq. 2.

        a = Q / ‖Q‖₂, Q = vec(mean_c |F_c|^p);   code: L = Σ_layers mean over positions of (a_s − a_t)²;   paper: Σ_layers ‖a_s − a_t‖₂

    student, teacher: taps, maps (B, C, H, W) of both or tokens (B, L, D) of both; channels need not agree, and maps of different size are
        averaged to the smaller one first.
    power: p ≥ 1; 2 is the authors'.
    form: "code" is what the authors' repository, RepDistiller and mdistiller compute, with a weight of 1000; "paper" is the paper's eq. 2
        without its β/2, not squared and not averaged: for the same pull it wants a weight smaller by the number of positions.

    No projector: only the place counts, not the channel, so it cannot teach what is seen there. `hint` can. In `torchdistill`, too, the two
    forms are kept apart; they are two losses under one name elsewhere.

    >>> attention_transfer(["stage2", "stage3"], ["stage2", "stage3"])
    attention_transfer(student=["stage2", "stage3"], teacher=["stage2", "stage3"], power=2.0, form="code")
    """
    return AttentionTransfer(layers("attention_transfer", student, teacher), power, form)


def regrasp(student: str = "regrasped") -> Regrasp:
    """Squared difference of the teacher's answer and of what its head makes of the student's features; tap → (B,). SRRL, ICLR 2021.

        L = 1/C Σ_c (h_t(r(f_s)) − z_t)²_c,   h_t the teacher's head, frozen, r the projector

    student: the tap with the answer (B, C) of the teacher's head; `graft(..., output="student")` makes a student that has it.

    Yang et al. 2021, "Knowledge distillation via softmax regression representation learning"; the mean over outcomes and its weight of 1
    are the authors'. Unlike `mse` it looks at the student's features through the teacher's eyes, not at the student's answer; not centred,
    because the head is the teacher's own. `srrl` is it and `hint`.

    >>> regrasp()
    regrasp(student="regrasped")
    """
    return Regrasp(student)
