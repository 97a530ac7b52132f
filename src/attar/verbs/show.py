"""The dry run: build everything, push a batch through, say shapes, objective, conventions, cost and size, and stop."""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn

from attar.cost import Budget, Cost, measure
from attar.data import Corruptions, Data
from attar.guards import Guard
from attar.loop import Fit
from attar.objective import Objective, as_objective
from attar.objective.conventions import check
from attar.progress import Event, Listener, silent
from attar.signal import Batch, Signal, Source
from attar.sources import Ema, Taught, module
from attar.sources.answers import take
from attar.sources.module import evaluating
from attar.statistics.guarantees import rows_needed
from attar.store import estimate
from attar.tap import Tapped, listing, observe
from attar.task import Task
from attar.verbs.export import export
from attar.verbs.run import Job, read, read_foreign, read_shift, settled_job
from attar.verbs.teach import teach

__all__ = ["show"]

ROWS = 512  # of the training split, shown to teacher and student: enough for the class order to be told from chance
FEW = 3  # of them, shown for the shapes of taps, all of which are held at once
STAND_IN = ("teacher frozen", "store aligned", "class order")  # checks that say nothing of a teacher that is not there yet


def show(job: Job, *, out: Path | None = None, listen: Listener = silent) -> list[tuple[str, list[str]]]:
    """(title, lines) of what a run of `job` would be made of; nothing is trained, and nothing stays on disk.

    out: the run folder: a teacher that was taught there is asked, one that was not is stood in for by a student of another seed.
    Raises what the run would raise, as far as it can be seen on one batch.
    """
    data, task = read(job)
    elsewhere, strange = read_shift(job, data), read_foreign(job, data)
    job = settled_job(job, data, task)
    assert job.objective is not None  # it is settled
    goal = as_objective(job.objective)
    batch = data.train.batch(torch.arange(min(ROWS, len(data.train))))
    with job.about("student"):
        student = _build(job, data, seed=0)
    teacher, taught = _teacher(job, data, task, out)
    with job.about("teacher"):
        answered = teacher(batch).output if taught else None
    parts = [("data", _data(data, batch)), ("task", _task(task, data)), ("teacher", _said(job, answered))]
    listen(Event("show", text="pushing one batch through"))
    if isinstance(student, nn.Module):
        with torch.no_grad():
            output = task.canonical(student(batch.inputs))
        parts.append(("student", _student(student, output, job)))
        parts.append(("taps", _taps(student, teacher if taught else None, batch)))
        with job.about("objective"):
            found = check(goal, student, teacher if taught else _stand_in(job, data), batch, task)
        lines = [line for line, one in zip(found.lines(), found.checks, strict=True) if taught or one.name not in STAND_IN]
        if not taught:
            why = "follows the student" if isinstance(teacher, Ema) else "is not taught yet: its own checks wait for it"
            lines.append(f"– the teacher {why}, a student of another seed stood in")
        parts += [("objective", _objective(goal)), ("conventions", lines)]
        listen(Event("show", text="exporting it untrained, to measure its cost"))
        parts.append(("cost", _cost(job, student, data, task)))
    else:
        parts += [("student", [repr(job.student)]), ("objective", _objective(goal))]
    if elsewhere:
        parts.append(("shift", [_elsewhere(name, other, data) for name, other in elsewhere.items()]))
    if strange:
        parts.append(("foreign", [*strange]))
    parts.append(("guard", _guard(job, data)))
    parts.append(("store", _store(data, task, answered)))
    parts.append(("fit", [repr(job.fit or Fit()), f"controls: {', '.join(job.controls or ()) or 'none'}"]))
    return parts


def _elsewhere(name: str, other: Data | Corruptions, data: Data) -> str:
    if isinstance(other, Data):
        return f"{name} {sum(map(len, other.splits.values())):,} rows"
    ready = other.of(data)
    left_out = f"; without {', '.join(ready.left_out)}" if ready.left_out else ""
    times = len(ready.changes) * len(other.severities)
    return f"{name} {', '.join(ready.changes)}: {len(ready.some(data.test)):,} test rows, each {times} times{left_out}"


def _teacher(job: Job, data: Data, task: Task, out: Path | None) -> tuple[Source, bool]:
    """The teacher, and whether it can be asked already."""
    if not isinstance(job.teacher, Taught):
        return job.teacher, not isinstance(job.teacher, Ema)
    at = Path(job.teacher.at) if out is None else out / job.teacher.at
    if not at.exists():
        return job.teacher, False
    with job.about("teacher"):
        return teach(job.teacher, data, task, at=at), True


def _build(job: Job, data: Data, seed: int) -> nn.Module:
    return copy.deepcopy(job.student) if isinstance(job.student, nn.Module) else job.student(data.schema, seed)


def _stand_in(job: Job, data: Data) -> Source:
    return module(_build(job, data, seed=1))


def _data(data: Data, batch: Batch) -> list[str]:
    inputs = batch.inputs
    blocks = {"inputs": inputs} if isinstance(inputs, torch.Tensor) else inputs
    schema = data.schema
    lines = ["  ".join(f"{name} {len(split):,}" for name, split in data.splits.items()) + " rows"]
    lines += [f"{name} {_shape(block) if isinstance(block, torch.Tensor) else f'{len(block):,} texts'}" for name, block in blocks.items()]
    labelled = {name: split.labelled for name, split in data.splits.items()}
    if labelled != {name: len(split) for name, split in data.splits.items()}:
        lines.append("with a label: " + ("  ".join(f"{name} {n:,}" for name, n in labelled.items()) if any(labelled.values()) else "none"))
    if groups := data.test.groups:
        parts = (f"{name} {', '.join(group.parts())}" for name, group in groups.items())
        lines.append("groups of test rows: " + "; ".join(parts))
    if schema.embeds:
        lines.append(f"asked is a vector for each of {len(schema.texts)} texts")
    elif schema.classes:
        lines.append(f"{schema.label}: {', '.join(schema.classes[:12])}{' …' if len(schema.classes) > 12 else ''}")
    else:
        lines.append(f"{schema.label}: a number, mean {schema.label_mean:.4g}, standard deviation {schema.label_std:.4g}")
    if data.augmentation:
        lines.append(f"{data.views} views of each training row: {data.augmentation}")
    return [*lines, *data.notes]


def _task(task: Task, data: Data) -> list[str]:
    return [repr(task), f"{task.texts} vectors a row" if task.kind == "embedding" else f"{task.outcomes} outcomes"]


def _said(job: Job, answered: torch.Tensor | None) -> list[str]:
    if answered is None:
        return [repr(job.teacher), "made of the student as it trains" if isinstance(job.teacher, Ema) else "not taught yet"]
    return [repr(job.teacher), f"answers {_shape(answered)}"]


def _student(student: nn.Module, output: torch.Tensor, job: Job) -> list[str]:
    count = sum(p.numel() for p in student.parameters())
    return [repr(job.student), f"{count:,} parameters, answers {_shape(output)}"]


def _taps(student: nn.Module, teacher: Source | None, batch: Batch) -> list[str]:
    """The names that mean the same everywhere, as far as each of the two has them."""
    few = take(batch, torch.arange(min(FEW, len(batch))))

    def ask(taps: frozenset[str]) -> Signal:
        with torch.no_grad(), evaluating(student):
            return observe(student, few, taps)

    told = {"student": listing(student, ask, len(few))}
    if isinstance(teacher, Tapped):
        told["teacher"] = listing(teacher.net, partial(teacher, few), len(few))
    return [f"{side if i == 0 else '':<7}  {line}" for side, lines in told.items() for i, line in enumerate(lines)]


def _objective(goal: Objective) -> list[str]:
    lines = [repr(goal)]
    taps = sorted(goal.teacher_taps | goal.student_taps)
    return [*lines, "taps: " + ", ".join(taps)] if taps else lines


def _cost(job: Job, student: nn.Module, data: Data, task: Task) -> list[str]:
    """Cost depends on the shape of a student, not on its weights: an untrained one tells before anything is trained."""
    rows, terms = data.valid, job.budget or Budget()
    one, many = (rows.batch(torch.arange(n) % len(rows)) for n in (terms.batch, terms.many))
    with tempfile.TemporaryDirectory() as folder, job.about("student"):
        made = export(student, data, task, at=Path(folder) / "student", deploy=job.deploy)
        size = (made.folder / made.certified).stat().st_size
        count = sum(p.numel() for p in student.parameters())
        source = made.source.on(terms.threads)
        how = {"batch": terms.batch, "threads": terms.threads}
        cost = measure(source, one, many, size_bytes=size, parameters=count, seconds=1, **how)
    return [*_costs(cost), *_budget(job, cost)]


def _costs(cost: Cost) -> list[str]:
    p95 = cost.latency_ms.p95.value
    rows, threads = ("one" if n == 1 else f"{n:,}" for n in (cost.batch, cost.threads))
    asked = f"{rows} row{'s' * (cost.batch > 1)} on {threads} thread{'s' * (cost.threads > 1)}"
    return [f"{asked} {p95:.3f} ms (p95), {cost.rows_per_second.value:,.0f} rows a second, {(cost.size_bytes or 0) / 1e6:.3f} MB"]


def _budget(job: Job, cost: Cost) -> list[str]:
    if job.budget is None:
        return ["no budget is set"]
    return [
        f"{'✓' if limit.ok else '✗'} {limit.name} {'not measured' if limit.value is None else f'{limit.value:.4g}'}, budget {limit.limit:g}"
        for limit in job.budget.check(cost)
    ]


def _guard(job: Job, data: Data) -> list[str]:
    if not isinstance(job.guard, Guard):
        return [f"{job.guard!r}: the student answers every row"]
    of = {"decision": " of each decision", "answer": " of each answer", "all": ""}[job.guard.per]
    share = job.guard.delta / len(data.schema.classes) if job.guard.per == "answer" else job.guard.delta
    fewest = rows_needed(job.guard.epsilon, share) or 1
    of += " and of each group" if job.guard.groups else ""
    lines = [
        repr(job.guard),
        f"needs at least {fewest:,} calibration rows{of}, and more where any is wrong; there are {len(data.calibration):,}",
    ]
    if job.guard.energy is not None:
        lines.append(f"answers no row of less energy than {100 * job.guard.energy:.12g} % of {len(data.valid):,} validation rows reach")
    for column, group in data.calibration.groups.items() if job.guard.groups else ():
        there = [(name, int((group.codes == code).sum())) for code, name in enumerate(group.names)]
        if few := [f"{name!r} {rows:,}" for name, rows in there if rows < fewest]:
            lines.append(f"too few by {column!r}: {', '.join(few)}; put groups together, or bring more calibration rows")
    return lines


def _store(data: Data, task: Task, answered: torch.Tensor | None) -> list[str]:
    rows = sum(len(split) * (data.views + 1 if name == "train" else 1) for name, split in data.splits.items())
    shape = (len(data.schema.classes), 2) if task.kind == "multilabel" else (task.outcomes,)
    if task.kind == "embedding" and answered is not None:
        shape = tuple(task.canonical(answered).shape[1:])
    return [str(estimate(rows, shape, "float32" if task.kind == "regression" else "float16"))]


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
