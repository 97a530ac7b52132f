"""Successive halving within a batch: who falls behind at a rung stops, as long as rungs are seen to foretell how candidates end."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np

from attar.identity import uniform
from attar.statistics import metrics
from attar.verbs.search.design import Design
from attar.verbs.search.study import Told
from attar.verbs.search.training import Behind

__all__ = ["Rungs"]

ETA = 3  # of three candidates one goes on
TRUSTED = 0.6  # rank correlation with the final scores, below which a rung decides nothing
ENOUGH = 12  # candidates behind a correlation, from which on it counts
FIRST = 24  # candidates that train to their end before any is stopped: else nobody knows what a rung is worth
WATCHED = 0.2  # of the batches after that train to their end as well, and go on telling
FEWEST = 6  # candidates by themselves of like size, by whose rungs another one is stopped
LIKE = 2.0  # how many times larger or smaller a student of like size is


class Rungs:
    """The rungs of trials of so many epochs: at a ninth and at a third of them.

    Correlations are those within batches in which nobody was stopped: whoever survives a rung is no sample of those who came to it.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.at = tuple(sorted({max(1, round(epochs / ETA**k)) for k in (2, 1)} - {epochs}))

    def watched(self, batch: int, known: Sequence[Told]) -> bool:
        """Whether the candidates of a batch all train to their end."""
        whole = sum(each.trial.state == "trained" for each in known)
        return whole < FIRST or bool(uniform(np.array([batch]), "watched")[0] < WATCHED)

    def correlations(self, known: Sequence[Told], better: int) -> tuple[tuple[float, float, int], ...]:
        """(share of training, Spearman's correlation with the final scores, candidates behind it) of each rung that any tell of."""
        found = []
        for epoch in self.at:
            pairs = self._pairs(epoch, known, better)
            if len(pairs) >= 3:
                rung, final = np.array(pairs).T
                if np.ptp(rung) > 0 and np.ptp(final) > 0:
                    found.append((epoch / self.epochs, float(metrics.rank_correlation(rung, final)(np.ones(len(rung)))), len(pairs)))
        return tuple(found)

    def _pairs(self, epoch: int, known: Sequence[Told], better: int) -> list[tuple[float, float]]:
        """(score at the rung, final score) from the mean of the batch; of candidates by themselves from the mean of these."""
        told = [each for each in known if each.watched and each.trial.state == "trained" and each.trial.score is not None]
        told.sort(key=lambda each: each.batch if each.trial.together > 1 else -1)
        pairs = []
        for _, group in groupby(told, key=lambda each: each.batch if each.trial.together > 1 else -1):
            scores = [(self._score(each, epoch), each.trial.score or 0.0) for each in group]
            own = [(rung * better, final * better) for rung, final in scores if rung is not None]
            if len(own) > 1:
                means = np.mean(own, axis=0)
                pairs += [(rung - means[0], final - means[1]) for rung, final in own]
        return pairs

    def _score(self, each: Told, epoch: int) -> float | None:
        share = epoch / self.epochs
        return next((score for at, score in each.trial.rungs if abs(at - share) < 1e-6), None)

    def behind(self, designs: Sequence[Design], known: Sequence[Told], better: int, parameters: int | None) -> Behind:
        """Who of a batch stops at a rung: all but the best third, and but the best of each half of temperatures and of weights.

        The best temperature of a whole training is seldom that of its first third, so that some of each kind go on. A candidate by itself
        stops where it is not among the best third of those of like size.
        """
        told = {round(share * self.epochs): (value, pairs) for share, value, pairs in self.correlations(known, better)}
        trusted = {epoch for epoch in self.at if (found := told.get(epoch)) is None or found[1] < ENOUGH or found[0] >= TRUSTED}
        kinds = _kinds(designs)

        def stopping(epoch: int, scores: Mapping[int, float]) -> Collection[int]:
            if epoch not in trusted:
                return ()
            if len(designs) == 1:
                return scores.keys() if self._slow(epoch, next(iter(scores.values())), known, better, parameters) else ()
            ranked = sorted(scores, key=lambda place: -scores[place])
            stay = set(ranked[: math.ceil(len(designs) / ETA ** (self.at.index(epoch) + 1))])
            for kind in kinds:
                best = next((place for place in ranked if place in kind), None)
                stay |= set() if best is None else {best}
            return scores.keys() - stay

        return stopping

    def _slow(self, epoch: int, score: float, known: Sequence[Told], better: int, parameters: int | None) -> bool:
        others = [
            found * better
            for each in known
            if each.trial.together == 1 and _alike(each.trial.price.parameters, parameters)
            if (found := self._score(each, epoch)) is not None
        ]
        return len(others) >= FEWEST and score < float(np.quantile(others, 1 - 1 / ETA))


def _alike(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one <= LIKE * other and other <= LIKE * one


def _kinds(designs: Sequence[Design]) -> list[set[int]]:
    """Places of the candidates of each half of temperatures, and of weights."""
    found: list[set[int]] = []
    names = {name for design in designs for name, value in design.point.items() if isinstance(value, float)}
    for name in sorted(name for name in names if name.endswith((".temperature", ".weight"))):
        values = [float(design.point.get(name, np.nan)) for design in designs]
        middle = float(np.nanmedian(values))
        found += [{at for at, value in enumerate(values) if value <= middle}, {at for at, value in enumerate(values) if value > middle}]
    return [kind for kind in found if kind]
