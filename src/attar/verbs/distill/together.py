"""Which students train together: what a cohort of arms is shown, what it cannot be, and which way is the fastest here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor, nn

from attar.cohort import Lesson, Member, Tree, bytes_for, measure, refusal
from attar.loop import Fit, half
from attar.objective import Distiller, Objective
from attar.signal import Batch, Signal
from attar.task import Task
from attar.verbs.distill.processes import can_fork, cores, shared
from attar.verbs.distill.rows import Rows

__all__ = ["ONE", "ROOM", "SHORT", "Group", "Way", "lesson_of", "obstacle", "quickest", "ready", "shares_of", "split", "why_not"]

ROOM = 1 << 30
"""Bytes that a cohort may take: weights, gradients, moments, best epochs, and what a step saves, of all its students. More are several."""
SHORT = 3.0  # seconds: a training that is done in so many is not worth the measuring
TRACED = 20.0  # seconds from which on the second that tracing takes is soon regained
TRIED = 4  # students on whom it is tried whether they can train together
GAIN = 0.95  # another way is taken where it needs no more than this share of the time


@dataclass(frozen=True)
class Group:
    """Students that share architecture, rows and objective, and what they are shown. members: arms outside, seeds inside."""

    members: tuple[Member, ...]
    lesson: Lesson


@dataclass(frozen=True)
class Way:
    """How students train. together: as cohorts. processes: how many. traced: see `attar.cohort.train`. words: what is said of it."""

    together: bool
    processes: int
    traced: bool
    words: str


ONE = Way(False, 1, False, "")
"""One after another, with nothing to say about it."""
ALONE = "one after another"


def lesson_of(arms: Sequence[Rows], objective: Objective, rows: int) -> Lesson:
    """What the students of these arms, which look at the same rows, are shown. rows: of the training split."""
    first = arms[0]
    complete = first.split.complete

    def common(index: Tensor, epoch: int) -> Tree:
        batch = first.batch(index, epoch)
        inputs = batch.inputs if isinstance(batch.inputs, Tensor) else dict(batch.inputs)
        named = {"inputs": inputs, "labels": batch.labels, "weight": batch.weight, "mask": batch.mask}
        return {name: value for name, value in named.items() if value is not None}

    def own(arm: int, index: Tensor, epoch: int) -> Tree:
        signal = arms[arm].signal(index, epoch)
        if signal is None:
            return {}
        parts = {"output": signal.output, "taps": dict(signal.taps), "masks": dict(signal.masks)}
        return {name: value for name, value in parts.items() if isinstance(value, Tensor) or value}

    def loss(module: nn.Module, common: Tree, own: Tree, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = Batch(**common, schema=first.split.schema, complete=complete)
        return module(batch, Signal(**own) if own else None, progress)

    moving = any(len(set(weight.extremes)) > 1 for weight in objective.weights)
    stored = all(arm.source is None or arm.places is not None for arm in arms)
    return Lesson(rows, loss, common, own, moving, max(1, first.views) if stored else 0)


def ready(model: nn.Module, objective: Objective, task: Task, rows: Rows, first: Tensor, seed: int) -> Distiller:
    """The module that trains, where its rows are, its projectors made. first: (B,) positions of a step's rows. seed: of the projectors."""
    distiller = Distiller(model, objective, task).to(rows.device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return distiller.build(*rows(first, 1)).to(rows.device)


def obstacle(rows: Rows, objective: Objective, fit: Fit) -> str | None:
    """Why students of this arm cannot train together, as far as that is seen without trying."""
    if rows.device.type != "cpu" or half(fit, rows.device):
        return "they train on an accelerator, or in bfloat16"
    if objective.balanced:
        return "balance() measures each student by itself"
    if not rows.tensors:
        return "texts are no tensors until a student reads them"
    return None


def split(group: Group, fit: Fit, parts: int) -> list[Group]:
    """Nearly equal groups, at least `parts` of them and none above `ROOM`; all arms of a seed stay together where they can."""
    members = group.members
    most = max(1, ROOM // max(1, bytes_for(members[0], group.lesson, fit)))
    seeds = sorted({member.seed for member in members})
    count = min(len(members), max(parts, -(-len(members) // most)))
    if count <= len(seeds):
        bounds = [len(seeds) * k // count for k in range(count + 1)]
        found = [[m for m in members if m.seed in seeds[a:b]] for a, b in pairwise(bounds)]
        if max(map(len, found)) <= most:
            return [Group(tuple(part), group.lesson) for part in found]
    ordered = sorted(members, key=lambda member: (member.seed, member.arm))
    bounds = [len(members) * k // count for k in range(count + 1)]
    return [Group(tuple(ordered[a:b]), group.lesson) for a, b in pairwise(bounds)]


def quickest(groups: Sequence[Group], lead: Group, students: int, fit: Fit, threads: int, *, forks: bool, reasons: Sequence[str]) -> Way:
    """The way that a few steps of each show to be the fastest, measured in turn; or the one that `fit` asks for.

    groups: those that may train together; reasons: in words, why others may not. lead: a group, whose first student stands for one that
    trains by itself. students: all of them. forks: whether nobody who is asked has threads of his own.
    """
    several = min(cores(), students) if forks and threads == 1 and can_fork() else 1
    lone = students - sum(len(group.members) for group in groups)
    but = f" ({lone} of them by themselves: {'; '.join(reasons)})" if reasons else ""
    if fit.way == "processes":
        return Way(False, several, False, f"{ALONE} in {several} processes" if several > 1 else ALONE)
    if fit.way == "cohort":
        return Way(True, 1, False, f"as one tensor program{but}") if groups else replace(ONE, words=f"{ALONE}{but}")
    if not groups and several == 1:
        return replace(ONE, words=f"{ALONE}{but}")
    return _compared(groups, lead, students, fit, several, but)


def _compared(groups: Sequence[Group], lead: Group, students: int, fit: Fit, several: int, but: str) -> Way:
    steps = fit.epochs * -(-lead.lesson.rows // fit.rows_a_step(lead.lesson.rows))
    lone = students - sum(len(group.members) for group in groups)

    def timed(parts: Sequence[Group], traced: bool) -> tuple[float, float]:
        """Seconds of a step of one student, and of these groups together."""
        measured = [measure(part.members, part.lesson, fit, traced=traced) for part in parts]
        alone = [m.alone for m in measured] or [measure(lead.members[:1], lead.lesson, fit, together=False).alone]
        return mean(alone), sum(m.together for m in measured)

    whole = [part for group in groups for part in split(group, fit, 1)]
    alone, together = timed(whole, False)
    traced = together * steps > TRACED and not any(group.lesson.moving for group in groups)
    if traced:
        alone, together = timed(whole, True)
    found = {ONE: alone * students}
    if groups:
        found[Way(True, 1, traced, "as one tensor program")] = together + lone * alone
    if several > 1:
        shares = shares_of(groups, fit, several) if groups else [[] for _ in range(several)]
        times = shared([lambda listen, share=share: timed(share, traced) for share in shares], lambda event: None)
        alone = max(one for one, _ in times) / several
        found[Way(False, several, False, f"{ALONE} in {several} processes")] = alone * students
        if groups:
            words = f"as one tensor program in each of {several} processes"
            found[Way(True, several, traced, words)] = max(all_of for _, all_of in times) + lone * alone
    best = min(found, key=lambda way: found[way])
    if found[best] > GAIN * found[ONE]:
        best = ONE
    others = sorted(seconds * 1e3 for way, seconds in found.items() if way != best)
    ends = " to ".join(dict.fromkeys(f"{ms:.3g}" for ms in (others[0], others[-1])))
    return replace(best, words=f"{best.words or ALONE}{but}: {found[best] * 1e3:.3g} ms for a step of all, otherwise {ends} ms")


def shares_of(groups: Sequence[Group], fit: Fit, processes: int) -> list[list[Group]]:
    """The groups cut, and dealt so that each process has nearly as many students."""
    shares: list[list[Group]] = [[] for _ in range(processes)]
    parts = [part for group in groups for part in split(group, fit, processes)]
    for part in sorted(parts, key=lambda part: -len(part.members)):
        min(shares, key=lambda share: sum(len(other.members) for other in share)).append(part)
    return [share for share in shares if share]


def why_not(group: Group, fit: Fit) -> str | None:
    """Tried on a few of them; arms and seeds both differ among these where they do at all."""
    members = group.members
    few = {id(m): m for m in (*members[:2], *members[-2:])}
    return refusal(list(few.values())[:TRIED], group.lesson, fit)
