"""How a search begins: its folder claimed, its data and spaces read, its teacher taught and asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attar.cost import Budget
from attar.data import Data
from attar.errors import RunError
from attar.files import write_atomic
from attar.guards import Guard
from attar.notation import write
from attar.progress import Event, Listener
from attar.recipe import Recipe
from attar.searched import Arm
from attar.task import Task
from attar.verbs.distill import precheck
from attar.verbs.distill.judge import labelled_rows
from attar.verbs.evaluate import margin_of
from attar.verbs.evaluate.models import Model
from attar.verbs.run import Job, Teacher, amend, difference, manifest, read_data, same_data
from attar.verbs.search.defaults import opened
from attar.verbs.search.design import LINES, Spaces
from attar.verbs.search.floor import need_possible
from attar.verbs.search.job import SearchJob
from attar.verbs.search.protocol import Halves, halved, same_deal
from attar.verbs.search.storage import tried
from attar.verbs.search.training import Classroom
from attar.verbs.search.worker import Place

__all__ = ["Begun", "begin", "claim"]


@dataclass(frozen=True)
class Begun:
    """A search before any candidate is tried.

    text: the recipe, its spaces written out. halves: of the validation rows. room: where candidates are taught. margin: how much worse
    than the teacher is no worse. place: of the studies, one of each arm.
    """

    job: SearchJob
    out: Path
    data: Data
    task: Task
    spaces: Spaces
    text: str
    halves: Halves
    room: Classroom
    margin: float
    arms: Sequence[Arm]
    place: Place

    @property
    def budget(self) -> Budget:
        return self.job.budget or Budget()

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds of the budget, by name."""
        names = ("latency_ms", "size_mb", "parameters", "memory_mb", "rows_per_second")
        return {name: bound for name in names if (bound := getattr(self.budget, name, None)) is not None}

    @property
    def shared(self) -> bool:
        """Whether the study lies where others may join it."""
        return str(self.place.where) != str(self.out / "study.db")

    @property
    def guard(self) -> Guard | None:
        """What the graphs that ship have beside their answers: a run's own default where nothing is said."""
        asked = self.job.guard or (Guard() if self.task.kind == "classification" else None)
        return asked if isinstance(asked, Guard) else None

    @property
    def metric(self) -> str:
        return self.room.judge.metric

    @property
    def better(self) -> int:
        """1 where more of the metric is better, -1 where less is."""
        return self.task.better(self.metric)

    @cached_property
    def first(self) -> float | None:
        """The teacher's score on the first half; None where candidates are scored by their likeness to it."""
        return None if self.room.judge.teacher is not None else self.room.judge.of(self.room.answers)

    def said(self, recipe: Recipe) -> str:
        """A recipe as text; of a search from Python beside it what was not said in words."""
        return said(self.job, recipe, self.out)


def claim(out: Path, study: str, *, resume: bool) -> bool:
    """Whether the folder is still free for any recipe: it is not there, or its search was refused before it had tried a candidate.

    Raises RunError for a folder of something else, and for that of a search which has trials, unless it goes on with it.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, not a folder", hint="choose another with --out")
    if not out.exists() or {path.name for path in out.iterdir()} <= {"recipe.yaml", "manifest.json"}:
        return True
    path = out / "manifest.json"
    own = path.exists() and _verb(path) == "search"
    if own and not tried(study):
        return True
    if not resume:
        raise RunError(f"{out} is there already, and a search is never overwritten", hint="--resume goes on with it; --out names another")
    return False


def _verb(path: Path) -> object:
    """What made the folder of a manifest. Raises RunError for a manifest that is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} does not read: {error}", hint="--out names another folder") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged: no mapping", hint="--out names another folder")
    return content.get("verb")


def begin(job: SearchJob, out: Path, study: str, *, seed: int, free: bool, resume: bool, listen: Listener) -> Begun:
    """Data, spaces and teacher; its answers stored.

    seed: of the halves. free: for any recipe, as of `claim`. Raises RunError for a folder of another search.
    """
    data, task, spaces, plain = _read(job, out)
    halves = halved(data, seed)
    if free:
        need_possible(job.budget or Budget(), plain.student, data)
    text = said(job, spaces.recipe, out)
    recipe = out / "recipe.yaml"
    if not free:
        same_data(out, data)
        same_deal(out, seed)
    guarded = () if "\nguard:" in text else ("guard",)  # which a run would have
    if recipe.exists() and (changes := difference(recipe.read_text(encoding="utf-8"), text, guarded)):
        if not free:
            raise RunError(f"{out} belongs to another recipe:\n{changes}", hint="--out names another folder, or remove this one")
        listen(Event("recipe", text=f"changed before anything was tried:\n{changes}"))
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(recipe, text)
    manifest(out, data, text)
    amend(out, verb="search", deal=seed)
    for note in data.notes:
        listen(Event("data", text=note))
    teacher = Teacher(plain, out, data, task, resume=resume, listen=listen)
    teacher.annotate()
    amend(out, teacher=teacher.source.fingerprint)
    room = Classroom(halves.first, task, teacher.answers)
    margin = margin_of(job.require, Model("the teacher", teacher.answers, task), data, task)
    arms: tuple[Arm, ...] = ("student", "labels") if bool(labelled_rows(task, data.train).any()) else ("student",)
    lines = {key: write(getattr(spaces, key).node) for key in LINES}
    lines |= {"task": repr(task), "budget": repr(job.budget or Budget()), "data": data.fingerprint}
    lines |= {"deal of validation rows": f"by seed {seed}"}
    place = Place(study, {**lines, "teacher": teacher.source.fingerprint})
    return Begun(job, out, data, task, spaces, text, halves, room, margin, arms, place)


def _read(job: SearchJob, out: Path) -> tuple[Data, Task, Spaces, Job]:
    """The data, their task, the spaces, and the job of a run in their middle, which says what none of them can do."""
    data, task = read_data(job)
    labelled = bool(labelled_rows(task, data.train).any())
    spaces = Spaces(opened(job.recipe, data.schema, task, labelled=labelled, teacher=job.teacher), out)
    middle = spaces.design(spaces.middle())
    plain = Job(job.data, job.teacher, middle.student, middle.objective, task, middle.fit, (), where=job.recipe.where)
    with plain.about("guard"):
        if isinstance(job.guard, Guard):
            job.guard.check(task.kind, {name: split.labelled for name, split in data.splits.items()}, list(data.calibration.groups))
    with plain.about_training():
        precheck(plain.teacher, plain.student, data, plain.objective, task=task, fit=plain.fit, controls=())
    return data, task, spaces, plain


def said(job: SearchJob, recipe: Recipe, out: Path) -> str:
    """A recipe as text; of a search from Python beside it what was not said in words."""
    text = recipe.text(out)
    there = {line.split(":", 1)[0] for line in text.splitlines()}
    more = [line for line in job.text.splitlines() if line.split(":", 1)[0] not in there]
    return "\n".join([text.rstrip("\n"), *more]) + "\n"
