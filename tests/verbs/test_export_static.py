"""int8 of convolutional students: fixed scales, weights per channel, like the float graph, and beside any row the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from attar.sources.onnx import onnx as open_onnx
from attar.sources.onnx import open_graph
from attar.students import cnn, mlp, timm
from attar.task import classification
from attar.testing.small import SmallCNN, fitted, small_images
from attar.testing.sources import check_source
from attar.verbs.export import Exported, export
from attar.verbs.export.rows import Feed
from attar.verbs.export.static import calibration_rows, convolves

DATA = small_images(800)
TASK = classification()
FEED = Feed.of(SmallCNN(DATA.schema))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = fitted(SmallCNN(DATA.schema), DATA)
    return export(model, DATA, TASK, at=tmp_path_factory.mktemp("run") / "student", deploy="int8")


def int8(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.folder / "student.int8.onnx")


def test_the_int8_graph_of_a_cnn_decides_as_the_float_graph(exported: Exported) -> None:
    assert exported.certified == "student.int8.onnx"
    assert exported.files["student.int8.onnx"].parity.agreement > 0.97
    batch = DATA.test.batch(torch.arange(200))
    small, whole = (open_onnx(str(exported.folder / name))(batch).output for name in exported.files)
    assert (small.argmax(1) == whole.argmax(1)).float().mean() > 0.97
    assert not torch.equal(small, whole)


def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(exported: Exported) -> None:
    check_source(open_onnx(str(exported.folder)), DATA.test.batch(torch.arange(12)), outcomes=3)
    assert any("fixed on training rows" in note for note in exported.notes)
    assert not any("scaled by call" in note for note in exported.notes)


def test_weights_are_8_bits_by_channel_and_raw_pixels_are_read_in_float(exported: Exported) -> None:
    graph = int8(exported).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        weight = made[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        values, scales = held[weight.input[0]], held[weight.input[1]]
        assert values.dtype == np.int8
        assert scales.shape == (len(values),)
        assert len(set(scales.tolist())) == len(scales)
    before = made[made[made[convolutions[0].input[0]].input[0]].input[0]]  # DequantizeLinear ← QuantizeLinear ← what read the pixels
    assert before.op_type in ("Mul", "Div", "Sub")
    kinds = [n.op_type for n in graph.node]
    assert "ConvInteger" not in kinds
    assert kinds.index("QuantizeLinear") > kinds.index("Cast")


def test_scales_come_from_training_rows_spread_evenly_and_from_no_other(exported: Exported, tmp_path: Path) -> None:
    rows = calibration_rows(DATA, FEED)
    shown = np.concatenate([batch["pixels"] for batch in rows])
    assert {p.tobytes() for p in shown} <= {p.tobytes() for p in FEED.arrays(DATA.train.batch(torch.arange(len(DATA.train))))["pixels"]}
    assert len(shown) == len(DATA.train) == 200
    again = export(fitted(SmallCNN(DATA.schema), DATA), DATA, TASK, at=tmp_path / "student")
    assert again.files["student.int8.onnx"].digest == exported.files["student.int8.onnx"].digest


def test_attars_cnn_and_a_backbone_are_quantised_with_fixed_scales_and_a_transformer_with_those_of_the_call(tmp_path: Path) -> None:
    for builder, fixed in ((cnn(width=4, depth=2), True), (timm("test_efficientnet", size=32), True), (timm("test_vit", size=32), False)):
        model = fitted(builder(DATA.schema, 0), DATA, steps=3).eval()
        made = export(model, DATA, TASK, at=tmp_path / "student", deploy="int8")
        assert convolves(onnx.load(made.folder / "student.onnx")) == fixed
        assert any("fixed on training rows" in note for note in made.notes) == fixed
        assert sorted(p.name for p in made.folder.iterdir()) == ["student.int8.onnx", "student.json", "student.onnx"]
        session = open_graph((made.folder / "student.int8.onnx").read_bytes(), 1, "int8")
        for count in (1, 7):
            answer = session.run(["logits"], FEED.arrays(DATA.test.batch(torch.arange(count))))[0]
            assert np.asarray(answer).shape == (count, 3)


def test_a_net_without_convolutions_keeps_the_scales_of_the_call(tmp_path: Path) -> None:
    from attar.testing.small import small_table

    table = small_table(200)
    made = export(fitted(mlp(width=8, depth=1)(table.schema, 0), table, steps=3).eval(), table, at=tmp_path / "student")
    assert any("scaled by call" in note for note in made.notes)


def test_what_is_written_is_tempered_on_its_own_answers(tmp_path: Path) -> None:
    assert DATA.valid.labels is not None
    wrong = torch.where(torch.arange(200) % 5 == 0, (DATA.valid.labels + 1) % 3, DATA.valid.labels)  # else no temperature is low enough
    noisy = replace(DATA, valid=replace(DATA.valid, labels=wrong))
    made = export(fitted(SmallCNN(DATA.schema), DATA), noisy, TASK, at=tmp_path / "student")
    whole, small = (made.files[name].temperature for name in ("student.onnx", "student.int8.onnx"))
    assert whole != small
    assert small == pytest.approx(whole, rel=0.3)
