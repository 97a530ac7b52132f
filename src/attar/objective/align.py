"""Making what two models hold inside comparable: projectors between a student's tap and a teacher's."""

from __future__ import annotations

from math import isqrt, prod
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from attar.errors import ObjectiveError

__all__ = ["Align", "Aligned", "aligned"]

Align = Literal["auto", "identity", "linear", "conv", "pool", "tokens"]

PREFIXES = (0, 1, 2, 5)  # tokens before the patches: none, a class token, DeiT's distillation token beside it, DINOv2's four registers


@final
class Aligned(nn.Module):
    """A student's and a teacher's activation → both in one shape, the teacher's width. See `aligned`, which makes it.

    form: "same" compares them as they are, "vectors" averages positions away, "maps" brings both onto the smaller grid.
    project: the learnt part, of the student's side alone; None where widths agree.
    """

    def __init__(self, form: Literal["same", "vectors", "maps"], project: nn.Linear | nn.Conv2d | None) -> None:
        super().__init__()
        self.form, self.project = form, project

    def forward(
        self, student: Tensor, teacher: Tensor, student_mask: Tensor | None = None, teacher_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(student's, teacher's) → the same two in equal shapes, float32 at least.

        student_mask, teacher_mask: (B, L) bool, which tokens are real; read where tokens are averaged. A row without any gives zeros.
        Raises ObjectiveError where the shapes of this batch do not agree, as the first batch's did.
        """
        student, teacher = _whole(student), _whole(teacher)
        if self.form == "vectors":
            student, teacher = _vector(student, student_mask), _vector(teacher, teacher_mask)
        elif self.form == "maps":
            student, teacher = _smaller(_map(student, teacher), _map(teacher, student))
        if self.project is not None:
            student = self.project(student.to(self.project.weight.dtype)).to(student.dtype)
        if student.shape != teacher.shape:
            raise ObjectiveError(
                f"a tap of {tuple(student.shape)} meets one of {tuple(teacher.shape)}, which agreed in the first batch",
                hint="do student and teacher split a row into the same positions?",
            )
        return student, teacher

    def __repr__(self) -> str:
        form = {"same": "", "vectors": "mean over positions", "maps": "mean to the smaller grid"}[self.form]
        if self.project is None:
            return form or "identity"
        outer, inner = self.project.weight.shape[:2]
        kind = "linear" if isinstance(self.project, nn.Linear) else "conv 1×1"
        return f"{form + ', ' if form else ''}{kind} {inner} → {outer}"


def aligned(how: Align, student: Tensor, teacher: Tensor, who: str) -> Aligned:
    """The module that makes a student's activation comparable with a teacher's, from one batch of both.

    how: "auto" does the least that makes the shapes agree:
            equal shapes             nothing
            (B, D) and (B, D')       linear
            (B, L, D) and (B, L, D') linear on the last axis, each token by itself
            (B, C, H, W), both       averaged to the smaller grid; a 1×1 convolution where channels differ
            map and tokens           tokens laid out as a grid, class and register tokens left out, then as two maps
            map or tokens, and (B, D) averaged over the grid or over real tokens, then linear where widths differ
        "identity" nothing, ever. "linear", "conv" as above, but learnt even where widths agree, as FitNets does. "pool" averages all
        positions of both, so that sequences of different length or tokenizers meet as vectors. "tokens" takes (B, L, D) of either side
        for patches, so that grids of different size meet.
    who: the text of the term that asks, for errors.

    The student is brought to the teacher's width, never the other way: what is taught stays as it is. Weights begin semi-orthogonal,
    scaled so that each coordinate keeps its variance (from a narrow student to a wide teacher distances and angles survive), the bias at
    0; references leave PyTorch's default, or follow it by a batch normalisation (FitNets in RepDistiller). They are drawn from the global
    CPU generator, which the caller seeds, whatever the device: one seed, one projector.
    Raises ObjectiveError for what cannot be aligned, and shows both shapes.

    >>> align = aligned("auto", torch.zeros(2, 8, 14, 14), torch.zeros(2, 50, 24), "hint()")
    >>> align, [tuple(t.shape) for t in align(torch.zeros(2, 8, 14, 14), torch.zeros(2, 50, 24))]
    (mean to the smaller grid, conv 1×1 8 → 24, [(2, 24, 7, 7), (2, 24, 7, 7)])
    """
    if how not in get_args(Align):
        raise ObjectiveError(f"{who}: align={how!r}", hint="one of " + ", ".join(get_args(Align)))
    if len(student) != len(teacher):
        raise _refused(who, how, student, teacher, "both answer the same rows")
    form = _form(how, student, teacher, who)
    learnt = how in ("linear", "conv")
    if form == "maps":
        ours, theirs = _map(student, teacher).shape[1], _map(teacher, student).shape[1]
        return Aligned(form, _conv(ours, theirs, student) if learnt or ours != theirs else None)
    if form == "vectors":
        ours, theirs = _width(student), _width(teacher)
    else:
        ours, theirs = student.shape[-1], teacher.shape[-1]
    return Aligned(form, _linear(ours, theirs, student) if learnt or ours != theirs else None)


def _form(how: Align, student: Tensor, teacher: Tensor, who: str) -> Literal["same", "vectors", "maps"]:
    """What has to happen to positions; refuses what cannot be done."""
    ranks = {student.dim(), teacher.dim()}
    if how == "auto" and student.shape == teacher.shape:
        return "same"
    if how == "identity":
        if student.shape != teacher.shape:
            raise _refused(who, how, student, teacher, 'align="auto" projects to the teacher')
        return "same"
    if ranks <= {2, 3, 4} and (how == "pool" or (how == "auto" and 2 in ranks and len(ranks) == 2)):
        return "vectors"
    if (how in ("auto", "conv") and ranks == {4}) or (how in ("auto", "tokens") and ranks == {3, 4}) or (how == "tokens" and ranks == {3}):
        for one, other in ((student, teacher), (teacher, student)):
            if one.dim() == 3 and _grid(one, other) is None:
                raise _refused(who, how, student, teacher, f"{one.shape[1]} tokens are no square of patches, with or without a class token")
        return "maps"
    if how in ("auto", "linear") and len(ranks) == 1 and student.shape[:-1] == teacher.shape[:-1] and student.dim() > 1:
        return "same"
    hints = {
        "auto": 'one tokenizer for both; or align="pool" for means of tokens, align="tokens" for patches' if ranks == {3} else "",
        "linear": "all axes but the last have to agree",
        "conv": "it wants (B, C, H, W) of both",
        "pool": "it wants (B, D), (B, L, D) or (B, C, H, W)",
        "tokens": "it wants (B, L, D) of at least one, (B, C, H, W) of the other",
    }
    raise _refused(who, how, student, teacher, hints[how] or "tap (B, D), (B, L, D) or (B, C, H, W) of both")


def _refused(who: str, how: str, student: Tensor, teacher: Tensor, hint: str) -> ObjectiveError:
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    return ObjectiveError(f'{who}: align="{how}" cannot bring {ours} of the student and {theirs} of the teacher together', hint=hint)


def _linear(inner: int, outer: int, like: Tensor) -> nn.Linear:
    layer = nn.Linear(inner, outer, device="cpu", dtype=torch.float32)
    _start(layer.weight, layer.bias)
    return layer.to(device=like.device, dtype=_precision(like))


def _conv(inner: int, outer: int, like: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(inner, outer, 1, device="cpu", dtype=torch.float32)
    assert layer.bias is not None
    _start(layer.weight, layer.bias)
    return layer.to(device=like.device, dtype=_precision(like))


def _start(weight: Tensor, bias: Tensor) -> None:
    outer, inner = weight.shape[:2]
    nn.init.orthogonal_(weight, gain=max(1.0, outer / inner) ** 0.5)
    nn.init.zeros_(bias)


def _precision(like: Tensor) -> torch.dtype:
    """Half precision does not train."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _whole(activation: Tensor) -> Tensor:
    """Half precision is too coarse to square and to sum."""
    return activation.float() if activation.dtype in (torch.float16, torch.bfloat16) else activation


def _width(activation: Tensor) -> int:
    return activation.shape[1] if activation.dim() == 4 else activation.shape[-1]


def _vector(activation: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C, H, W), (B, L, D) or (B, D) → (B, D): the mean over positions, masked ones left out."""
    if activation.dim() == 4:
        return activation.mean((2, 3))
    if activation.dim() == 2:
        return activation
    if mask is None:
        return activation.mean(1)
    real = mask[:, :, None]
    return activation.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)


def _grid(tokens: Tensor, other: Tensor) -> tuple[int, int] | None:
    """(B, L, D) → rows and columns of its patches: the other's grid where it fits, else a square; None: there is none."""
    length = tokens.shape[1]
    if other.dim() == 4:
        rows, columns = other.shape[2:]
        if length - rows * columns in PREFIXES:
            return rows, columns
    return next(((isqrt(left), isqrt(left)) for p in PREFIXES if (left := length - p) > 0 and isqrt(left) ** 2 == left), None)


def _map(activation: Tensor, other: Tensor) -> Tensor:
    """(B, L, D) → (B, D, H, W), tokens before the patches left out; a map is one already."""
    if activation.dim() == 4:
        return activation
    grid = _grid(activation, other)
    if grid is None:
        raise ObjectiveError(f"{activation.shape[1]} tokens are no square of patches, as the first batch's were")
    return activation[:, -prod(grid) :].transpose(1, 2).unflatten(2, grid)


def _smaller(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps averaged onto the smaller of their grids."""
    grid = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return _pooled(one, grid), _pooled(other, grid)


def _pooled(activation: Tensor, grid: tuple[int, int]) -> Tensor:
    return activation if tuple(activation.shape[2:]) == grid else adaptive_avg_pool2d(activation, grid)
