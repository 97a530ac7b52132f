"""Tree files answer as their own libraries do, and several boosters become the one that is their mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import torch
import xgboost as xgb
from torch import Tensor

from attar.errors import TapError, TeacherError
from attar.signal import Batch, Column, Schema
from attar.sources import lightgbm, xgboost
from attar.sources.boosting import Growing, can_grow, grow, merge
from attar.sources.trees import LightGBM
from attar.task import classification, multilabel, regression
from attar.testing.small import small_images, small_table

QUIET: dict[str, Any] = {"verbosity": -1, "num_threads": 1, "num_leaves": 5, "min_data_in_leaf": 5}
COLOURS = ("blue", "green", "red")


def people(rows: int = 300, colours: Sequence[str] = COLOURS, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "colour": pd.Categorical(rng.choice(list(colours), rows), list(colours)),
            "pay amount": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "member": rng.random(rows) < 0.5,
            "size": pd.Categorical(rng.choice([10, 20, 40], rows), [10, 20, 40]),
        }
    )
    table["score"] = table["pay amount"].fillna(0) + (table.colour == colours[-1]) - table.member + (table["size"] == 20) + 0.1
    return table


SCHEMA = Schema(
    "table",
    (Column("member", "boolean"), Column("colour", "category", COLOURS), Column("size", "number"), Column("pay amount", "number")),
    classes=("no", "yes"),
)


def batch_of(table: pd.DataFrame, classes: tuple[str, ...] = ("no", "yes")) -> Batch:
    """The same rows as attar holds them, with columns in another order and colours coded otherwise."""
    numbers = np.stack([table.member.astype(float), table["size"].astype(float), table["pay amount"]], 1)
    codes = np.array([COLOURS.index(c) + 1 if c in COLOURS else 0 for c in table.colour])[:, None]
    inputs = {"numbers": torch.from_numpy(numbers), "categories": torch.from_numpy(codes)}
    return Batch(inputs, schema=replace(SCHEMA, classes=classes))


def features(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="score")


def fitted(table: pd.DataFrame, y: Any, rounds: int = 6, **settings: Any) -> lgb.Booster:
    return lgb.train({**QUIET, **settings}, lgb.Dataset(features(table), y), rounds)


def test_a_binary_file_answers_exactly_its_raw_score(tmp_path: Path) -> None:
    table = people()
    booster = fitted(table, table.score > 0.5, objective="binary")
    booster.save_model(tmp_path / "b.txt")
    output = lightgbm(str(tmp_path / "b.txt"))(batch_of(table)).output
    raw = np.asarray(booster.predict(features(table), raw_score=True))
    assert torch.equal(output, torch.from_numpy(np.stack([0 * raw, raw], 1).astype(np.float32)))
    assert np.allclose(output.softmax(-1)[:, 1], np.asarray(booster.predict(features(table))), atol=1e-6)


def test_categories_are_matched_by_text_and_those_unknown_to_the_file_are_missing(tmp_path: Path) -> None:
    table = people(colours=("red", "blue"))  # coded in another order, and the file has never seen green
    booster = fitted(table, table.score > 0.5, objective="binary")
    booster.save_model(tmp_path / "b.txt")
    asked = people(seed=1)
    own = features(asked).assign(colour=asked.colour.cat.set_categories(["red", "blue"]))
    want = np.asarray(booster.predict(own, raw_score=True), np.float32)
    assert np.array_equal(lightgbm(str(tmp_path / "b.txt"))(batch_of(asked)).output[:, 1], want)
    assert len(np.unique(want)) > 5


@pytest.mark.parametrize(
    ("settings", "probability"),
    [
        ({"objective": "multiclass", "num_class": 3}, lambda z: z),
        ({"objective": "multiclassova", "num_class": 3, "sigmoid": 2.0}, lambda z: z / z.sum(1, keepdims=True)),
        ({"objective": "binary", "sigmoid": 0.5}, lambda z: np.stack([1 - z, z], 1)),
        ({"objective": "cross_entropy"}, lambda z: np.stack([1 - z, z], 1)),
    ],
)
def test_probabilities_are_those_of_the_file(settings: dict[str, Any], probability: Any, tmp_path: Path) -> None:
    table = people()
    many = "num_class" in settings
    y = np.digitize(table.score, [0, 1]) if many else (table.score > 0.5).astype(int)
    booster = fitted(table, y, **settings)
    booster.save_model(tmp_path / "m.txt")
    batch = batch_of(table, ("a", "b", "c") if many else ("no", "yes"))
    p = lightgbm(str(tmp_path / "m.txt"))(batch).output.softmax(-1)
    assert np.allclose(p, probability(np.asarray(booster.predict(features(table)))), atol=1e-6)


@pytest.mark.parametrize("objective", ["regression", "regression_l1", "poisson"])
def test_a_regression_answers_its_prediction(objective: str, tmp_path: Path) -> None:
    table = people()
    booster = fitted(table, table.score - table.score.min() + 1, objective=objective)
    booster.save_model(tmp_path / "r.txt")
    output = lightgbm(str(tmp_path / "r.txt"))(batch_of(table, ())).output
    assert output.shape == (len(table), 1)
    assert np.allclose(output[:, 0], np.asarray(booster.predict(features(table))), rtol=1e-6)


def test_a_file_fitted_on_a_matrix_meets_numbers_by_position(tmp_path: Path) -> None:
    data = small_table(200)
    schema = replace(data.schema, columns=data.schema.numbers)
    asked = data.train.batch(torch.arange(50))
    assert not isinstance(asked.inputs, Tensor)
    X = asked.inputs["numbers"].double().numpy()
    assert asked.labels is not None
    booster = lgb.train({**QUIET, "objective": "binary"}, lgb.Dataset(X, asked.labels.numpy()), 4)
    booster.save_model(tmp_path / "x.txt")
    batch = replace(asked, inputs={"numbers": asked.inputs["numbers"]}, schema=schema)
    want = np.asarray(booster.predict(X, raw_score=True), np.float32)
    assert np.array_equal(lightgbm(str(tmp_path / "x.txt"))(batch).output[:, 1], want)


def test_whole_numbers_as_categories_are_read_as_they_are(tmp_path: Path) -> None:
    table = people()
    X = np.stack([table["size"].astype(float), table["pay amount"]], 1)
    data = lgb.Dataset(X, table.score > 0.5, feature_name=["size", "pay_amount"], categorical_feature=[0])
    booster = lgb.train({**QUIET, "objective": "binary"}, data, 4)
    booster.save_model(tmp_path / "i.txt")
    want = np.asarray(booster.predict(X, raw_score=True), np.float32)
    assert np.array_equal(lightgbm(str(tmp_path / "i.txt"))(batch_of(table)).output[:, 1], want)


def test_what_does_not_fit_the_data_is_told(tmp_path: Path) -> None:
    table = people()
    path = str(tmp_path / "b.txt")
    fitted(table, table.score > 0.5, objective="binary").save_model(path)
    lacking = replace(SCHEMA, columns=tuple(c for c in SCHEMA.columns if c.name != "member"))
    with pytest.raises(TeacherError, match=r"wants the columns \['member'\], the data have \['colour', 'size', 'pay amount'\]"):
        lightgbm(path)(replace(batch_of(table), schema=lacking))
    with pytest.raises(TeacherError, match=r"(?s)binary sigmoid:1.*one number"):
        lightgbm(path)(batch_of(table, ()))
    with pytest.raises(TeacherError, match=r"answers \(1,\) for each row, the data have 3 classes"):
        lightgbm(path)(batch_of(table, ("a", "b", "c")))
    images = small_images(20)
    with pytest.raises(TeacherError, match="named columns"):
        lightgbm(path)(images.test.batch(torch.arange(2)))
    with pytest.raises(TapError):
        lightgbm(path)(batch_of(table), frozenset({"leaf"}))
    fitted(table, table.score, objective="regression").save_model(path)
    with pytest.raises(TeacherError, match="grown for 'regression'"):
        lightgbm(path)(batch_of(table))


def test_a_category_where_the_file_has_a_number_is_told(tmp_path: Path) -> None:
    table = people()
    codes = table.colour.cat.codes.to_numpy(float)[:, None]
    path = str(tmp_path / "n.txt")
    lgb.train({**QUIET, "objective": "binary"}, lgb.Dataset(codes, table.score > 0.5, feature_name=["colour"]), 3).save_model(path)
    with pytest.raises(TeacherError, match=r"takes 'colour' for a number.*\['blue', 'green', 'red'\]"):
        lightgbm(path)(batch_of(table))


def test_files_that_are_no_trees_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x05")
    table = people()
    fitted(table, table.score > 0.5, objective="binary").save_model(tmp_path / "whole.txt")
    whole = (tmp_path / "whole.txt").read_text()
    (tmp_path / "torn.txt").write_text(whole[:700])
    (tmp_path / "short.txt").write_text(whole.replace("leaf_value=", "leaf_value=0 ", 1))
    (tmp_path / "wrong.txt").write_text(re.sub(r"left_child=\S", "left_child=9", whole, count=1))
    (tmp_path / "torn.json").write_text('{"learner": {')
    for path, what in (("a.pkl", "not a LightGBM text file"), ("none.txt", "no file"), (".", "is a folder"), ("torn.txt", "ends before")):
        with pytest.raises(TeacherError, match=what):
            lightgbm(str(tmp_path / path))
    for path, what in (("short.txt", "as long as it says"), ("wrong.txt", "tree 0 is not as large")):
        with pytest.raises(TeacherError, match=f"damaged: .*{what}"):
            lightgbm(str(tmp_path / path))
    for path, what in (("a.pkl", "not an XGBoost JSON"), ("torn.json", "damaged")):
        with pytest.raises(TeacherError, match=what):
            xgboost(str(tmp_path / path))


def test_trees_that_are_not_grown_refuse_with_the_way_to_grow_them() -> None:
    growing = lightgbm(trees=10)
    assert isinstance(growing, Growing)
    for ask in (lambda: growing(batch_of(people())), lambda: growing.prepare(batch_of(people()))):
        with pytest.raises(TeacherError, match=r"(?s)not been grown.*taught\(lightgbm"):
            ask()
    with pytest.raises(TeacherError, match="grown already"):
        lightgbm("teacher.txt", trees=10)  # pyright: ignore[reportCallIssue, reportArgumentType] what the overloads refuse
    with pytest.raises(TeacherError, match=r"lightgbm\(leaves=1\)"):
        lightgbm(leaves=1)


# ---------------------------------------------------------------------------------------------------------------- grow and merge

CASES = [("classification", 2), ("classification", 3), ("regression", 0)]


def asked_of(kind: str, classes: int) -> tuple[Batch, Any]:
    table = people(400)
    names = tuple("abc"[:classes])
    batch = batch_of(table, names)
    if kind == "regression":
        return replace(batch, labels=torch.from_numpy(table.score.to_numpy(np.float32))), regression().bind(replace(SCHEMA, classes=()))
    edges = [0.5] if classes == 2 else [0, 1]
    labels = torch.from_numpy(np.digitize(table.score, edges))
    return replace(batch, labels=labels), classification().bind(replace(SCHEMA, classes=names))


@pytest.mark.parametrize(("kind", "classes"), CASES)
@pytest.mark.parametrize("rounds", [None, 3])
def test_a_merged_booster_is_the_mean_of_its_members_and_holds_each_of_them(kind: str, classes: int, rounds: int | None) -> None:
    asked, task = asked_of(kind, classes)
    assert asked.schema is not None
    texts = [grow(lightgbm(leaves=4, min_rows=5), 5, task, asked.schema, asked, seed=s) for s in range(3)]
    text, counts = merge(texts, rounds)
    assert counts == [rounds or 5] * 3
    merged, members = lgb.Booster(model_str=text), [lgb.Booster(model_str=t) for t in texts]
    X = LightGBM.parse(text, "merged").matrix(asked)
    each = [np.asarray(m.predict(X, raw_score=True, num_iteration=rounds or 5)) for m in members]
    assert np.allclose(np.asarray(merged.predict(X, raw_score=True)), np.mean(each, 0), rtol=1e-12, atol=1e-12)
    assert np.abs(each[0] - each[1]).max() > 1e-3  # the members differ, else the mean says nothing
    for k, own in enumerate(each):
        share = np.asarray(merged.predict(X, raw_score=True, start_iteration=sum(counts[:k]), num_iteration=counts[k]))
        assert np.allclose(3 * share, own, rtol=1e-12, atol=1e-12)


def test_members_of_different_length_are_merged_too() -> None:
    asked, task = asked_of("classification", 2)
    assert asked.schema is not None
    texts = [grow(lightgbm(leaves=4, min_rows=rows), 5, task, asked.schema, asked, seed=0) for rows in (5, 500)]
    text, counts = merge(texts)
    assert counts == [5, 1]  # no leaf of 500 rows can be split: one constant tree, and boosting stops
    X = LightGBM.parse(text, "merged").matrix(asked)
    each = [np.asarray(lgb.Booster(model_str=t).predict(X, raw_score=True)) for t in texts]
    assert np.allclose(np.asarray(lgb.Booster(model_str=text).predict(X, raw_score=True)), np.mean(each, 0), rtol=1e-12)


def test_a_merged_file_is_read_by_plain_lightgbm_from_a_frame_of_texts() -> None:
    asked, task = asked_of("classification", 2)
    assert asked.schema is not None
    grown = [grow(lightgbm(leaves=4, min_rows=5), 5, task, asked.schema, asked, seed=s) for s in range(2)]
    text, _ = merge(grown)
    booster = lgb.Booster(model_str=text)
    table = people(400)
    mine = features(table)[["member", "colour", "size", "pay amount"]].assign(size=table["size"].astype(float))
    other = mine.assign(colour=mine.colour.cat.reorder_categories(["red", "green", "blue"]))  # coded otherwise by pandas
    want = LightGBM.parse(text, "merged")(asked).output[:, 1]
    assert np.array_equal(np.asarray(booster.predict(mine, raw_score=True), np.float32), want)
    assert np.array_equal(np.asarray(booster.predict(other, raw_score=True), np.float32), want)


def test_growing_twice_gives_the_same_bytes_and_another_seed_other_ones() -> None:
    asked, task = asked_of("classification", 2)
    assert asked.schema is not None
    once, again, other = (grow(lightgbm(trees=10, leaves=4, min_rows=5), 4, task, asked.schema, asked, seed=s) for s in (0, 0, 1))
    assert once == again
    assert once != other


def test_rows_without_a_label_and_weights_of_nothing_teach_nothing() -> None:
    asked, task = asked_of("classification", 2)
    assert asked.schema is not None
    assert asked.labels is not None
    half = torch.arange(len(asked)) % 2 == 0
    settings = lightgbm(leaves=4, min_rows=5, row_share=1.0)
    unknown = replace(asked, labels=torch.where(half, asked.labels, -100))
    flipped = replace(asked, labels=torch.where(half, asked.labels, 1 - asked.labels), weight=half.float() + 1e-9)
    kept = grow(settings, 3, task, asked.schema, unknown, seed=0)
    X = LightGBM.parse(kept, "kept").matrix(asked)
    raw = [
        np.asarray(lgb.Booster(model_str=t).predict(X, raw_score=True))
        for t in (kept, grow(settings, 3, task, asked.schema, flipped, seed=0))
    ]
    whole = np.asarray(lgb.Booster(model_str=grow(settings, 3, task, asked.schema, asked, seed=0)).predict(X, raw_score=True))
    labels = asked.labels.numpy()
    for scores in raw:
        assert np.corrcoef(scores, labels)[0, 1] > 0.5
    assert not np.allclose(raw[0], whole)


def test_many_labels_and_images_cannot_be_grown() -> None:
    data = small_table(80, kind="multilabel")
    with pytest.raises(TeacherError, match="many"):
        can_grow(multilabel().bind(data.schema), data.schema)
    images = small_images(40)
    with pytest.raises(TeacherError, match=r"grows on tables.*images"):
        can_grow(classification().bind(images.schema), images.schema)


# ---------------------------------------------------------------------------------------------------------------------- xgboost


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("classes", [2, 3])
def test_an_xgboost_file_answers_exactly_its_margin(suffix: str, classes: int, tmp_path: Path) -> None:
    table = people(colours=("red", "blue"))
    y = np.digitize(table.score, [0.5] if classes == 2 else [0, 1])
    objective = {"objective": "binary:logistic"} if classes == 2 else {"objective": "multi:softprob", "num_class": 3}
    data = xgb.DMatrix(features(table), y, enable_categorical=True)
    booster = xgb.train({**objective, "nthread": 1, "max_depth": 3}, data, 5)
    booster.save_model(tmp_path / f"m.{suffix}")
    asked = people(seed=1)
    own = features(asked).assign(colour=asked.colour.cat.set_categories(["red", "blue"]))
    want = booster.predict(xgb.DMatrix(own, enable_categorical=True), output_margin=True)
    output = xgboost(str(tmp_path / f"m.{suffix}"))(batch_of(asked, tuple("abc"[:classes]))).output
    assert np.array_equal(output[:, 1] if classes == 2 else output, want)


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_a_torn_xgboost_file_is_refused_before_xgboost_sees_it(suffix: str, tmp_path: Path) -> None:
    table, path = people(), tmp_path / f"m.{suffix}"
    data = xgb.DMatrix(features(table), table.score > 0.5, enable_categorical=True)
    xgb.train({"objective": "binary:logistic", "nthread": 1, "max_depth": 2}, data, 2).save_model(path)
    whole = path.read_bytes()
    for end in range(1, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(TeacherError, match="damaged: it is not whole"):
            xgboost(str(path))


def test_an_xgboost_regression_answers_its_prediction_and_refuses_classes(tmp_path: Path) -> None:
    table = people()
    data = xgb.DMatrix(features(table), table.score, enable_categorical=True)
    booster = xgb.train({"objective": "reg:squarederror", "nthread": 1}, data, 3)
    booster.save_model(tmp_path / "r.json")
    source = xgboost(str(tmp_path / "r.json"))
    assert np.allclose(source(batch_of(table, ())).output[:, 0], booster.predict(data))
    with pytest.raises(TeacherError, match=r"reg:squarederror.*2 classes"):
        source(batch_of(table))


def test_names_of_a_files_classes_put_them_in_order(tmp_path: Path) -> None:
    table = people()
    y = (table.score > 0.5).to_numpy()
    fitted(table, y, objective="binary").save_model(tmp_path / "b.txt")
    data = xgb.DMatrix(features(table), y, enable_categorical=True)
    xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 3).save_model(tmp_path / "b.json")
    for word, name in ((lightgbm, "b.txt"), (xgboost, "b.json")):
        plain = word(str(tmp_path / name))(batch_of(table)).output
        turned = word(str(tmp_path / name), classes=["yes", "no"])(batch_of(table)).output
        assert torch.equal(turned, plain.flip(-1))
        with pytest.raises(TeacherError, match=r"\['good', 'bad'\], the data have \['no', 'yes'\]"):
            word(str(tmp_path / name), classes=["good", "bad"])(batch_of(table))
