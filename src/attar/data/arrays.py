"""What a Python program already holds: arrays, or a torch Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attar.data.augment import Augmentation
from attar.data.base import Asked, Data, Description, Memory, Whole, assemble, fingerprint
from attar.data.deal import Shares, deal
from attar.data.groups import NO_COLUMNS, Columns, Group, read_groups
from attar.data.ids import tensor_ids, text_key
from attar.data.images import checked_views, pixels_data
from attar.data.labels import Labels, label_statistics, read_label, read_labels
from attar.data.munge import Munge
from attar.data.table import frame
from attar.errors import DataError, MissingExtra
from attar.notation import say
from attar.signal import IGNORE, Schema

__all__ = ["Arrays", "Items", "arrays", "as_data", "dataset", "described"]

IN_MEMORY = 1 << 30  # bytes; a Dataset that needs more is asked for its items again each time

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class How:
    """What `arrays` and `dataset` have in common."""

    unlabelled: Literal["refuse", "keep"]
    shares: Shares
    seed: int
    augment: list[Augmentation] | Munge | None
    views: int | None

    def words(self) -> dict[str, Any]:
        return dict(unlabelled=self.unlabelled, **vars(self.shares), seed=self.seed, augment=self.augment, views=self.views)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Arrays, described; `read` checks and splits them."""

    inputs: np.ndarray
    labels: np.ndarray
    weight: np.ndarray | None
    group: np.ndarray | None
    names: list[str] | None
    how: How
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.inputs.shape))
        return say("arrays", names=self.names, groups=list(self.groups) or None, **self.how.words()).replace("(", f"(<{shape}>, ", 1)

    def read(self, kind: Asked = "auto") -> Data:
        """Check the arrays and split their rows. Raises DataError for whatever cannot be used."""
        return self._table().read(kind) if self.inputs.ndim == 2 else self._tensors(kind)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        return self._table().read_whole(home) if self.inputs.ndim == 2 else self._tensors(home.kind, whole=True)

    def _tensors(self, kind: Asked, *, whole: bool = False) -> Data:
        rows = _channels_first(self.inputs) if self.inputs.dtype == np.uint8 else torch.from_numpy(self.inputs.astype(np.float32))
        labels = _read_labels(self.labels, kind, self.how, whole=whole)
        group, groups = _group_keys(self.group), {name: (values, _there(values)) for name, values in self.groups.items()}
        ids, example = tensor_ids(rows.numpy()), rows[:1]
        return _from_rows(Memory(rows).take, ids, example, labels, self.how, self.weight, group, groups, whole=whole)

    def _table(self) -> Whole:
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise MissingExtra("pandas", "table") from error
        if isinstance(self.how.augment, list):
            raise DataError(f"augment={self.how.augment} is for images, these are rows of numbers", hint="augment=munge()")
        width = self.inputs.shape[1]
        names = self.names or [f"x{i}" for i in range(width)]
        if len(names) != width:
            raise DataError(f"{len(names)} names for {width} columns", hint="names=[...], one for each column")
        parts = [pd.DataFrame(self.inputs, columns=names)]
        labels = self.labels.reshape(len(self.labels), -1)
        label = ["label"] if self.labels.ndim == 1 else [f"label{i}" for i in range(labels.shape[1])]
        known = _known(labels)
        for i, name in enumerate(label):
            column = labels[:, i]
            if not known[:, i].all():
                column = column.astype(object)
                column[~known[:, i]] = None
            parts.append(pd.DataFrame({name: column}))
        parts += [pd.DataFrame({n: v}) for n, v in (("weight", self.weight), ("group", self.group)) if v is not None]
        for name, values in self.groups.items():
            if any(name in part.columns for part in parts):
                raise DataError(f"groups: {name!r} is the name of another column", hint="call it by another name")
            parts.append(pd.DataFrame({name: values}))
        munge = self.how.augment
        return frame(
            pd.concat(parts, axis=1),
            label[0] if self.labels.ndim == 1 else label,
            weight=None if self.weight is None else "weight",
            group=None if self.group is None else "group",
            groups=list(self.groups) or None,
            drop=list(self.groups) or None,
            unlabelled=self.how.unlabelled,
            valid=self.how.shares.valid,
            calibration=self.how.shares.calibration,
            test=self.how.shares.test,
            seed=self.how.seed,
            augment=munge if isinstance(munge, Munge) else None,
        )


@dataclass(frozen=True, eq=False)
class Items:
    """A torch Dataset, described; `read` asks for each item once, and keeps them if they fit into memory."""

    dataset: Any
    classes: list[str] | None
    how: How

    def __repr__(self) -> str:
        return say("dataset", **self.how.words()).replace("(", f"(<{type(self.dataset).__name__} of {len(self.dataset):,}>, ", 1)

    def read(self, kind: Asked = "auto") -> Data:
        """Ask for every item, check and split them. Raises DataError for whatever cannot be used."""
        return self._read(kind, None)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place: see `Whole`."""
        return self._read(home.kind, home)

    def _read(self, kind: Asked, home: Data | None) -> Data:
        count = len(self.dataset)
        if count == 0:
            raise DataError("the dataset is empty", hint="its __len__ answers 0")
        first, _ = _item(self.dataset, 0)
        keep = first.nbytes * count <= IN_MEMORY or first.ndim == 1
        kept = np.empty((count, *first.shape), dtype=first.dtype) if keep else None
        ids, labels = np.empty(count, dtype=np.int64), []
        for i in range(count):
            item, label = _item(self.dataset, i)
            if item.shape != first.shape or item.dtype != first.dtype:
                raise DataError(
                    f"item {i} is {item.dtype} {item.shape}, item 0 {first.dtype} {first.shape}", hint="all items of one shape and type"
                )
            ids[i] = tensor_ids(item[None])[0]
            labels.append(label)
            if kept is not None:
                kept[i] = item
        for i in {0, count // 2, count - 1}:
            if tensor_ids(_item(self.dataset, i)[0][None])[0] != ids[i]:
                raise DataError(
                    f"item {i} of the dataset differs when it is asked for again",
                    hint="take the random transforms out of the dataset and declare them, as augment=[shift(pixels=2)]",
                )
        answers = _stack_labels(labels)
        if kept is not None:
            described = Arrays(kept, answers, None, None, None, self.how)
            data = described.read(kind) if home is None else described.read_whole(home)
        else:
            rows = _Asked(self.dataset, np.arange(count))
            read = _read_labels(answers, kind, self.how, whole=home is not None)
            data = _from_rows(rows.take, ids, rows(torch.tensor([0])), read, self.how, whole=home is not None)
        return data if self.classes is None else _named(data, self.classes)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Items of a Dataset, asked for again each time."""

    dataset: Any
    positions: np.ndarray

    def __call__(self, index: Tensor) -> Tensor:
        rows = np.stack([_item(self.dataset, int(self.positions[i]))[0] for i in index.tolist()])
        return _channels_first(rows) if rows.dtype == np.uint8 else torch.from_numpy(rows.astype(np.float32))

    def take(self, positions: np.ndarray) -> _Asked:
        return replace(self, positions=self.positions[positions])


def arrays(
    inputs: Array,
    labels: Array | Sequence[Any],
    *,
    weight: Array | None = None,
    group: Array | Sequence[Any] | None = None,
    groups: Mapping[str, Array | Sequence[Any]] | None = None,
    names: list[str] | None = None,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: list[Augmentation] | Munge | None = None,
    views: int | None = None,
) -> Arrays:
    """Arrays of numpy or torch: (N, F) is a table of numbers, uint8 of three or four axes are images, other numbers tensors.

    inputs: images as (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W). labels: (N,) classes or numbers, or (N, L) of 0 and 1; a
        class of −100 and a number of NaN is unknown.
    groups: {name: (N,) texts, numbers or booleans}, by whose values student and teacher are compared apart, as in `table`; no inputs.
    names: of the F columns; x0, x1, … without. The other arguments are those of `table` and `images`.

    >>> data = arrays(np.arange(400.0).reshape(200, 2), np.arange(200) % 2, test=0.3).read()
    >>> data.schema.classes, data.train.batch(torch.tensor([0])).inputs["numbers"].shape
    (('0', '1'), torch.Size([1, 2]))
    """
    rows, answers = _numpy(inputs), _numpy(labels)
    if rows.ndim < 2 or rows.dtype.kind not in "biuf":
        raise DataError(f"inputs are {rows.dtype} of shape {rows.shape}", hint="one row for each case; text and names: frame(...)")
    parted = {name: _numpy(values) for name, values in (groups or {}).items()}
    named = ((f"groups {name!r}", values) for name, values in parted.items())
    for what, values in (("labels", answers), ("weight", weight), ("group", group), *named):
        if values is not None and len(values) != len(rows):
            raise DataError(f"{len(rows):,} rows of inputs, {len(values):,} of {what}", hint="one for each row, in the same order")
    if answers.ndim > 2:
        raise DataError(f"labels have the shape {answers.shape}", hint="(N,) classes or numbers, or (N, L) of 0 and 1")
    if answers.ndim == 2 and answers.shape[1] == 1:
        answers = answers[:, 0]
    how = _how(unlabelled, Shares(valid, calibration, test), seed, augment, views)
    weights = None if weight is None else _weights(_numpy(weight))
    return Arrays(rows, answers, weights, None if group is None else _numpy(group), names, how, parted)


def dataset(
    dataset: Any,
    *,
    classes: list[str] | None = None,
    unlabelled: Literal["refuse", "keep"] = "refuse",
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: list[Augmentation] | Munge | None = None,
    views: int | None = None,
) -> Items:
    """A torch Dataset with a length, whose items are (input, label): a tensor, an array or a PIL image, and a class or number.

    classes: what the whole-number labels 0, 1, … are called. Inputs and the other arguments are as in `arrays`.
    Items are kept in memory where all fit into 1 GiB, and asked for again otherwise; random transforms are found out and refused.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(f"{type(dataset).__name__} has no length or no items by number", hint="dataset(list(iterable))")
    return Items(dataset, classes, _how(unlabelled, Shares(valid, calibration, test), seed, augment, views))


def as_data(x: Any, kind: Asked = "auto") -> Data:
    """Data from whatever means data: Data, a description, (frame, label), (inputs, labels), or a torch Dataset.

    Raises DataError for anything else.
    """
    found = described(x)
    return found if isinstance(found, Data) else found.read(kind)


def described(x: Any) -> Data | Description:
    """The same, not yet read."""
    if isinstance(x, Data | Description):
        return x
    if isinstance(x, tuple) and len(x) == 2:
        first, second = x
        if hasattr(first, "columns") and isinstance(second, str | list):
            return frame(first, second)
        return arrays(first, second)
    if hasattr(x, "columns"):
        raise DataError("a DataFrame does not say which column is the label", hint='frame(df, label="...")')
    if hasattr(x, "__getitem__") and hasattr(x, "__len__") and not isinstance(x, str | dict | np.ndarray | Tensor):
        return dataset(x)
    raise DataError(f"{type(x).__name__} is not data", hint='table("file.csv", label="..."), (X, y), or a torch Dataset')


def _how(
    unlabelled: Literal["refuse", "keep"], shares: Shares, seed: int, augment: list[Augmentation] | Munge | None, views: int | None
) -> How:
    if isinstance(augment, Munge):
        if views is not None:
            raise DataError(f"views={views}, but munge makes rows, not views", hint="munge(rows=2.0)")
        return How(unlabelled, shares, seed, augment, None)
    return How(unlabelled, shares, seed, *checked_views(augment, views))


def _from_rows(
    rows: Callable[[np.ndarray], Callable[[Tensor], Any]],
    ids: np.ndarray,
    example: Tensor,
    labels: Labels,
    how: How,
    weight: np.ndarray | None = None,
    group: np.ndarray | None = None,
    groups: Columns = NO_COLUMNS,
    *,
    whole: bool = False,
) -> Data:
    shape = tuple(example.shape[1:])
    if isinstance(how.augment, Munge):
        raise DataError("munge is for tables", hint="augment=[shift(pixels=2)]")
    if example.dtype == torch.uint8:
        return pixels_data(
            rows,
            ids,
            shape,
            labels,
            "label",
            how.shares,
            how.seed,
            augment=how.augment,
            views=how.views,
            weight=weight,
            group=group,
            groups=groups,
            whole=whole,
        )
    if how.augment:
        raise DataError(f"augment={how.augment} is for images, these are {example.dtype}", hint="images are uint8, 0..255")
    part, notes = deal(ids, how.shares, seed=how.seed, group=group, whole=whole)
    for start in range(0, len(ids), 256):
        block = rows(np.arange(start, min(start + 256, len(ids))))(torch.arange(min(256, len(ids) - start)))
        if (bad := ~torch.isfinite(block)).any():
            at = int(bad.flatten(1).any(1).nonzero()[0]) + start
            raise DataError(f"inputs hold {block[bad][0].item()} in row {at + 1}", hint="tensors have no missing values: fill them before")
    schema = label_statistics(Schema("tensor", shape=shape, classes=labels.classes), labels, np.flatnonzero(part == 0))
    parted, said = {n: Group.unknown(len(ids)) for n in groups}, ()
    if not whole:
        parted, said = read_groups(groups, np.flatnonzero(part == 0))
    return assemble(
        schema=schema,
        kind=labels.kind,
        ids=ids,
        labels=labels.values,
        weight=weight,
        part=part,
        rows=rows,
        notes=(*notes, *said),
        groups=parted,
        whole=whole,
    )


def _channels_first(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W) → (N, C, H, W)."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images have the shape {images.shape}", hint="(N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W), uint8")
    return torch.from_numpy(np.ascontiguousarray(images))


def _known(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    if labels.dtype.kind in "iu":
        return labels != IGNORE
    if labels.dtype == object:
        return np.array([v is not None and v == v for v in labels.ravel()], dtype=bool).reshape(labels.shape)  # NaN is not itself
    return np.ones(labels.shape, dtype=bool)


def _read_labels(labels: np.ndarray, kind: str, how: How, *, whole: bool = False) -> Labels:
    known = _known(labels)
    if labels.ndim == 1:
        return read_label("label", labels, known, kind, how.unlabelled, whole=whole)
    if kind not in ("auto", "multilabel"):
        raise DataError(f"task {kind} needs one label for each row, these are {labels.shape[1]}", hint="task: multilabel()")
    names = [f"label{i}" for i in range(labels.shape[1])]
    return read_labels(names, list(labels.T), list(known.T), how.unlabelled, whole=whole)


def _there(values: np.ndarray) -> np.ndarray:
    """(N,) bool: what is neither None, NaN nor blank text."""
    if values.dtype.kind in "biu":
        return np.ones(len(values), dtype=bool)
    return np.array([v is not None and v == v and not (isinstance(v, str) and not v.strip()) for v in values.tolist()], dtype=bool)


def _weights(weight: np.ndarray) -> np.ndarray:
    if weight.ndim != 1 or weight.dtype.kind not in "biuf" or not (np.isfinite(weight) & (weight >= 0)).all():
        what = f"weight is {weight.dtype} of shape {weight.shape}, or not 0 or more everywhere"
        raise DataError(what, hint="one number for each row, 0 or more")
    return weight.astype(np.float64)


def _group_keys(group: np.ndarray | None) -> np.ndarray | None:
    return None if group is None else np.array([text_key(str(g)) for g in group.tolist()], dtype=np.uint64).view(np.int64)


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _item(dataset: Any, i: int) -> tuple[np.ndarray, Any]:
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {i} of the dataset is a {type(item).__name__}, not (input, label)", hint="return (input, label)")
    rows = _numpy(item[0])
    if rows.ndim == 0 or rows.dtype.kind not in "biuf":
        raise DataError(f"the input of item {i} is {rows.dtype} of shape {rows.shape}", hint="a tensor, an array or an image of numbers")
    return rows, item[1].tolist() if isinstance(item[1], Tensor | np.ndarray) else item[1]


def _stack_labels(labels: list[Any]) -> np.ndarray:
    answers = np.asarray(labels) if not any(v is None for v in labels) else np.array(labels, dtype=object)
    return answers[:, 0] if answers.ndim == 2 and answers.shape[1] == 1 else answers


def _named(data: Data, classes: list[str]) -> Data:
    """The same data, its classes 0, 1, … called by their names."""
    if data.kind != "classification" or not all(c.isdecimal() and int(c) < len(classes) for c in data.schema.classes):
        raise DataError(
            f"classes names {len(classes)} classes, the labels are {', '.join(data.schema.classes[:12]) or 'numbers'}",
            hint="labels count from 0, one name for each",
        )
    schema = replace(data.schema, classes=tuple(classes[int(c)] for c in data.schema.classes))
    splits = {name: replace(split, schema=schema) for name, split in data.splits.items()}
    data = replace(data, schema=schema, **splits)
    return replace(data, fingerprint=fingerprint(data))
