"""The optional output `features`: what the last linear layer reads, in every graph of the folder, at no cost where nobody asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.errors import TapError
from attar.signal import Batch, Inputs, Student
from attar.sources import module
from attar.sources.onnx import Onnx, read_manifest
from attar.students import cnn, mlp
from attar.students.trees import forest
from attar.task import classification, multilabel, regression
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.testing.texts import small_text_model, small_texts
from attar.verbs.export import export

EMBEDDING = frozenset({"embedding"})

pytest.importorskip("onnxruntime")


def rows(data: Data, count: int = 40) -> Batch:
    return data.test.batch(torch.arange(count))


@pytest.mark.parametrize(
    ("data", "build", "tap"),
    [
        (small_table(), mlp(width=8, depth=2), "embedding"),
        (small_images(), cnn(width=4, depth=2), "embedding"),
        (small_texts(120), lambda schema, seed: small_text_model(schema, seed), "net.head:in"),
    ],
    ids=["table", "images", "texts"],
)
def test_features_are_what_the_students_last_layer_reads(data: Data, build: Student, tap: str, tmp_path: Path) -> None:
    model = build(data.schema, 0)
    exported = export(model, data, at=tmp_path / "student", features=True)
    source, batch = exported.source, rows(data, 30)
    answer = source(batch, EMBEDDING)
    assert answer.taps.keys() == EMBEDDING
    torch.testing.assert_close(answer.taps["embedding"], module(model)(batch, frozenset({tap})).taps[tap], atol=1e-4, rtol=1e-4)
    assert torch.equal(answer.output, source(batch).output)
    assert read_manifest(exported.folder)["outputs"] == ["logits", "probabilities", "features"]


def test_every_graph_has_them_and_they_are_those_of_its_own_precision(tmp_path: Path) -> None:
    for data, model in ((small_table(), SmallMLP(small_table().schema)), (small_images(), SmallCNN(small_images().schema))):
        at = tmp_path / data.schema.kind
        exported = export(fitted(model, data), data, at=at, features=True)
        batch = rows(data)
        whole, small = (Onnx(str(at / name))(batch, EMBEDDING).taps["embedding"] for name in ("student.onnx", "student.int8.onnx"))
        assert whole.shape == small.shape
        assert float((whole - small).abs().max()) > 0
        assert float(torch.nn.functional.cosine_similarity(whole, small).min()) > 0.95
        assert exported.notes == tuple(n for n in exported.notes if "features" not in n)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_features_of_other_forms_of_answers_make_those_too(kind: str, tmp_path: Path) -> None:
    data = small_table(kind=kind)
    task = {"classification": classification, "multilabel": multilabel, "regression": regression}[kind]()
    model = SmallMLP(data.schema, outcomes=(3,) if kind == "multilabel" else (1,))
    exported = export(model, data, task, at=tmp_path / "student", features=True)
    answer = exported.source(rows(data), EMBEDDING)
    made = task.bind(data.schema).canonical(model.head(answer.taps["embedding"]).detach())
    torch.testing.assert_close(answer.output * exported.temperature, made, atol=1e-4, rtol=1e-4)


def test_nothing_changes_where_nobody_asks(tmp_path: Path) -> None:
    data = small_table()
    model = fitted(SmallMLP(data.schema), data)
    plain, asked = (export(model, data, at=tmp_path / str(features), features=features) for features in (False, True))
    assert read_manifest(plain.folder)["outputs"] == ["logits", "probabilities"]
    with pytest.raises(TapError, match="has no taps"):
        plain.source(rows(data), EMBEDDING)
    with pytest.raises(TapError, match="has no taps"):
        asked.source(rows(data), frozenset({"hidden"}))
    assert torch.equal(plain.source(rows(data)).output, asked.source(rows(data)).output)
    kinds = [[n.op_type for n in _graph(e.folder / name).node] for name in plain.files for e in (plain, asked)]
    assert kinds[0] == kinds[1]  # no node more
    assert kinds[2] == kinds[3]


class TwoWays(nn.Module):
    """Logits by two products: neither of what they read is what the logits are made of."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.wide, self.hidden, self.deep = nn.Linear(columns, 2), nn.Linear(columns, 8), nn.Linear(8, 2)

    def forward(self, inputs: Inputs) -> Tensor:
        assert not isinstance(inputs, Tensor)
        x = inputs["numbers"].nan_to_num()
        return self.wide(x) + self.deep(self.hidden(x).relu())


def test_where_no_one_layer_makes_the_answers_a_note_says_so(tmp_path: Path) -> None:
    data = small_table()
    train = data.train.batch(torch.arange(len(data.train)))
    assert train.labels is not None
    trees = forest(trees=3)(data.schema, 0)
    trees.grow(train.inputs, 3 * train.labels.float()[:, None], None, logistic=False)
    for name, model in (("trees", trees), ("two", TwoWays(5))):
        exported = export(model, data, at=tmp_path / name, features=True)
        assert any("no one linear layer makes" in note for note in exported.notes)
        assert read_manifest(exported.folder)["outputs"] == ["logits", "probabilities"]


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load(str(path)).graph
