"""Tables: what is read, what is refused and with which words, and that nothing leaks."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from attar.data import Data, frame, table
from attar.errors import DataError
from attar.signal import IGNORE, Schema

CREDIT = Path(__file__).parents[2] / "recipes" / "data" / "credit.csv.gz"


def rows(count: int = 200, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    base = {"x": rng.normal(size=count), "colour": rng.choice(["red", "green"], count), "y": rng.choice(["no", "yes"], count)}
    return pd.DataFrame({**base, **columns})


def numbers(data: Data, split: str = "train") -> torch.Tensor:
    s = data.splits[split]
    inputs = s.batch(torch.arange(len(s))).inputs
    assert not isinstance(inputs, torch.Tensor)
    return inputs["numbers"]


def codes(data: Data, split: str = "train") -> torch.Tensor:
    s = data.splits[split]
    inputs = s.batch(torch.arange(len(s))).inputs
    assert not isinstance(inputs, torch.Tensor)
    return inputs["categories"]


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def csv(lines: int = 60) -> str:
    return "x,c,y\n" + "".join(f"{i * 7 % 31},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(lines))


def refused(*says: str, df: pd.DataFrame, kind: Any = "auto", **arguments: Any) -> None:
    with pytest.raises(DataError) as caught:
        frame(df, **{"label": "y", **arguments}).read(kind)
    for text in says:
        assert text in str(caught.value)
    assert caught.value.hint, "every error offers a way out"


# --- the real table -----------------------------------------------------------------------------------------------------------------


def test_the_credit_table_has_its_customers_and_its_defaults() -> None:
    data = table(str(CREDIT), label="default").read()
    assert sum(map(len, data.splits.values())) == 30_000
    assert data.schema.classes == ("no", "yes")
    assert sum(int((s.labels == 1).sum()) for s in data.splits.values() if s.labels is not None) == 6_636
    assert [c.name for c in data.schema.categories] == ["sex", "education", "marriage"]
    assert data.schema.columns[2].categories == (
        "graduate school", "high school", "others", "university", "unknown 0", "unknown 5", "unknown 6"
    )  # fmt: skip
    assert len(data.schema.numbers) == 20
    assert numbers(data).dtype == torch.float32
    assert any("56 rows repeat another row" in note for note in data.notes)
    for name, share in (("train", 0.6), ("valid", 0.1), ("calibration", 0.1), ("test", 0.2)):
        assert abs(len(data.splits[name]) / 30_000 - share) < 4 * np.sqrt(share * (1 - share) / 30_000), "4 standard errors of a fair deal"


def test_the_credit_file_says_nothing_of_when_it_was_made() -> None:
    raw = CREDIT.read_bytes()
    assert raw[4:8] == b"\0\0\0\0", "gzip's time stamp"
    assert len(raw) < 1_000_000
    assert gzip.decompress(raw).startswith(b"limit_balance,sex,education,marriage,age,delay_sep")


# --- kinds of columns ---------------------------------------------------------------------------------------------------------------


def test_each_column_gets_its_kind_and_its_statistics_from_the_training_rows() -> None:
    df = rows(300, n=np.arange(300) % 7, b=[True, False, None] * 100)
    df.loc[::10, "x"] = np.nan
    df.loc[df.x > 1.5, "colour"] = None
    data = frame(df, label="y").read()
    by = {c.name: c for c in data.schema.columns}
    assert [(c.name, c.kind) for c in data.schema.columns] == [("x", "number"), ("colour", "category"), ("n", "number"), ("b", "boolean")]
    x = numbers(data)[:, 0].double().numpy()
    known = x[~np.isnan(x)]
    assert by["x"].mean == pytest.approx(known.mean(), rel=1e-6)
    assert by["x"].std == pytest.approx(known.std(), rel=1e-6)
    assert by["x"].median == pytest.approx(np.median(known), rel=1e-6)
    assert by["x"].missing == pytest.approx(np.isnan(x).mean())
    assert by["colour"].categories == ("green", "red")
    assert by["colour"].missing == pytest.approx(float((codes(data) == 0).float().mean()))
    assert set(numbers(data)[:, 2].nan_to_num(-1).tolist()) == {-1.0, 0.0, 1.0}
    everything = df.x[~df.x.isna()]
    assert by["x"].mean != pytest.approx(everything.mean(), rel=1e-9), "statistics of all rows would leak the test split"


def test_a_category_never_seen_in_training_reads_as_unknown() -> None:
    plain = frame(rows(300), label="y").read()

    def with_one(row: int) -> Data:
        df = rows(300)
        df.loc[row, "colour"] = "ultraviolet"
        return frame(df, label="y").read()

    data = next(d for d in map(with_one, range(300)) if (codes(d, "test") == 0).any())  # the colour is in the row's hash: try
    assert plain.schema.columns[1].categories == data.schema.columns[1].categories == ("green", "red")
    assert (codes(data, "test") == 0).sum() == 1
    assert any("'ultraviolet' in 1 rows, never in train" in note for note in data.notes)


def test_whole_numbers_may_be_taken_for_names_and_a_missing_one_renames_none() -> None:
    df = rows(200, area=[1, 2, 3, None] * 50)
    data = frame(df, label="y", categories=["area"]).read()
    assert {c.name: c.categories for c in data.schema.categories}["area"] == ("1", "2", "3")


def test_text_that_reads_as_numbers_is_numbers_and_codes_with_zeros_stay_names() -> None:
    data = frame(rows(200, n=[str(i % 9) for i in range(200)], zip=[f"0{i % 5}107" for i in range(200)]), label="y").read()
    assert {c.name: c.kind for c in data.schema.columns} == {"x": "number", "colour": "category", "n": "number", "zip": "category"}


def test_columns_of_every_dtype_of_pandas_are_read() -> None:
    df = rows(
        120,
        small=pd.array([1, 2, None] * 40, dtype="Int64"),
        flag=pd.array([True, None, False] * 40, dtype="boolean"),
        kind=pd.Categorical.from_codes([0, 1, -1] * 40, categories=["p", "q"]),
        half=np.arange(120, dtype=np.float32) % 4 / 2,
        text=pd.array(["u", "v", None] * 40, dtype="string"),
        mixed=[1, 2.5, None] * 40,
    )
    data = frame(df, label="y").read()
    kinds = {c.name: c.kind for c in data.schema.columns}
    expected = {"small": "number", "flag": "boolean", "kind": "category", "half": "number", "text": "category", "mixed": "number"}
    assert {k: kinds[k] for k in expected} == expected


def test_numbers_keep_double_precision_where_single_would_change_them() -> None:
    assert numbers(frame(rows(100, x=np.arange(100) / 4), label="y").read()).dtype == torch.float32
    fine = frame(rows(100, x=np.arange(100) / 10), label="y").read()
    assert numbers(fine).dtype == torch.float64
    assert set(numbers(fine)[:, 0].tolist()) <= set((np.arange(100) / 10).tolist()), "every value as it was written"
    assert any("double precision: 'x'" in note for note in fine.notes)


def test_constant_and_empty_columns_do_no_harm_and_are_named() -> None:
    data = frame(rows(100, flat=[0.1] * 100, gone=[None] * 100, same=["a"] * 100), label="y").read()
    by = {c.name: c for c in data.schema.columns}
    assert (by["flat"].mean, by["flat"].std) == (pytest.approx(0.1), 1.0)
    assert (by["gone"].kind, by["gone"].std, by["gone"].missing) == ("number", 1.0, 1.0)
    assert [any(repr(name) in note for note in data.notes) for name in ("flat", "gone", "same")] == [True] * 3


def test_a_column_that_counts_the_rows_is_named() -> None:
    assert any("'n' counts the rows, 5 to 104" in note for note in frame(rows(100, n=np.arange(5, 105)), label="y").read().notes)


def test_blank_text_and_declared_words_are_missing() -> None:
    df = rows(100, c=["a", " ", "unknown", "b"] * 25, n=["1", "2", "?", "4"] * 25)
    data = frame(df, label="y", missing=["?", "unknown"]).read()
    by = {c.name: c for c in data.schema.columns}
    assert by["c"].categories == ("a", "b")
    assert by["n"].kind == "number"
    assert 0.1 < by["n"].missing < 0.4


def test_the_frame_is_left_as_it_was() -> None:
    df = rows(100, c=["a", "?"] * 50)
    before = df.copy()
    frame(df, label="y", missing=["?"]).read()
    pd.testing.assert_frame_equal(df, before)


# --- what is refused ----------------------------------------------------------------------------------------------------------------


def test_a_missing_column_is_refused_with_its_neighbours() -> None:
    refused("label: there is no column 'colr'", "did you mean 'colour'?", df=rows(), label="colr")
    refused("weight: there is no column", df=rows(), weight="w")


def test_a_column_with_two_roles_is_refused() -> None:
    refused("column 'y' is named as label and as categories", df=rows(), categories=["y"])
    refused("column 'x' is named as weight and as drop", df=rows(), weight="x", drop=["x"])


def test_infinite_values_are_refused_by_column_and_row() -> None:
    df = rows()
    df.loc[[7, 12], "x"] = np.inf
    refused("column 'x' is inf in row 8 and 1 more", df=df)


def test_numbers_too_large_for_a_spread_are_refused() -> None:
    refused("column 'x' reaches", df=rows(100, x=[1e308, -1e308] * 50))


def test_dates_are_refused_unless_they_are_the_time_column() -> None:
    days = pd.date_range("2005-01-01", periods=200)
    refused("column 'd' holds dates or times, such as '2005-01-01", 'time="d"', df=rows(200, d=days))
    refused("column 'd' holds dates", df=rows(200, d=[f"{1 + i % 28}.{1 + i % 12}.2005" for i in range(200)]))
    refused("column 'd' holds dates", df=rows(200, d=[datetime.date(2005, 1, 1 + i % 28) for i in range(200)]))
    refused("column 'd' holds dates", df=rows(200, d=pd.to_timedelta(np.arange(200), unit="h")))
    assert len(frame(rows(200, d=days), label="y", time="d").read().test)


def test_identifiers_and_free_text_are_refused_unless_declared() -> None:
    df = rows(200, name=[f"customer {i}" for i in range(200)])
    refused("column 'name' holds 200 different texts in 200 rows", 'id="name"', df=df)
    assert len(frame(df, label="y", categories=["name"]).read().schema.categories) == 2
    assert [c.name for c in frame(df, label="y", id="name").read().schema.columns] == ["x", "colour"]


def test_long_identifiers_that_are_numbers_are_refused() -> None:
    refused("column 'card' holds 9007199254740993 in row 1", df=rows(100, card=np.arange(100) + 2**53 + 1))


def test_numbers_among_text_are_refused_with_the_odd_one() -> None:
    refused("column 'n' holds numbers, and also '?' (first in row 3)", 'missing=["?"]', df=rows(100, n=["1", "2", "?", "4"] * 25))


def test_mixed_and_nested_values_are_refused() -> None:
    refused("column 'm' mixes number 1 (row 1) and text 'a' (row 2)", df=rows(100, m=[1, "a"] * 50))
    refused("column 'm' holds a list in row 1", df=rows(100, m=[[1, 2]] * 100))
    refused("column 'm' holds complex numbers", df=rows(100, m=np.ones(100, dtype=complex)))


def test_a_copy_of_the_label_among_the_inputs_is_refused() -> None:
    df = rows()
    refused("column 'copy' equals the label 'y' in every row", 'drop=["copy"]', df=df.assign(copy=df.y))
    n = np.arange(200) % 2
    refused("column 'copy' equals the label 'y'", df=rows(y=n, copy=n.astype(float)))
    r = np.random.default_rng(9).normal(size=200)
    refused("column 'copy' equals the label 'y'", df=rows(y=r, copy=r))


def test_several_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several columns are called 'x'"):
        table(write(tmp_path / "t.csv", csv().replace("x,c,y", "x,x,y", 1)), label="y").read()


def test_an_empty_table_is_refused() -> None:
    refused("no rows", df=rows(5).head(0))


def test_a_table_of_labels_alone_is_refused() -> None:
    refused("no column is left", df=rows().drop(columns=["x", "colour"]))


# --- labels -------------------------------------------------------------------------------------------------------------------------


def test_text_booleans_and_few_whole_numbers_are_classes_in_order() -> None:
    n = np.arange(200)
    assert frame(rows(y=np.array([10, 9, 2])[n % 3]), label="y").read().schema.classes == ("2", "9", "10")
    assert frame(rows(y=[str(v) for v in np.array([10, 9, 2])[n % 3]]), label="y").read().schema.classes == ("2", "9", "10")
    assert frame(rows(y=np.array(["b", "a", "c"])[n % 3]), label="y").read().schema.classes == ("a", "b", "c")
    assert frame(rows(y=n % 2 == 0), label="y").read().schema.classes == ("False", "True")
    data = frame(rows(y=np.array([10.0, 9.0])[n % 2]), label="y").read()
    assert data.kind == "classification"
    assert data.schema.classes == ("9", "10")
    assert data.train.labels is not None
    assert data.train.labels.dtype == torch.int64


def test_numbers_with_fractions_are_a_regression_with_the_training_rows_mean() -> None:
    y = np.random.default_rng(1).normal(size=200)
    data = frame(rows(y=y), label="y").read()
    assert data.kind == "regression"
    assert data.train.labels is not None
    assert data.train.labels.dtype == torch.float32
    assert data.schema.label_mean == pytest.approx(float(data.train.labels.double().mean()), rel=1e-6)
    assert data.schema.label_std == pytest.approx(float(data.train.labels.double().std(correction=0)), rel=1e-6)


def test_many_whole_numbers_are_refused_until_the_task_is_said() -> None:
    df = rows(y=np.arange(200) % 50)
    refused("50 different whole numbers from 0 to 49: classes, or a number?", "task: classification() or task: regression()", df=df)
    assert frame(df, label="y").read("regression").kind == "regression"
    assert len(frame(df, label="y").read("classification").schema.classes) == 50


def test_a_label_that_is_missing_is_refused_or_kept_for_the_teacher() -> None:
    df = rows()
    df.loc[[3, 4], "y"] = None
    refused("label 'y' is missing in 2 of 200 rows, first in row 4", 'unlabelled="keep"', df=df)
    data = frame(df, label="y", unlabelled="keep").read()
    assert sum(int((s.labels == IGNORE).sum()) for s in data.splits.values() if s.labels is not None) == 2
    r = rows(y=np.random.default_rng(9).normal(size=200))
    r.loc[5, "y"] = np.nan
    kept = frame(r, label="y", unlabelled="keep").read()
    assert sum(int(s.labels.isnan().sum()) for s in kept.splits.values() if s.labels is not None) == 1
    refused("label 'y' is missing in all 200 rows", df=rows(y=[None] * 200))


def test_one_class_only_is_refused() -> None:
    refused("label 'y' has one class only: 'no' in all 200 rows", df=rows(y=["no"] * 200))
    refused("label 'y' is 1.5 in every row", df=rows(y=[1.5] * 200))


def test_a_label_that_is_the_wrong_kind_for_the_task_is_refused() -> None:
    refused("task regression, but label 'y' is not a number", df=rows(), kind="regression")
    refused("label 'y' has 200 classes in 200 rows", df=rows(y=np.arange(200) / 7), kind="classification")
    refused("label 'y' mixes", df=rows(y=["no", 1] * 100))
    refused("label 'y' is inf in row 2", df=rows(y=[0.5, np.inf] * 100))


def test_several_label_columns_are_labels_each() -> None:
    n = np.arange(200)
    df = rows(a=n % 2, b=n % 3 == 0)
    data = frame(df.drop(columns="y"), label=["a", "b"]).read()
    assert (data.kind, data.schema.classes, data.schema.label) == ("multilabel", ("a", "b"), "a, b")
    assert data.train.labels is not None
    assert data.train.labels.shape == (len(data.train), 2)
    refused("label 'a' holds 2", df=rows(a=n % 3, b=n % 2), label=["a", "b"])
    refused("task classification needs one label column", df=df, label=["a", "b"], kind="classification")
    refused("task multilabel needs several", df=df, kind="multilabel")


def test_a_class_that_no_test_row_has_is_named() -> None:
    y = np.array(["no", "yes"] * 100, dtype=object)
    y[17] = "rare"
    assert any("row has y 'rare'" in note for note in frame(rows(y=y), label="y").read().notes)


# --- weights, ids, files ------------------------------------------------------------------------------------------------------------


def test_weights_are_carried_and_wrong_ones_are_refused() -> None:
    w = np.arange(200.0)
    data = frame(rows(w=w), label="y", weight="w").read()
    assert [c.name for c in data.schema.columns] == ["x", "colour"]
    carried = torch.cat([s.weight for s in data.splits.values() if s.weight is not None])
    assert sorted(carried.tolist()) == w.tolist()
    w[9] = -1
    refused("weight 'w' is -1 in row 10", df=rows(w=w), weight="w")
    w[9] = np.nan
    refused("weight 'w' is missing in row 10", df=rows(w=w), weight="w")
    refused("weigh 0", df=rows(w=np.zeros(200)), weight="w")
    refused("weight 'colour' holds text", df=rows(), weight="colour")


def test_an_id_that_names_two_rows_is_refused() -> None:
    ids = [f"c{i}" for i in range(200)]
    ids[7] = ids[9] = "c3"
    refused("id 'k' names 2 rows again: 'c3'", 'group="k"', df=rows(k=ids), id="k")
    refused("id 'k' is missing in row 1", df=rows(k=[None, *ids[1:]]), id="k")


def test_csv_gzip_tab_and_parquet_read_alike(tmp_path: Path) -> None:
    text = csv(80)
    plain = table(write(tmp_path / "t.csv", text), label="y").read()
    marked = table(write(tmp_path / "bom.csv", "\ufeff" + text), label="y").read()
    packed = table(write(tmp_path / "t.csv.gz", gzip.compress(text.encode())), label="y").read()
    tabbed = table(write(tmp_path / "t.tsv", text.replace(",", "\t")), label="y").read()
    semi = table(write(tmp_path / "s.csv", text.replace(",", ";")), label="y", separator=";").read()
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    parquet = table(str(tmp_path / "t.parquet"), label="y").read()
    framed = frame(pd.read_csv(tmp_path / "t.csv"), label="y").read()
    assert len({d.fingerprint for d in (plain, marked, packed, tabbed, semi, parquet, framed)}) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", "", "empty.csv does not read as a table"),
        ("head.csv", "x,c,y\n", "no rows"),
        ("long.csv", csv() + "1,a,no,more\n", "Expected 3 columns, got 4"),
        ("short.csv", csv() + "1,a\n", "Expected 3 columns, got 2"),
        ("latin.csv", csv().replace(",a,", ",\u00e4,").encode("latin-1"), "not UTF-8"),
        ("semi.csv", csv().replace(",", ";"), "separator=';'"),
        ("broken.csv.gz", gzip.compress(csv(2000).encode())[:200], "does not read as a table"),
        ("no.parquet", b"PAR1 not really", "does not read as Parquet"),
        ("book.xlsx", b"PK", "tables are read from"),
    ],
)
def test_a_file_that_does_not_read_is_refused_in_one_sentence(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        table(write(tmp_path / name, content), label="y").read()
    assert says in str(caught.value)
    assert len(caught.value.message) < 400
    assert caught.value.hint


def test_a_file_that_is_not_there_is_refused_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "credit.csv", csv())
    with pytest.raises(DataError, match=r"did you mean 'credit\.csv'"):
        table(str(tmp_path / "credit.cvs"), label="y").read()


def test_quoted_lines_and_separators_stay_in_their_cell(tmp_path: Path) -> None:
    cells = ("one, two", "one\ntwo")
    text = "c,x,y\n" + "".join(f'"{cells[i % 2]}",{i},{"no" if i % 3 else "yes"}\n' for i in range(90))
    assert table(write(tmp_path / "q.csv", text), label="y").read().schema.columns[0].categories == ("one\ntwo", "one, two")


# --- fingerprints, words ------------------------------------------------------------------------------------------------------------


def test_the_fingerprint_moves_with_rows_labels_weights_splits_and_nothing_else() -> None:
    df = rows(200, w=np.ones(200))
    base = frame(df, label="y", weight="w").read().fingerprint
    assert base == frame(df.copy().set_index(np.arange(200) * 3), label="y", weight="w").read().fingerprint
    changed = []
    for column, value in (("x", 9.5), ("colour", "blue"), ("w", 2.0)):
        other = df.copy()
        other.loc[11, column] = value
        changed.append(other)
    flipped = df.copy()
    flipped.loc[11, "y"] = "no" if df.y[11] == "yes" else "yes"
    changed += [flipped, df.head(199)]
    prints = {frame(d, label="y", weight="w").read().fingerprint for d in changed}
    prints |= {frame(df, label="y", weight="w", seed=1).read().fingerprint, frame(df, label="y", weight="w", test=0.3).read().fingerprint}
    assert len(prints | {base}) == 8


def test_a_word_says_all_its_arguments() -> None:
    text = repr(table("credit.csv", "default", categories=["sex"], test=0.25))
    assert text == (
        'table("credit.csv", label="default", categories=["sex"], unlabelled="refuse", valid=0.1, calibration=0.1, test=0.25, seed=0)'
    )


def test_asking_for_a_view_of_a_table_is_refused() -> None:
    data = frame(rows(), label="y").read()
    at = torch.arange(3)
    assert data.train.batch(at, torch.zeros(3, dtype=torch.long)).views is not None
    with pytest.raises(DataError, match="no augmentation is declared"):
        data.train.batch(at, torch.tensor([0, 0, 1]))


def test_a_schema_is_the_tables_own() -> None:
    schema = frame(rows(), label="y").read().schema
    assert isinstance(schema, Schema)
    assert (schema.kind, schema.shape, schema.label) == ("table", (), "y")


def test_a_frame_given_as_a_file_is_told_its_word() -> None:
    with pytest.raises(DataError, match="got a DataFrame") as found:
        table(rows(10), label="y").read()  # pyright: ignore[reportArgumentType]  # wrong on purpose
    assert "frame(" in found.value.hint
