"""How long the intervals of a certificate take, and how often they hold the truth: `python benchmarks/intervals.py`.

Everything is simulated with a known truth; three minutes on one core. Printed as Markdown: the time of a bootstrap of 100,000 rows; the
coverage of every interval at 95 %, with its standard error; prediction-powered inference beside labels alone, and where it stops
paying; conformal sets, over calibration splits. `--share 0.1` draws a tenth of the samples.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from attar.cost import machine
from attar.statistics import (
    auroc_difference,
    bootstrap,
    conformal_sets,
    conformal_spread,
    conformal_thresholds,
    metrics,
    newcombe,
    paired_proportions,
    prediction_powered,
    wilson,
)

Array = NDArray[np.float64]
Interval = tuple[float, float]

BETTER, WORSE, BASE, CUT = 1.2, 1.0, 0.3, 0.6  # how far positives lie above negatives, the share of positives, the threshold of a decision
COMMON = 0.8  # of the noise of a score, the part that both models share: their correlation is its square
STUDENT, LABELS, UNLABELLED, CLASSES, ALPHA = 0.89, 200, 5000, 10, 0.1


def scored(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.bool_], Array, Array]:
    """Positive or not, and the scores of two models: normal, of variance 1."""
    y = rng.random(rows) < BASE
    common, own = rng.normal(size=rows), rng.normal(size=(2, rows))
    noise = COMMON * common + math.sqrt(1 - COMMON**2) * own
    return y, noise[0] + BETTER * y, noise[1] + WORSE * y


def true(shift: float) -> dict[str, float]:
    """Accuracy, AUROC and average precision of endless rows. The last is an integral over the scores of positive rows."""
    grid = np.linspace(-9, 9, 200_001) + shift
    found, alarms = special.ndtr(shift - grid), special.ndtr(-grid)
    precision = BASE * found / (BASE * found + (1 - BASE) * alarms)
    density = np.exp(-((grid - shift) ** 2) / 2) / math.sqrt(2 * math.pi)
    return {
        "accuracy": float(BASE * special.ndtr(shift - CUT) + (1 - BASE) * special.ndtr(CUT)),
        "AUROC": float(special.ndtr(shift / math.sqrt(2))),
        "average precision": float(np.trapezoid(precision * density, grid)),
    }


def figures(y: NDArray[np.bool_], score: Array) -> dict[str, Callable[[Array], Array]]:
    ranking = metrics.Ranking.of(score, y)
    decided = partial(metrics.accuracy, score > CUT, y)
    return {"accuracy": decided, "AUROC": ranking.auroc, "average precision": ranking.average_precision}


def sorting(y: NDArray[np.bool_], score: Array) -> dict[str, Callable[[Array], Array]]:
    """The same, rows sorted anew for every block of resamples."""
    return {
        "accuracy": partial(metrics.accuracy, score > CUT, y),
        "AUROC": partial(metrics.auroc, score, y),
        "average precision": partial(metrics.average_precision, score, y),
    }


def both(make: Callable[..., dict[str, Callable[[Array], Array]]], y: NDArray[np.bool_], *scores: Array) -> dict[tuple[int, str], Callable]:
    return {(i, name): statistic for i, score in enumerate(scores) for name, statistic in make(y, score).items()}


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def timing(rows: int = 100_000, resamples: int = 2000) -> None:
    y, a, b = scored(np.random.default_rng(0), rows)
    print(f"\n| {rows:,} rows, two models, one core | s |\n|---|---|")
    once = seconds(lambda: bootstrap(both(figures, y, a, b), rows, resamples=resamples))
    print(f"| {resamples:,} paired resamples of accuracy, AUROC and average precision | {once:.1f} |")
    few = resamples // 40
    anew = seconds(lambda: bootstrap(both(sorting, y, a, b), rows, resamples=few))
    less = seconds(lambda: bootstrap(both(figures, y, a, b), rows, resamples=few))
    print(f"| {few:,} of them, rows sorted once | {less:.2f} |\n| {few:,} of them, rows sorted for each block | {anew:.2f} |")
    print(f"| DeLong's interval of the difference of AUROC | {seconds(lambda: auroc_difference(a, b, y)):.3f} |")
    print(f"| Tango's interval of the difference of accuracy | {seconds(lambda: paired_proportions(900, 1100, rows)):.5f} |")
    print(f"| Newcombe's | {seconds(lambda: newcombe(70_000, 900, 1100, 28_000)):.5f} |")


def covered(intervals: Iterable[Interval], truth: float) -> tuple[float, float]:
    """Share of intervals that hold the truth, and their mean width."""
    ends = np.array(list(intervals))
    return float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))), float(np.mean(ends[:, 1] - ends[:, 0]))


def line(name: str, where: str, trials: int, intervals: Iterable[Interval], truth: float) -> None:
    share, width = covered(intervals, truth)
    print(f"| {name} | {where} | {trials:,} | {share:.3f} ± {math.sqrt(share * (1 - share) / trials):.3f} | {width:.4f} |", flush=True)


def coverage(scale: float) -> None:
    print("\n| interval of a difference, 95 % | rows | samples | holds the truth | width |\n|---|---|---|---|---|")
    truth = {name: true(BETTER)[name] - true(WORSE)[name] for name in true(BETTER)}
    for rows, trials in ((500, round(1500 * scale)), (2000, round(600 * scale))):
        rng = np.random.default_rng(rows)
        ends: dict[str, list[Interval]] = {name: [] for name in truth}
        for trial in range(trials):
            y, a, b = scored(rng, rows)
            draws = bootstrap(both(figures, y, a, b), rows, seed=trial)
            for name, found in ends.items():
                found.append((draws[0, name] - draws[1, name]).interval())
        for name, found in ends.items():
            line(f"BCa, {name}", f"{rows:,}", trials, found, truth[name])
    rng = np.random.default_rng(1)
    for rows in (60, 500):
        trials = round(5000 * scale)
        delongs = [auroc_difference(a, b, y) for y, a, b in (scored(rng, rows) for _ in range(trials))]
        line("DeLong, AUROC", f"{rows:,}", trials, [(d.low, d.high) for d in delongs if not math.isnan(d.low)], truth["AUROC"])
    tango, method_10 = cache(paired_proportions), cache(newcombe)
    for cells in ((0.84, 0.06, 0.02, 0.08), (0.88, 0.01, 0.01, 0.10)):
        for rows in (50, 200, 1000):
            trials = round(4000 * scale)
            counts = rng.multinomial(rows, cells, size=trials).tolist()
            where = f"{rows:,}, {cells[1]:.0%} and {cells[2]:.0%} discordant"
            line("Tango, accuracy", where, trials, [tango(a, b, rows) for _, a, b, _ in counts], cells[1] - cells[2])
            line("Newcombe, accuracy", where, trials, [method_10(*four) for four in counts], cells[1] - cells[2])


def answered(rng: np.random.Generator, rows: int, teacher: float, copied: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the student is right, and whether it decides as the teacher.

    Where the teacher errs, the student makes the same error with probability `copied`, is right with 0.3, and errs otherwise else.
    """
    teacher_right, u = rng.random(rows) < teacher, rng.random(rows)
    elsewhere = min(0.3, 1 - copied)
    right = np.where(teacher_right, u < (STUDENT - (1 - teacher) * elsewhere) / teacher, u < elsewhere)
    return right, np.where(teacher_right, right, u > 1 - copied)


def powered(scale: float) -> None:
    print(f"\nStudent {STUDENT:.0%}, {LABELS} labels, {UNLABELLED:,} rows without, 95 %:\n")
    print(
        "| teacher | its errors copied | refused | holds the truth | width | labels alone: holds | width | × narrower |\n"
        + "|---" * 8
        + "|"
    )
    rng = np.random.default_rng(2)
    alone = cache(wilson)
    settings = [(0.98, 0.2), (0.98, 0.4), (0.98, 0.7)]
    settings += [(teacher, 0.4) for teacher in (0.995, 0.99, 0.95, 0.92, 0.90, 0.89, 0.87, 0.85)]
    for teacher, copied in settings:
        trials, ends, plain, refused = round(4000 * scale), [], [], 0
        for _ in range(trials):
            right, agrees = answered(rng, LABELS, teacher, copied)
            found = prediction_powered(right, agrees, answered(rng, UNLABELLED, teacher, copied)[1])
            refused += found.refused
            if not found.refused:
                ends.append((found.low, found.high))
            plain.append(alone(int(right.sum()), LABELS))
        (share, width), (held, wide) = covered(ends, STUDENT), covered(plain, STUDENT)
        error = math.sqrt(share * (1 - share) / len(ends))
        told = f"{share:.3f} ± {error:.3f} | {width:.4f} | {held:.3f} | {wide:.4f} | {wide / width:.2f}"
        print(f"| {teacher:.1%} | {copied:.0%} | {refused / trials:.1%} | {told} |", flush=True)


def classified(rng: np.random.Generator, rows: int, noise: float = 0.0) -> tuple[Array, Array, NDArray[np.int64]]:
    """Logits of a teacher and of a student that blurs them, and labels of classes of which some are rare."""
    z = rng.normal(size=(rows, CLASSES)) * 2.5 + np.linspace(-1, 1, CLASSES)
    p = np.exp(z - z.max(-1, keepdims=True))
    labels = ((p / p.sum(-1, keepdims=True)).cumsum(-1) < rng.random((rows, 1))).sum(-1)
    return z, z + noise * rng.normal(size=z.shape), labels.clip(0, CLASSES - 1)


def conformal(scale: float) -> None:
    print(f"\nConformal sets, {CLASSES} classes, {1 - ALPHA:.0%} asked, 1,000 new rows for each calibration split:\n")
    print(
        "| calibration rows | one threshold for | splits | mean share held | least class | middle 95 % of splits | expected |\n"
        + "|---" * 7
        + "|"
    )
    rng = np.random.default_rng(3)
    for rows, by_class in ((30, False), (200, False), (1000, False), (1000, True), (5000, True)):
        shares, by = [], []
        trials = round(1000 * scale)
        for _ in range(trials):
            z, _, y = classified(rng, rows)
            while by_class and np.bincount(y, minlength=CLASSES).min() < 9:  # such a split is refused
                z, _, y = classified(rng, rows)
            new, _, label = classified(rng, 1000)
            thresholds = conformal_thresholds(metrics.log_softmax(z), y, ALPHA, by_class=by_class)
            held = conformal_sets(metrics.log_softmax(new), thresholds)[np.arange(1000), label]
            shares.append(held.mean())
            by.append(np.bincount(label, held, minlength=CLASSES) / np.maximum(np.bincount(label, minlength=CLASSES), 1))
        low, high = np.quantile(shares, [0.025, 0.975])
        expected = "" if by_class else "{:.3f}–{:.3f}".format(*conformal_spread(rows, ALPHA))
        least = np.mean(by, axis=0).min()
        which = "each class" if by_class else "all"
        print(f"| {rows:,} | {which} | {trials:,} | {np.mean(shares):.3f} | {least:.3f} | {low:.3f}–{high:.3f} | {expected} |", flush=True)


def ratio(scale: float, rows: int = 1000) -> None:
    """Coverage of the bootstrap interval of the ratio of set sizes, for one calibration split."""
    rng = np.random.default_rng(4)
    z, blurred, y = classified(rng, 1000, noise=1.5)
    bounds = [conformal_thresholds(metrics.log_softmax(logits), y, ALPHA) for logits in (z, blurred)]
    pool = classified(rng, 300_000, noise=1.5)[:2]
    sizes = [
        conformal_sets(metrics.log_softmax(logits), bound).sum(-1).astype(np.float64) for logits, bound in zip(pool, bounds, strict=True)
    ]
    truth, trials, ends = sizes[1].mean() / sizes[0].mean(), round(3000 * scale), []
    for trial in range(trials):
        at = rng.integers(0, len(sizes[0]), rows)
        draws = bootstrap({i: partial(metrics.mean, size[at]) for i, size in enumerate(sizes)}, rows, resamples=1000, seed=trial)
        ends.append((draws[1] / draws[0]).interval())
    share, width = covered(ends, truth)
    error = math.sqrt(share * (1 - share) / trials)
    print(f"\nSize of the student's sets ÷ the teacher's, {rows:,} test rows: truth {truth:.3f};")
    print(f"the interval holds it in {share:.3f} ± {error:.3f} of {trials:,} samples, and is {width:.3f} wide")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples drawn")
    scale = parser.parse_args().share
    start = time.process_time()
    print(machine())
    timing()
    coverage(scale)
    powered(scale)
    conformal(scale)
    ratio(scale)
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
