"""How often a guard breaks its promise, how much it answers, and what the naive threshold does instead.

    python benchmarks/guard.py                    # 1,000 draws of calibration rows in each setting: about four minutes
    python benchmarks/guard.py --draws 100
    python benchmarks/guard.py --floors           # the settings with a floor of energy alone
    python benchmarks/guard.py --cost             # what its nodes cost a row, on one thread

A world of 50,000 rows whose truth is known: the class y is drawn, a row is its corner of a simplex and Gaussian noise; the teacher sees it
through less noise than the student, who sees what the teacher sees and more noise on top. Both answer by Bayes' rule, so that the student
knows what it can know and no more, and is unsure where the teacher errs. The two noises are set so that teacher and student are right as
often as the setting says. In each draw validation and calibration rows are drawn from the world anew, the guard is fitted, and its rates
are those of the whole world: no second sampling error. ε = 0.05, δ = 0.1. A promise is broken where a rate that it bounds is above ε.

In the setting with groups nothing tells the student the group; in the last and smallest of them the teacher decides a quarter of the rows
of which the student is less than 90 % sure the other way, so that there the student is wrong more often than it knows. The worst cell
may be a group there, also of the promise over all rows together, which says nothing of groups.

In settings with a floor (`energy=`) the student's logits are the logarithms of what it holds of row and class together, so that its energy
is the log density of the row: what it is in theory (arXiv:2010.03759), and of a real student in hope only. Foreign rows are corners of
another simplex, mirrored at the origin, under the same noise. How many of them are answered is printed beside how many the same guard
without a floor answers, fitted on the same rows.

The naive threshold answers as much as it can with no more than ε of the calibration rows that it answers wrong, in each cell.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from attar.cost import machine
from attar.guards import Guard, Promise, Rows
from attar.sources.onnx import open_graph
from attar.statistics.guarantees import Sample, damage, path_of, walk
from attar.students import mlp
from attar.task import classification
from attar.testing.small import small_table
from attar.verbs.export.fuse import fused
from attar.verbs.export.graph import Limits, finished, from_torch, quiet
from attar.verbs.export.rows import Feed, parity_rows, take

WORLD = 50_000
ONE = "decision, one threshold"
ALL_GROUPS, GROUPS = "all, and each group", "decision, and each group"
HARD = 0.25  # of the rows of the last group of which the student is less than 90 % sure, the teacher decides so many the other way
EPSILON, DELTA = 0.05, 0.1
ROUNDS, CALLS = 60, 400  # of timing


@dataclass(frozen=True)
class Setting:
    """shares: of the classes. student, teacher: how often they are right. rows: of validation, and of calibration."""

    name: str
    shares: tuple[float, ...]
    student: float
    teacher: float
    rows: int
    per: tuple[str, ...] = ("all", "decision")
    groups: tuple[float, ...] = ()
    energy: float | None = None


SETTINGS = (
    Setting("10 classes", (0.1,) * 10, 0.89, 0.98, 1000),
    Setting("10 classes", (0.1,) * 10, 0.89, 0.98, 3000),
    Setting("2 classes", (0.5, 0.5), 0.89, 0.98, 1000, ("all", "decision", "answer")),
    Setting("2 classes, 1 in 10", (0.9, 0.1), 0.95, 0.99, 3000, ("all", "decision", "answer")),
    Setting("2 classes, 1 in 10", (0.9, 0.1), 0.95, 0.99, 10_000, ("all", "decision", ONE)),
    Setting("2 classes, 3 groups", (0.5, 0.5), 0.89, 0.98, 3000, ("all", ALL_GROUPS, GROUPS), (0.6, 0.3, 0.1)),
    Setting("10 classes", (0.1,) * 10, 0.89, 0.98, 1000, ("all",), energy=0.95),
    Setting("10 classes", (0.1,) * 10, 0.89, 0.98, 3000, ("all", "decision"), energy=0.95),
    Setting("2 classes", (0.5, 0.5), 0.89, 0.98, 1000, ("all", "decision", "answer"), energy=0.95),
    Setting("2 classes", (0.5, 0.5), 0.89, 0.98, 1000, ("all",), energy=0.5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--floors", action="store_true", help="the settings with a floor of energy alone")
    parser.add_argument("--cost", action="store_true", help="time the guard's nodes")
    options = parser.parse_args()
    if options.cost:
        return cost(options.seed)
    allowed = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / options.draws)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"ε = {EPSILON}, δ = {DELTA}, {options.draws:,} draws, seed {options.seed}: broken at most {allowed:.3f} of them (δ + 3 SE)\n")
    print(
        f"{'':20}{'rows':>7} {'per':<24}{'certified':>10}{'answered':>10}{'broken':>8}{'worst cell':>12}{'naive answers':>15}{'broken':>8}"
        "   floor: foreign answered (without)"
    )
    chosen = [setting for setting in SETTINGS if not options.floors or setting.energy is not None]
    for setting in chosen:
        world, foreign = drawn(setting, options.seed)
        for per in setting.per:
            print(tried(setting, world, foreign, per, options.draws, options.seed), flush=True)


def cost(seed: int) -> None:
    """The graph of one student with every kind of guard and with none, each asked one row for its probabilities, in turn."""
    data = small_table(seed=seed)
    net = mlp(width=64)(data.schema, seed)
    rows = parity_rows(data)
    with quiet():
        raw, _ = from_torch(net, rows, classification().bind(data.schema))
    apart, alike = np.array([0.9, 0.8], np.float32), np.full(2, 0.9, np.float32)
    kinds = {
        "none": None,
        "one threshold": Limits(alike),
        "a threshold by decision": Limits(apart),
        "one threshold, a decision rule": Limits(alike, 0.3),
        "a threshold by decision, a decision rule": Limits(apart, 0.3),
        "one threshold, a floor of energy": Limits(alike, None, 0.5),
        "a threshold by decision, a rule, a floor": Limits(apart, 0.3, 0.5),
    }
    task = classification().bind(data.schema)
    feeds = Feed.of(net).arrays(take(rows, slice(0, 1)))
    graph = fused(raw)
    calls = {}
    for name, limits in kinds.items():
        session = open_graph(finished(graph, 1.1, "float32", task, data.schema, limits), 1, name)
        calls[name] = partial(session.run, ["probabilities"], feeds)
    taken = {name: np.zeros((ROUNDS, CALLS)) for name in kinds}
    for at in range(ROUNDS):
        for name, call in calls.items():
            for i in range(CALLS):
                started = time.perf_counter_ns()
                call()
                taken[name][at, i] = (time.perf_counter_ns() - started) / 1000
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"one row, µs, {ROUNDS} rounds of {CALLS} calls in turn; median over rounds, with the middle half\n")
    print(f"{'guard':44}{'p50':>8}{'p95':>8}   p50 − none")
    base = np.median(taken["none"], axis=1)
    for name, t in taken.items():
        low, middle, high = np.quantile(np.median(t, axis=1) - base, (0.25, 0.5, 0.75))
        p95 = np.median(np.quantile(t, 0.95, axis=1))
        print(f"{name:44}{np.median(t):8.2f}{p95:8.2f}   {middle:.2f} [{low:.2f}, {high:.2f}]")


def drawn(setting: Setting, seed: int) -> tuple[Rows, Rows]:
    """The world of a setting, what the student says and what the teacher decides; and foreign rows, of which nobody knows what is right."""
    rng = np.random.default_rng(seed)
    shares = np.array(setting.shares)
    y = rng.choice(len(shares), size=WORLD, p=shares)
    corner, first, second = np.eye(len(shares))[y], rng.normal(size=(WORLD, len(shares))), rng.normal(size=(WORLD, len(shares)))

    def posterior(seen: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
        z = seen / variance + np.log(shares)
        q = np.exp(z - z.max(1, keepdims=True))
        return q / q.sum(1, keepdims=True)

    def right(answer: Callable[[float], NDArray[np.float64]]) -> Callable[[float], float]:
        return lambda noise: float((answer(noise).argmax(1) == y).mean())

    def theirs(noise: float) -> NDArray[np.float64]:
        return posterior(corner + noise * first, noise**2)

    fine = falling(right(theirs), setting.teacher)

    def ours(noise: float) -> NDArray[np.float64]:
        return posterior(corner + fine * first + noise * second, fine**2 + noise**2)

    coarse = falling(right(ours), setting.student)
    q, variance, decided = ours(coarse), fine**2 + coarse**2, theirs(fine).argmax(1)
    confidence = q.max(1).astype(np.float32)

    def energy(seen: NDArray[np.float64]) -> NDArray[np.float32]:
        square = (seen**2).sum(1, keepdims=True) - 2 * seen + 1  # distances from all corners, squared
        return np.asarray(logsumexp(np.log(shares) - square / (2 * variance), axis=1)).astype(np.float32)

    strange = -corner + fine * first + coarse * second
    r = posterior(strange, variance)
    foreign = Rows(r.max(1).astype(np.float32), r, r.argmax(1), np.full(WORLD, -1), energy=energy(strange))
    if not setting.groups:
        return Rows(confidence, q, q.argmax(1), decided, energy=energy(corner + fine * first + coarse * second)), foreign
    group = rng.choice(len(setting.groups), size=WORLD, p=setting.groups)
    hard = (group == len(setting.groups) - 1) & (confidence < 0.9) & (rng.random(WORLD) < HARD)
    return Rows(confidence, q, q.argmax(1), np.where(hard, 1 - decided, decided), group[:, None]), foreign


def falling(rate: Callable[[float], float], wanted: float) -> float:
    """Where a falling rate is as wanted, by bisection."""
    low, high = 0.01, 6.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle) > wanted else (low, middle)
    return (low + high) / 2


def tried(setting: Setting, world: Rows, foreign: Rows, per: str, draws: int, seed: int) -> str:
    """One line: how often the promise was certified and broken, jointly and in the worst cell, and the naive threshold beside it."""
    rng = np.random.default_rng(seed + 1)
    by = {ONE: "all", ALL_GROUPS: "all", GROUPS: "decision"}.get(per, per)
    asked = Guard(EPSILON, DELTA, "teacher", by, per in (ALL_GROUPS, GROUPS), setting.energy)  # pyright: ignore[reportArgumentType] one of the three
    bare = replace(asked, energy=None)
    names = tuple(map(str, range(len(setting.shares))))
    groups = [("group", str(g)) for g in range(len(setting.groups))] if asked.groups else []
    judged = ALL_GROUPS if per == "all" and setting.groups else per
    everything, first = sample(world, judged), 1 if by == "all" and per != ONE else len(names)
    cells = first + (len(setting.groups) if judged in (ALL_GROUPS, GROUPS) else 0)
    unknown = Sample(foreign.confidence, foreign.decision, foreign.decision < 0, foreign.right)
    certified, joint, broken, naive = 0, 0, np.zeros(cells), 0
    answered, naive_answered, strange = np.zeros(draws), np.zeros(draws), np.zeros((2, draws))
    for i in range(draws):
        valid, calibration = (some(world, rng.integers(0, WORLD, setting.rows)) for _ in range(2))
        promise = None if per == ONE else asked.fit(valid, calibration, names, groups=groups)
        limits = together(valid, calibration, cells) if promise is None else certain(promise)
        floor = None if promise is None else promise.floor
        if promise is not None and floor is not None:
            for k, one in enumerate((promise, bare.fit(valid, calibration, names, groups=groups))):
                strange[k, i] = above(unknown, foreign, one.floor).answered(one.limits).mean()
        if limits is not None:
            over, answered[i] = kept(above(everything, world, floor), limits, cells)
            certified += 1
            joint += bool(over.any())
            broken += over
        if (limits := careless(valid, calibration, per, 1 if per == "all" else cells)) is not None:
            over, naive_answered[i] = kept(everything, limits, cells)
            naive += bool(over.any())
    return (
        f"{setting.name:20}{setting.rows:>7,} {per:<24}{certified / draws:>10.3f}{answered.mean():>10.3f}{joint / draws:>8.3f}"
        f"{broken.max() / draws:>12.3f}{naive_answered.mean():>15.3f}{naive / draws:>8.3f}"
        + ("" if setting.energy is None else f"   {setting.energy:.2f}: {strange[0].mean():.3f} ({strange[1].mean():.3f})")
    )


def above(rows: Sample, said: Rows, floor: float | None) -> Sample:
    """The same rows, of which those below the floor may not be answered."""
    if floor is None:
        return rows
    assert said.energy is not None
    return replace(rows, may=said.energy >= np.float32(floor))


def kept(everything: Sample, limits: NDArray[np.float32], cells: int) -> tuple[NDArray[np.bool_], float]:
    """Which cells' rates are above ε in the whole world, and the share of it that is answered."""
    rows, errors = everything.counts(limits[None], cells)
    return errors[0] > EPSILON * rows[0], everything.answered(limits).mean()


def certain(promise: Promise) -> NDArray[np.float32] | None:
    return promise.limits if promise.certified else None


def together(valid: Rows, calibration: Rows, cells: int) -> NDArray[np.float32] | None:
    """As `Guard.fit` per decision, but with one threshold for all decisions of the student."""
    v, c = (sample(rows, ONE) for rows in (valid, calibration))
    steps = walk(path_of(v, np.ones(cells)), v, c, cells, epsilon=EPSILON, delta=DELTA)
    return None if steps.last is None else steps.path[steps.last]


def sample(rows: Rows, per: str) -> Sample:
    """The rows in the cells of which the promise is."""
    cell = {"all": np.zeros_like(rows.right), ALL_GROUPS: np.zeros_like(rows.right), "answer": rows.decision}.get(per, rows.right)
    if per in (ALL_GROUPS, GROUPS):
        assert rows.group is not None
        first = 1 if per == ALL_GROUPS else rows.probability.shape[1]
        cell = np.concatenate([cell[:, None], rows.group + first], axis=1)
    return Sample(rows.confidence, rows.decision, rows.decision != rows.right, cell)


def careless(valid: Rows, calibration: Rows, per: str, cells: int) -> NDArray[np.float32] | None:
    """The last threshold at which no cell of the calibration rows has more than ε wrong."""
    v, c = (sample(rows, per) for rows in (valid, calibration))
    outcomes = valid.probability.shape[1]
    weight = np.ones(outcomes)
    if per in ("decision", GROUPS):
        weight = damage(valid.decision, valid.probability, np.bincount(valid.right, minlength=outcomes) / len(v))
    path = path_of(v, weight)
    rows, errors = c.counts(path, cells)
    fine = np.flatnonzero((errors <= EPSILON * rows).all(1) & (rows > 0).all(1))
    return path[fine[-1]] if len(fine) else None


def some(world: Rows, index: NDArray[np.int64]) -> Rows:
    group = None if world.group is None else world.group[index]
    energy = None if world.energy is None else world.energy[index]
    return Rows(world.confidence[index], world.probability[index], world.decision[index], world.right[index], group, energy)


if __name__ == "__main__":
    main()
