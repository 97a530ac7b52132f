"""How well everyone answers the labelled test rows: every metric, and paired intervals of every difference."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attar.certificate import Figure, Quality
from attar.statistics import Draws, Effect, bootstrap, mcnemar, paired_proportions, seed_effect, unanimous, wilson
from attar.task import Task
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, arms_of

__all__ = ["STUDENT", "Drawn", "discordant", "drawn", "effect", "figure", "kish", "quality", "resamples", "share", "trials_of"]

STUDENT = "student"  # the arm whose first seed ships; all other arms are its controls
RESAMPLES = 2000
WORK = 400_000_000  # row counts drawn in all: beyond it, as with a million test rows, there are fewer resamples, but 200 at least

Drawn = Mapping[tuple[Who, str], Draws]


def drawn(models: Mapping[Who, Model], answers: Mapping[Who, Tensor], rows: Rows) -> Drawn:
    """Every metric of everyone, on the same resamples of the labelled rows; empty where none has a label."""
    if not rows.n:
        return {}
    statistics = {
        (who, metric): statistic
        for who, model in models.items()
        for metric, statistic in model.task.figures(answers[who][rows.labelled], rows.labels_known, rows.texts_known).items()
    }
    return bootstrap(statistics, rows.n, resamples=resamples(rows.n), weight=rows.labelled_weight)


def quality(
    draws: Drawn, models: Mapping[Who, Model], answers: Mapping[Who, Tensor], rows: Rows, judged: Judged, task: Task
) -> dict[str, Quality]:
    """The draws as figures, by metric, the primary one first."""
    counts = discordant(models, answers, rows, judged.who)
    found, trials = {}, trials_of(rows, task)
    for metric in dict.fromkeys(metric for _, metric in draws):
        difference = figure(draws[judged.who, metric] - draws[TEACHER, metric], paired=True)
        if metric == "accuracy" and counts is not None:
            low, high = paired_proportions(*counts, rows.n)
            how = f"paired score interval (Tango); exact McNemar p = {mcnemar(*counts):.3g}"
            difference = Figure.of(draws[judged.who, metric].value - draws[TEACHER, metric].value, low, high, n=rows.n, how=how)
        arms = arms_of(models)
        controls = [arm for arm in arms if arm != STUDENT] if STUDENT in arms else []
        found[metric] = Quality(
            better=task.better(metric),
            teacher=figure(draws[TEACHER, metric], trials=trials[metric]),
            student=figure(draws[judged.who, metric], trials=trials[metric]),
            difference=difference,
            files={name: figure(draws[Who("file", name), metric], trials=trials[metric]) for name in judged.files},
            arms={arm: _mean(seeds, draws, metric, rows, task.bounds(metric)) for arm, seeds in arms.items()},
            gains={arm: _gain(arms[STUDENT], arms[arm], draws, metric, rows, task) for arm in controls},
            seeds={arm: tuple(draws[seed, metric].value for seed in seeds) for arm, seeds in arms.items()},
        )
    return found


def effect(
    ours: Sequence[Who], control: Sequence[Who], draws: Drawn, metric: str, rows: Rows, task: Task, *, better: int, margin: float
) -> Effect:
    """What the student's arm gains over a control's, seed by seed; positive is better."""
    pairs = [(draws[a, metric] - draws[b, metric]) * better for a, b in zip(ours, control, strict=False)]
    least, most = task.bounds(metric)
    return _cut(_over_seeds(pairs, margin, rows), least - most, most - least)


def discordant(models: Mapping[Who, Model], answers: Mapping[Who, Tensor], rows: Rows, student: Who) -> tuple[int, int] | None:
    """Rows on which only the student, and only the teacher, is right; None where rows are weighted, or not right or wrong."""
    if rows.weight is not None or rows.labels is None or models[student].task.kind != "classification":
        return None
    y = rows.labels[rows.labelled]
    s, t = (models[who].task.decide(answers[who][rows.labelled]) == y for who in (student, TEACHER))
    return int((s & ~t).sum()), int((t & ~s).sum())


def resamples(rows: int) -> int:
    """How many resamples of so many rows are drawn."""
    return max(200, min(RESAMPLES, WORK // max(rows, 1)))


def trials_of(rows: Rows, task: Task) -> defaultdict[str, float | None]:
    """By metric, of how many independent rows it is a share; None of what is none.

    Rows that weigh differently count as (Σ w)² / Σ w² of them (Kish). Of an AUROC, where all pairs are ranked right or all wrong: the rows
    of the rarer class, each paired with one of the other.
    """
    found: defaultdict[str, float | None] = defaultdict(lambda: None)
    if not rows.n or task.kind not in ("classification", "multilabel"):
        return found
    weight = np.ones(rows.n) if rows.labelled_weight is None else rows.labelled_weight
    found["accuracy"] = kish(weight)
    if task.kind == "classification" and task.outcomes == 2:
        assert rows.labels is not None  # some are known
        positive = rows.labels[rows.labelled].numpy() == 1
        found["recall_at_fpr"], found["false_positive_rate"] = kish(weight[positive]), kish(weight[~positive])
        found["auroc"] = min(kish(weight[positive]), kish(weight[~positive]))
    return found


def kish(weight: NDArray[np.float64]) -> float:
    """As how many rows of one weight these count."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


def figure(draws: Draws, *, paired: bool = False, unit: str = "", trials: float | None = None) -> Figure:
    """A figure with its BCa interval.

    trials: of a share, of how many rows it is; where all these agree, no resample differs, and the exact interval stands in.
    """
    if trials and draws.value in (0.0, 1.0):
        how = f"exact interval (Clopper and Pearson), all of {trials:,.0f} alike"
        return Figure.of(draws.value, *unanimous(draws.value, trials), unit=unit, n=draws.rows, how=how)
    how = f"{'paired ' if paired else ''}BCa bootstrap over rows, {len(draws.draws):,} resamples"
    return Figure.of(draws.value, *draws.interval(), unit=unit, n=draws.rows, how=how)


def share(hits: int, rows: int) -> Figure:
    """A proportion with its Wilson interval; none of no rows."""
    if not rows:
        return Figure(None, how="no such row")
    return Figure.of(hits / rows, *wilson(hits, rows), n=rows, how="Wilson interval")


def _mean(seeds: Sequence[Who], draws: Drawn, metric: str, rows: Rows, bounds: tuple[float, float]) -> Figure:
    found = _over_seeds([draws[seed, metric] for seed in seeds], math.inf, rows)
    cut = _cut(found, *bounds)
    how = "mean over seeds, before export; t over seeds and rows" + (", cut off where the metric ends" if cut != found else "")
    return Figure.of(cut.difference, cut.low, cut.high, n=len(seeds), how=how)


def _over_seeds(pairs: Sequence[Draws], margin: float, rows: Rows) -> Effect:
    return seed_effect([p.value for p in pairs], Draws.average(pairs).se, [p.se for p in pairs], margin=margin, rows=rows.n)


def _cut(found: Effect, least: float, most: float) -> Effect:
    """Without the part of its interval that the metric cannot reach, of which t knows nothing: it covers the truth as often as before."""
    if not math.isfinite(found.high - found.low):
        return found
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def _gain(ours: Sequence[Who], control: Sequence[Who], draws: Drawn, metric: str, rows: Rows, task: Task) -> Figure:
    found = effect(ours, control, draws, metric, rows, task, better=1, margin=math.inf)
    how = "before export, paired by seeds and rows; t over seeds and rows"
    return Figure.of(found.difference, found.low, found.high, n=found.seeds, how=how)
