"""Students trained together beside the same students one after another: `python benchmarks/cohort.py`.

The table: a step of S students as one tensor program, at one thread, over width × batch × S of an MLP on 23 numbers, and a CNN; both ways
paired, in turn, in one process. S = 25 are five arms of five seeds, as of a student and four controls, S = 5 one arm of five seeds. What
attar chooses is chosen on one measurement as `distill` makes it, and its ratio is taken from the others.
Then whole calls of `distill` on credit-card customers: student and four controls × 5 seeds beside one student, on all cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

import attar
from attar.cohort import Lesson, Measured, Member, measure, refusal
from attar.data import Data, arrays
from attar.data.munge import munge
from attar.loop import Fit, fit
from attar.objective import Distiller, blend, kl, labels
from attar.signal import Student
from attar.sources import module
from attar.students import cnn, mlp
from attar.task import classification, task_for
from attar.testing.small import fitted
from attar.verbs.distill.rows import Rows
from attar.verbs.distill.together import GAIN, lesson_of


def tables() -> Data:
    """18,000 training rows of 23 numbers; two classes."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30_000, 23)).astype(np.float32)
    return arrays(rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) > 1).astype(np.int64)).read()


def digits() -> Data:
    """3,000 training images of 28 × 28 pixels; ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(5_000) % 10
    return arrays((rng.random((10, 28, 28))[labels] * 200 + rng.random((5_000, 28, 28)) * 55).astype(np.uint8), labels).read()


def cohort(data: Data, builder: Student, arms: int, seeds: int) -> tuple[list[Member], Lesson]:
    """Students of so many arms and seeds; each arm is answered by another stored teacher."""
    task, every = task_for(data.schema).bind(data.schema), torch.arange(len(data.train))
    rows = []
    for arm in range(arms):
        teacher = attar.annotate(module(builder(data.schema, 100 + arm).eval()), data)
        rows.append(Rows(data, teacher, frozenset(), every, torch.device("cpu")))
    goal = blend(kl(), labels())
    members = []
    for arm in range(arms):
        for seed in range(seeds):
            distiller = Distiller(builder(data.schema, seed), blend(kl(), labels()), task)
            members.append(Member(distiller.build(*rows[arm](every[:64], 1)), seed, arm))
    return members, lesson_of(rows, goal, len(data.train))


def row(name: str, data: Data, builder: Student, batch: int, shape: tuple[int, int], rounds: int, steps: int) -> str:
    """One line of the table."""
    members, lesson = cohort(data, builder, *shape)
    how = fit(batch=batch)
    reason = refusal([*members[:2], *members[-2:]], lesson, how)
    if reason is not None:
        return f"| {name} | {batch} | {len(members)} | refused: {reason} |"
    found = [measure(members, lesson, how, traced=True), *(measure(members, lesson, how, traced=True, steps=steps) for _ in range(rounds))]
    chosen, *rest = [ratio(each, len(members)) for each in found]
    together = chosen >= 1 / GAIN
    low, middle, high = statistics.quantiles(rest, n=4, method="inclusive")
    alone = statistics.median(each.alone for each in found) * 1e3
    way = f"together, {middle:.2f}" if together else "one by one, 1"
    return f"| {name} | {batch} | {len(members)} | {alone:.3f} | {middle:.2f} ({low:.2f}–{high:.2f}) | {way} |"


def ratio(found: Measured, students: int) -> float:
    return found.alone * students / found.together


def credit(epochs: int, rounds: int) -> None:
    """One student beside 25, whole calls of `distill`, the way left to the measurement."""
    data = attar.data.table("recipes/data/credit.csv.gz", label="default", augment=munge()).read()
    task = classification(metric="auroc", recall_at_fpr=0.05)
    teacher = attar.annotate(module(fitted(mlp()(data.schema, 9), data, steps=50).eval()), data)
    ratios = []
    for _ in range(rounds):
        one, _ = timed(data, task, teacher, fit(epochs=epochs, seeds=1, threads=1, patience=epochs), ())
        five, way = timed(data, task, teacher, fit(epochs=epochs, threads=1, patience=epochs), ("labels", "smooth", "hard", "shuffled"))
        ratios.append(five / one)
        print(f"credit, {epochs} epochs: one student {one:.1f} s, 25 students {five:.1f} s, {five / one:.2f} ×; {way}", flush=True)
    print(
        f"credit: 25 students take {statistics.median(ratios):.2f} × the time of one ({min(ratios):.2f}–{max(ratios):.2f}, {rounds} rounds)"
    )


def timed(data: Data, task: attar.Task, teacher: attar.Source, how: Fit, controls: Sequence[str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = attar.distill(teacher, mlp(), data, task=task, fit=how, controls=controls)
    return time.perf_counter() - start, done.way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="paired measurements of each cell")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--parts", default="table,credit")
    parser.add_argument("--steps", type=int, default=8, help="timed at a time; a training makes thousands in a row")
    parser.add_argument("--cell", help="one cell of the table alone: width,batch,students, such as 64,128,25")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "table" in options.parts:
        print("| student | batch | S | ms a step, one | one after another ÷ together | attar's choice |\n|---|---|---|---|---|---|")
        data = tables()
        cells = [(width, batch, shape) for width in (16, 64, 256) for batch in (32, 128, 512) for shape in ((1, 5), (5, 5))]
        for width, batch, shape in cells:
            if options.cell in (None, f"{width},{batch},{shape[0] * shape[1]}"):
                print(row(f"mlp {width} × 3", data, mlp(width=width), batch, shape, options.rounds, options.steps), flush=True)
        if options.cell is None:
            print(row("cnn 16 × 3", digits(), cnn(), 64, (5, 5), max(2, options.rounds // 3), options.steps), flush=True)
    if "credit" in options.parts:
        credit(options.epochs, max(1, options.rounds // 3))


if __name__ == "__main__":
    main()
