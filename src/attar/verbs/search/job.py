"""What a search is made of, before anything is read: a recipe with spaces, and what it is searched over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from attar.certificate import Require
from attar.cost import Budget
from attar.guards import Guard, Unguarded
from attar.recipe import Recipe
from attar.signal import Source
from attar.task import Task
from attar.verbs.run import Job

__all__ = ["SearchJob"]


@dataclass(frozen=True)
class SearchJob:
    """What a search is made of: what a recipe with spaces comes to, but for student, objective and fit, which it chooses.

    recipe: the recipe itself; what it leaves out of student, objective and fit is filled in by the data. All else as in
    `attar.verbs.run.Job`. text: lines that the recipe does not have, of a search from Python.
    """

    recipe: Recipe
    data: Any
    teacher: Source
    task: Task | None = None
    budget: Budget | None = None
    require: Require | None = None
    deploy: Literal["float", "int8"] = "float"
    guard: Guard | Unguarded | None = None
    text: str = ""

    @classmethod
    def of(cls, recipe: Recipe, out: str | Path) -> SearchJob:
        """The job of a recipe. out: the folder of the search."""
        keys = ("data", "teacher", "task", "budget", "require", "deploy", "guard")
        return cls(recipe, **{key: value for key in keys if (value := recipe.value(key, out)) is not None})

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Begin an error with the line of the recipe that it is about."""
        with Job(self.data, self.teacher, nn.Identity(), where=self.recipe.where).about(key):
            yield
