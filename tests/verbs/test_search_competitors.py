"""What could be put in place without a search: parts of a teacher against what they are parts of, and everyone's figures."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import attar
from attar import cost
from attar.data import Data
from attar.signal import NOTHING, Batch, Signal
from attar.sources.boosting import Growing, first_rounds, grow, merge
from attar.sources.module import module
from attar.sources.taught import Folds, Taught, TaughtNets, TaughtTrees
from attar.sources.trees import LightGBM, xgboost
from attar.students import cnn, hf, mlp
from attar.task import Task, classification, task_for
from attar.testing.folders import small_folder
from attar.testing.small import fitted, small_images, small_table
from attar.testing.texts import WORDS, small_texts
from attar.verbs.search import competitors
from attar.verbs.search.competitors import LABELS, Beside, beside
from attar.verbs.search.parts import Mean, cuts_of, fewer_layers, narrowed, numbers_of, tree_graph

pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def data() -> Data:
    return small_table(800)


@pytest.fixture(scope="module")
def task(data: Data) -> Task:
    return classification(metric="auroc").bind(data.schema)


@pytest.fixture(scope="module")
def rows(data: Data) -> Batch:
    return data.test.batch(torch.arange(len(data.test)))


@pytest.fixture(scope="module")
def texts(data: Data, task: Task) -> list[str]:
    asked = data.train.batch(torch.arange(len(data.train)))
    return [grow(Growing(trees=12, min_rows=5, leaves=6), 12, task, data.schema, asked, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def trees(texts: list[str]) -> LightGBM:
    return LightGBM.parse(texts[0], "trees.txt")


@pytest.fixture(scope="module")
def taught(texts: list[str], data: Data) -> TaughtTrees:
    text, rounds = merge(texts)
    return TaughtTrees(
        Taught(Growing(), "trees.txt", 3), LightGBM.parse(text, "trees.txt"), Folds.deal(3, 0, data.train.ids), tuple(rounds)
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs that are told roughly: few resamples of few rounds, and no memory."""
    monkeypatch.setattr(competitors, "GLANCE", 0.01)
    monkeypatch.setattr(cost, "DRAWS", 20)
    monkeypatch.setattr(cost, "working_memory_mb", lambda make: None)


# ------------------------------------------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize("count", [1, 5, 12])
def test_the_first_rounds_answer_as_lightgbm_does_with_so_many(trees: LightGBM, rows: Batch, count: int) -> None:
    part = cuts_of(trees)(count)
    theirs = trees.booster.predict(trees.matrix(rows), raw_score=True, num_iteration=count)
    assert part.trees == count
    np.testing.assert_allclose(part.make()(rows).output[:, 1].numpy(), theirs, rtol=1e-6)


def test_parts_of_a_cross_fitted_teacher_are_boosters_of_it(taught: TaughtTrees, texts: list[str], rows: Batch) -> None:
    cuts = cuts_of(taught)
    matrix = taught.model.matrix(rows)
    alone = [LightGBM.parse(text, "member.txt").booster for text in texts]
    for asked, kept, wanted, words in (
        (5, 5, alone[0].predict(matrix, raw_score=True, num_iteration=5), "the first 5 trees of one of its 3 boosters, of 36 trees in all"),
        (20, 12, alone[0].predict(matrix, raw_score=True), "one of its 3 boosters, 12 of 36 trees"),
        (24, 24, sum(b.predict(matrix, raw_score=True) for b in alone[:2]) / 2, "2 of its 3 boosters, 24 of 36 trees"),
        (99, 36, taught.model.booster.predict(matrix, raw_score=True), "3 of its 3 boosters, 36 of 36 trees"),
    ):
        part = cuts(asked)
        assert (part.rounds, part.words) == (kept, words)
        np.testing.assert_allclose(part.make()(rows).output[:, 1].numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_part_keeps_the_categories_of_its_file(taught: TaughtTrees) -> None:
    text = taught.model.booster.model_to_string(num_iteration=-1)
    whole = LightGBM.parse(text, "whole.txt")
    for factor in (1.0, 3.0):
        assert LightGBM.parse(first_rounds(text, 4, factor), "part.txt").features == whole.features


def test_parts_of_xgboost_are_its_first_rounds(data: Data, rows: Batch, tmp_path: Path) -> None:
    xgb = pytest.importorskip("xgboost")
    names = [c.name for c in data.schema.numbers]
    batch = data.train.batch(torch.arange(len(data.train)))
    assert not isinstance(batch.inputs, torch.Tensor) and batch.labels is not None
    grown = xgb.train(
        {"objective": "binary:logistic", "max_depth": 3},
        xgb.DMatrix(batch.inputs["numbers"].numpy(), batch.labels.numpy(), feature_names=names),
        8,
    )
    grown.save_model(tmp_path / "trees.ubj")
    source = xgboost(str(tmp_path / "trees.ubj"))
    part = cuts_of(source)(3)
    model = part.make()
    assert not isinstance(rows.inputs, torch.Tensor)
    theirs = grown.predict(xgb.DMatrix(rows.inputs["numbers"].numpy(), feature_names=names), output_margin=True, iteration_range=(0, 3))
    np.testing.assert_allclose(model(rows).output[:, 1].numpy(), theirs, rtol=1e-5)
    assert (part.trees, part.whole) == (3, 8)
    assert model.size_bytes < source.size_bytes
    assert numbers_of(model) < numbers_of(source) == len(grown.trees_to_dataframe())


def test_the_graph_of_trees_answers_as_they_do(taught: TaughtTrees, trees: LightGBM, rows: Batch) -> None:
    pytest.importorskip("onnxmltools")
    for model in (trees, taught):
        graph = tree_graph(model, rows)
        assert not isinstance(graph, str)
        torch.testing.assert_close(graph(rows).output, model(rows).output, rtol=1e-4, atol=1e-5)
        assert graph.parameters == numbers_of(model)


def test_numbers_of_trees_are_splits_and_leaves(trees: LightGBM) -> None:
    table = trees.booster.trees_to_dataframe()
    assert numbers_of(trees) == len(table)


def test_half_of_an_mlp_keeps_its_strongest_channels_and_answers_with_them(data: Data, rows: Batch) -> None:
    net = mlp(width=8, depth=2)(data.schema, 0)
    weak = [1, 4, 5, 6]
    with torch.no_grad():
        for name in ("hidden.0", "hidden.2"):
            linear = net.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            linear.weight[weak] = 0
            linear.bias[weak] = 0
    smaller = narrowed(net, 0.5)
    assert smaller is not None
    torch.testing.assert_close(smaller(rows.inputs), net.eval()(rows.inputs))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in net.parameters())


def test_half_of_a_cnn_keeps_its_strongest_channels_and_answers_with_them() -> None:
    images = small_images(80)
    batch = images.train.batch(torch.arange(len(images.train)))
    net = fitted(cnn(width=4, depth=2)(images.schema, 0), images, steps=3).eval()
    with torch.no_grad():
        for name, weak in (("features.1", [0, 2]), ("features.4", [1, 2, 5, 7])):
            norm = net.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)
            norm.weight[weak] = 0
            norm.bias[weak] = 0
    before = copy.deepcopy(net.state_dict())
    smaller = narrowed(net, 0.5)
    assert smaller is not None
    torch.testing.assert_close(smaller(batch.inputs), net(batch.inputs))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_other_nets_are_not_cut() -> None:
    assert narrowed(nn.Linear(2, 2), 0.5) is None


@pytest.mark.parametrize("freeze", [1, 3, 4])
def test_half_of_a_partly_frozen_encoder_is_half_of_the_one_that_is_not(freeze: int, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    texts = small_texts(60)
    folder = str(small_folder(tmp_path / "folder", [word for topic in WORDS.values() for word in topic], layers=4))
    whole, frozen = (hf(folder, freeze=count)(texts.schema, 0).eval() for count in (0, freeze))
    batch = texts.train.batch(torch.arange(8))
    half, ours = fewer_layers(whole, 0.5), fewer_layers(frozen, 0.5)
    assert half is not None and ours is not None
    assert half[1:] == ours[1:] == (2, 4)
    torch.testing.assert_close(frozen(batch.inputs), whole(batch.inputs))  # and the whole is what it was
    torch.testing.assert_close(ours[0](batch.inputs), half[0](batch.inputs))
    assert not torch.allclose(ours[0](batch.inputs), whole(batch.inputs))


def test_the_mean_of_nets_answers_as_the_teacher_does_new_rows() -> None:
    images = small_images(80)
    nets = tuple(cnn(width=2, depth=1)(images.schema, seed).eval() for seed in range(3))
    task = task_for(images.schema, images.kind)
    teacher = TaughtNets(Taught(cnn(width=2, depth=1), "t.safetensors", 3), nets, Folds.deal(3, 0, images.train.ids), task, "")
    batch = images.test.batch(torch.arange(20))
    torch.testing.assert_close(Mean.of(teacher)(batch.inputs), teacher(batch).output)


# ------------------------------------------------------------------------------------------------------------------------ side by side


def by_name(found: Beside) -> dict[str, object]:
    return {c.name: c for c in (found.teacher, *found.competitors)}


def test_trees_stand_beside_their_parts_and_the_finalists(taught: TaughtTrees, data: Data, task: Task, tmp_path: Path) -> None:
    student = fitted(mlp(width=4, depth=1)(data.schema, 0), data, steps=5)
    exported = attar.export(student, data, task, at=tmp_path / "student").source
    found = beside(
        taught, data, task, data.calibration, bounds=attar.budget(parameters=200), at=tmp_path / "c", finalists={"7": exported},
        labels=exported, seconds=0.05,
    )  # fmt: skip
    teacher = found.teacher
    assert teacher.score is not None and teacher.score.value is not None and teacher.score.low is not None
    batch = data.calibration.batch(torch.arange(len(data.calibration)))
    assert batch.labels is not None
    # the rows of calibration are none of the teacher's training rows: it answers them as a whole
    assert teacher.score.value == pytest.approx(task.measure(taught(batch).output, batch.labels)["auroc"], abs=1e-3)
    halves = data.valid.batch(torch.arange(len(data.valid)))
    assert teacher.first == pytest.approx(task.measure(taught(halves).output, halves.labels)["auroc"], abs=1e-3)  # type: ignore[arg-type]
    assert teacher.price.parameters == numbers_of(taught) > 200
    assert not teacher.within and teacher.difference is None
    int8, *parts, labels = found.competitors
    assert int8.score is None and "trees have no int8 form" in int8.why
    assert parts and all(part.within and (part.price.parameters or 999) <= 200 for part in parts)
    assert parts[0].price.parameters > 100  # the most that the budget allows, and not only a half  # type: ignore[operator]
    for part in parts:
        assert part.score is not None and part.difference is not None
        assert part.difference.value == pytest.approx(part.score.value - teacher.score.value)  # type: ignore[operator]
        assert part.price.measured and part.price.latency_ms is not None and part.price.low_ms <= part.price.latency_ms  # type: ignore[operator]
    assert labels.name == LABELS and labels.score is not None and labels.within
    assert found.finalists["7"].latency_ms is not None and found.finalists["7"].parameters == exported.parameters
    assert set(found.compared.costs) == {teacher.name, *(p.name for p in parts), LABELS, "7"}
    assert found.compared.ratio(teacher.name, "7").value > 0


def test_without_a_budget_parts_are_shares_and_where_none_fits_one_tree_is_shown(
    trees: LightGBM, data: Data, task: Task, tmp_path: Path
) -> None:
    free = beside(trees, data, task, data.calibration, bounds=attar.budget(), at=tmp_path / "a", seconds=0.02)
    assert [c.name for c in free.competitors if "of 12 trees" in c.name] == [f"teacher, {n} of 12 trees" for n in (6, 3, 1)]
    assert free.competitors[-1].why == "no student learnt from labels alone"
    tight = beside(trees, data, task, data.calibration, bounds=attar.budget(size_mb=1e-6), at=tmp_path / "b", seconds=0.02)
    shown = [c for c in tight.competitors if "of 12 trees" in c.name]
    assert [c.name for c in shown] == ["teacher, 1 of 12 trees"] and not shown[0].within


def test_a_net_stands_beside_its_int8_file_and_half_of_itself(tmp_path: Path) -> None:
    images = small_images()
    task = task_for(images.schema, images.kind)
    net = fitted(cnn(width=4, depth=1)(images.schema, 0), images, steps=30).eval()
    found = beside(module(net), images, task, images.calibration, bounds=attar.budget(latency_ms=5), at=tmp_path, seconds=0.02)
    names = by_name(found)
    assert list(names) == ["teacher", "teacher in int8", "teacher, half as wide", LABELS]
    int8 = found.competitors[0]
    assert int8.price.precision == "int8" and int8.score is not None and int8.within
    assert found.competitors[1].price.parameters < found.teacher.price.parameters  # type: ignore[operator]
    right = task.measure(net(images.calibration.batch(torch.arange(100)).inputs).detach(), images.calibration.labels)  # type: ignore[arg-type]
    assert found.teacher.score is not None and found.teacher.score.value == pytest.approx(right["accuracy"])


class Oracle:
    """A source that is none that attar knows the insides of."""

    fingerprint = "oracle"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert batch.labels is not None
        return Signal(torch.nn.functional.one_hot(batch.labels, 2) * 4.0)

    def prepare(self, batch: Batch):
        return lambda: None


def test_of_a_teacher_that_nobody_knows_the_inside_of_it_says_what_is_not_there(data: Data, task: Task, tmp_path: Path) -> None:
    found = beside(Oracle(), data, task, data.calibration, bounds=attar.budget(), at=tmp_path, seconds=0.02)
    assert found.teacher.score is not None and found.teacher.score.value == 1
    assert [c.score for c in found.competitors] == [None, None, None]
    assert all("this teacher" in c.why for c in found.competitors[:2])
