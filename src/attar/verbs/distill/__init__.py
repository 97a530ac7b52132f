"""Teach a student what a teacher answers, and its controls what is left when the teacher is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attar.data import Data, as_data
from attar.errors import StoreError, TeacherError
from attar.loop import Fit, choose_threads, device_of, using_threads
from attar.objective import Objective, Term, as_objective
from attar.objective.conventions import Conventions, check
from attar.progress import Listener, silent
from attar.signal import Source, Student
from attar.sources.cached import Cached
from attar.sources.ema import Ema, Following
from attar.sources.told import told
from attar.students import Trees
from attar.task import Task, task_for
from attar.verbs.distill.folder import Arm, Folder
from attar.verbs.distill.grow import Nothing
from attar.verbs.distill.judge import labelled_rows
from attar.verbs.distill.plan import Plan, default_controls, default_objective
from attar.verbs.distill.training import Training

__all__ = ["Arm", "Distilled", "distill", "precheck", "settled"]

SAMPLE = 256  # rows on which the conventions are tested, the teacher asked live


@dataclass(frozen=True)
class Distilled:
    """What `distill` made.

    arms: the student's and the controls', seed by seed; those of one seed began with the same weights and saw the same rows in order.
    threads: of the CPU, as chosen. conventions: what the self-test found.
    ready_made: the student was a module, copied for each arm, so that seeds vary the order of rows only.
    teacher: of `ema`, what the student that ships was taught by in the end, as of the epoch that was kept; else the one that was given.
    way: in words, how the students trained: one after another, together, in processes; and what was measured of each.
    """

    arms: tuple[Arm, ...]
    threads: int
    conventions: Conventions = field(repr=False)
    objective: str
    ready_made: bool = False
    teacher: Source | None = field(default=None, repr=False)
    way: str = field(default="", repr=False)

    @property
    def student(self) -> nn.Module:
        """The one that ships: of the first seed, whatever the others came to."""
        return next(arm.model for arm in self.arms if arm.name == "student")


def distill(
    teacher: Source,
    student: Student | nn.Module,
    data: Any,
    objective: Objective | Term | None = None,
    *,
    task: Task | None = None,
    fit: Fit | None = None,
    controls: Sequence[str] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    listen: Listener = silent,
) -> Distilled:
    """Train `student` on the teacher's answers, and beside it each control: same initial weights, same order of rows, same steps.

    teacher: any source; one with stored answers (`annotate`) is not asked again; `ema()` makes one of each student itself. Augmented
        rows are shown in another stored view each epoch, a row's views in turn.
    student: a builder, called with (schema, seed), or a module, which is copied and stays as it is.
    data: anything that `attar.data.as_data` reads. objective, task: left out, what the task and the data imply.
    controls: of "labels" (labels alone, no teacher), "hard" (the teacher's decisions), "shuffled" (its certainty, not its knowledge),
        "smooth" (label smoothing in its place). Controls that need labels see labelled rows only, for as many steps as the student.
        Left out, all four for classes; "labels" alone for numbers and vectors, for an objective that reads taps, and where no teacher
        is asked; where no training row has a label, "hard" for classes, and none for numbers and vectors. With several labels for a row
        nothing is shuffled, and beside `ema` there are "labels" and "smooth".
    out: the folder for history.jsonl, checkpoints/, arms/ and student.safetensors; left out, nothing is written.
    resume: go on in `out`: finished arms are read, and the one that was interrupted goes on bit for bit.

    The best epoch of each arm is chosen by the task's primary metric on validation rows; where none of them has a label, by likeness to
    the teacher (agreement of decisions, distance of numbers, correlation of similarities), as each line of the history says. Test rows
    are never read. With two processes or more (torchrun) each step is shared among them.

    Raises the error of a convention that fails, before training; DataError where labels are needed and missing, or the teacher knows
    evaluation rows; StudentError for a loss that is not finite; RunError where `out` holds another training; Stopped on a signal.

    >>> done = distill(teacher, attar.students.mlp(), data, out="runs/credit")     # doctest: +SKIP
    >>> [(arm.name, arm.seed, arm.valid["auroc"]) for arm in done.arms]            # doctest: +SKIP
    """
    plan = _plan(teacher, student, data, objective, task, fit, controls, listen)
    return Distilling(plan, Folder(Path(out), resume) if out is not None else None).run()


def precheck(
    teacher: Source,
    student: Student | nn.Module,
    data: Any,
    objective: Objective | Term | None = None,
    *,
    task: Task | None = None,
    fit: Fit | None = None,
    controls: Sequence[str] | None = None,
) -> None:
    """Raise now what `distill` would raise without asking the teacher, so that nobody teaches for an hour to hear it."""
    _plan(teacher, student, data, objective, task, fit, controls, silent).check()


def _plan(
    teacher: Source,
    student: Student | nn.Module,
    data: Any,
    objective: Objective | Term | None,
    task: Task | None,
    fit: Fit | None,
    controls: Sequence[str] | None,
    listen: Listener,
) -> Plan:
    rows = as_data(data, kind=task.kind) if task is not None else as_data(data)
    task = (task or task_for(rows.schema, rows.kind)).bind(rows.schema)
    goal, chosen = settled(objective, controls, rows, task, teacher)
    return Plan(told(teacher, rows.train), student, rows, goal, task, fit or Fit(), chosen, listen)


def settled(
    objective: Objective | Term | None, controls: Sequence[str] | None, data: Data, task: Task, teacher: Source
) -> tuple[Objective, tuple[str, ...]]:
    """Objective and controls, what was left out filled in by what labels there are."""
    goal = as_objective(objective) if objective is not None else default_objective(task, data)
    if controls is not None:
        return goal, tuple(controls)
    return goal, default_controls(task, goal, int(labelled_rows(task, data.train).sum()), teacher)


class Distilling:
    """One call of `distill`."""

    def __init__(self, plan: Plan, folder: Folder | None) -> None:
        self.plan, self.folder = plan, folder

    def run(self) -> Distilled:
        plan = self.plan
        plan.check()
        conventions = self._conventions()
        conventions.raise_if_failed()
        if self.folder:
            self.folder.begin()
        training = Training(plan, self.folder)
        threads = self._threads(training)
        with using_threads(threads):
            arms = training.run(threads)
        ready_made = isinstance(plan.student, nn.Module)
        return Distilled(arms, threads, conventions, repr(plan.objective), ready_made, training.teacher, training.way.words)

    def _conventions(self) -> Conventions:
        """The self-test on rows spread over the training split, the teacher asked live; stored answers are compared with that."""
        plan = self.plan
        count = len(plan.data.train)
        batch = plan.data.train.batch(torch.arange(count)[:: max(1, count // SAMPLE)][:SAMPLE])
        stored, live = None, plan.source("student")
        if isinstance(live, Cached) and live.store is not None:
            assert batch.ids is not None  # splits have them
            with suppress(StoreError):  # rows that are not stored are asked live, later as now
                stored = live.signal(live.locate(batch.ids, batch.views))
            live = live.source
        if isinstance(live, Ema):  # it would begin as the student itself: a student of another seed stands in
            live = live.of(plan.build(1))
        if live is not None:
            need_finite(live(batch, plan.objective.teacher_taps).output)
        student = plan.build(0)
        if isinstance(student, Trees):
            student = Nothing(plan.task.labels or plan.task.outcomes)
        found = check(plan.objective, student, live, batch, plan.task, stored)
        chance = isinstance(live, Following)  # which outcome it prefers says nothing
        return Conventions(tuple(c for c in found.checks if not (chance and c.name == "class order")))

    def _threads(self, training: Training) -> int:
        plan, folder = self.plan, self.folder
        if plan.fit.threads is not None:
            return plan.fit.threads
        if isinstance(plan.build(0), Trees):
            return torch.get_num_threads()
        if folder and (kept := folder.threads()):
            return kept
        threads = choose_threads(training.trial()) if device_of(plan.fit).type == "cpu" else torch.get_num_threads()
        if folder and training.rank == 0:
            folder.keep_threads(threads)
        return threads


def need_finite(output: Tensor) -> None:
    rows = (output.isnan() | output.isposinf()).flatten(1).any(1)
    if bool(rows.any()):
        raise TeacherError(
            f"the teacher answers NaN or infinity to {int(rows.sum()):,} of {len(rows):,} rows, such as row {int(rows.nonzero()[0])}",
            hint="ask it these rows by itself: does it take missing values?",
        )
