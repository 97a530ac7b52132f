"""The pictures of the page, each from a certificate; None where there is nothing to draw.

Right is better in every picture of differences. Intervals are 95 %, and nothing is drawn that has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from attar.certificate import Certificate, Figure, digits, metric_name, signed
from attar.report.drawing import CHARACTER, Axis, Drawing, shorten
from attar.report.history import Curve
from attar.report.words import by_class, bytes_of, control, milliseconds, one, percent, unit_row
from attar.statistics import wilson

__all__ = ["CLASSES", "agreement_by_class", "classes_shown", "cost", "differences", "gains", "learning", "numbers", "reliability"]

WIDTH = 380.0
LABELS = 128.0  # pixels for the names of rows
ROW = 24.0
CLASSES = 24  # drawn at most, those with the least agreement
LOOKS = {"teacher": ("teacher", "square"), "student": ("student", "disc")}
OTHER_FILES = (("file1", "triangle"), ("file2", "diamond"))
UNITS = {"log_loss": "nats", "rmse": "in the label’s unit", "mae": "in the label’s unit"}


class Row(NamedTuple):
    """One line of a picture of intervals: its name, value and interval; `note` is said when it is pointed at."""

    name: str
    value: float
    low: float | None
    high: float | None
    note: str = ""


def gains(c: Certificate) -> Drawing | None:
    """What the distilled student gains over each control, seed by seed, and the mean with its interval."""
    metric = c.claim["metric"]
    q = c.quality.get(metric)
    if q is None or not q.gains:
        return None
    rows, dots = [], {}
    for name, gain in q.gains.items():
        if gain.value is None:
            continue
        rows.append(_turned(f"over {control(name)}", gain, q.better))
        pairs = zip(q.seeds.get("student", ()), q.seeds.get(name, ()), strict=False)
        dots[rows[-1].name] = [(a - b) * q.better for a, b in pairs if math.isfinite(a - b)]
    if not rows:
        return None
    margin = c.helped.margin
    spread = [x for found in dots.values() for x in found]
    axis = _difference_axis(rows, [*spread, *((-margin, margin) if margin else ())], 8, WIDTH - 8)
    tall = 60.0
    d = Drawing("gains", "Gain over the controls", _told(rows), WIDTH, 22 + tall * len(rows) + 40)
    bottom = 22 + tall * len(rows)
    if margin:
        d.add("rect", "band", x=axis(-margin), y=18, width=axis(margin) - axis(-margin), height=bottom - 18)
    _grid(d, axis, 18, bottom, [*map(_signed_tick(axis.ticks()), axis.ticks())], axis.ticks())
    d.line(axis(0), 18, axis(0), bottom, "zero")
    _directions(d, axis, 12)
    for k, row in enumerate(rows):
        y = 22 + tall * k
        d.text(0, y + 14, shorten(row.name, WIDTH), "name halo")
        for x in dots[row.name]:
            d.mark(axis(x), y + 44, "disc", "c-student faint-mark", 3.5, f"one seed: {signed(x)}")
        _interval(d, axis, row, y + 30, "c-student", "diamond")
    _axis_title(d, axis, bottom, f"gain in {metric_name(metric)}")
    return d


def differences(c: Certificate) -> Drawing | None:
    """How the deployed student differs from the teacher by every metric: right of the line it is better."""
    rows = [(UNITS.get(name, ""), _turned(metric_name(name), q.difference, q.better), name) for name, q in c.quality.items()]
    rows = [(unit, row, name) for unit, row, name in rows if math.isfinite(row.value)]
    if not rows:
        return None
    order = list(dict.fromkeys(unit for unit, _, _ in rows))
    groups = [(unit, [r for r in rows if r[0] == unit]) for unit in order]
    height = 20 + sum(ROW * len(members) + 44 for _, members in groups)
    d = Drawing("differences", "The student against the teacher, by metric", _told([row for _, row, _ in rows]), WIDTH, height)
    y, margin = 20.0, c.non_inferior.margin
    for unit, members in groups:
        primary = [name == c.claim["metric"] for _, _, name in members]
        extra = [-margin] if margin and any(primary) else []
        axis = _difference_axis([row for _, row, _ in members], extra, LABELS, WIDTH - 8)
        bottom = y + ROW * len(members)
        _grid(d, axis, y, bottom, [*map(_signed_tick(axis.ticks(4)), axis.ticks(4))], axis.ticks(4))
        d.line(axis(0), y, axis(0), bottom, "zero")
        if y == 20:
            _directions(d, axis, 12)
        for k, (_, row, name) in enumerate(members):
            middle = y + ROW * (k + 0.5)
            d.text(0, middle + 4, shorten(row.name, LABELS - 6), "name strong" if name == c.claim["metric"] else "name")
            if margin and primary[k]:
                d.line(axis(-margin), middle - 10, axis(-margin), middle + 10, "margin")
            _interval(d, axis, row, middle, "c-student", "disc")
        _axis_title(d, axis, bottom, "difference" + (f", {unit}" if unit else ""))
        y = bottom + 44
    return d


def classes_shown(c: Certificate) -> list[Mapping[str, Any]]:
    """The entries by class that have an agreement, the least first, `CLASSES` at most."""
    entries = [e for e in by_class(c) if e["agreement"]["value"] is not None]
    return sorted(entries, key=lambda e: e["agreement"]["value"])[:CLASSES]


def agreement_by_class(c: Certificate) -> Drawing | None:
    """On which share of each class's rows student and teacher decide alike."""
    rows = [_row(str(e["name"]), Figure(**e["agreement"]), percent) for e in classes_shown(c)]
    if not rows:
        return None
    overall = one(c.fidelity.get("agreement"))
    values = [x for row in rows for x in (row.value, row.low, row.high) if x is not None] + ([overall] if overall is not None else [])
    low = min(values) - 0.04 * (1.0 - min(values)) - 0.002
    axis = Axis(max(0.0, low) if low < 0.9 else low, 1.0, LABELS, WIDTH - 14)
    bottom = 20 + ROW * len(rows)
    d = Drawing("agreement", "Agreement with the teacher by class", _told(rows, percent), WIDTH, bottom + 40)
    ticks = axis.ticks(4)
    _grid(d, axis, 20, bottom, _percent_ticks(ticks), ticks)
    if overall is not None:
        d.line(axis(overall), 16, axis(overall), bottom, "margin")
        x = min(max(axis(overall), LABELS + 30), WIDTH - 34)
        d.text(x, 11, f"all: {percent(overall)}", "small", "middle")
    for k, row in enumerate(rows):
        middle = 20 + ROW * (k + 0.5)
        d.text(0, middle + 4, shorten(row.name, LABELS - 6), "name", hover=row.name)
        _interval(d, axis, row, middle, "c-student", "disc")
    _axis_title(d, axis, bottom, "decisions alike")
    return d


def learning(curves: Sequence[Curve], metric: str, better: int) -> Drawing | None:
    """The validation score of every arm by epoch: seeds faint, their mean bold, the best epoch of each marked."""
    curves = [curve for curve in curves if curve.scores]
    if not curves:
        return None
    arms = [name for name, _ in groupby(curve.arm for curve in curves)]
    top = 8 + 18 * _legend_lines(arms)
    bottom = top + 200
    last = max(curve.epochs[-1] for curve in curves)
    down, clipped = _score_axis(curves, better, bottom, top + 6)
    across = Axis(0.0 if last > 1 else 0.5, last + 0.5, 46, WIDTH - 6)
    said = "; ".join(f"{control(arm)} {digits(_best(curves, arm, better))}" for arm in arms)
    d = Drawing("learning", "Learning curves", f"Best validation {metric_name(metric)}, mean over seeds: {said}.", WIDTH, bottom + 40)
    _ladder(d, down, 46, WIDTH - 6, metric_name(metric))
    whole = [t for t in across.ticks(6) if t == int(t) and t >= 1]
    for tick in whole or [1.0]:
        d.text(across(tick), bottom + 16, f"{tick:.0f}", "tick", "middle")
    d.text((46 + WIDTH) / 2, bottom + 34, "epoch" + ("; the first ones lie outside the frame" if clipped else ""), "small", "middle")
    d.shapes.append(f'<clipPath id="learning-c"><rect x="46" y="{top:g}" width="{WIDTH - 46:g}" height="{bottom - top + 1:g}"/></clipPath>')
    for k, arm in enumerate(arms):
        mine = [curve for curve in curves if curve.arm == arm]
        for curve in mine:
            points = [(across(e), down(s)) for e, s in zip(curve.epochs, curve.scores, strict=True)]
            d.path(points, f"curve arm{k} {'faint' if len(mine) > 1 else 'bold'}", clip_path="url(#learning-c)")
        if len(mine) > 1:
            d.path([(across(e), down(s)) for e, s in _mean_curve(mine)], f"curve arm{k} bold", clip_path="url(#learning-c)")
    for curve in curves:
        at, look = curve.best(better), f"arm{arms.index(curve.arm)} best"
        hover = f"{control(curve.arm)}, seed {curve.seed}: {digits(curve.scores[at])} after epoch {curve.epochs[at]}"
        d.mark(across(curve.epochs[at]), down(curve.scores[at]), "disc", look, 2.8, hover)
    _legend(d, arms)
    return d


def reliability(c: Certificate) -> list[tuple[str, Drawing]]:
    """A reliability diagram, with its heading, for the teacher, the student before its temperature, and as it ships."""
    found = c.pictures.get("reliability_positive") or c.pictures.get("reliability") or {}
    headings = {"teacher": "Teacher", "student raw": "Student before temperature", "student": "Student as it ships"}
    if "student raw" not in found:
        headings["student"] = "Student"
    return [(heading, _reliability(who, found[who], heading)) for who, heading in headings.items() if found.get(who, {}).get("said")]


def cost(c: Certificate) -> Drawing | None:
    """Time of one row against the primary metric: teacher and every file of the student, with the size of each."""
    metric = c.claim["metric"]
    q = c.quality.get(metric)
    if q is None:
        return None
    file = c.identity["student"].get("file", "student")
    who: dict[str, tuple[str, Figure]] = {"teacher": ("teacher", q.teacher), "student": (file, q.student)}
    who |= {name: (name, figure) for name, figure in q.files.items() if name != file and name in c.cost}
    points = []
    for key, (name, figure) in who.items():
        time = c.cost.get(key, {}).get("latency_p95_ms")
        if (x := one(time)) is not None and x > 0 and (y := one(figure)) is not None:
            size = one(c.cost[key].get("size_mb"))
            assert time is not None
            points.append((key, name, x, y, time, figure, bytes_of(size) if size else ""))
    if not points:
        return None
    times = [t for _, _, x, _, time, _, _ in points for t in (x, time.low, time.high) if t]
    scores = [s for _, _, _, y, _, figure, _ in points for s in (y, figure.low, figure.high) if s is not None]
    unit, factor = unit_row(times, "ms")
    bottom = 212.0
    across = Axis.around([t * factor for t in times], 46, WIDTH - 10, pad=0.12, log=True)
    down = Axis.around(scores, bottom, 12, pad=0.1)
    said = "; ".join(f"{name}: {milliseconds(x)}, {metric_name(metric)} {digits(y)}" for _, name, x, y, _, _, _ in points)
    d = Drawing("cost", "Cost against quality", said + ".", WIDTH, bottom + 40)
    _ladder(d, down, 46, WIDTH - 6, metric_name(metric) + ("" if q.better > 0 else ", less is better"))
    for tick in across.ticks(5):
        d.line(across(tick), 12, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 16, f"{tick:g}", "tick", "middle")
    d.text((46 + WIDTH) / 2, bottom + 34, f"one row, 95th percentile, {unit} (logarithmic)", "small", "middle")
    looks = {**LOOKS, **dict(zip([k for k, *_ in points if k not in LOOKS], OTHER_FILES, strict=False))}
    boxes: list[tuple[float, float, float, float]] = []
    for _, _, x, y, time, figure, _ in points:
        boxes.append((across(x * factor) - 6, down(y) - 6, across(x * factor) + 6, down(y) + 6))
        if figure.low is not None and figure.high is not None:
            boxes.append((across(x * factor) - 1, down(figure.high), across(x * factor) + 1, down(figure.low)))
        if time.low and time.high:
            boxes.append((across(time.low * factor), down(y) - 1, across(time.high * factor), down(y) + 1))
    for key, name, x, y, time, figure, size in points:
        look, shape = looks.get(key, OTHER_FILES[-1])
        px, py = across(x * factor), down(y)
        if figure.low is not None and figure.high is not None:
            d.line(px, down(figure.low), px, down(figure.high), f"whisker c-{look}")
        if time.low and time.high:
            d.line(across(time.low * factor), py, across(time.high * factor), py, f"whisker c-{look}")
        d.mark(px, py, shape, f"point c-{look}", 5, f"{name}: {milliseconds(x)}, {digits(y)}")
        label = name + (f", {size}" if size else "")
        lx, ly, anchor, box = _place(px, py, shorten(label, WIDTH - 60), boxes, (46, 12, WIDTH, bottom))
        boxes.append(box)
        d.text(lx, ly, shorten(label, WIDTH - 60), f"halo c-{look} tinted", anchor)
    return d


def numbers(c: Certificate) -> Drawing | None:
    """The student's numbers against the teacher's, of some test rows; on the line they are equal."""
    found = c.pictures.get("numbers")
    pairs = [(t, s) for t, s in zip(found["teacher"], found["student"], strict=True) if t is not None and s is not None] if found else []
    if not pairs:
        return None
    flat = [x for pair in pairs for x in pair]
    side = WIDTH - 60
    across, down = Axis.around(flat, 52, 52 + side, pad=0.04), Axis.around(flat, 8 + side, 8, pad=0.04)
    d = Drawing("numbers", "The student’s numbers against the teacher’s", f"{len(pairs):,} test rows.", WIDTH, side + 48)
    ticks = across.ticks(5)
    for tick, label in zip(ticks, _plain_ticks(ticks), strict=True):
        d.line(across(tick), 8, across(tick), 8 + side, "grid")
        d.line(52, down(tick), 52 + side, down(tick), "grid")
        d.text(across(tick), side + 24, label, "tick", "middle")
        d.text(46, down(tick) + 4, label, "tick", "end")
    d.line(across(across.low), down(down.low), across(across.high), down(down.high), "zero")
    d.cloud([(across(t), down(s)) for t, s in pairs], "cloud c-student")
    d.text(52 + side / 2, side + 42, "teacher", "small", "middle")
    d.add("text", "small", "student", transform=f"translate(10 {8 + side / 2:g}) rotate(-90)", text_anchor="middle")
    return d


# shared pieces of pictures


def _turned(name: str, figure: Figure, better: int) -> Row:
    """A difference turned so that more is better."""
    if figure.value is None:
        return Row(name, math.nan, None, None)
    ends = sorted(better * end for end in (figure.low, figure.high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    return _row(name, Figure(better * figure.value, low, high), signed)


def _row(name: str, figure: Figure, write: Any) -> Row:
    assert figure.value is not None
    note = f"{name}: {write(figure.value)}"
    if figure.low is not None and figure.high is not None:
        note += f" [{write(figure.low)}, {write(figure.high)}]"
    return Row(name, figure.value, figure.low, figure.high, note)


def _told(rows: Iterable[Row], _write: Any = None) -> str:
    return "; ".join(row.note for row in rows) + "."


def _difference_axis(rows: Sequence[Row], more: Iterable[float], start: float, end: float) -> Axis:
    ends = [x for row in rows for x in (row.value, row.low, row.high) if x is not None]
    return Axis.around([0.0, *ends, *more], start, end, pad=0.07)


def _interval(d: Drawing, axis: Axis, row: Row, y: float, look: str, shape: str) -> None:
    if row.low is not None and row.high is not None:
        d.line(axis(row.low), y, axis(row.high), y, f"whisker {look}")
        for end in (row.low, row.high):
            d.line(axis(end), y - 4, axis(end), y + 4, f"cap {look}")
    d.mark(axis(row.value), y, shape, f"point {look}", 4.5, row.note)


def _grid(d: Drawing, axis: Axis, top: float, bottom: float, labels: Sequence[str], ticks: Sequence[float]) -> None:
    for tick, label in zip(ticks, labels, strict=True):
        d.line(axis(tick), top, axis(tick), bottom, "grid")
        d.text(axis(tick), bottom + 15, label, "tick", "middle")


def _axis_title(d: Drawing, axis: Axis, bottom: float, words: str) -> None:
    d.text((axis.start + axis.end) / 2, bottom + 32, words, "small", "middle")


def _directions(d: Drawing, axis: Axis, y: float) -> None:
    """Which side is better, where there is room to say it."""
    zero = axis(0)
    if zero - axis.start > 62:
        d.text(zero - 8, y, "← worse", "small", "end")
    if axis.end - zero > 62:
        d.text(zero + 8, y, "better →", "small")


def _ladder(d: Drawing, down: Axis, left: float, right: float, name: str) -> None:
    """Horizontal grid lines with their numbers, and the name of the axis along it."""
    ticks = down.ticks(5)
    for tick, label in zip(ticks, _plain_ticks(ticks), strict=True):
        d.line(left, down(tick), right, down(tick), "grid")
        d.text(left - 6, down(tick) + 4, label, "tick", "end")
    d.add("text", "small", name, transform=f"translate(9 {(down.start + down.end) / 2:g}) rotate(-90)", text_anchor="middle")


def _decimals(ticks: Sequence[float]) -> int:
    """As many decimals as tell all ticks apart and exactly."""
    return next((n for n in range(7) if all(abs(round(t, n) - t) < 1e-9 * max(1.0, abs(t)) for t in ticks)), 7)


def _plain_ticks(ticks: Sequence[float]) -> list[str]:
    if ticks and max(map(abs, ticks)) >= 1e5:
        return [f"{t:.3g}" for t in ticks]
    return [f"{t:.{_decimals(ticks)}f}".replace("-", "−") for t in ticks]


def _percent_ticks(ticks: Sequence[float]) -> list[str]:
    return [f"{label} %" for label in _plain_ticks([round(t * 100, 9) for t in ticks])]


def _signed_tick(ticks: Sequence[float]) -> Any:
    decimals = _decimals(ticks)
    return lambda t: "0" if t == 0 else f"{'+' if t > 0 else '−'}{abs(t):.{decimals}f}"


def _best(curves: Sequence[Curve], arm: str, better: int) -> float:
    found = [curve.scores[curve.best(better)] for curve in curves if curve.arm == arm]
    return sum(found) / len(found)


def _score_axis(curves: Sequence[Curve], better: int, bottom: float, top: float) -> tuple[Axis, bool]:
    """An axis for scores, on which the steep first epochs may fall out of the frame where they would flatten the rest."""
    everything = [s for curve in curves for s in curve.scores]
    late = [s for curve in curves for s in curve.scores[len(curve.scores) // 4 :]]
    whole, close = Axis.around(everything, bottom, top), Axis.around(late, bottom, top)
    if (whole.high - whole.low) > 2 * (close.high - close.low):
        outside = [s for s in everything if not close.low <= s <= close.high]
        if all((s < close.low) == (better > 0) for s in outside):
            return close, True
    return whole, False


def _mean_curve(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """The mean over seeds at the epochs that all of them have: later the mean would change because seeds leave it."""
    tables = [dict(zip(curve.epochs, curve.scores, strict=True)) for curve in curves]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return [(epoch, sum(table[epoch] for table in tables) / len(tables)) for epoch in shared] or [(curves[0].epochs[0], curves[0].scores[0])]


def _legend_places(arms: Sequence[str]) -> list[tuple[float, int]]:
    places, x, line = [], 46.0, 0
    for arm in arms:
        width = 26 + CHARACTER * len(shorten(control(arm), 180)) + 14
        if x + width > WIDTH and x > 46:
            x, line = 46.0, line + 1
        places.append((x, line))
        x += width
    return places


def _legend_lines(arms: Sequence[str]) -> int:
    return _legend_places(arms)[-1][1] + 1


def _legend(d: Drawing, arms: Sequence[str]) -> None:
    for k, (arm, (x, line)) in enumerate(zip(arms, _legend_places(arms), strict=True)):
        d.path([(x, 10 + 18 * line), (x + 20, 10 + 18 * line)], f"curve arm{k} bold")
        d.text(x + 26, 14 + 18 * line, shorten(control(arm), 180), "name")


def _reliability(who: str, points: Mapping[str, Sequence[float]], heading: str) -> Drawing:
    look, shape = LOOKS["teacher" if who == "teacher" else "student"]
    left, top, side = 34.0, 6.0, 156.0
    across, down = Axis(0, 1, left, left + side), Axis(0, 1, top + side, top)
    bins = list(zip(points["low"], points["high"], points["count"], points["said"], points["came"], strict=True))
    said = "; ".join(f"said {percent(s)}, came true {percent(came)} of {count:,.0f}" for _, _, count, s, came in bins)
    name = "reliability-" + who.replace(" ", "-")
    d = Drawing(name, f"Reliability: {heading}", said + ".", left + side + 8, top + side + 84)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        d.line(left, down(tick), left + side, down(tick), "grid")
        d.line(across(tick), top, across(tick), top + side, "grid")
        if tick in (0, 0.5, 1):
            d.text(left - 5, down(tick) + 4, f"{tick:g}", "tick", "end")
    d.line(across(0), down(0), across(1), down(1), "zero")
    most = max(count for _, _, count, _, _ in bins)
    base = top + side + 40
    for low, high, count, p, came in bins:
        height = 30 * count / most
        d.add("rect", f"bar c-{look}", x=across(low) + 0.5, y=base - height, width=across(high) - across(low) - 1, height=max(height, 0.6))
        if count >= 1 and float(count).is_integer():
            ends = wilson(round(came * count), round(count))
            d.line(across(p), down(ends[0]), across(p), down(ends[1]), f"whisker thin c-{look}")
    d.path([(across(p), down(came)) for _, _, _, p, came in bins], f"curve thin c-{look}")
    for _, _, count, p, came in bins:
        d.mark(across(p), down(came), shape, f"point c-{look}", 3, f"said {percent(p)}, came true {percent(came)} of {count:,.0f}")
    for tick in (0, 0.5, 1):
        d.text(across(tick), base + 15, f"{tick:g}", "tick", "middle")
    d.text(left + side / 2, base + 32, "probability said", "small", "middle")
    d.add("text", "small", "share that came true", transform=f"translate(8 {top + side / 2:g}) rotate(-90)", text_anchor="middle")
    return d


Box = tuple[float, float, float, float]


def _place(x: float, y: float, label: str, taken: Sequence[Box], frame: Box) -> tuple[float, float, str, Box]:
    """Where a label beside a point covers nothing: its position, anchor and box; the first of the places where it must cover."""
    wide = CHARACTER * len(label)
    places = []
    for dy in (0.0, -13.0, 13.0, -26.0, 26.0, -40.0, 40.0):
        places.append((x + 10, y + dy + 4, "start", (x + 9, y + dy - 6, x + 11 + wide, y + dy + 6)))
        places.append((x - 10, y + dy + 4, "end", (x - 11 - wide, y + dy - 6, x - 9, y + dy + 6)))
    inside = [p for p in places if p[3][0] >= frame[0] and p[3][2] <= frame[2] and p[3][1] >= frame[1] and p[3][3] <= frame[3]]
    free = [p for p in inside if not any(_cover(p[3], box) for box in taken)]
    return (free or inside or places)[0]


def _cover(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
