"""A point of the spaces, resolved: which student learns what, how fast, and who may train beside it as one program."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from attar.loop import Fit
from attar.notation import Call, Node, Vocabulary, write
from attar.notation.spaces import Hole, Space
from attar.objective import Objective, as_objective, labels
from attar.objective.turning import knobs, turned
from attar.recipe import Recipe, vocabulary
from attar.searched import Arm
from attar.signal import Student
from attar.verbs.search.priors import priors

__all__ = ["Design", "Spaces"]

LINES = ("student", "objective", "fit")
DIGITS = 4  # of a number in a point: more is noise, and no text that anybody wants to read


@dataclass(frozen=True)
class Design:
    """One candidate, resolved.

    point: what each hole came to, by name. family: the word of the student. objective: what it is taught by, `labels()` in the arm of
    labels alone. form: what must be alike for two candidates to train as one program: all but the values of temperatures and weights, and
    the learning rate.
    """

    arm: Arm
    point: Mapping[str, Any]
    student: Student = field(repr=False)
    objective: Objective = field(repr=False)
    fit: Fit
    family: str

    @cached_property
    def text(self) -> str:
        """The student, every default written out."""
        return repr(self.student)

    @cached_property
    def form(self) -> tuple[str, str, str]:
        alike = turned(copy.deepcopy(self.objective))
        for knob in knobs(alike):
            knob.value.fill_(1.0)
        return self.text, repr(alike), repr(replace(self.fit.alike, lr=1.0))

    def taught_by(self) -> Objective:
        """A fresh objective whose temperatures and weights are tensors, so that a cohort gives each student its own."""
        return turned(copy.deepcopy(self.objective))


@dataclass(frozen=True)
class Spaces:
    """The spaces of the three lines, and what their words mean.

    recipe: which has all three. out: the folder of the search, that output paths are relative to.
    """

    recipe: Recipe
    out: Path

    @cached_property
    def student(self) -> Space:
        return self._all["student"]

    @cached_property
    def objective(self) -> Space:
        return self._all["objective"]

    @cached_property
    def fit(self) -> Space:
        return self._all["fit"]

    def words(self, key: str) -> Vocabulary:
        """What a line may say."""
        return vocabulary(key, self.recipe.trust)

    @cached_property
    def _all(self) -> dict[str, Space]:
        """Every bound is tried now: what a word refuses is refused before anything is taught."""
        return self.recipe.spaces()

    def lines(self, arm: Arm) -> tuple[Space, ...]:
        """Those that an arm has: what the teacher is followed by means nothing to labels alone."""
        return (self.student, self.objective, self.fit) if arm == "student" else (self.student, self.fit)

    def holes(self, arm: Arm) -> tuple[Hole, ...]:
        return tuple(chain.from_iterable(space.holes for space in self.lines(arm)))

    def priors(self, arm: Arm) -> list[dict[str, Any]]:
        """What experience says to try first."""
        names = {hole.name for hole in self.holes(arm)}
        found: list[dict[str, Any]] = []
        for prior in priors(self._all, self.recipe.entries["student"].node, self.words):
            point = {name: value for name, value in prior.items() if name in names}
            if point and point not in found:
                found.append(point)
        return found

    def middle(self, arm: Arm = "student") -> dict[str, Any]:
        """A point in the middle of every space."""
        return {name: value for space in self.lines(arm) for name, value in space.middle().items()}

    def drawn(self, chance: Random, arm: Arm = "student") -> dict[str, Any]:
        """A point drawn evenly from every space, evenly by ratio where ratios count."""
        point: dict[str, Any] = {}
        for hole in self.holes(arm):
            if hole.asked(point):
                point[hole.name] = _drawn(hole, chance)
        return point

    def design(self, point: Mapping[str, Any], arm: Arm = "student") -> Design:
        """The candidate at a point, which may name more than the arm has holes.

        Raises the errors of the words at values they do not take.
        """
        names = {hole.name for hole in self.holes(arm)}
        own = {name: tidy(value) for name, value in point.items() if name in names}
        node = self.student.at(own)
        student = self._resolved("student", node)
        goal = as_objective(labels()) if arm == "labels" else as_objective(self._resolved("objective", self.objective.at(own)))
        return Design(
            arm, own, student, goal, self._resolved("fit", self.fit.at(own)), node.name if isinstance(node, Call) else write(node)
        )

    def _resolved(self, key: str, node: Node) -> Any:
        entries = {key: replace(self.recipe.entries[key], node=node)}
        return replace(self.recipe, entries=entries).value(key, self.out)

    def turning(self, arm: Arm) -> frozenset[str]:
        """The holes that may differ within a cohort: at both of their ends the form is the same."""
        middle = self.middle(arm)
        form = self.design(middle, arm).form
        found = set()
        for space in self.lines(arm)[1:]:
            for hole in space.holes:
                if hole.kind == "choice" or hole.within:
                    continue
                if all(self.design({**middle, hole.name: end}, arm).form == form for end in (hole.low, hole.high)):
                    found.add(hole.name)
        return frozenset(found)


def _drawn(hole: Hole, chance: Random) -> Any:
    if hole.low is None or hole.high is None:
        return chance.choice(hole.texts)
    if hole.kind == "integer" and not hole.log:
        return chance.randint(int(hole.low), int(hole.high))
    value = math.exp(chance.uniform(math.log(hole.low), math.log(hole.high))) if hole.log else chance.uniform(hole.low, hole.high)
    return min(max(round(value), int(hole.low)), int(hole.high)) if hole.kind == "integer" else min(max(value, hole.low), hole.high)


def tidy(value: Any) -> Any:
    """A number with four significant digits; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
