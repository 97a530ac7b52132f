"""The contract of an export: what ships answers as the student did, for any number of rows, and says what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.reading import TextFeed
from attar.signal import Batch
from attar.sources.onnx import DOMAINS, Onnx, open_graph, read_manifest
from attar.task import Task
from attar.verbs.export import Exported, export

__all__ = ["check_export"]


def check_export(model: nn.Module, data: Data, task: Task, at: Path) -> Exported:
    """Export `model` to `at` and assert the contract on test rows, which export itself never read.

    The float graph answers as the model divided by its temperature, within 1e-4 of the largest logit; one row alone as the same row in
    company; both graphs are of standard operators only, in one file, without paths of this machine; their inputs and outputs have the
    promised names; probabilities are the softmax of the logits; names and classes are in the graph itself; the model is left as it was.
    """
    task = task.bind(data.schema)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    training = model.training
    exported = export(model, data, task, at=at)
    assert model.training == training, "export changed the model's mode"
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items()), "export changed the model's weights"
    batch = data.test.batch(torch.arange(min(len(data.test), 300)))
    _check_answers(model, exported, batch, task)
    for name in exported.files:
        _check_graph(exported.folder / name, exported, data, task, batch)
    return exported


def _check_answers(model: nn.Module, exported: Exported, batch: Batch, task: Task) -> None:
    training = model.training
    with torch.no_grad():
        own = task.canonical(model.eval()(batch.inputs))
    model.train(training)
    source = Onnx(str(exported.folder / "student.onnx"))
    together = source(batch).output
    tolerance = 1e-4 * max(1.0, float(own.abs().max()))
    assert together.shape == own.shape
    assert float((together * source.temperature - own).abs().max()) <= tolerance, "the graph answers otherwise than the student"
    for i in range(3):
        alone = source(_row(batch, i)).output
        assert float((alone - together[i : i + 1]).abs().max()) * source.temperature <= tolerance, "a row alone is answered otherwise"


def _check_graph(path: Path, exported: Exported, data: Data, task: Task, batch: Batch) -> None:
    import onnx

    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model)
    assert {n.domain for n in model.graph.node} <= DOMAINS
    assert all(t.data_location != t.EXTERNAL for t in model.graph.initializer)
    assert b".py" not in content, "the graph tells of files of the machine that made it"
    session = open_graph(content, 1, path)
    assert {i.name for i in session.get_inputs()} <= _INPUTS[data.schema.kind]
    assert all(not isinstance(i.shape[0], int) for i in session.get_inputs()), "the number of rows is fixed"
    outputs = [o.name for o in session.get_outputs()]
    said = {p.key: p.value for p in model.metadata_props}
    assert json.loads(said["attar.classes"]) == list(data.schema.classes)
    assert [c["name"] for c in json.loads(said["attar.columns"])] == [c.name for c in data.schema.columns]
    assert float(said["attar.temperature"]) == exported.files[path.name].temperature
    if task.kind in ("regression", "embedding"):
        assert outputs == ["prediction" if task.kind == "regression" else "embeddings"]
        return
    assert outputs == ["logits", "probabilities"]
    feeds = _feeds(exported, batch, [i.name for i in session.get_inputs()])
    logits, p = (np.asarray(a) for a in session.run(outputs, feeds))
    expected = torch.softmax(torch.from_numpy(logits), -1).numpy()
    np.testing.assert_allclose(p, expected[..., 1] if task.kind == "multilabel" else expected, atol=1e-6)


_INPUTS = {
    "table": {"numbers", "categories"},
    "images": {"pixels"},
    "tensor": {"inputs"},
    "text": {"input_ids", "attention_mask", "token_type_ids"},
}


def _feeds(exported: Exported, batch: Batch, names: list[str]) -> dict[str, np.ndarray]:
    inputs, text = batch.inputs, read_manifest(exported.folder)["text"]
    if text is not None:
        return TextFeed.from_json(text, exported.folder).arrays(inputs)
    return {name: (inputs if isinstance(inputs, Tensor) else inputs[name]).numpy() for name in names}


def _row(batch: Batch, i: int) -> Batch:
    inputs = batch.inputs
    row = inputs[i : i + 1] if isinstance(inputs, Tensor) else {n: v[i : i + 1] for n, v in inputs.items()}
    return replace(batch, inputs=row, labels=None, weight=None, ids=None, views=None)
