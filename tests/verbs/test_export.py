"""Export: the graph answers as the student did, tempered on its own answers, in a folder that says what it is."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.data import Data, Split
from attar.errors import ExportError
from attar.loop import Stopped
from attar.progress import Event
from attar.signal import Inputs, Schema
from attar.sources.onnx import Onnx, read_manifest
from attar.students.trees import Forest, LightGBM, forest, lightgbm
from attar.task import classification, multilabel, regression
from attar.testing.export import check_export
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.verbs.export import export
from attar.verbs.export.graph import traced

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def table() -> Data:
    return small_table()


@pytest.fixture(scope="module")
def student(table: Data) -> nn.Module:
    return fitted(SmallMLP(table.schema), table)


def test_a_table_student_keeps_the_contract(student: nn.Module, table: Data, tmp_path: Path) -> None:
    exported = check_export(student.train(), table, classification(), tmp_path / "student")
    assert sorted(p.name for p in exported.folder.iterdir()) == ["student.int8.onnx", "student.json", "student.onnx"]
    assert exported.files["student.onnx"].parity.agreement == 1
    assert exported.files["student.int8.onnx"].parity.agreement > 0.9
    assert exported.files["student.onnx"].parity.rows == 256 + 64  # 200 validation and 56 training rows, and holes


def test_an_image_student_keeps_the_contract(tmp_path: Path) -> None:
    data = small_images()
    exported = check_export(fitted(SmallCNN(data.schema), data), data, classification(), tmp_path / "student")
    assert exported.files["student.int8.onnx"].parity.agreement > 0.9  # biases of the normalised convolutions included


def test_several_labels_are_pairs_of_logits_and_one_probability_each(tmp_path: Path) -> None:
    data = small_table(kind="multilabel")
    model = fitted(SmallMLP(data.schema, outcomes=(3, 2)), data)
    exported = check_export(model, data, multilabel(), tmp_path / "student")
    assert exported.source(data.test.batch(torch.arange(5))).output.shape == (5, 3, 2)


def test_two_labels_ship_for_any_number_of_rows(tmp_path: Path) -> None:
    """As many labels as the rows that a graph is traced with: the number of rows must not be taken for that of labels."""
    data = small_table(kind="multilabel")
    schema = replace(data.schema, classes=data.schema.classes[:2])
    splits = {n: replace(s, labels=s.labels[:, :2], schema=schema) for n, s in data.splits.items() if s.labels is not None}
    two = replace(data, schema=schema, **splits)
    exported = check_export(SmallMLP(two.schema, outcomes=(2,)), two, multilabel(), tmp_path / "student")
    assert exported.source(two.test.batch(torch.arange(5))).output.shape == (5, 2, 2)


def test_a_student_with_one_logit_ships_two(table: Data, tmp_path: Path) -> None:
    model = SmallMLP(table.schema, outcomes=(1,))
    exported = check_export(model, table, classification(), tmp_path / "student")
    batch = table.test.batch(torch.arange(4))
    output = exported.source(batch).output * exported.temperature
    torch.testing.assert_close(output[:, 1:], model(batch.inputs).detach(), atol=1e-5, rtol=1e-4)
    assert not output[:, 0].any()


def test_a_regression_ships_its_number_without_a_temperature(tmp_path: Path) -> None:
    data = small_table(kind="regression")
    exported = check_export(fitted(SmallMLP(data.schema), data), data, regression(), tmp_path / "student")
    assert exported.temperature == 1
    assert exported.source(data.test.batch(torch.arange(5))).output.shape == (5, 1)


def test_a_table_of_categories_alone_has_one_input(tmp_path: Path) -> None:
    data = _without_numbers(small_table())
    exported = check_export(SmallMLP(data.schema), data, classification(), tmp_path / "student")
    assert [i["name"] for i in read_manifest(exported.folder)["inputs"]] == ["categories"]


@pytest.mark.parametrize("name", ["student.onnx", "student.int8.onnx"])
def test_the_temperature_is_the_best_for_that_graphs_own_answers(name: str, student: nn.Module, table: Data, tmp_path: Path) -> None:
    exported = export(student, table, classification(), at=tmp_path / "student")
    source = Onnx(str(exported.folder / name))
    valid = table.valid.batch(torch.arange(len(table.valid)))
    raw = source(valid).output.double() * source.temperature
    assert valid.labels is not None
    outcomes = raw.shape[1]
    smoothing = outcomes / (outcomes - 1) / (len(raw) + 2)  # Platt's targets: 1 / (n + 2) for all but the label

    def loss(t: float) -> float:
        return float(nn.functional.cross_entropy(raw / t, valid.labels, label_smoothing=smoothing))  # pyright: ignore[reportArgumentType] not None, see above

    grid = np.geomspace(0.05, 20, 6001)  # steps of 0.1 %
    best = grid[np.argmin([loss(t) for t in grid])]
    assert source.temperature == pytest.approx(best, rel=2e-3)
    assert source.temperature != 1


def test_without_labelled_validation_rows_the_temperature_is_one_and_a_note_says_so(
    student: nn.Module, table: Data, tmp_path: Path
) -> None:
    data = replace(table, valid=replace(table.valid, labels=torch.full((len(table.valid),), -100)))
    exported = export(student, data, classification(), at=tmp_path / "student")
    assert exported.temperature == 1
    assert any("no validation row has a label" in note for note in exported.notes)
    assert read_manifest(exported.folder)["notes"] == list(exported.notes)


def test_the_same_student_exports_to_the_same_bytes(student: nn.Module, table: Data, tmp_path: Path) -> None:
    first = export(student, table, classification(), at=tmp_path / "a")
    second = export(student, table, classification(), at=tmp_path / "b")
    assert {n: f.digest for n, f in first.files.items()} == {n: f.digest for n, f in second.files.items()}


def test_the_manifest_says_all_that_a_deployment_needs(student: nn.Module, table: Data, tmp_path: Path) -> None:
    export(student, table, classification("auroc"), at=tmp_path / "student", deploy="int8")
    said = json.loads((tmp_path / "student" / "student.json").read_text(encoding="utf-8"))
    assert said["certified"] == "student.int8.onnx"
    assert said["task"] == 'classification(metric="auroc")'
    assert [(i["name"], i["dtype"], i["shape"]) for i in said["inputs"]] == [
        ("numbers", "float32", ["batch", 5]),
        ("categories", "int64", ["batch", 2]),
    ]
    assert said["schema"]["classes"] == ["no", "yes"]
    assert said["schema"]["columns"][1] | {"name": "colour", "categories": ["blue", "green", "red"]} == said["schema"]["columns"][1]
    assert said["parameters"] == sum(p.numel() for p in student.parameters())
    assert Onnx(str(tmp_path / "student")).file.name == "student.int8.onnx"


def test_export_says_what_it_does_and_prints_nothing(
    student: nn.Module, table: Data, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[Event] = []
    export(student, table, classification(), at=tmp_path / "student", listen=heard.append)
    assert [e.stage for e in heard] == ["export"] * 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_a_student_that_depends_on_chance_is_refused(table: Data, tmp_path: Path) -> None:
    class Noisy(SmallMLP):
        def forward(self, inputs: Inputs) -> Tensor:
            return super().forward(inputs) + torch.randn(1)

    with pytest.raises(ExportError, match="differs from the student by"):
        export(Noisy(table.schema), table, classification(), at=tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


def test_a_student_that_branches_on_values_is_refused(table: Data, tmp_path: Path) -> None:
    class Branching(SmallMLP):
        def forward(self, inputs: Inputs) -> Tensor:
            output = super().forward(inputs)
            return output if output.sum() > 0 else -output

    with pytest.raises(ExportError, match="Branching does not export to ONNX"):
        export(Branching(table.schema), table, classification(), at=tmp_path / "student")


def test_a_student_that_answers_nan_is_refused(table: Data, tmp_path: Path) -> None:
    model = SmallMLP(table.schema)
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ExportError, match="the student itself answers 320 of 320 rows with NaN"):
        export(model, table, classification(), at=tmp_path / "student")


def test_rows_with_missing_values_are_part_of_the_parity(table: Data, tmp_path: Path) -> None:
    class Unfilled(SmallMLP):
        def forward(self, inputs: Inputs) -> Tensor:
            assert not isinstance(inputs, Tensor)
            return super().forward(inputs) + inputs["numbers"].sum(1, keepdim=True) * 0

    whole = replace(table, **{n: _filled(table, n) for n in ("train", "valid")})
    with pytest.raises(ExportError, match="with NaN"):
        export(Unfilled(table.schema), whole, classification(), at=tmp_path / "student")


def _filled(data: Data, name: str) -> Split:
    split = data.splits[name]
    rows = split.rows

    def filled(index: Tensor) -> Inputs:
        inputs = rows(index)
        assert not isinstance(inputs, Tensor)
        return {n: v.nan_to_num(0) if v.is_floating_point() else v for n, v in inputs.items()}

    return replace(split, rows=filled)


def _without_numbers(data: Data) -> Data:
    schema: Schema = replace(data.schema, columns=data.schema.categories)

    def stripped(name: str) -> Split:
        split = data.splits[name]
        rows = split.rows

        def only(index: Tensor) -> Inputs:
            inputs = rows(index)
            assert not isinstance(inputs, Tensor)
            return {"categories": inputs["categories"]}

        return replace(split, rows=only, schema=schema)

    return replace(data, schema=schema, **{n: stripped(n) for n in data.splits})


@pytest.mark.parametrize(
    ("builder", "kind"),
    [
        (lightgbm(trees=12), "classification"),
        (lightgbm(trees=12), "regression"),
        (forest(trees=3), "classification"),
        (forest(trees=3), "multilabel"),
    ],
)
def test_trees_keep_the_contract(builder: LightGBM | Forest, kind: str, tmp_path: Path) -> None:
    for library in ("lightgbm", "sklearn", "onnxmltools", "skl2onnx"):
        pytest.importorskip(library)
    data = small_table(kind=kind)
    task = {"classification": classification, "multilabel": multilabel, "regression": regression}[kind]()
    train = data.train.batch(torch.arange(len(data.train)))
    assert train.labels is not None
    targets = train.labels.float() * (1 if kind == "regression" else 3)
    model = builder(data.schema, 0)
    model.grow(train.inputs, targets.reshape(len(targets), -1), None, logistic=False)
    exported = check_export(model, data, task, tmp_path / "student")
    assert list(exported.files) == ["student.onnx"]
    assert any("no student.int8.onnx" in note for note in exported.notes)
    leaves = sum(_leaves(e) for e in model.estimators)
    trees = len(model.estimators) * builder.trees
    assert exported.source.parameters == leaves + leaves - trees  # a binary tree has one split less than leaves


def _leaves(estimator: Any) -> int:
    if isinstance(estimator, _Dumps):
        return sum(tree["num_leaves"] for tree in estimator.dump_model()["tree_info"])
    return sum(tree.get_n_leaves() for tree in estimator.estimators_)


@runtime_checkable
class _Dumps(Protocol):
    def dump_model(self) -> dict[str, Any]: ...


def test_trees_of_several_classes_answer_each_class(tmp_path: Path) -> None:
    pytest.importorskip("onnxmltools")
    data = small_table()
    schema = replace(data.schema, classes=("low", "middle", "high"))
    three = {n: replace(s, schema=schema, labels=torch.arange(len(s)) % 3) for n, s in data.splits.items()}
    data = replace(data, schema=schema, **three)
    train = data.train.batch(torch.arange(len(data.train)))
    assert train.labels is not None
    model = lightgbm(trees=5)(schema, 0)
    model.grow(train.inputs, nn.functional.one_hot(train.labels, 3).float(), None, logistic=False)
    exported = check_export(model, data, classification(), tmp_path / "student")
    assert exported.source(data.test.batch(torch.arange(4))).output.shape == (4, 3)


def test_int8_and_float_differ_in_bytes_and_answers(student: nn.Module, table: Data, tmp_path: Path) -> None:
    exported = export(student, table, classification(), at=tmp_path / "student")
    batch = table.test.batch(torch.arange(50))
    a, b = (Onnx(str(exported.folder / n))(batch).output.numpy() for n in exported.files)
    assert 0 < np.abs(a - b).max() < 1


def test_a_signal_while_a_student_is_traced_stops_and_is_no_failure_to_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*parts: Any, **said: Any) -> None:
        try:  # as torch does, where a module of its own is half imported when the signal comes
            signal.raise_signal(signal.SIGINT)
        except torch.never_imported.Error as error:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError from error
        raise torch.onnx.OnnxExporterError("no way of tracing is left")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(Stopped, match="SIGINT stopped export$"):
        traced(nn.Linear(3, 2), {"inputs": np.zeros((2, 3), dtype=np.float32)}, "logits", "Linear")
