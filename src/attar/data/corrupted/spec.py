"""Corruptions, declared: which kinds, how severe, on how many rows; and a split of rows so corrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.data.base import Data, Memory, Split, stacked
from attar.data.corrupted import images, tables, tensors, texts
from attar.data.ids import text_key
from attar.errors import DataError, near
from attar.identity import mix
from attar.notation import say
from attar.signal import Inputs, Schema

__all__ = ["KINDS", "SEVERITIES", "Corruptions", "Corruptor", "corruptions"]

Change = Callable[[Any, np.ndarray, int], Inputs]
"""(B, …) rows as their modality has them, (B,) uint64 keys to draw from, severity 1..5 → the same rows, corrupted."""

SEVERITIES = (1, 2, 3, 4, 5)
KINDS: Mapping[str, Mapping[str, str]] = {"images": images.KINDS, "table": tables.KINDS, "text": texts.KINDS, "tensor": tensors.KINDS}
REFERENCE = 4096  # training rows that quantiles, means and donors come from
BLOCK = 4_000_000  # numbers corrupted at a time


@dataclass(frozen=True)
class Corruptions:
    """Which corruptions are asked. See `corruptions`."""

    kinds: tuple[str, ...] | None
    severities: tuple[int, ...]
    rows: int

    def __repr__(self) -> str:
        return say("corruptions", kinds=self.kinds, severities=self.severities, rows=self.rows)

    def of(self, data: Data) -> Corruptor:
        """What does each kind to rows of these data. Raises DataError for a kind of another modality, or where none can be done."""
        known = KINDS[data.schema.kind]
        for kind in self.kinds or ():
            if kind not in known:
                homes = [name for name, kinds in KINDS.items() if kind in kinds]
                what = f"corruption {kind!r} is one of {' and '.join(homes)}, and these data are {data.schema.kind}"
                raise DataError(what, hint=f"of {data.schema.kind} there are {', '.join(known)}")
        found = _changes(data)
        chosen = {kind: found[kind] for kind in self.kinds or known}
        able = {kind: change for kind, change in chosen.items() if not isinstance(change, str)}
        if not able:
            why = "; ".join(f"{kind}: {reason}" for kind, reason in chosen.items())
            raise DataError(f"none of the corruptions can be done to these data: {why}", hint="leave corruptions() out")
        left_out = {kind: reason for kind, reason in chosen.items() if isinstance(reason, str)}
        return Corruptor(self, able, left_out)


@dataclass(frozen=True)
class Corruptor:
    """Corruptions made ready for one data set. changes: by kind. left_out: why a kind is not among them."""

    spec: Corruptions
    changes: Mapping[str, Change]
    left_out: Mapping[str, str]

    def some(self, split: Split) -> Split:
        """The rows that are to be corrupted, as they are: all, or `rows` of them, drawn by id so that other rows change nothing."""
        if len(split) <= self.spec.rows:
            return split
        order = np.argsort(mix(split.ids.numpy().view(np.uint64)), kind="stable")
        return split.take(torch.from_numpy(np.sort(order[: self.spec.rows])))

    def split(self, split: Split, kind: str, severity: int) -> Split:
        """The rows of a split under one corruption: a function of row, id, kind and severity alone.

        Labels, weights and masks are the rows' own; ids are others, for stored answers are those of the rows as they were.
        """
        change, ids = self.changes[kind], split.ids.numpy().view(np.uint64)
        keys = mix(ids ^ text_key(kind))  # the same at every severity, so that a corruption grows instead of being drawn anew
        parts = []
        for index in torch.arange(len(split)).split(_block(split.schema)):
            parts.append(change(split.rows(index), keys[index.numpy()], severity))
        new = mix(ids ^ text_key(f"{kind}, severity {severity}")).view(np.int64)
        return replace(split, name=f"{kind}, severity {severity}", ids=torch.from_numpy(new), rows=Memory(stacked(parts)), seen=None)


def corruptions(kinds: list[str] | None = None, severities: tuple[int, ...] = SEVERITIES, rows: int = 1000) -> Corruptions:
    """Test rows as noise, bad cameras, typing and broken forms make them, at five severities, for student and teacher alike.

    kinds: None is all of the data's modality.
        Images: noise, blur, brightness, contrast, fog, jpeg, pixelation, occlusion, rotation.
        Tables: missing, quantile_noise, units, shuffle, unseen.
        Texts: typos, casing, truncation, word_dropout.
        Tensors: noise, occlusion.
    severities: of 1 (mild) to 5.
    rows: so many test rows are asked, drawn by their ids; each of them once for each kind and severity, of teacher and student. With
        1,000 rows, nine kinds and five severities that is 45,000 answers of each.

    What becomes of a row depends on the row, its id, the kind and the severity alone. The certificate gives, for each kind, the
    corruption error with the teacher as reference: the student's errors over the teacher's, summed over severities; above 1 the
    student suffers more. After Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261, whose reference is AlexNet.

    >>> corruptions(kinds=["noise", "blur"], severities=[1, 3, 5])
    corruptions(kinds=["noise", "blur"], severities=[1, 3, 5], rows=1000)
    """
    every = list(dict.fromkeys(kind for known in KINDS.values() for kind in known))
    if kinds is not None and not kinds:
        raise DataError("corruptions(kinds=[]): none is asked", hint="leave kinds out for all that the data can have")
    for kind in kinds or ():
        if kind not in every:
            raise DataError(f"there is no corruption {kind!r}", hint=near(kind, every))
    if wrong := [s for s in severities if s not in SEVERITIES]:
        raise DataError(f"severity {wrong[0]} of a corruption", hint="severities are 1, 2, 3, 4, 5")
    if not severities:
        raise DataError("corruptions(severities=[]): none is asked", hint="severities=[1, 3, 5]")
    if rows < 1:
        raise DataError(f"corruptions(rows={rows}) asks nothing", hint="rows=1000")
    return Corruptions(None if kinds is None else tuple(dict.fromkeys(kinds)), tuple(sorted(set(severities))), int(rows))


def _changes(data: Data) -> dict[str, Any]:
    schema = data.schema
    if schema.kind == "text":
        return {**texts.changes()}
    if schema.kind == "images":
        return {**images.changes(schema)}
    reference = _reference(data.train)
    if isinstance(reference, Tensor):
        return {**tensors.changes(reference)}
    return {**tables.changes(schema, reference)}


def _reference(train: Split) -> Inputs:
    """Some training rows, drawn by id."""
    order = np.argsort(mix(train.ids.numpy().view(np.uint64)), kind="stable")
    return train.rows(torch.from_numpy(np.sort(order[:REFERENCE])))


def _block(schema: Schema) -> int:
    """How many rows are corrupted at a time."""
    return max(1, BLOCK // max(1, int(np.prod(schema.shape or (len(schema.columns) or 1000,)))))
