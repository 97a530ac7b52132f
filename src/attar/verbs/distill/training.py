"""Training the arms of a distillation: one after another, as cohorts, or shared among processes; and what each of them leaves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from attar import cohort
from attar.cohort import Lesson, Member
from attar.identity import digest
from attar.loop import Trained, device_of, processes, train
from attar.objective import Distiller
from attar.progress import Event, Listener
from attar.signal import Source
from attar.sources.ema import Ema, Following
from attar.sources.module import module
from attar.students import Trees
from attar.verbs.distill.folder import Arm, Folder
from attar.verbs.distill.grow import grow
from attar.verbs.distill.judge import Judge
from attar.verbs.distill.plan import Plan
from attar.verbs.distill.processes import shared
from attar.verbs.distill.rows import Rows
from attar.verbs.distill.together import ONE, SHORT, Group, Way, lesson_of, obstacle, quickest, ready, split, why_not

__all__ = ["Training"]

Key = tuple[str, int]
"""Arm and seed."""


@dataclass(frozen=True)
class _Form:
    """Arms that differ in what their teacher says alone, so that their students may train together."""

    arms: tuple[str, ...]
    lesson: Lesson


class Training:
    """All arms of a plan over its seeds.

    made: the arms that are there. teacher: who taught the student in the end. way: how they trained, once they have.
    """

    def __init__(self, plan: Plan, folder: Folder | None) -> None:
        self.plan, self.folder = plan, folder
        self.listen = plan.listen
        self.rank, self.world = processes()
        self.shown: dict[str, Rows] = {}
        self.teacher: Source = plan.teacher
        self.made: dict[Key, Arm] = {}
        self.way = ONE
        self.members: dict[Key, Member] = {}

    def run(self, threads: int) -> tuple[Arm, ...]:
        """The arms, seed by seed. threads: of the CPU, as they are set."""
        every = [(name, seed) for seed in range(self.plan.fit.seeds) for name in self.plan.arms]
        waiting = [key for key in every if not self._finished(key)]
        jobs = self._jobs(waiting, threads)
        if self.way.processes > 1 and len(jobs) > 1:
            self._share(jobs)
        else:
            for job in jobs:
                for arm in self._job(job):
                    self._made(arm)
        return tuple(self.made[key] for key in every)

    @cached_property
    def judge(self) -> Judge:
        """One for all arms; without labels it asks the teacher itself what it answers to validation rows, whoever teaches an arm."""
        return Judge(self.plan.task, self.plan.data.valid, device_of(self.plan.fit), self.plan.teacher)

    def trial(self) -> Callable[[], object]:
        """A training step of the student on something that is thrown away."""
        model = self.plan.build(0)
        rows, _ = self._followed("student", model)
        distiller = self._distiller("student", model, 0, rows).train()
        asked = rows(self._first_step("student"), 1)

        def step() -> None:
            with torch.random.fork_rng(devices=[]):
                distiller(*asked).total.backward()

        return step

    # ---- in which way

    def _jobs(self, waiting: Sequence[Key], threads: int) -> list[tuple[Key, ...]]:
        """What trains by itself or together, in order: as it was begun where the folder says so, else as a short measurement wants it."""
        begun, self.way = self.folder.begun() if self.folder else ([], ONE)
        jobs: list[tuple[Key, ...]] = []
        for job in begun:
            left = tuple(key for key in job if key in waiting)
            whole = len(job) > 1 and self._checkpoint(job).exists()  # it has all of them, also those that were finished since
            jobs += [job if whole else left] if left else []
        fresh = [key for key in waiting if not any(key in job for job in begun)]
        if fresh:
            new, way = self._chosen(fresh, threads)
            self.way = self.way if begun else way
            jobs += new
            if self.folder and self.rank == 0:
                self.folder.begin_jobs([*begun, *new], self.way)
        return jobs

    def _chosen(self, fresh: Sequence[Key], threads: int) -> tuple[list[tuple[Key, ...]], Way]:
        one = [(key,) for key in fresh]
        plan = self.plan
        if len(fresh) < 2 or plan.fit.way == "one" or self.world > 1 or isinstance(plan.build(0), Trees):
            return one, ONE
        if plan.fit.way is None and self._seconds(len(fresh)) < SHORT:
            return one, ONE
        groups, reasons = self._groups(fresh)
        way = quickest(groups, self._lead(fresh), len(fresh), plan.fit, threads, forks=self._forks(fresh), reasons=reasons)
        if way.words:
            plan.listen(Event("distill", text=f"{len(fresh)} students train {way.words}"))
        if not way.together:
            return one, way
        keys = {id(member): key for key, member in self.members.items()}
        parts = [part for group in groups for part in split(group, plan.fit, way.processes)]
        jobs = [tuple(keys[id(member)] for member in part.members) for part in parts]
        together = {key for job in jobs for key in job}
        return jobs + [(key,) for key in fresh if key not in together], way

    def _groups(self, fresh: Sequence[Key]) -> tuple[list[Group], list[str]]:
        """Who can train together, and in words why the others cannot."""
        groups, reasons = list[Group](), list[str]()
        for form in self.forms:
            keys = [(name, seed) for name in form.arms for seed in range(self.plan.fit.seeds) if (name, seed) in fresh]
            if len(keys) < 2:
                continue
            reason = obstacle(self._rows(form.arms[0]), self.plan.goal(form.arms[0]), self.plan.fit)
            if reason is None:
                group = Group(tuple(self._member(key, form) for key in keys), form.lesson)
                reason = why_not(group, self.plan.fit)
                if reason is None:
                    groups.append(group)
            if reason is not None:
                reasons.append(reason)
        return groups, list(dict.fromkeys(reasons))

    def _lead(self, fresh: Sequence[Key]) -> Group:
        """One student that trains by itself."""
        form = next((form for form in self.forms if any(name in form.arms for name, _ in fresh)), None)
        if form is None:  # all follow teachers of their own
            return Group((), lesson_of([self._rows(fresh[0][0])], self.plan.objective, len(self.plan.data.train)))
        return Group((self._member(next(key for key in fresh if key[0] in form.arms), form),), form.lesson)

    def _forks(self, fresh: Sequence[Key]) -> bool:
        """Whether nobody is asked who has threads of his own: a forked process lacks them, and would wait for ever."""
        rows = [self._rows(name) for name in {name for name, _ in fresh}]
        return all((one.source is None or one.places is not None) and one.tensors and one.device.type == "cpu" for one in rows)

    def _seconds(self, students: int) -> float:
        """About how long so many take one after another."""
        step, times = self.trial(), list[float]()
        for _ in range(3):
            start = perf_counter()
            step()
            times.append(perf_counter() - start)
        rows, fit = len(self.plan.data.train), self.plan.fit
        return min(times) * students * fit.epochs * -(-rows // fit.rows_a_step(rows))

    @cached_property
    def forms(self) -> list[_Form]:
        """The arms by what they share: rows, objective, whether a teacher is asked."""
        found: dict[tuple[Any, ...], list[str]] = {}
        for name in self.plan.arms:
            rows = self._rows(name)
            if not isinstance(rows.source, Ema):
                every = rows.positions is None
                found.setdefault((repr(self.plan.goal(name)), every, rows.source is None), []).append(name)
        return [
            _Form(tuple(arms), lesson_of([self._rows(name) for name in arms], self.plan.goal(arms[0]), len(self.plan.data.train)))
            for arms in found.values()
        ]

    def _member(self, key: Key, form: _Form) -> Member:
        if key not in self.members:
            name, seed = key
            model, rows = self.plan.build(seed), self._rows(name)
            identity = self.plan.identity(name, seed, model, rows.source)
            arm, stage = form.arms.index(name), f"distill {name} seed {seed}"
            self.members[key] = Member(self._distiller(name, model, seed, rows), seed, arm, stage=stage, identity=identity)
        return self.members[key]

    # ---- doing it

    def _job(self, job: tuple[Key, ...]) -> list[Arm]:
        return [self._alone(*job[0])] if len(job) == 1 else self._together(job)

    def _share(self, jobs: Sequence[tuple[Key, ...]]) -> None:
        """The jobs dealt to processes, whose arms are read from the folder; without one, from one that is gone afterwards."""
        deals: list[list[tuple[Key, ...]]] = [[] for _ in range(self.way.processes)]
        for job in sorted(jobs, key=lambda job: -len(job)):
            min(deals, key=lambda deal: sum(map(len, deal))).append(job)
        _ = self.judge  # it may ask the teacher, who may have threads
        total, done = sum(map(len, jobs)) * self.plan.fit.epochs, [0]

        def hear(event: Event) -> None:
            done[0] += event.done
            self.listen(Event("distill students", done[0], total, numbers=event.numbers))

        with tempfile.TemporaryDirectory() as nowhere:
            folder = self.folder
            if folder is None:
                self.folder = Folder(Path(nowhere), resume=False)
                self.folder.begin()
            try:
                shared([lambda say, deal=deal: self._dealt(deal, say) for deal in deals if deal], hear)
                for job in jobs:
                    for key in job:
                        if key not in self.made:
                            self._finished(key)
            finally:
                self.folder = folder

    def _dealt(self, deal: Sequence[tuple[Key, ...]], say: Listener) -> None:
        """What one process does."""
        for job in deal:
            students = len(job)
            self.listen = lambda event, students=students: say(replace(event, done=students))
            self._job(job)

    def _alone(self, name: str, seed: int) -> Arm:
        plan, folder = self.plan, self.folder
        model = plan.build(seed)
        identity = plan.identity(name, seed, model, self._rows(name).source)
        rows, follower = self._followed(name, model)
        judge = self.judge

        def loss(distiller: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
            return distiller(*rows(index, epoch), progress)

        def record(line: Mapping[str, Any]) -> None:
            if folder:
                folder.note(judge.told(name, line))

        stage = f"distill {name} seed {seed}"
        if isinstance(model, Trees):
            trained = grow(model, plan.goal(name), rows, plan.task, judge, stage=stage, seed=seed, record=record)
        else:
            trained = train(
                self._distiller(name, model, seed, rows),
                loss,
                len(plan.data.train),
                fit=plan.fit,
                seed=seed,
                validate=judge.score,
                listen=self.listen,
                record=record,
                stage=stage,
                checkpoint=folder.checkpoint(name, seed) if folder else None,
                identity=identity,
                resume=folder is not None and folder.resume,
                follower=follower,
            )
        return self._kept((name, seed), model, trained, identity, follower)

    def _together(self, job: tuple[Key, ...]) -> list[Arm]:
        folder, judge = self.folder, self.judge
        form = next(form for form in self.forms if job[0][0] in form.arms)
        members = [self._member(key, form) for key in job]
        names = {member.stage: name for member, (name, _) in zip(members, job, strict=True)}

        def told(member: Member, line: Mapping[str, Any]) -> dict[str, Any]:
            return judge.told(names[member.stage], line) | {"together": len(job)}

        def record(member: Member, line: Mapping[str, Any]) -> None:
            if folder and (names[member.stage], member.seed) not in self.made:
                folder.note(told(member, line))

        checkpoint = self._checkpoint(job) if folder else None
        found = cohort.train(
            members,
            form.lesson,
            fit=self.plan.fit,
            validate=judge.score,
            listen=self.listen,
            record=record,
            stage=f"distill {len(job)} students together",
            checkpoint=checkpoint,
            resume=folder is not None and folder.resume,
            traced=self.way.traced,
        )
        arms = []
        for key, member, trained in zip(job, members, found, strict=True):
            assert isinstance(member.module, Distiller)
            if key not in self.made:
                trained = replace(trained, history=tuple(dict(line) | {"together": len(job)} for line in trained.history))
                arms.append(self._kept(key, member.module.student, trained, member.identity, None))
            del self.members[key]
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return arms

    def _checkpoint(self, job: tuple[Key, ...]) -> Path:
        assert self.folder is not None
        return self.folder.checkpoint(f"cohort-{digest(*(f'{name} {seed}' for name, seed in job), size=8)}", len(job))

    # ---- what is left

    def _kept(self, key: Key, model: nn.Module, trained: Trained, identity: str, follower: Following | None) -> Arm:
        judge, folder = self.judge, self.folder
        name, seed = key
        model = model.cpu().eval()
        history = tuple(judge.told(name, line) for line in trained.history)
        arm = Arm(name, seed, model, history, trained.best_epoch, judge.metrics(model), trained.seconds)
        if follower is not None and key == ("student", 0):
            self.teacher = module(follower.net.cpu())
            if folder and self.rank == 0:
                folder.keep_teacher(follower.net)
        if folder and self.rank == 0:
            folder.keep(arm, identity)
        return arm

    def _finished(self, key: Key) -> bool:
        """Whether the folder has the arm, which is read then."""
        if self.folder is None:
            return False
        plan, (name, seed) = self.plan, key
        model = plan.build(seed)
        arm = self.folder.finished(name, seed, plan.identity(name, seed, model, self._rows(name).source), model)
        if arm is None:
            return False
        if key == ("student", 0) and isinstance(plan.teacher, Ema) and plan.objective.needs_teacher:
            self.teacher = module(self.folder.teacher(plan.build(seed)))
        self._made(arm)
        return True

    def _made(self, arm: Arm) -> None:
        """Takes an arm in, says so, and keeps the student that ships."""
        plan, metric = self.plan, self.judge.metric
        self.made[arm.name, arm.seed] = arm
        value, called = arm.valid[metric], metric.replace("_", " ") + (" with the teacher" if self.judge.teacher is not None else "")
        text = f"{arm.name} seed {arm.seed}: {called} {value:.4f} on validation rows, in epoch {arm.best_epoch}"
        self.listen(Event("distill", len(self.made), len(plan.arms) * plan.fit.seeds, text, {f"valid {metric}": value}))
        if (arm.name, arm.seed) == ("student", 0) and self.folder and self.rank == 0:
            self.folder.keep_student(arm.model, repr(plan.student) if not isinstance(plan.student, nn.Module) else "")

    # ---- what an arm is made of

    def _first_step(self, arm: str) -> Tensor:
        """(B,) positions, as many as a step has."""
        return torch.arange(len(self._rows(arm)))[: self.plan.fit.rows_a_step(len(self.plan.data.train))]

    def _rows(self, arm: str) -> Rows:
        """The rows of an arm, looked up once for all seeds."""
        if arm not in self.shown:
            self.shown[arm] = self.plan.rows(arm)
        return self.shown[arm]

    def _followed(self, arm: str, model: nn.Module) -> tuple[Rows, Following | None]:
        """The rows of an arm; where its teacher is the mean of `model` itself, asked of that, which then has to follow it."""
        rows = self._rows(arm)
        if not isinstance(rows.source, Ema):
            return rows, None
        follower = rows.source.of(model.to(rows.device))
        return rows.answered_by(follower), follower

    def _distiller(self, arm: str, model: nn.Module, seed: int, rows: Rows) -> Distiller:
        """The module that trains, its projectors made."""
        return ready(model, self.plan.goal(arm), self.plan.task, rows, self._first_step(arm), seed)
