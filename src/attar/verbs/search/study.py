"""The study: which candidates are tried next, and what is known of those that were; Optuna asks, its storage remembers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attar.certificate.plain import plain
from attar.errors import MissingExtra
from attar.notation.spaces import Hole
from attar.searched import Arm, Priced, Trial
from attar.verbs.search.design import Design, Spaces
from attar.verbs.search.training import Outcome

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Asked

__all__ = ["GOALS", "Asking", "Question", "told"]

GOALS = ("error", "latency_ms", "size_bytes")
"""What a study makes small, in this order."""
TEMPERATURES = (2.0, 1.0, 4.0)
WEIGHTS = (0.9, 1.0, 0.5)
STARTUP = 10  # points drawn at random before the sampler learns


@dataclass(frozen=True)
class Question:
    """One candidate that the study asks for. number: of the study's trial."""

    asked: Asked
    design: Design

    @property
    def number(self) -> int:
        return self.asked.number


class Asking:
    """Asks for candidates of one arm, and tells what came of them.

    turning: holes that may differ within a batch; all others are those of its first candidate, so that a batch trains as one program.
    """

    def __init__(self, study: Study, spaces: Spaces, arm: Arm, *, seed: int) -> None:
        self.study, self.spaces, self.arm = study, spaces, arm
        self.holes = spaces.holes(arm)
        self.turning = spaces.turning(arm)
        self.sampler = _optuna().samplers.TPESampler(n_startup_trials=STARTUP, multivariate=True, group=True, seed=seed)
        study.sampler = self.sampler

    def begin(self) -> None:
        """Enqueues what experience says to try first: the middle of every space, at the usual temperatures and weights."""
        if self.study.get_trials(deepcopy=False):
            return
        for point in priors(self.holes, self.spaces.middle(self.arm)):
            self.study.enqueue_trial(self._raw(point), skip_if_exists=True)

    def ask(self, count: int) -> list[Question]:
        """So many candidates of one form."""
        first = self._one({})
        found = [first]
        if self.turning:
            fixed = {name: value for name, value in first.asked.params.items() if name not in self.turning}
            found += [self._one(fixed) for _ in range(count - 1)]
        return found

    def _one(self, fixed: Mapping[str, Any]) -> Question:
        optuna = _optuna()
        with _quiet():
            self.study.sampler = optuna.samplers.PartialFixedSampler(dict(fixed), self.sampler) if fixed else self.sampler
            asked = self.study.ask()
            point = {hole.name: value for hole, value in self._suggested(asked)}
        return Question(asked, self.spaces.design(point, self.arm))

    def _suggested(self, asked: Asked) -> Iterator[tuple[Hole, Any]]:
        point: dict[str, Any] = {}
        for hole in self.holes:
            if not hole.asked(point):
                continue
            match hole.kind:
                case "choice":
                    value = asked.suggest_categorical(hole.name, list(hole.texts))
                case "integer":
                    assert hole.low is not None and hole.high is not None
                    value = asked.suggest_int(hole.name, int(hole.low), int(hole.high), log=hole.log)
                case _:
                    assert hole.low is not None and hole.high is not None
                    value = asked.suggest_float(hole.name, hole.low, hole.high, log=hole.log)
            point[hole.name] = value
            yield hole, value

    def _raw(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return dict(point)


def priors(holes: Sequence[Hole], middle: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Points to begin with. The first has every hole in its middle but for temperature and weight; the others name these two alone."""
    temperatures = [hole for hole in holes if hole.name.endswith(".temperature")]
    weights = [hole for hole in holes if hole.name.endswith(".weight") and hole.kind == "between"]
    pairs = [(t, w) for w in WEIGHTS for t in TEMPERATURES]
    found: list[dict[str, Any]] = []
    for temperature, weight in pairs:
        point = {hole.name: _inside(hole, temperature) for hole in temperatures} | {hole.name: _inside(hole, weight) for hole in weights}
        if point not in found:
            found.append(point)
    return [{**middle, **point} if at == 0 else point for at, point in enumerate(found)]


def _inside(hole: Hole, value: float) -> Any:
    if hole.kind == "choice":
        return min(hole.texts, key=lambda text: abs(float(text) - value))
    assert hole.low is not None and hole.high is not None
    return min(max(value, hole.low), hole.high)


# ---- what is told


def told(question: Question, trial: Trial, study: Study, *, better: int, over: Mapping[str, float]) -> None:
    """Tells the study what came of a candidate, whole: the record of the trial lies beside its numbers.

    over: by bound of the budget how far the price is above it, as a share of it; 0 or less keeps it.
    """
    optuna = _optuna()
    asked = question.asked
    asked.set_user_attr("attar", json.dumps(plain(trial)))
    for name, excess in over.items():
        asked.set_constraint(name, excess)
    if trial.state == "failed":
        asked.set_constraint("diverged", 1.0)
    if trial.state in ("dear", "failed") or trial.score is None:
        study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        return
    price = trial.price
    study.tell(asked, [-trial.score * better, float(price.size_bytes or 0)])


def trials(study: Study) -> list[Trial]:
    """What the study knows of its finished candidates, in the order of their numbers."""
    found = (recorded(each) for each in study.get_trials(deepcopy=False))
    return [trial for trial in found if trial is not None]


def recorded(each: FrozenTrial) -> Trial | None:
    from attar.certificate.plain import whole

    text = each.user_attrs.get("attar")
    return None if text is None or not each.state.is_finished() else whole(Trial, json.loads(text))


def trial_of(question: Question, outcome: Outcome, price: Priced, within: bool) -> Trial:
    """The record of a candidate that was trained."""
    design = question.design
    state = "failed" if outcome.why else "trained" if outcome.whole else "stopped"
    return replace(
        blank(question, price, within),
        state=state,
        score=outcome.score,
        rungs=outcome.rungs,
        epochs=outcome.epochs,
        seconds=round(outcome.seconds, 3),
        together=outcome.together,
        why=outcome.why,
        fit=repr(design.fit),
    )


def blank(question: Question, price: Priced, within: bool) -> Trial:
    """The record of a candidate that was not trained, for its price."""
    design = question.design
    texts = {"student": design.text, "objective": repr(design.objective), "fit": repr(design.fit)}
    return Trial(question.number, design.arm, point=dict(design.point), state="dear", score=None, price=price, within=within, **texts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what is experimental in it; its version is pinned."""
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
