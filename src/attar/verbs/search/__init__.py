"""Search for the smallest student that fits: its architecture, temperature, weights and learning rate, under a budget."""

from __future__ import annotations

import math
import random
import time as clock
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from torch import nn

from attar.certificate import Require
from attar.cost import Budget, machine
from attar.data import Data
from attar.errors import MissingExtra, RunError
from attar.files import write_atomic
from attar.guards import Guard, Unguarded
from attar.loop import Fit
from attar.notation import write
from attar.progress import Event, Listener, silent
from attar.recipe import Recipe, of_texts
from attar.report.search import write_leaderboard, write_search_page
from attar.searched import Arm, Competitor, Finalist, Priced, Searched, SizeCurve, Trial
from attar.signal import Source
from attar.sources.cached import Cached
from attar.task import Task
from attar.verbs.distill import precheck
from attar.verbs.distill.judge import labelled_rows
from attar.verbs.distill.processes import can_fork, shared
from attar.verbs.evaluate import margin_of
from attar.verbs.evaluate.models import Model, judge
from attar.verbs.run import Job, Teacher, amend, difference, manifest, read_data, same_data
from attar.verbs.search.advice import advice
from attar.verbs.search.competitors import LABELS, beside
from attar.verbs.search.defaults import opened
from attar.verbs.search.design import LINES, Spaces
from attar.verbs.search.final import Final, name_of
from attar.verbs.search.importances import importances
from attar.verbs.search.pricing import Prices
from attar.verbs.search.protocol import Second, chosen, finalists_of, halved, same_deal
from attar.verbs.search.rungs import Rungs
from attar.verbs.search.smallest import Smallest, smallest
from attar.verbs.search.storage import reach, shown
from attar.verbs.search.study import Told, told
from attar.verbs.search.training import Classroom
from attar.verbs.search.worker import Limits, Place, Worker, over

__all__ = ["SearchJob", "search", "search_job"]

TRIALS = 100  # of each arm, where neither trials nor time are named
SHARE, STEPS, EPOCHS = 0.25, 1000, 3  # a trial has at most so much of the epochs of a whole training, about so many steps, so many epochs
LEAST, BATCH, BATCHES = 4, 8, 12  # candidates asked at a time, from and to; and batches, each of one architecture, that there should be
SEARCHING = 0.65  # of the time that was allowed: the rest is the finalists'
SEEDS = 5  # of a finalist at least
DRAWN = 256  # students by which it is seen what the space costs
MEASURABLE = 24  # of them where each has to be exported and measured
MEASURED = 2.0  # seconds of measuring, for each of those that are measured side by side
PAUSE = 5.0  # seconds between two writings of search.json while candidates train


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


def search(
    teacher: Source,
    student: str,
    data: Any,
    objective: str | None = None,
    *,
    task: Task | None = None,
    fit: str | Fit | None = None,
    budget: Budget | None = None,
    require: Require | None = None,
    deploy: Literal["float", "int8"] = "float",
    guard: Guard | Unguarded | None = None,
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    """The smallest student that keeps `budget` and is worse than the teacher by less than the margin of `require`, and all that was tried.

    student, objective, fit: texts of the notation, with spaces in them: "mlp(width=integer(8, 128), depth=choice(1, 2, 3))". Left out,
        objective and fit are searched over the task's own.
    trials: candidates to train, in each of two arms: those that learn from the teacher, and those that learn from labels alone. time:
        seconds in all; whichever ends first. Neither: 100 trials.
    workers: processes at a time, of this machine. out: the folder of the search, by default `runs/search`; it is never overwritten:
        `resume` goes on with it.
    seed: of what is drawn, and of which half of the validation rows a row is in.

    The teacher is asked once. Epochs and candidates are chosen on one half of the validation rows, finalists are trained anew over five
    seeds and compared on the other half; test rows are not read.
    Raises RunError for a folder of another search and for a budget that no student of the space keeps, NotationError for spaces that are
    none, Stopped on a signal, after which `resume` goes on; and the errors of teaching, training and exporting.

    >>> found = attar.search(teacher, "mlp(width=integer(4, 64))", data, time=300)     # doctest: +SKIP
    >>> print(*found.recommendation)                                                   # doctest: +SKIP
    """
    lines = {"student": student, "objective": objective, "fit": fit if fit is None or isinstance(fit, str) else repr(fit)}
    texts = {key: text for key, text in lines.items() if text is not None}
    said = {"teacher": teacher, "task": task, "budget": budget, "require": require, "deploy": deploy, "guard": guard}
    lines = {key: value if isinstance(value, str) else " ".join(repr(value).split()) for key, value in said.items() if value is not None}
    job = SearchJob(
        of_texts(texts),
        data,
        teacher,
        task,
        budget,
        require,
        deploy,
        guard,
        text="".join(f"{key}: {text}\n" for key, text in lines.items()),
    )
    folder = Path(out or "runs/search")
    return search_job(job, out=folder, trials=trials, time=time, workers=workers, resume=resume, seed=seed, listen=listen)


def search_job(
    job: SearchJob,
    *,
    out: Path,
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    study: str | None = None,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    """`search` for a job already resolved. study: where it is kept; left out, in the folder."""
    if trials is None and time is None:
        trials = TRIALS
    return _Searching(job, out, trials, time, workers, study, resume, seed, listen).run()


def _need_libraries() -> None:
    """Raise MissingExtra before a search begins, not when it ends."""
    for library, extra in (("optuna", "search"), ("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx"), ("jinja2", "report")):
        if find_spec(library) is None:
            raise MissingExtra(library, extra)


class _Searching:
    """One call of `search`."""

    def __init__(
        self,
        job: SearchJob,
        out: Path,
        trials: int | None,
        time: float | None,
        workers: int,
        study: str | None,
        resume: bool,
        seed: int,
        listen: Listener,
    ) -> None:
        self.job, self.out, self.trials, self.time, self.workers = job, out, trials, time, workers
        self.resume, self.seed, self.heard = resume, seed, listen
        self.study = study or str(out / "study.db")
        self.begun = self.written = clock.monotonic()
        self.text = ""  # once the data have been read: the recipe, its spaces written out
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.finalists: tuple[Finalist, ...] = ()
        self.curve: SizeCurve | None = None
        self.rows_sd = 0.0  # of a difference to the teacher, from the sampling of rows
        self.seed_sd: float | None = None
        self.shipped: dict[str, Path] = {}
        self.students: dict[str, list[nn.Module]] = {}
        self.teacher = Competitor("teacher", None, Priced(None), False)
        self.competitors: tuple[Competitor, ...] = ()
        self.winner: int | None = None
        self.prices: Prices | None = None
        self.words: tuple[str, ...] = ()
        self.shown: bool | None = None  # whether the winner is shown to meet the margin
        self.told: dict[Arm, list[Told]] = {}

    def run(self) -> Searched:
        _need_libraries()
        self._claim()
        if "://" in self.study:
            reach(self.study)  # before anything is taught
        with self._part("teacher"):
            self._begin()
        with self._part("pricing"):
            self.prices = self._price()
            self._need_some_within()
        with self._part("training"):
            self._search()
        with self._part("finalists"):
            self._final()
        with self._part("competitors"):
            self._compete()
        self._ship()
        found = self._write()
        self._tell(found)
        return found

    # ---- the folder

    def _claim(self) -> None:
        """Refuse a folder that is there already, or that belongs to another search."""
        out = self.out
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is a file, not a folder", hint="choose another with --out")
        begun = out.exists() and not {path.name for path in out.iterdir()} <= {"recipe.yaml", "manifest.json"}
        if begun and not self.resume:
            raise RunError(
                f"{out} is there already, and a search is never overwritten", hint="--resume goes on with it; --out names another"
            )
        before = out / "search.json"
        if self.resume and before.exists():
            self.seconds = dict(Searched.read(before).seconds)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """One part of the search, its seconds counted over all starts; search.json is written at its end."""
        start = clock.monotonic()
        self.listen(Event(name, text=""))
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + clock.monotonic() - start, 3)
        self._write()

    # ---- before candidates are tried

    def _begin(self) -> None:
        """Data, spaces and teacher; its answers stored."""
        job, out = self.job, self.out
        self.data, self.task, self.spaces, plain = self._read()
        same_data(out, self.data)
        same_deal(out, self.seed)
        self.text = self._said(self.spaces.recipe)
        recipe = out / "recipe.yaml"
        free = () if "\nguard:" in self.text else ("guard",)  # which a run would have
        if recipe.exists() and (changes := difference(recipe.read_text(encoding="utf-8"), self.text, free)):
            raise RunError(f"{out} belongs to another recipe:\n{changes}", hint="--out names another folder, or remove this one")
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "recipe.yaml", self.text)
        manifest(out, self.data, self.text)
        amend(out, deal=self.seed)
        for note in self.data.notes:
            self.listen(Event("data", text=note))
        self.halves = halved(self.data, self.seed)
        teacher = Teacher(plain, out, self.data, self.task, resume=self.resume, listen=self.listen)
        teacher.annotate()
        amend(out, teacher=teacher.source.fingerprint)
        self.room = Classroom(self.halves.first, self.task, teacher.answers)
        self.margin = margin_of(job.require, Model("the teacher", teacher.answers, self.task), self.data, self.task)
        self.arms: tuple[Arm, ...] = ("student", "labels") if bool(labelled_rows(self.task, self.data.train).any()) else ("student",)
        lines = {key: write(getattr(self.spaces, key).node) for key in LINES}
        lines |= {"task": repr(self.task), "budget": repr(self.budget), "data": self.data.fingerprint}
        lines |= {"deal of validation rows": f"by seed {self.seed}"}
        self.place = Place(self.study, {**lines, "teacher": teacher.source.fingerprint})

    def _read(self) -> tuple[Data, Task, Spaces, Job]:
        """The data, their task, the spaces, and the job of a run in their middle, which says what none of them can do."""
        job = self.job
        data, task = read_data(job)
        labelled = bool(labelled_rows(task, data.train).any())
        spaces = Spaces(opened(job.recipe, data.schema, task, labelled=labelled, teacher=job.teacher), self.out)
        middle = spaces.design(spaces.middle())
        plain = Job(job.data, job.teacher, middle.student, middle.objective, task, middle.fit, (), where=job.recipe.where)
        with plain.about("guard"):
            if isinstance(job.guard, Guard):
                job.guard.check(task.kind, {name: split.labelled for name, split in data.splits.items()}, list(data.calibration.groups))
        with plain.about_training():
            precheck(plain.teacher, plain.student, data, plain.objective, task=task, fit=plain.fit, controls=())
        return data, task, spaces, plain

    @property
    def budget(self) -> Budget:
        return self.job.budget or Budget()

    @property
    def guard(self) -> Guard | None:
        """What the graphs that ship have beside their answers: a run's own default where nothing is said."""
        asked = self.job.guard or (Guard() if self.task.kind == "classification" else None)
        return asked if isinstance(asked, Guard) else None

    def _price(self) -> Prices:
        """What students of the space will cost, learnt from some of them."""
        chance = random.Random(self.seed)
        students = [self.spaces.design(self.spaces.drawn(chance)).student for _ in range(DRAWN)]
        how = {"precision": self.job.deploy, "seed": self.seed, "listen": self.listen}
        return Prices.learn(students, self.data, self.task, bounds=self.job.budget, guard=self.guard, **how)

    def _need_some_within(self) -> None:
        """Raise RunError where none of many students drawn from the space keeps the budget: what the cheapest would cost is said."""
        chance = random.Random(self.seed)
        assert self.prices is not None
        count = DRAWN if all(pricing.trusted for pricing in self.prices.pricings) else MEASURABLE
        points = [*self.spaces.priors("student"), *(self.spaces.drawn(chance) for _ in range(count))]  # the smallest is among the first
        excess: dict[str, dict[str, float]] = {}
        for design in map(self.spaces.design, points):
            if design.text not in excess:
                excess[design.text] = over(self.budget, self.prices.price(design.student))
                if all(value <= 0 for value in excess[design.text].values()):
                    return
        text = min(excess, key=lambda text: max(excess[text].values()))
        worst = ", ".join(f"{name} {getattr(self.budget, name) * (1 + value):.3g}" for name, value in excess[text].items() if value > 0)
        raise RunError(
            f"none of {len(excess)} students drawn from the space keeps {self.budget!r}; the one nearest to it, {text}, has {worst}",
            hint="a larger budget, or a space that reaches smaller students",
        )

    # ---- candidates

    @cached_property
    def limits(self) -> Limits:
        fit, rows = self.spaces.design(self.spaces.middle()).fit, len(self.data.train)
        enough = math.ceil(STEPS / math.ceil(rows / fit.rows_a_step(rows)))
        epochs = min(math.ceil(SHARE * fit.epochs), max(EPOCHS, enough))
        batch = BATCH if self.trials is None else min(self.trials, max(LEAST, min(BATCH, self.trials // BATCHES)))
        return Limits(self.trials, None if self.time is None else self._left(SEARCHING), batch, epochs)

    def _left(self, share: float = 1.0) -> float:
        """Seconds that are left of a share of the time allowed."""
        assert self.time is not None
        return max(1.0, share * self.time - (clock.monotonic() - self.begun))

    def _search(self) -> None:
        assert self.prices is not None
        _ = self.room.judge, self.limits  # before processes part
        if self.workers > 1 and not can_fork():
            self.workers = 1
            self.listen(Event("search", text="one worker: what is forked from this process cannot learn"))
        workers = [
            Worker(self.place, self.spaces, self.room, self.prices, self.budget, self.limits, self.arms, self.seed + at, self.listen)
            for at in range(self.workers)
        ]
        if self.workers == 1:
            workers[0].run()
        else:
            shared([lambda say, worker=worker: replace(worker, listen=say).run() for worker in workers], self.listen, losses=True)
        self._look()

    def listen(self, event: Event) -> None:
        """What is said goes on to who listens; while candidates train search.json follows every few seconds."""
        self.heard(event)
        if event.stage == "search" and clock.monotonic() - self.written > PAUSE:
            self._look()
            self._write()

    def _look(self) -> None:
        """What the studies know by now."""
        for arm in self.arms:
            with self.place.open(arm, trials=None, seconds=None) as ledger:
                self.told[arm] = told(ledger, arm, self.told.get(arm, ()))

    # ---- finalists

    def _final(self) -> None:
        """The best candidates trained anew, measured and compared; the winner, and why."""
        trials, better = self._trials(), self.task.better(self.room.judge.metric)
        second = Second(self.halves.second, self.task, self.room.answers, self.halves.first.valid)
        curve = self._smallest().record
        asked = finalists_of(trials, better, self._goal(better), None if curve is None else curve.smallest)
        folder = self.out / "finalists"
        fit = self.spaces.design(self.spaces.middle()).fit
        final = Final(folder, self.spaces, self.room, max(SEEDS, fit.seeds), fit.epochs, self.workers, self.listen)
        final = replace(final, epochs=self._epochs(asked, fit, final.epochs_there(asked)))
        models = self.students = final.train(asked)
        there = [trial for trial in asked if name_of(trial) in models]
        for trial in there:
            model = models[name_of(trial)][0]
            self.shipped[name_of(trial)] = final.shipped(trial, model, self.data, self.task, self.job.deploy, self.guard)
        files = {name_of(trial): judge(self.shipped[name_of(trial)]).source for trial in there}
        drawn = second.drawn({name: models[name] for name in files}, files)
        assert self.prices is not None
        found = []
        for trial in there:
            name = name_of(trial)
            price = self.prices.measured(self.shipped[name], macs=trial.price.macs)
            within = all(value <= 0 for value in over(self.budget, price).values())
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
        self.finalists = second.foretold(found, drawn, self.data.test)
        if drawn.teacher is not None and there:
            effects = [drawn.against(name_of(trial), "teacher") for trial in there]
            self.rows_sd = math.sqrt(2) * fmean(effect.row_se for effect in effects)  # the trials' rows are half, the claim's as many
            self.seed_sd = fmean(effect.seed_sd for effect in effects)
        verdict = chosen(self.finalists, drawn, self.margin, second.metric, self._bounds(), self._first)
        self.winner, self.words, self.shown = verdict.winner, verdict.words, verdict.shown

    def _compete(self) -> None:
        """What could be put in place without a search, measured beside the finalists; and what that says of the winner."""
        answers = self.room.answers
        found = beside(
            answers.source if isinstance(answers, Cached) else answers,
            self.halves.first,
            self.task,
            self.halves.second,
            bounds=self.budget,
            at=self.out / "competitors",
            labels=next(iter(self.students.get("labels", ())), None),
            seconds=MEASURED,
            listen=self.listen,
        )
        self.teacher = replace(found.teacher, first=self._first)
        self.competitors = tuple(_over_seeds(each, self.finalists) for each in found.competitors)
        winner = next((each for each in self.finalists if each.arm == "student" and each.trial == self.winner), None)
        judge = self.room.judge
        told = self._smallest()
        self.curve = told.record
        said = advice(
            winner,
            self.words,
            self.teacher,
            self.competitors,
            told=told,
            trials=self._trials(),
            bounds=self._bounds(),
            metric=judge.metric,
            better=self.task.better(judge.metric),
            margin=self.margin,
            rows_sd=self.rows_sd,
            shown=self.shown,
        )
        self.winner, self.words = said.winner, said.sentences

    @cached_property
    def _first(self) -> float | None:
        """The teacher's score on the first half; None where candidates are scored by their likeness to it."""
        judge = self.room.judge
        return None if judge.teacher is not None else judge.of(self.room.answers)

    def _smallest(self) -> Smallest:
        """How small it can be, by the trials so far."""
        metric = self.room.judge.metric
        better = self.task.better(metric)
        how = {"metric": metric, "better": better, "teacher": self._first, "margin": self.margin}
        return smallest(self._trials(), rows_sd=self.rows_sd, seed_sd=self.seed_sd, **how)

    def _tell(self, found: Searched) -> None:
        """The page and the table of what was found."""
        write_search_page(found, self.out)
        write_leaderboard(found, self.out)

    def _epochs(self, asked: Sequence[Trial], fit: Fit, there: int | None) -> int:
        """Of a finalist: those of a whole training, or as many as there is time for; those that finalists have had already, where there
        is not time for twice as many.
        """
        if self.time is None or not asked:
            return fit.epochs
        each = sum(trial.seconds / max(1, trial.epochs) for trial in asked) * max(SEEDS, fit.seeds) / self.workers
        epochs = max(self.limits.epochs, min(fit.epochs, int(self._left() / max(each, 1e-6))))
        if there is not None and epochs < 2 * there:
            epochs = there
        if epochs < fit.epochs:
            self.notes.append(f"finalists were trained for {epochs} of {fit.epochs} epochs, for the time that was left")
        return epochs

    def _goal(self, better: int) -> float | None:
        """The score on the first half that the margin allows: the teacher's there, less the margin."""
        return None if self._first is None else self._first - better * self.margin

    def _ship(self) -> None:
        """winner.yaml: the recipe at the winner's point, without spaces."""
        trial = next((t for t in self._trials() if t.number == self.winner and t.arm == "student"), None)
        if trial is None:
            (self.out / "winner.yaml").unlink(missing_ok=True)
            return
        head = f"# The student that the search in {self.out.name} recommends: trial {trial.number}; paths are relative to this folder."
        lines = self._said(self.spaces.recipe.at(trial.point)).splitlines()
        write_atomic(self.out / "winner.yaml", "\n".join([head, *(line for line in lines if not line.startswith("#"))]) + "\n")

    def _said(self, recipe: Recipe) -> str:
        """A recipe as text; of a search from Python beside it what was not said in words."""
        text = recipe.text(self.out)
        there = {line.split(":", 1)[0] for line in text.splitlines()}
        more = [line for line in self.job.text.splitlines() if line.split(":", 1)[0] not in there]
        return "\n".join([text.rstrip("\n"), *more]) + "\n"

    # ---- what is written

    def _trials(self) -> list[Trial]:
        return [each.trial for arm in self.told for each in self.told[arm]]

    def _bounds(self) -> dict[str, float]:
        names = ("latency_ms", "size_mb", "parameters", "memory_mb", "rows_per_second")
        return {name: bound for name in names if (bound := getattr(self.budget, name, None)) is not None}

    def _write(self) -> Searched:
        self.written = clock.monotonic()
        trials = self._trials()
        metric = self.room.judge.metric
        better = self.task.better(metric)
        student = self.told.get("student", [])
        found = Searched(
            metric=metric,
            better=better,
            bounds=self._bounds(),
            margin=self.margin,
            teacher=self.teacher,
            trials=tuple(trials),
            finalists=self.finalists,
            competitors=self.competitors,
            curve=self.curve,
            pricing=self.prices.pricings if self.prices is not None else (),
            winner=self.winner,
            recommendation=self.words,
            notes=tuple(dict.fromkeys([*self.notes, *self._counted(trials)])),
            correlations=Rungs(self.limits.epochs).correlations(student, better) if student else (),
            seconds=self.seconds,
            workers=self.workers,
            rows={name: len(split) for name, split in self.data.splits.items()}
            | {"half A": len(self.halves.first.valid), "half B": len(self.halves.second)},
            data=self.data.fingerprint,
            machine=machine() if self.prices is None else self.prices.where,
            importances=importances(trials, better, log=[hole.name for hole in self.spaces.holes("student") if hole.log])
            if self.finalists
            else {},
            recipe=self.text,
            study=self._named(),
        )
        found.write(self.out / "search.json")
        return found

    def _named(self) -> str:
        """The study as optuna-dashboard opens it: relative to the folder where it lies there, never with a password."""
        if self.study == str(self.out / "study.db"):
            return "sqlite:///study.db"
        text = shown(self.study)
        if "://" in text:
            return text
        path = Path(text).resolve()
        return str(path) if path.suffix == ".journal" else f"sqlite:///{path}"

    def _counted(self, trials: Sequence[Trial]) -> list[str]:
        """How many candidates went which way, where that is not plain training."""
        count = {state: sum(trial.state == state for trial in trials) for state in ("dear", "stopped", "failed")}
        said = {
            "dear": "candidates were dropped before training, for their price",
            "stopped": "candidates stopped at a rung, behind the others of their batch",
            "failed": "candidates failed",
        }
        why = next((f", such as: {trial.why}" for trial in trials if trial.state == "failed"), "")
        return [f"{number:,} {said[state]}{why * (state == 'failed')}" for state, number in count.items() if number]


def _over_seeds(competitor: Competitor, finalists: Sequence[Finalist]) -> Competitor:
    """Who learnt from labels alone is a finalist, too: both have the figures over all seeds, not one of them those of a single seed."""
    same = next((each for each in finalists if each.arm == "labels"), None) if competitor.name == LABELS else None
    if same is None:
        return competitor
    return replace(competitor, score=same.score, difference=same.difference, price=same.price, within=same.within)
