"""Training the candidates of a study: those of one form as one tensor program, the others one after another, from one set of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter

import torch
from torch import Tensor, nn

from attar import cohort
from attar.cohort import Member
from attar.data import Data
from attar.errors import AttarError
from attar.loop import Fit, Trained, device_of, train, using_threads
from attar.objective import Distiller, Objective
from attar.progress import Listener, silent
from attar.searched import Arm
from attar.signal import Source
from attar.students import Trees
from attar.task import Task
from attar.verbs.distill.grow import grow
from attar.verbs.distill.judge import Judge, labelled_rows
from attar.verbs.distill.rows import Rows
from attar.verbs.distill.together import Group, lesson_of, obstacle, ready, why_not
from attar.verbs.search.design import Design

__all__ = ["Candidate", "Classroom", "Outcome"]

TRACED = 600  # steps from which on tracing a batch is regained: it costs what some 400 steps save, and is made anew when some have left
GAIN = 0.95  # candidates train together where that takes no more than this share of the time

Behind = Callable[[int, Mapping[int, float]], Collection[int]]
"""(epoch, score by place, more is better) → the places of the candidates that stop there."""


@dataclass(frozen=True)
class Candidate:
    """A design and the seed of its initial weights and of the order of its rows."""

    design: Design
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate.

    score: the metric on the validation rows that judge, as it is; None where it has none. rungs: (share of training, score) epoch by
    epoch. seconds: its share of the time. together: how many trained as one program. why: of a candidate that failed. model: the student
    with the weights of its best epoch; None where it failed.
    """

    score: float | None
    rungs: tuple[tuple[float, float], ...]
    epochs: int
    whole: bool
    seconds: float
    together: int
    why: str = ""
    model: nn.Module | None = field(default=None, repr=False)


class Classroom:
    """What all candidates of a study share: rows, the teacher's answers to them, and who judges.

    answers: the teacher, its answers stored. data: their validation rows are those that choose epochs and score. Rows are looked up once
    for all candidates of an arm.
    """

    def __init__(self, data: Data, task: Task, answers: Source, device: str = "auto") -> None:
        self.data, self.task, self.answers = data, task, answers
        self.device = device_of(Fit(device=device))
        self.shown: dict[tuple[Arm, bool, frozenset[str]], Rows] = {}
        self.able: dict[tuple[str, ...], bool] = {}
        self.faster: dict[tuple[Arm, str, int], tuple[int, float]] = {}

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.task, self.data.valid, self.device, self.answers)

    @cached_property
    def labelled(self) -> Tensor:
        """(n,) positions of training rows with a known label."""
        return labelled_rows(self.task, self.data.train).nonzero().squeeze(1)

    def rows(self, arm: Arm, objective: Objective) -> Rows:
        """What the candidates of an arm are shown."""
        asks = arm == "student" and objective.needs_teacher
        key = (arm, asks, objective.teacher_taps)
        if key not in self.shown:
            positions = self.labelled if arm == "labels" else torch.arange(len(self.data.train))
            self.shown[key] = Rows(self.data, self.answers if asks else None, objective.teacher_taps, positions, self.device)
        return self.shown[key]

    def train(self, candidates: Sequence[Candidate], *, behind: Behind | None = None, listen: Listener = silent) -> list[Outcome]:
        """Train candidates of one form, together where that is measured to be faster; the places that `behind` is told are theirs."""
        fit = candidates[0].design.fit
        with using_threads(fit.threads or 1):
            if len(candidates) > 1 and self._together(candidates):
                return self._cohort(candidates, behind, listen)
            return [self._alone(at, candidate, behind, listen) for at, candidate in enumerate(candidates)]

    # ---- in which way

    def _together(self, candidates: Sequence[Candidate]) -> bool:
        """Whether these may train as one program, which is tried of each form; and whether that is faster.

        What is saved is overhead, which counts for less the larger a student is. So it is measured, of each family of students and size of
        a batch, only for sizes between the largest that was faster together and the smallest that was not.
        """
        first = candidates[0].design
        if first.fit.way in ("one", "processes"):
            return False
        if first.form not in self.able:
            self.able[first.form] = self._able(candidates)
        if not self.able[first.form] or first.fit.way == "cohort":
            return self.able[first.form]
        key = (first.arm, first.family, len(candidates))
        below, above = self.faster.get(key, (0, math.inf))
        weights = sum(weight.numel() for weight in first.student(self.data.schema, 0).parameters())
        if below < weights < above:
            group = self._group(candidates)
            found = cohort.measure(group.members, group.lesson, first.fit, traced=_traced(group, first.fit))
            if found.together <= GAIN * found.alone * len(candidates):
                below = weights
            else:
                above = weights
            self.faster[key] = (below, above)
        return weights <= below

    def _able(self, candidates: Sequence[Candidate]) -> bool:
        first = candidates[0].design
        if isinstance(first.student(self.data.schema, 0), Trees):
            return False
        rows = self.rows(first.arm, first.objective)
        return obstacle(rows, first.objective, first.fit) is None and why_not(self._group(candidates[:2]), first.fit) is None

    def _group(self, candidates: Sequence[Candidate]) -> Group:
        first = candidates[0].design
        rows = self.rows(first.arm, first.objective)
        members = []
        for at, candidate in enumerate(candidates):
            distiller = self._distiller(candidate, rows)
            lr = candidate.design.fit.lr
            members.append(Member(distiller, candidate.seed, at, lr, stage=f"search {candidate.design.text}"))
        return Group(tuple(members), lesson_of([rows] * len(members), first.taught_by(), len(self.data.train)))

    def _distiller(self, candidate: Candidate, rows: Rows) -> Distiller:
        design = candidate.design
        first = torch.arange(len(rows))[: design.fit.rows_a_step(len(self.data.train))]
        return ready(design.student(self.data.schema, candidate.seed), design.taught_by(), self.task, rows, first, candidate.seed)

    # ---- doing it

    def _cohort(self, candidates: Sequence[Candidate], behind: Behind | None, listen: Listener) -> list[Outcome]:
        group, fit = self._group(candidates), candidates[0].design.fit
        start = perf_counter()
        found = cohort.train(
            group.members,
            group.lesson,
            fit=fit,
            validate=self.judge.score,
            listen=listen,
            stage=f"search {candidates[0].design.text}",
            stop=behind,
            forgiving=True,
            traced=_traced(group, fit),
        )
        share = (perf_counter() - start) / len(candidates)
        return [
            self._outcome(member.module, trained, fit, share, len(candidates)) for member, trained in zip(group.members, found, strict=True)
        ]

    def _alone(self, at: int, candidate: Candidate, behind: Behind | None, listen: Listener) -> Outcome:
        design, start = candidate.design, perf_counter()
        rows = self.rows(design.arm, design.objective)
        stage = f"search {design.text}"
        try:
            model = design.student(self.data.schema, candidate.seed)
            if isinstance(model, Trees):
                done = grow(
                    model, design.objective, rows, self.task, self.judge, stage=stage, seed=candidate.seed, record=lambda line: None
                )
                return self._outcome(model, done, design.fit, perf_counter() - start, 1)
            distiller = self._distiller(candidate, rows)
            watch = _Watch(self.judge, at, behind, design.fit)

            def loss(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                return module(*rows(index, epoch), progress)

            try:
                done = train(
                    distiller, loss, len(self.data.train), fit=design.fit, seed=candidate.seed, validate=watch, listen=listen, stage=stage
                )
            except _Fallen:
                done = Trained(tuple(watch.history), watch.best[0], watch.best[1], len(watch.history), 0.0)
            return self._outcome(distiller, done, design.fit, perf_counter() - start, 1)
        except AttarError as error:
            return Outcome(None, (), 0, False, perf_counter() - start, 1, error.message)

    def _outcome(self, module: nn.Module, trained: Trained, fit: Fit, seconds: float, together: int) -> Outcome:
        better = self.task.better(self.judge.metric)
        last = max((line["epoch"] for line in trained.history), default=0)
        most = last if isinstance(module, Trees) else fit.epochs
        rungs = tuple((line["epoch"] / most, line["valid"] * better) for line in trained.history)
        if not math.isfinite(trained.score):
            why = f"its loss is not finite in epoch {len(trained.history) + 1}"
            return Outcome(None, rungs, len(trained.history), False, seconds, together, why)
        student = module.student if isinstance(module, Distiller) else module
        whole = isinstance(module, Trees) or last == fit.epochs or last - trained.best_epoch >= fit.patience
        return Outcome(trained.score * better, rungs, last, whole, seconds, together, "", student.cpu().eval())


def _traced(group: Group, fit: Fit) -> bool:
    """Whether a batch trains so long that tracing it is regained."""
    rows = group.lesson.rows
    return fit.epochs * math.ceil(rows / fit.rows_a_step(rows)) >= TRACED


class _Fallen(Exception):
    """A candidate that trains by itself has fallen behind."""


class _Watch:
    """Scores a student after each epoch, and ends a training that has fallen behind."""

    def __init__(self, judge: Judge, at: int, behind: Behind | None, fit: Fit) -> None:
        self.judge, self.at, self.behind, self.fit = judge, at, behind, fit
        self.history: list[dict[str, float]] = []
        self.best = (0, -math.inf)

    def __call__(self, distiller: nn.Module) -> float:
        score = self.judge.score(distiller)
        epoch = len(self.history) + 1
        self.history.append({"epoch": epoch, "valid": score})
        if score >= self.best[1]:
            self.best = (epoch, score)
        if self.behind is not None and epoch < self.fit.epochs and self.at in self.behind(epoch, {self.at: score}):
            raise _Fallen
        return score
