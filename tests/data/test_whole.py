"""Rows of another place: a class alone or a handful are enough, in whatever form they come; other columns and classes are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attar.data import Data, Split, arrays, as_data, dataset, frame, images, table, text, unlabelled
from attar.data.base import Whole
from attar.errors import DataError
from attar.verbs.evaluate import fitted

RNG = np.random.default_rng(0)


def rows(n: int, label: str = "label", **columns: Any) -> pd.DataFrame:
    """n rows of three classes, or of what `columns` say."""
    found = {"size": RNG.normal(size=n), "town": RNG.choice(list("ABCDE"), n), label: np.resize(["no", "yes", "maybe"], n)}
    return pd.DataFrame({**found, **columns})


@pytest.fixture(scope="module")
def home() -> Data:
    return frame(rows(300), "label").read()


def written(path: Path, these: pd.DataFrame) -> str:
    these.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


def coloured(folder: Path, **counts: int) -> str:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)


def pictures(n: int) -> np.ndarray:
    return RNG.integers(0, 255, (n, 6, 6)).astype(np.uint8)


@pytest.mark.parametrize("form", ["frame", "table", "numbers", "pixels", "tensors", "dataset", "folder", "text", "joined"])
def test_three_rows_of_one_class_are_read_as_another_place(form: str, tmp_path: Path) -> None:
    """Which no split could be made of."""
    many, one = np.arange(200) % 2, np.ones(3, dtype=np.int64)
    words = [f"text {i}" for i in range(203)]
    match form:
        case "frame":
            home, away = frame(rows(300), "label"), frame(rows(3, label="label").assign(label="yes"), "label")
        case "table":
            home = table(written(tmp_path / "home.csv", rows(300)), "label")
            away = table(written(tmp_path / "away.csv", rows(3).assign(label="yes")), "label")
        case "numbers":
            home, away = arrays(RNG.normal(size=(200, 2)), many), arrays(RNG.normal(size=(3, 2)), one)
        case "pixels":
            home, away = arrays(pictures(200), many), arrays(pictures(3), one)
        case "tensors":
            home, away = arrays(RNG.normal(size=(200, 2, 2)), many), arrays(RNG.normal(size=(3, 2, 2)), one)
        case "dataset":
            home = dataset(list(zip(pictures(200), many.tolist(), strict=True)))
            away = dataset(list(zip(pictures(3), one.tolist(), strict=True)))
        case "folder":
            home, away = images(coloured(tmp_path / "home", a=30, b=30)), images(coloured(tmp_path / "away", b=3))
        case _:
            far = pd.DataFrame({"text": words[200:], "label": "b"})
            home = text(
                written(tmp_path / "home.tsv", pd.DataFrame({"text": words[:200], "label": np.resize(["a", "b"], 200)})), label="label"
            )
            away = text(written(tmp_path / "away.tsv", far), label="label")
            if form == "joined":
                away += unlabelled(written(tmp_path / "more.tsv", pd.DataFrame({"text": ["another"]})))
    at_home = home.read()
    with pytest.raises(DataError):
        away.read()
    assert isinstance(away, Whole)
    there = away.read_whole(at_home)
    assert [len(split) for split in there.splits.values()] == [3 + (form == "joined"), 0, 0, 0]
    split = fitted("away", there, at_home)
    assert split.labels is not None
    known = split.labels[:3].tolist()
    assert [at_home.schema.classes[y] for y in known] == [there.schema.classes[0]] * 3
    assert len(split.batch(torch.arange(len(split)))) == len(split)


def test_numbers_and_several_labels_may_be_the_same_in_every_row() -> None:
    x, y = RNG.normal(size=(200, 2)), RNG.normal(size=200)
    home = arrays(x, y).read()
    assert fitted("away", arrays(x[:4] + 9, np.full(4, 0.5)).read_whole(home), home).labels is not None
    labels = RNG.integers(0, 2, (200, 2))
    home = arrays(x, labels).read()
    away = fitted("away", arrays(x[:4] + 9, np.zeros((4, 2), dtype=int)).read_whole(home), home)
    assert away.labels is not None
    assert not away.labels.any()


def test_other_classes_and_columns_are_refused_as_ever(home: Data) -> None:
    with pytest.raises(DataError, match=r"shift 'x' has the classes 'never', the data at home have 'maybe', 'no', 'yes'"):
        fitted("x", frame(rows(3).assign(label="never"), "label").read_whole(home), home)
    with pytest.raises(DataError, match="'size', which home reads, is missing"):
        fitted("x", frame(rows(3).drop(columns="size"), "label").read_whole(home), home)
    with pytest.raises(DataError, match="column 'town' is a number here, and was a category"):
        fitted("x", frame(rows(3, town=[1.5, 2.5, 3.5]), "label").read_whole(home), home)


def categories(split: Split) -> list[int]:
    """The codes of the only column of names."""
    inputs = split.batch(torch.arange(len(split))).inputs
    assert not isinstance(inputs, torch.Tensor)
    codes = inputs["categories"]
    assert isinstance(codes, torch.Tensor)
    return codes[:, 0].tolist()


def test_a_column_of_names_stays_one_however_few_rows_there_are_and_no_name_is_lost() -> None:
    towns = RNG.choice(["7", "8", "north", "south"], 300)
    home = frame(rows(300, town=towns), "label", categories=["town"]).read()
    away = fitted("x", frame(rows(2, town=["8", "7"]), "label").read_whole(home), home)
    names = home.schema.categories[0].categories
    assert [names[code - 1] for code in categories(away)] == ["8", "7"]
    many = frame(rows(30, town=[f"town {i}" for i in range(30)]), "label")
    with pytest.raises(DataError, match="an identifier or free text"):
        many.read()
    assert categories(fitted("x", many.read_whole(home), home)) == [0] * 30  # none of them is known at home


def test_neither_copies_nor_groups_nor_synthetic_rows_are_looked_for() -> None:
    from attar.data import munge

    home = frame(rows(300, sex=np.resize(["F", "M"], 300)), "label", groups="sex", augment=munge()).read()
    away = frame(rows(3, sex="F", town=["no", "yes", "maybe"]), "label", groups="sex", augment=munge())
    there = away.read_whole(home)
    assert len(there.train) == 3
    assert list(there.test.groups) == ["sex"]  # that it was declared is said as a limit
    assert fitted("x", there, home).labels is not None


def test_what_is_described_by_a_pair_is_data_all_the_same() -> None:
    assert as_data((RNG.normal(size=(200, 2)), np.arange(200) % 2)).kind == "classification"
