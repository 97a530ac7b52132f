"""How small it can be, told from a study's trials: the curve, the smallest size that meets the margin, and what binds where none does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attar.certificate.figures import digits, metric_name
from attar.errors import EvidenceError
from attar.searched import Priced, SizeCurve, Trial
from attar.statistics.sizes import Curve, error_of, fit_sizes, score_of

__all__ = ["SURE", "Binding", "Smallest", "binding", "smallest"]

SURE = 0.9  # how probably a student must meet the margin to be recommended
LINE = 33  # sizes at which the curve is written down
AS_BYTES = 1e6

_BOUNDS = {
    "latency_ms": ("latency", "ms"),
    "size_mb": ("the file's size", "MB"),
    "parameters": ("the number of parameters", ""),
    "memory_mb": ("working memory", "MB"),
    "rows_per_second": ("rows a second", ""),
}


@dataclass(frozen=True)
class Smallest:
    """record: what a search keeps, None where there is no curve. curve: of the family. words: what the curve says, or why there is none."""

    record: SizeCurve | None
    curve: Curve | None
    words: str

    @property
    def family(self) -> str:
        return "" if self.record is None else self.record.family


@dataclass(frozen=True)
class Binding:
    """What keeps the smallest student that would meet the margin from being had.

    name: of the bound; "margin" where no size that the curve speaks about would do; "space" where no candidate is as large; "" where
        nothing binds, or nobody can say. needed: what it would take, of the bound or the margin. words: the same as a sentence.
    """

    name: str
    needed: float | None
    words: str


def smallest(
    trials: Sequence[Trial],
    *,
    metric: str,
    better: int,
    teacher: float | None,
    margin: float,
    rows_sd: float = 0.0,
    seed_sd: float | None = None,
) -> Smallest:
    """The curve of error over parameters of one family of students, and the smallest of it that meets the margin with 90 %.

    teacher: its score on the rows that trials are scored on, the first half; None, where it has none, leaves no goal. rows_sd: standard
        error of a student's difference to the teacher from the sampling of rows, those of the trials and those of the claim together.
    seed_sd: spread of the score over seeds.

    Trials that learnt from the teacher and were trained to their end count, by their best of each size. Families of students are not
    mixed, for a tree's parameters are not a net's: that family is told whose smallest student is cheapest by the trials' prices; where
    none has one, that of the best trial.
    """
    told = [t for t in trials if t.arm == "student" and t.state == "trained" and t.score is not None and t.price.parameters]
    if not told or teacher is None:
        return Smallest(None, None, "No curve of error over size: " + ("no trial was trained to its end." if not told else "no goal."))
    goal = error_of(teacher, better) + margin
    best = max(told, key=lambda t: better * (t.score or 0.0))
    names = sorted({_family(t) for t in told}, key=lambda name: name != _family(best))  # that of the best trial first
    curves: dict[str, Curve] = {}
    whys: dict[str, str] = {}
    for name in names:
        own = [t for t in told if _family(t) == name]
        try:
            sizes, errors = [t.price.parameters or 0 for t in own], [error_of(t.score or 0.0, better) for t in own]
            curves[name] = fit_sizes(sizes, errors, seed_sd=seed_sd)
        except EvidenceError as error:
            whys[name] = error.message
    if not curves:
        return Smallest(None, None, f"No curve of error over size: {'; '.join(f'{name}: {why}' for name, why in whys.items())}.")
    found = {name: curve.smallest(goal, chance=SURE, rows_sd=rows_sd) for name, curve in curves.items()}
    cheap = {name: _cheapest(trials, name, size, "latency_ms") for name, size in found.items() if size is not None}
    family = min(cheap, key=lambda name: cheap[name] or math.inf) if cheap else next(iter(curves))
    record = _record(family, curves[family], goal, found[family], rows_sd)
    words = _said(record, curves[family], metric, better, goal)
    return Smallest(_worded(record, words), curves[family], words)


def binding(
    told: Smallest, trials: Sequence[Trial], bounds: Mapping[str, float], *, metric: str, better: int, teacher: float, rows_sd: float = 0.0
) -> Binding:
    """Which constraint binds where no student of the budget meets the margin, and what it would take.

    bounds: the budget's, by name. teacher: its score on the first half of the validation rows. The price of a size is that of the cheapest
    candidate with at least so many parameters, of those that were priced, trained or not.
    """
    record, curve = told.record, told.curve
    if record is None or curve is None:
        return Binding("", None, f"What binds cannot be told. {told.words}")
    own = [t for t in trials if _family(t) == record.family and t.price.parameters]
    if record.smallest is None:
        larger = [t for t in own if (t.price.parameters or 0) > curve.tried[1]]
        if larger and curve.floor_chance(record.goal) < 0.5:
            size = f"no {record.family} of the sizes that keep the budget is sure to meet the margin, a larger one may"
            if (found := _of_price(larger, bounds, size)) is not None:
                return found
        return _of_margin(record, curve, own, bounds, metric, better, teacher, rows_sd)
    size = f"the smallest {record.family} that meets the margin with {SURE:.0%} has about {record.smallest:,} parameters"
    enough = [t for t in own if (t.price.parameters or 0) >= record.smallest]
    if not enough:
        most = max(t.price.parameters or 0 for t in own)
        return Binding("space", float(record.smallest), f"What binds is the space: {size}, and no candidate has more than {most:,}.")
    there = "keep the budget" if bounds else "were tried"
    return _of_price(enough, bounds, size) or Binding("", None, f"Nothing binds: {size}, and candidates of that size {there}.")


def _of_price(enough: Sequence[Trial], bounds: Mapping[str, float], size: str) -> Binding | None:
    """The bound that the candidates which are large enough break most, by the one that breaks it least; None where one keeps all."""
    over = [(t, _over(t.price, bounds)) for t in enough]
    nearest, ratios = min(over, key=lambda each: (max((r[0] for r in each[1].values()), default=0.0), each[0].price.parameters or 0))
    broken = {name: ratio for name, ratio in ratios.items() if ratio[0] > 1}
    if not broken:
        return None
    name = max(broken, key=lambda n: broken[n][0])
    share, value, bound = broken[name]
    what, unit = _BOUNDS.get(name, (name, ""))
    others = [_BOUNDS.get(n, (n, ""))[0] for n in broken if n != name]
    also = f"; {' and '.join(others)} would be over, too" if others else ""
    takes = f"the cheapest such candidate, {nearest.student}, takes {_figure(value, unit)}, {share:.2g} times"
    if name == "rows_per_second":
        takes = f"the fastest such candidate, {nearest.student}, answers {_figure(value, unit)}, {1 / share:.2g} times"
    return Binding(name, value, f"What binds is {what}: {size}, and {takes} the {_figure(bound, unit)} that the budget asks{also}.")


def _of_margin(
    record: SizeCurve,
    curve: Curve,
    own: Sequence[Trial],
    bounds: Mapping[str, float],
    metric: str,
    better: int,
    teacher: float,
    rows_sd: float,
) -> Binding:
    """Where no size within reach meets the goal: the margin that the sizes at hand would meet."""
    theirs = error_of(teacher, better)
    largest = curve.reach[1]
    within = [t.price.parameters or 0 for t in own if t.within and curve.reach[0] <= (t.price.parameters or 0) <= largest]
    never = curve.floor_chance(record.goal)
    if never >= 0.5:
        sure = "all but certainly" if never > 0.99 else f"with a probability of {never:.0%}"
        ends = f"error levels out above what it allows, {sure}, whatever the size"
    else:
        ends = f"no {record.family} up to {largest:,.0f} parameters, as far as the curve speaks, meets it with {SURE:.0%}"
    words = [f"What binds is the margin: {ends}."]
    needed = None
    kept = "within the budget" if bounds else f"with {max(within, default=0):,} parameters"
    for sizes, said in ((within, kept), ([largest], f"with {largest:,.0f} parameters")):
        if sizes:
            needed = max(0.0, float(np.quantile(curve.errors_at(max(sizes), rows_sd=rows_sd), SURE)) - theirs)
            words.append(f"A margin of {needed:.2g} in {metric_name(metric)} would be met with {SURE:.0%} {said}.")
            break
    words.append("Otherwise it takes longer training, more rows, or another objective.")
    return Binding("margin", needed, " ".join(words))


def _family(trial: Trial) -> str:
    return trial.student.split("(")[0].strip()


def _value(price: Priced, name: str) -> float | None:
    if name == "size_mb":
        return None if price.size_bytes is None else price.size_bytes / AS_BYTES
    found = getattr(price, name, None)
    return None if found is None else float(found)


def _over(price: Priced, bounds: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
    """By bound: how many times over it a price is, above 1 where it breaks it; the price and the bound. What is not known is left out."""
    found = {}
    for name, bound in bounds.items():
        value = _value(price, name)
        if value is not None and value > 0:
            found[name] = (bound / value if name == "rows_per_second" else value / bound, value, float(bound))
    return found


def _cheapest(trials: Sequence[Trial], family: str, size: int, name: str) -> float | None:
    """The least price of a candidate of a family with at least so many parameters; None where there is none."""
    values = [_value(t.price, name) for t in trials if _family(t) == family and (t.price.parameters or 0) >= size]
    return min((v for v in values if v is not None), default=None)


def _record(family: str, curve: Curve, goal: float, size: int | None, rows_sd: float) -> SizeCurve:
    low, high = curve.reach
    sizes = [int(n) for n in np.unique(np.geomspace(math.ceil(low), math.floor(high), LINE).round())]
    sizes = [n for n in sizes if low <= n <= high]
    return SizeCurve(
        points=tuple((int(n), float(e)) for n, e in zip(curve.sizes, curve.errors, strict=True)),
        line=tuple((n, curve.error(n), *curve.interval(n)) for n in sizes),
        floor=curve.floor,
        scale=curve.scale,
        power=curve.power,
        goal=goal,
        smallest=size,
        chance=tuple((n, curve.chance(n, goal, rows_sd=rows_sd)) for n in sizes),
        family=family,
        reach=(math.ceil(low), math.floor(high)),
    )


def _worded(record: SizeCurve, words: str) -> SizeCurve:
    return SizeCurve(**{**record.__dict__, "words": words})


def _said(record: SizeCurve, curve: Curve, metric: str, better: int, goal: float) -> str:
    what = metric_name(metric)
    wanted = f"{what} {digits(score_of(goal, better))} or {'more' if better > 0 else 'less'}"
    note = "".join(f" {note[0].upper()}{note[1:]}." for note in curve.notes)
    if record.smallest is None:
        chance = record.chance[-1][1]
        return (
            f"No {record.family} up to {record.reach[1]:,} parameters reaches {wanted} with {SURE:.0%}: "
            f"at that size the chance is {chance:.0%}.{note}"
        )
    low, high = sorted(score_of(e, better) for e in curve.interval(record.smallest))
    least = ", the smallest tried" if record.smallest <= math.ceil(curve.tried[0]) else ""
    return (
        f"The smallest {record.family} that reaches {wanted} with {SURE:.0%} has about {record.smallest:,} parameters{least}; "
        f"{what} of one more student of that size lies between {digits(low)} and {digits(high)} with 90%.{note}"
    )


def _figure(value: float, unit: str) -> str:
    return f"{value:,.3g} {unit}".strip() if value < 1000 else f"{value:,.0f} {unit}".strip()
