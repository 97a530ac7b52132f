"""The contract of data, as checks that anyone can run on data of their own: `check_data(lambda: my_description().read())`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attar.data import Corruptions, Data, Split, corruptions
from attar.signal import IGNORE, Batch, Inputs, Schema, Texts

__all__ = [
    "check_batches",
    "check_corruptions",
    "check_data",
    "check_fingerprint",
    "check_growth",
    "check_inputs",
    "check_splits",
    "check_views",
]

Read = Callable[[], Data]
ROWS = 64  # rows of each split that are looked at


def check_data(read: Read, more: Read | None = None) -> None:
    """All checks of the contract; `more` reads the same data with rows added, and is needed to see that no row changes its split."""
    data = read()
    check_splits(data)
    check_inputs(data)
    check_batches(read)
    check_views(data)
    check_fingerprint(read)
    if more is not None:
        check_growth(data, more())


def check_splits(data: Data) -> None:
    """No split is empty, and no row, nor its equal, is in two of them."""
    seen: dict[int, str] = {}
    for name, split in data.splits.items():
        assert len(split) > 0, f"{name} is empty"
        assert split.name == name, f"{name} calls itself {split.name}"
        assert split.schema == data.schema, f"{name} has a schema of its own"
        for row in set(split.ids.tolist()):
            assert row not in seen, f"row {row} is in {seen[row]} and in {name}"
            seen[row] = name


def check_inputs(data: Data) -> None:
    """Inputs and labels lie as Schema draws them; equal ids have equal inputs."""
    for split in data.splits.values():
        batch = split.batch(_first(split))
        assert batch.ids is not None
        assert len(batch) == len(batch.ids) == min(ROWS, len(split))
        _check_layout(batch.inputs, data.schema)
        _check_labels(batch.labels, data)
        _check_mask(batch, data.schema)
        if batch.weight is not None:
            assert batch.weight.dtype == torch.float32, "weights are float32"
            assert bool((batch.weight >= 0).all()), "weights are 0 or more"
        of: dict[int, int] = {}
        for i, row in enumerate(batch.ids.tolist()):
            j = of.setdefault(row, i)
            assert _same(_row(batch.inputs, i), _row(batch.inputs, j)), f"rows {i} and {j} have one id and different inputs"


def check_batches(read: Read) -> None:
    """Reading again gives the same rows at the same positions, and a batch does not depend on its order or size."""
    data, again = read(), read()
    for name, split in data.splits.items():
        at = _first(split)
        whole, other = split.batch(at), again.splits[name].batch(at)
        assert _same(whole.inputs, other.inputs), f"{name} differs when it is read again"
        for field in ("ids", "labels", "weight", "mask"):
            a, b = getattr(whole, field), getattr(other, field)
            assert a is b is None or torch.equal(a.nan_to_num(), b.nan_to_num()), f"{field} of {name} differ when read again"
        back = split.batch(at.flip(0))
        for i in range(len(at)):
            assert _same(_row(back.inputs, len(at) - 1 - i), _row(whole.inputs, i)), f"row {i} of {name} depends on its neighbours"
        assert _same(split.batch(at[:1]).inputs, _row(whole.inputs, 0, keep=True)), f"row 0 of {name} alone is another"


def check_views(data: Data) -> None:
    """Inputs are a function of (id, view): view 0 is the row as it is, and a view does not depend on order, size or earlier batches."""
    for name, split in data.splits.items():
        at = _first(split)
        plain = split.batch(at)
        assert _same(split.batch(at, torch.zeros_like(at)).inputs, plain.inputs), f"view 0 of {name} is not the row as it is"
        if not data.views:
            continue
        views = 1 + at % data.views
        first = split.batch(at, views)
        _check_layout(first.inputs, data.schema)
        assert first.views is not None
        assert torch.equal(first.views, views), f"{name} answers other views than were asked for"
        assert _same(split.batch(at, views).inputs, first.inputs), f"{name} answers another time otherwise"
        back = split.batch(at.flip(0), views.flip(0))
        for i in range(len(at)):
            assert _same(_row(back.inputs, len(at) - 1 - i), _row(first.inputs, i)), f"a view of {name} depends on its neighbours"
        alone = split.batch(at[-1:], views[-1:])
        assert _same(alone.inputs, _row(first.inputs, len(at) - 1, keep=True)), f"a view of {name} alone is another"
        assert not _same(first.inputs, plain.inputs), f"no view of {name} changes anything"


def check_corruptions(data: Data, spec: Corruptions | None = None) -> None:
    """Each corruption keeps the layout and the labels, changes some row, and depends on no neighbour, order or earlier question."""
    corruptor, at = (spec or corruptions()).of(data), _first(data.test)
    split = data.test.take(at)
    plain, seen = split.batch(at), {*split.ids.tolist()}
    for kind in corruptor.changes:
        changed = False
        for severity in corruptor.spec.severities:
            what = f"{kind} of severity {severity}"
            rows = corruptor.split(split, kind, severity)
            batch = rows.batch(at)
            _check_layout(batch.inputs, data.schema)
            for field in ("labels", "weight", "mask"):
                a, b = getattr(batch, field), getattr(plain, field)
                assert a is b is None or torch.equal(a.nan_to_num(), b.nan_to_num()), f"{what} changes the {field}"
            assert not seen & {*rows.ids.tolist()}, f"rows under {what} are called like others"
            seen |= {*rows.ids.tolist()}
            changed = changed or not _same(batch.inputs, plain.inputs)
            back = corruptor.split(split.take(at.flip(0)), kind, severity).batch(at)
            for i in range(len(at)):
                assert _same(_row(back.inputs, len(at) - 1 - i), _row(batch.inputs, i)), f"row {i} under {what} depends on its neighbours"
            alone = corruptor.split(split.take(at[-1:]), kind, severity).batch(at[:1])
            assert _same(alone.inputs, _row(batch.inputs, len(at) - 1, keep=True)), f"a row alone under {what} is another"
        assert changed, f"{kind} changes nothing"


def check_fingerprint(read: Read) -> None:
    """The fingerprint is a text that reading again gives again."""
    data = read()
    assert data.fingerprint
    assert data.fingerprint == read().fingerprint, "the fingerprint differs when the data are read again"


def check_growth(data: Data, more: Data) -> None:
    """With rows added, no row changes its split, and the fingerprint moves."""
    now = {row: name for name, split in more.splits.items() for row in split.ids.tolist()}
    for name, split in data.splits.items():
        for row in split.ids.tolist():
            assert now.get(row) == name, f"row {row} moves from {name} to {now.get(row)} as rows are added"
    assert more.fingerprint != data.fingerprint, "rows were added, and the fingerprint is the same"


def _first(split: Split) -> Tensor:
    return torch.arange(min(ROWS, len(split)))


def _check_layout(inputs: Inputs, schema: Schema) -> None:
    if schema.kind == "table":
        assert not isinstance(inputs, Tensor), "a table is a mapping"
        expected = {n: len(c) for n, c in (("numbers", schema.numbers), ("categories", schema.categories)) if c}
        assert {n: b.shape[1] for n, b in inputs.items()} == expected, f"blocks are not {expected}"
        if "numbers" in inputs:
            assert inputs["numbers"].dtype in (torch.float32, torch.float64), "numbers are float"
            assert not inputs["numbers"].isinf().any(), "numbers are finite or NaN"
        if "categories" in inputs:
            codes = inputs["categories"]
            assert codes.dtype == torch.int64, "categories are int64"
            most = torch.tensor([len(c.categories) for c in schema.categories])
            assert bool(((codes >= 0) & (codes <= most)).all()), "codes lie in 0..number of categories"
        return
    if schema.kind == "text":
        assert not isinstance(inputs, Tensor), "texts are a mapping"
        assert tuple(inputs) == schema.texts, f"texts are called {', '.join(inputs)}, in the schema {', '.join(schema.texts)}"
        for name, block in inputs.items():
            assert isinstance(block, Texts), f"{name} is a {type(block).__name__}, not Texts"
            assert all(isinstance(text, str) for text in block), f"{name} holds what is no text"
            assert not any(text and text.isspace() for text in block), f"{name} holds a text of blanks"
            assert schema.embeds or all(block), f"a row lacks its {name}"
        return
    assert isinstance(inputs, Tensor), f"{schema.kind} are one tensor"
    assert tuple(inputs.shape[1:]) == schema.shape, f"rows have the shape {tuple(inputs.shape[1:])}, the schema says {schema.shape}"
    assert inputs.dtype == (torch.uint8 if schema.kind == "images" else torch.float32), f"{schema.kind} are {inputs.dtype}"


def _check_mask(batch: Batch, schema: Schema) -> None:
    if not schema.embeds:
        return
    assert not isinstance(batch.inputs, Tensor)
    there = torch.tensor([[bool(text) for text in block] for block in batch.inputs.values()]).T
    assert bool(there.any(1).all()), "a row holds no text"
    assert batch.mask is not None or bool(there.all()), "no mask says which texts are not there"
    assert batch.mask is None or torch.equal(batch.mask, there), "the mask is not True where a text is"


def _check_labels(labels: Tensor | None, data: Data) -> None:
    if labels is None:
        return
    classes = len(data.schema.classes)
    if data.kind in ("regression", "embedding"):
        assert labels.dtype == torch.float32, "numbers to predict are float32"
        assert labels.ndim == 1, "one number for each row"
        return
    assert labels.dtype == torch.int64, "classes are int64"
    assert labels.shape[1:] == ((classes,) if data.kind == "multilabel" else ()), f"labels have the shape {tuple(labels.shape)}"
    top = 2 if data.kind == "multilabel" else classes
    assert bool(((labels == IGNORE) | ((labels >= 0) & (labels < top))).all()), "labels lie in 0..classes − 1, or are IGNORE"


def _row(inputs: Inputs, i: int, *, keep: bool = False) -> Inputs:
    at = slice(i, i + 1)
    rows = inputs[at] if isinstance(inputs, Tensor) else {name: block[at] for name, block in inputs.items()}
    return rows if keep or not isinstance(rows, Tensor) else rows[0]


def _same(a: Inputs | Texts, b: Inputs | Texts) -> bool:
    """Bit for bit, NaN equal to NaN."""
    if isinstance(a, Texts) or isinstance(b, Texts):
        return isinstance(a, Texts) and a == b
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(a, b) if not a.is_floating_point() else bool(((a == b) | (a.isnan() & b.isnan())).all())
    return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
