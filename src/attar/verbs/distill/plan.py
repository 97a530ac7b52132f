"""What a distillation was asked: its arms, who teaches each of them what, and whatever can be wrong before training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn

import attar.objective as words
from attar.data import Data
from attar.errors import DataError, NotationError, StudentError, TeacherError, near
from attar.identity import digest
from attar.loop import Fit, device_of
from attar.notation import read
from attar.objective import Objective, as_objective, labels
from attar.objective.terms import Labels
from attar.progress import Listener
from attar.signal import Schooled, Source, Student
from attar.sources.controls import hard, shuffled, smooth
from attar.sources.ema import Ema
from attar.sources.taught import Taught
from attar.students import Trees
from attar.tap import resolve
from attar.task import Task
from attar.verbs.distill.grow import blend_of
from attar.verbs.distill.judge import judged_rows, labelled_rows
from attar.verbs.distill.rows import Rows

__all__ = ["Control", "Plan", "default_controls", "default_objective"]

Control = Literal["labels", "hard", "shuffled", "smooth"]


def default_objective(task: Task, data: Data) -> Objective:
    """What the task teaches by where nothing is said: without labelled training rows the teacher alone."""
    labelled = bool(labelled_rows(task, data.train).any())
    return as_objective(read(task.objective if labelled else task.objective_without_labels, vars(words)))


def default_controls(task: Task, objective: Objective, labelled: int, teacher: Source | None = None) -> tuple[str, ...]:
    """What the student is compared with where nothing is said: each explanation of a gain that is not the teacher's knowledge.

    labelled: how many training rows have a label. Without any, the teacher's decisions alone. Numbers and vectors are no decisions: their
    control is labels, and without these they have none. Of many labels none can be shuffled. Terms that read taps have labels alone, for
    the others change what a teacher answers, not what happens inside it; and a teacher that follows the student is another one for each.
    """
    decides = task.kind in ("classification", "multilabel") and objective.needs_teacher
    if not labelled:
        return ("hard",) if decides else ()
    if not decides or objective.teacher_taps:
        return ("labels",)
    if isinstance(teacher, Ema):
        return ("labels", "smooth")
    return ("labels", "smooth", "hard", "shuffled") if task.kind == "classification" else ("labels", "smooth", "hard")


@dataclass(frozen=True)
class Plan:
    """What `distill` was asked, resolved."""

    teacher: Source
    student: Student | nn.Module
    data: Data
    objective: Objective
    task: Task
    fit: Fit
    controls: tuple[str, ...]
    listen: Listener

    @property
    def arms(self) -> tuple[str, ...]:
        return ("student", *self.controls)

    @cached_property
    def labelled(self) -> Tensor:
        """(n,) positions of training rows with a known label."""
        return labelled_rows(self.task, self.data.train).nonzero().squeeze(1)

    def check(self) -> None:
        """Whatever can be wrong and seen without training."""
        known = get_args(Control)
        for name in self.controls:
            if name not in known:
                raise NotationError(f"there is no control {name!r}", hint=near(name, known))
        if len(set(self.controls)) < len(self.controls):
            raise NotationError(f"controls {list(self.controls)}: one is named twice", hint="name each once")
        if not self.objective.needs_teacher and (idle := [name for name in self.controls if name != "labels"]):
            what = f"the control {idle[0]!r} changes what the teacher says, and {self.objective!r} asks no teacher"
            raise NotationError(what, hint='controls: ["labels"]')
        if isinstance(self.teacher, Taught):
            self.teacher.refuse(self.objective.teacher_taps)
        if not len(self.data.train):
            raise DataError("the training split is empty", hint="leave more rows to it: lower test, valid or calibration")
        if not self.objective.needs_teacher and not bool(judged_rows(self.task, self.data.valid).any()):
            raise DataError(
                "no validation row has a label and no teacher is asked, so that no epoch can be chosen",
                hint="give the validation split labelled rows, or the objective a term of the teacher",
            )
        self._need_labels()
        if isinstance(self.teacher, Taught) and self.task.kind == "embedding" and self.teacher.folds > 1:
            what = f"{self.teacher!r} is {self.teacher.folds} nets, each with a space of its own: vectors of two cannot be compared"
            raise TeacherError(what, hint="folds=1 teaches one net, which has then seen the scores of its training rows")
        if self.task.kind in ("regression", "embedding") and (odd := [name for name in self.controls if name != "labels"]):
            a = "a regression" if self.task.kind == "regression" else "an embedding"
            raise NotationError(f"the control {odd[0]!r} is for classes, this is {a}", hint='controls: ["labels"]')
        if self.task.kind == "multilabel" and "shuffled" in self.controls:
            what = "the control 'shuffled' exchanges answers among rows of one label, these have many"
            raise NotationError(what, hint='controls: ["hard"]')
        student = self.build(0)
        if isinstance(student, Trees):
            if self.task.kind == "embedding":
                raise StudentError(
                    f"{self.student!r} grows trees, which answer numbers and not vectors", hint="a student that is a network"
                )
            blend_of(self.objective)
        else:
            for tap in sorted(self.objective.student_taps):
                resolve(student, tap)  # it raises for a place that is not there
        if isinstance(self.teacher, Ema):
            self._self_taught()
        self._no_leak()

    def _self_taught(self) -> None:
        """Raise what speaks against a teacher made of the student."""
        if odd := [name for name in self.controls if name not in ("labels", "smooth")]:
            what = f"the control {odd[0]!r} changes what a teacher says, and {self.teacher!r} is another one for each student"
            raise NotationError(what, hint='controls: ["labels"]')
        if isinstance(self.build(0), Trees):
            raise StudentError(f"{self.student!r} has no weights that {self.teacher!r} could follow", hint="a student that is a network")
        if self.objective.needs_teacher and all(term.needs_teacher for term in self.objective.terms):
            what = f"{self.objective!r} asks {self.teacher!r} alone, which knows nothing but what the student was told"
            raise DataError(what, hint="blend(kl(), labels(), weight=0.5)")
        if not bool(judged_rows(self.task, self.data.valid).any()):
            raise DataError("no validation row has a label, and a teacher made of the student cannot judge it", hint="label some")

    def _need_labels(self) -> None:
        """Raise DataError for what needs labels where no training row has one."""
        if len(self.labelled):
            return
        instead = self.task.objective_without_labels
        controls = list(default_controls(self.task, self.objective, 0, self.teacher))
        if any(isinstance(term, Labels) for term in self.objective.terms):
            raise DataError(f"{self.objective!r} needs labels, no training row has one", hint=f"objective: {instead}")
        if needing := [name for name in self.controls if name in ("labels", "smooth")]:
            rest = f"controls: {controls}" if controls else "controls: []; every control of this task needs labels"
            raise DataError(f"the control {needing[0]!r} needs labels, no training row has one", hint=rest)

    def _no_leak(self) -> None:
        seen = self.teacher.training_ids if isinstance(self.teacher, Schooled) else None
        if seen is None:
            return
        for split in (self.data.calibration, self.data.test):
            if both := int(torch.isin(split.ids, seen).sum()):
                raise DataError(
                    f"the teacher was trained on {both:,} of the {len(split):,} {split.name} rows",
                    hint="teach it on the training rows of these data, or split the data as it was taught",
                )

    def build(self, seed: int) -> nn.Module:
        """A fresh student; a module that was given ready-made is copied."""
        if isinstance(self.student, nn.Module):
            return copy.deepcopy(self.student)
        built = self.student(self.data.schema, seed)
        if not isinstance(built, nn.Module):
            what = f"{self.student!r} built a {type(built).__name__}, not a torch module"
            raise StudentError(what, hint="a builder takes (schema, seed) and returns an nn.Module")
        return built

    def source(self, arm: str) -> Source | None:
        """Who teaches this arm; None: nobody but the labels."""
        if arm == "labels" or not self.objective.needs_teacher:
            return None
        if arm == "student":
            return self.teacher
        return {"hard": hard, "shuffled": shuffled, "smooth": smooth}[arm](self.teacher).over(self.data.train)

    def goal(self, arm: str) -> Objective:
        """A fresh objective for this arm, without projectors."""
        return as_objective(labels()) if arm == "labels" else copy.deepcopy(self.objective)

    def rows(self, arm: str) -> Rows:
        positions = self.labelled if arm in ("labels", "smooth") else torch.arange(len(self.data.train))
        return Rows(self.data, self.source(arm), self.objective.teacher_taps, positions, device_of(self.fit))

    def identity(self, arm: str, seed: int, model: nn.Module, source: Source | None) -> str:
        """Changes when this arm would come out otherwise, but for the number of threads. model: before its training."""
        parts = [arm, self.data.fingerprint, source.fingerprint if source is not None else "", repr(self.goal(arm)), repr(self.task)]
        state = [part for name, value in model.state_dict().items() for part in (name, value.detach().cpu().numpy())]
        return digest(*parts, repr(self.fit.alike), seed, repr(model), *state)
