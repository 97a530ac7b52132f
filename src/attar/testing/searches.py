"""Searches to test with: made in milliseconds, and nothing was trained for them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from attar.certificate import Figure
from attar.searched import Competitor, Finalist, Priced, Pricing, Searched, SizeCurve, Trial, front

__all__ = ["small_search"]

FLOOR, SCALE, POWER = 0.105, 4.0, 0.6
INPUTS = 10


def small_search(count: int = 60, *, better: Literal[1, -1] = 1, seed: int = 0, **changes: Any) -> Searched:
    """What a search over the width, depth and temperature of an mlp might have found; `changes` are fields of Searched.

    better: 1 an AUROC, −1 a root mean square error. count 0: of a search that was stopped before its first trial.
    """
    random = np.random.default_rng(seed)
    trials = tuple(_trial(number, better, random) for number in range(count))
    bounds = {"latency_ms": 0.03, "size_mb": 0.1}
    best = [t for t in front(trials, better) if t.within][-3:]
    finalists = tuple(_finalist(t, better, random) for t in best)
    winner = finalists[0].trial if finalists else None
    teacher = _competitor("teacher", 0.886, 60_000, 0.31, "as it is", better)
    values: dict[str, Any] = {
        "metric": "auroc" if better > 0 else "rmse",
        "better": better,
        "bounds": bounds,
        "margin": 0.01 if better > 0 else 0.4,
        "teacher": teacher,
        "trials": trials,
        "finalists": finalists,
        "competitors": (
            _competitor("teacher, int8", 0.884, 15_000, 0.2, "the exported teacher, quantised", better),
            _competitor("teacher, 150 of 600 trees", 0.872, 15_000, 0.08, "its first trees alone", better),
            _competitor("labels only", 0.866, 4_000, 0.019, "the best trial that learnt from labels alone", better),
            Competitor("teacher, 40 of 600 trees", None, Priced(None), False, "it was not measured: a boosting of two teachers is not cut"),
        ),
        "curve": _curve(trials, better) if len(best) >= 3 else None,
        "pricing": (
            Pricing("mlp", 24, 0.043, True, 3.1, _held_out(0.05, random)),
            Pricing("trees", 24, 0.183, False, 6.4, _held_out(0.2, random)),
        ),
        "winner": winner,
        "recommendation": _recommended(winner, finalists, better),
        "notes": ("13 trials were dropped before training, for their price", "rung 0.1 is no longer trusted: its rank correlation is 0.52"),
        "correlations": ((0.1, 0.52, 31), (0.3, 0.74, 22), (0.6, 0.91, 14)),
        "seconds": {"teacher": 11.4, "pricing": 9.5, "training": 171.0, "finalists": 48.2, "competitors": 6.1},
        "serial_seconds": 1462.0,
        "workers": 2,
        "rows": {"train": 18000, "valid": 3000, "half A": 1500, "half B": 1500},
        "data": "d" * 32,
        "machine": "a processor, 2 cores, Linux x86_64, Python 3.12",
        "recipe": _recipe(),
        "importances": {
            "student.width": Figure(0.61, 0.48, 0.7),
            "objective.kl.temperature": Figure(0.17, 0.08, 0.29),
            "fit.lr": Figure(0.12, 0.05, 0.21),
            "student.depth": Figure(0.07, 0.02, 0.14),
            "objective.weight": Figure(0.03, 0.0, 0.09),
        },
        "study": "sqlite:///study.db",
    }
    if not count:
        values |= {"competitors": (), "pricing": (), "correlations": (), "importances": {}, "notes": (), "serial_seconds": None}
    return replace(Searched(**values), **changes)


def _competitor(name: str, quality: float, parameters: int, latency_ms: float, why: str, better: int) -> Competitor:
    price = _price(parameters, latency_ms, measured=True)
    return Competitor(name, _figure(_turned(quality, better)), price, latency_ms <= 0.03, why, first=_turned(quality + 0.002, better))


def _held_out(spread: float, random: np.random.Generator) -> tuple[tuple[float, float], ...]:
    return tuple((p, p * float(random.normal(1.0, spread))) for p in np.geomspace(0.006, 0.2, 12).tolist())


def _recipe() -> str:
    return (
        'data: table("credit.csv", label="default")\n'
        'teacher: taught(lightgbm(trees=600), at="teacher.txt")\n'
        "student: mlp(width=integer(4, 128, log=True), depth=choice(1, 2, 3))\n"
        "objective: blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))\n"
        "fit: fit(lr=log(1e-3, 2e-2))\n"
        "budget: budget(latency_ms=0.03, size_mb=0.1)\n"
    )


def _turned(quality: float, better: int) -> float:
    """A quality between 0 and 1, more is better, as the metric says it: an error falls as it rises."""
    return quality if better > 0 else 40.0 * (1.0 - quality)


def _error(parameters: int) -> float:
    return FLOOR + (SCALE / parameters) ** POWER


def _price(parameters: int, latency_ms: float, *, measured: bool = False) -> Priced:
    return Priced(
        latency_ms,
        p50_ms=latency_ms * 0.8,
        low_ms=latency_ms * 0.94,
        high_ms=latency_ms * 1.07,
        rows_per_second=40_000 / latency_ms,
        size_bytes=1500 + 4 * parameters,
        parameters=parameters,
        macs=parameters - 10,
        memory_mb=0.4 + parameters / 1e5,
        energy_mj=latency_ms * 15,
        measured=measured,
    )


def _figure(value: float) -> Figure:
    spread = 0.008 if value < 1 else 0.3
    return Figure(value, value - spread, value + spread, n=1500, how="bootstrap of rows")


def _trial(number: int, better: int, random: np.random.Generator) -> Trial:
    width, depth = round(math.exp(random.uniform(math.log(4), math.log(128)))), int(random.integers(1, 4))
    heat, weight, lr = float(np.exp(random.uniform(0, np.log(8)))), float(random.uniform(0.5, 1)), float(np.exp(random.uniform(-6.9, -3.9)))
    parameters = INPUTS * width + (depth - 1) * width * width + 3 * width
    price = _price(parameters, 0.005 + 2.2e-6 * parameters + 0.002 * depth)
    within = (price.latency_ms or 0) <= 0.03 and (price.size_bytes or 0) <= 1e5
    arm: Literal["student", "labels"] = "labels" if number % 5 == 4 else "student"
    best = 1.4 + 0.9 * math.log10(parameters)  # larger students are better served by softer answers
    quality = 1 - _error(parameters) - 0.012 * math.log(heat / best) ** 2 * (arm == "student") - 0.012 * (arm == "labels")
    quality += float(random.normal(0, 0.004))
    state = "dear" if not within and number % 3 else "failed" if number % 17 == 9 else "stopped" if number % 6 == 2 else "trained"
    score = _turned(quality, better) if state in ("trained", "stopped") else None
    ran = {"dear": 0, "failed": 3, "stopped": 12, "trained": 40}[state]
    return Trial(
        number,
        arm,
        f"mlp(width={width}, depth={depth})",
        f"blend(kl(temperature={heat:.4g}), labels(), weight={weight:.4g})" if arm == "student" else "labels()",
        f"fit(epochs={ran or 40}, lr={lr:.4g})",
        {"student.width": width, "student.depth": f"{depth}", "objective.kl.temperature": heat, "objective.weight": weight, "fit.lr": lr},
        state,
        score,
        price,
        within,
        rungs=() if score is None else ((0.1, _turned(quality - 0.03, better)), (0.3, _turned(quality - 0.01, better))),
        epochs=ran,
        seconds=0.05 * ran,
        together=8 if ran else 1,
        why="the loss became NaN in epoch 3" if state == "failed" else "",
    )


def _finalist(trial: Trial, better: int, random: np.random.Generator) -> Finalist:
    before = trial.score or 0.0
    scores = tuple(
        float(x) for x in before - better * 0.003 * (1 if better > 0 else 40) + random.normal(0, 0.002 if better > 0 else 0.08, 5)
    )
    mean = float(np.mean(scores))
    price = replace(trial.price, measured=True)
    how = "prediction for one exported file on 1,200 test rows; t over seeds, these rows and those"
    middle = mean - better * 0.001 * (1 if better > 0 else 40)
    wide = 0.012 * (1 if better > 0 else 40)
    told = Figure(middle, middle - wide, middle + wide, n=1200, how=how)
    own = (trial.number, trial.student, trial.objective, trial.fit, scores, _figure(mean), price, trial.within, before, trial.arm)
    return Finalist(*own, predicted=told, optimism=abs(mean - middle))


def _recommended(winner: int | None, finalists: tuple[Finalist, ...], better: int) -> tuple[str, ...]:
    if winner is None:
        return ("No student is recommended: none of those that were trained keeps the budget and comes within the margin of the teacher.",)
    found = finalists[0]
    return (
        f"{found.student} is recommended, trial {winner}: it keeps the budget and comes within the margin of the teacher.",
        "No competitor does: the teacher's int8 file takes 0.2 ms for one row, where 0.03 are allowed.",
    )


def _curve(trials: tuple[Trial, ...], better: int) -> SizeCurve:
    best: dict[int, float] = {}
    for t in trials:
        if t.state == "trained" and t.arm == "student" and t.score is not None and t.price.parameters:
            error = 1 - t.score if better > 0 else t.score
            best[t.price.parameters] = min(error, best.get(t.price.parameters, math.inf))
    points = tuple(sorted(best.items()))
    grid = np.geomspace(points[0][0], points[-1][0], 40)
    unit = 1.0 if better > 0 else 40.0
    line = tuple((round(p), unit * _error(p), unit * (_error(p) - 0.008), unit * (_error(p) + 0.008)) for p in grid.tolist())
    goal = unit * 0.124
    smallest = next((p for p, _, _, high in line if high <= goal), None)
    chance = tuple((p, float(np.clip(0.5 + (goal - e) / unit / 0.02, 0, 1))) for p, e in points)
    words = (
        f"The smallest student that meets the margin with 90 % probability has {smallest:,} parameters."
        if smallest
        else "No size that was tried meets the margin with 90 % probability."
    )
    return SizeCurve(points, line, unit * FLOOR, SCALE, POWER, goal, smallest, chance, words)
