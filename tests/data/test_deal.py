"""Splits: by content, by group, by time; what is left out, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.data import frame
from attar.data.deal import SPLITS, Shares, deal
from attar.errors import DataError


@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(100, 300), st.integers(0, 300))
@settings(max_examples=50, deadline=None)
def test_more_rows_and_another_order_move_no_row_and_equal_rows_lie_together(draw: int, seed: int, few: int, more: int) -> None:
    rng = np.random.default_rng(draw)
    distinct = rng.integers(-(2**63), 2**63 - 1, few)
    old = np.concatenate([distinct, rng.choice(distinct, few)])
    new = rng.integers(-(2**63), 2**63 - 1, more)
    shares = Shares(0.25, 0.25, 0.25)
    before, _ = deal(old, shares, seed=seed)
    after, _ = deal(np.concatenate([new, old[::-1]]), shares, seed=seed)
    assert (after[more:][::-1] == before).all()
    where: dict[int, int] = {}
    for row, part in zip(old.tolist(), before.tolist(), strict=True):
        assert where.setdefault(row, part) == part


def test_another_seed_deals_anew() -> None:
    ids = np.arange(1000)
    assert 0.3 < float((deal(ids, Shares(), seed=0)[0] != deal(ids, Shares(), seed=1)[0]).mean()) < 0.8


def test_a_larger_test_share_only_adds_to_the_test_split() -> None:
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 2000)
    small, large = (deal(ids, Shares(test=t))[0] == 3 for t in (0.2, 0.4))
    assert large[small].all()
    assert large.sum() > small.sum()


def test_the_shares_are_met() -> None:
    part, _ = deal(np.arange(20_000), Shares(0.05, 0.15, 0.3))
    expected = np.array([0.5, 0.05, 0.15, 0.3])
    error = np.bincount(part) / 20_000 - expected
    assert (np.abs(error) < 4 * np.sqrt(expected * (1 - expected) / 20_000)).all(), "4 standard errors"


def test_a_group_lies_in_one_split_whatever_the_others_are() -> None:
    group = np.random.default_rng(0).integers(0, 200, 3000)
    part, notes = deal(np.arange(3000), Shares(), group=group)
    assert all(len(set(part[group == g])) == 1 for g in range(200))
    assert not notes
    few = group < 150
    assert (deal(np.arange(3000)[few], Shares(), group=group[few])[0] == part[few]).all()


def test_a_row_that_equals_one_of_an_earlier_split_is_left_out_of_a_group_or_time_split() -> None:
    ids = np.arange(1000)
    ids[999] = ids[0]  # the newest row repeats the oldest
    part, notes = deal(ids, Shares(), time=np.arange(1000))
    assert part[0] == 0
    assert part[999] == -1
    assert notes == ("1 rows repeat a row of an earlier split and are left out",)
    assert [len(set(ids[part == a]) & set(ids[part == b])) for a in range(4) for b in range(a)] == [0] * 6


def test_the_oldest_train_and_the_newest_test_with_each_moment_in_one_split() -> None:
    time = np.random.default_rng(0).integers(0, 60, 3000)
    part, _ = deal(np.arange(3000), Shares(), time=time)
    spans = [(time[part == k].min(), time[part == k].max()) for k in range(4)]
    assert all(a[1] < b[0] for a, b in pairwise(spans)), spans
    assert np.allclose(np.bincount(part) / 3000, [0.6, 0.1, 0.1, 0.2], atol=0.03)


@pytest.mark.parametrize(
    ("shares", "says"),
    [((0.1, 0.1, 0.0), "test=0 is not a share"), ((1.2, 0.1, 0.2), "valid=1.2 is not a share"), ((0.1, 0.1, 0.9), "nothing is left")],
)
def test_shares_that_leave_a_split_without_rows_are_refused(shares: tuple[float, float, float], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Shares(*shares)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"split is empty: 0\.\d of 3 rows, 2 of them different"):
        deal(np.array([5, 5, 7]), Shares())
    with pytest.raises(DataError, match=r"the (valid|calibration) split is empty: 0\.1 of 400 rows, at 4 different times"):
        deal(np.arange(400), Shares(), time=np.arange(400) // 100)
    with pytest.raises(DataError, match="in 2 groups"):
        deal(np.arange(400), Shares(), group=np.arange(400) % 2)


def table(**columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=400), "y": rng.choice(["no", "yes"], 400), **columns})


@pytest.mark.parametrize("kind", ["number", "date", "text"])
def test_a_time_column_splits_and_is_no_input(kind: str) -> None:
    days = pd.date_range("2005-01-01", periods=400)
    order = np.random.default_rng(1).permutation(400)
    when = {"number": order / 7, "date": days[order], "text": days[order].strftime("%Y-%m-%d")}[kind]
    df = table(when=when, x=order.astype(float))
    data = frame(df, label="y", time="when").read()
    assert [c.name for c in data.schema.columns] == ["x"]
    spans = []
    for name in SPLITS:
        inputs = data.splits[name].rows.inputs["numbers"]  # pyright: ignore[reportFunctionMemberAccess] rows in memory
        spans.append((float(inputs.min()), float(inputs.max())))
    assert all(a[1] < b[0] for a, b in pairwise(spans)), spans


def test_a_group_column_splits_and_is_no_input() -> None:
    df = table(patient=[f"p{i // 4}" for i in range(400)])
    data = frame(df, label="y", group="patient").read()
    assert [c.name for c in data.schema.columns] == ["x"]
    by = {float(x): name for name in SPLITS for x in data.splits[name].rows.inputs["numbers"][:, 0]}  # pyright: ignore[reportFunctionMemberAccess] Memory, a function with inputs
    for _, rows in df.groupby("patient"):
        assert len({by[float(np.float32(x)) if float(np.float32(x)) in by else float(x)] for x in rows.x}) == 1


def test_what_is_no_time_or_no_group_is_refused() -> None:
    for column, says in (
        (["2005-01-01"] * 399 + ["yesterday"], "time 'k' is 'yesterday' in row 400"),
        ([*range(399), None], "time 'k' is missing in row 400"),
        ([0.5] * 399 + [np.inf], "time 'k' is infinite in row 400"),
    ):
        with pytest.raises(DataError, match=says):
            frame(table(k=column), label="y", time="k").read()
    with pytest.raises(DataError, match="group 'k' is missing in row 400"):
        frame(table(k=["a"] * 399 + [None]), label="y", group="k").read()
    with pytest.raises(DataError, match="a split follows one of them"):
        frame(table(k=range(400), g=range(400)), label="y", time="k", group="g").read()


def test_rows_that_come_with_their_split_stay_there_and_are_taken_out_of_what_is_dealt() -> None:
    ids = np.concatenate([np.arange(1000), np.arange(900, 1100), np.arange(1050, 1200)])
    given_ = np.concatenate([np.full(1000, -1), np.full(200, 1), np.full(150, 3)])
    shares = Shares(0, 0.3, 0, given=("valid", "test"))
    part, notes = deal(ids, shares, given=given_)
    assert set(ids[part == 3]) == set(range(1050, 1200))
    assert set(ids[part == 1]) == set(range(900, 1050))
    assert set(ids[part == 0]) | set(ids[part == 2]) == set(range(900))
    assert abs((part == 2).sum() / 900 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 900), "4 standard errors"
    assert notes == ("150 rows repeat a row of a split that has its own file, or of a later such split, and are left out",)
    alone = deal(ids[:1000], Shares(0, 0.3, 0, given=("valid", "test")), given=np.where(np.arange(1000) < 950, -1, [1, 3] * 500))[0]
    assert (alone[:900] == part[:900]).all(), "rows that are dealt are dealt alike whatever comes with its split"
