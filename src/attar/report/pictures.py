"""The pictures of the page, each from a certificate; None where there is nothing to draw.

Right is better in every picture of differences. Intervals are 95 %, and nothing is drawn that has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from attar.certificate import Certificate, Figure, Quality, digits, metric_name, signed
from attar.report.drawing import LEFT, WIDTH, Axis, Drawing, decimals_of, ladder, legend, plain_ticks, shorten
from attar.report.history import Curve
from attar.report.words import by_class, bytes_of, control, milliseconds, one, percent, unit_row
from attar.statistics import wilson

__all__ = [
    "CLASSES",
    "agreement_by_class",
    "agreement_elsewhere",
    "agreement_given",
    "beside",
    "classes_shown",
    "cost",
    "differences",
    "gains",
    "learning",
    "numbers",
    "reliability",
    "shift",
]

LABELS = 132.0  # pixels for the names of rows
ROW = 24.0
FEW = 10  # a bin of fewer decisions is drawn faintly, and no line goes through it
CLASSES = 24  # drawn at most, those with the least agreement
GIVEN = {
    "agreement": "all decisions",
    "agreement_teacher_right": "teacher right",
    "agreement_teacher_wrong": "teacher wrong",
    "agreement_teacher_positive": "teacher positive",
}
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
        rows.append(_turned(control(name), gain, q.better))
        pairs = zip(q.seeds.get("student", ()), q.seeds.get(name, ()), strict=False)
        dots[rows[-1].name] = [(a - b) * q.better for a, b in pairs if math.isfinite(a - b)]
    if not rows:
        return None
    margin = c.helped.margin
    spread = [x for found in dots.values() for x in found]
    axis = _difference_axis(rows, [*spread, *((-margin, margin) if margin else ())], LABELS, WIDTH - 8)
    tall = 46.0
    bottom = 20 + tall * len(rows)
    d = Drawing("gains", "Gain over the controls", _told(rows), WIDTH, bottom + 40)
    if margin:
        d.add("rect", "band", x=axis(-margin), y=20, width=axis(margin) - axis(-margin), height=bottom - 20)
    _grid(d, axis, 20, bottom, _signed_ticks(axis.ticks(4)), axis.ticks(4))
    d.line(axis(0), 20, axis(0), bottom, "zero")
    _directions(d, axis, 12)
    for k, row in enumerate(rows):
        middle = 20 + tall * (k + 0.5)
        d.text(0, middle + 4, shorten(row.name, LABELS - 6), "name", hover=row.name)
        for x in dots[row.name]:
            d.mark(axis(x), middle + 10, "disc", "c-student faint-mark", 3.2, f"one seed: {signed(x)}")
        _interval(d, axis, row, middle - 7, "c-student", "diamond")
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
        _grid(d, axis, y, bottom, _signed_ticks(axis.ticks(4)), axis.ticks(4))
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


def beside(name: str, title: str, found: Sequence[tuple[str, Figure, int]], words: str, margin: float | None) -> Drawing | None:
    """Differences of several runs on one scale: (run, difference, +1 where more is better), turned so that right of the line is better.

    margin: where "no worse than the teacher" ends; None draws none.
    """
    rows = [_turned(run, figure, better) for run, figure, better in found if one(figure) is not None]
    if not rows:
        return None
    axis = _difference_axis(rows, [-margin] if margin else [], LABELS, WIDTH - 8)
    bottom = 20 + ROW * len(rows)
    d = Drawing(name, title, _told(rows), WIDTH, bottom + 40)
    _grid(d, axis, 20, bottom, _signed_ticks(axis.ticks(4)), axis.ticks(4))
    d.line(axis(0), 20, axis(0), bottom, "zero")
    if margin:
        d.line(axis(-margin), 20, axis(-margin), bottom, "margin")
    _directions(d, axis, 12)
    for k, row in enumerate(rows):
        middle = 20 + ROW * (k + 0.5)
        d.text(0, middle + 4, shorten(row.name, LABELS - 6), "name", hover=row.name)
        _interval(d, axis, row, middle, "c-student", "disc")
    _axis_title(d, axis, bottom, words)
    return d


def shift(c: Certificate) -> Drawing | None:
    """The primary metric of teacher and student at home and elsewhere; where nothing has a label, their likeness."""
    metric = c.claim["metric"]
    title, marks = metric_name(metric), list[tuple[str, list[tuple[str, str, Figure]]]]()  # by place: look, shape, figure
    if _judged_elsewhere(c):
        title += ", less is better" if c.quality[metric].better < 0 else ""
        found = {"at home": c.quality, **{name: s.quality for name, s in c.shift.items()}}
        for name, by in found.items():
            if metric in by:
                arms = [("control", "triangle", f) for arm, f in by[metric].arms.items() if arm != "student"]
                marks.append((name, [*arms, ("teacher", "square", by[metric].teacher), ("student", "disc", by[metric].student)]))
    elif first := next(iter(c.fidelity), None):
        title = f"{metric_name(first)} with the teacher"
        figures = {"at home": c.fidelity, **{name: s.fidelity for name, s in c.shift.items()}}
        marks = [(name, [("student", "disc", by[first])]) for name, by in figures.items()]
    marks = [(name, there) for name, every in marks if (there := [m for m in every if one(m[2]) is not None])]
    if not c.shift or len(marks) < 2:
        return None
    axis = Axis.around([x for _, every in marks for *_, figure in every for x in _known(figure)], LABELS, WIDTH - 12)
    named = {"teacher": "teacher", "student": "student, as it ships", "control": "controls, before export"}
    looks = {look: shape for _, every in marks for look, shape, _ in every}
    places, top = legend([named[look] for look in looks])
    tall = 34.0
    bottom = top + tall * len(marks)
    told = "; ".join(f"{name}: " + ", ".join(f"{look} {digits(_value(f))}" for look, _, f in every) for name, every in marks)
    d = Drawing("shift", f"At home and elsewhere: {title}", told + ".", WIDTH, bottom + 40)
    ticks = axis.ticks(4)
    _grid(d, axis, top, bottom, plain_ticks(ticks), ticks)
    for (look, shape), (x, y) in zip(looks.items(), places, strict=True):
        d.mark(x + 13, y, shape, f"point c-{_colour(look)}", 4)
        d.text(x + 24, y + 4, named[look], "name")
    for k, (name, every) in enumerate(marks):
        middle = top + tall * (k + 0.5)
        d.text(0, middle + 4, shorten(name, LABELS - 6), "name strong" if k == 0 else "name", hover=name)
        for look, shape, figure in every:
            at = middle + {"teacher": -6.0, "student": 6.0}.get(look, 0.0)
            if look != "control" and figure.low is not None and figure.high is not None:
                d.line(axis(figure.low), at, axis(figure.high), at, f"whisker c-{look}")
            d.mark(axis(_value(figure)), at, shape, f"point c-{_colour(look)}", 4, f"{name}, {named[look]}: {digits(_value(figure))}")
    _axis_title(d, axis, bottom, title)
    return d


def _judged_elsewhere(c: Certificate) -> bool:
    return c.claim["metric"] in c.quality and any(c.claim["metric"] in s.quality for s in c.shift.values())


def _colour(look: str) -> str:
    return "file1" if look == "control" else look


def classes_shown(c: Certificate) -> list[Mapping[str, Any]]:
    """The entries by class that have an agreement, the least first, `CLASSES` at most."""
    entries = [e for e in by_class(c) if e["agreement"]["value"] is not None]
    return sorted(entries, key=lambda e: e["agreement"]["value"])[:CLASSES]


def agreement_by_class(c: Certificate) -> Drawing | None:
    """On which share of each class's rows student and teacher decide alike."""
    rows = [_row(str(e["name"]), Figure(**e["agreement"]), percent) for e in classes_shown(c)]
    return _agreements("agreement", "Agreement with the teacher by class", rows, one(c.fidelity.get("agreement")))


def agreement_given(c: Certificate) -> Drawing | None:
    """On which share of all rows student and teacher decide alike, and of those where the teacher is right, wrong, or says positive."""
    found = [(what, c.fidelity.get(name)) for name, what in GIVEN.items()]
    rows = [_row(what, figure, percent) for what, figure in found if figure is not None and one(figure) is not None]
    return _agreements("likeness", "Agreement with the teacher, by what the teacher says", rows, None)


def agreement_elsewhere(c: Certificate) -> Drawing | None:
    """On which share of rows student and teacher decide alike, at home and elsewhere; where no label is known there, `shift` shows it."""
    if not _judged_elsewhere(c):
        return None
    places = {"at home": c.fidelity, **{name: s.fidelity for name, s in c.shift.items()}}
    found = [(name, f) for name, figures in places.items() if one(f := figures.get("agreement", Figure(None))) is not None]
    return _agreements("elsewhere", "Agreement at home and elsewhere", [_row(name, f, percent) for name, f in found], None)


def _agreements(name: str, title: str, rows: Sequence[Row], overall: float | None) -> Drawing | None:
    if not rows:
        return None
    values = [x for row in rows for x in (row.value, row.low, row.high) if x is not None] + ([overall] if overall is not None else [])
    low = min(values) - 0.04 * (1.0 - min(values)) - 0.002
    axis = Axis(max(0.0, low) if low < 0.9 else low, 1.0, LABELS, WIDTH - 18)
    bottom = 20 + ROW * len(rows)
    d = Drawing(name, title, _told(rows), WIDTH, bottom + 40)
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
    names = [shorten(control(arm), 180) for arm in arms]
    places, top = legend(names)
    bottom = top + 200
    last = max(curve.epochs[-1] for curve in curves)
    down, clipped = _score_axis(curves, better, bottom, top + 6)
    room = max(0.3, 0.03 * last)
    across = Axis(1 - room, last + room, LEFT, WIDTH - 6)
    said = "; ".join(f"{control(arm)} {digits(_best(curves, arm, better))}" for arm in arms)
    d = Drawing("learning", "Learning curves", f"Best validation {metric_name(metric)}, mean over seeds: {said}.", WIDTH, bottom + 40)
    ladder(d, down, LEFT, WIDTH - 6, metric_name(metric))
    whole = [t for t in across.ticks(6) if t == int(t) and t >= 1]
    for tick in whole or [1.0]:
        d.text(across(tick), bottom + 16, f"{tick:.0f}", "tick", "middle")
    d.text((LEFT + WIDTH) / 2, bottom + 34, "epoch" + ("; the first ones lie outside the frame" if clipped else ""), "small", "middle")
    frame = f'<rect x="{LEFT:g}" y="{top:g}" width="{WIDTH - LEFT:g}" height="{bottom - top + 1:g}"/>'
    d.shapes.append(f'<clipPath id="learning-c">{frame}</clipPath>')
    for k, arm in enumerate(arms):
        mine = [curve for curve in curves if curve.arm == arm]
        for curve in mine:
            points = [(across(e), down(s)) for e, s in zip(curve.epochs, curve.scores, strict=True)]
            d.path(points, f"curve arm{k} {'faint' if len(mine) > 1 else 'bold'}", clip_path="url(#learning-c)")
        if len(mine) > 1 and (mean := _mean_curve(mine)):
            d.path([(across(e), down(s)) for e, s in mean], f"curve arm{k} bold", clip_path="url(#learning-c)")
    for curve in curves:
        at, look = curve.best(better), f"arm{arms.index(curve.arm)} best"
        hover = f"{control(curve.arm)}, seed {curve.seed}: {digits(curve.scores[at])} after epoch {curve.epochs[at]}"
        d.mark(across(curve.epochs[at]), down(curve.scores[at]), "disc", look, 2.8, hover)
    for k, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        d.path([(x, y), (x + 20, y)], f"curve arm{k} bold")
        d.text(x + 26, y + 4, name, "name")
    return d


def reliability(c: Certificate) -> list[tuple[str, Drawing]]:
    """A reliability diagram, with its heading, for the teacher, the student before its temperature, and as it ships."""
    found = c.pictures.get("reliability_positive") or c.pictures.get("reliability") or {}
    headings = {"teacher": "Teacher", "student raw": "Student, raw", "student": "Student, as it ships"}
    if "student raw" not in found:
        headings["student"] = "Student"
    return [(heading, _reliability(who, found[who], heading)) for who, heading in headings.items() if found.get(who, {}).get("said")]


class Priced(NamedTuple):
    """One point of the picture of costs. look: whose colour; time: of one row, ms; score: of the primary metric."""

    name: str
    look: str
    shape: str
    time: Figure
    score: Figure


def cost(c: Certificate) -> Drawing | None:
    """Time of one row against the primary metric: teacher and every file of the student, with the size of each."""
    q = c.quality.get(c.claim["metric"])
    points = [] if q is None else _priced(c, q)
    if q is None or not points:
        return None
    metric = metric_name(c.claim["metric"])
    unit, factor = unit_row([x for p in points for x in (p.time.value, p.time.low)], "ms", 1.0)
    places, top = legend([p.name for p in points])
    bottom = top + 200
    across = Axis.around([x * factor for p in points for x in _known(p.time) if x > 0], LEFT, WIDTH - 12, pad=0.1, log=True)
    down = Axis.around([x for p in points for x in _known(p.score)], bottom, top, pad=0.08)
    said = "; ".join(f"{p.name}: {milliseconds(_value(p.time))}, {metric} {digits(_value(p.score))}" for p in points)
    d = Drawing("cost-picture", "Cost against quality", said + ".", WIDTH, bottom + 40)
    ladder(d, down, LEFT, WIDTH - 6, metric + ("" if q.better > 0 else ", less is better"))
    for tick in across.ticks(5):
        d.line(across(tick), top, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 16, f"{tick:g}", "tick", "middle")
    d.text((LEFT + WIDTH) / 2, bottom + 34, f"one row, 95th percentile, {unit} (logarithmic)", "small", "middle")
    for p, (x, y) in zip(points, places, strict=True):
        at, high = across(_value(p.time) * factor), down(_value(p.score))
        if p.score.low is not None and p.score.high is not None:
            d.line(at, down(p.score.low), at, down(p.score.high), f"whisker c-{p.look}")
        if p.time.low and p.time.high:
            d.line(across(p.time.low * factor), high, across(p.time.high * factor), high, f"whisker c-{p.look}")
        d.mark(at, high, p.shape, f"point c-{p.look}", 5, f"{p.name}: {milliseconds(_value(p.time))}, {digits(_value(p.score))}")
        d.mark(x + 13, y, p.shape, f"point c-{p.look}", 5)
        d.text(x + 24, y + 4, p.name, "name")
    return d


def _priced(c: Certificate, q: Quality) -> list[Priced]:
    """Teacher and files whose time and score are known."""
    file = c.identity["student"].get("file", "student")
    others = [name for name in q.files if name != file]
    who = [("teacher", "teacher", q.teacher, ("teacher", "square")), ("student", file, q.student, ("student", "disc"))]
    who += [(name, name, q.files[name], OTHER_FILES[k % len(OTHER_FILES)]) for k, name in enumerate(others)]
    points = []
    for key, name, score, (look, shape) in who:
        figures = c.cost.get(key, {})
        time, size = figures.get("latency_p95_ms"), one(figures.get("size_mb"))
        if time is not None and one(time) and one(score) is not None:
            points.append(Priced(shorten(name, 180) + (f", {bytes_of(size)}" if size else ""), look, shape, time, score))
    return points


def numbers(c: Certificate) -> Drawing | None:
    """The student's numbers against the teacher's, of some test rows, or cosines, of some pairs of texts; on the line they are equal."""
    similar = "similarities" in c.pictures
    found = c.pictures.get("similarities" if similar else "numbers")
    pairs = [(t, s) for t, s in zip(found["teacher"], found["student"], strict=True) if t is not None and s is not None] if found else []
    if not pairs:
        return None
    flat = [x for pair in pairs for x in pair]
    side = WIDTH - 60
    across, down = Axis.around(flat, 52, 52 + side, pad=0.04), Axis.around(flat, 8 + side, 8, pad=0.04)
    what, counted = ("cosines", "pairs of texts") if similar else ("numbers", "test rows")
    d = Drawing("numbers", f"The student’s {what} against the teacher’s", f"{len(pairs):,} {counted}.", WIDTH, side + 48)
    ticks = across.ticks(5)
    for tick, label in zip(ticks, plain_ticks(ticks), strict=True):
        d.line(across(tick), 8, across(tick), 8 + side, "grid")
        d.line(52, down(tick), 52 + side, down(tick), "grid")
        d.text(across(tick), side + 24, label, "tick", "middle")
        d.text(46, down(tick) + 4, label, "tick", "end")
    d.line(across(across.low), down(down.low), across(across.high), down(down.high), "zero diagonal")
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


def _value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def _known(figure: Figure) -> list[float]:
    """Value and ends of the interval, those that there are."""
    return [x for x in (figure.value, figure.low, figure.high) if x is not None]


def _row(name: str, figure: Figure, write: Callable[[float], str]) -> Row:
    assert figure.value is not None
    note = f"{name}: {write(figure.value)}"
    if figure.low is not None and figure.high is not None:
        note += f" [{write(figure.low)}, {write(figure.high)}]"
    return Row(name, figure.value, figure.low, figure.high, note)


def _told(rows: Iterable[Row]) -> str:
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


def _percent_ticks(ticks: Sequence[float]) -> list[str]:
    return [f"{label} %" for label in plain_ticks([round(t * 100, 9) for t in ticks])]


def _signed_ticks(ticks: Sequence[float]) -> list[str]:
    decimals = decimals_of(ticks)
    return ["0" if t == 0 else f"{'+' if t > 0 else '−'}{abs(t):.{decimals}f}" for t in ticks]


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
    return [(epoch, sum(table[epoch] for table in tables) / len(tables)) for epoch in shared]


def _reliability(who: str, points: Mapping[str, Sequence[float]], heading: str) -> Drawing:
    look, shape = ("teacher", "square") if who == "teacher" else ("student", "disc")
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
    d.line(across(0), down(0), across(1), down(1), "zero diagonal")
    most = max(count for _, _, count, _, _ in bins)
    base = top + side + 40
    for low, high, count, p, came in bins:
        height = 30 * count / most
        d.add("rect", f"bar c-{look}", x=across(low) + 0.5, y=base - height, width=across(high) - across(low) - 1, height=max(height, 0.6))
        if count >= 1 and float(count).is_integer():
            ends = wilson(round(came * count), round(count))
            d.line(across(p), down(ends[0]), across(p), down(ends[1]), f"whisker thin c-{look}")
    if many := [(across(p), down(came)) for _, _, count, p, came in bins if count >= FEW]:
        d.path(many, f"curve thin c-{look}")
    for _, _, count, p, came in bins:
        mark = f"point c-{look}" if count >= FEW else f"faint-mark c-{look}"
        d.mark(across(p), down(came), shape, mark, 3, f"said {percent(p)}, came true {percent(came)} of {count:,.0f}")
    for tick in (0, 0.5, 1):
        d.text(across(tick), base + 15, f"{tick:g}", "tick", "middle")
    d.text(left + side / 2, base + 32, "probability said", "small", "middle")
    d.add("text", "small", "share that came true", transform=f"translate(8 {top + side / 2:g}) rotate(-90)", text_anchor="middle")
    return d
