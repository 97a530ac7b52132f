"""The guard of a graph: what student and target decide on validation and calibration rows, and what that allows to be promised."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attar.data import Data, Split
from attar.errors import EvidenceError, ExportError
from attar.files import write_json
from attar.guards import Guard, Promise, Rows
from attar.identity import digest
from attar.signal import Schema, Schooled, Source
from attar.statistics.metrics import log_softmax
from attar.students.trees import Trees
from attar.task import Task

__all__ = ["AT_ONCE", "Right", "Said", "check_student", "cut_of", "promised", "right", "tried_on"]

AT_ONCE = 1024  # rows in one question, as `evaluate` asks


@dataclass(frozen=True)
class Right:
    """What the guard's target says of validation and calibration rows, (N,) outcomes, −1 where it is not known.

    cut: log-odds from which the teacher decides the positive of two outcomes; None: the likeliest, or nobody knows, as there is no teacher.
    """

    guard: Guard
    valid: NDArray[np.int64]
    calibration: NDArray[np.int64]
    cut: float | None = None


def right(guard: Guard, teacher: Source | None, data: Data, task: Task) -> Right:
    """The teacher's decisions by its own rule, or the labels.

    Raises ExportError where there is no teacher to ask, EvidenceError where it was trained on calibration rows.
    """
    guard.check(task.kind, {name: split.labelled for name, split in data.splits.items()}, list(data.calibration.groups))
    if guard.target == "labels":
        return Right(guard, _labels(data.valid, task), _labels(data.calibration, task), _cut_beside(teacher, data, task))
    if teacher is None:
        raise ExportError(f"{guard!r} needs the teacher's answers", hint="export(…, teacher=teacher), stored answers will do")
    learnt = teacher.training_ids if isinstance(teacher, Schooled) else None
    if learnt is not None and (seen := int(torch.isin(data.calibration.ids, learnt).sum())):
        raise EvidenceError(
            f"the teacher was trained on {seen:,} of {len(data.calibration):,} calibration rows: it answers no others as it answers these",
            hint="split the data as they were when the teacher was taught, or teach it again",
        )
    answers = [_asked(teacher, split, task) for split in (data.valid, data.calibration)]
    rule = _fixed(task, answers[0], data.valid)
    return Right(guard, rule.decide(answers[0]).numpy(), rule.decide(answers[1]).numpy(), cut_of(rule))


@dataclass(frozen=True)
class Said:
    """What a graph says of N rows. logits: (N, C), tempered. confidence: (N,), with a decision rule. energy: (N,); None: not asked."""

    logits: np.ndarray
    confidence: np.ndarray
    energy: np.ndarray | None = None


def check_student(guard: Guard, student: Callable[[Schema, int], nn.Module] | nn.Module, data: Data, task: Task) -> None:
    """Raise EvidenceError before a student is trained where it has one log-odds to answer with, and the guard wants a floor of energy.

    What can be told from its weights alone is told when it is exported.
    """
    if guard.energy is None or task.outcomes != 2:
        return
    fresh = student if isinstance(student, nn.Module) else student(data.schema, 0)
    if not (one := isinstance(fresh, Trees)):
        model, some = copy.deepcopy(fresh).cpu().float().eval(), data.train.batch(torch.arange(min(2, len(data.train))))
        with torch.no_grad():
            output = model(some.inputs)
        one = output.shape != task.canonical(output).shape
    if one:
        guard.check_energy(task.canonical(torch.linspace(-1, 1, 3)).numpy())


def promised(target: Right, ask: Callable[[float | None, Split], Said], data: Data, task: Task) -> Promise:
    """What the guard finds for one graph. ask: (cut, split) → what it says, with a decision rule at that cut."""
    said = ask(None, data.valid)
    rule = _fixed(task, torch.from_numpy(said.logits).double(), data.valid)
    cut = cut_of(rule)
    if cut is not None:
        said = ask(cut, data.valid)
    by = target.guard.groups
    valid = _rows(said, target.valid, rule, _groups(data.valid) if by else None)
    calibration = _rows(ask(cut, data.calibration), target.calibration, rule, _groups(data.calibration) if by else None)
    named = [(column, name) for column, group in data.calibration.groups.items() for name in group.names] if by else []
    return target.guard.fit(valid, calibration, data.schema.classes, (cut, target.cut), named)


def tried_on(calibration: Split, guard: Guard, own: np.ndarray, manifest: Path) -> int:
    """Write into a run's manifest that a guard is being fitted, and count the different ones on these calibration rows; 1 without a run.

    own: (R, ...) what the student answers; the same guard of the same student is one, however often it is exported.
    Raises EvidenceError for a manifest that does not read.
    """
    if not manifest.exists():
        return 1
    try:
        known = json.loads(manifest.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise EvidenceError(f"{manifest} does not read: {error}", hint="it counts the guards that were tried; restore it") from error
    mine = {"calibration": digest(calibration.ids.numpy()), "guard": repr(guard), "student": digest(own)}
    guards = known.get("guards", [])
    if mine not in guards:
        guards.append(mine)
        write_json(manifest, {**known, "guards": guards})
    return sum(entry["calibration"] == mine["calibration"] for entry in guards)


def cut_of(task: Task) -> float | None:
    """Log-odds from which a task whose rule is fixed decides the positive of two outcomes; None where it decides the likeliest."""
    return task.decides_from


def _cut_beside(teacher: Source | None, data: Data, task: Task) -> float | None:
    """The cut of a teacher who is not the target, but answers what the student leaves to it."""
    if task.recall_at_fpr is None:
        return cut_of(task)
    return None if teacher is None else cut_of(_fixed(task, _asked(teacher, data.valid, task), data.valid))


def _groups(split: Split) -> NDArray[np.int64]:
    """(N, K) by column, the group of each row, counted through all columns; −1 where nobody knows."""
    found, first = [], 0
    for group in split.groups.values():
        codes = group.codes.numpy()
        found.append(np.where(codes >= 0, codes + first, -1))
        first += len(group.names)
    return np.stack(found, axis=1)


def _rows(said: Said, right: NDArray[np.int64], rule: Task, group: NDArray[np.int64] | None = None) -> Rows:
    """The rows of which it is known what is right."""
    known = right >= 0
    z = torch.from_numpy(said.logits).double()
    group = None if group is None else group[known]
    energy = None if said.energy is None else said.energy[known]
    return Rows(said.confidence[known], np.exp(log_softmax(z.numpy()))[known], rule.decide(z).numpy()[known], right[known], group, energy)


def _labels(split: Split, task: Task) -> NDArray[np.int64]:
    if split.labels is None:
        return np.full(len(split), -1)
    return torch.where(task.known(split.labels), split.labels, -1).numpy()


def _asked(teacher: Source, split: Split, task: Task) -> torch.Tensor:
    """(N, C) float64 answers to a split."""
    parts = [
        task.canonical(teacher(split.batch(index)).output.cpu().double()) for index in torch.arange(len(split)).split(AT_ONCE) if len(index)
    ]
    answer = torch.cat(parts) if parts else torch.zeros(0, task.outcomes, dtype=torch.float64)
    if bad := int(answer.isnan().any(-1).sum()):
        raise EvidenceError(f"the teacher answers {bad:,} of {len(split):,} {split.name} rows with NaN", hint="a guard needs its decisions")
    return answer


def _fixed(task: Task, answer: torch.Tensor, valid: Split) -> Task:
    if task.recall_at_fpr is None:
        return task
    if valid.labels is None:
        raise EvidenceError("recall_at_fpr fixes its threshold on validation rows, and none of them has a label")
    return task.fix(answer, valid.labels, valid.weight)
