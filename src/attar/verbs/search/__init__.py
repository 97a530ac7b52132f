"""Search for the smallest student that fits: its architecture, temperature, weights and learning rate, under a budget."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attar import students as student_words
from attar.certificate import Require
from attar.cost import Budget
from attar.loop import Fit
from attar.loop import fit as fit_word
from attar.notation import Call, Node, Vocabulary, parse
from attar.notation.spaces import Space
from attar.progress import Listener, silent
from attar.searched import Arm, Competitor, Priced, Searched
from attar.signal import Source
from attar.task import Task
from attar.verbs.run import Job, Teacher, read, settled_job
from attar.verbs.search.design import LINES, Spaces
from attar.verbs.search.protocol import halved
from attar.verbs.search.study import Asking, Question, told, trial_of, trials
from attar.verbs.search.training import Candidate, Classroom

__all__ = ["SearchJob", "Searching", "search", "search_job"]

SHARE = 0.25  # of the epochs of a whole training, that a trial gets


def vocabulary(key: str) -> Vocabulary:
    """The words of a line, where nobody brings others."""
    import attar.objective as objective_words

    if key == "fit":
        return {"fit": fit_word}
    room = student_words if key == "student" else objective_words
    return {name: vars(room)[name] for name in room.__all__ if name[0].islower()}


@dataclass(frozen=True)
class SearchJob:
    """What a search is made of; what a recipe with spaces resolves to.

    student, objective, fit: trees, which may hold spaces; of objective and fit None leaves what the task implies.
    words: key → its vocabulary. base: the folder that paths in the trees are relative to. text: the recipe as it was read.
    """

    data: Any
    teacher: Source
    student: Node
    objective: Node | None = None
    fit: Node | None = None
    task: Task | None = None
    budget: Budget | None = None
    require: Require | None = None
    words: Callable[[str], Vocabulary] = vocabulary
    base: Path | None = None
    text: str = ""
    where: Callable[[str], str] = lambda key: key

    def spaces(self, out: Path) -> Spaces:
        found = {key: Space.of(getattr(self, key) or Call("fit"), key, self.words(key)) for key in LINES}
        return Spaces(found["student"], found["objective"], found["fit"], self.words, self.base, out)


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
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    job = SearchJob(
        data=data,
        teacher=teacher,
        student=parse(student),
        objective=None if objective is None else parse(objective),
        fit=None if fit is None else parse(fit if isinstance(fit, str) else repr(fit)),
        task=task,
        budget=budget,
        require=require,
    )
    return search_job(
        job, out=Path(out or "runs/search"), trials=trials, time=time, workers=workers, resume=resume, seed=seed, listen=listen
    )


def search_job(
    job: SearchJob,
    *,
    out: Path,
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    return Searching(job, out, trials or 60, time, workers, resume, seed, listen).run()


class Searching:
    """One call of `search`."""

    def __init__(
        self, job: SearchJob, out: Path, trials: int, time: float | None, workers: int, resume: bool, seed: int, listen: Listener
    ) -> None:
        self.job, self.out, self.count, self.time, self.workers = job, out, trials, time, workers
        self.resume, self.seed, self.listen = resume, seed, listen
        self.seconds: dict[str, float] = {}

    def run(self) -> Searched:
        import optuna

        start = clock.perf_counter()
        self.out.mkdir(parents=True, exist_ok=True)
        spaces = self.job.spaces(self.out)
        middle = spaces.design(spaces.middle())
        run = Job(self.job.data, self.job.teacher, middle.student, middle.objective, self.job.task, middle.fit, ("labels",))
        self.data, self.task = read(run)
        run = settled_job(run, self.data, self.task)
        self.halves = halved(self.data)
        teacher = Teacher(run, self.out, self.data, self.task, resume=self.resume, listen=self.listen)
        teacher.annotate()
        self.seconds["teacher"] = clock.perf_counter() - start
        self.room = Classroom(self.halves.first, self.task, teacher.answers)
        url = f"sqlite:///{self.out / 'study.db'}"
        studies: dict[Arm, Any] = {}
        for arm in ("student", "labels"):
            studies[arm] = optuna.create_study(storage=url, study_name=arm, load_if_exists=True, directions=["minimize"] * 2)
        begun = clock.perf_counter()
        for arm, study in studies.items():
            asking = Asking(study, spaces, arm, seed=self.seed)
            asking.begin()
            while len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) < self.count:
                t0 = clock.perf_counter()
                questions = asking.ask(8)
                t1 = clock.perf_counter()
                self.batch(study, questions)
                print(
                    arm,
                    questions[0].design.text,
                    len(questions),
                    "ask",
                    t1 - t0,
                    "all",
                    clock.perf_counter() - t0,
                    max((t.score or 0) for t in trials(study)),
                )
        self.seconds["training"] = clock.perf_counter() - begun
        found = [trial for study in studies.values() for trial in trials(study)]
        searched = Searched(
            self.task.metric,
            self.task.better(self.task.metric),
            {},
            0.005,
            Competitor("teacher", None, Priced(None), True),
            tuple(found),
            (),
            (),
            None,
            (),
            None,
            (),
            seconds=self.seconds,
        )
        searched.write(self.out / "search.json")
        return searched

    def batch(self, study: Any, questions: Sequence[Question]) -> None:
        candidates = [Candidate(self.short(q).design, questions[0].number) for q in questions]
        outcomes = self.room.train(candidates)
        for question, outcome in zip(questions, outcomes, strict=True):
            size = sum(p.numel() for p in outcome.model.parameters()) if outcome.model else 0
            price = Priced(None, size_bytes=4 * size, parameters=size)
            trial = trial_of(question, outcome, price, True)
            told(question, trial, study, better=self.task.better(self.task.metric), over={})

    def short(self, question: Question) -> Question:
        fit = question.design.fit
        return replace(question, design=replace(question.design, fit=replace(fit, epochs=math.ceil(fit.epochs * SHARE))))
