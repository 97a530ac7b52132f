"""Groups of rows: read from every kind of data, cut into bands that say what they hold, kept through splits, refused with a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attar.data import Data, arrays, frame, table, text, unlabelled
from attar.data.groups import Group, read_group
from attar.errors import DataError

N = 400


def people(n: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(18, 91, n)
    return pd.DataFrame(
        {
            "age": age,
            "sex": rng.choice(["F", "M"], n),
            "income": rng.lognormal(10, 1, n),
            "town": rng.choice(["here", "there"], n),
            "smokes": rng.random(n) < 0.3,
            "visits": rng.integers(0, 4, n),
            "ill": (age + rng.normal(0, 20, n) > 55).astype(int),
        }
    )


def parts(data: Data, name: str) -> tuple[str, ...]:
    return data.test.groups[name].names


def test_columns_become_groups_that_lie_beside_their_rows() -> None:
    df = people()
    data = frame(df, "ill", groups="age, sex", drop=["sex"]).read()
    assert list(data.test.groups) == ["age", "sex"]
    assert [c.name for c in data.schema.columns] == ["age", "income", "town", "smokes", "visits"]  # sex is a group and no input
    at = {int(x): row for row, x in enumerate(df["income"] * 1000)}
    for split in data.splits.values():
        numbers = split.batch(torch.arange(len(split))).inputs["numbers"]  # pyright: ignore[reportArgumentType, reportCallIssue] a table's
        found = split.groups["sex"]
        for i, income in enumerate(numbers[:, 1].tolist()):
            assert found.names[found.codes[i]] == df["sex"][at[int(income * 1000)]]


def test_numbers_are_cut_at_the_quartiles_of_the_training_rows_and_bands_say_what_they_hold() -> None:
    df = people()
    data = frame(df, "ill", groups=["age", "income", "visits", "smokes"]).read()
    assert parts(data, "visits") == ("0", "1", "2", "3")
    assert parts(data, "smokes") == ("False", "True")
    names = parts(data, "age")
    train = data.train.batch(torch.arange(len(data.train))).inputs["numbers"]  # pyright: ignore[reportArgumentType, reportCallIssue] a table's
    edges = np.floor(np.quantile(train[:, 0].numpy(), [0.25, 0.5, 0.75])).astype(int)
    a, b, c = edges
    assert names == (f"up to {a}", f"{a + 1}–{b}", f"{b + 1}–{c}", f"{c + 1} and more")
    for split in data.splits.values():
        ages = split.batch(torch.arange(len(split))).inputs["numbers"][:, 0].numpy()  # pyright: ignore[reportArgumentType, reportCallIssue] a table's
        assert np.array_equal(split.groups["age"].codes.numpy(), (ages[:, None] > edges).sum(1))
    counts = data.train.groups["income"].codes.bincount()
    assert len(counts) == 4
    assert counts.min() > 0.2 * len(data.train)


def test_bands_of_a_number_that_is_mostly_nothing_are_fewer() -> None:
    values = np.array([0.0] * 300 + [0.1, 0.25, 0.5, 1.5, 2.5, 3.5, 4.5] * 10)
    group = read_group("dose", values, np.ones(len(values), dtype=bool), np.arange(len(values)))
    assert group.names == ("up to 0", "above 0")
    assert group.codes.bincount().tolist() == [300, 70]


def test_missing_is_a_group_of_its_own_and_one_that_training_rows_lack_is_noted() -> None:
    df = people()
    df.loc[df.index % 7 == 0, "sex"] = None
    data = frame(df, "ill", groups="sex").read()
    assert set(data.test.groups["sex"].parts()) == {"F", "M", "missing"}
    again = frame(df, "ill", drop=["town"], groups="town").read()
    held = again.test.batch(torch.arange(len(again.test))).inputs["numbers"][:, 1]  # pyright: ignore[reportArgumentType, reportCallIssue] a table's
    df.loc[np.isclose(df["income"].to_numpy()[:, None], held.numpy()[None], rtol=1e-6).any(1), "town"] = "elsewhere"
    found = frame(df, "ill", drop=["town"], groups="town").read()
    assert "groups: no training row has town 'elsewhere'" in found.notes
    assert list(found.test.groups["town"].parts()) == ["elsewhere"]


def test_groups_go_with_the_rows_that_are_taken_and_change_the_fingerprint() -> None:
    df = people()
    plain, data = frame(df, "ill").read(), frame(df, "ill", groups="sex").read()
    at = torch.tensor([5, 2, 9])
    assert torch.equal(data.test.take(at).groups["sex"].codes, data.test.groups["sex"].codes[at])
    assert plain.fingerprint != data.fingerprint
    assert plain.test.groups == {}
    df["sex"] = df["sex"].to_numpy()[::-1].copy()
    swapped = frame(df, "ill", groups="sex", drop=["sex"]).read()
    assert swapped.fingerprint != frame(people(), "ill", groups="sex", drop=["sex"]).read().fingerprint


def test_of_rows_that_join_without_labels_nobody_knows_the_group(tmp_path: Path) -> None:
    df = people()
    df.to_csv(tmp_path / "a.csv", index=False)
    more = people(450).drop(columns=["ill"]).iloc[400:]
    more.to_csv(tmp_path / "more.csv", index=False)
    data = (table(str(tmp_path / "a.csv"), "ill", groups="sex") + unlabelled(str(tmp_path / "more.csv"))).read()
    assert len(data.train.groups["sex"].codes) == len(data.train)
    assert data.train.groups["sex"].codes[-50:].tolist() == [-1] * 50


def test_texts_and_arrays_have_groups_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"text": [f"word {i}" for i in range(200)], "stars": rng.integers(0, 2, 200), "year": rng.integers(1990, 2020, 200)})
    df["language"] = rng.choice(["de", "fr"], 200)
    df.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    data = text(str(tmp_path / "a.tsv"), label="stars", groups="language,year").read()
    assert parts(data, "language") == ("de", "fr")
    assert len(parts(data, "year")) == 4
    assert data.schema.texts == ("text",)
    images = rng.integers(0, 255, (200, 6, 6), dtype=np.uint8)
    for x in (rng.normal(size=(200, 3)), images, rng.normal(size=(200, 2, 2, 2))):
        found = arrays(x, df["stars"].to_numpy(), groups={"language": df["language"].tolist(), "year": df["year"].to_numpy()}).read()
        assert parts(found, "language") == ("de", "fr")
        assert sum(int((s.groups["language"].codes == 0).sum()) for s in found.splits.values()) == (df["language"] == "de").sum()
    with pytest.raises(DataError, match="200 rows of inputs, 3 of groups 'a'"):
        arrays(images, df["stars"].to_numpy(), groups={"a": [1, 2, 3]})


def test_the_recipe_word_reads_back() -> None:
    assert repr(table("a.csv", label="y", groups="age,sex")).startswith('table("a.csv", label="y", groups="age,sex"')


@pytest.mark.parametrize(
    ("roles", "said", "hint"),
    [
        ({"groups": "agee"}, "there is no column 'agee'", "did you mean 'age'"),
        ({"groups": "ill"}, "'ill' is the label", "without being asked for"),
        ({"groups": "age,age"}, "stands twice", "once"),
        ({"groups": "age,,sex"}, "names no column", "age_band,sex"),
        ({"groups": "one", "drop": ["one"]}, "'same' in every row", "nothing to compare"),
        ({"groups": "name", "drop": ["name"]}, "400 different values, 50 at most", "regions for towns"),
        ({"groups": "day", "drop": ["day"]}, "holds a date", "quarter"),
        ({"groups": "name", "id": "name"}, "named as id and as groups", "in common"),
        ({"groups": "nothing", "drop": ["nothing"]}, "missing in every row", "leave it out"),
    ],
)
def test_what_cannot_be_a_group_is_refused_with_a_way_out(roles: dict, said: str, hint: str) -> None:
    df = people()
    df["one"], df["name"], df["nothing"] = "same", [f"n{i}" for i in range(N)], None
    df["day"] = pd.date_range("2020-01-01", periods=N)
    drop = [c for c in ("one", "name", "day", "nothing") if c != roles.get("id")]
    with pytest.raises(DataError, match=said) as caught:
        frame(df, "ill", **{**roles, "drop": drop}).read()
    assert hint in caught.value.hint


def test_a_column_may_be_text_and_group_but_not_both(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,y\n" + "".join(f"w{i},{i % 2}\n" for i in range(60)))
    with pytest.raises(DataError, match="'text' is named as text and as groups"):
        text(str(tmp_path / "a.csv"), "text", label="y", groups="text").read()


def test_parts_without_a_row_are_left_out() -> None:
    assert list(Group(("a", "b", "c"), torch.tensor([2, 0])).parts()) == ["a", "c"]
