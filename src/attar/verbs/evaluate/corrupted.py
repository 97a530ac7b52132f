"""Test rows under corruptions: teacher and student are asked each of them, and their errors compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from attar.certificate import Figure
from attar.certificate.corrupted import Corrupted, Corruption, Severity
from attar.data import Corruptions, Data, Split
from attar.data.corrupted import Corruptor
from attar.errors import DataError, TeacherError
from attar.progress import Event, Listener
from attar.statistics import Draws, bootstrap, metrics
from attar.statistics.intervals import Statistic
from attar.statistics.shift import clustered_mean, corruption_error, error_of, mean_error, relative_error
from attar.task import Task
from attar.verbs.evaluate.label_free import Answered, label_free
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, array
from attar.verbs.evaluate.scoring import figure, kish, resamples, trials_of

__all__ = ["corrupted", "corruptor"]

MANY = 0.01  # of the resamples: beyond it a ratio without a denominator in them has no interval
CLEAN = ("", 0)  # the key of rows as they are
Under = tuple[str, int]  # kind and severity


def corruptor(asked: Sequence[Any], data: Data) -> Corruptor | None:
    """The corruptions among what is asked under `shift`, made ready; None where there are none. Raises DataError where they do not fit."""
    found = [item for item in asked if isinstance(item, Corruptions)]
    if len(found) > 1:
        raise DataError(f"corruptions stand {len(found)} times under shift", hint="once, with kinds=[…] of all that are asked")
    return found[0].of(data) if found else None


def corrupted(
    ready: Corruptor, test: Split, models: Mapping[Who, Model], judged: Judged, task: Task, home: Answered, listen: Listener
) -> Corrupted:
    """Teacher and certified student under each corruption; controls are not asked, for that would cost as much for each seed of each.

    home: all test rows as they are, whose labels say how often the student is right where it agrees.
    A kind that teacher or student cannot answer, as missing values by a model that knows none, is left out, with what it said.
    """
    split = ready.some(test)
    asked = {who: models[who] for who in (TEACHER, judged.who)}
    answers: dict[Under, dict[Who, Tensor]] = {CLEAN: {who: model.ask(split) for who, model in asked.items()}}
    left_out = dict(ready.left_out)
    severities = ready.spec.severities
    for done, kind in enumerate(ready.changes):
        listen(Event("evaluate", done, len(ready.changes), text=f"corrupted: {len(split):,} rows under {kind.replace('_', ' ')}"))
        try:
            for severity in severities:
                rows = ready.split(split, kind, severity)
                answers[kind, severity] = {who: model.ask(rows) for who, model in asked.items()}
        except (TeacherError, ValueError) as error:  # a ValueError is what scikit-learn raises of rows that it cannot read
            left_out[kind] = str(error).split("\n")[0]
            answers = {under: found for under, found in answers.items() if under[0] != kind}
    if len(answers) == 1:
        why = "; ".join(f"{kind}: {reason}" for kind, reason in left_out.items())
        raise DataError(f"no corruption could be answered: {why}", hint="leave corruptions() out, or name kinds that can")
    rows = Rows.of(split, task)
    errors, alike = _drawn(answers, models, rows, judged, task), _alike(answers, models, rows, judged, task)
    kinds = {}
    ratios: dict[str, tuple[Draws, Draws]] = {}
    for kind in dict.fromkeys(under[0] for under in answers if under != CLEAN):
        each = {}
        for severity in severities:
            free = label_free(home, Answered(answers[kind, severity], rows), models, judged.who)
            each[str(severity)] = _severity((kind, severity), errors, alike, rows, judged, task, free)
        means = {who: _mean(errors, kind, severities, who, rows, task) for who in (TEACHER, judged.who)}
        error, relative = Figure(None), Figure(None)
        if errors:
            ratios[kind] = _ratios(errors, kind, severities, judged, task)
            error, relative = (_figure(ratio) for ratio in ratios[kind])
        likeness = _likeness(Draws.average(alike[kind, severity] for severity in severities), rows, task)
        kinds[kind] = Corruption(each, means[TEACHER], means[judged.who], likeness, error, relative)
    error, relative = (_mean_ratio([r[which] for r in ratios.values()]) for which in (0, 1))
    told, assumed, believed, doubted = _checked(kinds, home, models, judged)
    return Corrupted(
        spec=repr(ready.spec),
        rows=rows.count,
        labelled=rows.n,
        metric=task.metric,
        better=task.better(task.metric),
        alike_by=task.alike_by,
        clean=_severity(CLEAN, errors, alike, rows, judged, task, None),
        kinds=kinds,
        error=error,
        relative=relative,
        left_out=left_out,
        told=told,
        assumed=assumed,
        believed=believed,
        doubted=doubted,
    )


Errors = Mapping[tuple[Under, Who], Draws]


def _drawn(answers: Mapping[Under, Mapping[Who, Tensor]], models: Mapping[Who, Model], rows: Rows, judged: Judged, task: Task) -> Errors:
    """The primary metric of both everywhere, on the same resamples of the rows: all ratios are paired. Empty where no row has a label."""
    if not rows.n:
        return {}
    statistics = {
        (under, who): models[who].task.figures(output[rows.labelled], rows.labels_known, rows.texts_known)[task.metric]
        for under, both in answers.items()
        for who, output in both.items()
    }
    return bootstrap(statistics, rows.n, resamples=resamples(rows.n), weight=rows.labelled_weight)


def _alike(
    answers: Mapping[Under, Mapping[Who, Tensor]], models: Mapping[Who, Model], rows: Rows, judged: Judged, task: Task
) -> Mapping[Under, Draws]:
    """How like the teacher the student answers, labelled or not, by the task's own measure."""
    statistics: dict[Under, Statistic] = {}
    for under, both in answers.items():
        t, s = both[TEACHER], both[judged.who]
        if task.alike_by == "agreement":
            same = array(models[TEACHER].task.decide(t)) == array(models[judged.who].task.decide(s))
            statistics[under] = partial(metrics.mean, same.reshape(len(same), -1).mean(-1))
        else:
            statistics[under] = task.likeness(t, s, rows.mask)[task.alike_by]
    return bootstrap(statistics, rows.count, resamples=resamples(rows.count), weight=rows.weight)


def _severity(under: Under, errors: Errors, alike: Mapping[Under, Draws], rows: Rows, judged: Judged, task: Task, free: Any) -> Severity:
    trials = trials_of(rows, task)[task.metric]
    teacher, student = (figure(errors[under, who], trials=trials) if errors else Figure(None) for who in (TEACHER, judged.who))
    return Severity(teacher, student, _likeness(alike[under], rows, task), free)


def _likeness(drawn: Draws, rows: Rows, task: Task) -> Figure:
    count = kish(np.ones(rows.count) if rows.weight is None else rows.weight)
    return figure(drawn, trials=count if task.alike_by == "agreement" else None)


def _mean(errors: Errors, kind: str, severities: Sequence[int], who: Who, rows: Rows, task: Task) -> Figure:
    if not errors:
        return Figure(None)
    return figure(Draws.average(errors[(kind, s), who] for s in severities), trials=trials_of(rows, task)[task.metric])


def _ratios(errors: Errors, kind: str, severities: Sequence[int], judged: Judged, task: Task) -> tuple[Draws, Draws]:
    """CE and relative CE of one kind."""
    better = task.better(task.metric)
    (t, t_clean), (s, s_clean) = (
        ([error_of(errors[(kind, n), who], better) for n in severities], error_of(errors[CLEAN, who], better))
        for who in (TEACHER, judged.who)
    )
    return corruption_error(s, t), relative_error(s, t, s_clean, t_clean)


def _figure(ratio: Draws) -> Figure:
    """A ratio with its interval, or nothing: one whose denominator is too often nothing has no interval, and is not told.

    Resamples without a denominator are those whose ratio is largest: left out they lower the upper end, and beyond a hundredth of all
    they are too many of the fortieth that lies above it.
    """
    without = int(np.isnan(ratio.draws).sum())
    if math.isnan(ratio.value) or without > MANY * len(ratio.draws):
        few = "the teacher loses nothing, or so little that no interval can be told"
        if not math.isnan(ratio.value):
            few += f": nothing in {without:,} of {len(ratio.draws):,} resamples"
        return Figure(None, unit="×", n=ratio.rows, how=few)
    found = figure(ratio, paired=True, unit="×")
    return replace(found, how=f"{found.how}, {without:,} left out in which the teacher loses nothing") if without else found


def _mean_ratio(ratios: Sequence[Draws]) -> Figure:
    """Over the kinds that have one; how many these are is said."""
    if not ratios:
        return Figure(None)
    found = _figure(mean_error(ratios))
    there = sum(not math.isnan(ratio.value) for ratio in ratios)
    return replace(found, how=f"mean over {there} of {len(ratios)} kinds; {found.how}")


def _checked(
    kinds: Mapping[str, Corruption], home: Answered, models: Mapping[Who, Model], judged: Judged
) -> tuple[Figure, Figure, int, int]:
    """How far off the believed estimates were, and the accuracy at home on the same rows; how many were believed, and how many not."""
    free = [s.label_free for kind in kinds.values() for s in kind.severities.values() if s.label_free is not None]
    believed = [f for f in free if f.believed]
    pairs = [
        (f.estimate.value, f.truth.value, number)
        for number, kind in enumerate(kinds.values())
        for f in (s.label_free for s in kind.severities.values())
        if f is not None and f.believed and f.estimate.value is not None and f.truth.value is not None
    ]
    if not pairs:
        return Figure(None), Figure(None), len(believed), len(free) - len(believed)
    told, truth, of = np.array(pairs).T
    model, known, labels = models[judged.who], home.rows.labelled, home.rows.labels_known
    assert labels is not None  # there are truths
    at_home = model.task.measure(home.answers[judged.who][known], labels, home.rows.labelled_weight)["accuracy"]
    how = f"mean of |told − by labels| over {len(pairs)} pairs of a kind and a severity; t over kinds, the rows as they are"
    off, assumed = (_off(x - truth, of, how) for x in (told, at_home))
    return off, assumed, len(believed), len(free) - len(believed)


def _off(differences: np.ndarray, kind: np.ndarray, how: str) -> Figure:
    mean, low, high = clustered_mean(np.abs(differences), kind)
    return Figure.of(mean, np.fmax(low, 0.0) if math.isfinite(high) else low, high, n=len(differences), how=how)
