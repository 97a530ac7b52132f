"""Which taps of both sides a term compares, and which of their rows and tokens count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attar.errors import ObjectiveError, near
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Layers", "Pair", "Rows", "layers", "rows_of", "tapped", "tokens"]


@dataclass(frozen=True)
class Layers:
    """Taps of the student and of the teacher, of equal number: the i-th of one is compared with the i-th of the other."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]

    @property
    def said(self) -> dict[str, str | tuple[str, ...]]:
        """The two arguments as a recipe writes them: one tap by itself, several as a list."""
        return {
            "student": self.student[0] if len(self.student) == 1 else self.student,
            "teacher": self.teacher[0] if len(self.teacher) == 1 else self.teacher,
        }

    def pairs(self, student: Signal, teacher: Signal | None, who: str) -> list[Pair]:
        """Both sides' activations, layer by layer. Raises ObjectiveError: a tap that a signal lacks, batches of different size."""
        assert teacher is not None  # the objective has seen to it
        found = []
        for ours, theirs in zip(self.student, self.teacher, strict=True):
            pair = Pair(
                tapped(student, ours, f"{who}: the student"),
                tapped(teacher, theirs, f"{who}: the teacher"),
                tokens(student, ours),
                tokens(teacher, theirs),
                f'{who}: "{ours}" of the student and "{theirs}" of the teacher',
            )
            if len(pair.student) != len(pair.teacher):
                raise ObjectiveError(
                    f"{pair.who} have {len(pair.student)} and {len(pair.teacher)} rows", hint="both sides answer the same rows"
                )
            found.append(pair)
        return found


@dataclass(frozen=True)
class Pair:
    """Two activations of the same rows, and which of their tokens are real: (B, L) bool, None where all are, or where there are none."""

    student: Tensor
    teacher: Tensor
    student_mask: Tensor | None
    teacher_mask: Tensor | None
    who: str

    def blank(self, rows: Rows) -> Pair:
        """The same with 0 where a row or a token does not count, so that no NaN there leaks through 0 · NaN."""
        return Pair(
            _blank(self.student, rows.there, self.student_mask),
            _blank(self.teacher, rows.there, self.teacher_mask),
            self.student_mask,
            self.teacher_mask,
            self.who,
        )

    def mask(self) -> Tensor | None:
        """(B, L), the tokens that are real on both sides, which must have one length. Raises ObjectiveError with both lengths."""
        ours, theirs = (_length(self.student), _length(self.teacher))
        if ours != theirs:
            raise ObjectiveError(
                f"{self.who} have {ours} and {theirs} tokens",
                hint='one tokenizer and one length for both; hint(align="pool") compares means',
            )
        if self.student_mask is None or self.teacher_mask is None:
            return self.teacher_mask if self.student_mask is None else self.student_mask
        return self.student_mask & self.teacher_mask

    def check(self) -> None:
        """Raises ObjectiveError where both sides have tokens of one length and disagree which are real: they split text differently."""
        ours, theirs = self.student_mask, self.teacher_mask
        if ours is None or theirs is None or ours.shape != theirs.shape or torch.equal(ours, theirs):
            return
        row = int((ours != theirs).any(1).nonzero()[0])
        raise ObjectiveError(
            f"{self.who}: row {row} has {int(ours[row].sum())} and {int(theirs[row].sum())} real tokens",
            hint='two tokenizers: their tokens are not the same places of a text; hint(align="pool") compares means',
        )


@dataclass(frozen=True)
class Rows:
    """What the n rows of a tap are to the batch.

    there: (n,) bool, which of them count: the mask lets some position of them count and their weight is not 0; None: all.
    shape: of what a term answers, (B,), or (B, K) where a tap has a row for each text. held: (B, K) bool, the texts that have one.
    """

    there: Tensor | None
    shape: tuple[int, ...]
    held: Tensor | None = None

    def chosen(self) -> Tensor | None:
        """(m,) int64, the places of the rows that count; None: all."""
        return None if self.there is None else self.there.nonzero()[:, 0]

    def placed(self, measured: Tensor, places: Tensor | None = None) -> Tensor:
        """Numbers of the n rows, or of those at `places`, as the batch has them, (B,) or (B, K); 0 elsewhere."""
        if places is not None:
            assert self.there is not None
            measured = measured.new_zeros(len(self.there)).index_copy(0, places, measured)
        if self.held is not None:
            return measured.new_zeros(self.shape).masked_scatter(self.held, measured)
        return measured.reshape(self.shape)


def layers(word: str, student: str | list[str], teacher: str | list[str]) -> Layers:
    """The taps that a word's two arguments name; ObjectiveError for lists of different length, or an empty one."""
    ours, theirs = ((taps,) if isinstance(taps, str) else tuple(taps) for taps in (student, teacher))
    if len(ours) != len(theirs) or not ours:
        raise ObjectiveError(
            f"{word}() compares {len(ours)} tap{'s' * (len(ours) != 1)} of the student with {len(theirs)} of the teacher",
            hint='lists of one length: student=["hidden.1", "hidden.2"], teacher=["hidden.3", "hidden.6"]',
        )
    return Layers(ours, theirs)


def tapped(signal: Signal, tap: str, who: str) -> Tensor:
    """A tap of a signal; ObjectiveError where the signal does not carry it."""
    if tap not in signal.taps:
        hint = near(tap, signal.taps) or "ask for it: source(batch, objective.teacher_taps); a store keeps the taps it was made with"
        raise ObjectiveError(f"{who} answers without the tap {tap!r}", hint=hint)
    return signal.taps[tap]


def tokens(signal: Signal, tap: str) -> Tensor | None:
    """(B, L) bool, which tokens of a tap (B, L, D) or (B, heads, L, L) are real; None where the tap has no such axis, or all are."""
    mask, held = signal.masks.get(tap), signal.taps[tap]
    return mask if mask is not None and held.dim() >= 3 and mask.shape == (len(held), _length(held)) else None


def rows_of(batch: Batch, task: Task, answers: int, who: str) -> Rows:
    """What the `answers` rows of a tap are: the rows of the batch, or, of an embedding, its texts, those that are missing left out or not.

    Raises ObjectiveError where they are neither.
    """
    mask, weight, count = batch.mask, batch.weight, len(batch)
    weighed = None if weight is None else weight != 0
    if task.kind == "embedding" and answers != count:
        texts = mask if mask is not None and mask.shape == (count, task.texts) else None
        if answers == count * task.texts:
            there = _both(None if texts is None else texts.flatten(), None if weighed is None else weighed.repeat_interleave(task.texts))
            return Rows(there, (count, task.texts))
        if texts is not None and answers == int(texts.sum()):
            return Rows(None if weighed is None else weighed[:, None].expand(texts.shape)[texts], (count, task.texts), texts)
    if answers != count:
        raise ObjectiveError(f"{who} have {answers} rows, the batch has {count}", hint="tap what has one row for each row of the data")
    return Rows(_both(mask.flatten(1).any(1) if mask is not None and mask.dim() > 1 else mask, weighed), (count,))


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _length(held: Tensor) -> int:
    """Tokens of (B, L, D), or of scores (B, heads, L, L)."""
    return held.shape[-1] if held.dim() == 4 else held.shape[1]


def _blank(held: Tensor, there: Tensor | None, mask: Tensor | None) -> Tensor:
    if there is not None:
        held = held.masked_fill(~there.reshape(-1, *(1,) * (held.dim() - 1)), 0.0)
    if mask is None:
        return held
    if held.dim() == 4:
        return held.masked_fill(~(mask[:, None, None, :] & mask[:, None, :, None]), 0.0)
    return held.masked_fill(~mask[:, :, None], 0.0)
