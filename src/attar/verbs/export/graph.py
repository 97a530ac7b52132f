"""A student as an ONNX graph: traced, stripped of what tells of its maker, quantised, tempered, labelled."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import ExportError
from attar.loop import Signals, Stopped, before_tracing
from attar.reading import TextModel
from attar.signal import Batch, Schema
from attar.sources.onnx import ENERGY, FEATURES
from attar.task import Task
from attar.verbs.export.rows import Feed, take

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["OPSET", "Limits", "finished", "from_torch", "output_name", "quantised", "quiet", "strip", "traced", "with_features"]

OPSET = 18  # what torch writes without conversion; any ONNX Runtime from 1.14 on reads it
WHOLE = frozenset({"pixels", "inputs"})  # inputs that are one tensor, not a block of a table
LARGE_TABLE = 1 << 16  # entries of an embedding from which on int8 saves more than one more node costs


@dataclass(frozen=True)
class Limits:
    """What a guard adds to a graph. thresholds: (C,) float32 of confidence, by decision; infinite where that is never answered.

    cut: log-odds from which the positive of two outcomes is decided; None where the likeliest outcome is. floor: of energy, below which a
    row is not answered; None: none, and the graph says nothing of energy.
    """

    thresholds: np.ndarray
    cut: float | None = None
    floor: float | None = None


class _Flat(nn.Module):
    """A student whose forward takes tensors one by one, by the names of the graph's inputs, and answers canonical logits."""

    def __init__(self, student: nn.Module, task: Task, names: Sequence[str], canonical: bool) -> None:
        super().__init__()
        self.student, self.task, self.names, self.canonical = student, task, tuple(names), canonical

    def forward(self, *tensors: Tensor) -> Tensor:
        if isinstance(self.student, TextModel):
            output = self.student.net(**dict(zip(self.names, tensors, strict=True)))
        else:
            output = self.student(tensors[0] if set(self.names) <= WHOLE else dict(zip(self.names, tensors, strict=True)))
        return output if self.canonical else self.task.canonical(output)


def from_torch(model: nn.Module, rows: Batch, task: Task) -> tuple[ModelProto, np.ndarray]:
    """The graph with its raw output, and the model's own answers to `rows`, (R, C), (R, L, 2) or (R, K, D)."""
    student = copy.deepcopy(model).cpu().float().eval()
    with torch.no_grad():
        output = student(rows.inputs)
        answer = task.canonical(output)
    arrays = Feed.of(student).arrays(take(rows, slice(-2, None)))  # of text, odd ones: long, so that no size is 1
    flat = _Flat(student, task, list(arrays), canonical=task.kind == "embedding" or answer.shape == output.shape)
    return traced(flat, arrays, output_name(task), type(model).__name__, tokens=isinstance(student, TextModel)), answer.numpy()


def traced(flat: nn.Module, arrays: Mapping[str, np.ndarray], output: str, who: str, *, tokens: bool = False) -> ModelProto:
    """The graph of a module that takes these arrays one by one, for any number of rows (and tokens), stripped.

    Raises ExportError, and Stopped on a signal once torch is done.
    """
    signals = Signals()  # a KeyboardInterrupt within it would come out as another error, or be taken for a way of tracing that fails
    before_tracing()
    free = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("tokens", min=2)} if tokens else {})
    try:
        with signals:
            program = torch.onnx.export(
                flat.eval(),
                tuple(torch.from_numpy(a[:2]) for a in arrays.values()),  # two rows: torch takes the sizes 0 and 1 for constants
                dynamo=True,
                dynamic_shapes=(tuple(free for _ in arrays),),
                input_names=list(arrays),
                output_names=[output],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        hint = "forward must be one graph for any number of rows, without branches on values"
        raise ExportError(f"{who} does not export to ONNX: {reason}", hint=hint) from error
    finally:
        if signals.caught:
            raise Stopped("export", 0, signals.caught, None)
    assert program is not None
    graph = program.model_proto
    strip(graph)
    return graph


def with_features(raw: ModelProto, answer: str) -> ModelProto | None:
    """A copy that answers `features` (N, D) as well: what the one product that makes the answer reads. None where there is none such.

    The value is there already and is only given a name: no node is added, and the other answers stay what they are. It is what the
    tap `embedding` reads in a module.
    """
    from onnx import TensorProto, helper, shape_inference

    model = copy.deepcopy(raw)
    graph = model.graph
    width = {t.name: t.dims for t in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    products = [n for n in graph.node if n.op_type in ("Gemm", "MatMul") and n.input[0] in made and len(width.get(n.input[1], ())) == 2]
    products = [n for n in products if not _reached(graph, made, answer, without=n)]
    if not products:
        return None
    last = products[-1]  # nodes stand in the order in which they are computed
    turned = any(a.name == "transB" and a.i for a in last.attribute)
    value, size = last.input[0], width[last.input[1]][1 if turned else 0]
    shapes = {v.name: v.type.tensor_type.shape.dim for v in shape_inference.infer_shapes(model).graph.value_info}
    if size < 2 or len(shapes.get(value, ())) != 2:
        return None
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [FEATURES if name == value else name for name in names]
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", size]))
    return model


def _reached(graph: GraphProto, made: Mapping[str, NodeProto], value: str, *, without: NodeProto) -> bool:
    """Whether `value` depends on what the graph is given by any way that does not lead through a node; shapes do not count."""
    given = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop()
        if name in given:
            return True
        node = made.get(name)
        if name in seen or node is None or node is without or node.op_type == "Shape":
            continue
        seen.add(name)
        waiting += node.input
    return False


def strip(model: ModelProto) -> None:
    """Remove what a graph does not need to answer: source lines and paths of the machine that made it, intermediate shapes."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.name = "student"


def quantised(raw: ModelProto, folder: Path) -> ModelProto | None:
    """The graph with weights in 8 bits and activations quantised as they come; None where nothing in it can be."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if any(n.op_type.startswith("TreeEnsemble") for n in raw.graph.node):
        return None  # what surrounds the trees is not worth it
    convolves = any(n.op_type == "Conv" for n in raw.graph.node)
    tables = {t.name for t in raw.graph.initializer if np.prod(t.dims) < LARGE_TABLE}
    small = [n.name for n in raw.graph.node if n.op_type == "Gather" and n.input[0] in tables]
    path = folder / ".quantised.onnx"
    quantize_dynamic(
        copy.deepcopy(raw),  # it is changed in place
        path,
        weight_type=QuantType.QUInt8 if convolves else QuantType.QInt8,  # ConvInteger knows no signed weights on a CPU
        per_channel=not convolves,
        nodes_to_exclude=small,
    )
    model = onnx.load(path)
    path.unlink()
    return model if any("Integer" in n.op_type or "Quant" in n.op_type for n in model.graph.node) else None


def finished(raw: ModelProto, temperature: float, precision: str, task: Task, schema: Schema, limits: Limits | None = None) -> bytes:
    """The graph that ships: logits divided by the temperature, probabilities, what `limits` ask for, and what everything is called."""
    from onnx import TensorProto, helper

    model = copy.deepcopy(raw)
    graph = model.graph
    if task.kind not in ("regression", "embedding"):
        _temper(model, temperature)
        shape = ["batch", task.labels, 2] if task.kind == "multilabel" else ["batch", task.outcomes]
        if task.kind == "multilabel":
            graph.initializer.append(helper.make_tensor("yes", TensorProto.INT64, [], [1]))
            graph.node.append(helper.make_node("Softmax", ["logits"], ["both"], axis=-1))
            graph.node.append(helper.make_node("Gather", ["both", "yes"], ["probabilities"], axis=-1))
        else:
            graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
        more = [output for output in graph.output if output.name == FEATURES]
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
        graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape[:2]))
        graph.output.extend(more)
        if limits is not None:
            _guard(model, limits)
    columns = [{"name": c.name, "kind": c.kind, "categories": list(c.categories)} for c in schema.columns]
    said = {
        "attar.version": metadata.version("attar"),
        "attar.kind": schema.kind,
        "attar.task": repr(task),
        "attar.label": schema.label,
        "attar.classes": json.dumps(list(schema.classes)),
        "attar.columns": json.dumps(columns),
        "attar.temperature": repr(temperature),
        "attar.precision": precision,
    }
    helper.set_model_props(model, said)
    model.producer_name, model.producer_version = "attar", metadata.version("attar")
    return model.SerializeToString(deterministic=True)


def _temper(model: ModelProto, temperature: float) -> None:
    """Divide the output `logits` by the temperature: in the factors of a last Gemm, where it costs nothing, else by one node more."""
    from onnx import TensorProto, helper

    if temperature == 1:
        return
    graph = model.graph
    last = next(n for n in graph.node if "logits" in n.output)
    factors = {a.name: a for a in last.attribute if a.name in ("alpha", "beta")}
    if last.op_type == "Gemm" and all(a.f == 1 for a in factors.values()):
        for name in ("alpha", "beta"):
            if name in factors:
                last.attribute.remove(factors[name])
            last.attribute.append(helper.make_attribute(name, 1 / temperature))
        return
    last.output[list(last.output).index("logits")] = "raw_logits"
    graph.initializer.append(helper.make_tensor("temperature", TensorProto.FLOAT, [], [temperature]))
    graph.node.append(helper.make_node("Div", ["raw_logits", "temperature"], ["logits"]))


def _guard(model: ModelProto, limits: Limits) -> None:
    """The outputs `confidence` (N,) float and `answer` (N,) bool, by the decision of each row; as few nodes as do, for each costs.

    With a cut the logit of the positive is moved by it: the likeliest of what is left is the decision, and its probability is
    1 / (1 + exp(−|z − c|)). Of a tie the first outcome is the decision, and with a cut the positive, as `Task.decide` has it.
    With a floor the output `energy` (N,) float as well, log Σ exp of the logits, which no cut moves.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, make = model.graph, helper.make_node
    constants: dict[str, np.ndarray] = {"outcome_axis": np.array([-1], np.int64)}
    logits, probabilities, last_of_ties = "logits", "probabilities", 0
    if limits.cut is not None:
        logits, probabilities, last_of_ties = "moved_logits", "moved_probabilities", 1
        constants["cut"] = np.array([0, limits.cut], np.float32)
        graph.node.append(make("Sub", ["logits", "cut"], [logits]))
        graph.node.append(make("Softmax", [logits], [probabilities], axis=-1))
    graph.node.append(make("ReduceMax", [probabilities, "outcome_axis"], ["confidence"], keepdims=0))
    if len(set(limits.thresholds.tolist())) == 1:
        constants["threshold"] = limits.thresholds[0]
    else:
        constants["thresholds"] = limits.thresholds
        graph.node.append(make("ArgMax", [logits], ["decision"], axis=-1, keepdims=0, select_last_index=last_of_ties))
        graph.node.append(make("Gather", ["thresholds", "decision"], ["threshold"]))
    graph.node.append(make("GreaterOrEqual", ["confidence", "threshold"], ["answer" if limits.floor is None else "confident"]))
    if limits.floor is not None:
        constants["floor"] = np.array(limits.floor, np.float32)
        graph.node.append(make("ReduceLogSumExp", ["logits", "outcome_axis"], [ENERGY], keepdims=0))
        graph.node.append(make("GreaterOrEqual", [ENERGY, "floor"], ["at_home"]))
        graph.node.append(make("And", ["confident", "at_home"], ["answer"]))
        graph.output.append(helper.make_tensor_value_info(ENERGY, TensorProto.FLOAT, ["batch"]))
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    graph.output.append(helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["batch"]))
    graph.output.append(helper.make_tensor_value_info("answer", TensorProto.BOOL, ["batch"]))


def output_name(task: Task) -> str:
    """What a graph's raw output is called."""
    return {"regression": "prediction", "embedding": "embeddings"}.get(task.kind, "logits")


@contextmanager
def quiet() -> Iterator[None]:
    """Contain what the exporters say of themselves: through `logging`, and as warnings about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*axis name: (batch|tokens) will not be used", category=UserWarning)
            yield
    finally:
        logging.disable(before)
