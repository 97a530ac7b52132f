"""The study of one arm: which candidates are tried next, and what is known of those that were; Optuna asks, its storage remembers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attar.certificate.plain import plain, whole
from attar.errors import MissingExtra
from attar.notation.spaces import Hole
from attar.searched import Arm, Priced, Trial
from attar.verbs.search.design import Design, Spaces
from attar.verbs.search.storage import Ledger
from attar.verbs.search.training import Outcome

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Asked

__all__ = ["DIRECTIONS", "Asking", "Question", "Told", "sampler", "told"]

DIRECTIONS = ("minimize", "minimize", "minimize")  # error, latency, bytes
STARTUP = 10  # points drawn at random before the sampler learns
_TRIAL, _BATCH, _WATCHED = "attar:trial", "attar:batch", "attar:watched"  # user attributes of a trial


@dataclass(frozen=True)
class Question:
    """One candidate that the study asks for. batch: number of the trial that it was asked with, which seeds both."""

    asked: Asked
    design: Design
    batch: int

    @property
    def number(self) -> int:
        return self.asked.number


@dataclass(frozen=True)
class Told:
    """What the study knows of one finished candidate. batch: as of its question. watched: nobody of its batch was stopped at a rung."""

    trial: Trial
    batch: int
    watched: bool


class Asking:
    """Asks for candidates of one arm, and tells what came of them.

    turning: holes that may differ within a batch; all others are those of its first candidate, so that a batch trains as one program.
    """

    def __init__(self, ledger: Ledger, spaces: Spaces, arm: Arm, *, seed: int) -> None:
        self.ledger, self.spaces = ledger, spaces
        self.arm: Arm = arm
        self.holes, self.turning = spaces.holes(arm), spaces.turning(arm)
        self.sampler = sampler(seed)
        self.waiting: dict[tuple[tuple[str, Any], ...], list[dict[str, Any]]] = {}  # points to try first, by what does not turn
        self.prior: list[dict[str, Any]] = []  # those of the batch that is asked

    def begin(self) -> None:
        """What experience says to try first is tried first, in batches of one architecture each."""
        for point in self.spaces.priors(self.arm):
            self.waiting.setdefault(self._rest(point), []).append(point)

    def _rest(self, point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """What of a point does not turn."""
        return tuple(sorted((name, value) for name, value in point.items() if name not in self.turning))

    def first(self) -> Question | None:
        """A candidate with which a batch begins; None where the study has none left."""
        if self.prior:  # those of its architecture that the batch before had no room for
            self.waiting[self._rest(self.prior[0])] = self.prior
        self.prior = self.waiting.pop(next(iter(self.waiting))) if self.waiting else []
        return next((Question(asked, self._design(asked), asked.number) for asked in self._claimed({}, 1)), None)

    def more(self, first: Question, count: int) -> list[Question]:
        """Up to so many candidates that differ from the first in what turns alone."""
        if not self.turning:
            return []
        fixed = {name: value for name, value in first.asked.params.items() if name not in self.turning}
        return [Question(asked, self._design(asked), first.number) for asked in self._claimed(fixed, count)]

    def again(self, count: int) -> list[Question]:
        """Candidates whose workers did not finish them."""
        return [Question(asked, self._design(asked), asked.number) for asked in self.ledger.again(count)]

    def _claimed(self, fixed: Mapping[str, Any], count: int) -> list[Asked]:
        optuna = _optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            partial = optuna.samplers.PartialFixedSampler(dict(fixed), self.sampler) if fixed else self.sampler
        self.ledger.study.sampler = partial
        for _ in range(min(count, len(self.prior))):  # another worker may take them, and tries them then
            self.ledger.study.enqueue_trial(self.prior.pop(0))
        return self.ledger.claim(count) if count else []

    def _design(self, asked: Asked) -> Design:
        point: dict[str, Any] = {}
        for hole in self.holes:
            if hole.asked(point):
                point[hole.name] = _suggested(asked, hole)
        return self.spaces.design(point, self.arm)

    # ---- what is told

    def tell(self, question: Question, trial: Trial, *, better: int, over: Mapping[str, float], watched: bool = False) -> None:
        """Tells what came of a candidate, whole: the record of the trial lies beside its numbers.

        over: by bound of the budget how far the price is above it, as a share of it; 0 or less keeps it.
        """
        attributes = {_TRIAL: json.dumps(plain(trial)), _BATCH: question.batch, _WATCHED: watched}
        constraints = dict(over) | ({"diverged": 1.0} if trial.state == "failed" else {})
        values = None
        if trial.state in ("trained", "stopped") and trial.score is not None:
            values = [-trial.score * better, trial.price.latency_ms or 0.0, float(trial.price.size_bytes or 0)]
        self.ledger.tell(question.asked, values, attributes=attributes, constraints=constraints, counted=trial.state != "dear")


def told(ledger: Ledger, arm: Arm, before: Sequence[Told] = ()) -> list[Told]:
    """What a study knows, in the order of its numbers. before: what it told earlier, which is not read again."""
    known = {each.trial.number: each for each in before}
    return [known.get(each.number) or _told(each, arm) for each in ledger.finished()]


def _told(each: FrozenTrial, arm: Arm) -> Told:
    notes = each.user_attrs
    if _TRIAL in notes:
        return Told(whole(Trial, json.loads(notes[_TRIAL])), notes[_BATCH], notes[_WATCHED])
    why = "its worker died each time that it was tried"
    return Told(Trial(each.number, arm, "", "", "", each.params, "failed", None, Priced(None), True, why=why), each.number, False)


def trained(question: Question, outcome: Outcome, price: Priced, within: bool) -> Trial:
    """The record of a candidate that was trained."""
    state = "failed" if outcome.why else "trained" if outcome.whole else "stopped"
    return replace(
        dear(question, price, within),
        state=state,
        score=outcome.score,
        rungs=outcome.rungs,
        epochs=outcome.epochs,
        seconds=round(outcome.seconds, 3),
        together=outcome.together,
        why=outcome.why,
    )


def dear(question: Question, price: Priced, within: bool) -> Trial:
    """The record of a candidate that was dropped for its price."""
    design = question.design
    return Trial(
        question.number,
        design.arm,
        student=design.text,
        objective=repr(design.objective),
        fit=repr(design.fit),
        point=dict(design.point),
        state="dear",
        score=None,
        price=price,
        within=within,
    )


def sampler(seed: int) -> BaseSampler:
    """The tree-structured Parzen estimator over all holes at once (Watanabe 2023, arXiv:2304.11127); of each choice over its own."""
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, multivariate=True, group=True, seed=seed)


def _suggested(asked: Asked, hole: Hole) -> Any:
    if hole.low is None or hole.high is None:
        return asked.suggest_categorical(hole.name, list(hole.texts))
    if hole.kind == "integer":
        return asked.suggest_int(hole.name, int(hole.low), int(hole.high), log=hole.log)
    return asked.suggest_float(hole.name, hole.low, hole.high, log=hole.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
