"""What unlabelled test rows, calibration rows and DeLong's formula show beyond the metrics, of a classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from attar.certificate import Evidence, Figure, Powered, Sets
from attar.data import Data, Split
from attar.statistics import (
    auroc_difference,
    bootstrap,
    conformal_rows,
    conformal_sets,
    conformal_spread,
    conformal_thresholds,
    delong,
    metrics,
    prediction_powered,
)
from attar.statistics.inference import FEWEST_DISAGREEMENTS
from attar.task import Task
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, array
from attar.verbs.evaluate.scoring import figure, resamples, share

__all__ = ["evidence"]

ALPHA = 0.1  # of conformal sets: the share of right outcomes that they may miss
WEIGHTED = "refused: rows are weighted, and these intervals take them as alike"
NAMED = 3  # classes named where many have too few rows


@dataclass(frozen=True)
class Answered:
    """Canonical answers of teacher and student to the same rows, (N, C) each."""

    teacher: Tensor
    student: Tensor

    def pairs(self) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        return ("teacher", self.teacher), ("student", self.student)


def evidence(
    models: Mapping[Who, Model], answers: Mapping[Who, Tensor], rows: Rows, judged: Judged, data: Data, task: Task
) -> Evidence | None:
    """The section of a classification; None of any other task. Asks teacher and student the labelled calibration rows."""
    if task.kind != "classification":
        return None
    at_test = Answered(answers[TEACHER], answers[judged.who])
    compared, p = _delong(at_test, rows, task)
    return Evidence(_powered(models, at_test, rows, judged), _sets(models, at_test, rows, judged, data), compared, p)


def _powered(models: Mapping[Who, Model], at_test: Answered, rows: Rows, judged: Judged) -> Powered | None:
    """The student's accuracy with the teacher's decisions standing in for the labels that are missing."""
    if rows.n == rows.count:
        return None
    s, t = models[judged.who].task.decide(at_test.student), models[TEACHER].task.decide(at_test.teacher)
    labelled = np.zeros(rows.count, dtype=bool)
    labelled[rows.labelled.numpy()] = True
    agrees, s = array(s == t), array(s)
    right = s[labelled] == array(rows.labels)[labelled] if rows.labels is not None else np.zeros(0, dtype=bool)
    plain = share(int(right.sum()), rows.n)
    if rows.weight is not None:
        return Powered(Figure(None), Figure(None), rows.n, rows.count - rows.n, int((~agrees[labelled]).sum()), WEIGHTED)
    found = prediction_powered(right, agrees[labelled], agrees[~labelled])
    how = "prediction-powered, λ = 1, normal interval; labelled rows taken as a random sample of the test rows"
    accuracy = Figure.of(found.value, found.low, found.high, n=rows.count, how=how)
    refused = ""
    if found.refused:
        seen = f"student and teacher disagree on {found.disagreements:,} of {rows.n:,} labelled rows, and {FEWEST_DISAGREEMENTS} are needed"
        more = "they never disagree, so that no number of labels would do"
        if found.labels_needed is not None:
            more = f"about {found.labels_needed:,} labels, drawn at random, would do"
        refused = f"refused: {seen}; {more}"
    return Powered(accuracy, plain, found.labelled, found.unlabelled, found.disagreements, refused, found.labels_needed)


def _sets(models: Mapping[Who, Model], at_test: Answered, rows: Rows, judged: Judged, data: Data) -> dict[str, Sets]:
    """Conformal sets with one threshold for all classes, and with one for each."""
    split = _labelled(data.calibration, models[TEACHER].task)
    if rows.weight is not None or split.weight is not None:
        return {form: Sets(len(split), Figure(1 - ALPHA), refused=WEIGHTED) for form in ("all classes", "each class")}
    labels = np.zeros(0, dtype=np.int64) if split.labels is None else array(split.labels)
    counts = np.bincount(labels, minlength=len(data.schema.classes))
    needed = conformal_rows(ALPHA)
    found = {}
    at_calibration = None
    for form, fewest in (("all classes", len(labels)), ("each class", int(counts.min()))):
        if fewest < needed:
            why = _too_few(counts, data.schema.classes) if form == "each class" and len(labels) >= needed else _fewest(len(labels))
            found[form] = Sets(fewest, Figure(1 - ALPHA), refused=why, rows_needed=needed)
            continue
        if at_calibration is None:
            at_calibration = Answered(models[TEACHER].ask(split), models[judged.who].ask(split))
        found[form] = _counted(at_calibration, labels, at_test, rows, fewest, by_class=form == "each class")
    return found


def _counted(at_calibration: Answered, labels: NDArray[np.int64], at_test: Answered, rows: Rows, fewest: int, *, by_class: bool) -> Sets:
    """Sets fitted on calibration rows, and how often they hold the right outcome, and how large they are, on test rows."""
    sizes, coverage = {}, {}
    known = array(rows.labelled)
    for (who, fitted), (_, asked) in zip(at_calibration.pairs(), at_test.pairs(), strict=True):
        thresholds = conformal_thresholds(metrics.log_softmax(array(fitted)), labels, ALPHA, by_class=by_class)
        held = conformal_sets(metrics.log_softmax(array(asked)), thresholds)
        sizes[who] = held.sum(-1)
        if rows.n and rows.labels is not None:
            coverage[who] = share(int(held[known, array(rows.labels)[known]].sum()), rows.n)
    drawn = bootstrap({who: partial(metrics.mean, size) for who, size in sizes.items()}, rows.count, resamples=resamples(rows.count))
    of = "the smallest class" if by_class else "a split"
    promised = Figure.of(
        1 - ALPHA,
        *conformal_spread(fewest, ALPHA),
        n=fewest,
        how=f"where the share lies for 95 % of calibration splits, {fewest:,} rows of {of}",
    )
    ratio = drawn["student"] / drawn["teacher"]
    how = f"paired BCa bootstrap over test rows, {len(ratio.draws):,} resamples"
    return Sets(
        fewest,
        promised,
        coverage,
        {who: figure(d) for who, d in drawn.items()},
        Figure.of(ratio.value, *ratio.interval(), unit="×", n=rows.count, how=how),
    )


def _labelled(split: Split, task: Task) -> Split:
    known = torch.zeros(len(split), dtype=torch.bool) if split.labels is None else task.known(split.labels)
    return split.take(torch.nonzero(known)[:, 0])


def _fewest(count: int) -> str:
    return f"refused: {count:,} calibration rows have a label, and {conformal_rows(ALPHA)} are needed"


def _too_few(counts: NDArray[np.int64], names: tuple[str, ...]) -> str:
    """Which classes have too few calibration rows."""
    few = np.flatnonzero(counts < conformal_rows(ALPHA))
    shown = ", ".join(f"{names[i]!r} {counts[i]}" for i in few[:NAMED]) + (", …" if len(few) > NAMED else "")
    have = "has" if len(few) == 1 else "have"
    return f"refused: {len(few):,} of {len(names):,} classes {have} fewer than {conformal_rows(ALPHA)} labelled calibration rows: {shown}"


def _delong(at_test: Answered, rows: Rows, task: Task) -> tuple[dict[str, Figure], float | None]:
    """AUROC of both and their difference by DeLong's formula, where AUROC of two classes is the metric and rows weigh alike."""
    if task.metric != "auroc" or task.outcomes != 2 or rows.weight is not None or rows.labels is None:
        return {}, None
    positive = array(rows.labels[rows.labelled] == 1)
    scores = np.stack([array(task.score(asked[rows.labelled])) for _, asked in at_test.pairs()])
    value, covariance = delong(scores, positive)
    if not np.isfinite(value).all():
        return {}, None
    how = "DeLong, normal interval"
    half = special.ndtri(0.975) * np.sqrt(np.diag(covariance))
    half[half == 0] = np.nan  # a perfect ranking has no spread to tell an interval by
    found = {
        who: Figure.of(v, max(0.0, v - h), min(1.0, v + h), n=rows.n, how=how)
        for who, v, h in zip(("teacher", "student"), value, half, strict=True)
    }
    difference = auroc_difference(scores[1], scores[0], positive)
    found["difference"] = Figure.of(difference.value, difference.low, difference.high, n=rows.n, how=how)
    return found, None if np.isnan(difference.p) else difference.p
