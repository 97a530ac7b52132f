"""Whatever a table holds, it is read and keeps the contract of data, or it is refused with a way out; nothing else is raised."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attar.data import Data, frame, munge, table
from attar.errors import DataError
from attar.testing.data import check_data

CELLS: list[Any] = [
    1, 2.5, -0.0, -5, 10**30, 2**60, 1e300, float("nan"), float("inf"), np.float32(1.1), np.int8(3), decimal.Decimal("1.5"), 1 + 2j,
    True, False, None, pd.NaT, pd.NA, "a", "b", "", " ", "12", "3.4", "007", "?", "NA", "1e5", "inf", "nan", "2005-01-01", "é", "\x00",
    datetime.date(2005, 1, 1), np.datetime64("2005-01-01"), pd.Timedelta(1, "h"), b"x", [1], (1, 2),
]  # fmt: skip
ROLES = st.sampled_from(["input", "input", "input", "categories", "weight", "time", "group", "id"])


def refusal(read: Callable[[], Data]) -> DataError | None:
    try:
        read()
    except DataError as error:
        if error.hint:
            return error
        raise
    return None


@st.composite
def odd_column(draw: st.DrawFn, rows: int) -> pd.Series:
    pool = draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=3))
    cells = np.empty(rows, dtype=object)
    for i, k in enumerate(np.random.default_rng(draw(st.integers(0, 99))).integers(0, len(pool), rows)):
        cells[i] = pool[k]
    series = pd.Series(cells)
    kind = draw(st.sampled_from(["object", "category", "as pandas likes"]))
    if kind == "category" and all(v is None or isinstance(v, str) for v in pool):  # pandas itself fails on odder ones
        return series.astype("category")
    return series.infer_objects() if kind == "as pandas likes" else series


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_frame_of_odd_cells_is_read_or_refused(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 120))
    rng = np.random.default_rng(rows)
    role = data.draw(ROLES)
    odd_label = data.draw(st.sampled_from([False, False, True]))
    df = pd.DataFrame({"x": rng.normal(size=rows), "odd": data.draw(odd_column(rows))})
    df["y"] = data.draw(odd_column(rows)) if odd_label else rng.choice(["no", "yes"], rows)
    roles: dict[str, Any] = {} if role == "input" else {role: ["odd"] if role == "categories" else "odd"}
    roles["unlabelled"] = data.draw(st.sampled_from(["refuse", "keep"]))
    augment = data.draw(st.sampled_from([None, munge(rows=1)]))

    def read() -> Data:
        return frame(df, label="y", augment=augment, **roles).read()

    if refusal(read) is None:
        check_data(read)


@given(st.binary(max_size=30), st.integers(0, 1500), st.sampled_from([b"", b"\n", b",", b'"', b"\xff", b"\r"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_csv_is_read_or_refused(tmp_path: Path, noise: bytes, at: int, mark: bytes) -> None:
    whole = "x,c,y\n" + "".join(f"{i * 7 % 31},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(150))
    path = tmp_path / "damaged.csv"
    path.write_bytes(whole.encode()[:at] + noise + mark + whole.encode()[at:])
    error = refusal(lambda: table(str(path), label="y").read())
    assert error is None or len(error.message) < 500
