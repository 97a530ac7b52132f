"""The folder that ships: the student's graph in float and int8, tempered, checked against the student, and described."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.errors import ExportError, MissingExtra, RunError, TeacherError
from attar.files import explain_disk
from attar.identity import digest_file
from attar.progress import Event, Listener, silent
from attar.reading import schema_to_json
from attar.signal import Batch, Inputs, Schema
from attar.sources.onnx import FOLDER_VERSION, MANIFEST, Onnx, open_graph, seal
from attar.statistics.calibration import fit_temperature
from attar.task import Task, task_for

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Exported", "File", "Parity", "export"]

FLOAT, INT8 = "student.onnx", "student.int8.onnx"
OPSET = 18  # what torch writes without conversion; any ONNX Runtime from 1.14 on reads it
ROWS = 1024  # for parity, at most; where the validation split is shorter, training rows are added up to ENOUGH
ENOUGH = 256
HOLES = 64  # rows of a table that are asked once more, with values missing and categories never seen
TOLERANCE = 1e-4  # of the largest difference to the student's own logits, relative to the largest logit or 1
LARGE_TABLE = 1 << 16  # entries of an embedding from which on int8 saves more than one more node costs


@dataclass(frozen=True)
class Parity:
    """How an exported graph's raw answers differ from the student's own.

    rows: asked. max_difference, mean_difference: of logits (of a regression's numbers). scale: the largest |logit|, at least 1.
    agreement: share of rows, 0..1, on which both decide alike; of a regression 1 where numbers agree within the tolerance.
    """

    rows: int
    max_difference: float
    mean_difference: float
    scale: float
    agreement: float


@dataclass(frozen=True)
class File:
    """One graph of the folder: its precision, bytes, the temperature in it, how it was checked, and its digest."""

    precision: Literal["float32", "int8"]
    bytes: int
    temperature: float
    parity: Parity
    digest: str


@dataclass(frozen=True)
class Exported:
    """A folder that ships. files: its graphs by name. certified: the one that answers, and that a certificate is about."""

    folder: Path
    certified: str
    files: Mapping[str, File]
    notes: tuple[str, ...]

    @property
    def temperature(self) -> float:
        """By which the raw logits of the certified graph are divided."""
        return self.files[self.certified].temperature

    @property
    def source(self) -> Onnx:
        """The folder as the source that it is."""
        return Onnx(str(self.folder))


def export(
    model: nn.Module,
    data: Data,
    task: Task | None = None,
    *,
    at: str | Path,
    deploy: Literal["float", "int8"] = "float",
    listen: Listener = silent,
) -> Exported:
    """Write `model` to the folder `at` as student.onnx, student.int8.onnx and student.json; the folder appears whole or not at all.

    The graph takes `numbers` (N, n) float32 and `categories` (N, m) int64, `pixels` (N, C, H, W) uint8, or `inputs` (N, ...) float32,
    for any N. It answers `logits`, already divided by a temperature, and `probabilities`; for a regression `prediction` (N, 1).
    The temperature minimises −log p of the labels of the validation rows, fitted on the answers of each graph by itself.

    data: whose schema the folder records, and whose validation rows are used; test rows are never read.
    deploy: which graph a reader of the folder asks. The other lies beside it, where it can be made.
    An exported folder at `at` is replaced. The model is not changed, and may be on any device.
    Raises ExportError where the graph cannot be written or differs from the model, RunError where `at` holds other things, DiskFull.
    """
    _need_libraries()
    at = Path(at)
    task = (task or task_for(data.schema)).bind(data.schema)
    if deploy not in ("float", "int8"):
        raise ExportError(f"deploy={deploy!r}", hint='"float" or "int8"')
    _claim(at)
    rows = _parity_rows(data)
    listen(Event("export", text="writing the graph"))
    with _quiet():
        raw, own = _torch_graph(model, rows, task)
    _need_finite(own, "the student itself")
    notes: list[str] = []
    with explain_disk(at), _folder(at) as folder:
        files = {FLOAT: _ship(raw, FLOAT, folder, "float32", own, rows, data, task, notes)}
        if (drift := files[FLOAT].parity).max_difference > TOLERANCE * drift.scale:
            raise ExportError(
                f"the graph differs from the student by {drift.max_difference:.3g} on {drift.rows} rows "
                f"(logits up to {drift.scale:.3g}, tolerance {TOLERANCE:g})",
                hint="does the student's forward depend on randomness, on the batch or on its size?",
            )
        listen(Event("export", text=f"{FLOAT}: differs by {drift.max_difference:.1e}, temperature {files[FLOAT].temperature:.3g}"))
        if (int8 := _try_int8(raw, folder, own, rows, data, task, notes, needed=deploy == "int8")) is not None:
            files[INT8] = int8
            notes.append(_company(folder / INT8, rows, int8.temperature))
            listen(Event("export", text=f"{INT8}: agrees on {int8.parity.agreement:.2%}, temperature {int8.temperature:.3g}"))
        certified = INT8 if deploy == "int8" else FLOAT
        _describe(folder, model, data.schema, task, certified, files, notes)
        _check_whole(folder, own, rows, files)
    return Exported(at, certified, files, tuple(notes))


# ── the graph ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Flat(nn.Module):
    """A student whose forward takes tensors one by one, by the names of the graph's inputs, and answers canonical logits."""

    def __init__(self, student: nn.Module, task: Task, names: Sequence[str], canonical: bool) -> None:
        super().__init__()
        self.student, self.task, self.names, self.canonical = student, task, tuple(names), canonical

    def forward(self, *tensors: Tensor) -> Tensor:
        whole = self.names in (("pixels",), ("inputs",))
        output = self.student(tensors[0] if whole else dict(zip(self.names, tensors, strict=True)))
        return output if self.canonical else self.task.canonical(output)


def _torch_graph(model: nn.Module, rows: Batch, task: Task) -> tuple[ModelProto, np.ndarray]:
    """The graph with its raw output, and the model's own answers to `rows`, (R, C) or (R, L, 2)."""
    student = copy.deepcopy(model).cpu().float().eval()
    named = _named(rows)
    inputs = rows.inputs if isinstance(rows.inputs, Tensor) else {n: torch.from_numpy(a) for n, a in named.items()}
    with torch.no_grad():
        output = student(inputs)
        answer = task.canonical(output)
    flat = _Flat(student, task, list(named), canonical=answer.shape == output.shape).eval()
    batch = torch.export.Dim("batch")
    try:
        program = torch.onnx.export(
            flat,
            tuple(torch.from_numpy(a[:2]) for a in named.values()),  # two rows: torch takes the sizes 0 and 1 for constants
            dynamo=True,
            dynamic_shapes=(tuple({0: batch} for _ in named),),
            input_names=list(named),
            output_names=[_output(task)],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        hint = "forward must be one graph for any number of rows, without branches on values"
        raise ExportError(f"{type(model).__name__} does not export to ONNX: {reason}", hint=hint) from error
    assert program is not None
    graph = program.model_proto
    _strip(graph)
    return graph, answer.numpy()


def _strip(model: ModelProto) -> None:
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


def _int8(raw: ModelProto, folder: Path) -> ModelProto | None:
    """The graph with weights in 8 bits and activations quantised as they come; None where nothing in it can be."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    convolves = any(n.op_type == "Conv" for n in raw.graph.node)
    tables = {t.name for t in raw.graph.initializer if np.prod(t.dims) < LARGE_TABLE}
    small = [n.name for n in raw.graph.node if n.op_type == "Gather" and n.input[0] in tables]
    path = folder / f".{INT8}"
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


def _finish(raw: ModelProto, temperature: float, precision: str, task: Task, schema: Schema) -> bytes:
    """The graph that ships: logits divided by the temperature, probabilities, and what everything is called."""
    from onnx import TensorProto, helper

    model = copy.deepcopy(raw)
    graph = model.graph
    if task.kind != "regression":
        _temper(model, temperature)
        shape = ["batch", task.labels, 2] if task.kind == "multilabel" else ["batch", task.outcomes]
        if task.kind == "multilabel":
            graph.initializer.append(helper.make_tensor("yes", TensorProto.INT64, [], [1]))
            graph.node.append(helper.make_node("Softmax", ["logits"], ["both"], axis=-1))
            graph.node.append(helper.make_node("Gather", ["both", "yes"], ["probabilities"], axis=-1))
        else:
            graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
        graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape[:2]))
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


# ── one file of the folder ────────────────────────────────────────────────────────────────────────────────────────────


def _ship(
    raw: ModelProto,
    name: str,
    folder: Path,
    precision: Literal["float32", "int8"],
    own: np.ndarray,
    rows: Batch,
    data: Data,
    task: Task,
    notes: list[str],
) -> File:
    """Fit the temperature on this graph's answers, write it, and measure its parity."""
    temperature = 1.0
    if task.kind != "regression":
        temperature = _temperature(raw, data, task, notes)
    content = _finish(raw, temperature, precision, task, data.schema)
    _write(folder / name, content)
    answer = _ask(content, _named(rows), task) * temperature
    _need_finite(answer, name)
    return File(precision, len(content), temperature, _parity(answer, own, task), digest_file(folder / name))


def _try_int8(
    raw: ModelProto, folder: Path, own: np.ndarray, rows: Batch, data: Data, task: Task, notes: list[str], *, needed: bool
) -> File | None:
    """The int8 file; where there cannot be one, None and a note, or ExportError if it is the one to deploy."""
    with _quiet():
        quantised = _int8(raw, folder)
    why = "nothing in this graph can be quantised dynamically"
    if quantised is not None:
        try:
            return _ship(quantised, INT8, folder, "int8", own, rows, data, task, notes)
        except (ExportError, TeacherError) as error:
            why = error.message
            (folder / INT8).unlink(missing_ok=True)
    if needed:
        raise ExportError(f"no int8 graph: {why}", hint='deploy="float"')
    notes.append(f"no {INT8}: {why}")
    return None


def _company(path: Path, rows: Batch, temperature: float) -> str:
    """A sentence on how much an int8 answer depends on the rows asked with it: its activations share one scale."""
    session = open_graph(path.read_bytes(), 1, path)
    named = {n: a[:HOLES] for n, a in _named(rows).items()}
    output = session.get_outputs()[0].name
    together = np.asarray(session.run([output], named)[0])
    alone = [np.asarray(session.run([output], {n: a[i : i + 1] for n, a in named.items()})[0]) for i in range(len(together))]
    most = float(np.abs(np.concatenate(alone) - together).max()) * temperature
    return f"{INT8}: activations are scaled by call, so that a row's raw logits move by up to {most:.2g} with the rows asked beside it"


def _temperature(raw: ModelProto, data: Data, task: Task, notes: list[str]) -> float:
    """The temperature that suits the validation labels best on this graph's answers; 1 where there are none, and a note."""
    valid = data.valid
    known = None if valid.labels is None else task.known(valid.labels)
    if valid.labels is None or known is None or not bool(known.any()):
        if (note := "no validation row has a label: the temperature is 1, probabilities are as the student says them") not in notes:
            notes.append(note)
        return 1.0
    pieces = torch.arange(len(valid)).split(1024)
    session = open_graph(raw.SerializeToString(), 1, FLOAT)
    answers = [np.asarray(session.run(["logits"], _named(valid.batch(index)))[0]) for index in pieces]
    logits = np.concatenate(answers)
    labels = torch.where(known, valid.labels, -1).numpy()
    _need_finite(logits, "the graph on validation rows")
    weight = None
    if valid.weight is not None:
        weight = np.broadcast_to(valid.weight.numpy().reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
    return float(np.float32(fit_temperature(logits, labels, weight)))


def _parity(answer: np.ndarray, own: np.ndarray, task: Task) -> Parity:
    difference = np.abs(answer.astype(np.float64) - own)
    scale = max(1.0, float(np.abs(own).max()))
    if task.kind == "regression":
        same = difference <= TOLERANCE * scale
    else:
        same = (task.decide(torch.from_numpy(answer)) == task.decide(torch.from_numpy(own))).numpy()
    return Parity(len(own), float(difference.max()), float(difference.mean()), scale, float(same.mean()))


def _check_whole(folder: Path, own: np.ndarray, rows: Batch, files: Mapping[str, File]) -> None:
    """Read the finished folder as anybody will, one row by itself included: what is checked is what ships."""
    for name, file in files.items():
        source = Onnx(str(folder / name))
        both = source(rows).output.numpy() * file.temperature
        first = source(_take(rows, slice(0, 1))).output.numpy() * file.temperature
        bound = (TOLERANCE + (file.parity.max_difference / file.parity.scale)) * file.parity.scale
        # int8 scales activations by the whole batch, so that one row alone differs a little from the same row in company
        if np.abs(both - own).max() > bound or (file.precision == "float32" and np.abs(first - own[:1]).max() > bound):
            raise ExportError(f"{name}, read back from the folder, answers otherwise than before", hint="the answer depends on the batch")


# ── the folder ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _describe(
    folder: Path, model: nn.Module, schema: Schema, task: Task, certified: str, files: Mapping[str, File], notes: Sequence[str]
) -> None:
    """student.json: written last, with a digest of each file and of itself."""
    inputs = []
    if schema.kind == "table":
        if schema.numbers:
            inputs.append({"name": "numbers", "dtype": "float32", "shape": ["batch", len(schema.numbers)]})
        if schema.categories:
            inputs.append({"name": "categories", "dtype": "int64", "shape": ["batch", len(schema.categories)]})
    elif schema.kind == "images":
        inputs.append({"name": "pixels", "dtype": "uint8", "shape": ["batch", *schema.shape]})
    else:
        inputs.append({"name": "inputs", "dtype": "float32", "shape": ["batch", *schema.shape]})
    versions = {n: metadata.version(n) for n in ("attar", "torch", "onnx", "onnxscript", "onnxruntime")}
    manifest = {
        "schema_version": FOLDER_VERSION,
        "certified": certified,
        "task": repr(task),
        "inputs": inputs,
        "outputs": ["prediction"] if task.kind == "regression" else ["logits", "probabilities"],
        "schema": schema_to_json(schema),
        "student": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "files": {name: asdict(file) for name, file in files.items()},
        "tolerance": TOLERANCE,
        "versions": versions | {"python": sys.version.split()[0], "opset": OPSET},
        "notes": list(notes),
    }
    _write(folder / MANIFEST, (json.dumps(seal(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _claim(at: Path) -> None:
    """Refuse a place that holds anything but an exported folder; clear away what a killed export left beside it."""
    if at.exists() and not at.is_dir():
        raise RunError(f"{at} is a file, not a folder", hint="choose another place")
    if at.is_dir() and (other := sorted(p.name for p in at.iterdir() if p.name not in (FLOAT, INT8, MANIFEST))):
        raise RunError(f"{at} holds other things: {', '.join(other[:5])}", hint="export replaces its folder whole: choose an empty place")
    for left in at.parent.glob(f".{at.name}.*.old"):
        if not at.exists() and not _alive(left):
            os.rename(left, at)  # killed between two renames: what was there before is put back
    for left in (*at.parent.glob(f".{at.name}.*.tmp"), *at.parent.glob(f".{at.name}.*.old")):
        if not _alive(left):
            shutil.rmtree(left)


def _alive(left: Path) -> bool:
    """Whether the process that a temporary name carries is still there."""
    pid = left.name.split(".")[-2]
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


@contextmanager
def _folder(at: Path) -> Iterator[Path]:
    """A temporary folder beside `at`; on leaving it is synced and takes the place of `at`. Removed if the block raises."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (at.with_name(f".{at.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if at.exists():
            os.rename(at, old)
        os.rename(temporary, at)
        _sync(at.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parity_rows(data: Data) -> Batch:
    """Validation rows, training rows where these are few, and of a table some rows again with values missing."""
    batch = data.valid.batch(torch.arange(min(len(data.valid), ROWS)))
    if len(batch) < ENOUGH:
        more = data.train.batch(torch.arange(min(len(data.train), ENOUGH - len(batch))))
        batch = Batch(_join(batch.inputs, more.inputs), schema=data.schema)
    if not isinstance(batch.inputs, Tensor):
        batch = Batch(_join(batch.inputs, _with_holes(_take(batch, slice(0, HOLES)).inputs)), schema=data.schema)
    return Batch(batch.inputs, schema=data.schema)


def _with_holes(inputs: Inputs) -> Inputs:
    """The rows with number i mod n and category i mod m missing in row i, and with nothing but missing values in the last."""
    assert not isinstance(inputs, Tensor)
    holed = {}
    for name, block in inputs.items():
        block = block.clone()
        rows = torch.arange(len(block))
        nothing = float("nan") if block.dtype.is_floating_point else 0
        block[rows, rows % block.shape[1]] = nothing
        block[-1] = nothing
        holed[name] = block
    return holed


def _named(batch: Batch) -> dict[str, np.ndarray]:
    """A batch's arrays by the names and in the types of the graph's inputs."""
    if isinstance(batch.inputs, Tensor):
        array = batch.inputs.cpu().numpy()
        return {"pixels": array} if array.dtype == np.uint8 else {"inputs": array.astype(np.float32)}
    types = {"numbers": np.float32, "categories": np.int64}
    return {n: batch.inputs[n].cpu().numpy().astype(t) for n, t in types.items() if n in batch.inputs and batch.inputs[n].shape[1]}


def _take(batch: Batch, rows: slice) -> Batch:
    inputs = batch.inputs
    taken = inputs[rows] if isinstance(inputs, Tensor) else {n: v[rows] for n, v in inputs.items()}
    return replace(batch, inputs=taken)


def _join(a: Inputs, b: Inputs) -> Inputs:
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.cat((a, b))
    assert not isinstance(b, Tensor)
    return {n: torch.cat((a[n], b[n])) for n in a}


def _ask(content: bytes, feeds: Mapping[str, np.ndarray], task: Task) -> np.ndarray:
    return np.asarray(open_graph(content, 1, FLOAT).run([_output(task)], dict(feeds))[0])


def _output(task: Task) -> str:
    return "prediction" if task.kind == "regression" else "logits"


def _need_finite(answer: np.ndarray, who: str) -> None:
    if not np.isfinite(answer).all():
        bad = int((~np.isfinite(answer)).reshape(len(answer), -1).any(1).sum())
        raise ExportError(f"{who} answers {bad} of {len(answer)} rows with NaN or infinity", hint="did its training diverge?")


# ── libraries ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _need_libraries() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise MissingExtra(name, "onnx") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Contain what the exporters say of themselves: through `logging`, and as warnings about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*axis name: batch will not be used", category=UserWarning)
            yield
    finally:
        logging.disable(before)
