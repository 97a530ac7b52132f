"""The guard on the page: the curve of answered share against disagreement, what was kept in each cell, and the cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attar.certificate import Certificate, Figure, Guarding, Kept, digits, metric_name
from attar.report.drawing import Axis, Drawing
from attar.report.tables import Cell, Table
from attar.report.words import interval, milliseconds, percent

__all__ = ["cascade", "curve", "kept", "passing"]

WIDTH, LEFT, TOP, HIGH = 380.0, 58.0, 22.0, 200.0
NOTHING = "–"
WRITTEN: Mapping[str, Callable[[float], str]] = {"latency_ms": milliseconds, "teacher_asked": percent}
FEWEST = 0.02  # share answered below which a curve of a few rows only jumps
STEADY = 0.15  # from which on its interval has to fit into the picture


def curve(c: Certificate) -> Drawing | None:
    """Of ever more rows answered, the surest first, how many are wrong: test rows, with the promise and the point that was certified."""
    g = c.guard
    if g is None or not g.curve.get("answered"):
        return None
    points = [p for p in zip(*(g.curve[n] for n in ("answered", "errors", "low", "high")), strict=True) if p[0] >= FEWEST]
    if not points:
        return None
    bottom = TOP + HIGH
    at, rate = _point(g)
    highs: list[float] = [high for share, _, _, high in points if share >= STEADY]
    most = max([1.25 * g.epsilon, *highs, rate.high or 0.0 if rate else 0.0])
    across, up = Axis(0, 1, LEFT, WIDTH - 12), Axis(0, most * 1.05, bottom, TOP)
    said = f"Answering every row: {percent(points[-1][1])}. Promised: at most {percent(g.epsilon)}."
    said += f" As certified: {percent(at)} answered, {percent(rate.value)} of them wrong." if rate and rate.value is not None else ""
    d = Drawing("guard-curve", f"Share answered against {g.error}", said, WIDTH, bottom + 40)
    for share in (0, 0.25, 0.5, 0.75, 1):
        d.line(across(share), TOP, across(share), bottom, "grid")
        d.text(across(share), bottom + 15, f"{100 * share:.0f} %", "tick", "middle")
    for tick in up.ticks(5):
        d.line(LEFT, up(tick), WIDTH - 12, up(tick), "grid")
        d.text(LEFT - 6, up(tick) + 4, f"{100 * tick:.3g} %", "tick", "end")
    band = [(across(s), up(low)) for s, _, low, _ in points] + [(across(s), up(min(high, up.high))) for s, _, _, high in reversed(points)]
    d.add("polygon", "band", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in band))
    d.path([(across(s), up(min(e, up.high))) for s, e, _, _ in points], "curve bold c-student")
    d.line(LEFT, up(g.epsilon), WIDTH - 12, up(g.epsilon), "margin")
    d.text(LEFT + 4, up(g.epsilon) - 5, f"promised: at most {percent(g.epsilon)}", "small")
    if rate and rate.value is not None:
        x, y = across(at), up(rate.value)
        if rate.low is not None and rate.high is not None:
            d.line(x, up(rate.low), x, up(rate.high), "whisker c-student")
        d.mark(x, y, "diamond", "point c-student", 5, f"certified: answers {percent(at)}, {percent(rate.value)} of them wrong")
        d.text(min(x, WIDTH - 40), TOP - 8, f"certified: {percent(at)} answered", "small", "end" if at > 0.5 else "start")
    d.text((LEFT + WIDTH) / 2, bottom + 34, "share of test rows that the student answers", "small", "middle")
    d.add("text", "small", g.error, transform=f"translate(9 {(TOP + bottom) / 2:g}) rotate(-90)", text_anchor="middle")
    return d


def kept(c: Certificate) -> Table | None:
    """What the guard answers and how often it is wrong, on test rows: all of them, in each cell, and of each other graph."""
    g = c.guard
    if g is None:
        return None
    who = "teacher decides" if g.target == "teacher" else "label is"
    rows = [_kept("all", g.whole)]
    rows += [_kept(f"{who} {name}", cell) for name, cell in g.cells.items()]
    rows += [_kept(f"student says {name}", cell) for name, cell in g.said.items()]
    rows += [_kept(f"{of} {name}", cell) for of, parts in g.groups.items() for name, cell in parts.items()]
    rows += [_kept(name.removesuffix(".onnx"), cell) for name, cell in g.files.items()]
    head = ("", "rows", "answered", g.error, "answering all", "bound")
    notes = (
        f"Bound: with {100 * (1 - g.delta):.12g} % confidence the rate is no larger, by so many calibration rows "
        "(Clopper–Pearson, one-sided).",
        "Small: Wilson intervals of the share and the rate on test rows, which had no part in choosing.",
    )
    return Table(f"The guard on {g.whole.rows:,} test rows", head, tuple(rows), notes)


def passing(c: Certificate) -> Table | None:
    """Test rows and foreign ones: how many are answered, and what stops the others; None where only test rows could be told of."""
    g = c.guard
    if g is None or g.home is None or (g.floor is None and not (g.foreign and g.certified)):
        return None
    floored = g.floor is not None
    rows = []
    for name, some in (("test rows", g.home), *g.foreign.items()):
        shares = (some.answered, some.confident, some.below) if floored else (some.answered,)
        rows.append((Cell(name), Cell(f"{some.rows:,}"), *map(_share, shares)))
    head = ("", "rows", "answered", *(("by confidence alone", "below the floor") if floored else ()))
    notes = (
        [f"The floor: no row of less energy (log Σ exp of the logits) than {digits(g.floor).strip()} is answered."]
        if g.floor is not None
        else []
    )
    if floored:
        notes.append("By confidence alone: at the same thresholds.")
    if g.foreign:
        notes.append(
            "Of foreign rows nothing is promised: these are shares of those that were asked. Test rows and rows learned from are left out."
        )
    return Table(
        "Who is answered: rows of the task, and foreign ones" if g.foreign else "Who is answered",
        head,
        tuple(rows),
        (*notes, "Wilson intervals."),
    )


def cascade(c: Certificate) -> Table | None:
    """Teacher, student and the two together."""
    g = c.guard
    if g is None or not g.cascade:
        return None
    rows = []
    for name, figures in g.cascade.items():
        what = {"latency_ms": "one row, expected", "teacher_asked": "rows that ask the teacher"}.get(name, metric_name(name))
        cells = [_cell(name, figures.get(who)) for who in ("teacher", "student", "cascade")]
        difference = figures.get("difference")
        last = Cell(NOTHING) if difference is None or difference.value is None else Cell(interval(difference, difference=True))
        rows.append((Cell(what, "less is better" if g.better.get(name, 1) < 0 else ""), *cells, last))
    return Table(
        "The student where it answers, the teacher elsewhere", ("", "teacher", "student", "cascade", "cascade − teacher"), tuple(rows)
    )


def _point(g: Guarding) -> tuple[float, Figure | None]:
    """Where the certified guard lies on test rows: its share answered, and its rate of errors."""
    share = g.whole.answered.value
    return (share, g.whole.errors) if g.certified and share else (0.0, None)


def _kept(name: str, cell: Kept) -> tuple[Cell, ...]:
    needed = "" if cell.needed is None else f", about {cell.needed:,} needed"
    bound = Cell(NOTHING) if cell.bound is None else Cell(percent(cell.bound), f"{cell.calibration_rows:,}{needed}")
    return (Cell(name), Cell(f"{cell.rows:,}"), _share(cell.answered), _share(cell.errors), Cell(_share(cell.unguarded).text), bound)


def _share(figure: Figure) -> Cell:
    if figure.value is None:
        return Cell(NOTHING)
    both = figure.low is not None and figure.high is not None
    return Cell(percent(figure.value), f"[{percent(figure.low)}, {percent(figure.high)}]" if both else "")  # pyright: ignore[reportArgumentType] not None, see both


def _cell(name: str, figure: Figure | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    said = WRITTEN.get(name, digits)
    both = figure.low is not None and figure.high is not None
    return Cell(said(figure.value), f"[{said(figure.low)}, {said(figure.high)}]" if both else "")  # pyright: ignore[reportArgumentType] not None, see both
