"""Foreign inputs: rows that are not of the task, and how well student and teacher tell them from test rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.certificate import Figure, Quality
from attar.certificate.foreign import FIGURES, Foreign
from attar.data import Data, Split
from attar.data.unlabelled import Unlabelled, apart
from attar.errors import DataError, TapError, TeacherError
from attar.identity import digest
from attar.reading.text import AT_ONCE
from attar.sources.onnx import Onnx
from attar.statistics import Draws, wilson
from attar.statistics.foreign import KNN, Gaussians, confidence, energy, figures, knn, resampled_apart, roc
from attar.task import Task
from attar.verbs.evaluate.elsewhere import laid_out
from attar.verbs.evaluate.models import BATCH, TEACHER, Judged, Model, Who, array
from attar.verbs.evaluate.scoring import resamples

__all__ = ["foreign", "strangers", "unseen"]

ENOUGH = 30  # rows of each side; with fewer the interval of a share is wider than a third
FITTED = 5_000  # training rows whose features the detectors by features know
NORMALISED = 0.02  # log Σ p of log-probabilities that were stored with 11 bits
SCORES = 5  # of each side, on every resample: of more than 40,000 rows there are fewer resamples than of one metric
TAP = "embedding"

Array = NDArray[np.float64]


def strangers(name: str, other: Data | Unlabelled, home: Data) -> Split:
    """All rows of `other` in the form of `home`'s; labels are ignored, and classes may be others.

    Raises DataError for a task without classes, for other columns, shapes or texts, for no rows, and where all rows are home's own.
    """
    if home.kind not in ("classification", "multilabel"):
        what = "numbers" if home.kind == "regression" else "vectors"
        raise DataError(f"foreign {name!r}: the task asks for {what}, and foreign rows are told by answers of classes")
    if isinstance(other, Data) and not any(map(len, other.splits.values())):
        raise DataError(f"foreign {name!r} has no rows")
    split = apart(home, other, name) if isinstance(other, Unlabelled) else laid_out(name, other, home, as_what="foreign")
    if not len(split):
        raise DataError(f"foreign {name!r} has no rows", hint="is it the right file?")
    if bool(torch.isin(split.ids, torch.cat([part.ids for part in home.splits.values()])).all()):
        raise DataError(f"foreign {name!r}: all {len(split):,} rows are among those at home", hint="is it the same file?")
    return split


def unseen(others: Mapping[str, Split], seen: Tensor, data: Data) -> dict[str, Split]:
    """The rows of each that are no test rows and not among `seen`, ids that student or teacher learned from."""
    known = torch.cat([seen, data.test.ids])
    return {name: split.take((~torch.isin(split.ids, known)).nonzero().squeeze(1)) for name, split in others.items()}


def foreign(
    others: Mapping[str, Split],
    seen: Tensor,
    models: Mapping[Who, Model],
    answers: Mapping[Who, Tensor],
    judged: Judged,
    data: Data,
    task: Task,
    say: Callable[[str], None],
) -> dict[str, Foreign]:
    """What is told of each set of foreign rows, by confidence and energy of the answers and, where there are features, by those.

    others: all rows of each; what is not `unseen` is left out. answers: to the test rows.
    Energy is that of the raw logits at T = 1: an exported file's are multiplied by its temperature, any other source's taken as it
    answers. Features are what the last linear layer reads, of the exported graph its output `features`, of a module the tap `embedding`;
    neighbours and Gaussians are those of at most 5,000 training rows, spread evenly.
    Raises TeacherError for answers or features that are no numbers.
    """
    mine = unseen(others, seen, data)
    sides: dict[str, _Side] = {}
    if any(len(split) >= ENOUGH for split in mine.values()) and len(data.test) >= ENOUGH:
        source = models[TEACHER].source
        raw = source.temperature if isinstance(source, Onnx) else 1.0
        for who, key, temperature in (("teacher", TEACHER, raw), ("student", judged.who, judged.temperature)):
            say(f"foreign inputs: fitting the {who}'s detectors")
            sides[who] = _side(who, models[key], answers[key], temperature, data, task)
    found = {}
    for name, split in mine.items():
        left_out, mark = len(others[name]) - len(split), digest(others[name].ids.numpy())
        if min(len(split), len(data.test)) < ENOUGH:
            found[name] = Foreign(mark, len(split), len(data.test), left_out, ENOUGH)
            continue
        say(f"foreign inputs: {len(split):,} rows of {name}")
        found[name] = _told(sides, split, Foreign(mark, len(split), len(data.test), left_out))
    return found


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared: how it scores rows, by detector.

    scores: of a split, whose answers are asked where they are not there already. home: those of the test rows.
    hows: by detector, how it was made. notes: what is missing.
    """

    scores: Callable[[Split, Tensor | None], dict[str, Array]]
    home: Mapping[str, Array]
    hows: Mapping[str, str]
    notes: tuple[str, ...]


def _side(who: str, model: Model, answers: Tensor, temperature: float, data: Data, task: Task) -> _Side:
    """temperature: that its logits were divided by. answers: to the test rows."""
    speaks = bool(np.abs(energy(array(answers) * temperature)).max() > NORMALISED * max(1, task.labels))
    inside, hows, notes = _insides(who, model, data, task)

    def scores(split: Split, answers: Tensor | None = None) -> dict[str, Array]:
        logits = array(model.ask(split) if answers is None else answers)
        found = {"confidence": confidence(logits)}
        if speaks:
            found["energy"] = energy(logits * temperature)
        return found | ({} if inside is None else inside(split))

    mute = () if speaks else (f"the {who} answers log-probabilities, whose energy is 0 for every row",)
    return _Side(scores, scores(data.test, answers), {"energy": "raw logits, T = 1", **hows}, (*mute, *notes))


def _insides(
    who: str, model: Model, data: Data, task: Task
) -> tuple[Callable[[Split], dict[str, Array]] | None, dict[str, str], tuple[str, ...]]:
    """The detectors by features, how they were made, and notes on those that cannot be."""
    count = len(data.train)
    some = data.train.take(torch.linspace(0, count - 1, min(count, FITTED)).long())
    asked = _features(who, model, some)
    if asked is None:
        hint = "a run with foreign inputs exports them" if isinstance(model.source, Onnx) else f"it cannot be tapped at `{TAP}`"
        return None, {}, (f"the {who} shows no features ({hint}): it has no detectors by features",)
    features, decided = asked
    rows, width = features.shape
    hows, notes, gaussians = {"knn": f"k = {min(KNN, rows)} of {rows:,} training rows, features of length 1"}, (), None
    if task.kind == "classification":
        labels = decided if some.labels is None else torch.where(task.known(some.labels), some.labels, decided)
        classes = len(labels.unique())
        if rows - classes >= width:
            gaussians = Gaussians.fit(features, labels.numpy())
            hows["mahalanobis"] = f"{classes:,} classes with one covariance, of {rows:,} training rows"
            hows["relative_mahalanobis"] = "the same, less the distance by one Gaussian of all these rows"
        else:
            notes = (f"the {who}'s features have {width:,} coordinates, too many for a covariance of {rows:,} training rows",)

    def scores(split: Split) -> dict[str, Array]:
        asked = _features(who, model, split)
        assert asked is not None  # it had features of the training rows
        found = {"knn": knn(asked[0], features)}
        if gaussians is not None:
            found |= {"mahalanobis": gaussians.mahalanobis(asked[0]), "relative_mahalanobis": gaussians.relative(asked[0])}
        return found

    return scores, hows, notes


def _features(who: str, model: Model, split: Split) -> tuple[Array, Tensor] | None:
    """(N, D) features of a split, and what is decided of each row; None of a source that shows none. Raises TeacherError for NaN."""
    features, decided = [], []
    size = AT_ONCE if split.schema.kind == "text" else BATCH  # a tapped network is asked all its texts at once
    for index in torch.arange(len(split)).split(size):
        try:
            signal = model.source(split.batch(index), frozenset({TAP}))
        except TapError:
            return None
        tap = signal.taps.get(TAP)
        if tap is None or tap.dim() != 2:
            return None
        broken = ~torch.isfinite(tap).all(1)
        if bool(broken.any()):
            at = int(index[torch.nonzero(broken)[0, 0]])
            raise TeacherError(f"the {who} has features that are no numbers for {split.name} row {at} (id {int(split.ids[at])})")
        features.append(array(tap))
        decided.append(model.task.decide(model.task.canonical(signal.output.detach().cpu())))
    return np.concatenate(features), torch.cat(decided)


def _told(sides: Mapping[str, _Side], split: Split, counts: Foreign) -> Foreign:
    """Every detector of both on these rows, all on the same resamples."""
    home = np.arange(counts.home + counts.rows) < counts.home
    scores = {}
    for who, side in sides.items():
        away = side.scores(split, None)
        scores |= {(who, detector): np.concatenate([side.home[detector], away[detector]]) for detector in away}
    statistics = {(*key, name): figure for key, each in scores.items() for name, figure in figures(each, home).items()}
    draws = resampled_apart(statistics, counts.home, counts.rows, resamples=resamples(SCORES * len(home)))
    detectors = dict.fromkeys(detector for _, detector in scores)
    curves = {who: roc(scores[who, "confidence"], home) for who in sides}
    return Foreign(
        data=counts.data,
        rows=counts.rows,
        home=counts.home,
        left_out=counts.left_out,
        detectors={d: {name: _both(draws, d, name, sides["student"].hows.get(d, ""), counts) for name in FIGURES} for d in detectors},
        curves={who: {"foreign": _plain(fpr), "home": _plain(tpr)} for who, (fpr, tpr) in curves.items()},
        notes=tuple(note for side in sides.values() for note in side.notes),
    )


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(values.round(5).tolist())


def _both(draws: Mapping[tuple[str, str, str], Draws], detector: str, name: str, made: str, counts: Foreign) -> Quality:
    trials = counts.rows if name == "fpr_at_95" else min(counts.rows, counts.home)
    each = {who: draws.get((who, detector, name)) for who in ("teacher", "student")}
    teacher, student = (_figure(found, trials, made) for found in each.values())
    return Quality(1 if name == "auroc" else -1, teacher, student, _difference(each["teacher"], each["student"], teacher, student, made))


def _figure(draws: Draws | None, trials: int, made: str) -> Figure:
    """Where every resample gives the same, as with no row out of place, a bootstrap sees no spread: then a proportion of `trials` rows."""
    if draws is None:
        return Figure(None)
    ends, how = draws.interval(), _how(draws, made)
    if ends[0] == ends[1]:
        ends, how = wilson(round(draws.value * trials), trials), f"Wilson interval of {trials:,} rows"
    return Figure.of(draws.value, *ends, n=draws.rows, how=how)


def _difference(a: Draws | None, b: Draws | None, teacher: Figure, student: Figure, made: str) -> Figure:
    """Student − teacher, paired; where every resample gives the same, from the intervals of both (square and add, Zou and Donner 2008)."""
    if a is None or b is None:
        return Figure(None)
    difference = b - a
    low, high = difference.interval()
    if low != high:
        return Figure.of(difference.value, low, high, n=difference.rows, how=f"paired; {_how(difference, made)}")
    below, above = (
        ((f.value or 0.0) - (f.low or 0.0) for f in (student, teacher)),
        ((f.high or 0.0) - (f.value or 0.0) for f in (student, teacher)),
    )
    (student_below, teacher_below), (student_above, teacher_above) = below, above
    ends = difference.value - math.hypot(student_below, teacher_above), difference.value + math.hypot(student_above, teacher_below)
    return Figure.of(difference.value, *ends, n=difference.rows, how="from the intervals of both, square and add (Zou and Donner)")


def _how(draws: Draws, made: str) -> str:
    return f"BCa bootstrap, test and foreign rows drawn apart, {len(draws.draws):,} resamples" + (f"; {made}" if made else "")
