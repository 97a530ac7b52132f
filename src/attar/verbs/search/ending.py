"""How a search ends: its best candidates trained anew, measured and compared, and put beside what could be had without a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from torch import nn

from attar.loop import Fit
from attar.progress import Listener
from attar.searched import Competitor, Finalist, Priced, SizeCurve, Trial
from attar.sources.cached import Cached
from attar.verbs.evaluate.models import judge
from attar.verbs.search.advice import advice
from attar.verbs.search.beginning import Begun
from attar.verbs.search.competitors import LABELS, beside
from attar.verbs.search.final import Final, name_of
from attar.verbs.search.pricing import Prices
from attar.verbs.search.protocol import Second, chosen, finalists_of
from attar.verbs.search.smallest import Smallest, smallest
from attar.verbs.search.timing import SEEDS, Shares, Timing
from attar.verbs.search.worker import Limits, over

__all__ = ["Ending"]

MEASURED = 2.0  # seconds of measuring, for each of those that are measured side by side


@dataclass
class Ending:
    """What the last two phases find: `finalists`, then `competitors`.

    shipped: the folders of the finalists that would ship. students: theirs, seed by seed. words: the recommendation. shown: whether the
    winner is shown to meet the margin. rows_sd: of a difference to the teacher, from the sampling of rows; seed_sd: of seeds.
    shares: of the time, where it is limited.
    """

    begun: Begun
    timing: Timing
    listen: Listener
    shares: Shares | None = None
    finalists: tuple[Finalist, ...] = ()
    teacher: Competitor = Competitor("teacher", None, Priced(None), False)  # noqa: RUF009 frozen
    competitors: tuple[Competitor, ...] = ()
    curve: SizeCurve | None = None
    winner: int | None = None
    words: tuple[str, ...] = ()
    shown: bool | None = None
    shipped: dict[str, Path] = field(default_factory=dict)
    students: dict[str, list[nn.Module]] = field(default_factory=dict)
    rows_sd: float = 0.0
    seed_sd: float | None = None
    notes: list[str] = field(default_factory=list)

    def final(self, trials: Sequence[Trial], prices: Prices, limits: Limits, workers: int) -> None:
        """The best candidates trained anew, measured and compared; the winner, and why."""
        begun = self.begun
        second = Second(begun.halves.second, begun.task, begun.room.answers, begun.halves.first.valid)
        curve = self._smallest(trials).record
        asked = finalists_of(trials, begun.better, self._goal(), None if curve is None else curve.smallest)
        folder = begun.out / "finalists"
        fit = begun.spaces.design(begun.spaces.middle()).fit
        final = Final(folder, begun.spaces, begun.room, max(SEEDS, fit.seeds), fit.epochs, workers, self.listen)
        final = replace(final, epochs=self._epochs(asked, fit, final.epochs_there(asked), limits, workers))
        models = self.students = final.train(asked)
        there = [trial for trial in asked if name_of(trial) in models]
        for trial in there:
            model = models[name_of(trial)][0]
            self.shipped[name_of(trial)] = final.shipped(trial, model, begun.data, begun.task, begun.job.deploy, begun.guard)
        files = {name_of(trial): judge(self.shipped[name_of(trial)]).source for trial in there}
        drawn = second.drawn({name: models[name] for name in files}, files)
        found = []
        for trial in there:
            name = name_of(trial)
            price = prices.measured(self.shipped[name], macs=trial.price.macs)
            within = all(value <= 0 for value in over(begun.budget, price).values())
            found.append(
                Finalist(
                    trial.number,
                    trial.student,
                    trial.objective,
                    repr(final.design(trial).fit),
                    scores=drawn.scores(name),
                    score=drawn.score(name),
                    price=price,
                    within=within,
                    before=trial.score if trial.score is not None else math.nan,
                    arm=trial.arm,
                    difference=drawn.difference(name),
                )
            )
        self.finalists = second.foretold(found, drawn, begun.data.test)
        if drawn.teacher is not None and there:
            effects = [drawn.against(name_of(trial), "teacher") for trial in there]
            self.rows_sd = math.sqrt(2) * fmean(effect.row_se for effect in effects)  # the trials' rows are half, the claim's as many
            self.seed_sd = fmean(effect.seed_sd for effect in effects)
        verdict = chosen(self.finalists, drawn, begun.margin, second.metric, begun.bounds, begun.first)
        self.winner, self.words, self.shown = verdict.winner, verdict.words, verdict.shown

    def compete(self, trials: Sequence[Trial]) -> None:
        """What could be put in place without a search, measured beside the finalists; and what that says of the winner."""
        begun, answers = self.begun, self.begun.room.answers
        seconds = self.timing.looking(self.shares, MEASURED)
        if seconds < MEASURED:
            self.notes.append(f"competitors were measured for {seconds:.2g} s each, not {MEASURED:g}, for the time that was left")
        found = beside(
            answers.source if isinstance(answers, Cached) else answers,
            begun.halves.first,
            begun.task,
            begun.halves.second,
            bounds=begun.budget,
            at=begun.out / "competitors",
            labels=next(iter(self.students.get("labels", ())), None),
            seconds=seconds,
            listen=self.listen,
        )
        self.teacher = replace(found.teacher, first=begun.first)
        self.competitors = tuple(_over_seeds(each, self.finalists) for each in found.competitors)
        winner = next((each for each in self.finalists if each.arm == "student" and each.trial == self.winner), None)
        told = self._smallest(trials)
        self.curve = told.record
        said = advice(
            winner,
            self.words,
            self.teacher,
            self.competitors,
            told=told,
            trials=trials,
            bounds=begun.bounds,
            metric=begun.metric,
            better=begun.better,
            margin=begun.margin,
            rows_sd=self.rows_sd,
            shown=self.shown,
        )
        self.winner, self.words = said.winner, said.sentences

    def _smallest(self, trials: Sequence[Trial]) -> Smallest:
        """How small it can be, by the trials so far."""
        begun = self.begun
        how = {"metric": begun.metric, "better": begun.better, "teacher": begun.first, "margin": begun.margin}
        return smallest(trials, rows_sd=self.rows_sd, seed_sd=self.seed_sd, **how)

    def _epochs(self, asked: Sequence[Trial], fit: Fit, there: int | None, limits: Limits, workers: int) -> int:
        """Of a finalist, by the time that is left; said where they are fewer than those of a whole training."""
        epochs = self.timing.epochs(asked, fit, there, limits.epochs, workers, self.shares)
        if epochs < fit.epochs:
            self.notes.append(f"finalists were trained for {epochs} of {fit.epochs} epochs, for the time that was left")
        return epochs

    def _goal(self) -> float | None:
        """The score on the first half that the margin allows: the teacher's there, less the margin."""
        first = self.begun.first
        return None if first is None else first - self.begun.better * self.begun.margin


def _over_seeds(competitor: Competitor, finalists: Sequence[Finalist]) -> Competitor:
    """Who learnt from labels alone is a finalist, too: both have the figures over all seeds, not one of them those of a single seed."""
    same = next((each for each in finalists if each.arm == "labels"), None) if competitor.name == LABELS else None
    if same is None:
        return competitor
    return replace(competitor, score=same.score, difference=same.difference, price=same.price, within=same.within)
