"""Teach a student what a teacher answers, and its controls what is left when the teacher is taken away."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import attar.objective as words
from attar.data import Data, Split, as_data
from attar.errors import DataError, NotationError, RunError, StoreError, StudentError, TeacherError, near
from attar.files import explain_disk, replacing, write_atomic, write_json
from attar.identity import digest, uniform
from attar.loop import Fit, choose_threads, device_of, processes, train, using_threads
from attar.notation import read
from attar.objective import Distiller, Objective, Term, as_objective, labels
from attar.objective.conventions import Conventions, check
from attar.objective.terms import Labels
from attar.progress import Event, Listener, silent
from attar.signal import Batch, Schooled, Signal, Source, Stored, Student
from attar.sources.cached import Cached
from attar.sources.controls import hard, shuffled, smooth
from attar.task import Task, classification, multilabel, regression

__all__ = ["Arm", "Distilled", "distill"]

Control = Literal["labels", "hard", "shuffled", "smooth"]
TASKS = {"classification": classification, "multilabel": multilabel, "regression": regression}
SAMPLE = 256  # rows on which the conventions are tested, the teacher asked live
CHUNK = 1024  # validation rows answered at a time


@dataclass(frozen=True)
class Arm:
    """One training: of the student, or of a control.

    name: "student", or the control's. model: with the weights of the best epoch, in evaluation mode, on the CPU.
    history: one mapping for each epoch. best_epoch: counted from 1. valid: every metric of the task on the validation rows.
    """

    name: str
    seed: int
    model: nn.Module = field(repr=False)
    history: tuple[Mapping[str, Any], ...] = field(repr=False)
    best_epoch: int
    valid: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Distilled:
    """What `distill` made.

    arms: the student's and the controls', seed by seed; those of one seed began with the same weights and saw the same rows in order.
    threads: of the CPU, as chosen. conventions: what the self-test found.
    ready_made: the student was a module, copied for each arm, so that seeds vary the order of rows only.
    """

    arms: tuple[Arm, ...]
    threads: int
    conventions: Conventions = field(repr=False)
    objective: str
    ready_made: bool = False

    @property
    def student(self) -> nn.Module:
        """The one that ships: of the first seed, whatever the others came to."""
        return next(arm.model for arm in self.arms if arm.name == "student")


def distill(
    teacher: Source,
    student: Student | nn.Module,
    data: Any,
    objective: Objective | Term | None = None,
    *,
    task: Task | None = None,
    fit: Fit | None = None,
    controls: Sequence[str] = ("labels",),
    out: str | Path | None = None,
    resume: bool = False,
    listen: Listener = silent,
) -> Distilled:
    """Train `student` on the teacher's answers, and beside it each control: same initial weights, same order of rows, same steps.

    teacher: any source; one with stored answers (`annotate`) is not asked again. Augmented rows are shown in another stored view each
        epoch, a row's views in turn.
    student: a builder, called with (schema, seed), or a module, which is copied and stays as it is.
    data: anything that `attar.data.as_data` reads. objective, task: left out, what the task and the data imply.
    controls: of "labels" (labels alone, no teacher), "hard" (the teacher's decisions), "shuffled" (its certainty, not its knowledge),
        "smooth" (label smoothing in its place). Controls that need labels see labelled rows only, for as many steps as the student.
    out: the folder for history.jsonl, checkpoints/, arms/ and student.safetensors; left out, nothing is written.
    resume: go on in `out`: finished arms are read, and the one that was interrupted goes on bit for bit.

    The best epoch of each arm is chosen by the task's primary metric on validation rows; test rows are never read. With two processes
    or more (torchrun) each step is shared among them.

    Raises the error of a convention that fails, before training; DataError where labels are needed and missing, or the teacher knows
    evaluation rows; StudentError for a loss that is not finite; RunError where `out` holds another training; Stopped on a signal.

    >>> done = distill(teacher, attar.students.mlp(), data, out="runs/credit")     # doctest: +SKIP
    >>> [(arm.name, arm.seed, arm.valid["auroc"]) for arm in done.arms]            # doctest: +SKIP
    """
    rows = as_data(data, kind=task.kind) if task is not None else as_data(data)
    task = (task or TASKS[rows.kind]()).bind(rows.schema)
    goal = as_objective(objective) if objective is not None else as_objective(read(task.objective, vars(words)))
    plan = _Plan(teacher, student, rows, goal, task, fit or Fit(), tuple(controls), listen)
    return _Distilling(plan, _Folder(Path(out), resume) if out is not None else None).run()


@dataclass(frozen=True)
class _Plan:
    """What `distill` was asked, resolved."""

    teacher: Source
    student: Student | nn.Module
    data: Data
    objective: Objective
    task: Task
    fit: Fit
    controls: tuple[str, ...]
    listen: Listener

    @property
    def arms(self) -> tuple[str, ...]:
        return ("student", *self.controls)

    @cached_property
    def labelled(self) -> Tensor:
        """(n,) positions of training rows with a known label."""
        known = _known(self.task, self.data.train)
        return known.nonzero().squeeze(1)

    def check(self) -> None:
        """Whatever can be wrong and seen without training."""
        known = get_args(Control)
        for name in self.controls:
            if name not in known:
                raise NotationError(f"there is no control {name!r}", hint=near(name, known))
        if len(set(self.controls)) < len(self.controls):
            raise NotationError(f"controls {list(self.controls)}: one is named twice", hint="name each once")
        if not len(self.data.train):
            raise DataError("the training split is empty", hint="leave more rows to it: lower test, valid or calibration")
        if not bool(_known(self.task, self.data.valid).any()):
            raise DataError("no validation row has a label, so that no epoch can be chosen", hint="give the validation split labelled rows")
        if not len(self.labelled):
            if any(isinstance(term, Labels) for term in self.objective.terms):
                raise DataError(f"{self.objective!r} needs labels, no training row has one", hint='objective: kl(), controls: ["hard"]')
            if needing := [name for name in self.controls if name in ("labels", "smooth")]:
                raise DataError(f"the control {needing[0]!r} needs labels, no training row has one", hint='controls: ["hard"]')
        if self.task.kind == "regression" and (odd := [name for name in self.controls if name != "labels"]):
            raise NotationError(f"the control {odd[0]!r} is for classes, this is a regression", hint='controls: ["labels"]')
        self._no_leak()

    def _no_leak(self) -> None:
        seen = self.teacher.training_ids if isinstance(self.teacher, Schooled) else None
        if seen is None:
            return
        for split in (self.data.calibration, self.data.test):
            if both := int(torch.isin(split.ids, seen).sum()):
                raise DataError(
                    f"the teacher was trained on {both:,} of the {len(split):,} {split.name} rows",
                    hint="teach it on the training rows of these data, or split the data as it was taught",
                )

    def build(self, seed: int) -> nn.Module:
        """A fresh student; a module that was given ready-made is copied."""
        if isinstance(self.student, nn.Module):
            return copy.deepcopy(self.student)
        built = self.student(self.data.schema, seed)
        if not isinstance(built, nn.Module):
            what = f"{self.student!r} built a {type(built).__name__}, not a torch module"
            raise StudentError(what, hint="a builder takes (schema, seed) and returns an nn.Module")
        return built

    def source(self, arm: str) -> Source | None:
        """Who teaches this arm; None: nobody but the labels."""
        if arm == "labels" or not self.objective.needs_teacher:
            return None
        if arm == "student":
            return self.teacher
        return {"hard": hard, "shuffled": shuffled, "smooth": smooth}[arm](self.teacher).over(self.data.train)

    def goal(self, arm: str) -> Objective:
        """A fresh objective for this arm, without projectors."""
        return as_objective(labels()) if arm == "labels" else copy.deepcopy(self.objective)

    def rows(self, arm: str) -> _Rows:
        positions = self.labelled if arm in ("labels", "smooth") else torch.arange(len(self.data.train))
        return _Rows(self.data, self.source(arm), self.objective.teacher_taps, positions, device_of(self.fit))

    def identity(self, arm: str, seed: int, model: nn.Module, source: Source | None) -> str:
        """Changes when this arm would come out otherwise, but for the number of threads. model: before its training."""
        parts = [arm, self.data.fingerprint, source.fingerprint if source is not None else "", repr(self.goal(arm)), repr(self.task)]
        alike = replace(self.fit, seeds=1, threads=None)
        state = [part for name, value in model.state_dict().items() for part in (name, value.detach().cpu().numpy())]
        return digest(*parts, repr(alike), seed, repr(model), *state)


class _Distilling:
    """One call of `distill`."""

    def __init__(self, plan: _Plan, folder: _Folder | None) -> None:
        self.plan, self.folder = plan, folder
        self.rank, _ = processes()
        self.shown: dict[str, _Rows] = {}

    def run(self) -> Distilled:
        plan = self.plan
        plan.check()
        conventions = self._conventions()
        conventions.raise_if_failed()
        if self.folder:
            self.folder.begin()
        threads = self._threads()
        arms: list[Arm] = []
        with using_threads(threads):
            for seed in range(plan.fit.seeds):
                for name in plan.arms:
                    arms.append(self._arm(name, seed))
                    self._said(arms[-1], len(arms))
                if seed == 0 and self.folder and self.rank == 0:
                    self.folder.keep_student(arms[0].model, repr(plan.student) if not isinstance(plan.student, nn.Module) else "")
        return Distilled(tuple(arms), threads, conventions, repr(plan.objective), isinstance(plan.student, nn.Module))

    def _conventions(self) -> Conventions:
        """The self-test on rows spread over the training split, the teacher asked live; stored answers are compared with that."""
        plan = self.plan
        count = len(plan.data.train)
        batch = plan.data.train.batch(torch.arange(count)[:: max(1, count // SAMPLE)][:SAMPLE])
        stored, live = None, plan.source("student")
        if isinstance(live, Cached) and live.store is not None:
            assert batch.ids is not None  # splits have them
            with suppress(StoreError):  # rows that are not stored are asked live, later as now
                stored = live.signal(live.locate(batch.ids, batch.views))
            live = live.source
        if live is not None:
            _need_finite(live(batch, plan.objective.teacher_taps).output)
        return check(plan.objective, plan.build(0), live, batch, plan.task, stored)

    def _threads(self) -> int:
        plan, folder = self.plan, self.folder
        if plan.fit.threads is not None:
            return plan.fit.threads
        if folder and (kept := folder.threads()):
            return kept
        threads = choose_threads(self._trial()) if device_of(plan.fit).type == "cpu" else torch.get_num_threads()
        if folder and self.rank == 0:
            folder.keep_threads(threads)
        return threads

    def _trial(self) -> Callable[[], object]:
        """A training step of the student on something that is thrown away."""
        rows = self._rows("student")
        distiller = self._distiller("student", self.plan.build(0), 0).train()
        optimizer = torch.optim.AdamW(distiller.parameters(), fused=True)
        asked = rows(torch.arange(len(rows))[: self.plan.fit.batch], 1)

        def step() -> None:
            with torch.random.fork_rng(devices=[]):
                distiller(*asked).total.backward()
            optimizer.step()

        return step

    def _rows(self, arm: str) -> _Rows:
        """The rows of an arm, looked up once for all seeds."""
        if arm not in self.shown:
            self.shown[arm] = self.plan.rows(arm)
        return self.shown[arm]

    def _distiller(self, arm: str, model: nn.Module, seed: int) -> Distiller:
        """The module that trains, its projectors made."""
        rows = self._rows(arm)
        distiller = Distiller(model, self.plan.goal(arm), self.plan.task).to(rows.device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # of the projectors
            return distiller.build(*rows(torch.arange(len(rows))[: self.plan.fit.batch], 1)).to(rows.device)

    def _arm(self, name: str, seed: int) -> Arm:
        plan, folder, rows = self.plan, self.folder, self._rows(name)
        model = plan.build(seed)
        identity = plan.identity(name, seed, model, rows.source)
        if folder and (arm := folder.finished(name, seed, identity, model)):
            return arm
        judge = _Judge(plan, rows.device)

        def loss(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
            return module(*rows(index, epoch), progress)

        def record(line: Mapping[str, Any]) -> None:
            if folder:
                folder.note(judge.told(name, line))

        trained = train(
            self._distiller(name, model, seed),
            loss,
            len(plan.data.train),
            fit=plan.fit,
            seed=seed,
            validate=judge.score,
            listen=plan.listen,
            record=record,
            stage=f"distill {name} seed {seed}",
            checkpoint=folder.checkpoint(name, seed) if folder else None,
            identity=identity,
            resume=folder is not None and folder.resume,
        )
        model = model.cpu().eval()
        history = tuple(judge.told(name, line) for line in trained.history)
        arm = Arm(name, seed, model, history, trained.best_epoch, judge.metrics(model), trained.seconds)
        if folder and self.rank == 0:
            folder.keep(arm, identity)
        return arm

    def _said(self, arm: Arm, done: int) -> None:
        plan = self.plan
        value = arm.valid[plan.task.metric]
        text = f"{arm.name} seed {arm.seed}: {plan.task.metric} {value:.4f} on validation rows, in epoch {arm.best_epoch}"
        plan.listen(Event("distill", done, len(plan.arms) * plan.fit.seeds, text, {f"valid {plan.task.metric}": value}))


class _Rows:
    """(index (B,), epoch) → (Batch, the teacher's Signal or None), on the device where the student trains.

    Stored answers are looked up once, for every row and view; a step then picks rows. A row's views are shown in turn: in epoch e the
    view 1 + (h(id) + e) mod V, so that a batch has all of them and V epochs show each once.
    """

    def __init__(self, data: Data, source: Source | None, taps: frozenset[str], positions: Tensor, device: torch.device) -> None:
        self.split, self.source, self.taps, self.device = data.train, source, taps, device
        self.positions = None if len(positions) == len(self.split) else positions
        self.views = data.views
        if self.views:
            self.first = torch.from_numpy((uniform(self.split.ids.numpy(), "view") * self.views).astype(np.int64))  # (N,)
        self.places = self._located()  # (V, N) or (1, N) handles of the store, None without one

    def __len__(self) -> int:
        return len(self.split) if self.positions is None else len(self.positions)

    def __call__(self, index: Tensor, epoch: int) -> tuple[Batch, Signal | None]:
        if self.positions is not None:  # fewer rows take turns, so that all arms make the same steps
            index = self.positions[index % len(self.positions)]
        turn = (self.first.index_select(0, index) + epoch) % self.views if self.views else None
        batch = self.split.batch(index, None if turn is None else turn + 1)
        if self.source is None:
            signal = None
        elif self.places is not None:
            assert isinstance(self.source, Stored)
            signal = self.source.signal(self.places[0, index] if turn is None else self.places[turn, index])
        else:
            with torch.no_grad():
                signal = self.source(batch, self.taps)
        return (batch, signal) if self.device.type == "cpu" else (batch.to(self.device), _moved(signal, self.device))

    def _located(self) -> Tensor | None:
        if not isinstance(self.source, Stored):
            return None
        ids = self.split.ids
        try:
            places = torch.stack([self.source.locate(ids, torch.full_like(ids, v)) for v in range(1, self.views + 1) or (0,)])
        except StoreError:  # some were never asked: they are asked live, and a store that is damaged says so then
            return None
        return places if self.taps <= self.source.signal(places[0, :1]).taps.keys() else None


class _Judge:
    """How a student does on validation rows."""

    def __init__(self, plan: _Plan, device: torch.device) -> None:
        self.task, self.split, self.device = plan.task, plan.data.valid, device
        self.known = _known(plan.task, self.split).nonzero().squeeze(1)
        assert self.split.labels is not None  # else none would be known
        self.labels = self.split.labels[self.known]
        self.weight = np.ones(len(self.known)) if self.split.weight is None else self.split.weight[self.known].double().numpy()

    def score(self, distiller: nn.Module) -> float:
        """The primary metric, turned so that more is better."""
        assert isinstance(distiller, Distiller)
        metric = self.task.metric
        found = self.task.figures(self._answers(distiller.student, self.device), self.labels)[metric](self.weight)
        return float(found) * self.task.better(metric)

    def told(self, arm: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """A line of history with the arm's name, and the primary metric as it is called and counted."""
        return {"arm": arm, **line, "metric": self.task.metric, "valid": line["valid"] * self.task.better(self.task.metric)}

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Every metric of the task."""
        weight = torch.from_numpy(self.weight)
        return self.task.measure(self._answers(student, torch.device("cpu")), self.labels, weight)

    def _answers(self, student: nn.Module, device: torch.device) -> Tensor:
        with torch.no_grad():
            found = [student(self.split.batch(index).to(device).inputs) for index in self.known.split(CHUNK)]
        return self.task.canonical(torch.cat(found)).float().cpu()


class _Folder:
    """What a distillation leaves on disk, and finds there again."""

    def __init__(self, out: Path, resume: bool) -> None:
        self.out, self.resume = out, resume
        self.history = out / "history.jsonl"
        self._writes = processes()[0] == 0

    def begin(self) -> None:
        """Refuse a folder that holds a training, unless it goes on; keep of the history what belongs to finished arms."""
        if not self._writes:
            return
        if not self.resume and (self.out / "arms").exists():
            raise RunError(f"{self.out} holds a training already", hint="--resume goes on with it; --out names another folder")
        with explain_disk(self.out):
            (self.out / "arms").mkdir(parents=True, exist_ok=True)
        done = {(path.stem.rpartition("-")[0], int(path.stem.rpartition("-")[2])) for path in (self.out / "arms").glob("*-*.safetensors")}
        kept = [line for line in self._lines() if (line["arm"], line["seed"]) in done]
        write_atomic(self.history, "".join(json.dumps(line) + "\n" for line in kept))

    def threads(self) -> int | None:
        """As chosen when the training began: another number would change the last bits."""
        path = self.out / "checkpoints" / "threads.json"
        return json.loads(path.read_text())["threads"] if self.resume and path.exists() else None

    def keep_threads(self, threads: int) -> None:
        write_json(self.out / "checkpoints" / "threads.json", {"threads": threads})

    def checkpoint(self, name: str, seed: int) -> Path:
        return self.out / "checkpoints" / f"{name}-{seed}.pt"

    def note(self, line: Mapping[str, Any]) -> None:
        """One line of history; it is synced with its arm, for a kill of the process does not lose what was written."""
        with explain_disk(self.history), open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep(self, arm: Arm, identity: str) -> None:
        """The arm's file is written last: once it is there the arm is finished."""
        with explain_disk(self.history), open(self.history, "rb+") as file:
            os.fsync(file.fileno())
        facts = {"identity": identity, "best_epoch": arm.best_epoch, "valid": dict(arm.valid), "seconds": arm.seconds}
        _save(arm.model, self._arm(arm.name, arm.seed), facts)
        self.checkpoint(arm.name, arm.seed).unlink(missing_ok=True)

    def keep_student(self, model: nn.Module, text: str) -> None:
        _save(model, self.out / "student.safetensors", {"student": text})

    def finished(self, name: str, seed: int, identity: str, model: nn.Module) -> Arm | None:
        """The arm as it was kept, its weights in `model`; RunError where it is of another training."""
        path = self._arm(name, seed)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["attar"])
            state = load_file(path)
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}", hint="remove it, and --resume trains it again") from error
        if facts["identity"] != identity:
            raise RunError(
                f"{path} is of another training: data, teacher, student, objective or fit have changed",
                hint="--out names another folder",
            )
        model.load_state_dict(state)
        history = tuple(line for line in self._lines() if (line["arm"], line["seed"]) == (name, seed))
        return Arm(name, seed, model.eval(), history, facts["best_epoch"], facts["valid"], facts["seconds"])

    def _arm(self, name: str, seed: int) -> Path:
        return self.out / "arms" / f"{name}-{seed}.safetensors"

    def _lines(self) -> list[dict[str, Any]]:
        """The history so far; a kill may have torn the last line."""
        found = []
        for line in self.history.read_text(encoding="utf-8").splitlines() if self.history.exists() else ():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


def _save(model: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
    state = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"attar": json.dumps(facts)})


def _known(task: Task, split: Split) -> Tensor:
    """(N,) bool: rows with a known label, of many labels at least one."""
    if split.labels is None:
        return torch.zeros(len(split), dtype=torch.bool)
    return task.known(split.labels).reshape(len(split), -1).any(1)


def _need_finite(output: Tensor) -> None:
    rows = (output.isnan() | output.isposinf()).flatten(1).any(1)
    if bool(rows.any()):
        raise TeacherError(
            f"the teacher answers NaN or infinity to {int(rows.sum()):,} of {len(rows):,} rows, such as row {int(rows.nonzero()[0])}",
            hint="ask it these rows by itself: does it take missing values?",
        )


def _moved(signal: Signal | None, device: torch.device) -> Signal | None:
    if signal is None:
        return None
    taps, masks = ({n: v.to(device) for n, v in named.items()} for named in (signal.taps, signal.masks))
    return Signal(signal.output.to(device), taps, masks)
