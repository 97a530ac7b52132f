"""How a student does on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Split
from attar.objective import Distiller
from attar.signal import Inputs
from attar.task import Task

__all__ = ["Judge", "known_rows"]

CHUNK = 4096  # rows answered at a time


class Judge:
    """How a student does on validation rows."""

    def __init__(self, task: Task, valid: Split, device: torch.device) -> None:
        self.task, self.split, self.device = task, valid, device
        self.known = known_rows(task, valid).nonzero().squeeze(1)
        assert valid.labels is not None  # else none would be known
        self.labels = valid.labels[self.known]
        self.weight = np.ones(len(self.known)) if valid.weight is None else valid.weight[self.known].double().numpy()

    def score(self, distiller: nn.Module) -> float:
        """The primary metric, turned so that more is better."""
        assert isinstance(distiller, Distiller)
        return self.rated(distiller.student)

    def rated(self, answer: Callable[[Inputs], Tensor]) -> float:
        """`score` of whoever answers inputs with logits, on the device where students train."""
        figure = self.task.figures(self._answers(answer, self.device), self.labels)[self.task.metric]
        return float(figure(self.weight)) * self.task.better(self.task.metric)

    def told(self, arm: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """A line of history with the arm's name, and the primary metric as it is called and counted."""
        return {"arm": arm, **line, "metric": self.task.metric, "valid": line["valid"] * self.task.better(self.task.metric)}

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Every metric of the task, of a student on the CPU."""
        return self.task.measure(self._answers(student, torch.device("cpu")), self.labels, torch.from_numpy(self.weight))

    def _answers(self, answer: Callable[[Inputs], Tensor], device: torch.device) -> Tensor:
        with torch.no_grad():
            found = [answer(self.split.batch(index).to(device).inputs) for index in self.known.split(CHUNK)]
        return self.task.canonical(torch.cat(found)).float().cpu()


def known_rows(task: Task, split: Split) -> Tensor:
    """(N,) bool: rows with a known label, of many labels at least one."""
    if split.labels is None:
        return torch.zeros(len(split), dtype=torch.bool)
    return task.known(split.labels).reshape(len(split), -1).any(1)
