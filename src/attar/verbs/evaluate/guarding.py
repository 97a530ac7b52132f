"""The guard on test rows: how much it answers, how often it is wrong where it does, and what student and teacher are together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.certificate import Figure
from attar.certificate.guarding import Guarding, Kept, Passing
from attar.cost import Compared
from attar.data import Data, Split
from attar.data.groups import MISSING
from attar.guards import Cell, Promise
from attar.sources.cascade import joined
from attar.sources.onnx import Onnx
from attar.statistics import bootstrap, clopper_pearson, paired_proportions, wilson
from attar.task import Task
from attar.verbs.evaluate.models import BATCH, TEACHER, Judged, Model, Rows, Who, array
from attar.verbs.evaluate.scoring import figure, resamples, share, trials_of

__all__ = ["guarding"]

POINTS = 80  # of the curve
DRAWS = 1000
MISTAKEN = 0.05  # the chance that a promise which is kept is called broken
ALSO = ("accuracy", "recall_at_fpr", "false_positive_rate")  # figures of decisions, beside the primary metric


def guarding(
    models: Mapping[Who, Model],
    answers: Mapping[Who, Tensor],
    rows: Rows,
    judged: Judged,
    data: Data,
    compared: Compared,
    foreign: Mapping[str, Split],
) -> Guarding | None:
    """What the guard of the file that ships kept on the test rows, and how many foreign rows it answers; None where it has none.

    An error is what the guard's target calls so: another decision than the teacher's, or than the label, on the rows that have one.
    """
    source = judged.source
    if judged.manifest is None or judged.manifest["files"][judged.file].get("guard") is None:
        return None
    assert isinstance(source, Onnx)
    promise, names = source.promise, data.schema.classes
    assert source.reading is not None  # what has a guard is an exported folder
    mine = source.reading.schema.classes
    promise = replace(promise, thresholds=tuple(promise.thresholds[mine.index(name)] for name in names))  # in the order of these data
    student, teacher = _decided(models, answers, judged.who), _decided(models, answers, TEACHER)
    right = teacher if promise.target == "teacher" else np.where(array(rows.known), array(_labels(rows)), -1)
    heard = _heard(source, data.test)
    answer = heard.answer
    seen = _Seen(heard, student, right)
    whole = promise.cells[0] if promise.per == "all" else None
    by = {cell.name: cell for cell in promise.cells if not cell.of} if promise.per != "all" else {}
    others = {
        name: _Seen(_heard(other, data.test), _decided(models, answers, Who("file", name)), right)
        for name, other in judged.files.items()
        if name != judged.file and isinstance(other, Onnx)
    }
    thresholds = dict(zip(names, promise.thresholds, strict=True))
    kept = seen.kept(seen.known, whole)
    cells = {n: seen.kept(right == i, by.get(n) if promise.per == "decision" else None) for i, n in enumerate(names)}
    said = {n: seen.kept(seen.known & (student == i), by.get(n)) for i, n in enumerate(names)} if promise.per == "answer" else {}
    groups = {column: _parts(seen, data.test, column, promise) for column in data.test.groups}
    of_groups = {f"{column} {name}": part for column, parts in groups.items() for name, part in parts.items() if part.bound is not None}
    return Guarding(
        asked=promise.guard,
        state=promise.state,
        sentence=promise.sentence,
        epsilon=promise.epsilon,
        delta=promise.delta,
        target=promise.target,
        per=promise.per,
        thresholds=thresholds,
        calibration_rows=promise.rows,
        whole=kept,
        cells=cells,
        said=said,
        groups=groups,
        files={name: other.kept(other.known, None) for name, other in others.items()},
        cascade=_together(models, answers, rows, judged, answer, promise) | _cost(compared, judged.file, answer),
        better={name: models[TEACHER].task.better(name) for name in (models[TEACHER].task.metric, *ALSO)},
        broken=_broken(promise.epsilon, {"all": {"all": kept}, "decision": cells, "answer": said}[promise.per] | of_groups),
        curve=seen.curve(promise),
        floor=promise.floor,
        home=_passing(heard, student, promise),
        foreign={
            name: _passing(other, array(models[judged.who].task.decide(other.logits)), promise)
            for name, rows in foreign.items()
            if len(rows)
            for other in (_heard(source, rows),)
        },
    )


def _passing(heard: _Heard, decision: NDArray[np.int64], promise: Promise) -> Passing:
    """How many of the rows a graph was asked it answers, and what stops the others."""
    rows, confident = len(decision), heard.confidence >= promise.limits[decision]
    below = Figure(None) if promise.floor is None else share(int(heard.below(promise.floor).sum()), rows)
    return Passing(rows, share(int(heard.answer.sum()), rows), share(int(confident.sum()), rows), below)


def _parts(seen: _Seen, test: Split, column: str, promise: Promise) -> dict[str, Kept]:
    """Every part of a declared column that has test rows, and every part of it of which something is promised."""
    cells = {cell.name: cell for cell in promise.cells if cell.of == column}
    group = test.groups[column]
    rows = {name: (group.codes == code).numpy() for code, name in enumerate(group.names)}
    rows = {name: mine for name, mine in rows.items() if name in cells or mine.any()}
    if (unknown := (group.codes < 0).numpy()).any() and MISSING not in rows:
        rows[MISSING] = unknown
    return {name: seen.kept(seen.known & mine, cells.get(name)) for name, mine in rows.items()}


def _broken(epsilon: float, cells: Mapping[str, Kept]) -> tuple[str, ...]:
    """Cells whose rate is above ε by exact bounds of its answered test rows, which all hold at once at 95 % (Bonferroni)."""
    there = {name: (cell.errors.value, cell.errors.n) for name, cell in cells.items() if cell.errors.value is not None and cell.errors.n}
    level = 1 - 2 * MISTAKEN / max(len(there), 1)  # of an interval, whose lower end alone counts
    return tuple(name for name, (rate, n) in there.items() if clopper_pearson(round(rate * n), n, level)[0] > epsilon)


class _Seen:
    """Test rows: how sure the student is, whether it answers, what it decides, and what is right, −1 where nobody knows."""

    def __init__(self, heard: _Heard, decision: NDArray, right: NDArray) -> None:
        self.heard, self.answer, self.decision, self.right = heard, heard.answer, decision, right
        self.known, self.wrong = right >= 0, (right >= 0) & (decision != right)

    def kept(self, chosen: NDArray[np.bool_], cell: Cell | None) -> Kept:
        here = chosen & self.answer
        return Kept(
            rows=int(chosen.sum()),
            answered=share(int(here.sum()), int(chosen.sum())),
            errors=share(int((here & self.wrong).sum()), int(here.sum())),
            unguarded=share(int((chosen & self.wrong).sum()), int(chosen.sum())),
            calibration_rows=None if cell is None else cell.rows,
            bound=None if cell is None else cell.bound,
            needed=None if cell is None else cell.needed,
        )

    def curve(self, promise: Promise) -> dict[str, tuple[float, ...]]:
        """By a guard that is ever laxer, all its thresholds together: 1 − λ of each decision in the proportion that was certified.

        Rows below the floor come last, so that the curve goes through what was certified.
        """
        room = np.ones(len(promise.thresholds))
        if promise.certified:
            room = np.maximum(1 - promise.limits.astype(np.float64), 0) + 1e-9  # 0 of what is never answered: that comes last
        slack = (1 - self.heard.confidence.astype(np.float64)) / room[self.decision]
        slack = np.where(self.heard.below(promise.floor), np.finfo(np.float64).max, slack)[self.known]
        order = np.argsort(slack, kind="stable")
        wrong = self.wrong[self.known][order].cumsum()
        count = len(order)
        ends = np.flatnonzero(np.diff(slack[order], append=np.inf) > 0) if count else np.zeros(0, int)  # rows alike come together
        at = ends[np.unique(np.searchsorted(ends, np.linspace(0, count - 1, POINTS)))] if count else ends
        intervals = [wilson(int(wrong[i]), int(i) + 1) for i in at]
        return {
            "answered": tuple(float((i + 1) / count) for i in at),
            "errors": tuple(float(wrong[i] / (i + 1)) for i in at),
            "low": tuple(low for low, _ in intervals),
            "high": tuple(high for _, high in intervals),
        }


def _together(
    models: Mapping[Who, Model], answers: Mapping[Who, Tensor], rows: Rows, judged: Judged, answer: NDArray[np.bool_], promise: Promise
) -> dict[str, dict[str, Figure]]:
    """Teacher, student and cascade by label, on the same resamples; the cascade decides by the teacher's rule, onto which it is moved."""
    if not rows.n:
        return {}
    theirs, mine = models[TEACHER].task, models[judged.who].task
    both = replace(promise, cut=mine.cut, target_cut=theirs.cut)  # by the rules of this very evaluation
    joint = joined(answers[judged.who], answers[TEACHER], torch.from_numpy(answer), both)
    asked: dict[str, tuple[Task, Tensor]] = {
        "teacher": (theirs, answers[TEACHER]),
        "student": (mine, answers[judged.who]),
        "cascade": (theirs, joint),
    }
    metrics = (theirs.metric, *ALSO)
    statistics = {
        (who, metric): statistic
        for who, (task, logits) in asked.items()
        for metric, statistic in task.figures(logits[rows.labelled], rows.labels_known).items()
        if metric in metrics
    }
    drawn = bootstrap(statistics, rows.n, resamples=resamples(rows.n), weight=rows.labelled_weight)
    found: dict[str, dict[str, Figure]] = {}
    trials = trials_of(rows, theirs)
    for metric in dict.fromkeys(metric for _, metric in statistics):
        found[metric] = {who: figure(drawn[who, metric], trials=trials[metric]) for who in asked}
        found[metric]["difference"] = figure(drawn["cascade", metric] - drawn["teacher", metric], paired=True)
    if "accuracy" in found and rows.weight is None and rows.labels is not None and answer.any():
        t, c = (theirs.decide(logits[rows.labelled]) == rows.labels[rows.labelled] for logits in (answers[TEACHER], joint))
        ends = paired_proportions(int((c & ~t).sum()), int((t & ~c).sum()), rows.n)
        difference = found["accuracy"]["difference"]
        found["accuracy"]["difference"] = replace(difference, low=ends[0], high=ends[1], how="paired score interval (Tango)")
    return found


def _cost(compared: Compared, file: str, answer: NDArray[np.bool_]) -> dict[str, dict[str, Figure]]:
    """How often the teacher is asked, and what a row takes: the student's median call always, the teacher's for the rest."""
    rng = np.random.default_rng(0)
    left = 1 - answer.mean() if len(answer) else 0.0
    asks = rng.binomial(max(len(answer), 1), left, DRAWS) / max(len(answer), 1)
    one = {who: 1000 * compared.seconds_one[who] for who in (file, "teacher")}  # by rounds, which are paired
    student, teacher = (float(np.median(calls)) for calls in one.values())
    some = rng.integers(0, len(one[file]), (DRAWS, len(one[file])))
    s, t = (np.array([np.median(calls[rounds]) for rounds in some]) for calls in one.values())
    how = "medians of measured calls of one row; bootstrap over rounds and test rows"

    def ms(value: float, draws: NDArray[np.float64]) -> Figure:
        return Figure.of(value, *(float(q) for q in np.quantile(draws, (0.025, 0.975))), unit="ms", n=len(answer), how=how)

    return {
        "teacher_asked": {"cascade": share(int((~answer).sum()), len(answer))},
        "latency_ms": {
            "teacher": ms(teacher, t),
            "student": ms(student, s),
            "cascade": ms(student + left * teacher, s + asks * t),
        },
    }


@dataclass(frozen=True)
class _Heard:
    """(N, C) logits, (N,) confidence, answer and energy, as the graph says them; None where it says nothing of energy."""

    logits: Tensor
    confidence: NDArray[np.float32]
    answer: NDArray[np.bool_]
    energy: NDArray[np.float32] | None

    def below(self, floor: float | None) -> NDArray[np.bool_]:
        """(N,) which rows have less energy than that."""
        if floor is None or self.energy is None:
            return np.zeros(len(self.answer), bool)
        return self.energy < np.float32(floor)


def _heard(source: Onnx, split: Split) -> _Heard:
    found = [source.guarded(split.batch(index)) for index in torch.arange(len(split)).split(BATCH)]
    energies = [f.energy for f in found if f.energy is not None]
    return _Heard(
        torch.cat([f.output for f in found]).double(),
        torch.cat([f.confidence for f in found]).numpy(),
        torch.cat([f.answer for f in found]).numpy(),
        torch.cat(energies).numpy() if energies else None,
    )


def _decided(models: Mapping[Who, Model], answers: Mapping[Who, Tensor], who: Who) -> NDArray[np.int64]:
    return array(models[who].task.decide(answers[who]))


def _labels(rows: Rows) -> Tensor:
    return torch.full((rows.count,), -1) if rows.labels is None else rows.labels
