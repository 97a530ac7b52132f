"""What is asked of teacher and student alike: the form of an answer, the loss of a label, the metrics, the decision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.errors import DataError, EvidenceError, NotationError, ObjectiveError, near
from attar.notation import say
from attar.signal import IGNORE, Schema
from attar.statistics import metrics

__all__ = ["Kind", "Task", "classification", "multilabel", "regression", "task_for"]

Kind = Literal["classification", "multilabel", "regression"]
Figure = Callable[[NDArray], NDArray]

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "auroc", "average_precision", "recall_at_fpr", "log_loss", "brier"),
    "multilabel": ("average_precision", "auroc", "accuracy", "log_loss", "brier"),
    "regression": ("rmse", "mae", "r2", "spearman"),
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae", "false_positive_rate"})
OBJECTIVES = {
    "classification": "blend(kl(temperature=2.0), labels(), weight=0.9)",
    "multilabel": "blend(kl(temperature=2.0), labels(), weight=0.9)",
    "regression": "blend(mse(), labels(), weight=0.9)",
}


@dataclass(frozen=True, repr=False)
class Task:
    """A question with its rules; `repr` is the recipe word that made it.

    kind: "classification" (binary is two outcomes), "multilabel" (each label is two outcomes), "regression" (one number).
    metric: the primary metric, by which students are chosen and the claim is made.
    threshold: of the positive class, which is the last one (of no, yes or 0, 1 the right one): it is decided where
        p ≥ threshold. None decides the likeliest outcome.
    recall_at_fpr: the rule "as many positives as a false-positive rate of so much allows, 0..1": `fix` turns it into a threshold on
        validation rows, one for each model.
    outcomes: size of the last axis of a canonical answer: classes; 2 for multi-label; 1 for a regression; 0 until bound.
    labels: how many labels a multi-label row has; 0 otherwise.
    cut: the threshold that `fix` found, as log-odds: of a probability near 1 too few digits are left.
    """

    kind: Kind
    metric: str
    threshold: float | None = None
    recall_at_fpr: float | None = None
    outcomes: int = 0
    labels: int = 0
    cut: float | None = None

    def __repr__(self) -> str:
        if self.kind != "classification":
            return say(self.kind, metric=self.metric)
        threshold = None if self.recall_at_fpr is not None else self.threshold
        return say(self.kind, metric=self.metric, threshold=threshold, recall_at_fpr=self.recall_at_fpr)

    @property
    def objective(self) -> str:
        """The text of the default objective."""
        return OBJECTIVES[self.kind]

    @property
    def bound(self) -> bool:
        """Whether the number of outcomes is known."""
        return self.outcomes > 0

    def bind(self, schema: Schema) -> Task:
        """The same task on these data: outcomes filled in. Raises DataError where task and data do not fit each other."""
        classes = len(schema.classes)
        if self.kind == "regression":
            if classes:
                raise DataError(
                    f"task regression, but {schema.label!r} has {classes} classes: {_some(schema.classes)}", hint="task: classification()"
                )
            return replace(self, outcomes=1)
        if self.kind == "multilabel":
            if not classes:
                raise DataError(f"task multilabel, but {schema.label!r} names no labels", hint="task: regression()")
            return replace(self, outcomes=2, labels=classes)
        if classes < 2:
            what = "a number" if classes == 0 else f"one class only: {_some(schema.classes)}"
            raise DataError(f"task classification, but {schema.label!r} is {what}", hint="task: regression(), or another label column")
        if classes > 2 and (self.metric == "recall_at_fpr" or self.threshold is not None or self.recall_at_fpr is not None):
            rule = "threshold" if self.threshold is not None else "recall_at_fpr"
            raise DataError(
                f"{rule} needs two classes, {schema.label!r} has {classes}: {_some(schema.classes)}",
                hint="leave it out, and choose metric accuracy, balanced_accuracy, log_loss or brier",
            )
        return replace(self, outcomes=classes)

    def canonical(self, output: Tensor) -> Tensor:
        """Logits with the outcomes last: one logit z of two outcomes becomes [0, z], (B, L) of multi-label (B, L, 2), numbers (B, 1).

        For teacher and student alike, so that softmax-KL is Bernoulli-KL. Looks at shapes alone, never at values.
        Raises ObjectiveError where the last axis is not the outcomes.
        """
        self._need_bound()
        shape = tuple(output.shape)
        if self.kind == "multilabel":
            # The number of axes first: a graph that is traced must not learn from (B, L) whether B is L.
            if len(shape) > 2 and shape[-2:] == (self.labels, 2):
                return output
            if shape[-1:] == (self.labels,):
                return torch.stack((torch.zeros_like(output), output), -1)
            raise ObjectiveError(
                f"answer of shape {shape}, expected (..., {self.labels}) or (..., {self.labels}, 2)",
                hint=f"the data have {self.labels} labels; does this model answer others?",
            )
        if len(shape) == 1 and self.outcomes <= 2:
            output, shape = output.unsqueeze(-1), (*shape, 1)
        if self.outcomes == 2 and shape[-1:] == (1,):
            return torch.cat((torch.zeros_like(output), output), -1)
        if shape[-1:] != (self.outcomes,):
            what = "numbers" if self.kind == "regression" else "classes"
            raise ObjectiveError(
                f"answer of shape {shape}, expected (..., {self.outcomes}) {what}",
                hint="does this model answer other classes than the data have? `classes=` of a teacher names them",
            )
        return output

    def known(self, labels: Tensor) -> Tensor:
        """(...) → (...) bool: where the label is known (not IGNORE, not NaN)."""
        return ~torch.isnan(labels) if labels.dtype.is_floating_point else labels != IGNORE

    def label_loss(self, output: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Loss of each known label, 0 where unknown: (..., C), (...) → (...). Cross-entropy in nats, or squared error.

        smoothing: share of the target spread evenly over all outcomes that are not impossible (−inf), 0..1; classes only.
        A regression's error is in the label's unit, squared. No branch looks at values: safe in compiled and batched steps.
        """
        output = self.canonical(output)
        if self.kind == "classification" and output.dim() == 2 and not smoothing:  # the same in one kernel: this is in every step
            return torch.nn.functional.cross_entropy(output, labels, reduction="none", ignore_index=IGNORE)
        known = self.known(labels)
        if self.kind == "regression":
            if smoothing:
                raise ObjectiveError(f"label smoothing {smoothing:g} of a regression", hint="smoothing is for classes; leave it out")
            target = torch.where(known, labels, 0).to(output.dtype)
            return torch.where(known, (output.squeeze(-1) - target) ** 2, 0)
        log_q = torch.log_softmax(output, -1)
        target = torch.where(known, labels, 0)
        loss = -log_q.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        if smoothing:
            possible = log_q > -math.inf
            spread = -torch.where(possible, log_q, 0).sum(-1) / possible.sum(-1)
            loss = (1 - smoothing) * loss + smoothing * spread
        return torch.where(known, loss, 0)

    def score(self, output: Tensor) -> Tensor:
        """Log-odds of the positive of two outcomes, by which rows are ranked: (..., 2) → (...); a regression's number as it is."""
        output = self.canonical(output)
        if self.outcomes == 1:
            return output[..., 0]
        if self.outcomes != 2:
            raise EvidenceError(f"a single score of {self.outcomes} outcomes", hint="only two outcomes are ranked by one score")
        return output[..., 1] - output[..., 0]

    def decide(self, output: Tensor) -> Tensor:
        """The decision on each answer: (..., C) → (...) int64 class, or the number of a regression.

        The likeliest outcome, or the positive one where its probability reaches `threshold`.
        """
        output = self.canonical(output)
        if self.kind == "regression":
            return output[..., 0]
        if self.threshold is None:
            return output.argmax(-1)
        return (self.score(output) >= (_log_odds(self.threshold) if self.cut is None else self.cut)).long()

    def fix(self, output: Tensor, labels: Tensor, weight: Tensor | None = None) -> Task:
        """The task with `recall_at_fpr` made a threshold on these rows of this model: validation rows, never test rows.

        Without such a rule, the task itself. Raises EvidenceError where there is no known negative row to choose it on.
        """
        if self.recall_at_fpr is None:
            return self
        known = self.known(labels) if weight is None else self.known(labels) & (weight > 0)
        positive = _numpy(labels[known]) == 1
        if positive.all():
            raise EvidenceError("no negative row to choose a threshold on", hint="more validation rows, or a plain threshold")
        scores = _numpy(self.score(output)[known])
        log_odds = metrics.threshold_at_fpr(scores, positive, self.recall_at_fpr, None if weight is None else _numpy(weight[known]))
        return replace(self, threshold=1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0, cut=log_odds)

    def measure(self, output: Tensor | NDArray, labels: Tensor | NDArray, weight: Tensor | NDArray | None = None) -> dict[str, float]:
        """Every metric of the task on the known labels: {"accuracy": 0.82, …}, the primary metric first; weight (B,).

        With a rule `recall_at_fpr` that is not fixed yet, the recall is that of the best threshold on these rows, as choosing a student
        on validation rows wants it. Raises EvidenceError where no label is known.
        """
        out, y = torch.as_tensor(output), torch.as_tensor(labels)
        known = self.known(y)
        rows = known.any(-1) if self.kind == "multilabel" else known
        if not bool(rows.any()):
            raise EvidenceError(f"none of {len(y)} rows has a known label", hint="metrics need labels")
        w = np.ones(int(rows.sum())) if weight is None else _numpy(torch.as_tensor(weight)[rows])
        return {name: float(figure(w)) for name, figure in self.figures(out[rows], y[rows]).items()}

    def figures(self, output: Tensor, labels: Tensor) -> dict[str, Figure]:
        """Every metric as a function of row weights, (N,) → () or (R, N) → (R,); the primary metric first.

        output: (N, ..., C) or as a model answers; labels: all known, but for some of a multi-label row.
        """
        out, y = self.canonical(output.detach()), _numpy(labels)
        if self.kind == "multilabel":
            found = self._figures_of_labels(_numpy(out), y, _numpy(self.known(labels)))
        elif self.kind == "regression":
            found = {name: partial(metric, _numpy(out[..., 0]), y) for name, metric in _REGRESSION.items()}
        else:
            found = self._figures_of_classes(_numpy(out), y, _numpy(self.decide(out)))
        return {self.metric: found[self.metric]} | found

    def better(self, metric: str) -> int:
        """+1 where more of the metric is better, −1 where less is."""
        return -1 if metric in LOWER_IS_BETTER else 1

    def _figures_of_classes(self, logits: NDArray, y: NDArray, decided: NDArray) -> dict[str, Figure]:
        found: dict[str, Figure] = {
            "accuracy": partial(metrics.accuracy, decided, y),
            "balanced_accuracy": partial(metrics.balanced_accuracy, decided, y),
            "log_loss": partial(metrics.mean, metrics.log_loss_rows(logits, y)),
            "brier": partial(metrics.mean, metrics.brier_rows(logits, y)),
        }
        if self.outcomes == 2:
            scores, positive = logits[:, 1] - logits[:, 0], y == 1
            found["auroc"] = partial(metrics.auroc, scores, positive)
            found["average_precision"] = partial(metrics.average_precision, scores, positive)
            if self.recall_at_fpr is not None and self.threshold is None:
                found["recall_at_fpr"] = partial(metrics.recall_at_fpr, scores, positive, self.recall_at_fpr)
            elif self.recall_at_fpr is not None:
                found["recall_at_fpr"] = partial(_share, decided == 1, positive)
                found["false_positive_rate"] = partial(_share, decided == 1, ~positive)
        elif self.metric in _RANKING:
            member = y[:, None] == np.arange(self.outcomes)
            p = np.exp(metrics.log_softmax(logits))
            found[self.metric] = partial(_macro, _RANKING[self.metric], p, member, np.ones(p.shape, dtype=bool))
        return found

    def _figures_of_labels(self, logits: NDArray, y: NDArray, known: NDArray) -> dict[str, Figure]:
        safe, parts = np.where(known, y, 0), known.sum(-1)
        scores, decided = logits[..., 1] - logits[..., 0], logits.argmax(-1)
        found: dict[str, Figure] = {name: partial(_macro, metric, scores, safe == 1, known) for name, metric in _RANKING.items()}
        rows = {
            "accuracy": decided == safe,
            "log_loss": metrics.log_loss_rows(logits, safe),
            "brier": metrics.brier_rows(logits, safe),
        }
        return found | {name: partial(metrics.mean, (value * known).sum(-1), parts=parts) for name, value in rows.items()}

    def _need_bound(self) -> None:
        if not self.outcomes:
            raise ObjectiveError(f"{self!r} does not know its outcomes yet", hint="task.bind(schema) first")


def classification(metric: str = "accuracy", threshold: float | None = None, recall_at_fpr: float | None = None) -> Task:
    """One class for each row; two classes are two outcomes, and the last class is the positive one.

    metric: accuracy, balanced_accuracy, log_loss, brier; with two classes auroc, average_precision, recall_at_fpr; with more the last
        two of these do not exist and the first two are one-vs-rest means, computed where they are the primary metric.
    threshold: decide the positive class where its probability is at least so much, 0..1; None decides the likeliest.
    recall_at_fpr: decide so that at most this share of negative validation rows is called positive, 0..1; not with `threshold`.

    >>> classification(metric="auroc", recall_at_fpr=0.05)
    classification(metric="auroc", recall_at_fpr=0.05)
    """
    _check_metric("classification", metric)
    _check_share("threshold", threshold)
    _check_share("recall_at_fpr", recall_at_fpr)
    if threshold is not None and recall_at_fpr is not None:
        raise NotationError(f"threshold={threshold:g} and recall_at_fpr={recall_at_fpr:g} are two decision rules", hint="choose one")
    if metric == "recall_at_fpr" and recall_at_fpr is None:
        raise NotationError("metric recall_at_fpr: at which false-positive rate?", hint="recall_at_fpr=0.05")
    return Task("classification", metric, threshold, recall_at_fpr)


def multilabel(metric: str = "average_precision") -> Task:
    """Several yes-or-no labels for each row, decided each on its own; ranking metrics are means over labels.

    metric: average_precision, auroc, accuracy (share of labels right), log_loss, brier.
    """
    _check_metric("multilabel", metric)
    return Task("multilabel", metric)


def regression(metric: str = "rmse") -> Task:
    """One number for each row.

    metric: rmse, mae (both in the label's unit), r2, spearman.
    """
    _check_metric("regression", metric)
    return Task("regression", metric)


def task_for(schema: Schema, kind: str = "auto") -> Task:
    """The task that a schema implies, bound: classification where there are classes, else regression.

    kind: of the data, where they are at hand. A schema alone does not tell several labels from several classes, and takes them for classes.
    """
    return (multilabel() if kind == "multilabel" else classification() if schema.classes else regression()).bind(schema)


_REGRESSION = {"rmse": metrics.rmse, "mae": metrics.mae, "r2": metrics.r2, "spearman": metrics.spearman}
_RANKING = {"auroc": metrics.auroc, "average_precision": metrics.average_precision}


def _macro(metric: Callable[..., NDArray], scores: NDArray, positive: NDArray, known: NDArray, w: NDArray) -> NDArray:
    """Mean over columns (N, L) of a ranking metric; a column without both kinds of row is left out."""
    columns = np.stack([metric(scores[:, i], positive[:, i], w * known[:, i]) for i in range(scores.shape[1])])
    there = ~np.isnan(columns)
    with np.errstate(invalid="ignore"):  # 0 / 0 where no column is there: NaN, as it should be
        return np.where(there, columns, 0.0).sum(0) / there.sum(0)


def _share(decided: NDArray, of: NDArray, w: NDArray) -> NDArray:
    return metrics.mean(decided, w * of)


def _log_odds(p: float) -> float:
    return -math.inf if p <= 0 else math.inf if p >= 1 else math.log(p / (1 - p))


def _numpy(value: Tensor) -> NDArray:
    value = value.detach().cpu()
    return value.double().numpy() if value.dtype.is_floating_point else value.numpy()


def _check_metric(kind: str, metric: str) -> None:
    if metric not in METRICS[kind]:
        elsewhere = [k for k, names in METRICS.items() if metric in names]
        hint = near(metric, METRICS[kind]) + (f" ({metric} is for {', '.join(elsewhere)})" if elsewhere else "")
        raise NotationError(f"{kind} has no metric {metric!r}", hint=hint)


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < 1:
        raise NotationError(f"{name}={value:g} is not between 0 and 1", hint=f"{name} is a share, such as 0.05")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
