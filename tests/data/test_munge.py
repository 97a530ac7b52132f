"""MUNGE: synthetic rows near real ones, in every column and whatever their number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from attar.data import Munge, frame, munge
from attar.data.columns import Raw
from attar.data.munge import neighbours, synthesise
from attar.errors import DataError
from attar.signal import IGNORE


def columns(count: int = 300, seed: int = 0) -> list[Raw]:
    rng = np.random.default_rng(seed)
    missing = rng.normal(size=count)
    missing[rng.random(count) < 0.1] = np.nan
    return [
        Raw("real", "number", rng.normal(size=count) * 100),
        Raw("whole", "number", rng.integers(0, 50, count).astype(float)),
        Raw("holes", "number", missing),
        Raw("flag", "boolean", (rng.random(count) < 0.5).astype(float)),
        Raw("kind", "category", rng.integers(-1, 3, count), ("a", "b", "c")),
    ]


def test_the_neighbour_is_the_nearest_other_row() -> None:
    raws = columns()
    found = neighbours(raws, np.random.default_rng(0))
    numbers = np.stack([r.values for r in raws[:4]], 1)
    standard = np.nan_to_num((numbers - np.nanmean(numbers, 0)) / np.nanstd(numbers, 0))
    distance = cdist(standard, standard, "sqeuclidean") + (raws[4].values[:, None] != raws[4].values)
    np.fill_diagonal(distance, np.inf)
    best = distance.min(1)
    assert np.allclose(distance[np.arange(300), found], best, rtol=1e-4)


def test_a_rows_twin_is_not_its_neighbour() -> None:
    raws = [Raw("x", "number", np.array([0.0, 0.0, 5.0, 9.0, 9.0, 1e6]))]
    found = neighbours(raws, np.random.default_rng(0))
    assert (raws[0].values[found] != raws[0].values).all()


def test_each_value_is_its_own_or_near_its_neighbours() -> None:
    raws = columns(400)
    made, origin = synthesise(munge(rows=3, p=0.3), raws)
    assert len(origin) == 1200
    near = neighbours(raws, np.random.default_rng(0))[origin]
    for raw, new in zip(raws, made, strict=True):
        own = (new.values == raw.values[origin]) | (np.isnan(new.values) & np.isnan(raw.values[origin]))
        if raw.kind != "number":
            assert (own | (new.values == raw.values[near])).all(), f"{raw.name} is the row's or its neighbour's"
    real, new = raws[0], made[0]
    changed = new.values != real.values[origin]
    assert abs(changed.mean() - 0.3) < 4 * np.sqrt(0.21 / 1200), "one in p is replaced"
    here, there = real.values[origin][changed], real.values[near][changed]
    inside = (new.values[changed] > real.values.min()) & (new.values[changed] < real.values.max())
    z = ((new.values[changed] - there) / np.abs(here - there))[inside]
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * len(z)), "N(neighbour's value, distance²)"


def test_a_larger_s_stays_nearer_to_the_neighbour() -> None:
    raws = columns()
    spread = []
    for s in (1.0, 5.0):
        made, origin = synthesise(munge(rows=4, s=s), raws)
        near = neighbours(raws, np.random.default_rng(0))[origin]
        changed = made[0].values != raws[0].values[origin]
        spread.append(np.abs(made[0].values - raws[0].values[near])[changed].mean())
    assert spread[1] < spread[0] / 4


@pytest.mark.parametrize("width", [1, 2, 9])
def test_few_columns_are_changed_too(width: int) -> None:
    # AutoGluon's SPUNGE changes int(0.1 · d) columns: none of nine.
    raws = columns()[:2] * 5
    raws = [Raw(f"x{i}", r.kind, r.values + i) for i, r in enumerate(raws[:width])]
    made, origin = synthesise(munge(rows=1), raws)
    for raw, new in zip(raws, made, strict=True):
        assert 0.2 < (new.values != raw.values[origin]).mean() < 0.6


def test_ranges_and_whole_numbers_are_kept() -> None:
    raws = columns()
    made, _ = synthesise(munge(rows=5), raws)
    for raw, new in zip(raws[:3], made, strict=False):
        assert np.nanmin(new.values) >= np.nanmin(raw.values)
        assert np.nanmax(new.values) <= np.nanmax(raw.values)
    assert (made[1].values == np.round(made[1].values)).all()


def table(count: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.normal(size=count).astype(np.float32),
            "b": rng.choice(["u", "v"], count),
            "w": rng.random(count),
            "y": rng.choice(["no", "yes"], count),
        }
    )


def test_synthetic_rows_stand_behind_the_real_ones_of_the_training_split_alone() -> None:
    plain = frame(table(), label="y", weight="w").read()
    data = frame(table(), label="y", weight="w", augment=munge(rows=2)).read()
    real = len(plain.train)
    assert [len(s) for s in list(data.splits.values())[1:]] == [len(s) for s in list(plain.splits.values())[1:]]
    assert torch.equal(data.train.ids[:real], plain.train.ids)
    assert data.train.labels is not None
    assert (data.train.labels[real:] == IGNORE).all()
    assert 0.8 * real < len(data.train) - real <= 2 * real, "of two columns a quarter of the draws changes neither"
    assert data.schema == plain.schema, "statistics are of real rows"
    assert data.train.weight is not None
    assert plain.train.weight is not None
    assert set(data.train.weight[real:].tolist()) <= set(plain.train.weight.tolist())
    synthetic = set(data.train.ids[real:].tolist())
    assert len(synthetic) == len(data.train) - real
    assert not synthetic & {i for s in plain.splits.values() for i in s.ids.tolist()}, "none equals a row of any split"
    inputs = data.train.batch(torch.arange(len(data.train))).inputs
    assert not isinstance(inputs, torch.Tensor)
    assert inputs["numbers"].dtype == torch.float32
    assert any(note.startswith("munge added") for note in data.notes)


def test_labels_of_a_regression_are_nan_and_another_seed_makes_other_rows() -> None:
    df = table().assign(y=np.random.default_rng(1).normal(size=400))
    one, two = (frame(df, label="y", drop=["w"], augment=munge(rows=1, seed=seed)).read() for seed in (0, 1))
    assert one.train.labels is not None
    assert int(one.train.labels.isnan().sum()) > 100
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == frame(df, label="y", drop=["w"], augment=munge(rows=1)).read().fingerprint


def test_rows_that_are_all_there_already_are_not_added_again() -> None:
    df = pd.DataFrame({"b": np.tile(["u", "v"], 200), "c": np.repeat(list("pqrstxyz"), 50), "n": np.arange(400) // 2 % 4})
    df["y"] = np.random.default_rng(0).choice(["no", "yes"], 400)
    data = frame(df, label="y", augment=munge(rows=3)).read()
    everything = torch.cat([s.ids for s in data.splits.values()])
    assert len(everything) == 400 + len(set(everything.tolist())) - len({tuple(r) for r in df[["b", "c", "n"]].itertuples(index=False)})


@pytest.mark.parametrize("make", [lambda: munge(rows=0), lambda: munge(p=0), lambda: munge(p=1.5), lambda: munge(s=0)])
def test_arguments_that_make_no_rows_are_refused(make: Callable[[], Munge]) -> None:
    with pytest.raises(DataError, match="munge"):
        make()
