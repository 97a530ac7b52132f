"""Sources that have to be told of the training rows: their labels, or how common each class is among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.signal import IGNORE, Batch, Source
from attar.sources.controls import Rows

__all__ = ["Labelled", "Told", "labelled", "labels_for", "told"]


@runtime_checkable
class Told(Protocol):
    """A source that answers otherwise, or at all, once it knows the training rows. `distill`, `annotate` and `run` tell it of them."""

    def told(self, rows: Rows) -> Source:
        """The same source, told of these rows; told of the same rows again, it is the same again."""
        ...


def told(source: Source, rows: Rows) -> Source:
    """`source.told(rows)` where it wants to be told; itself otherwise."""
    return source.told(rows) if isinstance(source, Told) else source


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of rows by id: ids (N,) sorted and unique, labels (N,) or (N, L) beside them."""

    ids: Tensor
    labels: Tensor
    fingerprint: str

    def of(self, ids: Tensor) -> Tensor:
        """(B,) ids → (B,) or (B, L) labels; unknown, IGNORE, for rows that are not among these."""
        place = torch.searchsorted(self.ids, ids.cpu()).clamp(max=max(len(self.ids) - 1, 0))
        found = self.labels[place] if len(self.ids) else self.labels.new_full((len(ids), *self.labels.shape[1:]), IGNORE)
        here = self.ids[place] == ids.cpu() if len(self.ids) else torch.zeros(len(ids), dtype=torch.bool)
        return found.where(here.reshape(-1, *(1,) * (found.dim() - 1)), IGNORE)


def labelled(rows: Rows, who: str) -> Labelled:
    """The labels of `rows` by id; equal rows are one row, whose first label counts. TeacherError for a regression or without labels."""
    if rows.labels is None:
        raise TeacherError(f"{who}: the training rows have no labels", hint="it needs labels to hold the teacher against")
    if rows.labels.dtype.is_floating_point:
        raise TeacherError(f"{who}: a regression has no classes", hint="leave it out, and ask the teacher itself")
    ids, first = np.unique(rows.ids.numpy(), return_index=True)
    labels = rows.labels[torch.from_numpy(first)]
    return Labelled(torch.from_numpy(ids), labels, digest(ids, labels.numpy()))


def labels_for(batch: Batch, known: Labelled | None, who: str) -> Tensor | None:
    """The labels that may be used for a batch: of the rows that were told, else the batch's own; None where it has none."""
    if known is None:
        return batch.labels
    if batch.ids is None:
        raise TeacherError(f"{who}: a batch without ids", hint="batches of attar's data have them: content hashes of the rows")
    return known.of(batch.ids)
