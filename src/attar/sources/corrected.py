"""A teacher whose answers are moved towards the label, as far as is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import IGNORE, NOTHING, Batch, Remembering, Signal, Source, Stored, Weighed
from attar.sources.answers import FLOOR
from attar.sources.controls import Owners, Rows, training_ids
from attar.sources.told import Labelled, labelled, labels_for, told

__all__ = ["Corrected", "corrected"]


def corrected(teacher: Source, margin: float = 0.2, wrong_only: bool = False) -> Corrected:
    """The teacher, its probabilities mixed with the label's: (..., C) → log of (1 − m) p + m onehot(y), the probabilities at T = 1.

        wrong:  m = (p_max − p_y + τ) / (1 + p_max − p_y),   after which the label leads by τ
        right:  m = min(1, τ / (1 − p_y)),                   after which the label has p_y + τ, 1 at most

    margin: τ, 0..1; 0.2 is the default of NVIDIA's ModelOpt.
    wrong_only: leave answers alone whose likeliest outcome is the label, ModelOpt's apply_threshold_to_all=False.

    Minifinetuning (arXiv:2506.15702), where an answer at temperature T is corrected; here one at T = 1 is, and re-tempered by the
    objective, so that a store holds it for every temperature. What is at 1 leaves each other outcome 1e-7, not 0. The order of the other
    outcomes, the dark knowledge, stays.

    Labels are those of the training rows alone, once it is told of them: `corrected(teacher).told(data.train)`, which `distill`, `annotate`
    and `run` do by themselves. Other rows are answered as the teacher does, so that an evaluation compares with the teacher, not with the
    labels. Untold, it takes the labels of the batch. Rows without a label pass as they are.
    Needs labels that are better than the teacher; with noisy ones it teaches the noise. `gate("teacher_right")` silences a wrong teacher
    instead, `blend(kl(), labels())` lets the two pull against each other.

    Raises TeacherError for a margin out of range and for a regression.

    >>> from attar.sources.corrected import mixed
    >>> mixed(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([1]), 0.2, False).exp()
    tensor([[0.3692, 0.5692, 0.0615]])
    """
    if not 0 <= margin <= 1:
        raise TeacherError(f"corrected(margin={margin:g}): a lead in probability lies between 0 and 1", hint="0.2 is the default")
    return Corrected(teacher, float(margin), wrong_only)


@dataclass(frozen=True)
class Corrected:
    """See `corrected`. labels: of the training rows, once it is told of them."""

    source: Source
    margin: float = 0.2
    wrong_only: bool = False
    labels: Labelled | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return say("corrected", self.source, margin=self.margin, wrong_only=self.wrong_only)

    @property
    def fingerprint(self) -> str:
        told = "" if self.labels is None else self.labels.fingerprint
        return digest("corrected", self.source.fingerprint, self.margin, self.wrong_only, told)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(self.source)

    @property
    def in_fold(self) -> bool:
        return isinstance(self.source, Remembering) and self.source.in_fold

    @property
    def size_bytes(self) -> int | None:
        return self.source.size_bytes if isinstance(self.source, Weighed) else None

    @property
    def parameters(self) -> int | None:
        return self.source.parameters if isinstance(self.source, Weighed) else None

    def told(self, rows: Rows) -> Corrected:
        """The same, with the labels of these rows by id: they alone are corrected."""
        source = told(self.source, rows)
        kind = StoredCorrected if isinstance(source, Stored) else Corrected
        return kind(source, self.margin, self.wrong_only, labelled(rows, "corrected"))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        signal = self.source(batch, taps)
        return self._mixed(signal, labels_for(batch, self.labels, "corrected"))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: correcting costs nothing beside it."""
        return self.source.prepare(batch)

    def _mixed(self, signal: Signal, labels: Tensor | None) -> Signal:
        if signal.output.shape[-1] < 2:
            raise TeacherError("corrected: a regression has no outcomes to correct", hint="leave it out, and ask the teacher itself")
        if labels is None:
            return signal
        return replace(signal, output=mixed(signal.output, labels.to(signal.output.device), self.margin, self.wrong_only))


@dataclass(frozen=True, repr=False)
class StoredCorrected(Corrected):
    """`corrected` over stored answers. A handle of `locate` is the store's own; whose row it is, is remembered from there."""

    owners: Owners = field(default_factory=lambda: Owners(), repr=False, compare=False)

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        assert isinstance(self.source, Stored)  # `told` has seen to it
        rows = self.source.locate(ids, views)
        self.owners.note(rows, ids)
        return rows

    def signal(self, rows: Tensor) -> Signal:
        assert isinstance(self.source, Stored)
        assert self.labels is not None
        return self._mixed(self.source.signal(rows), self.labels.of(self.owners.of(rows)))


def mixed(output: Tensor, labels: Tensor, margin: float, wrong_only: bool) -> Tensor:
    """(..., C) logits and (...) labels → (..., C) log of the corrected probabilities; unlabelled positions as they are."""
    known = (labels != IGNORE).unsqueeze(-1)  # (..., 1)
    y = labels.where(labels != IGNORE, 0).unsqueeze(-1)  # (..., 1)
    log_p = output.log_softmax(-1)
    p = log_p.exp()
    best, place = p.max(-1, keepdim=True)
    own = p.gather(-1, y)  # p_y
    lead = best - own
    wrong = (lead + margin) / (1 + lead)
    right = torch.zeros_like(own) if wrong_only else (margin / (1 - own)).clamp(max=1.0).where(own < 1, 0.0)
    m = torch.where(place == y, right, wrong)
    answer = log_p + torch.log1p(-m)
    answer = answer.scatter(-1, y, torch.log(own * (1 - m) + m))
    answer = torch.maximum(answer, log_p.clamp(max=math.log(FLOOR)))  # nothing that was possible becomes impossible
    return torch.where(known, answer, log_p)
