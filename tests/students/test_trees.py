"""Trees regress centred logits of teacher and labels blended, and survive being written down."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attar.errors import StudentError
from attar.signal import IGNORE, Schema
from attar.students import Trees, forest, lightgbm
from attar.students.trees import Blend, classes
from attar.task import classification, multilabel, regression, task_for
from attar.testing.small import small_images, small_table

TABLE = small_table(800)
BATCH = TABLE.train.batch(torch.arange(len(TABLE.train)))
BUILDERS = [lightgbm(trees=30, leaves=7), forest(trees=5, depth=4), forest(trees=1, depth=6)]


def task(outcomes: int):
    return classification().bind(Schema("tensor", shape=(1,), classes=tuple("abcdefgh"[:outcomes])))


def grown(builder, seed: int = 0) -> Trees:
    model = builder(TABLE.schema, seed)
    numbers = BATCH.inputs["numbers"].nan_to_num()  # pyright: ignore[reportArgumentType, reportCallIssue]  # a table
    model.grow(BATCH.inputs, numbers[:, :1] * 2 + 1, None, logistic=False)
    return model


def test_the_teacher_alone_is_regressed_as_its_centred_logits_at_any_temperature() -> None:
    z = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    for temperature in (1.0, 2.0, 4.0):
        found = Blend(1.0, temperature).targets(z, None, task(3))
        torch.testing.assert_close(found, z - z.mean(1, keepdim=True), rtol=1e-4, atol=1e-4)


def test_a_blend_mixes_probabilities_at_its_temperature() -> None:
    z, y = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([0, IGNORE])
    found = Blend(0.9, 2.0).targets(z, y, task(2))
    p = 0.9 / (1 + math.exp(1.0))  # the second outcome of softmax(z / 2); the label is the first
    assert found[0].item() == pytest.approx(2 * math.log(p / (1 - p)), rel=1e-5)
    assert found[1].item() == pytest.approx(1.5, rel=1e-5)  # without a label the teacher alone


def test_a_regression_blends_numbers() -> None:
    found = Blend(0.75).targets(torch.tensor([[4.0], [4.0]]), torch.tensor([8.0, math.nan]), regression().bind(small_schema()))
    assert found.tolist() == [[5.0], [4.0]]


def small_schema() -> Schema:
    return Schema("tensor", shape=(1,))


def test_many_labels_have_a_column_each() -> None:
    many = multilabel().bind(Schema("tensor", shape=(1,), classes=("a", "b")))
    z = torch.tensor([[[0.0, 1.5], [0.0, -2.0]]])
    torch.testing.assert_close(Blend(1.0).targets(z, None, many), torch.tensor([[1.5, -2.0]]), rtol=1e-4, atol=1e-4)
    assert classes(torch.tensor([[1, IGNORE]]), many).isnan().tolist() == [[False, True]]


def test_an_absent_outcome_is_floored() -> None:
    found = Blend(1.0).targets(torch.tensor([[0.0, -math.inf]]), None, task(2))
    assert found.item() == pytest.approx(math.log(1e-6), rel=1e-3)


def test_a_teacher_of_nan_is_refused() -> None:
    with pytest.raises(StudentError, match="NaN"):
        Blend(1.0).targets(torch.tensor([[0.0, math.nan]]), None, task(2))


@pytest.mark.parametrize("builder", BUILDERS, ids=repr)
def test_trees_answer_two_outcomes_by_half_of_z_each(builder) -> None:
    model = grown(builder)
    output, z = model(BATCH.inputs), model.raw(BATCH.inputs)
    torch.testing.assert_close(output, torch.cat((-z / 2, z / 2), 1))
    assert len(model.estimators) == 1
    assert float(np.corrcoef(z[:, 0].numpy(), BATCH.inputs["numbers"][:, 0].nan_to_num().numpy())[0, 1]) > 0.9  # pyright: ignore


@pytest.mark.parametrize("builder", BUILDERS, ids=repr)
def test_a_written_student_answers_as_before(builder, tmp_path: Path) -> None:
    model = grown(builder)
    save_file(model.state_dict(), tmp_path / "trees.safetensors")
    again = builder(TABLE.schema, 1)
    again.load_state_dict(load_file(tmp_path / "trees.safetensors"))
    assert torch.equal(again(BATCH.inputs), model(BATCH.inputs))
    assert torch.equal(copy.deepcopy(model)(BATCH.inputs), model(BATCH.inputs))


def test_the_forest_is_scikit_learns() -> None:
    from sklearn.ensemble import RandomForestRegressor

    model = grown(forest(trees=5, depth=4), seed=3)
    rows = model.read(BATCH.inputs).numpy()
    target = (BATCH.inputs["numbers"].nan_to_num()[:, 0] * 2 + 1).numpy()  # pyright: ignore
    own = RandomForestRegressor(5, max_depth=4, min_samples_leaf=20, max_features=1.0, random_state=3).fit(rows, target)
    np.testing.assert_allclose(model.raw(BATCH.inputs)[:, 0].numpy(), own.predict(rows), rtol=1e-6)


def test_thresholds_are_single_precision_and_part_the_rows_as_before() -> None:
    import lightgbm as lgb

    eps = np.float32(2.0**-23)
    rows = np.repeat([1 + eps, 1 + 2 * eps], 50).astype(np.float32)[:, None]  # neighbours: their midpoint would round to the upper one
    model = lightgbm(trees=1, min_rows=1, row_share=1.0)
    content = model.grow(rows, np.repeat([0.0, 1.0], 50), None, 0, False)
    tree = lgb.Booster(model_str=content.decode()).dump_model()["tree_info"][0]["tree_structure"]
    assert float(rows[0, 0]) <= np.float32(tree["threshold"]) < float(rows[-1, 0])
    assert len(np.unique(model.predict(model.load(content), rows, None))) == 2


def test_missing_numbers_are_the_median_and_unknown_codes_are_unseen() -> None:
    model = lightgbm()(TABLE.schema, 0)
    numbers = torch.full((1, 5), math.nan)
    read = model.read({"numbers": numbers, "categories": torch.tensor([[99, -1]])})
    assert read[0].tolist() == [pytest.approx(c.median) for c in TABLE.schema.numbers] + [0.0, 0.0]


def test_keeping_some_rounds_forgets_the_others() -> None:
    model = grown(lightgbm(trees=40, leaves=4))
    assert model.stages == [2 * i for i in range(1, 21)]
    few = model.answers(BATCH.inputs, 6)
    model.keep(6)
    assert torch.equal(model(BATCH.inputs), few)
    assert model.estimators[0].num_trees() == 6


def test_several_classes_have_an_estimator_each() -> None:
    data = small_table(200)
    schema = Schema("table", data.schema.columns, classes=("a", "b", "c"))
    model = lightgbm(trees=5)(schema, 0)
    batch = data.train.batch(torch.arange(50))
    y = torch.arange(50) % 3
    model.grow(batch.inputs, classes(y, task_for(schema)), None, logistic=True)
    assert len(model.estimators) == 3
    assert model(batch.inputs).shape == (50, 3)


def test_trees_that_have_not_grown_say_so_and_images_are_refused() -> None:
    with pytest.raises(StudentError, match="has not grown"):
        lightgbm()(TABLE.schema, 0)(BATCH.inputs)
    with pytest.raises(StudentError, match=r"cnn\(\) reads them"):
        forest()(small_images(20).schema, 0)


@pytest.mark.parametrize(("word", "bad"), [(lightgbm, {"leaves": 1}), (lightgbm, {"learning_rate": 0.0}), (forest, {"depth": 0})])
def test_sizes_out_of_range_are_refused(word, bad) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(StudentError, match=rf"{word.__name__}\({name}={value}\)"):
        word(**bad)


def test_their_text_reads_back() -> None:
    assert repr(forest(trees=3)) == "forest(trees=3, depth=8, min_rows=20)"
    assert lightgbm(50) == lightgbm(trees=50)
