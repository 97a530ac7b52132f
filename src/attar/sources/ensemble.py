"""Several sources as one: the mean of what they hold probable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import NOTHING, Batch, Signal, Source, Weighed
from attar.sources.answers import as_logits, no_taps
from attar.sources.controls import training_ids

__all__ = ["Ensemble", "ensemble", "mean_answer"]


def ensemble(*sources: Source, weights: list[float] | None = None) -> Ensemble:
    """log Σ w p over the sources, their probabilities taken at T = 1: (B, C) logits; of a regression the mean Σ w y.

    weights: one for each source, not negative; they are divided by their sum. Left out, all weigh alike.
    Probabilities are averaged, not logits: cross-entropy is linear in its target, so learning from the mean is learning from all;
    the mean of logits is a product of experts, which is sharper (`taught(lightgbm())` takes it, to be one booster). Re-tempering
    comes afterwards, live and stored alike. A source that names its classes in another order has its own `classes=`.

    Raises TeacherError for fewer than one source, or weights that do not fit, or sources that answer differently many outcomes.

    >>> ensemble(a, b, weights=[2, 1])        # doctest: +SKIP
    """
    if not sources:
        raise TeacherError("ensemble() of nobody", hint="ensemble(a, b)")
    if weights is not None:
        if len(weights) != len(sources):
            raise TeacherError(f"ensemble of {len(sources)} sources with {len(weights)} weights", hint="one weight for each source")
        if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise TeacherError(f"ensemble(weights={list(weights)})", hint="weights are not negative, and one is above 0")
    return Ensemble(sources, None if weights is None else tuple(float(w) for w in weights))


@dataclass(frozen=True)
class Ensemble:
    """See `ensemble`."""

    sources: tuple[Source, ...]
    weights: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        return say("ensemble", *self.sources, weights=self.weights)

    @property
    def fingerprint(self) -> str:
        return digest("ensemble", [s.fingerprint for s in self.sources], self.shares)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(*self.sources)

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
        """The weights, divided by their sum."""
        weights = self.weights or (1.0,) * len(self.sources)
        return tuple(w / sum(weights) for w in weights)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "ensemble")
        outputs = [as_logits(s(batch).output, batch, repr(s)) for s in self.sources]
        return Signal(mean_answer(outputs, self.shares))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """All the members' cheapest calls, one after the other."""
        calls = [s.prepare(batch) for s in self.sources]
        return lambda: [call() for call in calls]


def mean_answer(outputs: list[Tensor], shares: tuple[float, ...]) -> Tensor:
    """Answers (..., C) of several, with shares that sum to 1 → log Σ w p (..., C); with C = 1 the mean number."""
    shapes = {tuple(o.shape) for o in outputs}
    if len(shapes) > 1:
        raise TeacherError(
            f"the members of an ensemble answer in different shapes: {sorted(shapes)}", hint="they must know the same classes"
        )
    stacked = torch.stack(outputs)  # (M, ..., C)
    share = torch.tensor(shares, dtype=stacked.dtype, device=stacked.device).reshape(-1, *(1,) * (stacked.ndim - 1))
    if stacked.shape[-1] == 1:
        return (share * stacked).sum(0)
    return (stacked.log_softmax(-1) + share.log()).logsumexp(0)  # log Σ w p
