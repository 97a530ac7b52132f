"""Row ids: by content alone, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.data import frame
from attar.data.ids import number_keys, row_ids, tensor_ids, text_keys


def test_ids_do_not_depend_on_the_order_of_columns_or_on_other_rows() -> None:
    keys = {"a": number_keys(np.arange(5)), "b": text_keys(np.array([0, 1, 0, -1, 1]), ("u", "v"))}
    ids = row_ids(keys)
    assert (row_ids(dict(reversed(keys.items()))) == ids).all()
    assert (row_ids({name: k[2:] for name, k in keys.items()}) == ids[2:]).all()
    assert not (row_ids({"b": keys["a"], "a": keys["b"]}) == ids).any(), "the name of a column counts"


def test_equal_numbers_have_equal_ids_whatever_their_type() -> None:
    a = number_keys(np.array([0.0, 1.0, np.nan]))
    assert (number_keys(np.array([-0.0, 1.0, -np.nan])) == a).all()
    assert (number_keys(np.array([0, 1], dtype=np.int32)) == a[:2]).all()
    assert (number_keys(np.array([False, True])) == a[:2]).all()


@given(st.lists(st.tuples(st.floats(allow_infinity=False, width=32), st.sampled_from(["a", "b", "ab", ""])), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_rows_have_one_id_exactly_where_they_are_equal(rows: list[tuple[float, str]]) -> None:
    texts = tuple(dict.fromkeys(t for _, t in rows))
    numbers = np.array([n for n, _ in rows])
    ids = row_ids({"n": number_keys(numbers), "t": text_keys(np.array([texts.index(t) for _, t in rows]), texts)}).tolist()
    content = [("nan" if np.isnan(n) else n + 0.0, t) for n, t in rows]
    for i, a in enumerate(content):
        for j, b in enumerate(content):
            assert (ids[i] == ids[j]) == (a == b)


def test_the_ids_of_today_are_the_ids_of_tomorrow() -> None:
    # Splits, stored answers and out-of-fold answers hang on these: a change here is a change of every user's splits.
    keys = {"age": number_keys(np.array([41.0, np.nan])), "sex": text_keys(np.array([0, -1]), ("female",))}
    assert row_ids(keys).tolist() == [4111414516729758691, 5098756599579659416]
    assert tensor_ids(np.arange(4, dtype=np.uint8)[None]).tolist() == [-7437326522806203910]


def test_the_label_and_the_weight_are_not_in_the_id() -> None:
    df = pd.DataFrame({"x": np.arange(100) % 70, "y": ["no", "yes"] * 50, "w": 1.0})
    other = df.assign(y=["yes", "no"] * 50, w=2.0)
    a, b = (frame(d, label="y", weight="w").read() for d in (df, other))
    assert torch.equal(a.test.ids, b.test.ids)
    assert a.fingerprint != b.fingerprint
