"""Quality against what a student costs: every trial, the front, the budget, the competitors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from attar.certificate import digits, metric_name
from attar.report.drawing import LEFT, WIDTH, Axis, Drawing, ladder, legend
from attar.report.words import bytes_of, milliseconds, significant, unit_row
from attar.searched import Competitor, Finalist, Priced, Searched, Trial, front, temperature

__all__ = ["against", "describe", "goal_name", "key", "look_of", "won"]

HIGH = 230.0
LOWEST = 0.3  # share of trials that may fall below the frame, where they would flatten the rest
RIGHT = WIDTH - 8


class _Cost(NamedTuple):
    """One axis of costs. of: what a price says; bound: the budget's, by name, and the factor from its unit to that of `of`."""

    title: str
    unit: str
    of: Callable[[Priced], float | None]
    bound: str
    written: Callable[[float], str]


COSTS: dict[str, _Cost] = {
    "latency": _Cost("one row, 95th percentile", "ms", lambda p: p.latency_ms, "latency_ms", milliseconds),
    "size": _Cost("exported file", "MB", lambda p: None if p.size_bytes is None else p.size_bytes / 1e6, "size_mb", bytes_of),
}


class _Look(NamedTuple):
    name: str
    shape: str
    look: str
    size: float


TRIALS: dict[str, _Look] = {
    "stopped": _Look("stopped at a rung", "disc", "faint-mark c-unsure", 2),
    "over": _Look("over the budget", "disc", "hollow c-unsure", 3),
    "labels": _Look("on labels alone", "triangle", "point arm1", 3),
    "within": _Look("keeps the budget", "disc", "point c-student", 3.2),
}
WINNER = _Look("recommended", "diamond", "point ringed c-student", 6)
COMPETITORS: tuple[_Look, ...] = (
    _Look("teacher", "square", "point c-teacher", 5),
    _Look("", "square", "hollow c-teacher", 4.4),
    _Look("", "triangle", "point c-file1", 4.6),
    _Look("", "diamond", "point c-file2", 4.2),
    _Look("", "triangle", "hollow c-teacher", 4.4),
    _Look("", "diamond", "hollow c-file1", 4),
)


def look_of(t: Trial) -> str:
    """Which of the looks of `TRIALS` a trial has."""
    if t.state == "stopped":
        return "stopped"
    return "labels" if t.arm == "labels" else "within" if t.within else "over"


def key(t: Trial) -> str:
    """A trial's name on its page: both arms of a search count from 0."""
    return f"{t.arm[0]}{t.number}"


def won(s: Searched, t: Trial | Finalist) -> bool:
    """Whether a trial, or a finalist, is the one that is recommended."""
    return (t.number if isinstance(t, Trial) else t.trial) == s.winner and t.arm == "student"


def goal_name(s: Searched) -> str:
    """What the line is called at which a student is worse than the teacher by the margin."""
    return f"teacher {'less' if s.better > 0 else 'plus'} the margin"


def describe(t: Trial, s: Searched) -> str:
    """A trial in a few lines, for who points at it; of the budget where there is one."""
    price = t.price
    alone = " on labels alone" if t.arm == "labels" else ""
    said = [f"trial {t.number}{alone}: {t.state}" + (f", {metric_name(s.metric)} {digits(t.score)}" if t.score is not None else "")]
    said += [t.student, t.objective, t.fit]
    costs = [milliseconds(price.latency_ms)] if price.latency_ms else []
    costs += [bytes_of(price.size_bytes / 1e6)] if price.size_bytes else []
    costs += [f"{price.parameters:,} parameters"] if price.parameters else []
    costs += ["keeps the budget" if t.within else "over the budget"] if s.bounds else []
    said += [", ".join(costs)] if costs else []
    return "\n".join([*said, *([t.why] if t.why else [])])


def against(s: Searched, kind: Literal["latency", "size"]) -> Drawing | None:
    """Every trial that has a score, on the first half of the validation rows, against its price; None where there is none.

    The shaded region keeps the budget; the dashed line is the teacher less the margin. Marks below the axis are those dropped unpaid.
    """
    cost = COSTS[kind]
    trials = [(t, x, t.score) for t in s.trials if (x := _positive(cost.of(t.price))) and t.score is not None and math.isfinite(t.score)]
    others = [(c, look, x, y) for c, look in _competitors(s) if (x := _positive(cost.of(c.price))) and (y := _first(c)) is not None]
    if not trials:
        return None
    dear = [x for t in s.trials if t.state == "dear" and (x := _positive(cost.of(t.price)))]
    metric = metric_name(s.metric)
    unit, factor = unit_row([x for _, x, _ in trials], cost.unit, 1.0)
    bound = s.bounds.get(cost.bound)
    shown = [x for _, x, _ in trials] + [x for *_, x, _ in others] + dear + ([bound] if bound else [])
    kinds = [k for k in TRIALS if any(look_of(t) == k for t, *_ in trials)]
    winner = next((t for t, *_ in trials if won(s, t)), None)
    entries = [TRIALS[k] for k in kinds if k != "within"] if not s.bounds else [TRIALS[k] for k in kinds]
    entries += [WINNER] if winner else []
    entries += [look for _, look, *_ in others]
    places, top = legend([e.name for e in entries])
    top += 6
    bottom = top + HIGH
    across = Axis.around([x * factor for x in shown], LEFT, RIGHT, pad=0.05, log=True)
    told = [*(y for *_, y in others), *([winner.score] if winner is not None and winner.score is not None else [])]
    told += [teacher] if (teacher := _first(s.teacher)) is not None else []
    down, least = _scores(s, [y for *_, y in trials], told, bottom, top)
    d = Drawing(f"front-{kind}", f"{metric} against {cost.title}", _told(s, cost), WIDTH, bottom + 50)
    if bound:
        end = across(min(max(bound * factor, across.low), across.high))
        d.add("rect", "band", x=LEFT, y=top, width=end - LEFT, height=bottom - top)
    ladder(d, down, LEFT, RIGHT, metric + ("" if s.better > 0 else ", less is better"))
    for tick in across.ticks(6):
        d.line(across(tick), top, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 24, f"{tick:g}", "tick", "middle")
    if bound:
        d.line(across(bound * factor), top, across(bound * factor), bottom, "zero")
        left = across(bound * factor) > (LEFT + RIGHT) / 2
        words = f"budget {cost.written(bound)}"
        d.text(
            across(bound * factor) + (-5 if left else 5),
            bottom - 6 if s.better > 0 else top + 12,
            words,
            "small halo",
            "end" if left else "start",
        )
    if teacher is not None and down.low < teacher - s.better * s.margin < down.high:
        goal = down(teacher - s.better * s.margin)
        d.line(LEFT, goal, RIGHT, goal, "margin")
        d.text(RIGHT, goal + (13 if s.better > 0 else -5), goal_name(s), "small halo", "end")
    for x in dear:
        d.line(across(x * factor), bottom + 4, across(x * factor), bottom + 10, "rug")
    beyond = sum(y < least if s.better > 0 else y > least for *_, y in trials)
    if beyond:
        edge = "lower" if s.better > 0 else "upper"
        d.text((LEFT + RIGHT) / 2, bottom + 57, f"at the {edge} edge: {beyond:,} trials that are worse still", "small", "middle")
        d.height += 14
    _step(d, s, cost, across, down, factor)
    for k in kinds:
        for t, x, y in trials:
            if look_of(t) == k and t is not winner:
                look = TRIALS[k]
                at = down(min(max(y, least), down.high) if s.better > 0 else max(min(y, least), down.low))
                d.mark(across(x * factor), at, look.shape, look.look + " trial", look.size, describe(t, s), trial=key(t))
    for c, look, x, y in others:
        d.mark(across(x * factor), down(y), look.shape, look.look, look.size, f"{c.name}: {metric} {digits(y)}, {cost.written(x)}\n{c.why}")
    if winner is not None and (x := cost.of(winner.price)) and winner.score is not None:
        hover = describe(winner, s)
        at = across(x * factor), down(winner.score)
        d.mark(*at, WINNER.shape, WINNER.look + " trial", WINNER.size, hover, trial=key(winner))
    for e, (x, y) in zip(entries, places, strict=True):
        d.mark(x + 13, y, e.shape, e.look, e.size)
        d.text(x + 24, y + 4, e.name, "name")
    d.text((LEFT + RIGHT) / 2, bottom + 42, f"{cost.title}, {unit} (logarithmic)", "small", "middle")
    return d


def _positive(value: float | None) -> float | None:
    return value if value and value > 0 and math.isfinite(value) else None


def _first(c: Competitor) -> float | None:
    """Where a competitor stands in a picture of trials: on the rows that they are scored on, else on the other half."""
    found = c.first if c.first is not None else c.score.value if c.score is not None else None
    return found if found is not None and math.isfinite(found) else None


def _competitors(s: Searched) -> list[tuple[Competitor, _Look]]:
    """Teacher and competitors, each with a look of its own as long as there are any."""
    rest = COMPETITORS[1:]
    found = [(c, rest[k % len(rest)]._replace(name=c.name)) for k, c in enumerate(s.competitors)]
    return [(s.teacher, COMPETITORS[0]), *found]


def _scores(s: Searched, trials: Sequence[float], others: Sequence[float], bottom: float, top: float) -> tuple[Axis, float]:
    """An axis for scores, and the score at its bad end: a few bad trials may lie below the frame, at its edge."""
    bad = float(np.quantile(trials, LOWEST if s.better > 0 else 1 - LOWEST))
    best = max(trials) if s.better > 0 else min(trials)
    worst = min([bad, *others]) if s.better > 0 else max([bad, *others])
    worst, best = (min(worst, best), max([best, *others])) if s.better > 0 else (max(worst, best), min([best, *others]))
    whole = min(trials) if s.better > 0 else max(trials)
    if abs(best - whole) < 1.4 * abs(best - worst):  # it would flatten nothing
        worst = min(whole, worst) if s.better > 0 else max(whole, worst)
    axis = Axis.around([worst, best], bottom, top, pad=0.06)
    return axis, axis.low + 0.02 * (axis.high - axis.low) if s.better > 0 else axis.high - 0.02 * (axis.high - axis.low)


def _step(d: Drawing, s: Searched, cost: _Cost, across: Axis, down: Axis, factor: float) -> None:
    """The best score that can be had for each price, as a staircase."""
    field = "latency_ms" if cost.bound == "latency_ms" else "size_bytes"
    ahead = front(s.trials, s.better, [field])
    points: list[tuple[float, float]] = []
    for t in ahead:
        x, y = across((cost.of(t.price) or 0.0) * factor), down(min(max(t.score or 0.0, down.low), down.high))
        if points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    if points:
        d.path([*points, (across.end, points[-1][1])], "curve bold c-student stair")


def _told(s: Searched, cost: _Cost) -> str:
    """What the picture shows, for those who do not see it: the front."""
    ahead = front(s.trials, s.better, ["latency_ms" if cost.bound == "latency_ms" else "size_bytes"])
    said = [f"trial {t.number}: {cost.written(cost.of(t.price) or 0.0)}, {digits(t.score or 0.0)}" for t in ahead[-12:]]
    warm = [f"{significant(h, 2)}" for t in ahead[-12:] if (h := temperature(t)) is not None]
    return f"The front: {'; '.join(said)}." + (f" Temperatures along it: {', '.join(warm)}." if warm else "") if said else "No front."
