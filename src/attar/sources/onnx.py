"""A source that answers from an ONNX file: an exported student's folder, or any classifier's graph."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from attar.errors import MissingExtra, TeacherError, TrustError, near
from attar.guards import Promise
from attar.identity import digest
from attar.notation import InPath, located, say
from attar.reading import Reading, TextFeed, Tokens, schema_from_json
from attar.reading.text import AT_ONCE, TOKENIZER
from attar.signal import NOTHING, Batch, Schema, Signal, Texts
from attar.sources.answers import FLOOR, as_logits, checked, no_taps, order_of, take
from attar.sources.cascade import Guarded

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto
    from onnxruntime import InferenceSession

__all__ = ["ENERGY", "FEATURES", "FOLDER_VERSION", "MANIFEST", "Onnx", "bytes_digest", "onnx", "open_graph", "read_manifest", "seal"]

MANIFEST = "student.json"
FOLDER_VERSION = 2  # of student.json; raised when its meaning changes; one without a guard says nothing of it
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # operators that ONNX Runtime itself brings
FEATURES = "features"  # an output beside the answer: what the last linear layer reads, (N, D), which is the tap `embedding`
TAP = frozenset({"embedding"})
NUMBERS = ("prediction", "embeddings")  # outputs of an exported student that are no logits
GUARD = ("confidence", "answer")  # outputs of one with a guard
ENERGY = "energy"  # a third of one whose guard has a floor of it
PROBE = 64  # rows that tell probabilities from logits

Form = Literal["logits", "probabilities", "chances", "numbers"]


def onnx(
    path: InPath,
    classes: list[str] | None = None,
    output: str | None = None,
    threads: int = 1,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    tokenizer: InPath | None = None,
    max_length: int = 128,
) -> Onnx:
    """The source that answers from `path`: a folder written by `export`, one of its files, or any ONNX classifier.

    An exported folder answers by its certified file, tempered; it knows its columns, categories and classes, maps those of the data
    to them by name, and refuses a table with others. Any other graph takes one matrix of numbers, or images, as its one input.

    classes: names of the graph's outcomes in its own order; by default those it carries, else the order of the data's.
    output: name of the output that answers, where a graph has several; probabilities and logits are told apart by what it answers.
    threads: of ONNX Runtime.
    mean, std: by channel, in units of 0..1: a graph that takes float images gets (pixel / 255 − mean) / std.
    tokenizer: of a graph that takes tokens: a tokenizer.json, or a folder that has one; an exported folder brings its own. max_length:
        of its rows in tokens. Where such a graph answers states of tokens, (N, L, D), their mean over real tokens is the answer.
    Raises TeacherError for a damaged file, TrustError for custom operators or data outside the folder, MissingExtra.

    Probabilities become log p, floored at p = 1e-7. Reads no gradient. Of a graph with an output `features` (N, D) that is the tap
    `embedding`, what the last linear layer reads; there are no other taps.
    """
    named = None if classes is None else tuple(classes)
    where = None if tokenizer is None else str(tokenizer)
    return Onnx(str(path), classes=named, output=output, threads=threads, mean=mean, std=std, tokenizer=where, max_length=max_length)


class Onnx:
    """See `onnx`.

    manifest: what student.json says; None for a graph from elsewhere.
    temperature: by which the raw logits were divided; 1 where nobody did. file: the graph that answers.
    size_bytes: of the graph with its data. parameters: as the manifest says, else the floats it holds; None for trees.
    """

    def __init__(
        self,
        path: str,
        *,
        classes: tuple[str, ...] | None = None,
        output: str | None = None,
        threads: int = 1,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        tokenizer: str | None = None,
        max_length: int = 128,
    ) -> None:
        counted = {"threads": None if threads == 1 else threads, "max_length": None if tokenizer is None else max_length}
        self._said = say("onnx", path, classes=classes, output=output, mean=mean, std=std, tokenizer=tokenizer, **counted)
        self.threads = threads
        self.file, self.manifest = _find(located(path))
        content = self.file.read_bytes()
        self.temperature, self.reading = 1.0, None
        if self.manifest is not None:
            entry = self.manifest["files"][self.file.name]
            self.temperature = float(entry["temperature"])
            self.reading = Reading(schema_from_json(self.manifest["schema"]), f"the student of {self.file.parent.name or path}")
        graph = _Graph.read(content, self.file)
        self._graph = graph
        self._text: TextFeed | None = None
        if self.manifest is not None and self.manifest["text"] is not None:
            self._text = TextFeed.from_json(self.manifest["text"], self.file.parent)
        self._tokens: Tokens | None = None if tokenizer is None else _tokens(located(tokenizer), max_length, graph.inputs)
        self._session: InferenceSession | None = None
        self._pid = -1
        beside = 0 if self._text is None else sum(map(len, self._text.reading.files().values()))
        self.size_bytes = len(content) + graph.external_bytes + beside
        self.parameters: int | None = self.manifest["parameters"] if self.manifest is not None else graph.parameters
        self.fingerprint = graph.digest
        if self.manifest is None:
            read = None if self._tokens is None else self._tokens.fingerprint
            self.fingerprint = digest("onnx", graph.digest, list(classes or ()), output, mean, std, read)
        self.classes = classes or (self.reading.schema.classes if self.reading is not None else graph.classes)
        self._explicit = classes is not None
        self._checked: Schema | None = None
        self._pixels = None if mean is None and std is None else (mean or [0.0], std or [1.0])
        self.output = self._choose_output(output)
        self._form: Form | None = None if self.manifest is None else "numbers" if self.output in NUMBERS else "logits"

    def __repr__(self) -> str:
        return self._said

    training_ids = None  # of a graph nobody knows

    @property
    def _who(self) -> str:
        return f"onnx {self.file.name}"

    @property
    def session(self) -> InferenceSession:
        """The session of ONNX Runtime; opened anew in a forked process, for its threads do not survive a fork."""
        if self._session is None or self._pid != os.getpid():
            self._session, self._pid = open_graph(self._graph.content, self.threads, self.file), os.getpid()
        return self._session

    def on(self, threads: int) -> Onnx:
        """The same graph, answering on so many threads."""
        other = copy.copy(self)
        other.threads, other._session, other._pid = threads, None, -1
        return other

    def check(self, schema: Schema) -> None:
        """Raise TeacherError before work starts if rows of `schema` cannot be answered: columns, shapes or classes differ."""
        if self.reading is not None:
            self.reading.check(schema)
            return
        if schema.kind == "text":
            if self._tokens is None:
                raise TeacherError(f"{self.file.name} is given texts", hint='tokenizer="folder" says how it reads them')
            self._order(schema)
            return
        inputs = {i.name: i for i in self.session.get_inputs()}
        if schema.kind == "table":
            wanted = {n for n, columns in (("numbers", schema.numbers), ("categories", schema.categories)) if columns}
            if set(inputs) != wanted and (len(inputs) != 1 or schema.categories):
                raise TeacherError(
                    f"{self.file.name} takes the inputs {_some(inputs)}; the table has {len(schema.numbers)} columns of numbers "
                    f"and {len(schema.categories)} of categories",
                    hint="a graph takes one matrix of numbers, or `numbers` and `categories`; wrap anything else with estimator()",
                )
            if len(inputs) == 1 and schema.numbers:
                self._check_shape(next(iter(inputs.values())), (len(schema.numbers),))
        else:
            if len(inputs) != 1:
                raise TeacherError(f"{self.file.name} takes the inputs {_some(inputs)}; {schema.kind} are one input")
            self._check_shape(next(iter(inputs.values())), schema.shape)
        self._order(schema)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        """The logits of a batch, (B, C) float32, outcomes in the order of the data's classes; of a regression the number (B, 1)."""
        if taps == TAP and any(output.name == FEATURES for output in self.session.get_outputs()):
            return replace(self(batch), taps={tap: self._features(batch) for tap in taps})
        no_taps(taps, self._who)
        if (feed := self._feed(batch)) is not None:
            return self._read_texts(feed, batch)
        feeds = self._feeds(batch)
        form = self._form or self._probe(feeds, batch.schema)
        raw = checked(self._run(feeds, len(batch)), self._who)
        output = _logits(torch.from_numpy(np.ascontiguousarray(raw, dtype=np.float32)), form)
        if self.reading is not None:
            return Signal(as_logits(self.reading.output(output, batch.schema), batch, self._who))
        return Signal(as_logits(output, batch, self._who, None if form == "numbers" else self._order(batch.schema)))

    @property
    def promise(self) -> Promise:
        """What the guard of this graph promises. Raises TeacherError where there is none."""
        entry = None if self.manifest is None else self.manifest["files"][self.file.name].get("guard")
        if entry is None:
            where = (
                f"{self.file} has no guard"
                if self.manifest is not None
                else f"{self.file} is no file of an exported folder: it has no guard"
            )
            raise TeacherError(where, hint="export it with one: guard: guard(epsilon=0.05) in the recipe, or export(…, guard=guard())")
        return Promise.from_json(entry)

    def guarded(self, batch: Batch) -> Guarded:
        """The logits of a batch, how sure the graph is of each row, and whether it answers it. Raises TeacherError without a guard."""
        names = (self.output, *GUARD, *(() if self.promise.floor is None else (ENERGY,)))
        feed = self._feed(batch)
        assert self.reading is not None  # what promises is an exported folder
        if feed is None:
            raw = [torch.from_numpy(a) for a in self._answers(self._feeds(batch), names)]
        else:
            self.reading.inputs(batch)
            pieces = feed.pieces(batch.inputs)
            parts = [self._answers(feed.arrays(take(batch, piece).inputs), names) for piece in pieces]
            order = torch.cat(pieces).argsort()
            raw = [torch.from_numpy(np.concatenate(each))[order] for each in zip(*parts, strict=True)]
        checked(raw[0].numpy(), self._who)
        output = as_logits(self.reading.output(raw[0], batch.schema), batch, self._who)
        mine, data = self.reading.schema.classes, None if batch.schema is None else batch.schema.classes
        positive = data.index(mine[1]) if data is not None and len(mine) == len(data) == 2 else 1
        return Guarded(output, raw[1], raw[2], positive, raw[3] if len(raw) > len(GUARD) + 1 else None)

    def prepare_guarded(self, batch: Batch) -> Callable[[], Any]:
        """As `prepare`, for all that `guarded` answers."""
        _ = self.promise
        names = [self.output, *GUARD]
        if (feed := self._feed(batch)) is not None:
            return lambda: [self._answers(feed.arrays(take(batch, piece).inputs, keep=False), names) for piece in feed.pieces(batch.inputs)]
        return partial(self.session.run, names, self._feeds(batch))

    def _features(self, batch: Batch) -> Tensor:
        """(B, D), of the same session with its other output."""
        inside = copy.copy(self)
        inside.output = FEATURES
        if (feed := self._feed(batch)) is not None:
            return inside._answer_texts(feed, batch)
        return torch.from_numpy(inside._run(self._feeds(batch), len(batch)))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The bare call of the runtime on arrays that lie ready: what a deployment pays per call; of text, tokenising is part of it."""
        if (feed := self._feed(batch)) is not None:
            return partial(self._answer_texts, feed, batch, keep=False)
        feeds = self._feeds(batch)
        session = self.session
        step = self._fixed_rows()
        if step is not None and step != len(batch):
            return partial(self._run, feeds, len(batch))
        return partial(session.run, [self.output], feeds)

    def _feed(self, batch: Batch) -> TextFeed | None:
        """How the texts of a batch are read; None where they are no texts."""
        if self._text is not None:
            return self._text
        if isinstance(batch.inputs, Tensor) or not any(isinstance(block, Texts) for block in batch.inputs.values()):
            return None
        if batch.schema is not None:
            self.check(batch.schema)
        if self._tokens is None:
            raise TeacherError(f"{self.file.name} is given texts", hint='tokenizer="folder" says how it reads them')
        names = tuple(batch.inputs) if batch.schema is None else batch.schema.texts
        return TextFeed(self._tokens, names, batch.schema is not None and batch.schema.embeds)

    def _read_texts(self, feed: TextFeed, batch: Batch) -> Signal:
        if self.reading is not None:
            self.reading.inputs(batch)  # refuses other texts than it was made for
        output = self._answer_texts(feed, batch)
        checked(output.numpy(), self._who)
        if self.reading is not None:
            output = self.reading.output(output, batch.schema)
            return Signal(as_logits(output, batch, self._who))
        return Signal(as_logits(output, batch, self._who, self._order(batch.schema)))

    def _answer_texts(self, feed: TextFeed, batch: Batch, *, keep: bool = True) -> Tensor:
        """Many rows by pieces of like length, so that little is padded."""
        if len(batch) <= AT_ONCE:
            return self._answer_piece(feed, batch, keep=keep)
        pieces = feed.pieces(batch.inputs)
        return torch.cat([self._answer_piece(feed, take(batch, piece), keep=keep) for piece in pieces])[torch.cat(pieces).argsort()]

    def _answer_piece(self, feed: TextFeed, batch: Batch, *, keep: bool) -> Tensor:
        arrays = feed.arrays(batch.inputs, keep=keep)
        nothing = not len(next(iter(arrays.values())))  # rows without any text: one is asked for, to know how wide an answer is
        answer = torch.from_numpy(self._answer(feed.reading.arrays([("",)]) if nothing else arrays))
        if nothing:
            return feed.spread(answer[:0], batch.inputs)
        if self._tokens is not None and answer.ndim == 3:
            real = torch.from_numpy(arrays["attention_mask"]).unsqueeze(-1)
            answer = (answer * real).sum(1) / real.sum(1).clamp(min=1)
        return feed.spread(answer, batch.inputs)

    def _feeds(self, batch: Batch) -> dict[str, np.ndarray]:
        """The arrays of a batch by input name, in the types that the graph takes."""
        specs = self.session.get_inputs()
        if self.reading is None and batch.schema is not None and batch.schema is not self._checked:
            self.check(batch.schema)
            self._checked = batch.schema
        inputs = self.reading.inputs(batch) if self.reading is not None else batch.inputs
        if isinstance(inputs, Tensor):
            array = inputs.detach().cpu().numpy()
            if len(specs) != 1:
                raise TeacherError(f"{self.file.name} takes the inputs {_some([s.name for s in specs])}, got one tensor")
            dtype = _DTYPES.get(specs[0].type, np.float32)
            if array.dtype == np.uint8 and np.issubdtype(dtype, np.floating):
                array = self._scaled(array)
            return {specs[0].name: np.ascontiguousarray(array, dtype=dtype)}
        by_name = {name: value.detach().cpu().numpy() for name, value in inputs.items()}
        if len(specs) == 1 and specs[0].name not in by_name and set(by_name) == {"numbers"}:
            by_name = {specs[0].name: by_name["numbers"]}
        if set(by_name) != {s.name for s in specs}:
            raise TeacherError(f"{self.file.name} takes the inputs {_some([s.name for s in specs])}, got {_some(by_name)}")
        return {s.name: np.ascontiguousarray(by_name[s.name], dtype=_DTYPES.get(s.type, np.float32)) for s in specs}

    def _scaled(self, pixels: np.ndarray) -> np.ndarray:
        scaled = pixels.astype(np.float32) / 255
        if self._pixels is None:
            return scaled
        mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in self._pixels)
        if max(mean.size, std.size) not in (1, pixels.shape[1]):
            raise TeacherError(f"mean and std of {max(mean.size, std.size)} channels, the images have {pixels.shape[1]}")
        return (scaled - mean) / std

    def _run(self, feeds: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        step = self._fixed_rows()
        if step is None or rows == step:
            return self._answer(feeds)
        pieces = []
        for start in range(0, rows, step):
            piece = {n: a[start : start + step] for n, a in feeds.items()}
            short = step - min(step, rows - start)
            pieces.append(self._answer({n: np.concatenate([a, a[-1:].repeat(short, 0)]) if short else a for n, a in piece.items()}))
        return np.concatenate(pieces)[:rows]

    def _answer(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        return self._answers(feeds, (self.output,))[0]

    def _answers(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        """Outputs of the graph by their names."""
        try:
            return [np.asarray(answer) for answer in self.session.run(list(names), dict(feeds))]
        except _runtime_errors() as error:
            shapes = ", ".join(f"{n} {a.dtype} {a.shape}" for n, a in feeds.items())
            raise TeacherError(f"{self.file.name} does not answer ({shapes}): {_first_line(error)}") from error

    def _fixed_rows(self) -> int | None:
        first = self.session.get_inputs()[0].shape
        return first[0] if first and isinstance(first[0], int) else None

    def _choose_output(self, wanted: str | None) -> str:
        there = {o.name: o.type for o in self.session.get_outputs()}
        usable = [n for n, kind in there.items() if kind in ("tensor(float)", "tensor(double)", "tensor(float16)")]
        if wanted is not None:
            if wanted not in usable:
                raise TeacherError(f"{self.file.name} has no output {wanted!r} of numbers", hint=near(wanted, usable))
            return wanted
        for name in (lambda n: n in ("logits", *NUMBERS), lambda n: "logit" in n.lower(), lambda n: "prob" in n.lower()):
            if found := [n for n in usable if name(n)]:
                return found[0]
        if len(usable) != 1:
            raise TeacherError(
                f"{self.file.name} has {len(usable)} outputs of numbers: {_some(usable or there)}", hint='choose one with output="…"'
            )
        return usable[0]

    def _probe(self, feeds: Mapping[str, np.ndarray], schema: Schema | None) -> Form:
        """What the output holds, by what it says to random rows, once: never by the data, so that no batch changes the meaning."""
        if (schema is not None and not schema.classes) or (schema is None and not self.classes and self.output == "prediction"):
            self._form = "numbers"
            return "numbers"
        random = np.random.default_rng(0)
        rows = {}
        for name, array in feeds.items():
            shape = (PROBE, *array.shape[1:])
            whole = np.issubdtype(array.dtype, np.integer)
            rows[name] = random.integers(0, 2, shape).astype(array.dtype) if whole else random.normal(size=shape).astype(array.dtype)
        p = self._run(rows, PROBE)
        inside = np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1 + 1e-5
        several = p.ndim == 2 and p.shape[1] > 1
        if inside and several and np.allclose(p.sum(1), 1, atol=1e-3):
            self._form = "probabilities"
        else:
            self._form = "chances" if inside else "logits"
        return self._form

    def _order(self, schema: Schema | None) -> Tensor | None:
        """(C,) which of the graph's outcomes each of the data's classes is; None where alike, or where the graph names none."""
        mine = self.classes
        if not mine or schema is None or not schema.classes or mine == schema.classes:
            return None
        if not self._explicit and mine == tuple(str(i) for i in range(len(schema.classes))):
            return None  # a graph that numbers its classes means their order
        return order_of(mine, schema, self._who)

    def _check_shape(self, spec: Any, shape: tuple[int, ...]) -> None:
        there = spec.shape[1:] if spec.shape else []
        if len(there) != len(shape) or any(isinstance(a, int) and a != b for a, b in zip(there, shape, strict=True)):
            raise TeacherError(f"{self.file.name} takes {spec.name} of shape {tuple(spec.shape)}; a row of the data has shape {shape}")


@dataclass(frozen=True)
class _Graph:
    """A graph found harmless, ready to open."""

    content: bytes
    digest: str
    classes: tuple[str, ...]
    parameters: int | None
    external_bytes: int
    inputs: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes, file: Path) -> _Graph:
        try:
            import onnx as library
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise MissingExtra("onnx", "onnx") from error
        try:
            model = library.load_model_from_string(content)
        except DecodeError as error:
            raise TeacherError(f"{file} is not an ONNX file, or a damaged one", hint="copy or export it again") from error
        _refuse_foreign_operators(model, file)
        parts = [bytes_digest(content)]
        external = 0
        if places := _external_files(model, file):
            for place in places:
                external += place.stat().st_size
                parts.append(bytes_digest(place.read_bytes()))
            library.load_external_data_for_model(model, str(file.parent))
        classes = _class_names(model)
        if _drop_zipmap(model) or places:
            content = model.SerializeToString()
        inputs = tuple(i.name for i in model.graph.input)
        mark = parts[0] if len(parts) == 1 else digest(*parts)
        return cls(content, mark, classes, _parameters(model), external, inputs)


def _tokens(path: Path, max_length: int, inputs: tuple[str, ...]) -> Tokens:
    """The tokenizer at a path, for a graph that takes these inputs."""
    file = path / TOKENIZER if path.is_dir() else path
    known = ("input_ids", "attention_mask", "token_type_ids")
    if not {"input_ids", "attention_mask"} <= set(inputs) <= set(known):
        raise TeacherError(f"a tokenizer for a graph that takes {_some(inputs)}", hint=f"it makes {_some(known)}")
    try:
        return Tokens(file.read_text(encoding="utf-8"), max_length, tuple(n for n in known if n in inputs))
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherError(f"no tokenizer at {file}: {error}", hint=f"a {TOKENIZER}, or the folder that has one") from error


def bytes_digest(content: bytes) -> str:
    """The digest of a file's content, as `identity.digest_file` gives it."""
    import hashlib

    return hashlib.blake2b(content, digest_size=16).hexdigest()


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the digest of all the rest of it, as `read_manifest` wants it."""
    rest = {k: v for k, v in manifest.items() if k != "digest"}
    return rest | {"digest": digest(json.dumps(rest, sort_keys=True, ensure_ascii=True))}


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """student.json of an exported folder, once its own digest and those of all its files are found right.

    Raises TeacherError that names the file which is missing, damaged or of another version.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = sorted(p.name for p in folder.glob("*.onnx")) if folder.is_dir() else []
        hint = f"name the file: {folder / there[0]}" if there else "attar export writes such a folder"
        raise TeacherError(f"{folder} is no exported student: it has no {MANIFEST}", hint=hint) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TeacherError(f"{path} does not read: {error}", hint="export again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != FOLDER_VERSION:
        raise TeacherError(f"{path} has schema version {version!r}, this attar reads {FOLDER_VERSION}", hint="export again")
    if seal(manifest)["digest"] != manifest.get("digest"):
        raise TeacherError(f"{path} was changed after export: its digest does not fit", hint="export again")
    digests = {name: entry["digest"] for name, entry in manifest["files"].items()} | manifest["beside"]
    for name, wanted in digests.items():
        if not (folder / name).is_file():
            raise TeacherError(f"{folder / name} is missing", hint="copy the whole folder, or export again")
        if (found := bytes_digest((folder / name).read_bytes())) != wanted:
            raise TeacherError(
                f"{folder / name} was changed after export: digest {found[:12]}…, expected {wanted[:12]}…", hint="export again"
            )
    return manifest


def _find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The graph that `path` means, and the manifest of the exported folder that it lies in, if it does."""
    if path.is_dir():
        manifest = read_manifest(path)
        return path / manifest["certified"], manifest
    if not path.is_file():
        raise TeacherError(f"no such file or folder: {path}", hint=near(path.name, [p.name for p in path.parent.glob("*")]))
    if (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        if path.name in manifest["files"]:
            return path, manifest
    return path, None


_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


def open_graph(content: bytes, threads: int, file: str | Path) -> InferenceSession:
    """A session of ONNX Runtime on the CPU. Raises MissingExtra, TeacherError for a graph that does not open."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; the runtime need not print it too
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        hint = "is it a graph for another version of ONNX Runtime?"
        raise TeacherError(f"{file} cannot be opened: {_first_line(error)}", hint=hint) from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, which share no base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # pyright: ignore[reportAttributeAccessIssue] compiled

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException")
    return (*(getattr(state, n) for n in names), RuntimeError, ValueError)


def _logits(output: Tensor, form: Form) -> Tensor:
    if form == "probabilities":
        return output.clamp_min(FLOOR).log()
    if form == "chances":  # of a yes: (B,), (B, 1) or (B, L)
        p = output.clamp(FLOOR, 1 - FLOOR)
        return p.log() - (-p).log1p()
    return output


def _refuse_foreign_operators(model: ModelProto, file: Path) -> None:
    own = {(f.domain, f.name) for f in model.functions}
    foreign = {f"{n.domain}::{n.op_type}" for n in _nodes(model) if n.domain not in DOMAINS and (n.domain, n.op_type) not in own}
    if foreign:
        raise TrustError(f"{file} uses custom operators: {_some(sorted(foreign))}", hint="export it with standard operators only")


def _external_files(model: ModelProto, file: Path) -> list[Path]:
    """The files beside the graph that hold its weights. Raises TrustError for one outside the folder, TeacherError for a missing one."""
    folder = file.parent.resolve()
    places: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            place = (folder / location).resolve()
            if not location or not place.is_relative_to(folder) or place == folder:
                raise TrustError(
                    f"{file} wants its weights from {location!r}, outside its folder", hint="save it with its weights inside, as one file"
                )
            if not place.is_file():
                raise TeacherError(f"{file} wants its weights from {location!r}, which is missing", hint="copy that file too")
            places[location] = place
    return list(places.values())


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    waiting = [model.graph]
    waiting += [g for f in model.functions for n in f.node for a in n.attribute for g in (a.g, *a.graphs)]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [g for n in graph.node for a in n.attribute for g in (a.g, *a.graphs) if g.node or g.initializer]


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _class_names(model: ModelProto) -> tuple[str, ...]:
    """The classes that a graph names: attar's own metadata, or scikit-learn's ZipMap or tree classifier."""
    for entry in model.metadata_props:
        if entry.key == "attar.classes":
            return tuple(json.loads(entry.value))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
                names = tuple(s.decode() for s in attribute.strings) or tuple(str(i) for i in attribute.ints)
                if names:
                    return names
    return ()


def _drop_zipmap(model: ModelProto) -> bool:
    """Replace an output that is a list of dictionaries by the matrix it is made from; True if there was one."""
    graph = model.graph
    found = [n for n in graph.node if n.op_type == "ZipMap"]
    for node in found:
        for output in graph.output:
            if output.name == node.output[0]:
                output.name = node.input[0]
                output.type.Clear()
                output.type.tensor_type.elem_type = 1  # float
        graph.node.remove(node)
    return bool(found)


def _parameters(model: ModelProto) -> int | None:
    if any(n.op_type.startswith("TreeEnsemble") for n in _nodes(model)):
        return None
    floats = (1, 10, 11, 2, 3)  # float, float16, double; uint8 and int8 of a quantised graph
    return sum(int(np.prod(t.dims)) for g in _graphs(model) for t in g.initializer if t.data_type in floats)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _some(names: Any) -> str:
    names = [str(n) for n in names]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
