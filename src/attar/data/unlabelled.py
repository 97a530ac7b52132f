"""Rows without labels that join the training split: `text("reviews.tsv", label="stars") + unlabelled("more/")`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, overload

import numpy as np
import torch
from torch import Tensor

from attar.data.augment import Views
from attar.data.base import Asked, Data, Described, Description, Memory, Split, Whole, fingerprint
from attar.data.ids import text_key, texts_ids
from attar.data.images import SUFFIXES, Files
from attar.data.records import Records, read_records
from attar.data.table import read_like
from attar.data.text import guess_texts, read_texts
from attar.errors import DataError
from attar.notation import Called, InPath, located, say
from attar.signal import IGNORE, Inputs, Texts

__all__ = ["Joined", "Strangers", "Unlabelled", "apart", "join", "unlabelled"]

HELD = ("valid", "calibration", "test")


@dataclass(frozen=True)
class Unlabelled:
    """Rows without labels, described; added to data they join its training split."""

    path: InPath
    text: str | list[str] | None
    separator: str | None
    missing: list[str] | None
    corrupt: Literal["stop", "skip"]

    def __repr__(self) -> str:
        corrupt = None if self.corrupt == "stop" else self.corrupt
        return say("unlabelled", self.path, text=self.text, separator=self.separator, missing=self.missing, corrupt=corrupt)

    @overload
    def __radd__(self, other: Description) -> Joined: ...
    @overload
    def __radd__(self, other: Data) -> Data: ...
    def __radd__(self, other: Description | Data) -> Joined | Data:
        """`data + unlabelled(...)`, of data that are described or read."""
        if isinstance(other, Data):
            return join(other, self)
        if isinstance(other, Joined):
            return Joined(other.data, (*other.more, self))
        return Joined(other, (self,)) if isinstance(other, Description) else NotImplemented

    def __add__(self, other: object) -> Joined:
        raise DataError(
            f"{self!r} stands first in a sum", hint='the data whose splits it joins come first: text(...) + unlabelled("more/")'
        )


@dataclass(frozen=True)
class Joined:
    """Data and what joins their training split, described; `read` reads all."""

    data: Description
    more: tuple[Unlabelled, ...]

    def __repr__(self) -> str:
        return " + ".join(map(repr, (self.data, *self.more)))

    def read(self, kind: Asked = "auto") -> Data:
        """Read the data, then each that joins them. Raises DataError for whatever cannot be used."""
        data = self.data.read(kind)
        for more in self.more:
            data = join(data, more)
        return data

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        data = self.data.read_whole(home) if isinstance(self.data, Whole) else self.data.read(home.kind)
        for more in self.more:
            data = join(data, more)
        return data


Strangers = Described | Annotated[Unlabelled, Called('unlabelled("rows.csv")')]
"""Rows that are not of the task: data of their own, or rows without labels, which are read as those at home."""


def unlabelled(
    path: InPath,
    text: str | list[str] | None = None,
    *,
    separator: str | None = None,
    missing: list[str] | None = None,
    corrupt: Literal["stop", "skip"] = "stop",
) -> Unlabelled:
    """Rows without labels, for the training split of the data that they are added to; the teacher labels them.

    path: for texts a file or a folder as in `text`; for a table a file as in `table`, with the same columns, whatever else it holds;
        for images a folder, searched to its depths.
    text: the columns of texts, in the order of the data's; without it those of the data, or the usual names. For `embedding` there
        may be fewer than in the data: sentences alone beside pairs.
    separator: as in `text` and `table`. missing: as in `table`. corrupt: as in `images`.

    A row that equals one of valid, calibration or test is left out, and for `embedding` one that has a text of theirs; one that
    equals another training row counts once, and the one with a label stays. A note says how many. Where the data are split by group
    or time nobody can tell of a row without either whether it belongs to a held-out one: leave those out beforehand.
    All else stays as the labelled data made it: categories, statistics, size of images, augmentation.
    Under `foreign` it stands by itself: rows that are not of the task, which nobody learns from.

    >>> unlabelled("more/")
    unlabelled("more/")
    """
    return Unlabelled(path, text, separator, missing, corrupt)


@dataclass(frozen=True, eq=False)
class _Found:
    """N rows that would join. mask: as in Split. held: (N,) bool, which share a text with a held-out row, where that is enough."""

    ids: np.ndarray
    inputs: Mapping[str, Tensor | Texts] | Files
    notes: tuple[str, ...] = ()
    mask: np.ndarray | None = None
    held: np.ndarray | None = None


def join(data: Data, more: Unlabelled) -> Data:
    """The data with the rows of `more` behind their training rows. Raises DataError where no row is left to join."""
    found = _find(data, more)
    held = np.isin(found.ids, np.concatenate([data.splits[name].ids.numpy() for name in HELD]))
    if found.held is not None:
        held |= found.held
    new = np.zeros(len(found.ids), dtype=bool)
    new[np.unique(found.ids, return_index=True)[1]] = True
    new &= ~np.isin(found.ids, data.train.ids.numpy())
    kept = np.flatnonzero(new & ~held)
    said = f"{more.path}: {len(kept):,} rows without labels join the training split"
    if n := int(held.sum()):
        said += f"; {n:,} that lie in valid, calibration or test are left out"
    if n := int((~new & ~held).sum()):
        said += f"; {n:,} that repeat a training row are left out"
    if not len(kept):
        raise DataError(said, hint="is it the file of the labelled data?")
    data = replace(data, train=_longer(data.train, found, kept), notes=(*data.notes, *found.notes, said))
    return replace(data, fingerprint=fingerprint(data))


def apart(data: Data, more: Unlabelled, name: str) -> Split:
    """The rows of `more` as a split of their own, read as those of `data` are; the data do not change, and equal rows stay."""
    found = _find(data, more)
    mask = None if found.mask is None else torch.from_numpy(found.mask)
    rows = found.inputs if isinstance(found.inputs, Files) else Memory(found.inputs)
    return Split(name, torch.from_numpy(found.ids), None, None, data.schema, rows, mask=mask)


def _find(data: Data, more: Unlabelled) -> _Found:
    path, kind = located(more.path), data.schema.kind
    if kind == "tensor":
        raise DataError(f"{more!r} cannot join tensors", hint='in Python: arrays(X, y, unlabelled="keep"), with −100 or NaN for unknown')
    if more.text is not None and kind != "text":
        raise DataError(f"{more!r}, but the data are {kind}", hint="leave text out")
    if kind == "text":
        return _read_texts(data, more, path)
    if kind == "table":
        return _Found(*read_like(path, data.schema, separator=more.separator, missing=more.missing or ()))
    return _read_images(data, path, more.corrupt)


def _longer(train: Split, found: _Found, kept: np.ndarray) -> Split:
    """The training split with the rows at (M,) positions behind it, whose labels are unknown and whose weight is 1."""
    rows = _rows(train, found.inputs, kept)
    seen = train.seen
    if isinstance(seen, Views):
        seen = Views(rows, seen.words, len(train) + len(kept), seen.count if isinstance(rows, Memory) else 0)
    labels, weight, mask = train.labels, train.weight, train.mask
    if labels is not None:
        unknown = float("nan") if labels.is_floating_point() else IGNORE
        labels = torch.cat([labels, torch.full((len(kept), *labels.shape[1:]), unknown, dtype=labels.dtype)])
    if mask is not None and found.mask is not None:
        mask = torch.cat([mask, torch.from_numpy(found.mask[kept])])
    return replace(
        train,
        ids=torch.cat([train.ids, torch.from_numpy(found.ids[kept])]),
        labels=labels,
        weight=None if weight is None else torch.cat([weight, torch.ones(len(kept))]),
        rows=rows,
        seen=seen,
        mask=mask,
        groups={name: group.longer(len(kept)) for name, group in train.groups.items()},
    )


def _rows(train: Split, more: Mapping[str, Tensor | Texts] | Files, kept: np.ndarray) -> Callable[[Tensor], Inputs]:
    """What answers for the training rows and for those at (M,) positions of `more` behind them."""
    if isinstance(more, Files):
        return _Chain(train.rows, len(train), more.take(kept))
    here, behind = train.rows(torch.arange(len(train))), Memory(more).take(kept).inputs
    assert isinstance(here, Mapping) and isinstance(behind, Mapping)  # texts and tables are mappings
    return Memory({name: _behind(block, behind[name]) for name, block in here.items()})


def _behind(block: Tensor | Texts, more: Tensor | Texts) -> Tensor | Texts:
    if isinstance(block, Texts):
        return Texts([*block.tolist(), *more.tolist()])
    assert isinstance(more, Tensor)
    return torch.cat([block, more.to(block.dtype)])  # numbers in the precision of the labelled rows


@dataclass(frozen=True, eq=False)
class _Chain:
    """Images of the training split, the first `count` of them, and of files behind it."""

    first: Callable[[Tensor], Inputs]
    count: int
    second: Files

    def __call__(self, index: Tensor) -> Tensor:
        behind = index >= self.count
        if not behind.any():
            rows = self.first(index)
            assert isinstance(rows, Tensor)  # images are one tensor
            return rows
        late = self.second(index[behind] - self.count)
        if behind.all():
            return late
        rows = self.first(index[~behind])
        assert isinstance(rows, Tensor)
        out = torch.empty(len(index), *rows.shape[1:], dtype=rows.dtype)
        out[behind], out[~behind] = late, rows
        return out


def _read_texts(data: Data, more: Unlabelled, path: Path) -> _Found:
    schema = data.schema
    records = read_records(path, more.separator)
    names = _names(records, more, schema.texts)
    if len(names) > len(schema.texts) or (len(names) < len(schema.texts) and not schema.embeds):
        raise DataError(
            f"{more.path} gives {len(names)} texts to a row, {', '.join(map(repr, names))}; the data have {len(schema.texts)}",
            hint=f"text= the columns that are {', '.join(map(repr, schema.texts))}",
        )
    columns = read_texts(records, names)
    columns += [np.full(len(records), "", dtype=object)] * (len(schema.texts) - len(names))
    there = np.array([[bool(t) for t in column] for column in columns], dtype=bool).T
    kept = np.asarray(there.any(1) if schema.embeds else there.all(1))
    notes = records.notes
    if n := int((~kept).sum()):
        first = records.place(int(np.flatnonzero(~kept)[0]))
        notes += (f"{n:,} rows without their text are left out, the first in {first}",)
    columns = [column[kept] for column in columns]
    inputs = {name: Texts(column) for name, column in zip(schema.texts, columns, strict=True)}
    ids = texts_ids([column.tolist() for column in columns])
    if not schema.embeds:
        return _Found(ids, inputs, notes)
    return _Found(ids, inputs, notes, there[kept], _has_held_text(data, inputs))


def _names(records: Records, more: Unlabelled, texts: Sequence[str]) -> list[str]:
    """The columns of texts: as they are told, as the data call theirs, or by their usual names."""
    if more.text is not None:
        return [more.text] if isinstance(more.text, str) else list(more.text)
    return list(texts) if set(texts) <= set(records.columns) else guess_texts(records)


def _has_held_text(data: Data, inputs: Mapping[str, Texts]) -> np.ndarray:
    """(N,) which rows have a text that a row of valid, calibration or test has."""
    held: set[str] = set()
    for split in (data.splits[name] for name in HELD):
        rows = split.rows(torch.arange(len(split)))
        assert isinstance(rows, Mapping)
        held.update(text for block in rows.values() for text in block)
    held.discard("")
    return np.asarray(np.array([[text in held for text in block] for block in inputs.values()], dtype=bool).any(0))


def _read_images(data: Data, path: Path, corrupt: str) -> _Found:
    """The files of a folder; each is decoded once. Raises DataError, naming the file, for one that does not decode and is not skipped."""
    if not path.is_dir():
        raise DataError(f"there is no folder {str(path)!r}", hint="a folder of images")
    every = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names if name.lower().endswith(SUFFIXES)]
    names = sorted(os.path.relpath(name, path) for name in every if not os.path.basename(name).startswith("."))
    if not names:
        raise DataError(f"{path} holds no image", hint="one of " + " ".join(SUFFIXES))
    files, broken = _like(data.train, path, names), []
    for i in range(len(names)):
        try:
            files(torch.tensor([i]))
        except DataError:
            if corrupt == "stop":
                raise
            broken.append(names[i])
    notes: tuple[str, ...] = ()
    if broken:
        files = files.take(np.array([i for i, name in enumerate(names) if name not in set(broken)], dtype=np.int64))
        some = ", ".join(broken[:5]) + ", …" * (len(broken) > 5)
        notes = (f"{len(broken):,} of {len(names):,} images of {path.name} cannot be decoded and are left out: {some}",)
    ids = np.array([text_key((path / name).read_bytes()) for name in files.names], dtype=np.uint64).view(np.int64)
    return _Found(ids, files, notes)


def _like(train: Split, path: Path, names: Sequence[str]) -> Files:
    """Files of a folder, decoded as the training images are."""
    rows = train.rows.second if isinstance(train.rows, _Chain) else train.rows
    if isinstance(rows, Files):
        return replace(rows, root=path, names=names)
    channels, height, width = train.schema.shape
    return Files(path, names, "L" if channels == 1 else "RGB", (height, width), False)
