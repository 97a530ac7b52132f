"""The folder that ships: the student's graph in float and int8, tempered, checked against the student, and described."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from attar.data import Data, Split
from attar.errors import ExportError, MissingExtra, TeacherError
from attar.files import explain_disk
from attar.guards import Guard, Promise
from attar.identity import digest_file
from attar.progress import Event, Listener, silent
from attar.reading import schema_to_json
from attar.signal import Batch, Source
from attar.sources.onnx import ENERGY, FEATURES, FOLDER_VERSION, MANIFEST, Onnx, bytes_digest, open_graph, seal
from attar.statistics.calibration import fit_temperature
from attar.students.trees import Trees
from attar.task import Task, task_for
from attar.verbs.export.folder import FLOAT, INT8, claim, replacing, write
from attar.verbs.export.fuse import fused
from attar.verbs.export.graph import OPSET, Limits, finished, from_torch, output_name, quantised, quiet, with_features
from attar.verbs.export.guarding import AT_ONCE, Right, Said, promised, right, tried_on
from attar.verbs.export.rows import HOLES, Feed, parity_rows, take
from attar.verbs.export.static import calibration_rows, convolves, quantised_static
from attar.verbs.export.trees import count, from_trees

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Exported", "File", "Parity", "export"]

TOLERANCE = 1e-4  # of the largest difference to the student's own logits, relative to the largest logit or 1


FIXED = f"{INT8}: the scales of activations were fixed on training rows, so that no row's answer depends on those asked beside it"


@dataclass(frozen=True)
class Parity:
    """How an exported graph's raw answers differ from the student's own.

    rows: asked. max_difference, mean_difference: of logits (of a regression's numbers). scale: the largest |logit|, at least 1.
    agreement: share of rows, 0..1, on which both decide alike; of numbers and vectors, the share within the tolerance.
    """

    rows: int
    max_difference: float
    mean_difference: float
    scale: float
    agreement: float


@dataclass(frozen=True)
class File:
    """One graph of the folder: its precision, bytes, the temperature in it, how it was checked, its digest, and what its guard promises."""

    precision: Literal["float32", "int8"]
    bytes: int
    temperature: float
    parity: Parity
    digest: str
    guard: Promise | None = None


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
    guard: Guard | None = None,
    teacher: Source | None = None,
    features: bool = False,
    listen: Listener = silent,
) -> Exported:
    """Write `model` to the folder `at` as student.onnx, student.int8.onnx and student.json; the folder appears whole or not at all.

    The graph takes `numbers` (N, n) float32 and `categories` (N, m) int64, `pixels` (N, C, H, W) uint8, `inputs` (N, ...) float32, or
    of text `input_ids`, `attention_mask` (N, tokens) int64, which the tokenizer beside it makes; for any N. It answers `logits`, already
    divided by a temperature, and `probabilities`; for a regression `prediction` (N, 1), for texts to embed `embeddings` (N, D).
    The temperature suits the labels of the validation rows (`attar.statistics.fit_temperature`), fitted on the answers of each graph
    by itself.

    data: whose schema the folder records, and whose validation rows are used; test rows are never read.
    guard: when the student answers by itself, fitted on each graph's own answers to the validation and calibration rows: the graph answers
        `confidence` (N,) float32 and `answer` (N,) bool as well, with a floor of energy also `energy` (N,) float32, and the folder records
        what is promised. In the folder of a run its manifest counts the guards that were fitted on the same calibration rows, and the
        promise says how many. teacher: whose decisions these rows have, where the guard is about them; its stored answers will do.
    deploy: which graph a reader of the folder asks. The other lies beside it, where it can be made.
    features: the graphs answer `features` (N, D) as well, what the last linear layer reads; by them foreign inputs can be told. It adds
        no node and changes no other answer, but is one more array to hand over. Trees, and nets whose answers no one linear
        layer makes, have none: a note says so.
    An exported folder at `at` is replaced. The model is not changed, and may be on any device.
    Raises ExportError where the graph cannot be written or differs from the model, EvidenceError for a guard that does not fit the task or
    the student, RunError where `at` holds other things, DiskFull.
    """
    _need_libraries()
    at = Path(at)
    task = (task or task_for(data.schema, data.kind)).bind(data.schema)
    if deploy not in ("float", "int8"):
        raise ExportError(f"deploy={deploy!r}", hint='"float" or "int8"')
    claim(at)
    target = None if guard is None else right(guard, teacher, data, task)
    rows = parity_rows(data)
    listen(Event("export", text="writing the graph"))
    with quiet():
        raw, own = from_trees(model, rows, task) if isinstance(model, Trees) else from_torch(model, rows, task)
    _need_finite(own, "the student itself")
    if guard is not None:
        guard.check_energy(own)
    seen = with_features(raw, output_name(task)) if features else None
    notes = ["no features: no one linear layer makes this student's answers"] if features and seen is None else []
    raw = seen or raw
    with explain_disk(at), replacing(at) as folder:
        tried = 1 if guard is None else tried_on(data.calibration, guard, own, at.parent / "manifest.json")
        shipping = _Shipping(folder, data, task, rows, own, Feed.of(model), target, notes, tried)
        files = {FLOAT: shipping.ship(raw, FLOAT, "float32")}
        if (drift := files[FLOAT].parity).max_difference > TOLERANCE * drift.scale:
            raise ExportError(
                f"the graph differs from the student by {drift.max_difference:.3g} on {drift.rows} rows "
                f"(logits up to {drift.scale:.3g}, tolerance {TOLERANCE:g})",
                hint="does the student's forward depend on randomness, on the batch or on its size?",
            )
        listen(Event("export", text=f"{FLOAT}: differs by {drift.max_difference:.1e}, temperature {files[FLOAT].temperature:.3g}"))
        if (int8 := shipping.try_int8(raw, needed=deploy == "int8")) is not None:
            files[INT8] = int8
            decides = task.kind in ("classification", "multilabel")
            like = f"agrees on {int8.parity.agreement:.2%}" if decides else f"differs by {int8.parity.max_difference:.2g}"
            listen(Event("export", text=f"{INT8}: {like}, temperature {int8.temperature:.3g}"))
        certified = INT8 if deploy == "int8" else FLOAT
        if (promise := files[certified].guard) is not None:
            listen(Event("export", text=f"guard: {promise.sentence}"))
        parameters = count(raw) if isinstance(model, Trees) else sum(p.numel() for p in model.parameters())
        _describe(shipping, type(model).__name__, parameters, certified, files, [FEATURES] if seen is not None else [])
        _check_whole(shipping, files)
    return Exported(at, certified, files, tuple(shipping.notes))


@dataclass(frozen=True)
class _Shipping:
    """What every file of one folder is made with.

    own: the student's own answers to `rows`, (R, C) or (R, L, 2). target: of a guard. tried: how many guards met these calibration rows.
    """

    folder: Path
    data: Data
    task: Task
    rows: Batch
    own: np.ndarray
    feed: Feed
    target: Right | None = None
    notes: list[str] = field(default_factory=list)
    tried: int = 1

    def ship(self, raw: ModelProto, name: str, precision: Literal["float32", "int8"]) -> File:
        """Fit the temperature on this graph's answers, write it, and measure its parity."""
        raw = fused(raw)
        temperature = self._temperature(raw)
        promise = self._promise(raw, temperature)
        limits = None if promise is None else Limits(promise.limits, promise.cut, promise.floor)
        content = finished(raw, temperature, precision, self.task, self.data.schema, limits)
        write(self.folder / name, content)
        answer = self._ask(content, [self.rows]) * temperature
        _need_finite(answer, name)
        return File(precision, len(content), temperature, self._parity(answer), digest_file(self.folder / name), promise)

    def try_int8(self, raw: ModelProto, *, needed: bool) -> File | None:
        """The int8 file; where there cannot be one, None and a note, or ExportError if it is the one to deploy."""
        fixed = self.data.schema.kind in ("images", "tensor") and convolves(raw)
        with quiet():
            small = quantised_static(raw, calibration_rows(self.data, self.feed), self.folder) if fixed else quantised(raw, self.folder)
        why = "nothing in this graph can be quantised"
        if small is not None:
            try:
                file = self.ship(small, INT8, "int8")
                self.notes.append(FIXED if fixed else self._company(file.temperature))
                return file
            except (ExportError, TeacherError) as error:
                why = error.message
                (self.folder / INT8).unlink(missing_ok=True)
        if needed:
            raise ExportError(f"no int8 graph: {why}", hint='deploy="float"')
        self.notes.append(f"no {INT8}: {why}")
        return None

    def _temperature(self, raw: ModelProto) -> float:
        """The temperature that suits the validation labels best on this graph's answers; 1 where there are none, and a note."""
        valid, task = self.data.valid, self.task
        if task.kind in ("regression", "embedding"):
            return 1.0
        if valid.labels is None or not bool((known := task.known(valid.labels)).any()):
            note = "no validation row has a label: the temperature is 1, probabilities are as the student says them"
            if note not in self.notes:
                self.notes.append(note)
            return 1.0
        logits = self._ask(raw.SerializeToString(), (valid.batch(index) for index in torch.arange(len(valid)).split(4096)))
        labels = torch.where(known, valid.labels, -1).numpy()
        _need_finite(logits, "the graph on validation rows")
        weight = None
        if valid.weight is not None:
            weight = np.broadcast_to(valid.weight.numpy().reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
        return float(np.float32(fit_temperature(logits, labels, weight)))

    def _promise(self, raw: ModelProto, temperature: float) -> Promise | None:
        """What the guard finds for this graph, by what the graph itself says of its confidence."""
        if self.target is None:
            return None

        floored = self.target.guard.energy is not None
        names = ("logits", "confidence", *((ENERGY,) if floored else ()))

        def ask(cut: float | None, split: Split) -> Said:
            nobody = Limits(np.full(self.task.outcomes, np.inf, np.float32), cut, -np.inf if floored else None)
            content = finished(raw, temperature, "float32", self.task, self.data.schema, nobody)
            batches = (split.batch(index) for index in torch.arange(len(split)).split(AT_ONCE) if len(index))
            logits, *rest = self._ask_for(names, content, batches)
            return Said(logits if len(split) else np.zeros((0, self.task.outcomes), np.float32), *rest)

        return replace(promised(self.target, ask, self.data, self.task), tried=self.tried)

    def _ask(self, content: bytes, batches: Iterable[Batch]) -> np.ndarray:
        """A graph's answers to rows, one after the other."""
        return self._ask_for((output_name(self.task),), content, batches)[0]

    def _ask_for(self, names: Sequence[str], content: bytes, batches: Iterable[Batch]) -> list[np.ndarray]:
        """Several outputs of a graph for rows, one after the other."""
        session, feed = open_graph(content, 1, FLOAT), self.feed
        found: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] for _ in names]
        for batch in batches:
            order = feed.pieces(batch)
            parts = [take(batch, piece) for piece in order]
            answers = [session.run(list(names), feed.arrays(part)) for part in parts]
            for i, pieces in enumerate(found):
                ready = [feed.answers(np.asarray(answer[i]), part) for answer, part in zip(answers, parts, strict=True)]
                pieces.append(np.concatenate(ready)[torch.cat(order).argsort().numpy()])
        return [np.concatenate(pieces[1:] or pieces) for pieces in found]

    def _parity(self, answer: np.ndarray) -> Parity:
        difference = np.abs(answer.astype(np.float64) - self.own)
        scale = max(1.0, float(np.abs(self.own).max()))
        if self.task.kind in ("regression", "embedding"):
            same = difference <= TOLERANCE * scale
        else:
            same = (self.task.decide(torch.from_numpy(answer)) == self.task.decide(torch.from_numpy(self.own))).numpy()
        return Parity(len(self.own), float(difference.max()), float(difference.mean()), scale, float(same.mean()))

    def _company(self, temperature: float) -> str:
        """A sentence on how much an int8 answer depends on the rows asked with it: its activations share one scale."""
        content = (self.folder / INT8).read_bytes()
        some = take(self.rows, slice(0, HOLES))
        together = self._ask(content, [some])
        alone = [self._ask(content, [take(some, slice(i, i + 1)) for i in range(len(together))])]
        most = float(np.abs(np.concatenate(alone) - together).max()) * temperature
        fitted = "" if self.target is None else f", and its confidence with it; the guard was fitted on calls of up to {AT_ONCE:,} rows"
        moves = f"a row's raw answer moves by up to {most:.2g} with the rows asked beside it"
        return f"{INT8}: activations are scaled by call, so that {moves}{fitted}"


def _check_whole(shipping: _Shipping, files: Mapping[str, File]) -> None:
    """Read the finished folder as anybody will, one row by itself included: what is checked is what ships."""
    for name, file in files.items():
        source = Onnx(str(shipping.folder / name))
        together = source(shipping.rows).output.numpy() * file.temperature
        first = source(take(shipping.rows, slice(0, 1))).output.numpy() * file.temperature
        bound = TOLERANCE * file.parity.scale + file.parity.max_difference
        apart = file.precision == "float32" and np.abs(first - shipping.own[:1]).max() > bound  # of int8 `_company` tells
        if apart or np.abs(together - shipping.own).max() > bound:
            raise ExportError(f"{name}, read back from the folder, answers otherwise than before", hint="the answer depends on the batch")


# ── the folder ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _describe(shipping: _Shipping, student: str, parameters: int, certified: str, files: Mapping[str, File], more: Sequence[str]) -> None:
    """student.json: written last, with a digest of each file and of itself. more: outputs beside the answers."""
    schema, task = shipping.data.schema, shipping.task
    inputs = []
    if schema.kind == "table":
        if schema.numbers:
            inputs.append({"name": "numbers", "dtype": "float32", "shape": ["batch", len(schema.numbers)]})
        if schema.categories:
            inputs.append({"name": "categories", "dtype": "int64", "shape": ["batch", len(schema.categories)]})
    elif schema.kind == "images":
        inputs.append({"name": "pixels", "dtype": "uint8", "shape": ["batch", *schema.shape]})
    elif shipping.feed.text is not None:
        inputs += [{"name": n, "dtype": "int64", "shape": ["batch", "tokens"]} for n in shipping.feed.text.reading.names]
    else:
        inputs.append({"name": "inputs", "dtype": "float32", "shape": ["batch", *schema.shape]})
    text = shipping.feed.text
    beside = {} if text is None else text.reading.files()
    for name, content in beside.items():
        write(shipping.folder / name, content)
    versions = {n: metadata.version(n) for n in ("attar", "torch", "onnx", "onnxscript", "onnxruntime")}
    manifest = {
        "schema_version": FOLDER_VERSION,
        "certified": certified,
        "task": repr(task),
        "inputs": inputs,
        "outputs": [*_outputs(shipping), *more],
        "text": None if text is None else text.to_json(),
        "beside": {name: bytes_digest(content) for name, content in beside.items()},
        "schema": schema_to_json(schema),
        "student": student,
        "parameters": parameters,
        "files": {name: asdict(file) for name, file in files.items()},
        "tolerance": TOLERANCE,
        "versions": versions | {"python": sys.version.split()[0], "opset": OPSET},
        "notes": shipping.notes,
    }
    write(shipping.folder / MANIFEST, (json.dumps(seal(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _outputs(shipping: _Shipping) -> list[str]:
    if shipping.task.kind in ("regression", "embedding"):
        return [output_name(shipping.task)]
    if shipping.target is None:
        return ["logits", "probabilities"]
    return ["logits", "probabilities", *(() if shipping.target.guard.energy is None else (ENERGY,)), "confidence", "answer"]


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
