"""The tables of the page, each from a certificate; None where it would be empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from attar.certificate import Certificate, Figure, Quality, digits, metric_name, signed
from attar.report.words import control, interval, significant, unit_row

__all__ = ["NOTHING", "Cell", "Table", "calibration", "cost", "fidelity", "procedure", "quality", "shift"]

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A text, and a smaller one under it; `under` is often an interval."""

    text: str
    under: str = ""


@dataclass(frozen=True)
class Table:
    """head: the names of the columns. rows: the first cell of each is its name. notes: how the numbers were found."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def procedure(c: Certificate) -> Table | None:
    """Every metric of the procedure and its controls, mean over seeds."""
    arms = {arm: None for q in c.quality.values() for arm in q.arms}
    if "student" not in arms or len(arms) < 2:
        return None
    controls = [arm for arm in arms if arm != "student"]
    rows = []
    for metric, q in c.quality.items():
        cells = [_metric(metric, q, c), _figure(q.arms.get("student"))]
        for arm in controls:
            gain = q.gains.get(arm)
            under = interval(gain, difference=True) if gain and gain.value is not None else ""
            cells.append(Cell(_figure(q.arms.get(arm)).text, under))
        rows.append(tuple(cells))
    seeds = max((f.n for q in c.quality.values() for f in q.arms.values()), default=0)
    caption = f"Student and controls as trained, before export: mean over {seeds:,} seed{'s' if seeds != 1 else ''}"
    figures = (f for q in c.quality.values() for f in q.gains.values())
    return Table(
        caption,
        ("", control("student"), *map(control, controls)),
        tuple(rows),
        ("Small: student − control, with its interval.", *_notes(figures, "Intervals")),
    )


def quality(c: Certificate) -> Table | None:
    """Every metric of teacher and student, and the difference."""
    if not c.quality:
        return None
    file = c.identity["student"].get("file", "student")
    others = list(dict.fromkeys(name for q in c.quality.values() for name in q.files if name != file))
    rows = [
        (
            _metric(metric, q, c),
            _figure(q.teacher),
            _figure(q.student),
            _figure(q.difference, signed),
            *(_figure(q.files.get(name)) for name in others),
        )
        for metric, q in c.quality.items()
    ]
    caption = f"Quality on {c.identity['rows']['labelled']:,} labelled test rows"
    pairs = [pair for m, q in c.quality.items() for pair in (("", q.teacher), (metric_name(m), q.difference))]
    notes = _notes(pairs, "Intervals")
    return Table(caption, ("", "teacher", file, "student − teacher", *others), tuple(rows), notes)


def fidelity(c: Certificate) -> Table | None:
    """How alike teacher and student answer."""
    rows = [
        (Cell(_likeness(name) + (f", {f.unit}" if f.unit else "")), _figure(f), Cell(f"{f.n:,}" if f.n else NOTHING))
        for name, f in c.fidelity.items()
    ]
    if not rows:
        return None
    return Table("Fidelity to the teacher", ("", "figure", "rows"), tuple(rows), _notes(c.fidelity.values(), "Intervals"))


def shift(c: Certificate) -> Table | None:
    """Teacher, student and controls at home and elsewhere, how much more the student loses, and how like the teacher it answers there."""
    if not c.shift:
        return None
    metric, first = c.claim["metric"], next(iter(c.fidelity), None)
    home = c.quality.get(metric)
    judged = home is not None and any(metric in s.quality for s in c.shift.values())
    controls = [arm for arm in home.arms if arm != "student"] if home is not None and judged else []
    head = ["", "rows"]
    if judged:
        head += ["teacher", "student", "student − teacher", "lost, more than the teacher", *(control(arm) for arm in controls)]
    if first is not None:
        head.append(_likeness(first))
    rows = []
    for name, q, f, lost, counted in [
        ("at home", c.quality, c.fidelity, {}, c.identity["rows"]["labelled" if judged else "test"]),
        *((name, s.quality, s.fidelity, s.lost, s.labelled if judged else s.rows) for name, s in c.shift.items()),
    ]:
        cells = [Cell(name), Cell(f"{counted:,}")]
        if judged:
            m = q.get(metric)
            cells += [_figure(m.teacher), _figure(m.student), _figure(m.difference, signed)] if m else [Cell(NOTHING)] * 3
            cells.append(_figure(lost.get("difference"), signed))
            cells += [_figure(m.arms.get(arm) if m else None) for arm in controls]
        if first is not None:
            cells.append(_figure(f.get(first)))
        rows.append(tuple(cells))
    left = sum(s.left_out for s in c.shift.values())
    notes = [*_notes([f for s in c.shift.values() for f in s.lost.values()], "Of what is lost")]
    if left:
        notes.append(f"{left:,} rows that student or teacher had learned from are left out.")
    if controls:
        notes.append("Controls as trained, before export, mean over seeds.")
    caption = f"{metric_name(metric)} at home and elsewhere" if judged else "At home and elsewhere"
    return Table(caption[:1].upper() + caption[1:], tuple(head), tuple(rows), tuple(notes))


def calibration(c: Certificate) -> Table | None:
    """How far probabilities are from what comes true."""
    names = {"teacher": "teacher", "student raw": "student, raw", "student": "student"}
    columns = {who: c.calibration[who] for who in names if c.calibration.get(who)}
    if not columns:
        return None
    rows = [
        (Cell(metric_name(name)), *(_figure(figures.get(name)) for figures in columns.values()))
        for name in dict.fromkeys(name for figures in columns.values() for name in figures)
    ]
    notes = _notes((f for figures in columns.values() for f in figures.values()), "Intervals")
    return Table("Calibration of the likeliest outcome; less is better", ("", *(names[who] for who in columns)), tuple(rows), notes)


def cost(c: Certificate) -> Table | None:
    """What teacher and student cost, and how many times dearer the teacher is."""
    order = [who for who in ("teacher", "student", "ratio") if c.cost.get(who)]
    order += [who for who in c.cost if who not in ("teacher", "student", "ratio") and c.cost[who]]
    if not order:
        return None
    rows = []
    for name in dict.fromkeys(name for who in order for name in c.cost[who]):
        figures = {who: c.cost[who].get(name) for who in order}
        unit = next((f.unit for who, f in figures.items() if f and f.unit and who != "ratio"), "")
        values = [f.value for who, f in figures.items() if f and who != "ratio"]
        shown, factor = unit_row(values, unit)
        if name == "rows_per_second" and min(filter(None, values), default=0) >= 1000:
            shown, factor = "thousands", 1e-3
        cells = [_times(f) if who == "ratio" else _size(f, factor) for who, f in figures.items()]
        if any(cell.text != NOTHING for cell in cells):
            rows.append((Cell(metric_name(name) + (f", {shown}" if shown else "")), *cells))
    names = {"student": c.identity["student"].get("file", "student"), "ratio": "teacher ÷ student"}
    figures = (f for who in order for f in c.cost[who].values())
    return Table("Cost on this machine", ("", *(names.get(who, who) for who in order)), tuple(rows), _notes(figures, "Figures"))


def _likeness(name: str) -> str:
    words = metric_name(name)
    return "agreement " + words.strip() if words.startswith(" ") else words


def _metric(metric: str, q: Quality, c: Certificate) -> Cell:
    said = [*(["primary"] if metric == c.claim["metric"] else []), *(["less is better"] if q.better < 0 else [])]
    return Cell(metric_name(metric), ", ".join(said))


def _figure(figure: Figure | None, write: Callable[[float], str] = digits) -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    both = figure.low is not None and figure.high is not None
    return Cell(write(figure.value).strip(), f"[{write(figure.low).strip()}, {write(figure.high).strip()}]" if both else "")  # pyright: ignore[reportArgumentType] not None, see both


def _size(figure: Figure | None, factor: float) -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    ends = [significant(end * factor, 3) for end in (figure.low, figure.high) if end is not None]
    return Cell(significant(figure.value * factor, 3), f"[{', '.join(ends)}]" if len(ends) == 2 else "")


def _times(figure: Figure | None) -> Cell:
    if figure is None or not figure.value:
        return Cell(NOTHING)
    return Cell(_size(figure, 1.0).text + "×", _size(figure, 1.0).under)


def _notes(figures: Iterable[Figure | tuple[str, Figure]], what: str) -> tuple[str, ...]:
    """How the figures were found, each way said once, with the name of the figure where it has one and is the only one found so."""
    ways: dict[str, list[str]] = {}
    for entry in figures:
        name, figure = entry if isinstance(entry, tuple) else ("", entry)
        if figure.how:
            ways.setdefault(figure.how, []).append(name)
    said = [f"of {names[0]} {how}" if len(names) == 1 and names[0] and len(ways) > 1 else how for how, names in ways.items()]
    return (f"{what}: {'; '.join(said)}.",) if said else ()
