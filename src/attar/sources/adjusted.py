"""A teacher from whose logits the training rows' imbalance is taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import IGNORE, NOTHING, Batch, Remembering, Signal, Source, Stored, Weighed
from attar.sources.controls import Rows, outcomes_of, training_ids
from attar.sources.told import labelled, told

__all__ = ["Adjusted", "adjusted"]


def adjusted(teacher: Source, tau: float = 1.0) -> Adjusted:
    """The teacher without the training rows' imbalance: (..., C) logits → z − τ log π, π the share of each class in training labels.

    tau: τ; 0 leaves the teacher alone, 1 suits balanced accuracy: what the teacher would say if all classes were equally common. 1 is the
        paper's default.

    Menon et al. 2021, arXiv:2007.07314, post-hoc: they adjust a model's own decisions; here its student learns the adjusted ones.
    A student inherits its teacher's neglect of rare classes. Its accuracy over all rows, where common classes rule, falls in exchange. A
    class without a training row counts as if it had one. Many labels are adjusted label by label.

    It has to be told of the training rows: `adjusted(teacher).told(data.train)`, which `distill`, `annotate` and `run` do by themselves.
    All rows are answered so, and the student is held against this teacher.
    Raises TeacherError for a regression, for rows without labels, and if asked before it is told.

    >>> adjusted(teacher).told(data.train)        # doctest: +SKIP
    """
    if not tau >= 0:
        raise TeacherError(f"adjusted(tau={tau:g}) would favour the common classes", hint="tau=1.0 takes the imbalance away")
    return Adjusted(teacher, float(tau))


@dataclass(frozen=True)
class Adjusted:
    """See `adjusted`. shift: τ log π, (C,), or (L, 2) of many labels, once it is told of the training rows."""

    source: Source
    tau: float = 1.0
    shift: Tensor | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return say("adjusted", self.source, tau=self.tau)

    @property
    def fingerprint(self) -> str:
        return digest("adjusted", self.source.fingerprint, self.tau, "" if self.shift is None else self.shift.numpy())

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

    def told(self, rows: Rows) -> Adjusted:
        """The same, told of the rows whose labels say how common each class is."""
        labelled(rows, "adjusted")  # refuses what has no classes
        known = rows.labels  # of every row: those that are equal count as often as they come
        assert known is not None
        counts = torch.nn.functional.one_hot(known.clamp(min=0), outcomes_of(rows)) * (known != IGNORE).unsqueeze(-1)
        counts = counts.sum(0).clamp(min=1).double()  # (C,) or (L, 2)
        shift = self.tau * (counts / counts.sum(-1, keepdim=True)).log().float()
        source = told(self.source, rows)
        return (StoredAdjusted if isinstance(source, Stored) else Adjusted)(source, self.tau, shift)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return self._shifted(self.source(batch, taps))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: adjusting costs nothing beside it."""
        return self.source.prepare(batch)

    def _shifted(self, signal: Signal) -> Signal:
        if self.shift is None:
            raise TeacherError("adjusted: nobody has told it how common the classes are", hint="adjusted(teacher).told(data.train)")
        output = signal.output
        if output.shape[-self.shift.dim() :] != self.shift.shape:
            raise TeacherError(
                f"adjusted: answers {tuple(output.shape[1:])} a row, the training rows have {tuple(self.shift.shape)}",
                hint="a teacher of the same classes, and its training rows",
            )
        return replace(signal, output=output - self.shift.to(output))


@dataclass(frozen=True, repr=False)
class StoredAdjusted(Adjusted):
    """`adjusted` over stored answers."""

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        assert isinstance(self.source, Stored)  # `told` has seen to it
        return self.source.locate(ids, views)

    def signal(self, rows: Tensor) -> Signal:
        assert isinstance(self.source, Stored)
        return self._shifted(self.source.signal(rows))
