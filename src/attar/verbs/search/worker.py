"""One worker of a search: it asks for a batch, drops it where it is too dear, trains it, tells what came of it, and asks again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from attar.cost import Budget
from attar.errors import AttarError
from attar.loop import Signals, Stopped
from attar.progress import Event, Listener
from attar.searched import Arm, Priced, Trial, board
from attar.verbs.search.design import Design, Spaces
from attar.verbs.search.learning import Learning
from attar.verbs.search.pricing import Prices
from attar.verbs.search.rungs import Rungs
from attar.verbs.search.storage import Ledger, open_study
from attar.verbs.search.study import DIRECTIONS, Asking, Question, Told, dear, told, trained
from attar.verbs.search.training import Candidate, Classroom, Outcome

__all__ = ["Limits", "Place", "Worker", "over"]

ARCHITECTURES = 12  # up to which each candidate may bring its own: a batch, which has one, would tell of few
DEAR = 5  # times as many candidates as are to be trained may be dropped for their price


@dataclass(frozen=True)
class Place:
    """Where studies are kept: a file or a URL, and what they are studies of, as of `open_study`."""

    where: str | Path
    identity: Mapping[str, str]

    def open(self, arm: Arm, *, trials: int | None, seconds: float | None) -> Ledger:
        """The study of an arm; the two arms of a search are two studies beside each other."""
        return open_study(self.where, self.identity, DIRECTIONS, name=arm, trials=trials, seconds=seconds)


@dataclass(frozen=True)
class Limits:
    """How far a search goes. trials: to be trained, of each arm. seconds: of all workers together. batch: candidates asked at a time.

    epochs: of one trial, fewer than a whole training has.
    """

    trials: int | None
    seconds: float | None
    batch: int
    epochs: int


@dataclass(frozen=True)
class _Untold:
    """A batch that was trained."""

    asking: Asking
    questions: Sequence[Question]
    outcomes: Sequence[Outcome]
    watched: bool


@dataclass
class Worker:
    """Works on the studies of all arms until their limits are reached. seed: of its sampler, another for each worker.

    prices: may still be learnt, where there is no budget. What was trained until then is told when they are known.
    """

    place: Place
    spaces: Spaces
    room: Classroom
    prices: Prices | Learning
    budget: Budget
    limits: Limits
    arms: Sequence[Arm]
    seed: int
    listen: Listener
    known: dict[Arm, list[Told]] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    untold: list[_Untold] = field(default_factory=list, init=False)
    took: dict[Arm, float] = field(default_factory=dict, init=False)  # seconds of the last turn

    def run(self) -> None:
        """Raises Stopped on a signal: what was not finished is given back, and whoever goes on with the study repeats it."""
        with ExitStack() as stack:
            signals = stack.enter_context(Signals())
            askings: dict[Arm, Asking] = {}
            for arm in self.arms:
                ledger = stack.enter_context(self.place.open(arm, trials=self.limits.trials, seconds=self.limits.seconds))
                askings[arm] = Asking(ledger, self.spaces, arm, seed=self.seed)
                self.known[arm] = told(ledger, arm)
                if ledger.new:
                    askings[arm].begin()
            while open_arms := [asking for asking in askings.values() if self._open(asking)]:
                if signals.caught:
                    raise Stopped("search", 0, signals.caught, None)
                asking = min(open_arms, key=lambda asking: self._count(asking.arm))
                begun = self.clock()
                self._turn(asking)
                self.took[asking.arm] = self.clock() - begun
            self._tell_all()
            for asking in askings.values():
                self._wait(asking, signals)

    def _open(self, asking: Asking) -> bool:
        left = asking.ledger.left()
        if left.seconds is not None and left.seconds < self.took.get(asking.arm, 0.0):
            return False  # another turn would not end in time
        if left.owed and (left.seconds is None or left.seconds > 0):
            return True
        return not left.spent and not self._too_dear(asking.arm)

    def _too_dear(self, arm: Arm) -> bool:
        """Whether so many were dropped that nobody need ask on."""
        count = sum(each.trial.state == "dear" for each in self.known[arm])
        return count >= DEAR * max(self.limits.trials or 0, len(self._trained(arm)), 20)

    def _wait(self, asking: Asking, signals: Signals) -> None:
        """Until what others hold is told, or owed to this one."""
        while not (left := asking.ledger.wait(lambda: bool(signals.caught))).over:
            if signals.caught:
                raise Stopped("search", 0, signals.caught, None)
            if not left.owed:
                return
            self._try(asking, asking.again(1))

    def _count(self, arm: Arm) -> int:
        """Candidates that an arm has had."""
        return len(self._trained(arm)) + sum(each.asking.arm == arm for each in self.untold)

    def _trained(self, arm: Arm) -> list[Told]:
        return [each for each in self.known[arm] if each.trial.state != "dear"]

    # ---- one turn

    def _turn(self, asking: Asking) -> None:
        if isinstance(self.prices, Learning) and self.prices.ready:
            self._tell_all()
        self._try(asking, asking.again(self.limits.batch))
        first = asking.first()
        if first is not None and not self._dropped(asking, [first]):
            self._try(asking, [first, *asking.more(first, self._batch(asking.arm) - 1)])

    def _batch(self, arm: Arm) -> int:
        """How many candidates of one architecture are asked at a time: one at first, as long as most candidates bring a new one."""
        tried = [each.trial.student for each in self._trained(arm)]
        tried += [each.questions[0].design.text for each in self.untold if each.asking.arm == arm]
        there = len(set(tried))
        return 1 if there < ARCHITECTURES and 2 * there >= len(tried) else self.limits.batch

    def _try(self, asking: Asking, questions: Sequence[Question]) -> None:
        """Trains those that keep the budget, candidates of one form as one batch."""
        forms: dict[object, list[Question]] = {}
        for question in questions:
            forms.setdefault(question.design.form, []).append(question)
        for batch in forms.values():
            batch = [replace(question, batch=batch[0].number) for question in batch]
            if not self._dropped(asking, batch):
                self._train(asking, batch)

    def _dropped(self, asking: Asking, batch: Sequence[Question]) -> bool:
        """Whether students of this form are too dear, or cannot be built here, which is told then."""
        if isinstance(self.prices, Learning):
            return False  # nothing bounds what it may cost
        try:
            price = self.prices.price(batch[0].design.student)
        except AttarError as error:
            self._fail(asking, batch, error)
            return True
        excess = over(self.budget, price)
        if all(value <= 0 for value in excess.values()):
            return False
        self._tell(asking, [(question, dear(question, price, False)) for question in batch], excess)
        return True

    def _train(self, asking: Asking, questions: Sequence[Question]) -> None:
        better, known = self._better, self.known[asking.arm]
        designs = [self._short(question.design) for question in questions]
        try:
            price = None if isinstance(self.prices, Learning) else self.prices.price(designs[0].student)
            rungs = Rungs(self.limits.epochs)
            watched = price is None or rungs.watched(questions[0].batch, known)
            behind = None if price is None or watched else rungs.behind(designs, known, better, price.parameters)
            candidates = [Candidate(design, question.batch) for design, question in zip(designs, questions, strict=True)]
            outcomes = self.room.train(candidates, behind=behind)
        except AttarError as error:
            self._fail(asking, questions, error)
            return
        shown = [replace(question, design=design) for question, design in zip(questions, designs, strict=True)]
        self.untold.append(_Untold(asking, shown, [replace(outcome, model=None) for outcome in outcomes], watched))
        if price is not None:
            self._tell_all()

    def _tell_all(self) -> None:
        """What was trained and is not told yet; waits for the prices."""
        if isinstance(self.prices, Learning):
            self.prices = self.prices.get()
        while self.untold:
            each = self.untold[0]
            try:
                price = self.prices.price(each.questions[0].design.student)
            except AttarError as error:
                self._fail(each.asking, each.questions, error)
            else:
                excess = over(self.budget, price)
                within = all(value <= 0 for value in excess.values())
                pairs = zip(each.questions, each.outcomes, strict=True)
                told_of = [(question, trained(question, outcome, price, within)) for question, outcome in pairs]
                self._tell(each.asking, told_of, excess, each.watched)
            self.untold.pop(0)

    def _fail(self, asking: Asking, questions: Sequence[Question], error: AttarError) -> None:
        failed = [(question, replace(dear(question, Priced(None), True), state="failed", why=error.message)) for question in questions]
        self._tell(asking, failed, {})

    def _short(self, design: Design) -> Design:
        return replace(design, fit=replace(design.fit, epochs=self.limits.epochs))

    @property
    def _better(self) -> int:
        return self.room.task.better(self.room.judge.metric)

    def _tell(self, asking: Asking, trials: Sequence[tuple[Question, Trial]], excess: Mapping[str, float], watched: bool = False) -> None:
        """A batch; the study is read once for all of it."""
        for question, trial in trials:
            asking.tell(question, trial, better=self._better, over=excess, watched=watched)
        self.known[asking.arm] = told(asking.ledger, asking.arm, self.known[asking.arm])
        self._say(asking, [text for _, trial in trials if (text := _sentence(trial))])

    def _say(self, asking: Asking, sentences: Sequence[str]) -> None:
        """Where the search is, and of a batch what went wrong."""
        known = [each.trial for arm in self.arms for each in self.known[arm]]
        done = sum(each.state != "dear" for each in known)
        left = asking.ledger.left().seconds
        rows = board([each for each in known if each.arm == "student"], self.room.judge.metric, self._better)
        total = (self.limits.trials or 0) * len(self.arms)
        for text in sentences or [""]:
            self.listen(Event("search", done, total, text, seconds_left=left, rows=rows))


def _sentence(trial: Trial) -> str:
    """Of what went otherwise than it was meant to; "" of a candidate that was trained."""
    alone = " on labels alone" * (trial.arm == "labels")  # both arms count from 0
    return f"trial {trial.number}{alone} of {trial.student} failed: {trial.why}" if trial.state == "failed" else ""


def over(budget: Budget, price: Priced) -> dict[str, float]:
    """By bound how far a price is above it, as a share of it: −0.5 is half of what is allowed. What is not known is left out."""
    size = None if price.size_bytes is None else price.size_bytes / 1e6
    values = {"latency_ms": price.latency_ms, "size_mb": size, "parameters": price.parameters, "memory_mb": price.memory_mb}
    found = {}
    for name, value in values.items():
        bound = getattr(budget, name)
        if bound is not None and value is not None:
            found[name] = value / bound - 1
    fastest = getattr(budget, "rows_per_second", None)
    if fastest is not None and price.rows_per_second:
        found["rows_per_second"] = fastest / price.rows_per_second - 1
    return {name: value for name, value in found.items() if math.isfinite(value)}
