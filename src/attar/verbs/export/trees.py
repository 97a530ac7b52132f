"""A student of trees as an ONNX graph: its matrix traced, its trees converted, both made one."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import MissingExtra
from attar.signal import Batch
from attar.students.trees import Trees
from attar.task import Task
from attar.verbs.export.graph import OPSET, output_name, traced
from attar.verbs.export.rows import Feed

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["count", "from_lightgbm", "from_trees"]

TARGET = {"": OPSET, "ai.onnx.ml": 3}


def from_trees(model: Trees, rows: Batch, task: Task) -> tuple[ModelProto, np.ndarray]:
    """The graph with its raw output, and the trees' own answers to `rows`, (R, C) or (R, L, 2)."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = Feed().arrays(rows)
    with torch.no_grad():
        answer = task.canonical(model(rows.inputs))
    graph = traced(_Read(copy.deepcopy(model.read).cpu(), tuple(arrays)), arrays, "matrix", type(model).__name__)
    columns = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    scores = []
    for k, estimator in enumerate(model.estimators):
        trees = from_lightgbm(estimator, columns) if model.kind == "lightgbm" else _from_sklearn(estimator, columns)
        scores.append(_graft(graph, trees, f"tree{k}."))
    nodes, final = graph.graph.node, output_name(task)
    score = scores[0]
    if len(scores) > 1:
        score = "scores"
        nodes.append(helper.make_node("Concat", scores, [score], axis=1))
    if task.kind == "multilabel":  # (N, L) z → (N, L, 2) [0, z]
        graph.graph.initializer.extend([numpy_helper.from_array(np.array([2]), "last"), _row("pair", 0.0, 1.0)])
        nodes.append(helper.make_node("Unsqueeze", [score, "last"], ["each"]))
        nodes.append(helper.make_node("MatMul", ["each", "pair"], [final]))
    elif task.outcomes == 2 and len(scores) == 1:  # (N, 1) z → [−z/2, z/2]
        graph.graph.initializer.append(_row("pair", -0.5, 0.5))
        nodes.append(helper.make_node("MatMul", [score, "pair"], [final]))
    else:
        nodes.append(helper.make_node("Identity", [score], [final]))
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(final, TensorProto.FLOAT, ["batch", *answer.shape[1:]]))
    graph.opset_import.append(helper.make_opsetid("ai.onnx.ml", TARGET["ai.onnx.ml"]))
    return graph, answer.numpy()


def from_lightgbm(booster: Any, columns: int) -> ModelProto:
    """The sum of a booster's trees, (N, columns) float32 → (N, 1): raw scores, whatever its objective makes of them."""
    try:
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as error:
        raise MissingExtra("onnxmltools", "trees-onnx") from error
    import lightgbm

    text = booster.model_to_string(num_iteration=-1)
    text = re.sub(r"(?m)^objective=.*$", "objective=regression", text)
    text = re.sub(r"(?m)^\[objective: .*\]$", "[objective: regression]", text)
    plain = lightgbm.Booster(model_str=text)
    return convert_lightgbm(plain, initial_types=[("matrix", FloatTensorType([None, columns]))], target_opset=15)  # its newest


def count(graph: ModelProto) -> int:
    """Numbers that trees have learnt: a threshold for each split, a value for each leaf."""
    numbers = 0
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_modes":
                numbers += sum(mode != b"LEAF" for mode in attribute.strings)
            elif attribute.name == "target_weights":
                numbers += len(attribute.floats)
    return numbers


class _Read(nn.Module):
    """The part of a tree student that makes the matrix, with the graph's inputs one by one."""

    def __init__(self, read: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.read, self.names = read, names

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.read(tensors[0] if self.names == ("inputs",) else dict(zip(self.names, tensors, strict=True)))


def _from_sklearn(forest: Any, columns: int) -> ModelProto:
    """The mean of a forest's trees, (N, columns) float32 → (N, 1)."""
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise MissingExtra("skl2onnx", "trees-onnx") from error
    return cast("ModelProto", convert_sklearn(forest, initial_types=[("matrix", FloatTensorType([None, columns]))], target_opset=TARGET))


def _graft(onto: ModelProto, trees: ModelProto, prefix: str) -> str:
    """Put the nodes of `trees` after those of `onto`, reading its `matrix`; the name of what they answer."""
    inputs = {i.name for i in trees.graph.input}

    def called(name: str) -> str:
        return "matrix" if name in inputs else prefix + name if name else ""

    for tensor in trees.graph.initializer:
        added = onto.graph.initializer.add()
        added.CopyFrom(tensor)
        added.name = called(tensor.name)
    for node in trees.graph.node:
        added = onto.graph.node.add()
        added.CopyFrom(node)
        added.name = called(node.name)
        added.input[:] = [called(n) for n in node.input]
        added.output[:] = [called(n) for n in node.output]
    return called(trees.graph.output[0].name)


def _row(name: str, *values: float) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([values], np.float32), name)
