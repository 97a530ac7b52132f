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
from attar.identity import digest
from attar.notation import say
from attar.signal import IGNORE, Inputs, Schema, Texts
from attar.statistics import likeness, metrics, vectors

__all__ = ["Kind", "Task", "classification", "embedding", "multilabel", "regression", "task_for"]

Kind = Literal["classification", "multilabel", "regression", "embedding"]
Figure = Callable[[NDArray], NDArray]

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "auroc", "average_precision", "recall_at_fpr", "log_loss", "brier"),
    "multilabel": ("average_precision", "auroc", "accuracy", "log_loss", "brier"),
    "regression": ("rmse", "mae", "r2", "spearman"),
    "embedding": ("spearman", "pearson", "recall_at_k"),
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae", "false_positive_rate", "kl", "root_mean_square_distance", "mean_distance"})
INFINITE = float("inf")
BOUNDS = {  # what a metric can be, where it is no share or mean of shares, which lie from 0 to 1
    "log_loss": (0.0, INFINITE),
    "brier": (0.0, 2.0),
    "rmse": (0.0, INFINITE),
    "mae": (0.0, INFINITE),
    "r2": (-INFINITE, 1.0),
    "spearman": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
}
OBJECTIVES = {
    "classification": "blend(kl(temperature=2.0), labels(), weight=0.9)",
    "multilabel": "blend(kl(temperature=2.0), labels(), weight=0.9)",
    "regression": "blend(mse(), labels(), weight=0.9)",
    "embedding": "cosine()",
}
FROM_TEACHER = {  # where no training row has a label
    "classification": "kl(temperature=2.0)",
    "multilabel": "kl(temperature=2.0)",
    "regression": "mse()",
    "embedding": "cosine()",
}
SEARCHED = {"kl(temperature=2.0)": "kl(temperature=log(1, 8))", "weight=0.9": "weight=between(0.5, 1)"}  # what a search tries instead
# Where a score of mean size, and one a standard deviation above it, lie as a cosine: what dividing the scores of STS-B by 5 makes of them
# (0.54 and 0.29 on its training rows). Rank correlation does not see the scale; a squared error needs one that a cosine can reach.
MIDDLE, SPREAD = 0.5, 0.3


@dataclass(frozen=True, repr=False)
class Task:
    """A question with its rules; `repr` is the recipe word that made it.

    kind: "classification" (binary is two outcomes), "multilabel" (each label is two outcomes), "regression" (one number),
        "embedding" (a vector for each text of a row).
    metric: the primary metric, by which students are chosen and the claim is made.
    threshold: of the positive class, which is the last one (of no, yes or 0, 1 the right one): it is decided where
        p ≥ threshold. None decides the likeliest outcome.
    recall_at_fpr: the rule "as many positives as a false-positive rate of so much allows, 0..1": `fix` turns it into a threshold on
        validation rows, one for each model.
    outcomes: size of the last axis of a canonical answer: classes; 2 for multi-label; 1 for a regression; 0 until bound. Of an embedding
        it is 1, too: its coordinates are no outcomes that compete, and student and teacher may have different numbers of them.
    labels: how many labels a multi-label row has; 0 otherwise.
    cut: the threshold that `fix` found, as log-odds: of a probability near 1 too few digits are left.
    k: of `recall_at_k`. texts: how many vectors a row of an embedding has; 0 otherwise. scores: mean and standard deviation of the
        scores that training rows carry.
    """

    kind: Kind
    metric: str
    threshold: float | None = None
    recall_at_fpr: float | None = None
    outcomes: int = 0
    labels: int = 0
    cut: float | None = None
    k: int = 10
    texts: int = 0
    scores: tuple[float, float] = (0.0, 1.0)

    def __repr__(self) -> str:
        if self.kind == "embedding":
            return say(self.kind, metric=self.metric, k=self.k)
        if self.kind != "classification":
            return say(self.kind, metric=self.metric)
        threshold = None if self.recall_at_fpr is not None else self.threshold
        return say(self.kind, metric=self.metric, threshold=threshold, recall_at_fpr=self.recall_at_fpr)

    @property
    def objective(self) -> str:
        """The text of the default objective."""
        return OBJECTIVES[self.kind]

    @property
    def objective_without_labels(self) -> str:
        """The text of the default objective where no training row has a label: the teacher's part alone."""
        return FROM_TEACHER[self.kind]

    def searched(self, *, labelled: bool) -> str:
        """The text of the default objective with what a search tries in place of its numbers; labelled: whether any training row is.

        Temperatures up to 8, for the best one grows with the student; shares of the teacher from a half.
        """
        text = self.objective if labelled else self.objective_without_labels
        for number, space in SEARCHED.items():
            text = text.replace(number, space)
        return text

    @property
    def bound(self) -> bool:
        """Whether the number of outcomes is known."""
        return self.outcomes > 0

    def bind(self, schema: Schema) -> Task:
        """The same task on these data: outcomes filled in. Raises DataError where task and data do not fit each other."""
        classes = len(schema.classes)
        if self.kind == "embedding":
            if not schema.embeds:
                what = "have classes" if classes else f"ask for a number, {schema.label!r}"
                raise DataError(f"task embedding, but these data {what}", hint="embed=True of text(...) asks for vectors")
            return replace(self, outcomes=1, texts=max(len(schema.texts), 1), scores=(schema.label_mean, schema.label_std or 1.0))
        if schema.embeds:
            raise DataError(f"task {self.kind}, but these data ask for a vector for each text", hint="task: embedding()")
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

        Of an embedding (B, K, D), the vector of each of K texts; (B, D) where a row has one text.
        For teacher and student alike, so that softmax-KL is Bernoulli-KL. Looks at shapes alone, never at values.
        Raises ObjectiveError where the last axis is not the outcomes.
        """
        self._need_bound()
        shape = tuple(output.shape)
        if self.kind == "embedding":
            if len(shape) == 2 and self.texts == 1:
                return output.unsqueeze(-2)
            if len(shape) == 3 and shape[1] == self.texts:
                return output
            raise ObjectiveError(
                f"answer of shape {shape}, expected a vector for each of {self.texts} texts: (rows, {self.texts}, coordinates)",
                hint="a row's texts are embedded each by itself",
            )
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

    def judged(self, labels: Tensor | None, rows: int, mask: Tensor | None = None) -> Tensor:
        """(N,) bool: by which of so many rows the metrics can be told; of many labels of a row one is enough.

        mask: (N, K) bool, which texts of a row are there. Metrics of scores need the score and the first two texts. `recall_at_k` needs
        these two alone, a query and a document that is relevant to it; where there are scores, one of 0 or less says that it is not.
        """
        if self.kind != "embedding":
            if labels is None:
                return torch.zeros(rows, dtype=torch.bool)
            return self.known(labels).reshape(rows, -1).any(1)
        if self.texts < 2 or (labels is None and self.metric != "recall_at_k"):
            return torch.zeros(rows, dtype=torch.bool)
        there = torch.ones(rows, dtype=torch.bool) if mask is None else mask[:, :2].all(1)
        if labels is None:
            return there
        return there & ~(labels <= 0) if self.metric == "recall_at_k" else there & self.known(labels)

    def label_loss(self, output: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Loss of each known label, 0 where unknown: (..., C), (...) → (...). Cross-entropy in nats, or squared error.

        Of an embedding, (B, K, D), (B,) → (B,): the squared distance of the cosine of the first two texts from their score, which is
        moved and scaled so that training scores have the mean 0.5 and the standard deviation 0.3, and cut at −1 and 1.
        smoothing: share of the target spread evenly over all outcomes that are not impossible (−inf), 0..1; classes only.
        A regression's error is in the label's unit, squared. No branch looks at values: safe in compiled and batched steps.
        """
        output = self.canonical(output)
        if self.kind == "embedding":
            return self._score_loss(output, labels, smoothing)
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
        """Log-odds of the positive of two outcomes, by which rows are ranked: (..., 2) → (...); a regression's number as it is.

        Of an embedding, (B, K, D) → (B,), the cosine of the first two texts; 0 where one of them is not there.
        """
        output = self.canonical(output)
        if self.kind == "embedding":
            self._need_pairs("a score")
            return torch.nn.functional.cosine_similarity(output[:, 0], output[:, 1], dim=-1)
        if self.outcomes == 1:
            return output[..., 0]
        if self.outcomes != 2:
            raise EvidenceError(f"a single score of {self.outcomes} outcomes", hint="only two outcomes are ranked by one score")
        return output[..., 1] - output[..., 0]

    @property
    def decides_from(self) -> float | None:
        """The log-odds from which the positive of two outcomes is decided; None where the likeliest is.

        >>> classification(threshold=0.5).decides_from, classification().decides_from
        (0.0, None)
        """
        return self.cut if self.cut is not None or self.threshold is None else _log_odds(self.threshold)

    def decide(self, output: Tensor) -> Tensor:
        """The decision on each answer: (..., C) → (...) int64 class, or the number of a regression.

        The likeliest outcome, or the positive one where its probability reaches `threshold`. Raises EvidenceError of an embedding, which
        decides nothing.
        """
        output = self.canonical(output)
        if self.kind == "embedding":
            raise EvidenceError("an embedding decides nothing", hint="its vectors are compared by their cosines")
        if self.kind == "regression":
            return output[..., 0]
        return output.argmax(-1) if (cut := self.decides_from) is None else (self.score(output) >= cut).long()

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
        rows = self.judged(y, len(y))
        if not bool(rows.any()):
            raise EvidenceError(f"none of {len(y)} rows has a known label", hint="metrics need labels")
        w = np.ones(int(rows.sum())) if weight is None else _numpy(torch.as_tensor(weight)[rows])
        return {name: float(figure(w)) for name, figure in self.figures(out[rows], y[rows]).items()}

    def figures(self, output: Tensor, labels: Tensor | None, texts: Tensor | None = None) -> dict[str, Figure]:
        """Every metric as a function of row weights, (N,) → () or (R, N) → (R,); the primary metric first.

        output: (N, ..., C) or as a model answers; labels: all known, but for some of a multi-label row; None for `recall_at_k`, which
        needs none. texts: (N, K) of `which_texts`, so that a document that comes twice is one; None takes all as different.
        """
        out = self.canonical(output.detach())
        if self.kind == "embedding":
            return self._figures_of_vectors(out, labels, texts)
        assert labels is not None
        y = _numpy(labels)
        if self.kind == "multilabel":
            found = self._figures_of_labels(_numpy(out), y, _numpy(self.known(labels)))
        elif self.kind == "regression":
            predicted = _numpy(out[..., 0])
            plain: dict[str, Figure] = {name: partial(metric, predicted, y) for name, metric in _REGRESSION.items()}
            found = plain | {"spearman": metrics.rank_correlation(predicted, y)}
        else:
            found = self._figures_of_classes(_numpy(out), y, _numpy(self.decide(out)))
        return {self.metric: found[self.metric]} | found

    def likeness(self, teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> dict[str, Figure]:
        """How alike two models answer N rows, as figures of row weights, the one of `alike_by` first; see attar.statistics.likeness.

        mask: (N, K) bool, which texts of a row are there. Classes are decided by this task's rule, for both.
        """
        theirs, ours = self.canonical(teacher.detach()), self.canonical(student.detach())
        if self.kind == "embedding":
            return likeness.of_vectors(_numpy(theirs), _numpy(ours), None if mask is None else _numpy(mask))
        if self.kind == "regression":
            return likeness.of_numbers(_numpy(theirs[..., 0]), _numpy(ours[..., 0]))
        return likeness.of_decisions(_numpy(self.decide(theirs)), _numpy(self.decide(ours)), _numpy(theirs), _numpy(ours))

    @property
    def alike_by(self) -> str:
        """The figure of likeness to the teacher that stands in for the metric where no row has a label."""
        return {"regression": "root_mean_square_distance", "embedding": "similarity_correlation"}.get(self.kind, "agreement")

    def which_texts(self, inputs: Inputs) -> Tensor | None:
        """(B, K) int64 for the texts of B rows, in which equal texts have equal numbers; None where rows hold no texts by name."""
        if self.kind != "embedding" or isinstance(inputs, Tensor) or not all(isinstance(block, Texts) for block in inputs.values()):
            return None
        columns = [[int(digest(text, size=8), 16) - (1 << 63) for text in block] for block in inputs.values()]
        return torch.tensor(columns, dtype=torch.int64).T

    def better(self, metric: str) -> int:
        """+1 where more of the metric is better, −1 where less is; of likeness, where two models are more alike."""
        return -1 if metric in LOWER_IS_BETTER else 1

    def bounds(self, metric: str) -> tuple[float, float]:
        """The least and the most that a metric can be; infinite where nothing bounds it.

        >>> classification().bounds("auroc"), classification().bounds("log_loss")
        ((0.0, 1.0), (0.0, inf))
        """
        return BOUNDS.get(metric, (0.0, 1.0))

    def _figures_of_classes(self, logits: NDArray, y: NDArray, decided: NDArray) -> dict[str, Figure]:
        found: dict[str, Figure] = {
            "accuracy": partial(metrics.accuracy, decided, y),
            "balanced_accuracy": metrics.mean_recall(decided, y),
            "log_loss": partial(metrics.mean, metrics.log_loss_rows(logits, y)),
            "brier": partial(metrics.mean, metrics.brier_rows(logits, y)),
        }
        if self.outcomes == 2:
            positive = y == 1
            ranking = metrics.Ranking.of(logits[:, 1] - logits[:, 0], positive)
            found |= {"auroc": ranking.auroc, "average_precision": ranking.average_precision}
            if self.recall_at_fpr is not None and self.threshold is None:
                found["recall_at_fpr"] = partial(ranking.recall_at_fpr, self.recall_at_fpr)
            elif self.recall_at_fpr is not None:
                found["recall_at_fpr"] = partial(_share, decided == 1, positive)
                found["false_positive_rate"] = partial(_share, decided == 1, ~positive)
        elif self.metric in _RANKING:
            member = y[:, None] == np.arange(self.outcomes)
            p = np.exp(metrics.log_softmax(logits))
            found[self.metric] = _macro(self.metric, p, member, np.ones(p.shape, dtype=bool))
        return found

    def _figures_of_labels(self, logits: NDArray, y: NDArray, known: NDArray) -> dict[str, Figure]:
        safe, parts = np.where(known, y, 0), known.sum(-1)
        scores, decided = logits[..., 1] - logits[..., 0], logits.argmax(-1)
        found: dict[str, Figure] = {name: _macro(name, scores, safe == 1, known) for name in _RANKING}
        rows = {
            "accuracy": decided == safe,
            "log_loss": metrics.log_loss_rows(logits, safe),
            "brier": metrics.brier_rows(logits, safe),
        }
        return found | {name: partial(metrics.mean, (value * known).sum(-1), parts=parts) for name, value in rows.items()}

    def _figures_of_vectors(self, out: Tensor, labels: Tensor | None, texts: Tensor | None) -> dict[str, Figure]:
        self._need_pairs(f"metric {self.metric}")
        if self.metric == "recall_at_k":
            same = None if texts is None else _numpy(texts)
            hits, reciprocal = vectors.retrieved(_numpy(out[:, 0]), _numpy(out[:, 1]), self.k, same)
            return {"recall_at_k": partial(metrics.mean, hits), "reciprocal_rank": partial(metrics.mean, reciprocal)}
        assert labels is not None  # `judged` has no row without
        scores, y = _numpy(self.score(out.double())).round(6), _numpy(labels)  # what differs by rounding alone is no order
        found: dict[str, Figure] = {"spearman": metrics.rank_correlation(scores, y), "pearson": partial(metrics.pearson, scores, y)}
        return {self.metric: found[self.metric]} | found

    def _score_loss(self, output: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        if smoothing:
            raise ObjectiveError(f"label smoothing {smoothing:g} of scores", hint="smoothing is for classes; leave it out")
        known, (mean, spread) = self.known(labels), self.scores
        target = (MIDDLE + SPREAD * (torch.where(known, labels, mean) - mean) / spread).clamp(-1, 1)
        return torch.where(known, (self.score(output) - target.to(output.dtype)) ** 2, 0)

    def _need_pairs(self, what: str) -> None:
        if self.texts < 2:
            raise ObjectiveError(f"{what} of embeddings needs rows of two texts, these have one", hint='texts=["sentence1", "sentence2"]')

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


def embedding(metric: str = "spearman", k: int = 10) -> Task:
    """A vector for each text of a row, so that texts that mean alike have a large cosine.

    metric: spearman, pearson: correlation of the cosine of a row's two texts with its score (of STS-B, say); recall_at_k: a row is a
        query and a document that is relevant to it, which counts as found where at most k − 1 other documents are nearer to the query.
        All distinct documents of the split are candidates; the query itself and what else is relevant to it do not compete.
    k: of recall_at_k.

    Rows of one text, or without scores, teach as well; where a split has no row to tell the metric by, fidelity to the teacher stands in.

    >>> embedding()
    embedding(metric="spearman", k=10)
    """
    _check_metric("embedding", metric)
    if k < 1:
        raise NotationError(f"k={k}: recall among how many?", hint="k=10")
    return Task("embedding", metric, k=k)


def task_for(schema: Schema, kind: str = "auto") -> Task:
    """The task that a schema implies, bound: an embedding where it is asked, classification where there are classes, else regression.

    kind: of the data, where they are at hand. A schema alone does not tell several labels from several classes, and takes them for classes.
    """
    if schema.embeds:
        return embedding().bind(schema)
    return (multilabel() if kind == "multilabel" else classification() if schema.classes else regression()).bind(schema)


_REGRESSION = {"rmse": metrics.rmse, "mae": metrics.mae, "r2": metrics.r2}
_RANKING = {"auroc": metrics.Ranking.auroc, "average_precision": metrics.Ranking.average_precision}


def _macro(metric: str, scores: NDArray, positive: NDArray, known: NDArray) -> Figure:
    """Mean over columns (N, L) of a ranking metric; a column without both kinds of row is left out."""
    rankings = [metrics.Ranking.of(scores[:, i], positive[:, i]) for i in range(scores.shape[1])]

    def over_columns(weight: NDArray) -> NDArray:
        columns = np.stack([_RANKING[metric](ranking, weight * known[:, i]) for i, ranking in enumerate(rankings)])
        there = ~np.isnan(columns)
        with np.errstate(invalid="ignore"):  # 0 / 0 where no column is there: NaN, as it should be
            return np.where(there, columns, 0.0).sum(0) / there.sum(0)

    return over_columns


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
