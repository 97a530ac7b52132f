"""The whole job: teach, annotate, distill, export and evaluate into one folder that can be resumed."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, is_dataclass, replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

import attar
from attar.certificate import Certificate, Require
from attar.cost import Budget
from attar.data import Corruptions, Data, Description, as_data
from attar.data.arrays import described
from attar.data.base import Whole
from attar.data.text import Text
from attar.data.unlabelled import Unlabelled
from attar.errors import AttarError, DataError, MissingExtra, ObjectiveError, RunError, StudentError, TeacherError
from attar.files import write_atomic, write_json
from attar.guards import Guard, Unguarded
from attar.identity import digest
from attar.loop import Fit, alone, processes
from attar.notation import located
from attar.objective import Objective, Term
from attar.progress import Event, Listener, silent
from attar.report import check_rows, write_card, write_report
from attar.signal import Source, Student
from attar.sources import Ema, Taught, module
from attar.sources.told import told
from attar.task import Task, task_for
from attar.verbs.annotate import annotate
from attar.verbs.distill import Distilled, distill, precheck, settled
from attar.verbs.evaluate import corruptor, evaluate, fitted, strangers
from attar.verbs.export import export
from attar.verbs.export.guarding import check_student
from attar.verbs.teach import teach

__all__ = [
    "STEPS",
    "Job",
    "Result",
    "Teacher",
    "amend",
    "difference",
    "manifest",
    "read",
    "read_data",
    "read_foreign",
    "read_shift",
    "run",
    "run_job",
    "same_data",
    "settled_job",
]

Step = Literal["teach", "annotate", "distill", "export", "evaluate"]
KEYS = (
    "data", "task", "teacher", "student", "objective", "fit", "controls", "guard", "deploy", "shift", "foreign", "budget", "require",
    "show_rows",
)  # fmt: skip
SETTLED = ("objective", "controls", "guard")  # what is filled in when the data are read, where nothing is said
JUDGED_BY = (
    "shift",
    "foreign",
    "budget",
    "require",
    "show_rows",
)  # what a certificate is held against: it may change when one is made anew
BLAMED = ((ObjectiveError, "objective"), (TeacherError, "teacher"), (DataError, "data"))
STEPS: tuple[Step, ...] = ("teach", "annotate", "distill", "export", "evaluate")


class Reading(Protocol):
    """What says which data are read, for which task, and which line an error is about."""

    @property
    def data(self) -> Any: ...

    @property
    def task(self) -> Task | None: ...

    def about(self, key: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Job:
    """Everything a run is made of, resolved; what the words of a recipe stand for.

    data: a description, Data, DataFrame … whatever `attar.data.as_data` reads. where: (key) → "recipes/credit.yaml:2 (data)", to say
    which line an error is about. text: the recipe as resolved, every default written out; "" for a run from Python.
    objective, controls, guard: None, what the task and the labels that there are imply. shift, foreign: other data, by name or named by
    their files; among those of shift corruptions. show_rows: how many of the rows that students lose the page shows, with what they hold.
    """

    data: Any
    teacher: Source
    student: Student | nn.Module
    objective: Objective | Term | None = None
    task: Task | None = None
    fit: Fit | None = None
    controls: Sequence[str] | None = None
    guard: Guard | Unguarded | None = None
    deploy: Literal["float", "int8"] = "float"
    shift: Mapping[str, Any] | Sequence[Any] = ()
    foreign: Mapping[str, Any] | Sequence[Any] = ()
    budget: Budget | None = None
    require: Require | None = None
    show_rows: int = 0
    text: str = ""
    where: Callable[[str], str] = lambda key: key

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Begin an error with the line of the recipe that it is about."""
        try:
            yield
        except AttarError as error:
            where = self.where(key)
            if not error.message.startswith(where):
                error.message = f"{where}: {error.message}"
            raise

    @contextmanager
    def about_training(self) -> Iterator[None]:
        """As `about`, for what several lines have a part in: the kind of the error says which of them it is about."""
        try:
            yield
        except AttarError as error:
            with self.about(next((key for kind, key in BLAMED if isinstance(error, kind)), "student")):
                raise


@dataclass(frozen=True)
class Result:
    """What a run leaves: the certificate (None if it stopped before `evaluate`), the folder, the exit code, the last lines to say."""

    certificate: Certificate | None
    folder: Path
    exit_code: int
    summary: tuple[str, ...]


def run(
    teacher: Source,
    student: Student | nn.Module,
    data: Any,
    objective: Objective | Term | None = None,
    *,
    task: Task | None = None,
    fit: Fit | None = None,
    controls: Sequence[str] | None = None,
    guard: Guard | Unguarded | None = None,
    deploy: Literal["float", "int8"] = "float",
    shift: Mapping[str, Any] | Sequence[Any] = (),
    foreign: Mapping[str, Any] | Sequence[Any] = (),
    budget: Budget | None = None,
    require: Require | None = None,
    show_rows: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    listen: Listener = silent,
) -> Result:
    """Distil `teacher` into `student` on `data`, export it, and certify the exported file.

    out: the run folder; by default the next free `runs/run-001`. It is never overwritten: an existing one is a RunError
        unless `resume` goes on with it. objective, task, fit, controls: by default what the data and the task imply; where no row has a
        label, the student learns from the teacher alone, and the certificate says what cannot be claimed.
    guard: when the student answers by itself; by default `attar.guard()` of a classification, nothing of other tasks.
    shift: other data sets, a list or by name, whose rows are asked as well when the student is judged, and `attar.data.corruptions()`
        of the test rows; see `attar.evaluate`.
    foreign: rows that are not of the task, likewise: data, or `unlabelled(...)`. With them the exported graphs answer `features` as well.
    show_rows: the page shows at most so many of the test rows that students lose and the teacher does not, with what they hold: columns,
        texts or a picture, 100 at most. Without it rows appear by their ids alone.
    Raises the errors of each step (see attar.errors), before long work starts wherever that is possible.

    >>> result = attar.run(teacher, attar.students.mlp(), data)        # doctest: +SKIP
    >>> print(result.certificate)                                      # doctest: +SKIP
    """
    asked = Job(
        data=data,
        teacher=teacher,
        student=student,
        objective=objective,
        task=task,
        fit=fit,
        controls=None if controls is None else tuple(controls),
        guard=guard,
        deploy=deploy,
        shift=shift,
        foreign=foreign,
        budget=budget,
        require=require,
        show_rows=show_rows,
    )
    _check_parts(asked)
    job = replace(asked, text=_text(asked))
    if out is None and processes()[1] > 1:
        raise RunError("several processes need a folder that all of them know", hint='out="runs/credit"')
    return run_job(job, out=Path(out) if out is not None else _next_free(Path("runs")), resume=resume, listen=listen)


def _check_parts(job: Job) -> None:
    """Whether each part is of its kind; a recipe's are by their words."""
    teacher, student = job.teacher, job.student
    if not isinstance(teacher, Source | Taught):
        hint = "attar.estimator(model)" if hasattr(teacher, "predict") else "`attar words teacher` lists them"
        hint = "attar.module(net)" if isinstance(teacher, nn.Module) else hint
        raise TeacherError(f"teacher: {_a(teacher)} is no source of answers", hint=hint)
    if not callable(student):
        raise StudentError(f"student: {_a(student)} is neither a module nor a builder of one", hint="attar.students.mlp()")
    if job.objective is not None and not isinstance(job.objective, Objective | Term):
        raise ObjectiveError(f"objective: {_a(job.objective)} is no objective", hint="0.9 * attar.kl() + 0.1 * attar.labels()")
    if job.fit is not None and not isinstance(job.fit, Fit):
        raise StudentError(f"fit: {_a(job.fit)} is no setting of training", hint="attar.fit(epochs=40)")


def _a(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _text(job: Job) -> str:
    """A run from Python as the lines a recipe would have; what has no text stands as Python shows it, without its address."""
    parts = {key: getattr(job, key) for key in KEYS}
    lines = (
        f"{key}: {re.sub(r' at 0x[0-9a-f]+', '', ' '.join(repr(value).split()))}"
        for key, value in parts.items()
        if value not in (None, (), 0)
    )
    return "\n".join(["# A run from Python, as it was asked.", *lines]) + "\n"


def run_job(
    job: Job,
    *,
    out: Path,
    until: Step = "evaluate",
    only: Step | None = None,
    resume: bool = False,
    listen: Listener = silent,
) -> Result:
    """`run` for a job already resolved; `until` stops after a step, `only` does that step alone, on what earlier steps left in `out`.

    A step alone that needs what is not there yet is a RunError that names the step before it. An error says which line it is about.
    """
    wanted = (only,) if only is not None else STEPS[: STEPS.index(until) + 1]
    _need_libraries(wanted)
    with _together() as company:
        if company.first:
            _claim(out, job, resume=resume, only=only)
        company.wait()
        steps = _Steps(job, out, company, resume=resume or only is not None, listen=listen if company.first else silent)
        if only is None and resume and until == "evaluate" and (out / "certificate.json").exists():
            certificate = Certificate.read(out / "certificate.json")
            if company.first and not _told(out):
                steps.tell(certificate)
            listen(Event("run", text=f"{out} is complete: nothing was done again"))
            return _result(certificate, out)
        certificate = None
        for step in wanted:
            if only is not None:
                _need(step, out, job)
            steps.listen(Event(step, text=""))
            certificate = steps.do(step) or certificate
    return _result(certificate, out) if certificate is not None else Result(None, out, 0, _next_step(wanted[-1], out))


@dataclass(frozen=True)
class Company:
    """The processes that torchrun started together, or the only one there is. All annotate and distil; the first does the rest."""

    rank: int
    world: int

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            torch.distributed.barrier()


@contextmanager
def _together() -> Iterator[Company]:
    rank, world = processes()
    mine = world > 1 and not torch.distributed.is_initialized()
    if mine:  # a teacher may be taught for a day while the others wait
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(days=7))
    try:
        yield Company(rank, world)
    finally:
        if mine and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def read(job: Job) -> tuple[Data, Task]:
    """The data of a job, read, and its task, bound to them; raises now what a later step would refuse."""
    with job.about("show_rows"):
        check_rows(job.show_rows)
    data, task = read_data(job)
    with job.about_training():
        precheck(job.teacher, job.student, data, job.objective, task=task, fit=job.fit, controls=job.controls)
    with job.about("guard"):
        if isinstance(job.guard, Guard):
            job.guard.check(task.kind, {name: split.labelled for name, split in data.splits.items()}, list(data.calibration.groups))
            check_student(job.guard, job.student, data, task)
    return data, task


def read_data(job: Reading) -> tuple[Data, Task]:
    """The data of a job, read, and its task, bound to them."""
    with job.about("data"):
        kind = job.task.kind if job.task is not None else "auto"
        data = job.data.read(kind) if isinstance(job.data, Description) else as_data(job.data)
    with job.about("task"):
        task = (job.task or task_for(data.schema, data.kind)).bind(data.schema)
    return data, task


def settled_job(job: Job, data: Data, task: Task) -> Job:
    """The job with objective, controls and guard that were left out filled in by what the data have, in its text as well."""
    objective, controls = settled(job.objective, job.controls, data, task, job.teacher)
    lines = [] if job.objective is not None else [f"objective: {objective!r}\n"]
    lines += [] if job.controls is not None else [f"controls: [{', '.join(json.dumps(name) for name in controls)}]\n"]
    guard = job.guard or (Guard() if task.kind == "classification" else Unguarded())
    lines += [] if job.guard is not None else [f"guard: {guard!r}\n"]
    return replace(job, objective=objective, controls=controls, guard=guard, text=job.text + "".join(lines) if job.text else "")


def read_shift(job: Job, data: Data) -> dict[str, Data | Corruptions]:
    """The other data sets of a job by name, read, and its corruptions; raises now what `evaluate` would refuse.

    A folder of texts is one data set for each file.
    """
    found: dict[str, Data | Corruptions] = {}
    with job.about("shift"):
        for name, item in _named(job.shift):
            if isinstance(item, Corruptions):
                found[name] = item
                continue
            found[name] = other = _read_whole(item, data)
            split = fitted(name, other, data)
            if bool(torch.isin(split.ids, torch.cat([part.ids for part in data.splits.values()])).all()):
                raise DataError(f"shift {name!r}: all {len(split):,} rows are among those at home", hint="is it the same file?")
        corruptor([*found.values()], data)
    return found


def _read_whole(item: Any, home: Data) -> Data:
    """Other data as they are judged: without the rules of a split, if their description knows how."""
    found = described(item)
    if isinstance(found, Data):
        return found
    return found.read_whole(home) if isinstance(found, Whole) else found.read(home.kind)


def read_foreign(job: Job, data: Data) -> dict[str, Data | Unlabelled]:
    """The foreign rows of a job by name; raises now what `evaluate` would refuse. Rows without labels are read as those at home, and again
    when they are asked.
    """
    found: dict[str, Data | Unlabelled] = {}
    with job.about("foreign"):
        for name, item in _named(job.foreign, "foreign"):
            found[name] = item if isinstance(item, Unlabelled) else _read_whole(item, data)
            strangers(name, found[name], data)
    return found


def _named(others: Mapping[str, Any] | Sequence[Any], key: str = "shift") -> Iterator[tuple[str, Any]]:
    """(name, data) of each: a name that was given, that of the file, or a number; a second one of a name has a number as well."""
    if isinstance(others, Mapping):
        yield from others.items()
        return
    seen: dict[str, int] = {}
    for number, item in enumerate(others, 1):
        domains = item.domains() if isinstance(item, Text) and Path(located(item.path)).is_dir() else {}
        path = vars(item).get("path") if is_dataclass(item) else None
        called = "corruptions" if isinstance(item, Corruptions) else f"{key} {number}"
        for name, part in domains.items() or [(Path(path).stem if isinstance(path, str) else called, item)]:
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name} {seen[name]}"), part


class Teacher:
    """The teacher of a job in its folder: taught where it is to be taught, and its answers stored; each is done once.

    data, task: as `read` gave them. The job's objective says which taps are stored, so that it has to be settled.
    """

    def __init__(
        self, job: Job, out: Path, data: Data, task: Task, company: Company | None = None, *, resume: bool, listen: Listener
    ) -> None:
        self.job, self.out, self.data, self.task = job, out, data, task
        self.company, self.resume, self.listen = company or Company(0, 1), resume, listen
        self._source: Source | None = None
        self._answers: Source | None = None

    @property
    def source(self) -> Source:
        """The teacher itself, once `teach` has been called."""
        assert self._source is not None
        return self._source

    @property
    def answers(self) -> Source:
        """The teacher with its answers, once `annotate` has been called."""
        assert self._answers is not None
        return self._answers

    def teach(self) -> None:
        """The teacher, taught if it is to be taught; as it is otherwise."""
        if self._source is not None:
            return
        teacher = self.job.teacher
        with self.job.about("teacher"):
            if isinstance(teacher, Taught):
                if not self.company.first:
                    self.company.wait()  # then it is there, and only opened
                with alone():
                    teacher = teach(teacher, self.data, self.task, at=self.out / teacher.at, resume=self.resume, listen=self.listen)
                if self.company.first:
                    self.company.wait()
            self._source = told(teacher, self.data.train)

    def annotate(self) -> None:
        """The teacher's answers to every split, in the folder's store."""
        self.teach()
        if self._answers is not None:
            return
        if isinstance(self.source, Ema):
            self.listen(Event("annotate", text="the teacher follows the student, so that nothing of it can be stored"))
            self._answers = self.source
            return
        with self.job.about("teacher"):
            assert self.job.objective is not None  # it is settled
            taps = self.job.objective.teacher_taps
            self._answers = annotate(self.source, self.data, at=self.out / "answers", taps=taps, task=self.task, listen=self.listen)


class _Steps:
    """The steps of one job in one folder; each makes what it needs of the earlier ones, which is quick where they are done."""

    def __init__(self, job: Job, out: Path, company: Company, *, resume: bool, listen: Listener) -> None:
        self.out, self.company, self.resume, self.listen = out, company, resume, listen
        self.data, self.task = read(job)
        self.shift = read_shift(job, self.data)
        self.foreign = read_foreign(job, self.data)
        self.job = job = settled_job(job, self.data, self.task)
        for note in self.data.notes:
            listen(Event("data", text=note))
        self.teacher = Teacher(job, out, self.data, self.task, company, resume=resume, listen=listen)
        self._distilled: Distilled | None = None
        same_data(out, self.data)
        if _begun(out):
            _same_recipe(out, job, free=JUDGED_BY)  # whether those may change has been seen to
        company.wait()
        if company.first:
            out.mkdir(parents=True, exist_ok=True)
            if job.text:
                write_atomic(out / "recipe.yaml", job.text)
            manifest(out, self.data, job.text)
        company.wait()

    def do(self, step: Step) -> Certificate | None:
        """One step; the last one brings the certificate."""
        match step:
            case "teach":
                self.teach()
            case "annotate":
                self.annotate()
            case "distill":
                self.distill()
            case "export":
                self.export()
            case "evaluate":
                return self.evaluate()
        return None

    def teach(self) -> None:
        """The teacher, taught if it is to be taught; as it is otherwise."""
        self.teacher.teach()
        self._amend(teacher=self.teacher.source.fingerprint)

    def annotate(self) -> None:
        """The teacher's answers to every split, in the folder's store."""
        self.teach()
        self.teacher.annotate()

    def distill(self) -> None:
        """The student and its controls, trained over the seeds."""
        self.annotate()
        if self._distilled is None:
            with self.job.about_training():
                self._distilled = distill(
                    self.teacher.answers,
                    self.job.student,
                    self.data,
                    self.job.objective,
                    task=self.task,
                    fit=self.job.fit,
                    controls=self.job.controls,
                    out=self.out,
                    resume=self.resume,
                    listen=self.listen,
                )
            way = self._distilled.way or "one after another"
            self._amend(threads=self._distilled.threads, training=way, conventions=self._distilled.conventions.as_dict())

    def _amend(self, **facts: object) -> None:
        if self.company.first:
            amend(self.out, **facts)

    def export(self) -> None:
        """The folder that ships."""
        self.distill()
        assert self._distilled is not None
        if self.company.first:
            guard = self.job.guard if isinstance(self.job.guard, Guard) else None
            with self.job.about("student"):
                export(
                    self._distilled.student,
                    self.data,
                    self.task,
                    at=self.out / "student",
                    deploy=self.job.deploy,
                    guard=guard,
                    teacher=None if guard is None else self._judging_teacher(),
                    features=bool(self.foreign),
                    listen=self.listen,
                )
        self.company.wait()

    def evaluate(self) -> Certificate:
        """The certificate of the folder that ships, and its page."""
        self.distill()
        if not (self.out / "student" / "student.json").exists():
            self.export()
        if self.company.first:
            self._judge()
        self.company.wait()
        return Certificate.read(self.out / "certificate.json")

    def _judging_teacher(self) -> Source:
        """The teacher as it is asked when the student is judged: by its stored answers, or as it ended."""
        assert self._distilled is not None
        answers = self.teacher.answers
        teacher = self._distilled.teacher if isinstance(answers, Ema) else answers
        assert teacher is not None
        return teacher

    def _judge(self) -> None:
        assert self._distilled is not None
        teacher = self._judging_teacher()
        arms: dict[str, list[Source]] = {}
        for arm in self._distilled.arms:
            arms.setdefault(arm.name, []).append(module(arm.model))
        certificate = evaluate(
            self.out / "student",
            teacher,
            self.data,
            self.task,
            arms=arms,
            shift=self.shift,
            foreign=self.foreign,
            require=self.job.require,
            budget=self.job.budget,
            out=self.out,
            listen=self.listen,
        )
        self.tell(certificate)

    def tell(self, certificate: Certificate) -> None:
        """The page and the model card of a certificate."""
        write_report(certificate, self.out, test=self.data.test, show_rows=self.job.show_rows)
        if write_card(certificate, self.out) is None:
            self.listen(Event("evaluate", text=f"{self.out / 'README.md'} is not attar's own: it is left as it is"))


def _claim(out: Path, job: Job, *, resume: bool, only: Step | None) -> None:
    """Refuse a folder that is there already, or that belongs to another recipe; nothing is made yet, for the data may not be readable.

    A folder in which no step has left anything belongs to nobody. What a certificate is held against may change when it is made anew.
    """
    recipe = out / "recipe.yaml"
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{there} is a file, not a folder", hint="choose another with --out")
    if not _begun(out):
        return
    if not resume and only is None:
        raise RunError(f"{out} is there already, and a run is never overwritten", hint="--resume goes on with it; --out names another")
    if recipe.exists() and job.text:
        later = [key for key in SETTLED if f"\n{key}:" not in job.text]  # when the data are read it is known what they come to
        _same_recipe(out, job, free=(*later, *(JUDGED_BY if only == "evaluate" else ())))


def _begun(out: Path) -> bool:
    """Whether a step has left anything in the folder."""
    return out.exists() and not {path.name for path in out.iterdir()} <= {"recipe.yaml", "manifest.json"}


def _told(out: Path) -> bool:
    """Whether page and card were written after the certificate: a kill or a full disk may have come between."""
    made = (out / "certificate.json").stat().st_mtime_ns
    return all((path := out / name).exists() and path.stat().st_mtime_ns >= made for name in ("report.html", "README.md"))


def _same_recipe(out: Path, job: Job, *, free: Sequence[str]) -> None:
    """Raise RunError where the folder's recipe is another, but for the keys that are `free` to."""
    recipe = out / "recipe.yaml"
    if not recipe.exists() or not job.text:
        return
    if changes := difference(recipe.read_text(encoding="utf-8"), job.text, free):
        hint = "--out names another folder, or remove this one"
        hint += "" if "budget" in free else f"; {', '.join(JUDGED_BY)} alone may change: attar evaluate"
        if changes.startswith(f"  guard: was {Unguarded()!r}\n") and changes.count("\n") == 1:
            hint = f"--set 'guard={Unguarded()!r}' goes on without one; {hint}"
        raise RunError(f"{out} belongs to another recipe:\n{changes}", hint=hint)


def difference(was: str, now: str, free: Sequence[str] = ()) -> str:
    """The lines in which two resolved recipes differ, key by key, but for the keys that are `free` to; "" where they do not."""
    old, new = (dict(line.split(":", 1) for line in text.splitlines() if ":" in line and line[0] not in " #") for text in (was, now))
    if "guard" in new:
        old.setdefault("guard", f" {Unguarded()!r}")  # a folder that says nothing of one was begun before there were guards
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k) and k not in free]
    return "\n".join(f"  {k}: was {old.get(k, ' absent').strip()}\n  {' ' * len(k)}  now {new.get(k, ' absent').strip()}" for k in keys)


def _need_libraries(steps: Sequence[Step]) -> None:
    """Raise MissingExtra before long work starts, not after it, where a last step lacks its library."""
    needs = {"export": (("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx")), "evaluate": (("jinja2", "report"),)}
    for step in steps:
        for library, extra in needs.get(step, ()):
            if importlib.util.find_spec(library) is None:
                raise MissingExtra(library, extra)


def _need(step: Step, out: Path, job: Job) -> None:
    """Raise RunError if `step` alone lacks what the step before it makes."""
    taught = isinstance(job.teacher, Taught)
    needs = {
        "annotate": ("teach", out / Path(job.teacher.at) if isinstance(job.teacher, Taught) else out) if taught else None,
        "distill": None if isinstance(job.teacher, Ema) else ("annotate", out / "answers"),
        "export": ("distill", out / "student.safetensors"),
        "evaluate": ("export", out / "student" / "student.json"),
    }.get(step)
    if needs is not None and not needs[1].exists():
        raise RunError(f"{step} needs {needs[1]}, which is not there", hint=f"attar {needs[0]} makes it; attar run does every step")


def same_data(out: Path, data: Data) -> None:
    """Raise RunError where the folder was made from other rows than those that are read now."""
    path = out / "manifest.json"
    if not path.exists() or not _begun(out):
        return
    was = json.loads(path.read_text(encoding="utf-8")).get("data")
    if was not in (None, data.fingerprint):
        raise RunError(
            f"{out} was made from other data: rows, labels, splits or augmentation have changed ({was[:12]}, now {data.fingerprint[:12]})",
            hint="--out names another folder",
        )


def manifest(out: Path, data: Data, text: str) -> None:
    """What this run was made of, for whoever wants to make it again; what is known of earlier steps stays."""
    amend(
        out,
        attar=attar.__version__,
        data=data.fingerprint,
        rows={name: len(split) for name, split in data.splits.items()},
        recipe=digest(text),
        code=_code(),
        python=sys.version.split()[0],
        versions={name: metadata.version(name) for name in ("torch", "numpy", "scipy", "safetensors")},
        machine={"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        torch_threads=torch.get_num_threads(),
    )


def amend(out: Path, **facts: object) -> None:
    path = out / "manifest.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**known, **facts})


def _code() -> str:
    """The digest of attar's own source files: the same version number may be different code."""
    root = Path(attar.__file__).parent
    return digest(*(part for path in sorted(root.rglob("*.py")) for part in (str(path.relative_to(root)), path.read_bytes())))


def _result(certificate: Certificate, out: Path) -> Result:
    report = out / "report.html"
    summary = (
        f"student      {out / 'student'}",
        f"certificate  {out / 'certificate.json'}",
        f"page         {report}",
        f"model card   {out / 'README.md'}",
    )
    return Result(certificate, out, certificate.exit_code, summary)


def _next_step(step: Step, out: Path) -> tuple[str, ...]:
    after = STEPS[STEPS.index(step) + 1]
    return (f"{step} is done in {out}", f"next: attar {after}")


def _next_free(folder: Path) -> Path:
    number = 1
    while (folder / f"run-{number:03}").exists():
        number += 1
    return folder / f"run-{number:03}"
