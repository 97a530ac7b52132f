"""Estimators are fed what they were fitted on, and answer in the data's classes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor

from attar.data import Data, Split, frame
from attar.errors import TapError, TeacherError, TrustError
from attar.signal import Batch
from attar.sources import estimator
from attar.sources.estimator import trusting_pickles
from attar.testing.small import small_images, small_table


def people(rows: int = 300) -> pd.DataFrame:
    """As a user has them: strings with gaps, a boolean with gaps, numbers with gaps, whole numbers."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "amount": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "age": rng.permutation(rows),  # each its own: by it a row is found again
            "member": rng.random(rows) < 0.5,
        }
    )
    table.loc[::17, "colour"] = None
    table["bad"] = np.where(table.age + 80 * (table.colour == "red") + rng.normal(0, 40, rows) > 170, "yes", "no")
    return table


TABLE = people()
DATA = frame(TABLE, label="bad").read()


def everything(split: Split) -> Batch:
    return split.batch(torch.arange(len(split)))


def pipeline() -> Any:
    texts = make_column_selector(dtype_exclude="number")
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough")
    return make_pipeline(encode, HistGradientBoostingClassifier(max_iter=5))


def rows_of(data: Data, split: Split) -> pd.DataFrame:
    """The user's own rows of a split, in its order, found again by their numbers."""
    batch = everything(split)
    assert not isinstance(batch.inputs, Tensor)
    names = [c.name for c in data.schema.numbers]
    held = pd.DataFrame(batch.inputs["numbers"].numpy(), columns=names)
    return TABLE.set_index("age", drop=False).loc[held.age.astype(int)]


def test_a_pipeline_fitted_on_a_frame_answers_as_it_does_itself() -> None:
    X = TABLE.drop(columns="bad")
    model = pipeline().fit(X, TABLE.bad)
    own = rows_of(DATA, DATA.test)
    assert (own.bad.to_numpy() == np.array(DATA.schema.classes)[everything(DATA.test).labels]).all()
    want = model.predict_proba(own.drop(columns="bad"))
    assert np.allclose(estimator(model)(everything(DATA.test)).output.exp(), want, atol=1e-6)


def test_categories_reach_a_model_that_takes_pandas_categories() -> None:
    X = TABLE.drop(columns="bad").assign(colour=TABLE.colour.astype("category"), member=TABLE.member.astype(float))
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(X, TABLE.bad)
    answers = estimator(model)(everything(DATA.test)).output
    mine = rows_of(DATA, DATA.test).drop(columns="bad")
    mine = mine.assign(colour=pd.Categorical(mine.colour, X.colour.cat.categories), member=mine.member.astype(float))
    assert np.allclose(answers.exp(), model.predict_proba(mine), atol=1e-6)


def test_a_lightgbm_classifier_fitted_on_categories_answers_as_it_does_itself() -> None:
    from lightgbm import LGBMClassifier

    X = TABLE.drop(columns="bad").assign(colour=TABLE.colour.astype("category"))
    model = LGBMClassifier(n_estimators=5, verbosity=-1, n_jobs=1).fit(X, TABLE.bad)
    mine = rows_of(DATA, DATA.test).drop(columns="bad")
    mine = mine.assign(colour=pd.Categorical(mine.colour, X.colour.cat.categories))
    assert np.allclose(estimator(model)(everything(DATA.test)).output.exp(), np.asarray(model.predict_proba(mine)), atol=1e-6)


def test_a_matrix_goes_to_a_model_without_names() -> None:
    batch = Batch({"numbers": torch.randn(40, 3, generator=torch.Generator().manual_seed(0))})
    assert not isinstance(batch.inputs, Tensor)
    X = batch.inputs["numbers"].double().numpy()
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    assert np.allclose(estimator(model)(batch).output.exp(), model.predict_proba(X), atol=1e-6)
    with pytest.raises(TeacherError, match="fitted on 3 columns, these rows have 2"):
        estimator(model)(Batch({"numbers": torch.zeros(4, 2)}))
    with pytest.raises(TeacherError, match=r"(?s)without column names.*reads="):
        estimator(model)(everything(DATA.test))


def test_images_are_flattened_for_a_model_of_rows() -> None:
    data = small_images(80)
    batch = everything(data.train)
    assert isinstance(batch.inputs, Tensor)
    assert batch.labels is not None
    X = batch.inputs.reshape(len(batch), -1).double().numpy()
    model = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3).fit(X, np.array(data.schema.classes)[batch.labels])
    assert np.allclose(estimator(model)(batch).output.exp(), model.predict_proba(X), atol=1e-6)


def test_classes_are_matched_by_name_in_any_order_and_spelling() -> None:
    X = np.arange(20.0)[:, None]
    schema = replace(small_table(40).schema, classes=("1", "0"), columns=())
    batch = Batch({"numbers": torch.from_numpy(X)}, schema=schema)
    for labels in (X[:, 0] > 9, (X[:, 0] > 9).astype(int), (X[:, 0] > 9).astype(float)):
        model = LogisticRegression().fit(X, labels)
        assert np.allclose(estimator(model)(batch).output.exp(), model.predict_proba(X)[:, ::-1], atol=1e-6)
    named = estimator(LogisticRegression().fit(X, np.where(X[:, 0] > 9, "good", "bad")), classes=["0", "1"])
    assert named(batch).output[-1].argmax() == 0  # "good" is named "1", which is the data's first class
    with pytest.raises(TeacherError, match=r"(?s)\['bad', 'good'\], the data have \['1', '0'\].*classes="):
        estimator(LogisticRegression().fit(X, np.where(X[:, 0] > 9, "good", "bad")))(batch)
    with pytest.raises(TeacherError, match="gives 2 probabilities, classes= names 3"):
        estimator(model, classes=["0", "1", "2"])(batch)


def test_no_probability_lies_below_the_floor() -> None:
    class Sure:
        classes_ = np.array(["no", "yes"])

        def predict(self, X: Any) -> Any:
            return np.repeat("no", len(X))

        def predict_proba(self, X: Any) -> Any:
            return np.tile([1.0, 0.0], (len(X), 1))

    output = estimator(Sure(), floor=1e-3, reads=len_of)(everything(DATA.test)).output
    assert torch.allclose(output[:, 1], torch.tensor(1e-3).log())
    assert torch.equal(output[:, 0], torch.zeros(len(output)))


def len_of(batch: Batch) -> range:
    return range(len(batch))


def test_a_model_that_only_decides_answers_its_decision() -> None:
    data = small_table(200)
    X = np.nan_to_num(numbers(everything(data.train)))
    model = Perceptron().fit(X, np.array(data.schema.classes)[everything(data.train).labels])
    source = estimator(model, reads=filled)
    assert source(everything(data.train)).output.argmax(-1).tolist() == [data.schema.classes.index(c) for c in model.predict(X)]


def numbers(batch: Batch) -> np.ndarray:
    assert not isinstance(batch.inputs, Tensor)
    return batch.inputs["numbers"].double().numpy()


def filled(batch: Batch) -> np.ndarray:
    return np.nan_to_num(numbers(batch))


def test_a_regression_answers_its_number() -> None:
    data = small_table(200, kind="regression")
    batch = everything(data.train)
    model = HistGradientBoostingRegressor(max_iter=5).fit(numbers(batch), batch.labels)
    output = estimator(model, reads=numbers)(batch).output
    assert output.shape == (len(batch), 1)
    assert np.allclose(output[:, 0], model.predict(numbers(batch)), atol=1e-6)


def test_nan_answers_are_told_with_the_row() -> None:
    class Lost:
        def predict(self, X: Any) -> Any:
            return np.array([0.0, np.nan, 1.0])

    data = small_table(40, kind="regression")
    with pytest.raises(TeacherError, match="NaN, first at row 1"):
        estimator(Lost(), reads=len_of)(data.train.batch(torch.arange(3)))


def test_columns_that_the_data_lack_are_named() -> None:
    model = pipeline().fit(TABLE.drop(columns="bad").rename(columns={"age": "years"}), TABLE.bad)
    with pytest.raises(TeacherError, match=r"wants the columns \['years'\]"):
        estimator(model)(everything(DATA.test))


def test_a_pickle_is_refused_without_trust_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return open, (str(trap), "w")

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(TrustError, match="--trust pickle"):
        estimator(str(tmp_path / "model.pkl"))
    assert not trap.exists()


def test_a_trusted_pickle_is_the_model(tmp_path: Path) -> None:
    model = pipeline().fit(TABLE.drop(columns="bad"), TABLE.bad)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model))
    with trusting_pickles():
        source = estimator(str(path))
    assert torch.equal(source(everything(DATA.test)).output, estimator(model)(everything(DATA.test)).output)
    assert source.fingerprint == estimator(model).fingerprint
    with pytest.raises(TrustError):
        estimator(str(path))  # the leave ends with the block


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "torn.pkl").write_bytes(pickle.dumps(pipeline())[:50])
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with trusting_pickles():
        with pytest.raises(TeacherError, match="does not unpickle"):
            estimator(str(tmp_path / "torn.pkl"))
        with pytest.raises(TeacherError, match="list, which has no predict"):
            estimator(str(tmp_path / "list.pkl"))
        with pytest.raises(TeacherError, match="no file"):
            estimator(str(tmp_path / "none.pkl"))


def test_an_estimator_has_no_taps() -> None:
    with pytest.raises(TapError, match="no taps"):
        estimator(pipeline())(everything(DATA.test), frozenset({"a"}))


def test_a_model_that_does_not_pickle_has_no_fingerprint() -> None:
    class Local:
        def __init__(self) -> None:
            self.f = lambda x: x

        def predict(self, X: Any) -> Any:
            return self.f(X)

    with pytest.raises(TeacherError, match="no fingerprint of Local"):
        _ = estimator(Local()).fingerprint
