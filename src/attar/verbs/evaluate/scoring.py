"""How well everyone answers the labelled test rows: every metric, and paired intervals of every difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from attar.certificate import Figure, Quality
from attar.statistics import Draws, Effect, bootstrap, mcnemar, paired_proportions, seed_effect, wilson
from attar.task import Task
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, arms_of

__all__ = ["STUDENT", "Drawn", "discordant", "drawn", "effect", "figure", "quality", "resamples", "share"]

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
    found = {}
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
            teacher=figure(draws[TEACHER, metric]),
            student=figure(draws[judged.who, metric]),
            difference=difference,
            files={name: figure(draws[Who("file", name), metric]) for name in judged.files},
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


def figure(draws: Draws, *, paired: bool = False, unit: str = "") -> Figure:
    """A figure with its BCa interval."""
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
