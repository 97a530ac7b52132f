"""What keeps a search honest: two halves of the validation rows, one that chooses and one that no choice has seen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from attar.certificate import Figure, digits, metric_name, signed
from attar.data import Data, Split
from attar.errors import DataError, RunError
from attar.identity import uniform
from attar.searched import Finalist, Trial, front
from attar.signal import Source
from attar.sources import module
from attar.statistics import Draws, Effect, bootstrap, seed_effect
from attar.statistics.prediction import foreseen, next_share, shrunk
from attar.task import Task
from attar.verbs.evaluate.models import Model, Rows
from attar.verbs.evaluate.scoring import figure, kish, resamples, trials_of

__all__ = ["Halves", "Second", "Verdict", "chosen", "finalists_of", "halved", "same_deal"]

SALT = "search"
FILE = -1  # in place of a seed: the first seed as it was exported
FEWEST = 20  # rows of a half: fewer choose by chance
MOST = 3  # finalists that learnt from the teacher; a fourth learnt from labels alone
SURE = 0.9  # how probably a student must meet the margin to be recommended
_REST = "luck in choosing is in that, and so are other rows and a longer training"


@dataclass(frozen=True)
class Halves:
    """The data with one half of the validation rows in place of all: `first` chooses epochs and candidates, `second` compares finalists."""

    first: Data
    second: Split


def halved(data: Data, seed: int = 0) -> Halves:
    """The validation rows in two, by a hash of each row's id and the search's seed: adding rows moves none from one half to the other.

    Studies of other seeds have other halves: else a row that misleads would judge, or be judged by, in all of them.
    Raises DataError where a half has fewer than twenty rows.
    """
    part = torch.from_numpy(uniform(data.valid.ids.numpy(), f"{SALT}/{seed}")) < 0.5
    first, second = (data.valid.take(where.nonzero().squeeze(1)) for where in (part, ~part))
    if min(len(first), len(second)) < FEWEST:
        what = f"{len(data.valid):,} validation rows make halves of {len(first):,} and {len(second):,}, and {FEWEST} are needed"
        raise DataError(what, hint="give the validation split more rows: a search chooses on one half and compares on the other")
    return Halves(replace(data, valid=first), second)


def same_deal(out: Path, seed: int) -> None:
    """Raise RunError where the search in a folder has its validation rows in other halves than `seed` makes.

    A search that goes on with other halves would compare finalists on rows that have chosen them.
    """
    path = out / "manifest.json"
    if not (out / "search.json").exists() or not path.exists():
        return
    was = json.loads(path.read_text(encoding="utf-8")).get("deal")
    if was != seed:
        dealt = "without a seed, as attar did before" if was is None else f"by seed {was}"
        hint = "--out names another folder" if was is None else f"go on with seed {was}, or --out names another folder"
        raise RunError(f"the halves of the validation rows of {out} were dealt {dealt}, and seed {seed} deals others", hint=hint)


# ---- who comes to the final


def finalists_of(trials: Sequence[Trial], better: int, goal: float | None, least: int | None = None) -> list[Trial]:
    """The trials that are trained anew: of those on the front that keep the budget the best, the cheapest that comes to the goal and one
    between; and the best that learnt from labels alone, whose price is bounded alike.

    goal: the score on the first half that the margin allows; None: nobody knows, and the cheapest is the one between. Where no trial
    keeps the budget there are none. least: parameters from which on the curve of sizes trusts a student to meet the margin; of those that
    came to the goal the smaller ones may have been lucky.
    """
    costs = ("latency_ms", "size_bytes") if all(t.price.latency_ms is not None for t in trials if t.state == "trained") else ("size_bytes",)
    there = [trial for trial in front(trials, better, costs) if trial.within]
    if not there:
        return []
    best = max(there, key=lambda trial: better * (trial.score or 0.0))
    enough = [trial for trial in there if goal is None or better * ((trial.score or 0.0) - goal) >= 0]
    found = [best]
    if enough:
        trusted = [trial for trial in enough if least is not None and (trial.price.parameters or 0) >= least]
        cheapest = min(trusted or enough, key=_dear)
        span = [trial for trial in there if _dear(cheapest) < _dear(trial) < _dear(best) and trial in enough]
        found += [cheapest, *([sorted(span, key=_dear)[len(span) // 2]] if span else [])]
    rest = sorted((t for t in there if t not in found), key=lambda t: -better * (t.score or 0.0))
    found = [*dict.fromkeys(t.number for t in [*found, *rest])][:MOST]
    chosen_ones = sorted((t for t in there if t.number in found), key=_dear)
    labels = [t for t in trials if t.arm == "labels" and t.state == "trained" and t.within and t.score is not None]
    return chosen_ones + [max(labels, key=lambda t: better * (t.score or 0.0))] * bool(labels)


def _dear(trial: Trial | Finalist) -> tuple[float, float]:
    """What is compared where one candidate is called cheaper than another: latency, then bytes."""
    return trial.price.latency_ms or 0.0, float(trial.price.size_bytes or 0)


# ---- the second half


class Second:
    """The second half of the validation rows: who answers them how well, on the same resamples of rows.

    Where none of them has a label, how like the teacher. first: the other half, on which a decision rule that asks for a rate is made each
    one's threshold, as it is for those who stand beside them.
    """

    def __init__(self, split: Split, task: Task, teacher: Source, first: Split) -> None:
        self.split, self.task, self.first = split, task, first
        self.rows = Rows.of(split, task)
        theirs = self._ruled("the teacher", teacher)
        self.theirs, self.rule = theirs.ask(split), theirs.task
        self.metric = task.metric if self.rows.n else task.alike_by
        self.better = task.better(self.metric)

    def drawn(self, students: Mapping[str, Sequence[nn.Module]], files: Mapping[str, Source] | None = None) -> Drawn:
        """Asks the students of each name, one of each seed. files: the first seed of each as it was exported."""
        each = [(name, seed, model) for name, models in students.items() for seed, model in enumerate(models)]
        asked = {(name, seed): self._ruled(name, module(model)) for name, seed, model in each}
        asked |= {(name, FILE): self._ruled(name, source) for name, source in (files or {}).items()}
        statistics = {key: self._statistic(model.ask(self.split), model.task) for key, model in asked.items()}
        if self.rows.n:
            statistics["teacher", 0] = self._statistic(self.theirs, self.rule)
        count = self.rows.n or self.rows.count
        weight = self.rows.labelled_weight if self.rows.n else self.rows.weight
        return Drawn(
            bootstrap(statistics, count, resamples=resamples(count), weight=weight), self.better, count, self.task.bounds(self.metric)
        )

    def foretold(self, finalists: Sequence[Finalist], drawn: Drawn, test: Split) -> tuple[Finalist, ...]:
        """The finalists with what each one's exported file is predicted to have on the test rows, whose number alone is looked at.

        It is a 95 % prediction interval of `attar.statistics.prediction.foreseen`: one file of one training, on that many other rows. Its
        middle is the mean over seeds on the second half, and
        - what the file has more or less there than the training that it is of, as an int8 file has;
        - of those that can be recommended, shrunk towards their mean, for the same rows chose among them (`shrunk`). The width stays.
        Of a share, as accuracy is, the interval holds that of rows right or wrong (`next_share`); all end where the metric ends. It knows
        nothing of rows drawn elsewhere than these, nor of a threshold that a decision rule fixes on other rows anew. Who was trained over
        fewer than two seeds, or where no test row has a label and these have, gets none.
        """
        rows, there = self.rows, Rows.of(test, self.task)
        here, to_come = (_counting(each, self.rows.n > 0) for each in (rows, there))
        rivals = [each for each in finalists if each.arm == "student" and each.within]
        middles = dict(zip((each.trial for each in rivals), drawn.without_luck([str(each.trial) for each in rivals]), strict=True))
        share = trials_of(rows, self.task)[self.metric]
        found = []
        for each in finalists:
            name = "labels" if each.arm == "labels" else str(each.trial)
            draws = drawn.of(name)
            if len(draws) < 2 or not to_come:
                found.append(each)
                continue
            mean = drawn.shipped(name)
            told = foreseen([d.value for d in draws], mean.se, [d.se for d in draws], rows=here, next_rows=to_come)
            low, high = told.low, told.high
            if share and (self.metric != "auroc" or told.value in (0.0, 1.0)):
                own = next_share(min(max(told.value, 0.0), 1.0), share, share * to_come / here)
                low, high = min(low, own[0]), max(high, own[1])
            luck = 0.0 if each.arm == "labels" else told.value - middles.get(each.trial, told.value)
            value = mean.value - luck
            least, most = self.task.bounds(self.metric)
            value, low, high = (min(max(x + value - told.value, least), most) for x in (told.value, low, high))
            how = f"prediction for one exported file on {there.n or there.count:,} test rows; t over seeds, these rows and those"
            predicted = Figure.of(value, low, high, n=there.n or there.count, how=how)
            found.append(replace(each, predicted=predicted, optimism=self.better * luck))
        return tuple(found)

    def _ruled(self, name: str, source: Source) -> Model:
        model, labels = Model(name, source, self.task), self.first.labels
        if self.task.recall_at_fpr is None or labels is None or not self.first.labelled:
            return model
        return replace(model, task=self.task.fix(model.ask(self.first), labels, self.first.weight))

    def _statistic(self, answer: Tensor, task: Task):
        if not self.rows.n:
            return self.task.likeness(self.theirs, answer, self.rows.mask)[self.metric]
        rows = self.rows
        return task.figures(answer[rows.labelled], rows.labels_known, rows.texts_known)[self.metric]


@dataclass(frozen=True)
class Drawn:
    """Draws by (name, seed), paired; more is better where `better` is 1."""

    draws: Mapping[tuple[str, int], Draws]
    better: int
    rows: int
    ends: tuple[float, float] = (-math.inf, math.inf)  # of the metric: no interval of a score reaches beyond

    def of(self, name: str) -> list[Draws]:
        """Those of a name, seed by seed; without its file."""
        return [self.draws[key] for key in sorted(key for key in self.draws if key[0] == name and key[1] != FILE)]

    def shipped(self, name: str) -> Draws:
        """The mean over seeds, with what exporting took from the first of them, or gave."""
        each = self.of(name)
        file = self.draws.get((name, FILE))
        return Draws.average(each) if file is None else Draws.average(each) + (file - each[0])

    def without_luck(self, names: Sequence[str]) -> list[float]:
        """The mean of each over seeds, without what the best of them owe to being compared on the same rows: see `shrunk`.

        What seeds do to a mean is no luck here: the file that ships is of one of these seeds, and has its share of it on any rows.
        """
        means = [self.score(name).value or 0.0 for name in names]
        pairs = [self.against(one, other) for at, one in enumerate(names) for other in names[:at]]
        noise = [gap.row_se**2 / 2 for gap in pairs]
        return shrunk(means, sum(noise) / len(noise)).tolist() if noise else means

    @cached_property
    def teacher(self) -> Draws | None:
        return self.draws.get(("teacher", 0))

    def scores(self, name: str) -> tuple[float, ...]:
        return tuple(each.value for each in self.of(name))

    def score(self, name: str) -> Figure:
        """The mean over seeds, with its interval over seeds and rows; of the teacher over rows."""
        each = self.of(name)
        if name == "teacher":
            return figure(each[0])
        found = self._over_seeds(each, 0.95)
        how = "mean over seeds; t over seeds and rows of the second half"
        least, most = self.ends
        return Figure.of(found.difference, max(found.low, least), min(found.high, most), n=len(each), how=how)

    def difference(self, name: str) -> Figure | None:
        """What a student gains over the teacher on the same rows, more is better, with its 95 % interval over seeds and rows."""
        if self.teacher is None:
            return None
        found = self.against(name, "teacher", 0.95)
        return Figure.of(found.difference, found.low, found.high, n=found.seeds, how="paired; t over seeds and rows of the second half")

    def against(self, one: str, other: str, level: float = 0.9) -> Effect:
        """one − other, more is better, paired by seeds and rows; the teacher has one seed."""
        ours, theirs = self.of(one), self.of(other)
        if len(theirs) == 1:
            theirs = theirs * len(ours)
        return self._over_seeds([(a - b) * self.better for a, b in zip(ours, theirs, strict=False)], level)

    def _over_seeds(self, each: Sequence[Draws], level: float) -> Effect:
        values, ses = [d.value for d in each], [d.se for d in each]
        return seed_effect(values, Draws.average(each).se, ses, margin=math.inf, rows=self.rows, level=level)


# ---- who wins


@dataclass(frozen=True)
class Verdict:
    """winner: number of the trial that is recommended; None where none is. words: in sentences, why.

    shown: whether it is shown with 90 % to be worse than the teacher by less than the margin; None where nobody can say.
    """

    winner: int | None
    words: tuple[str, ...]
    shown: bool | None = None


def chosen(
    finalists: Sequence[Finalist], drawn: Drawn, margin: float, metric: str, bounds: Mapping[str, float], first: float | None = None
) -> Verdict:
    """The cheapest finalist that meets the margin with 90 %; else the best one, or a cheaper one that is as good within half the margin.

    first: the teacher's score on the first half.

    Finalists are asked one after another, as good as they were on the first half, until one fails: asked all at once, the chance that one
    passes by luck would add up. In a fixed order it stays at 10 % in all (fixed-sequence testing; Maurer, Hothorn and Lehmacher 1995).
    The last is the stop rule: where the 90 % interval of a difference lies within ± margin / 2, the cheaper of the two is chosen.
    """
    ours = [each for each in finalists if each.arm == "student" and each.within and each.score.value is not None]
    if not ours:
        return Verdict(None, _nobody(finalists, bounds))
    best = max(ours, key=lambda each: drawn.better * (each.score.value or 0.0))
    cheap_first = sorted(ours, key=_dear)
    gaps = {each.trial: drawn.against(str(each.trial), "teacher") for each in ours} if drawn.teacher is not None else {}
    meets = _meeting(ours, drawn, margin) if gaps else []
    winner = min(meets, key=_dear) if meets else next(each for each in cheap_first if each is best or _alike(drawn, best, each, margin))
    said = f"Trial {winner.trial}, {winner.student}, is recommended: {metric_name(metric)} {digits(winner.score.value or 0.0)}"
    unseen = (
        "rows that no choice had seen" if len(ours) == 1 else f"the second half, by which only these {len(ours)} finalists were compared"
    )
    words = [f"{said}{_between(winner.score)}, the mean over seeds, on {unseen}.", *_foretold(winner, ours, metric)]
    if winner.trial in gaps:
        span = _span(gaps[winner.trial], drawn.better)
        shown = f"is shown with {SURE:.0%}" if meets else f"is not shown with {SURE:.0%}"
        cheapest = "; it is the cheapest finalist of which that is so" if meets else ""
        words.append(f"That it is worse than the teacher by less than {margin:.3g} {shown}: {span}{cheapest}.")
    if winner is not best and not meets:
        span = _span(drawn.against(str(winner.trial), str(best.trial)), drawn.better)
        words.append(f"Trial {best.trial} is dearer, and as good within half the margin: {span}.")
    words += [*_labels(finalists, winner, drawn), _bias(winner, drawn, metric, first)]
    return Verdict(winner.trial, tuple(words), bool(meets) if gaps else None)


def _meeting(ours: Sequence[Finalist], drawn: Drawn, margin: float) -> list[Finalist]:
    found: list[Finalist] = []
    for each in sorted(ours, key=lambda each: -drawn.better * each.before):
        if not drawn.against(str(each.trial), "teacher", 2 * SURE - 1).low > -margin:
            break
        found.append(each)
    return found


def _counting(rows: Rows, labelled: bool) -> float:
    """As how many rows of one weight they count, those with a label or all."""
    weight = rows.labelled_weight if labelled else rows.weight
    return float(rows.n if labelled else rows.count) if weight is None else kish(weight)


def _alike(drawn: Drawn, best: Finalist, other: Finalist, margin: float) -> bool:
    gap = drawn.against(str(best.trial), str(other.trial), 0.9)
    return gap.low > -margin / 2 and gap.high < margin / 2


def _labels(finalists: Sequence[Finalist], winner: Finalist, drawn: Drawn) -> list[str]:
    """Whether the teacher was needed at all: against the best that learnt from labels alone, searched as long."""
    other = next((each for each in finalists if each.arm == "labels"), None)
    if other is None:
        return []
    gap = drawn.against(str(winner.trial), "labels", 0.95)
    dearer = " It is also the cheaper of the two." if _dear(other) > _dear(winner) else ""
    span = _span(gap, drawn.better)
    if gap.low > 0:
        return [f"It is better than the best student on labels alone, which was searched as long: {span}.{dearer}"]
    if gap.high < 0:
        return [f"A student on labels alone, {other.student}, is better ({span}): no teacher is needed, and none should be used here."]
    return [f"Whether it is better than the best student on labels alone, which was searched as long, is not shown: {span}.{dearer}"]


def _bias(winner: Finalist, drawn: Drawn, metric: str, first: float | None) -> str:
    """What became of the score that it was chosen by. Beside the teacher, for one half may be easier than the other.

    The second half chose among finalists, the first among all trials; finalists train longer, and over seeds. What of the difference is
    luck in choosing cannot be told from the rest.
    """
    now, better = winner.score.value or 0.0, drawn.better
    begin = f"It was chosen by {metric_name(metric)} {digits(winner.before)} on the first half of the validation rows"
    if first is None or drawn.teacher is None:
        lost = better * (winner.before - now)
        way = "worse" if lost > 0 else "better"
        return f"{begin}; trained anew it has {digits(now)} on the second, {digits(abs(lost))} {way}: {_REST}."
    gap, before = drawn.against(str(winner.trial), "teacher", 0.95), winner.before - first
    lost = better * before - gap.difference
    way = "worse" if lost > 0 else "better"
    then = f"{begin}, to the teacher {signed(before).strip()}; trained anew it is {_span(gap, better)} on the second"
    return f"{then}, {digits(abs(lost))} {way}: {_REST}."


def _nobody(finalists: Sequence[Finalist], bounds: Mapping[str, float]) -> tuple[str, ...]:
    said = ", ".join(f"{name} ≤ {bound:g}" for name, bound in bounds.items())
    if finalists and said:
        return (f"No finalist keeps the budget when its exported file is measured: {said}.",)
    return (
        f"No trained candidate keeps the budget: {said}." if said else "No candidate that learns from the teacher was trained to its end.",
    )


def _foretold(winner: Finalist, ours: Sequence[Finalist], metric: str) -> list[str]:
    """What its file is predicted to have on the test rows, and what of its score that takes back."""
    told = winner.predicted
    if told is None or told.value is None or not _between(told):
        return []
    less = ""
    if len(ours) > 1:
        taken = "taken back from its mean" if winner.optimism >= 0 else "given to its mean"
        less = f" {digits(abs(winner.optimism))} is {taken} in that: luck is in how {len(ours)} finalists differ on the rows that choose."
    what = f"{metric_name(metric)} {digits(told.value)}{_between(told)}"
    return [f"On the {told.n:,} test rows its exported file is predicted to have {what}, with 95%.{less}"]


def _between(score: Figure) -> str:
    if score.low is None or score.high is None or not math.isfinite(score.high - score.low):
        return ""
    return f" [{digits(score.low)}, {digits(score.high)}]"


def _span(gap: Effect, better: int) -> str:
    low, high = sorted((better * gap.low, better * gap.high))
    if not math.isfinite(high - low):
        return signed(better * gap.difference).strip()
    return f"{signed(better * gap.difference).strip()} [{signed(low).strip()}, {signed(high).strip()}]"
