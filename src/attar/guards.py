"""Guard: when the student answers by itself and when it leaves a row to the teacher, with a promise of how often it is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attar.errors import EvidenceError
from attar.notation import say
from attar.statistics.foreign import energy as energy_of
from attar.statistics.guarantees import Sample, Walk, damage, least_abstention, path_of, rows_needed, upper_bound, walk

__all__ = ["Cell", "Guard", "Promise", "Rows", "Rule", "Target", "Unguarded", "guard", "unguarded"]

Target = Literal["teacher", "labels"]
Per = Literal["decision", "answer", "all"]
State = Literal["certified", "too few rows", "infeasible", "not shown"]
NORMALISED = 0.02  # |log Σ p| of log-probabilities, rounded as they may be
SAME = 1e-6  # of how far pairs of logits spread along a line: how far off it they may be, where one number is behind both
STATES: tuple[State, ...] = ("certified", "not shown", "infeasible", "too few rows")  # the best first


@dataclass(frozen=True)
class Rows:
    """N rows that one graph was asked, and what is right.

    confidence: (N,) float32, as the graph says it. probability: (N, C) of each outcome. decision: (N,) what the student decides. right:
    (N,) what the target says, both in 0..C−1. group: (N, K) by each of K ways to part the rows, the place of each among all groups; −1
    where nobody knows. energy: (N,) float32, log Σ exp of the tempered logits, as the graph says it; None where nobody asked.
    """

    confidence: NDArray[np.float32]
    probability: NDArray[np.float64]
    decision: NDArray[np.int64]
    right: NDArray[np.int64]
    group: NDArray[np.int64] | None = None
    energy: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Cell:
    """Calibration rows of which an error rate is promised: those of one decision, of one declared group, or all.

    of: the column of a group; "" of other cells. rows: how many. wrong: of them, if the student answered all. answered, answered_wrong: of
    those that it answers; where nothing is certified, that it would answer at the threshold that came nearest. bound: of their error rate,
    not exceeded with the promise's confidence. needed: rows that would suffice, where they do not; None where nothing is lacking or nobody
    can say.
    """

    name: str
    rows: int
    wrong: int
    answered: int
    answered_wrong: int
    bound: float
    needed: int | None = None
    of: str = ""

    def abstains(self, epsilon: float) -> float:
        """The least share of these rows, 0..1, that any guard would have to leave to the teacher."""
        return float(least_abstention(self.wrong / self.rows, epsilon)) if self.rows else 0.0


@dataclass(frozen=True)
class Promise:
    """What a guard found for one graph on calibration rows; it travels with the graph.

    guard: the word that asked for it. thresholds: (D,) by the student's decision: it answers where its confidence reaches that; None: it
    never answers this. rows: calibration rows, answered: of them. cells: what is promised of which rows.
    state: "certified"; "too few rows": some cell has fewer than could show ε even without an error; "infeasible": at no threshold that was
    looked at is every cell's bound within ε; "not shown": at some it is, but the walk, which started elsewhere, failed before.
    cut, target_cut: log-odds from which student and teacher decide the positive of two outcomes; None: the likeliest. Of a teacher that
    nobody named when the guard was of labels: not known.
    tried: how many guards of the run, this one among them, were fitted on the same calibration rows.
    floor: of energy, below which a row is not answered; None: no floor. below: how many calibration rows are. They are among `rows`, and
    among those of their cells, but never among the answered ones, of which the rate is promised.
    """

    guard: str
    epsilon: float
    delta: float
    target: Target
    per: Per
    state: State
    thresholds: tuple[float | None, ...]
    rows: int
    answered: int
    cells: tuple[Cell, ...]
    cut: float | None = None
    target_cut: float | None = None
    tried: int = 1
    floor: float | None = None
    below: int = 0

    @property
    def certified(self) -> bool:
        return self.state == "certified"

    @property
    def limits(self) -> NDArray[np.float32]:
        """(D,) thresholds as the graph compares them, infinite where it never answers."""
        return np.array([math.inf if t is None else t for t in self.thresholds], np.float32)

    @property
    def sentence(self) -> str:
        """What is promised, or why nothing is, in words."""
        found = self._found
        if self.floor is not None:
            found += f"; {self.below:,} of {self.rows:,} lie below its floor of energy"
        if self.tried == 1:
            return found
        many = (
            f"{self.tried:,} guards were fitted on these calibration rows, and one that is chosen among them breaks its promise more often"
        )
        return f"{found}. BUT {many}"

    @property
    def _found(self) -> str:
        sure = f"{_percent(1 - self.delta)} confidence"
        if self.certified:
            does = "decides otherwise than the teacher" if self.target == "teacher" else "is wrong"
            claim = f"CERTIFIED at {sure}: of the rows it answers, the student {does} on at most {_percent(self.epsilon)}{self._each}"
            return f"{claim}. It answers {self.answered:,} of {self.rows:,} calibration rows{self._left_out}"
        if self.state == "too few rows":
            none = rows_needed(self.epsilon, self.delta if self.per != "answer" else self.delta / len(self.cells)) or 1
            first, *others = sorted((cell for cell in self.cells if cell.rows < none), key=lambda cell: cell.rows)
            cells = f"; {len(others):,} more {'cells have' if len(others) > 1 else 'cell has'} too few" if others else ""
            there = f"{self._where(first, 'in all')} there are {first.rows:,}, at least {none:,} are needed"
            return f"NOT CERTIFIED, too few calibration rows: {there}{cells}"
        goal = f"errors of at most {_percent(self.epsilon)} at {sure}"
        worst = max(self.cells, key=lambda cell: (cell.bound, -cell.rows))
        found = f"{worst.answered_wrong:,} of {worst.answered:,} answered rows are wrong: up to {100 * worst.bound:.3g} %"
        why = f"{self._where(worst, 'over all')} {found}"
        if self.state == "not shown":
            return f"NOT CERTIFIED: {goal} failed at the first threshold tested, {why}"
        if worst.needed is not None:
            more = f"; about {worst.needed:,} such rows would do if these shares stay"
        else:
            least = worst.abstains(self.epsilon)
            more = f"; any guard would have to leave {100 * least:.3g} % of them to the teacher" if least > 0 else ""
        return f"NOT CERTIFIED, infeasible: no threshold shows {goal}; at the nearest, {why}{more}"

    def _where(self, cell: Cell, everywhere: str) -> str:
        if cell.of:
            return f"where {cell.of!r} is {cell.name!r}"
        if self.per == "all":
            return everywhere
        says = "the student says" if self.per == "answer" else "the teacher decides" if self.target == "teacher" else "the label is"
        return f"where {says} {cell.name!r}"

    @property
    def _each(self) -> str:
        columns = ", ".join(dict.fromkeys(repr(cell.of) for cell in self.cells if cell.of))
        groups = f", and in each group by {columns}" if columns else ""
        if self.per == "all":
            return f", over all of them{groups}"
        if self.per == "answer":
            return ", for each of its own decisions by itself"
        return f", for each {'decision of the teacher' if self.target == 'teacher' else 'class'} by itself{groups}"

    @property
    def _left_out(self) -> str:
        if self.per != "answer":
            return ""
        never = [cell.name for cell, threshold in zip(self.cells, self.thresholds, strict=True) if threshold is None]
        return f"; it never answers {', '.join(map(repr, never))}" if never else ""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, texts and numbers, which `from_json` reads."""
        return asdict(self) | {"thresholds": list(self.thresholds), "cells": [asdict(cell) for cell in self.cells]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Promise:
        """What `to_json` wrote. Raises EvidenceError where it is not whole."""
        try:
            rest = {f.name: value[f.name] for f in fields(cls) if f.name in value or f.default is MISSING}
            return cls(**rest | {"thresholds": tuple(value["thresholds"]), "cells": tuple(Cell(**cell) for cell in value["cells"])})
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"this guard is not whole: {error}", hint="export again") from error


@dataclass(frozen=True)
class Guard:
    """What is to be promised. See `guard`."""

    epsilon: float = 0.05
    delta: float = 0.1
    target: Target = "teacher"
    per: Per = "decision"
    groups: bool = False
    energy: float | None = None

    def __repr__(self) -> str:
        more = {"groups": self.groups or None, "energy": self.energy}
        return say("guard", epsilon=self.epsilon, delta=self.delta, target=self.target, per=self.per, **more)

    def check(self, kind: str, labelled: Mapping[str, int], groups: Sequence[str]) -> None:
        """Raise EvidenceError where a task of this kind decides nothing, or several things at once, and where data lack what is asked for.

        labelled: how many rows have a label, by split. groups: the columns that were declared.
        """
        if kind != "classification":
            why = {
                "regression": "a number is not right or wrong",
                "embedding": "a vector is not right or wrong",
                "multilabel": "its labels are decided each on its own, and one answer for all of them would hardly ever be given",
            }.get(kind, "it is no classification")
            raise EvidenceError(f"{self!r} of a {kind}: {why}", hint="leave the guard out; it is for classifications")
        if self.target == "labels" and (bare := [name for name in ("valid", "calibration") if not labelled[name]]):
            what = f"no row of {' or '.join(bare)} has a label, and it counts errors against labels"
            raise EvidenceError(f"{self!r}: {what}", hint='target="teacher" counts disagreement, and needs none')
        if self.groups and not groups:
            raise EvidenceError(f"{self!r}: the data declare no groups", hint='groups="age_band,sex" in the data; or leave groups=True out')

    def check_energy(self, logits: NDArray[Any]) -> None:
        """Raise EvidenceError where a floor of energy is asked for and (N, C) raw logits of a student have none of their own to go by.

        Energy tells more than confidence by how much all logits of a row are shifted. Where one number is behind both of two logits, as
        of a student with one log-odds z, [0, z], and where logits are log-probabilities, the probabilities settle that shift: below the
        floor would be the rows of one decision, or those of the least confidence, wherever they come from.
        """
        if self.energy is None or not len(logits):
            return
        z = np.asarray(logits, dtype=np.float64)
        along, across = np.linalg.svd(z - z.mean(0), compute_uv=False)[:2] if z.shape[1] == 2 and len(z) > 2 else (0.0, 0.0)
        why = "answers one log-odds" if along > 0 and across <= SAME * along else ""
        if not why and np.abs(energy_of(z)).max() <= NORMALISED:
            why = "answers log-probabilities"
        if why:
            raise EvidenceError(
                f"{self!r}: this student {why}, whose energy says no more than the confidence",
                hint="leave energy out, or take a student with a free logit for each outcome",
            )

    def fit(
        self,
        valid: Rows,
        calibration: Rows,
        names: Sequence[str],
        cuts: tuple[float | None, float | None] = (None, None),
        groups: Sequence[tuple[str, str]] = (),
    ) -> Promise:
        """Thresholds whose order the validation rows fix and which the calibration rows test; see `walk`.

        names: of the outcomes. cuts: of student and target, as `Promise` has them. groups: (column, name) of each, where the guard is of
        groups. Too few rows are a finding, no error.
        Raises EvidenceError for confidences or energies that are no numbers, and for no validation row that a floor could be set by.
        """
        floor = self._floor(valid, calibration)
        by_answer = self.per == "answer"
        found = self._by_answer(valid, calibration, names, floor) if by_answer else self._together(valid, calibration, names, groups, floor)
        thresholds, cells, state = found
        mine = _sample(calibration, floor)
        return Promise(
            guard=repr(self),
            epsilon=self.epsilon,
            delta=self.delta,
            target=self.target,
            per=self.per,
            state=state,
            thresholds=thresholds,
            rows=len(mine),
            answered=int(mine.answered(_limits(thresholds)).sum()),
            cells=cells,
            cut=cuts[0],
            target_cut=cuts[1],
            floor=floor,
            below=0 if mine.may is None else int((~mine.may).sum()),
        )

    def _floor(self, valid: Rows, calibration: Rows) -> float | None:
        """The energy that a share `energy` of the validation rows reaches, and the value of one of them; None where none is asked for.

        Of calibration rows it must know nothing: then which rows may be answered at a threshold is settled before they are looked at,
        and those of them that are answered are a sample of the answered rows to come, whose errors the exact bound counts.
        """
        if self.energy is None:
            return None
        assert valid.energy is not None  # who fits a guard with a floor asks the graph for it
        assert calibration.energy is not None
        for name, energies in (("validation", valid.energy), ("calibration", calibration.energy)):
            if bad := int((~np.isfinite(energies)).sum()):
                what = f"{bad:,} of {len(energies):,} energies of {name} rows are not finite numbers"
                raise EvidenceError(what, hint="did the student's training diverge?")
        if not len(valid.energy):
            raise EvidenceError(f"{self!r}: there is no validation row to set the floor by", hint="leave energy out, or more rows to valid")
        stopped = math.floor((1 - self.energy) * len(valid.energy) + 1e-9)
        return float(np.sort(valid.energy)[min(stopped, len(valid.energy) - 1)])

    def _together(
        self, valid: Rows, calibration: Rows, names: Sequence[str], groups: Sequence[tuple[str, str]], floor: float | None
    ) -> tuple[tuple[float | None, ...], tuple[Cell, ...], State]:
        """One walk on which all cells have to pass together: rows by what is right, or all of them, and those of each group."""
        outcomes = len(names)
        each = self.per == "decision"
        named = [*(("", name) for name in (names if each else ("all",))), *groups]
        both = (valid, calibration) if self.groups else (replace(valid, group=None), replace(calibration, group=None))
        v, c = (_sample(rows, floor, _cells(rows, each=each, outcomes=outcomes)) for rows in both)
        weight = np.ones(outcomes)
        if each and len(v):
            weight = damage(valid.decision, valid.probability, np.bincount(valid.right, minlength=outcomes) / len(v))
        steps = walk(path_of(v, weight), v, c, len(named), epsilon=self.epsilon, delta=self.delta)
        state, at = self._found(steps, c)
        cells = tuple(self._cell(name, steps, c, at, i, of) for i, (of, name) in enumerate(named))
        if state != "certified":
            return (None,) * outcomes, cells, state
        return tuple(float(t) for t in steps.path[at]), cells, state

    def _by_answer(
        self, valid: Rows, calibration: Rows, names: Sequence[str], floor: float | None
    ) -> tuple[tuple[float | None, ...], tuple[Cell, ...], State]:
        """One walk for each decision of the student, with its share of δ; those that pass are certified whatever the others do."""
        thresholds: list[float | None] = []
        cells: list[Cell] = []
        states: list[State] = []
        mine = replace(self, delta=self.delta / len(names))
        for d, name in enumerate(names):
            v, c = (_sample(_only(rows, rows.decision == d), floor) for rows in (valid, calibration))
            steps = walk(path_of(v, np.ones(len(names))), v, c, 1, epsilon=mine.epsilon, delta=mine.delta)
            state, at = mine._found(steps, c)
            cells.append(mine._cell(name, steps, c, at, 0))
            states.append(state)
            thresholds.append(float(steps.path[at, d]) if state == "certified" else None)
        best: State = next(state for state in STATES if state in states)
        return tuple(thresholds), tuple(cells), best

    def _cell(self, name: str, steps: Walk, calibration: Sample, at: int, i: int, of: str = "") -> Cell:
        rows, wrong = (int(counts[i]) for counts in calibration.totals(steps.rows.shape[1]))
        answered, errors = int(steps.rows[at, i]), int(steps.errors[at, i])
        bound = float(upper_bound(errors, answered, self.delta))
        return Cell(name, rows, wrong, answered, errors, bound, self._needed(rows, answered, errors, bound), of)

    def _needed(self, rows: int, answered: int, errors: int, bound: float) -> int | None:
        """Rows of a cell that would do, if of more rows the same shares were answered and wrong."""
        if bound <= self.epsilon:
            return None
        if not answered:
            fewest = rows_needed(self.epsilon, self.delta)
            return fewest if fewest is not None and rows < fewest else None  # it has them already: rows are not what it lacks
        enough = rows_needed(self.epsilon, self.delta, errors / answered)
        return None if enough is None else math.ceil(enough * rows / answered)

    def _found(self, steps: Walk, calibration: Sample) -> tuple[State, int]:
        """How a walk ended, and the threshold by which to tell of it."""
        if steps.last is not None:
            return "certified", steps.last
        if (calibration.totals(steps.rows.shape[1])[0] < (rows_needed(self.epsilon, self.delta) or 1)).any():
            return "too few rows", steps.nearest
        return ("not shown", steps.start) if steps.bounds[steps.nearest].max() <= self.epsilon else ("infeasible", steps.nearest)


@dataclass(frozen=True)
class Unguarded:
    """See `unguarded`."""

    def __repr__(self) -> str:
        return say("unguarded")


Rule = Guard | Unguarded


def guard(
    epsilon: float = 0.05,
    delta: float = 0.1,
    target: Target = "teacher",
    per: Per = "decision",
    groups: bool = False,
    energy: float | None = None,
) -> Guard:
    """P(the student decides otherwise than the teacher | it answers) ≤ ε, with probability 1 − δ over the calibration rows.

    epsilon: ε, the share of the rows it answers, 0..1, on which the student may err. delta: δ, 0..1, the chance that the promise is
        broken because the calibration rows happened to be kind.
    target: what an error is: "teacher", another decision than the teacher's; "labels", another than the label, where a row has one.
    per: which rows the promise is of. "decision": those where the teacher decides (or the label is) c, for every c at once:
        P(s ≠ t | t = c, answered) ≤ ε. "all": all together; a student that never sees a rare class keeps that easily. "answer": those
        where the student says d, each with δ / D: P(t ≠ s | s = d, answered) ≤ ε; a d that is not certified is never answered.
    groups: the promise holds in each group that the data declare as well, whatever the decision: P(s ≠ t | g, answered) ≤ ε for every
        part g of every column of `groups=`, all at once with what `per` says. Rows whose group is unknown are no group.
    energy: a floor that this share of the validation rows reaches, above 0 and up to 1: a row of less energy is left to the teacher,
        however sure the student is. 0.99 gives up one row in a hundred, to stop rows that are not of the task. None: no such floor.

    The student answers where its confidence reaches a threshold for its own decision, the same in all groups: a row's cell and group need
    not be known. Confidence is the probability of its decision, tempered; with a decision rule of two
    outcomes, of log-odds z and cut c, it is 1 / (1 + exp(−|z − c|)), which is ½ at the cut.
    Energy is log Σ exp of the tempered logits, high where a row looks at home (arXiv:2010.03759, with its sign turned): unlike confidence
    it sees by how much all logits of a row are shifted, if the student has a free logit for each outcome; others are refused. With a floor
    "it answers" means: sure enough, and not below the floor. Calibration rows below it are answered at no threshold, and are not counted in
    the rate that is promised. Validation rows set the floor, never the calibration rows that test. Of foreign rows nothing is promised with
    it either, and a net of ReLUs may have more energy the farther a row lies: `foreign=` measures how many are still answered.

    Thresholds are tested on calibration rows one after the other, in an order that validation rows fix, by exact binomial bounds (Learn
    then Test, arXiv:2110.01052; see attar.statistics.guarantees.walk). Unlike there all cells have to pass together, so that none needs a
    share of δ. A guard that cannot be certified answers nothing, and says what it lacks.

    Assumed is that calibration rows and the rows to come are exchangeable, and count alike. Of shifted rows nothing is promised, and row
    weights are not looked at. Where rows repeat, or several are of one patient, the promise is broken more often than δ.

    Raises EvidenceError for ε or δ outside (0, 1), a share outside (0, 1], and for groups where each answer is certified by itself.

    >>> guard(epsilon=0.02)
    guard(epsilon=0.02, delta=0.1, target="teacher", per="decision")
    """
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < value < 1:
            raise EvidenceError(f"guard({name}={value:g}) is not between 0 and 1", hint=f"{name}={getattr(Guard(), name)}")
    if energy is not None and not 0 < energy <= 1:
        raise EvidenceError(
            f"guard(energy={energy:g}) is not a share above 0 and up to 1", hint="energy=0.99 keeps 99 % of the validation rows"
        )
    for name, value, known in (("target", target, ("teacher", "labels")), ("per", per, ("decision", "answer", "all"))):
        if value not in known:
            raise EvidenceError(f"guard({name}={value!r})", hint=" or ".join(f'"{k}"' for k in known))
    if groups and per == "answer":
        what = "one decision may be certified without another, and groups only all together"
        raise EvidenceError(f"guard(per={per!r}, groups=True): {what}", hint='per="decision" or per="all"')
    return Guard(epsilon, delta, target, per, groups, energy)


def unguarded() -> Unguarded:
    """No guard: the student answers every row, and its graph says nothing of its confidence.

    A run without a word about a guard has `guard()`, if it is a classification.

    >>> unguarded()
    unguarded()
    """
    return Unguarded()


def _sample(rows: Rows, floor: float | None, cell: NDArray[np.int64] | None = None) -> Sample:
    """The rows in these cells, or in one; those below the floor may not be answered."""
    may = None if floor is None or rows.energy is None else rows.energy >= np.float32(floor)
    return Sample(rows.confidence, rows.decision, rows.decision != rows.right, np.zeros_like(rows.right) if cell is None else cell, may)


def _cells(rows: Rows, *, each: bool, outcomes: int) -> NDArray[np.int64]:
    """(N, 1 + K) cells of each row: that of what is right, or of all, then its groups, counted on from there."""
    first = (rows.right if each else np.zeros_like(rows.right))[:, None]
    if rows.group is None:
        return first
    return np.concatenate([first, np.where(rows.group >= 0, rows.group + (outcomes if each else 1), -1)], axis=1)


def _only(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    energy = None if rows.energy is None else rows.energy[chosen]
    return Rows(rows.confidence[chosen], rows.probability[chosen], rows.decision[chosen], rows.right[chosen], energy=energy)


def _limits(thresholds: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([math.inf if t is None else t for t in thresholds], np.float32)


def _percent(share: float) -> str:
    return f"{100 * share:.12g} %"  # as it was asked: 99.99 % confidence is not 100 %
