"""Several sources as one: the mean of what they hold probable, all alike, or those more who are nearer to the label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import IGNORE, NOTHING, Batch, Remembering, Signal, Source, Weighed
from attar.sources.answers import FLOOR, as_logits, no_taps
from attar.sources.controls import Rows, training_ids
from attar.sources.told import Labelled, labelled, labels_for, told

__all__ = ["Ensemble", "ensemble", "mean_answer"]


def ensemble(*sources: Source, weights: list[float] | Literal["confidence"] | None = None) -> Ensemble:
    """log Σ w p over the sources, their probabilities taken at T = 1: (B, C) logits; of a regression the mean Σ w y.

    weights: one for each source, not negative; they are divided by their sum. Left out, all weigh alike. "confidence" weighs them row by
        row, by their cross-entropy to the label:

            w_k = (1 − softmax_k(CE_1 … CE_K)_k) / (K − 1)        CE_k = −log p_k(y) at T = 1

        CA-MKD, Zhang et al. 2022, arXiv:2201.00007; the paper mixes tempered answers, here the mean is tempered
        afterwards. The least weight is 0, of one who is far off alone; the largest is 1 / (K − 1), so that nobody rules among three.
        Labels are those of the training rows alone, once it is told of them, which `distill`, `annotate` and `run` do by themselves:
        `ensemble(a, b, weights="confidence").told(data.train)`. Other rows, and those without a label, weigh all alike. Untold, it takes
        the labels of the batch.
    Probabilities are averaged, not logits: cross-entropy is linear in its target, so learning from the mean is learning from all;
    the mean of logits is a product of experts, which is sharper (`taught(lightgbm())` takes it, to be one booster). Re-tempering
    comes afterwards, live and stored alike. A source that names its classes in another order has its own `classes=`.

    Raises TeacherError for fewer than one source, or weights that do not fit, or sources that answer differently many outcomes, or vectors.

    >>> ensemble(a, b, weights=[2, 1])        # doctest: +SKIP
    """
    if not sources:
        raise TeacherError("ensemble() of nobody", hint="ensemble(a, b)")
    if weights == "confidence":
        if len(sources) < 2:
            raise TeacherError('ensemble(weights="confidence") of one source', hint="there is nobody to be more confident than")
        return Ensemble(sources, "confidence")
    if weights is not None:
        if isinstance(weights, str):
            raise TeacherError(f"ensemble(weights={weights!r})", hint='a list of numbers, or "confidence"')
        if len(weights) != len(sources):
            raise TeacherError(f"ensemble of {len(sources)} sources with {len(weights)} weights", hint="one weight for each source")
        if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise TeacherError(f"ensemble(weights={list(weights)})", hint="weights are not negative, and one is above 0")
    return Ensemble(sources, None if weights is None else tuple(float(w) for w in weights))


@dataclass(frozen=True)
class Ensemble:
    """See `ensemble`. labels: of the training rows, for confidence, once it is told of them."""

    sources: tuple[Source, ...]
    weights: tuple[float, ...] | Literal["confidence"] | None = None
    labels: Labelled | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return say("ensemble", *self.sources, weights=self.weights)

    @property
    def fingerprint(self) -> str:
        if self.weights == "confidence":
            known = "" if self.labels is None else self.labels.fingerprint
            return digest("ensemble", [s.fingerprint for s in self.sources], "confidence", known)
        return digest("ensemble", [s.fingerprint for s in self.sources], self.shares)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(*self.sources)

    @property
    def in_fold(self) -> bool:
        return any(isinstance(s, Remembering) and s.in_fold for s in self.sources)

    @property
    def size_bytes(self) -> int | None:
        sizes = [s.size_bytes if isinstance(s, Weighed) else None for s in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def parameters(self) -> int | None:
        counts = [s.parameters if isinstance(s, Weighed) else None for s in self.sources]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, divided by their sum; of confidence those of a row without a label."""
        weights = (1.0,) * len(self.sources) if self.weights is None or self.weights == "confidence" else self.weights
        return tuple(w / sum(weights) for w in weights)

    def told(self, rows: Rows) -> Ensemble:
        """The same, its members told of these rows, and it itself of their labels where it weighs by them."""
        known = labelled(rows, "ensemble") if self.weights == "confidence" else None
        return Ensemble(tuple(told(s, rows) for s in self.sources), self.weights, known)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "ensemble")
        if batch.schema is not None and batch.schema.embeds:
            raise TeacherError(
                "an ensemble has the mean of probabilities or numbers, and vectors are neither: each model has a space of its own",
                hint="distil from one of them",
            )
        outputs = [as_logits(s(batch).output, batch, repr(s)) for s in self.sources]
        labels = labels_for(batch, self.labels, "ensemble") if self.weights == "confidence" else None
        return Signal(mean_answer(outputs, self.shares if labels is None else confidence(outputs, labels.to(outputs[0].device))))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """All the members' cheapest calls, one after the other."""
        calls = [s.prepare(batch) for s in self.sources]
        return lambda: [call() for call in calls]


def mean_answer(outputs: list[Tensor], shares: tuple[float, ...] | Tensor) -> Tensor:
    """Answers (..., C) of M, with shares that sum to 1, of each or (M, ...) → log Σ w p (..., C); with C = 1 the mean number."""
    shapes = {tuple(o.shape) for o in outputs}
    if len(shapes) > 1:
        raise TeacherError(
            f"the members of an ensemble answer in different shapes: {sorted(shapes)}", hint="they must know the same classes"
        )
    stacked = torch.stack(outputs)  # (M, ..., C)
    share = torch.as_tensor(shares, dtype=stacked.dtype, device=stacked.device)
    share = share.reshape(*share.shape, *(1,) * (stacked.ndim - share.ndim))
    if stacked.shape[-1] == 1:
        return (share * stacked).sum(0)
    return (stacked.log_softmax(-1) + share.log()).logsumexp(0)  # log Σ w p


def confidence(outputs: list[Tensor], labels: Tensor) -> Tensor:
    """Answers (..., C) of M ≥ 2 and (...) labels → (M, ...) shares, larger for who is nearer to the label; alike where it is unknown."""
    if outputs[0].shape[-1] < 2:
        raise TeacherError('ensemble(weights="confidence"): a regression has no cross-entropy', hint="give each source a number")
    known = labels != IGNORE
    place = labels.where(known, 0).unsqueeze(-1)  # (..., 1)
    errors = torch.stack([-o.log_softmax(-1).gather(-1, place).squeeze(-1) for o in outputs])  # (M, ...)
    errors = errors.clamp(max=-math.log(FLOOR))  # two who exclude the label are alike, not ∞ − ∞
    shares = (1 - errors.softmax(0)) / (len(outputs) - 1)
    return torch.where(known, shares, 1 / len(outputs))
