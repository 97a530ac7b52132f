"""Data: four splits of raw rows, and batches of them by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from attar.data.deal import SPLITS
from attar.data.groups import Group
from attar.errors import DataError
from attar.identity import digest
from attar.notation import Called
from attar.signal import IGNORE, Batch, Inputs, Schema, Texts

__all__ = ["Asked", "Data", "Described", "Description", "Kind", "Memory", "Split", "Whole", "assemble", "fingerprint", "stacked"]

Kind = Literal["classification", "multilabel", "regression", "embedding"]
Asked = Literal["auto", "classification", "multilabel", "regression", "embedding"]


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows, asked for by position.

    ids: (N,) int64, the hash of each row's content; equal rows have equal ids, and lie in one split.
    labels: as in Batch, or None where there are none.
    weight: (N,) float32, or None where all rows weigh alike.
    rows: (B,) positions → inputs of these rows as they are.
    seen: (B,) positions, (B,) ids, (B,) views → inputs as augmented; None where nothing is augmented.
    mask: (N, K) bool, which texts of a row are there, where each is answered by itself; None: all.
    groups: the declared ways to part the rows, by column; none is made of two columns.
    """

    name: str
    ids: Tensor
    labels: Tensor | None
    weight: Tensor | None
    schema: Schema
    rows: Callable[[Tensor], Inputs]
    seen: Callable[[Tensor, Tensor, Tensor], Inputs] | None = None
    mask: Tensor | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self):,} rows>"

    @cached_property
    def complete(self) -> bool:
        """Whether every label is known."""
        if self.labels is None:
            return False
        return not bool((self.labels.isnan() if self.labels.is_floating_point() else self.labels == IGNORE).any())

    @cached_property
    def labelled(self) -> int:
        """How many rows have a label; of several labels, at least one."""
        if self.labels is None or not len(self.labels):
            return 0
        known = ~self.labels.isnan() if self.labels.is_floating_point() else self.labels != IGNORE
        return int(known.reshape(len(known), -1).any(-1).sum())

    def take(self, at: Tensor) -> Split:
        """The rows at (M,) int64 positions, as a split of their own."""

        def picked(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[at]

        rows, seen = self.rows, self.seen
        return replace(
            self,
            ids=self.ids[at],
            labels=picked(self.labels),
            weight=picked(self.weight),
            rows=lambda index: rows(at[index]),
            seen=None if seen is None else lambda index, ids, views: seen(at[index], ids, views),
            mask=picked(self.mask),
            groups={name: group.take(at) for name, group in self.groups.items()},
        )

    def batch(self, index: Tensor, views: Tensor | None = None) -> Batch:
        """The rows at (B,) int64 positions, each in its (B,) int64 view; without views as they are, which is view 0.

        Raises DataError for a view other than 0 where no augmentation was declared.
        """
        ids = self.ids.index_select(0, index)
        if views is None:
            views = torch.zeros_like(index)
            inputs = self.rows(index)
        elif self.seen is not None:
            inputs = self.seen(index, ids, views)
        elif views.any():
            raise DataError(
                f"view {int(views.max())} of the {self.name} split was asked for, but no augmentation is declared",
                hint="declare one, such as augment=[shift(pixels=2)]",
            )
        else:
            inputs = self.rows(index)
        labels, weight = self.labels, self.weight
        return Batch(
            inputs=inputs,
            labels=None if labels is None else labels.index_select(0, index),
            mask=None if self.mask is None else self.mask.index_select(0, index),
            weight=None if weight is None else weight.index_select(0, index),
            ids=ids,
            views=views,
            schema=self.schema,
            complete=self.complete,
        )


@dataclass(frozen=True, eq=False)
class Data:
    """What a distillation is given: a schema and four splits that share no row.

    train teaches, valid chooses the epoch and the temperature, calibration fits the guard, test is the evidence.
    No split is empty. Labels may be unknown in any number of rows, and in all of them: they are there all the same, of the type and
    shape that `kind` says, IGNORE or NaN where unknown; `Split.labelled` counts those that are known. Where no row has a label `kind`
    is what the task asks, `schema.classes` what was declared, and a regression's label_mean is 0, its label_std 1.
    The schema is that of the rows which the description names; unlabelled rows that join the training split change nothing in it.
    kind: what the labels are, known or not.
    fingerprint: changes when a row, a label, a weight, a group, the split of a row or the augmentation changes.
    notes: sentences on what reading found.
    views: how many augmented views of each training row are to be stored; 0 where nothing is augmented.
    augmentation: the augmentation as text, "" for none.
    """

    schema: Schema
    kind: Kind
    train: Split
    valid: Split
    calibration: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()
    views: int = 0
    augmentation: str = ""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The four splits by name, in order."""
        return MappingProxyType({name: getattr(self, name) for name in SPLITS})

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"<Data {self.kind} of {self.schema.label!r}: {sizes}>"


@runtime_checkable
class Description(Protocol):
    """Data that are described and not yet read: what `table(...)` and its neighbours return."""

    def read(self, kind: Asked = "auto") -> Data:
        """Read, check and split; kind says what the labels are where the labels alone do not."""
        ...


Described = Annotated[Description, Called('data such as table("rows.csv", label="y")')]
"""A description, with how a recipe's message calls it."""


@runtime_checkable
class Whole(Description, Protocol):
    """A description whose rows can be read as those of another place, which are judged and teach nothing."""

    def read_whole(self, home: Data) -> Data:
        """All rows in the training split, the others empty; what a split needs to teach, such as two classes, is not asked of them.

        home: says what the labels are, and which columns hold names.
        """
        ...


@dataclass(frozen=True, eq=False)
class Memory:
    """Rows that lie in memory, picked by position: one tensor, or several by name."""

    inputs: Inputs

    def __call__(self, index: Tensor) -> Inputs:
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            return {name: block.index_select(0, index) for name, block in inputs.items()}
        return inputs.index_select(0, index)

    def take(self, positions: np.ndarray) -> Memory:
        """The rows at (M,) positions, as a memory of their own."""
        return Memory(self(torch.from_numpy(np.asarray(positions, dtype=np.int64))))


def assemble(
    *,
    schema: Schema,
    kind: Kind,
    ids: np.ndarray,
    labels: Tensor,
    weight: np.ndarray | None,
    part: np.ndarray,
    rows: Callable[[np.ndarray], Callable[[Tensor], Inputs]],
    notes: tuple[str, ...] = (),
    mask: np.ndarray | None = None,
    groups: Mapping[str, Group] = MappingProxyType({}),
    whole: bool = False,
) -> Data:
    """Data from rows and their split numbers (−1: left out), in the order of the rows.

    rows: (M,) positions in the whole → what answers for these M rows. mask, groups: of all N rows, as in Split.
    whole: all rows are in one split, which shows what classes it shows.
    Raises DataError where the training labels are all of one class, or the weights of a split are all 0.
    """
    splits = {}
    for number, name in enumerate(SPLITS):
        at = np.flatnonzero(part == number)
        where = torch.from_numpy(at)
        share = None if weight is None else torch.from_numpy(weight[at].astype(np.float32))
        if share is not None and len(at) and not share.any():
            raise DataError(f"all {len(at):,} rows of the {name} split weigh 0", hint="look at the weight column")
        there = None if mask is None else torch.from_numpy(mask[at])
        parts = {column: group.take(where) for column, group in groups.items()}
        splits[name] = Split(name, torch.from_numpy(ids[at]), labels[where], share, schema, rows(at), mask=there, groups=parts)
    notes = (*notes, *_duplicates(ids[part >= 0]))
    if not any(split.labelled for split in splits.values()):
        notes = (*notes, "no row has a label")
    elif kind == "classification" and not whole:
        notes = (*notes, *_check_classes(schema, splits))
    data = Data(schema, kind, **splits, fingerprint="", notes=notes)
    return replace(data, fingerprint=fingerprint(data))


def stacked(parts: Sequence[Inputs]) -> Inputs:
    """The rows of several inputs of one form, one after the other."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    blocks = {name: [part[name] for part in parts if not isinstance(part, Tensor)] for name in first}
    return {name: Texts([t for b in each for t in b]) if isinstance(each[0], Texts) else torch.cat(each) for name, each in blocks.items()}


def fingerprint(data: Data) -> str:
    """The digest of schema, ids, labels, weights and groups of each split in order, and of the augmentation."""
    parts: list[str | np.ndarray | int | None] = [repr(data.schema), data.kind, data.augmentation, data.views]
    for name, split in data.splits.items():
        parts += [name, split.ids.numpy()]
        parts += [None if t is None else t.numpy() for t in (split.labels, split.weight)]
        for column, group in split.groups.items():
            parts += [column, repr(group.names), group.codes.numpy()]
    return digest(*parts)


def _duplicates(ids: np.ndarray) -> tuple[str, ...]:
    repeats = len(ids) - len(np.unique(ids))
    return (f"{repeats:,} rows repeat another row; equal rows lie in one split",) if repeats else ()


def _check_classes(schema: Schema, splits: Mapping[str, Split]) -> tuple[str, ...]:
    notes = []
    for name, split in splits.items():
        assert split.labels is not None
        known = split.labels[split.labels >= 0]
        there = torch.bincount(known, minlength=len(schema.classes)) > 0
        absent = [c for c, t in zip(schema.classes, there.tolist(), strict=True) if not t]
        if name == "train" and len(absent) > len(schema.classes) - 2:
            raise DataError(
                f"the training rows show fewer than two classes of {schema.label!r}",
                hint="more rows, another seed of the split, or less for the other splits",
            )
        if absent:
            notes.append(f"no {name} row has {schema.label} {', '.join(map(repr, absent[:5]))}{', …' if len(absent) > 5 else ''}")
    return tuple(notes)
