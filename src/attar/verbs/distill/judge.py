"""How a student does on validation rows: by their labels, or where none has one by how like the teacher it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Split
from attar.objective import Distiller
from attar.signal import Inputs, Source
from attar.task import Figure, Task

__all__ = ["Judge", "judged_rows", "labelled_rows"]

CHUNK = 4096  # rows answered at a time


class Judge:
    """How a student does on validation rows.

    By the task's primary metric on the rows that have what it needs. Where none has, by likeness to the teacher on all rows: agreement
    of decisions, distance of numbers, correlation of similarities. `metric` says which.
    """

    def __init__(self, task: Task, valid: Split, device: torch.device, teacher: Source | None = None) -> None:
        self.task, self.split, self.device = task, valid, device
        self.rows = judged_rows(task, valid).nonzero().squeeze(1)
        self.teacher: Tensor | None = None
        if not len(self.rows):
            assert teacher is not None  # the plan has seen to it
            self.rows = torch.arange(len(valid))
            self.teacher = self._asked(lambda batch_of: teacher(batch_of).output)
        self.metric = task.metric if self.teacher is None else task.alike_by
        self.weight = np.ones(len(self.rows)) if valid.weight is None else valid.weight[self.rows].double().numpy()
        self.labels = None if valid.labels is None else valid.labels[self.rows]
        self.mask = None if valid.mask is None else valid.mask[self.rows]
        self.texts = self._texts() if self.teacher is None else None

    def score(self, distiller: nn.Module) -> float:
        """The metric, turned so that more is better."""
        assert isinstance(distiller, Distiller)
        return self.rated(distiller.student)

    def rated(self, answer: Callable[[Inputs], Tensor]) -> float:
        """`score` of whoever answers inputs with logits, on the device where students train."""
        figure = self._figures(self._answers(answer, self.device))[self.metric]
        return float(figure(self.weight)) * self.task.better(self.metric)

    def of(self, source: Source) -> float:
        """The metric of a source on these rows, as it is."""
        figures = self._figures(self._asked(lambda batch: source(batch).output))
        return float(figures[self.metric](self.weight))

    def told(self, arm: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """A line of history with the arm's name, and the metric as it is called and counted."""
        return {"arm": arm, **line, "metric": self.metric, "valid": line["valid"] * self.task.better(self.metric)}

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Every figure of a student on the CPU, the one that chooses first."""
        figures = self._figures(self._answers(student, torch.device("cpu")))
        return {name: float(figure(self.weight)) for name, figure in figures.items()}

    def _figures(self, output: Tensor) -> dict[str, Figure]:
        if self.teacher is None:
            return self.task.figures(output, self.labels, self.texts)
        return self.task.likeness(self.teacher, output, self.mask)

    def _answers(self, answer: Callable[[Inputs], Tensor], device: torch.device) -> Tensor:
        return self._asked(lambda batch: answer(batch.to(device).inputs))

    def _asked(self, answer: Callable[[Any], Tensor]) -> Tensor:
        with torch.no_grad():
            found = [answer(self.split.batch(index)) for index in self.rows.split(CHUNK)]
        return self.task.canonical(torch.cat(found)).float().cpu()

    def _texts(self) -> Tensor | None:
        if self.task.metric != "recall_at_k":
            return None
        found = [self.task.which_texts(self.split.batch(index).inputs) for index in self.rows.split(CHUNK)]
        return None if any(part is None for part in found) else torch.cat([part for part in found if part is not None])


def judged_rows(task: Task, split: Split) -> Tensor:
    """(N,) bool: rows by which the task's metrics can be told."""
    return task.judged(split.labels, len(split), split.mask)


def labelled_rows(task: Task, split: Split) -> Tensor:
    """(N,) bool: rows with a known label that a loss of labels can use; of many labels one is enough, of a score both texts are needed."""
    if split.labels is None or (task.kind == "embedding" and task.texts < 2):
        return torch.zeros(len(split), dtype=torch.bool)
    known = task.known(split.labels).reshape(len(split), -1).any(1)
    return known & split.mask[:, :2].all(1) if task.kind == "embedding" and split.mask is not None else known
