"""Arrays, torch Datasets, and whatever else means data."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import attar.data
from attar.data import arrays, as_data, dataset, flip, frame, munge
from attar.errors import DataError
from attar.signal import IGNORE

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)


def test_two_axes_are_a_table_of_numbers() -> None:
    data = arrays(X, Y, names=["a", "b", "c"]).read()
    assert [c.name for c in data.schema.columns] == ["a", "b", "c"]
    assert data.schema.classes == ("0", "1", "2")
    inputs = data.train.batch(torch.arange(5)).inputs
    assert not isinstance(inputs, torch.Tensor)
    assert inputs["numbers"].dtype == torch.float64
    assert {tuple(r) for r in inputs["numbers"].tolist()} <= {tuple(r) for r in X.tolist()}


def test_images_may_have_their_channels_first_last_or_not_at_all() -> None:
    pixels = RNG.integers(0, 256, (60, 3, 5, 7), dtype=np.uint8)
    first = arrays(pixels, np.arange(60) % 2).read()
    last = arrays(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), np.arange(60) % 2).read()
    grey = arrays(torch.from_numpy(pixels[:, 0]), np.arange(60) % 2).read()
    assert first.schema.shape == last.schema.shape == (3, 5, 7)
    assert first.fingerprint == last.fingerprint
    assert grey.schema.shape == (1, 5, 7)
    with pytest.raises(DataError, match="images have the shape"):
        arrays(RNG.integers(0, 256, (60, 5, 5, 5), dtype=np.uint8), np.arange(60) % 2).read()


def test_other_numbers_of_three_axes_are_tensors_and_must_be_finite() -> None:
    x = RNG.normal(size=(300, 2, 4))
    data = arrays(x, Y.tolist() + [0] * 100).read()
    assert (data.schema.kind, data.schema.shape) == ("tensor", (2, 4))
    inputs = data.train.batch(torch.arange(3)).inputs
    assert isinstance(inputs, torch.Tensor)
    assert inputs.dtype == torch.float32
    x[270, 1, 2] = np.nan
    with pytest.raises(DataError, match="inputs hold nan in row 271"):
        arrays(x, np.arange(300) % 2).read()


def test_unknown_labels_are_kept_when_asked_to_be() -> None:
    y = Y.copy()
    y[:50] = IGNORE
    with pytest.raises(DataError, match="missing in 50 of 200 rows"):
        arrays(X, y).read()
    for rows in (X, X.reshape(200, 3, 1)):
        data = arrays(rows, y, unlabelled="keep").read()
        assert data.schema.classes == ("0", "1", "2")
        assert sum(int((s.labels == IGNORE).sum()) for s in data.splits.values() if s.labels is not None) == 50


def test_several_labels_weights_and_groups_go_along() -> None:
    many = (RNG.random((200, 2)) < 0.5).astype(int)
    group = np.arange(200) // 4
    for rows in (X, X.reshape(200, 3, 1)):
        data = arrays(rows, many, weight=np.arange(200) + 1.0, group=group).read()
        assert data.kind == "multilabel"
        assert data.train.weight is not None
        # A row's weight is its number from 1, which tells its group.
        seen = [{int(w - 1) // 4 for w in s.weight.tolist()} for s in data.splits.values() if s.weight is not None]
        assert len(set.union(*seen)) == sum(map(len, seen)) == 50


def test_a_regression_has_its_mean_and_spread() -> None:
    y = RNG.normal(size=200)
    for rows in (X, X.reshape(200, 3, 1)):
        data = arrays(rows, y).read()
        assert data.train.labels is not None
        assert data.schema.label_mean == pytest.approx(float(data.train.labels.double().mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: arrays(X, Y[:100]), "200 rows of inputs, 100 of labels"),
        (lambda: arrays(X, Y, weight=-np.ones(200)), "not 0 or more everywhere"),
        (lambda: arrays(np.array([["a"]] * 200), Y), "inputs are <U1"),
        (lambda: arrays(X, Y, names=["a"]).read(), "1 names for 3 columns"),
        (lambda: arrays(X, Y, augment=[flip()]).read(), "is for images"),
        (lambda: arrays(X.reshape(200, 3, 1), Y, augment=munge()).read(), "munge is for tables"),
        (lambda: arrays(X.reshape(200, 3, 1), Y, augment=[flip()]).read(), "is for images"),
        (lambda: arrays(X, Y, augment=munge(), views=3), "munge makes rows, not views"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(make, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make()


def test_the_items_of_a_dataset_are_its_rows() -> None:
    x = torch.from_numpy(X).float()
    data = dataset(TensorDataset(x, torch.from_numpy(Y)), classes=["ant", "bee", "cat"]).read()
    assert data.schema.classes == ("ant", "bee", "cat")
    assert data.train.batch(torch.tensor([0])).schema is data.schema
    assert data.schema.kind == "table"
    pictures = [(Image.fromarray(RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)), i % 2) for i in range(80)]
    assert dataset(pictures).read().schema.shape == (3, 4, 6)


def test_a_dataset_larger_than_memory_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [(torch.from_numpy(RNG.integers(0, 256, (1, 4, 4), dtype=np.uint8)), i % 2) for i in range(80)]
    kept = dataset(items).read()
    monkeypatch.setattr(sys.modules["attar.data.arrays"], "IN_MEMORY", 100)  # attar.data.arrays is the word
    streamed = dataset(items).read()
    assert kept.fingerprint == streamed.fingerprint
    at = torch.arange(len(kept.test)).flip(0)
    a, b = kept.test.batch(at).inputs, streamed.test.batch(at).inputs
    assert isinstance(a, torch.Tensor)
    assert isinstance(b, torch.Tensor)
    assert torch.equal(a, b)


class Restless:
    """A dataset with a random transform inside."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return self.rng.normal(size=3), i % 2


def test_datasets_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DataError, match="differs when it is asked for again"):
        dataset(Restless()).read()
    with pytest.raises(DataError, match="item 1 is float64"):
        dataset([(np.zeros(3), 0), (np.zeros(4), 1)]).read()
    with pytest.raises(DataError, match=r"not \(input, label\)"):
        dataset([np.zeros(3)]).read()
    with pytest.raises(DataError, match="no length"):
        dataset(iter([]))
    with pytest.raises(DataError, match="the dataset is empty"):
        dataset([]).read()
    with pytest.raises(DataError, match="classes names 2 classes, the labels are 0, 1, 2"):
        dataset(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), classes=["a", "b"]).read()


def test_a_word_is_a_function_whatever_module_was_imported() -> None:
    for name in ("table", "images", "arrays", "munge"):
        importlib.import_module(f"attar.data.{name}")
        assert callable(getattr(attar.data, name))


def test_whatever_means_data_is_data() -> None:
    df = pd.DataFrame({"a": X[:, 0], "y": np.array(["n", "p"])[np.arange(200) % 2]})
    data = frame(df, label="y").read()
    assert as_data(data) is data
    for x in (frame(df, label="y"), (df, "y")):
        assert as_data(x).fingerprint == data.fingerprint
    assert as_data((X, Y)).fingerprint == arrays(X, Y).read().fingerprint
    assert as_data(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))).schema.classes == ("0", "1", "2")
    assert as_data((X, np.arange(200)), "regression").kind == "regression"


@pytest.mark.parametrize(
    ("x", "says"), [(pd.DataFrame({"a": [1]}), "which column is the label"), ("credit.csv", "str is not data"), (7, "int is not data")]
)
def test_what_is_no_data_is_refused(x: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_data(x)
