"""The ONNX source: exported folders know their columns and classes, other graphs are read for what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar.cost import working_memory_mb
from attar.data import Data
from attar.errors import TapError, TeacherError
from attar.signal import Batch, Column, Schema
from attar.sources.onnx import Onnx, onnx
from attar.task import classification
from attar.testing.small import SmallMLP, fitted, small_table
from attar.testing.sources import check_source
from attar.verbs.export import export

library = pytest.importorskip("onnx")
helper = library.helper
FLOAT, INT64 = library.TensorProto.FLOAT, library.TensorProto.INT64


@pytest.fixture(scope="module")
def data() -> Data:
    return small_table()


@pytest.fixture(scope="module")
def folder(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("run") / "student"
    export(fitted(SmallMLP(data.schema), data), data, classification(), at=at)
    return at


@pytest.fixture(scope="module")
def rows(data: Data) -> Batch:
    return data.test.batch(torch.arange(60))


def table(batch: Batch) -> dict[str, torch.Tensor]:
    assert not isinstance(batch.inputs, torch.Tensor)
    return dict(batch.inputs)


# ── an exported folder ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_file_of_a_folder_is_a_source_with_its_own_temperature(folder: Path, rows: Batch) -> None:
    float32, int8 = onnx(str(folder / "student.onnx")), onnx(str(folder / "student.int8.onnx"))
    certified = onnx(str(folder))
    assert certified.file.name == "student.onnx"
    assert certified.fingerprint == float32.fingerprint != int8.fingerprint
    assert float32.temperature != int8.temperature
    assert torch.equal(certified(rows).output, float32(rows).output)
    assert repr(certified) == f'onnx("{folder}")'
    assert certified.size_bytes == (folder / "student.onnx").stat().st_size


def test_an_exported_folder_keeps_the_contract_of_sources(folder: Path, rows: Batch) -> None:
    check_source(onnx(str(folder)), rows, outcomes=2, changed=lambda: [onnx(str(folder / "student.int8.onnx"))])


def test_a_graph_from_elsewhere_keeps_the_contract_of_sources(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL, helper.make_node("Softmax", ["z"], ["p"])], [("p", FLOAT, ["batch", 3])])
    check_source(onnx(path), numbers(), outcomes=3, changed=lambda: [onnx(path, classes=["b", "c", "a"])])


def test_a_forked_process_answers_with_a_session_of_its_own(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    source(rows)
    session = source.session
    grown = working_memory_mb(lambda: _another(source, session).prepare(rows))
    if working_memory_mb(lambda: lambda: None) is None:
        pytest.skip("this machine does not tell resident memory")
    assert grown is not None  # the child ended well


def _another(source: Onnx, session: Any) -> Onnx:
    assert source.session is not session
    return source


def test_the_fingerprint_moves_when_a_weight_moves(data: Data, folder: Path, tmp_path: Path) -> None:
    model = fitted(SmallMLP(data.schema), data)
    with torch.no_grad():
        model.head.bias[0] += 1e-3
    moved = export(model, data, classification(), at=tmp_path / "student").source
    assert moved.fingerprint != onnx(str(folder)).fingerprint


def test_what_is_prepared_is_what_is_answered(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    np.testing.assert_array_equal(source.prepare(rows)()[0], source(rows).output.numpy())


def test_columns_in_another_order_are_found_by_name(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    assert rows.schema is not None
    turned = replace(
        rows,
        inputs={n: v.flip(1) for n, v in table(rows).items()},
        schema=replace(rows.schema, columns=tuple(reversed(rows.schema.columns))),
    )
    assert torch.equal(source(turned).output, source(rows).output)


def test_category_codes_are_mapped_by_their_text(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    assert rows.schema is not None
    colours = ("red", "blue", "green")  # exported as blue, green, red
    columns = tuple(replace(c, categories=colours) if c.name == "colour" else c for c in rows.schema.columns)
    code = torch.tensor([0, 2, 3, 1])
    inputs = table(rows)
    categories = inputs["categories"].clone()
    categories[:, 0] = code[categories[:, 0]]
    other = replace(rows, inputs=inputs | {"categories": categories}, schema=replace(rows.schema, columns=columns))
    assert not torch.equal(categories, inputs["categories"])
    assert torch.equal(source(other).output, source(rows).output)


def test_a_category_never_seen_counts_as_missing(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    assert rows.schema is not None
    columns = tuple(replace(c, categories=("violet",)) if c.name == "colour" else c for c in rows.schema.columns)
    inputs = table(rows)
    violet, missing = inputs["categories"].clone(), inputs["categories"].clone()
    violet[:, 0], missing[:, 0] = 1, 0
    schema = replace(rows.schema, columns=columns)
    new = source(replace(rows, inputs=inputs | {"categories": violet}, schema=schema)).output
    assert torch.equal(new, source(replace(rows, inputs=inputs | {"categories": missing})).output)
    assert source.reading is not None
    assert source.reading.unseen(schema) == {"colour": ("violet",)}


def test_classes_in_another_order_turn_the_outcomes(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    assert rows.schema is not None
    turned = replace(rows, schema=replace(rows.schema, classes=("yes", "no")))
    assert torch.equal(source(turned).output, source(rows).output.flip(1))


def test_other_classes_are_refused_before_any_row(folder: Path, data: Data) -> None:
    with pytest.raises(TeacherError, match="answers no, yes; the data have good, bad"):
        onnx(str(folder)).check(replace(data.schema, classes=("good", "bad")))


def test_no_taps_and_no_gradient(folder: Path, rows: Batch) -> None:
    source = onnx(str(folder))
    assert not source(rows).output.requires_grad
    with pytest.raises(TapError, match="asked for \\['hidden'\\]"):
        source(rows, frozenset({"hidden"}))


# ── a graph from elsewhere ────────────────────────────────────────────────────────────────────────────────────────────

WEIGHT = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, -0.5]], np.float32)  # (2 numbers, 3 outcomes)


def graph(path: Path, nodes: Sequence[Any], outputs: Sequence[tuple[str, int, Sequence[Any]]], rows: int | str = "batch") -> str:
    """A model with the input `x` (rows, 2) float32 and the initializer `w`, saved to `path`."""
    made = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info("x", FLOAT, [rows, 2])],
        [helper.make_tensor_value_info(n, kind, list(s)) if kind else helper.make_empty_tensor_value_info(n) for n, kind, s in outputs],
        [library.numpy_helper.from_array(WEIGHT, "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    library.save(helper.make_model(made, opset_imports=opsets, ir_version=9), path)
    return str(path)


def numbers(rows: int = 7, classes: tuple[str, ...] = ("a", "b", "c")) -> Batch:
    schema = Schema("table", (Column("u", "number"), Column("v", "number")), classes=classes)
    return Batch({"numbers": torch.from_numpy(np.random.default_rng(1).normal(size=(rows, 2)).astype(np.float32))}, schema=schema)


MATMUL = helper.make_node("MatMul", ["x", "w"], ["z"])
CHANCE = [  # q, one column: the sigmoid of the last of the three
    MATMUL,
    helper.make_node("Sigmoid", ["z"], ["s"]),
    helper.make_node("Split", ["s"], ["p", "q"], axis=1, num_outputs=2),
]


def expected(batch: Batch) -> torch.Tensor:
    return table(batch)["numbers"] @ torch.from_numpy(WEIGHT)


def test_logits_pass_as_they_are(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    torch.testing.assert_close(onnx(path)(numbers()).output, expected(numbers()))


def test_probabilities_become_log_p(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL, helper.make_node("Softmax", ["z"], ["p"])], [("p", FLOAT, ["batch", 3])])
    torch.testing.assert_close(onnx(path)(numbers()).output, expected(numbers()).log_softmax(-1))


def test_one_probability_of_two_classes_becomes_a_pair(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", CHANCE, [("q", FLOAT, ["batch", 1])])
    batch = numbers(classes=("no", "yes"))
    output = onnx(path)(batch).output
    assert output.shape == (7, 2)
    torch.testing.assert_close(output[:, 1] - output[:, 0], expected(batch)[:, 2], atol=1e-5, rtol=1e-4)


def test_a_dictionary_of_probabilities_is_a_matrix_with_named_classes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            classlabels_strings=["c", "a", "b"],
            coefficients=WEIGHT.T.reshape(-1).tolist(),
            intercepts=[0.0, 0.0, 0.0],
            post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["scores"], ["answers"], domain="ai.onnx.ml", classlabels_strings=["c", "a", "b"]),
    ]
    path = graph(tmp_path / "g.onnx", nodes, [("label", library.TensorProto.STRING, ["batch"]), ("answers", 0, [])])
    source = onnx(path)
    assert source.classes == ("c", "a", "b")
    torch.testing.assert_close(source(numbers()).output, expected(numbers()).log_softmax(-1)[:, [1, 2, 0]])


def test_names_given_for_the_outcomes_order_them(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    torch.testing.assert_close(onnx(path, classes=["b", "c", "a"])(numbers()).output, expected(numbers())[:, [2, 0, 1]])
    with pytest.raises(TeacherError, match="the data have"):
        onnx(path, classes=["b", "c", "d"])(numbers())


def test_a_number_of_a_regression_stays_a_number_even_in_0_to_1(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", CHANCE, [("q", FLOAT, ["batch", 1])])
    batch = numbers(classes=())
    torch.testing.assert_close(onnx(path)(batch).output, torch.sigmoid(expected(batch)[:, 2:]))


def test_a_graph_for_three_rows_answers_any_number(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, [3, 3])], rows=3)
    source = onnx(path)
    for rows in (1, 3, 7):
        batch = numbers(rows)
        torch.testing.assert_close(source(batch).output, expected(batch))
        np.testing.assert_allclose(np.asarray(source.prepare(batch)()).reshape(rows, 3), expected(batch), rtol=1e-6)


def test_images_for_a_float_graph_are_scaled_as_asked(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0, axes=[2, 3])]
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("m", FLOAT, ["batch", 3])],
    )
    path = tmp_path / "g.onnx"
    library.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4)).astype(np.uint8))
    batch = Batch(pixels, schema=Schema("images", shape=(3, 4, 4), classes=("a", "b", "c")))
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    share = pixels.float().mean((2, 3)) / 255
    torch.testing.assert_close(onnx(str(path), mean=mean, std=std)(batch).output, (share - torch.tensor(mean)) / torch.tensor(std))
    with pytest.raises(TeacherError, match=r"a row of the data has shape \(3, 5, 5\)"):
        onnx(str(path)).check(Schema("images", shape=(3, 5, 5), classes=("a", "b", "c")))


def test_of_several_outputs_one_must_be_named(tmp_path: Path) -> None:
    nodes = [MATMUL, helper.make_node("Neg", ["z"], ["n"])]
    path = graph(tmp_path / "g.onnx", nodes, [("z", FLOAT, ["batch", 3]), ("n", FLOAT, ["batch", 3])])
    with pytest.raises(TeacherError, match="2 outputs of numbers: z, n"):
        onnx(path)
    with pytest.raises(TeacherError, match="no output 'm'"):
        onnx(path, output="m")
    torch.testing.assert_close(onnx(path, output="n")(numbers()).output, -expected(numbers()))


def test_a_table_with_categories_is_not_forced_into_one_matrix(tmp_path: Path, data: Data) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    with pytest.raises(TeacherError, match="and 2 of categories"):
        onnx(path).check(data.schema)


def test_a_row_of_another_width_is_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    schema = Schema("table", tuple(Column(n, "number") for n in "uvw"), classes=("a", "b", "c"))
    with pytest.raises(TeacherError, match=r"takes x of shape \('batch', 2\); a row of the data has shape \(3,\)"):
        onnx(path).check(schema)


def test_the_number_of_outcomes_must_be_the_datas(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    with pytest.raises(TeacherError, match="3.* for each row, the data have 2 classes"):
        onnx(path)(numbers(classes=("a", "b")))


def test_answers_that_are_nan_are_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    batch = replace(numbers(), inputs={"numbers": torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])})
    with pytest.raises(TeacherError, match="answers NaN, first at row 1"):
        onnx(path)(batch)


def test_what_a_graph_holds_is_found_once_and_not_by_the_data(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", [MATMUL], [("z", FLOAT, ["batch", 3])])
    source = Onnx(path)
    inputs = {"numbers": torch.tensor([[0.0, 0.0]])}  # logits 0, 0, 0: within 0..1, and yet no probabilities
    assert torch.equal(source(replace(numbers(), inputs=inputs)).output, torch.zeros(1, 3))
