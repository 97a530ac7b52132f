"""What was chosen and what it did: parallel coordinates of the trials, and the importance of every searched argument."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attar.certificate import digits, metric_name
from attar.report.drawing import Axis, Drawing, shorten
from attar.report.search.fronts import describe, key, won
from attar.report.words import bytes_of, milliseconds, percents, significant
from attar.searched import Searched, Trial

__all__ = ["importances", "lanes"]

WIDTH = 380.0
ROW = 52.0
SHADES = 5  # of quality, from the worst fifth to the best
SPREAD = 5.0  # from how many times its least value on an axis is logarithmic
MOST = 400  # trials drawn, the best and an even choice of the rest


class _Lane:
    """One axis: a hole of a space or a figure; texts in their order, numbers between their ends."""

    def __init__(self, name: str, values: Sequence[float | str | None], written: tuple[str, str] = ("", "")) -> None:
        self.name = name
        known = [v for v in values if v is not None]
        self.items = sorted({str(v) for v in known}, key=_natural) if any(isinstance(v, str) for v in known) else []
        numbers = [float(v) for v in known if not isinstance(v, str)]
        low, high = (0.0, max(1.0, len(self.items) - 1.0)) if self.items else (min(numbers), max(numbers))
        if low == high:
            low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
        self.axis = Axis(low, high, 14, WIDTH - 14, log=not self.items and low > 0 and high / low > SPREAD)
        if len(self.items) == 1:
            self.axis = Axis(-1, 1, 14, WIDTH - 14)
        heads = [item.partition("(")[0] for item in self.items]
        self.labels = heads if len({*heads}) == len(heads) else self.items  # of families the word says enough
        self.ends = (written[0] or significant(low, 3), written[1] or significant(high, 3))

    def at(self, value: float | str) -> float:
        return self.axis(float(self.items.index(str(value)))) if self.items else self.axis(float(value))


def lanes(s: Searched) -> Drawing | None:
    """Parallel coordinates of the students that were trained: a line for each, over what was chosen, its price and its score.

    Axes lie below one another so that they can be read on a narrow screen; a hole that a trial does not have is left out of its line.
    """
    scored = [t for t in s.trials if t.arm == "student" and t.state in ("trained", "stopped") and t.score is not None]
    scored = sorted((t for t in scored if math.isfinite(t.score or math.nan)), key=lambda t: s.better * (t.score or 0.0))
    if len(scored) < 2:
        return None
    step = max(1, math.ceil(len(scored) / MOST))
    drawn = [t for k, t in enumerate(scored) if k % step == 0 or won(s, t) or k >= len(scored) - 20]
    ranks = {t.number: k / len(scored) for k, t in enumerate(scored)}
    found = _lanes(s, drawn)
    d = Drawing("lanes", f"Parallel coordinates of {len(drawn):,} trials", _told(s, scored), WIDTH, 26 + ROW * (len(found) - 1) + 34)
    order = [t for t in drawn if not won(s, t)] + [t for t in drawn if won(s, t)]
    for t in order:
        points = [(lane.at(v), 26 + ROW * k) for k, (lane, values) in enumerate(found) if (v := values.get(t.number)) is not None]
        look = "winner c-student" if won(s, t) else f"shade{min(SHADES - 1, int(SHADES * ranks[t.number]))}"
        d.path(points, f"strand {look} trial", hover=describe(t, s), trial=key(t))
    for k, (lane, _) in enumerate(found):
        y = 26 + ROW * k
        d.line(14, y, WIDTH - 14, y, "zero")
        d.text(14, y - 7, shorten(lane.name, 230), "name strong halo")
        if lane.items:
            for item, label in zip(lane.items, lane.labels, strict=True):
                x = lane.at(item)
                d.line(x, y - 4, x, y + 4, "zero")
                anchor = "start" if x < 60 else "end" if x > WIDTH - 60 else "middle"
                d.text(x, y + 15, shorten(label, (WIDTH - 40) / len(lane.items)), "tick halo", anchor, hover=item)
        else:
            d.text(WIDTH - 14, y - 7, f"{lane.ends[0]} → {lane.ends[1]}" + (", log" if lane.axis.log else ""), "tick halo", "end")
    return d


def _lanes(s: Searched, trials: Sequence[Trial]) -> list[tuple[_Lane, dict[int, float | str | None]]]:
    """The axes, the important holes first, then price and score, with the value of each trial."""
    holes = list(dict.fromkeys([*s.importances, *(name for t in trials for name in t.point)]))
    found: list[tuple[_Lane, dict[int, float | str | None]]] = []
    for name in holes:
        values = {t.number: t.point.get(name) for t in trials}
        if len({v for v in values.values() if v is not None}) > 1:
            found.append((_Lane(name, [*values.values()]), values))
    for what, of, write in (
        ("one row, 95th percentile", lambda t: t.price.latency_ms, milliseconds),
        ("exported file", lambda t: None if t.price.size_bytes is None else t.price.size_bytes / 1e6, bytes_of),
        (metric_name(s.metric), lambda t: t.score, digits),
    ):
        values = {t.number: of(t) for t in trials}
        known = [v for v in values.values() if v is not None]
        if known and min(known) < max(known):
            found.append((_Lane(what, known, (write(min(known)), write(max(known)))), values))
    return found


def _told(s: Searched, scored: Sequence[Trial]) -> str:
    best = scored[-1]
    return f"The best of {len(scored):,}: {describe(best, s)}."


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, before other texts."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def importances(s: Searched) -> Drawing | None:
    """The share of every hole in what sets the best tenth of the trials apart, with its interval."""
    rows = [(name, f) for name, f in s.importances.items() if f.value is not None]
    if not rows:
        return None
    tall = 34.0
    most = max(x for _, f in rows for x in (f.value, f.high) if x is not None)
    across = Axis(0, most * 1.04, 14, WIDTH - 14)
    bottom = 8 + tall * len(rows)
    told = "; ".join(f"{name} {percents(f)}" for name, f in rows)
    d = Drawing("importances", "Importance of what was searched", told + ".", WIDTH, bottom + 36)
    for tick in across.ticks(4):
        d.line(across(tick), 8, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 15, f"{100 * tick:.0f} %", "tick", "middle")
    for k, (name, f) in enumerate(rows):
        y = 8 + tall * k
        d.text(14, y + 11, shorten(name, 300), "name halo", hover=name)
        d.add("rect", "bar c-student", hover=f"{name}: {percents(f)}", x=14, y=y + 17, width=max(1.0, across(f.value or 0) - 14), height=9)
        if f.low is not None and f.high is not None:
            d.line(across(f.low), y + 21.5, across(f.high), y + 21.5, "whisker c-student")
    d.text(WIDTH / 2, bottom + 31, "share in what makes a trial one of the best tenth", "small", "middle")
    return d
