"""The student's accuracy elsewhere, told without labels from its agreement with the teacher; and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from attar.certificate import Figure
from attar.certificate.label_free import LabelFree
from attar.statistics import metrics
from attar.statistics.shift import agreement_accuracy, departure
from attar.statistics.subgroups import share_of
from attar.verbs.evaluate.models import TEACHER, Model, Rows, Who, array
from attar.verbs.evaluate.scoring import share

__all__ = ["Answered", "label_free"]


class Answered(NamedTuple):
    """Rows, and what was answered to them."""

    answers: Mapping[Who, Tensor]
    rows: Rows


def label_free(home: Answered, here: Answered, models: Mapping[Who, Model], student: Who) -> LabelFree | None:
    """From home's labelled rows and these rows' answers alone; their labels give the truth beside it. None where classes are not asked."""
    if models[student].task.kind != "classification":
        return None
    at_home, there = _Decided.of(home, models, student), _Decided.of(here, models, student)
    known = home.rows.labelled.numpy()
    value, low, high = agreement_accuracy(
        at_home.alike[known], at_home.right[known], there.alike, home.rows.labelled_weight, here.rows.weight
    )
    if not np.isfinite(value):
        return None
    moved = departure((at_home.teacher, at_home.confidence), (there.teacher, there.confidence), home.answers[TEACHER].shape[-1])
    how = "from agreement, and from accuracy at home where both agree and where not; interval of sampling alone"
    labelled = here.rows.labelled.numpy()
    right = there.right[labelled]
    if here.rows.weight is None:
        truth = share(int(right.sum()), len(right))
    else:
        found = share_of(right, here.rows.labelled_weight) if len(right) else (math.nan,)
        truth = Figure.of(*found, n=len(right), how="Wilson interval of rows that weigh differently")
    return LabelFree(Figure.of(value, low, high, n=here.rows.count, how=how), truth, moved.decisions, moved.confidence, not moved.alarm)


class _Decided(NamedTuple):
    """(N,) what the teacher decides and how sure it is, whether the student decides alike, whether it is right (False where unknown)."""

    teacher: np.ndarray
    confidence: np.ndarray
    alike: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, asked: Answered, models: Mapping[Who, Model], student: Who) -> _Decided:
        t, s = (array(models[who].task.decide(asked.answers[who])) for who in (TEACHER, student))
        confidence = np.exp(metrics.log_softmax(array(asked.answers[TEACHER]))).max(-1)
        labels = asked.rows.labels
        right = np.zeros(len(s), dtype=bool) if labels is None else array(labels) == s
        return cls(t, confidence, t == s, right)
