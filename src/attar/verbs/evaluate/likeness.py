"""Where the student differs from the teacher, and whether probabilities mean what they say; figures, and points for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.certificate import Figure
from attar.data import Data
from attar.statistics import bootstrap, calibration_error, metrics, reliability, vectors
from attar.statistics.intervals import Statistic
from attar.statistics.likeness import pairs_of
from attar.task import Task
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, array
from attar.verbs.evaluate.scoring import figure, kish, resamples, share

__all__ = ["Positions", "calibration", "fidelity", "pictures", "positions"]

FEW_VECTORS = 1000  # by which CKA is told


@dataclass(frozen=True)
class Positions:
    """Answers flattened to M decisions: one for each row, or one for each label of a multi-label row.

    teacher, student: (M, C) logits. decided: what each decides, (M,). label: (M,), −1 where unknown; None where no row has one.
    row, place: (M,) which row, which label of it. temperature: that the student's logits were divided by.
    """

    teacher: NDArray[np.float64]
    student: NDArray[np.float64]
    teacher_decides: NDArray[np.int64]
    student_decides: NDArray[np.int64]
    label: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    temperature: float
    rows: int
    weight: NDArray[np.float64] | None

    @property
    def single(self) -> bool:
        """Whether each row is one decision and all weigh alike: then proportions have their own intervals."""
        return self.weight is None and len(self.row) == self.rows


def positions(models: Mapping[Any, Model], answers: Mapping[Any, Tensor], rows: Rows, judged: Judged) -> Positions:
    """The answers of teacher and student, flattened."""
    t, s = answers[TEACHER], answers[judged.who]
    each = t.shape[1] if t.ndim == 3 else 1
    label = np.full(rows.count * each, -1, dtype=np.int64)
    if rows.labels is not None:
        label = np.where(array(rows.known), array(rows.labels), -1).reshape(-1)
    return Positions(
        teacher=array(t).reshape(-1, t.shape[-1]),
        student=array(s).reshape(-1, s.shape[-1]),
        teacher_decides=array(models[TEACHER].task.decide(t)).reshape(-1),
        student_decides=array(models[judged.who].task.decide(s)).reshape(-1),
        label=label,
        row=np.repeat(np.arange(rows.count), each),
        place=np.tile(np.arange(each), rows.count),
        temperature=judged.temperature,
        rows=rows.count,
        weight=rows.weight,
    )


def fidelity(answers: Mapping[Any, Tensor], at: Positions | None, rows: Rows, judged: Judged, task: Task) -> dict[str, Figure]:
    """Agreement over all and where the teacher is right, wrong, positive; Cohen's κ; mean KL. Of numbers: correlation and distance.

    Of vectors: whether both see alike which texts are alike, by cosines, nearest neighbours and linear CKA.
    """
    if at is None:
        t, s = answers[TEACHER], answers[judged.who]
        alike = task.likeness(t, s, rows.mask)
        drawn = bootstrap(alike, rows.count, resamples=resamples(rows.count), weight=rows.weight)
        if task.kind == "embedding":
            return {name: figure(drawn[name]) for name in alike} | {"cka": _cka(t, s, rows)}
        order = ("correlation", "rank_correlation", "mean_distance", "root_mean_square_distance")
        return {name: figure(drawn[name]) for name in order}
    alike = at.teacher_decides == at.student_decides
    known, right = at.label >= 0, at.teacher_decides == at.label
    where = {"agreement": np.ones(len(alike), dtype=bool)}
    if known.any():
        where |= {"agreement_teacher_right": known & right, "agreement_teacher_wrong": known & ~right}
    if at.teacher.shape[-1] == 2:
        where["agreement_teacher_positive"] = at.teacher_decides == 1
    statistics: dict[str, Statistic] = {
        "kappa": _over(at, partial(metrics.cohen_kappa, at.teacher_decides, at.student_decides)),
        "kl": _over(at, partial(metrics.mean, _kl(at.teacher, at.student))),
    }
    if not at.single:
        statistics |= {name: partial(_share, at, alike, chosen) for name, chosen in where.items() if chosen.any()}
    drawn = bootstrap(statistics, at.rows, resamples=resamples(at.rows), weight=at.weight)
    units = {"kl": "nats"}
    trials = {name: kish(np.ones(at.rows)[there] if at.weight is None else at.weight[there]) for name, there in _rows_in(at, where)}
    found = {name: figure(draws, unit=units.get(name, ""), trials=trials.get(name)) for name, draws in drawn.items()}
    if at.single:
        found |= {name: share(int(alike[chosen].sum()), int(chosen.sum())) for name, chosen in where.items()}
    order = [*where, "kappa", "kl"]
    return {name: found[name] for name in order if name in found}


def _rows_in(at: Positions, where: Mapping[str, NDArray[np.bool_]]) -> Iterable[tuple[str, NDArray[np.int64]]]:
    """The rows that have a decision among those chosen."""
    return ((name, np.unique(at.row[chosen])) for name, chosen in where.items())


def calibration(at: Positions | None) -> dict[str, dict[str, Figure]]:
    """Expected calibration error of the likeliest outcome, and proper scores: of the teacher, the student raw, and as it ships."""
    if at is None or not (known := at.label >= 0).any():
        return {}
    columns = {"teacher": at.teacher, "student raw": at.student * at.temperature, "student": at.student}
    if at.temperature == 1:
        del columns["student raw"]
    y, row = at.label[known], at.row[known]
    labelled, row = np.unique(row, return_inverse=True)  # resample rows with a label only
    weight = None if at.weight is None else at.weight[labelled]
    statistics: dict[tuple[str, str], Statistic] = {}
    for who, logits in columns.items():
        z = logits[known]
        said, came = np.exp(metrics.log_softmax(z)).max(-1), z.argmax(-1) == y
        for name, statistic in {
            "ece": partial(calibration_error, said, came),
            "ece_mass": partial(calibration_error, said, came, by="mass"),
            "log_loss": partial(metrics.mean, metrics.log_loss_rows(z, y)),
            "brier": partial(metrics.mean, metrics.brier_rows(z, y)),
        }.items():
            statistics[who, name] = partial(_at_rows, statistic, row)
    drawn = bootstrap(statistics, len(labelled), resamples=resamples(len(labelled)), weight=weight)
    names = dict.fromkeys(name for _, name in statistics)
    return {who: {name: figure(drawn[who, name]) for name in names} for who in columns}


def pictures(at: Positions | None, answers: Mapping[Any, Tensor], judged: Judged, data: Data, task: Task) -> dict[str, Any]:
    """Points to draw: reliability of the likeliest outcome, with two outcomes of the positive one too.

    Of numbers the numbers, of vectors the cosines of pairs of texts, by both.
    """
    mask = data.test.mask
    if at is None:
        if task.kind == "embedding":
            t, s = _similarities(answers[TEACHER], mask), _similarities(answers[judged.who], mask)
        else:
            t, s = array(answers[TEACHER])[:, 0], array(answers[judged.who])[:, 0]
        some = np.random.default_rng(0).permutation(len(t))[:2000]
        return {"similarities" if task.kind == "embedding" else "numbers": {"teacher": t[some].tolist(), "student": s[some].tolist()}}
    if not (known := at.label >= 0).any():
        return {}
    y, weight = at.label[known], None if at.weight is None else at.weight[at.row][known]
    columns = {"teacher": at.teacher, "student": at.student}
    if at.temperature != 1:
        columns["student raw"] = at.student * at.temperature
    likeliest, positive = {}, {}
    for who, logits in columns.items():
        p = np.exp(metrics.log_softmax(logits[known]))
        likeliest[who] = _points(p.max(-1), p.argmax(-1) == y, weight)
        if p.shape[-1] == 2:
            positive[who] = _points(p[:, 1], y == 1, weight)
    drawn: dict[str, Any] = {"reliability": likeliest}
    if positive:
        drawn["reliability_positive"] = positive
    return drawn


def _similarities(output: Tensor, mask: Tensor | None) -> NDArray:
    """(N, K, D) → the cosines of the pairs of texts that fidelity looks at."""
    found = output if mask is None else output[mask]
    unit = vectors.normalised(array(found).reshape(-1, output.shape[-1]))
    at = pairs_of(len(unit))
    return np.einsum("pd,pd->p", unit[at[:, 0]], unit[at[:, 1]])


def _cka(teacher: Tensor, student: Tensor, rows: Rows) -> Figure:
    """Of some texts; without an interval, for each resample would cost as much again."""
    there = torch.ones(teacher.shape[:2], dtype=torch.bool) if rows.mask is None else rows.mask
    some = np.random.default_rng(0).permutation(int(there.sum()))[:FEW_VECTORS]
    found = vectors.cka(array(teacher[there])[some], array(student[there])[some])
    return Figure.of(found, n=len(some), how=f"linear, unbiased, on {len(some):,} texts")


def _points(said: NDArray, came: NDArray, weight: NDArray | None) -> dict[str, list[float]]:
    return {name: np.asarray(values).tolist() for name, values in asdict(reliability(said, came, weight)).items()}


def _kl(teacher: NDArray, student: NDArray) -> NDArray[np.float64]:
    """Σ p (log p − log q) of (M, C) logits → (M,); 0 · log 0 is 0, and log q is floored as in the log-loss."""
    log_p, log_q = metrics.log_softmax(teacher), np.maximum(metrics.log_softmax(student), metrics.LOG_FLOOR)
    p = np.exp(log_p)
    return (p * (np.where(p > 0, log_p, 0.0) - log_q)).sum(-1)


def _at_rows(statistic: Statistic, row: NDArray[np.int64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """A statistic of positions, given weights of rows."""
    return statistic(w if len(row) == w.shape[-1] else w[..., row])


def _over(at: Positions, statistic: Statistic) -> Statistic:
    return partial(_at_rows, statistic, at.row)


def _share(at: Positions, alike: NDArray, chosen: NDArray, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of chosen positions that are alike, given weights of rows."""
    hits = np.bincount(at.row, alike & chosen, minlength=at.rows)
    return metrics.mean(hits, w, parts=np.bincount(at.row, chosen, minlength=at.rows))
