"""Students with weights of chance as the graphs that they would ship as: what is measured before anything is trained."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from attar.cost import multiply_adds
from attar.data import Data
from attar.guards import Guard
from attar.signal import Batch, Student
from attar.sources.onnx import open_graph
from attar.students.trees import Trees
from attar.task import Task
from attar.verbs.export.fuse import fused
from attar.verbs.export.graph import OPSET, Limits, finished, from_torch, output_name, quantised, quiet
from attar.verbs.export.rows import Feed, take
from attar.verbs.export.static import calibration_rows, convolves, quantised_static
from attar.verbs.export.trees import count, from_trees

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

__all__ = ["GROWN", "Draft", "Drafts", "Precision", "identity"]

Precision = Literal["float", "int8"]

TEMPERATURE = 1.5  # any but 1: a fitted temperature is hardly ever 1, and divides
LIMIT = 0.5  # of a guard: any threshold costs the same
FOLDED = "_bias"  # behind a weight's name, what a batch normalisation has added to it
IR = 9  # of the identity graph: any ONNX Runtime that reads the opset reads it
GROWN = 16384  # training rows at most on which trees of chance grow: of fewer, leaves that need many rows would be too few


@dataclass(frozen=True)
class Draft:
    """A student of chance as a graph, asked as the deployed one would be.

    size_bytes: of the file, and of what lies beside it (a tokenizer). parameters: numbers that would be learnt. macs: of one row.
    traced: exported by itself, and not made of another student's graph. precision: int8 where it was asked for and can be.
    """

    content: bytes
    size_bytes: int
    parameters: int
    macs: int
    output: str
    feed: Feed
    traced: bool
    precision: Precision
    threads: int = 1
    _opened: dict[int, InferenceSession] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def session(self) -> InferenceSession:
        """The session of ONNX Runtime; opened anew in a forked process, for its threads do not survive a fork."""
        if (here := os.getpid()) not in self._opened:
            self._opened[here] = open_graph(self.content, self.threads, "a student of chance")
        return self._opened[here]

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The call whose time is the price: of texts tokenising is part of it, as it is of a deployed student's."""
        session, feed, names = self.session, self.feed, [self.output]
        if feed.text is None:
            return partial(session.run, names, feed.arrays(batch))
        text = feed.text
        return lambda: [session.run(names, text.arrays(take(batch, piece).inputs, keep=False)) for piece in text.pieces(batch.inputs)]


def identity(feed: Feed, rows: Batch, threads: int = 1) -> Draft:
    """The graph that takes what a student takes, and answers it unchanged: what a call costs before a student does anything."""
    from onnx import helper

    feeds = feed.arrays(take(rows, slice(0, 2)))
    nodes, inputs, outputs = [], [], []
    for name, array in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = ["batch", *(f"{name}_{i}" for i in range(array.ndim - 1))]
        inputs.append(helper.make_tensor_value_info(name, kind, shape))
        outputs.append(helper.make_tensor_value_info(f"same_{name}", kind, shape))
        nodes.append(helper.make_node("Identity", [name], [f"same_{name}"]))
    model = helper.make_model(
        helper.make_graph(nodes, "identity", inputs, outputs), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
    )
    content = model.SerializeToString(deterministic=True)
    return Draft(content, len(content), 0, 0, outputs[0].name, feed, traced=False, precision="float", threads=threads)


@dataclass
class Drafts:
    """Makes drafts for one task on one data set.

    Tracing a student takes seconds. Of students whose graphs differ in nothing but the sizes of their weights, as `Draft`s of one
    `structure` say, the first is traced and the others are made of its graph, each weight replaced by their own. That this gives the
    file that tracing gives is looked at once for each family, byte by byte of everything but the weights, and where it does not hold
    every student of the family is traced.
    """

    data: Data
    task: Task
    precision: Precision = "float"
    guard: Guard | None = None
    seed: int = 0
    threads: int = 1
    _templates: dict[Hashable, ModelProto] = field(default_factory=dict, init=False, repr=False)
    _alike: dict[str, bool] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        valid = self.data.valid
        self._rows = Batch(valid.batch(torch.arange(min(8, len(valid)))).inputs, schema=self.data.schema)
        if len(self._rows) == 1:
            self._rows = take(self._rows, torch.zeros(2, dtype=torch.int64))

    def make(self, student: Student, family: str = "", structure: Hashable = None) -> Draft:
        """The draft of a student. structure: equal for students whose graphs have the same nodes; None where nobody knows."""
        model = student(self.data.schema, self.seed)
        self._shake(model)
        feed = Feed.of(model)
        if isinstance(model, Trees):
            self._grow(model)
        raw, traced = self._raw(model, family, structure)
        precision: Precision = "float"
        if self.precision == "int8" and (small := self._small(raw, feed)) is not None:
            raw, precision = small, "int8"
        content = self._finished(raw, precision)
        parameters = count(raw) if isinstance(model, Trees) else sum(p.numel() for p in model.parameters())
        beside = 0 if feed.text is None else sum(map(len, feed.text.reading.files().values()))
        macs = parameters if isinstance(model, Trees) else multiply_adds(model, take(self._rows, slice(0, 1)))
        output = output_name(self.task)
        return Draft(content, len(content) + beside, parameters, macs, output, feed, traced, precision, self.threads)

    def _raw(self, model: nn.Module, family: str, structure: Hashable) -> tuple[ModelProto, bool]:
        key = (family, structure)
        template = self._templates.get(key) if structure is not None else None
        if template is not None and self._alike.get(family, True):
            made = _refilled(template, model)
            if made is not None and family in self._alike:
                return made, False
            raw = self._trace(model)
            self._alike[family] = made is not None and _but_weights(made) == _but_weights(raw)
            return raw, True
        raw = self._trace(model)
        if structure is not None and not isinstance(model, Trees):
            self._templates[key] = raw
        return raw, True

    def _trace(self, model: nn.Module) -> ModelProto:
        with quiet():
            raw, own = (from_trees if isinstance(model, Trees) else from_torch)(model, self._rows, self.task)  # pyright: ignore[reportArgumentType] see isinstance
        if self.guard is not None:
            self.guard.check_energy(own)  # now, not when a finalist is exported
        return raw

    def _small(self, raw: ModelProto, feed: Feed) -> ModelProto | None:
        """The graph in 8 bits by the way that `export` goes."""
        fixed = self.data.schema.kind in ("images", "tensor") and convolves(raw)
        with quiet(), tempfile.TemporaryDirectory() as folder:
            if fixed:
                return quantised_static(raw, calibration_rows(self.data, feed)[:1], Path(folder))  # of scales the time does not depend
            return quantised(raw, Path(folder))

    def _finished(self, raw: ModelProto, precision: Precision) -> bytes:
        limits = None
        if self.guard is not None:
            by_cut = self.task.threshold is not None or self.task.recall_at_fpr is not None
            each = np.arange(self.task.outcomes) if self.guard.per == "answer" else np.zeros(self.task.outcomes)
            floor = None if self.guard.energy is None else LIMIT
            limits = Limits((LIMIT + each / 1000).astype(np.float32), 0.1 if by_cut else None, floor)
        named = "float32" if precision == "float" else "int8"
        return finished(fused(raw), TEMPERATURE, named, self.task, self.data.schema, limits)

    def _shake(self, model: nn.Module) -> None:
        """Move what begins at 0 or 1 away from it, lest the exporter drop a node that a trained student needs."""
        chance = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
                    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                        if tensor.is_floating_point():
                            start = 0.5 if name in ("weight", "running_var") else -0.5
                            tensor.copy_(start + torch.rand(tensor.shape, generator=chance))

    def _grow(self, model: Trees) -> None:
        """Grow on training rows, on labels where there are any: the shape of trees is that of what they learn."""
        split = self.data.train
        batch = split.batch(torch.arange(min(GROWN, len(split))))
        outputs = 1 if self.task.kind == "regression" or self.task.outcomes == 2 else self.task.outcomes
        chance = torch.Generator().manual_seed(self.seed)
        targets = torch.randn(len(batch), outputs * (self.task.labels if self.task.kind == "multilabel" else 1), generator=chance)
        if batch.labels is not None and self.task.kind != "multilabel":
            known = self.task.known(batch.labels)
            label = torch.where(known, batch.labels, 0)
            if self.task.kind == "regression":
                scale = max(float(label.float().std()), 1e-6)
                targets = label.float()[:, None] + 0.1 * scale * targets
            elif outputs == 1:
                targets = 4 * label.float()[:, None] - 2 + targets
            else:
                targets = 4 * nn.functional.one_hot(label, outputs).float() - 2 + targets
        model.grow(batch.inputs, targets, None, logistic=False)


def _refilled(template: ModelProto, model: nn.Module) -> ModelProto | None:
    """The graph of `model`, made of another's with the same nodes: each initialiser that is named after a weight becomes that weight.

    None where a weight is not told by its name and size. A batch normalisation, which the exporter works into the convolution before it
    and that one's new bias, is left out of the values: sizes are what is priced.
    """
    from onnx import numpy_helper

    weights = {f"student.{name}": tensor for name, tensor in model.state_dict().items()}
    made = copy.deepcopy(template)
    for tensor in made.graph.initializer:
        if (weight := weights.get(tensor.name)) is None and tensor.name.endswith(FOLDED):
            whole = weights.get(tensor.name.removesuffix(FOLDED))
            weight = None if whole is None else whole.flatten(1)[:, 0]
        if weight is None:
            continue
        array = weight.detach().cpu().numpy()
        if array.ndim != len(tensor.dims):
            return None
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return made


def _but_weights(model: ModelProto) -> bytes:
    """A graph as bytes, with the values of its weights left out: names, types, sizes, nodes and whole constants remain."""
    bare = copy.deepcopy(model)
    for tensor in bare.graph.initializer:
        if tensor.name.startswith("student."):
            length = len(tensor.raw_data)
            tensor.raw_data = length.to_bytes(8, "little")
    return bare.SerializeToString(deterministic=True)
