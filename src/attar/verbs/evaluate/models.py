"""Who is asked: the teacher, every exported graph, every arm; each with its own decision rule, fixed on validation rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.data import Data, Split
from attar.errors import EvidenceError, TeacherError
from attar.signal import Source
from attar.sources.onnx import Onnx, onnx
from attar.statistics import fit_temperature
from attar.task import Task

__all__ = ["TEACHER", "Judged", "Model", "Rows", "Who", "arms_of", "array", "gather", "judge"]

BATCH = 1024


class Who(NamedTuple):
    """The key of a model: kind, the name of a file or an arm, and the number of a seed."""

    kind: Literal["teacher", "file", "arm"]
    name: str = ""
    seed: int = 0


TEACHER = Who("teacher")


@dataclass(frozen=True)
class Model:
    """A source with its own decision rule, and the temperature by which its answers are divided here (of an arm before export)."""

    name: str
    source: Source
    task: Task
    temperature: float = 1.0

    def ask(self, split: Split) -> Tensor:
        """Canonical float64 answers to a whole split: (N, C), (N, L, 2) or (N, 1). Raises TeacherError for what is not a number."""
        pieces = []
        for start in range(0, len(split), BATCH):
            index = torch.arange(start, min(start + BATCH, len(split)))
            output = self.task.canonical(self.source(split.batch(index)).output.detach().cpu().double())
            if len(output) != len(index):
                raise TeacherError(f"{self.name} answered {len(output)} rows of {len(index)}", hint="a source answers every row")
            wrong = ~torch.isfinite(output) if self.task.kind == "embedding" else torch.isnan(output) | (output == math.inf)
            broken = wrong.flatten(1).any(1)
            if bool(broken.any()):
                at = int(torch.nonzero(broken)[0])
                raise TeacherError(
                    f"{self.name} answered {_some(output[at])} to {split.name} row {start + at} (id {int(split.ids[start + at])})",
                    hint="an answer is finite, or −inf for an impossible outcome",
                )
            pieces.append(output)
        return torch.cat(pieces) / self.temperature


@dataclass(frozen=True)
class Judged:
    """The student that ships.

    files: every graph by name, the certified one first. temperature: that its logits were divided by, 1 where nobody knows.
    manifest: what student.json says; None for a source that is not an exported folder.
    """

    source: Source
    files: Mapping[str, Source]
    temperature: float
    manifest: Mapping[str, Any] | None

    @property
    def file(self) -> str:
        """The certified file."""
        return next(iter(self.files))

    @property
    def who(self) -> Who:
        """The key of the certified file."""
        return Who("file", self.file)


@dataclass(frozen=True)
class Rows:
    """Test rows as statistics want them.

    labels: (N, ...) or None. known: (N, ...) bool. labelled: (n,) positions of the rows by which metrics can be told. weight: (N,) or
    None. mask, texts: (N, K), which texts of a row are there, and which texts are the same; None where rows have none, or nobody asks.
    """

    count: int
    labels: Tensor | None
    known: Tensor
    labelled: Tensor
    weight: NDArray[np.float64] | None
    mask: Tensor | None = None
    texts: Tensor | None = None

    @classmethod
    def of(cls, split: Split, task: Task) -> Rows:
        """The rows of a split."""
        count = len(split)
        known = torch.zeros(count, dtype=torch.bool) if split.labels is None else task.known(split.labels)
        labelled = torch.nonzero(task.judged(split.labels, count, split.mask))[:, 0]
        weight = None if split.weight is None else array(split.weight)
        return cls(count, split.labels, known, labelled, weight, split.mask, _texts(split, task))

    @property
    def n(self) -> int:
        """Rows with a known label."""
        return len(self.labelled)

    @property
    def labels_known(self) -> Tensor | None:
        """(n, ...) labels of the rows by which metrics can be told; None where there are none at all."""
        return None if self.labels is None else self.labels[self.labelled]

    @property
    def texts_known(self) -> Tensor | None:
        """(n, K) or None."""
        return None if self.texts is None else self.texts[self.labelled]

    @property
    def labelled_weight(self) -> NDArray[np.float64] | None:
        """(n,) or None."""
        return None if self.weight is None else self.weight[self.labelled.numpy()]


def judge(student: str | Path | Source) -> Judged:
    """Open the student: a folder that `export` wrote with all its graphs, another ONNX file, or a source as it is."""
    if not isinstance(student, str | Path):
        return Judged(student, {"student": student}, student.temperature if isinstance(student, Onnx) else 1.0, None)
    source = onnx(str(student))
    files: dict[str, Source] = {source.file.name: source}
    if source.manifest is not None:
        folder = source.file.parent
        files |= {name: onnx(str(folder / name)) for name in source.manifest["files"] if name != source.file.name}
    return Judged(source, files, source.temperature, source.manifest)


def gather(judged: Judged, teacher: Source, arms: Mapping[str, Sequence[Source]], data: Data, task: Task) -> dict[Who, Model]:
    """Everyone who will be asked, with rules and temperatures from the validation rows.

    An arm has not been exported: its temperature is fitted here as export fits that of a file, so that proper scores compare alike.
    """
    models = {TEACHER: Model("the teacher", teacher, task)}
    models |= {Who("file", name): Model(name, source, task) for name, source in judged.files.items()}
    for arm, sources in arms.items():
        models |= {Who("arm", arm, i): Model(f"arm {arm!r}, seed {i}", source, task) for i, source in enumerate(sources)}
    labels, weight = data.valid.labels, data.valid.weight
    if labels is None or not bool(task.known(labels).any()):
        if task.recall_at_fpr is not None:
            raise EvidenceError("recall_at_fpr fixes its threshold on validation rows, and none of them has a label")
        return models
    for who, model in models.items():
        tempered = who.kind == "arm" and task.kind in ("classification", "multilabel")
        if not tempered and task.recall_at_fpr is None:
            continue
        answer = model.ask(data.valid)
        temperature = _temperature(answer, labels, weight) if tempered else 1.0
        models[who] = replace(model, task=task.fix(answer / temperature, labels, weight), temperature=temperature)
    return models


def arms_of(models: Mapping[Who, Model]) -> dict[str, list[Who]]:
    """The seeds of each arm, in order."""
    arms: dict[str, list[Who]] = {}
    for who in models:
        if who.kind == "arm":
            arms.setdefault(who.name, []).append(who)
    return arms


def array(value: Tensor) -> NDArray[Any]:
    """A tensor as numpy, real numbers in float64."""
    value = value.detach().cpu()
    return value.double().numpy() if value.dtype.is_floating_point else value.numpy()


def _texts(split: Split, task: Task) -> Tensor | None:
    """(N, K) numbers of the texts, where the metric is one of retrieval."""
    if task.metric != "recall_at_k":
        return None
    found = [task.which_texts(split.batch(index).inputs) for index in torch.arange(len(split)).split(BATCH)]
    return torch.cat([part for part in found if part is not None]) if all(part is not None for part in found) else None


def _some(answer: Tensor) -> str:
    """An answer as text; of a long one, such as a vector, a few numbers, those that are none first."""
    if answer.numel() <= 20:
        return str(answer.tolist())
    numbers = answer.flatten()
    order = torch.argsort(torch.isfinite(numbers).int(), stable=True)[:4]
    return f"{', '.join(f'{x:g}' for x in numbers[order].tolist())}, … ({numbers.numel()} numbers)"


def _temperature(answer: Tensor, labels: Tensor, weight: Tensor | None) -> float:
    if weight is not None:  # (N,) → over all positions
        weight = weight.reshape(-1, *(1,) * (labels.ndim - 1)).expand(labels.shape)
    return fit_temperature(array(answer), array(labels), None if weight is None else array(weight))
