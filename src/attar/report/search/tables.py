"""The tables of a search's page; None where one would be empty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from attar.certificate import Figure, digits, metric_name, signed
from attar.report.search.fronts import won
from attar.report.tables import NOTHING, Cell, Table
from attar.report.words import bytes_of, milliseconds, percent, significant
from attar.searched import Priced, Searched

__all__ = ["PARTS", "STATES", "bounds", "competitors", "costs", "failures", "finalists", "minutes", "pricing", "rungs", "summary", "times"]

PARTS = {
    "teacher": "teacher: taught, and asked once",
    "pricing": "prices: exports measured",
    "training": "training of the trials",
    "finalists": "finalists, trained anew over seeds",
    "competitors": "competitors",
}
STATES = {"trained": "trained to the end", "dear": "dropped unpaid", "stopped": "stopped at a rung", "failed": "failed"}
TRUSTED = 0.6  # rank correlation below which a rung stops nobody
BOUNDS = {  # name in a budget: what it is called, the field of Priced, the factor to its unit, whether more is better
    "latency_ms": ("one row, 95th percentile", "latency_ms", 1.0, -1),
    "p50_ms": ("one row, median", "p50_ms", 1.0, -1),
    "size_mb": ("exported file", "size_bytes", 1e-6, -1),
    "parameters": ("parameters", "parameters", 1.0, -1),
    "macs": ("multiply-adds of one row", "macs", 1.0, -1),
    "memory_mb": ("memory", "memory_mb", 1.0, -1),
    "energy_mj": ("energy of one row, estimated", "energy_mj", 1.0, -1),
    "rows_per_second": ("rows a second", "rows_per_second", 1.0, 1),
}


def minutes(seconds: float) -> str:
    """A time as people say it.

    >>> minutes(8.34), minutes(171), minutes(8000)
    ('8.3 s', '2 min 51 s', '2 h 13 min')
    """
    if seconds < 60:
        return f"{significant(seconds, 2)} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def written(bound: str, value: float) -> str:
    """A value in the unit of a bound."""
    if bound.endswith("_ms"):
        return milliseconds(value)
    return (
        bytes_of(value)
        if bound == "size_mb"
        else f"{significant(value, 3)}{' MB' * (bound == 'memory_mb')}{' mJ' * (bound == 'energy_mj')}"
    )


def costs(price: Priced) -> tuple[str, str]:
    """The latency and the size of a price, as text."""
    time = milliseconds(price.latency_ms) if price.latency_ms else NOTHING
    return time, bytes_of(price.size_bytes / 1e6) if price.size_bytes else NOTHING


def bounds(s: Searched) -> list[tuple[str, str, str, bool | None]]:
    """(what, allowed, taken, whether it is kept) of every bound of the budget, by the winner's measured price; "" without a winner."""
    price = next((f.price for f in s.finalists if won(s, f)), None)
    found = []
    for name, limit in s.bounds.items():
        what, field, factor, sign = BOUNDS.get(name, (name.replace("_", " "), "", 1.0, -1))
        taken = getattr(price, field, None) if price is not None and field else None
        taken = None if taken is None else taken * factor
        kept = None if taken is None else sign * taken >= sign * limit
        allowed = ("at least " if sign > 0 else "at most ") + written(name, limit)
        found.append((what, allowed, "" if taken is None else written(name, taken), kept))
    return found


def summary(s: Searched) -> list[Table]:
    """The tables that a terminal shows: the budget, the finalists, what could be put in place, how many trials went which way."""
    rows = tuple((Cell(what), Cell(allowed), Cell(taken or NOTHING)) for what, allowed, taken, _ in bounds(s))
    budget = Table("Budget", ("", "allowed", "measured"), rows) if rows else None
    counts = [(said, sum(t.state == state for t in s.trials)) for state, said in STATES.items()]
    rows = tuple((Cell(said), Cell(f"{count:,}"), Cell(percent(count / len(s.trials)))) for said, count in counts if count)
    tried = Table("Trials", ("", f"{len(s.trials):,}", "share"), rows) if rows else None
    return [table for table in (budget, finalists(s), competitors(s), tried) if table is not None]


def finalists(s: Searched) -> Table | None:
    """Finalists on the second half, beside what they were chosen by."""
    if not s.finalists:
        return None
    rows = []
    for f in s.finalists:
        lost = "" if f.score.value is None or not math.isfinite(f.before) else signed(f.score.value - f.before).strip()
        time, size = costs(f.price)
        name = Cell(
            f.student + (" · recommended" if won(s, f) else " · on labels alone" if f.arm == "labels" else ""),
            f"trial {f.trial}{' on labels alone' * (f.arm == 'labels')} · {f.objective} · {f.fit}",
        )
        cells = (name, _figure(f.score), _figure(f.predicted), Cell(digits(f.before), lost and f"{lost} since"))
        kept = (Cell("yes" if f.within else "no"),) if s.bounds else ()
        rows.append((*cells, Cell(f"{len(f.scores):,}"), Cell(time, size), *kept))
    foretold = [f.predicted for f in s.finalists if f.predicted is not None]
    notes = (
        "Second half, mean: of the design, over seeds, on validation rows that no choice had seen; decisions rest on it. Chosen by: the "
        "score on the first half, for which it was picked as one of the best; that it is lower on the second is the selection’s bias.",
        *_notes(f.score for f in s.finalists),
    )
    if foretold:
        notes += (
            "Predicted on the test rows: what attar run --from will certify, of one exported file, lies in there with 95 %: "
            f"{'; '.join(dict.fromkeys(f.how for f in foretold))}. Its middle leaves out what the same rows owe to luck as they choose "
            "among finalists.",
        )
    head = (
        "",
        f"{metric_name(s.metric)}, second half, mean",
        "predicted on the test rows",
        "chosen by",
        "seeds",
        "one row",
        *(("within the budget",) if s.bounds else ()),
    )
    return Table("Finalists", head, tuple(rows), notes)


def competitors(s: Searched) -> Table | None:
    """The teacher and what could be put in its place without distillation, beside the winner."""
    first = next((f for f in s.finalists if won(s, f)), None)
    rows = []
    if first is not None:
        name = Cell(f"{first.student} · recommended", f"trial {first.trial}")
        rows.append((name, _figure(first.score), *map(Cell, costs(first.price)), Cell("yes" if first.within else "no")))
    for c in (s.teacher, *s.competitors):
        known = c.score is not None or c.price.latency_ms is not None
        kept = Cell(NOTHING if not known else "yes" if c.within else "no")
        rows.append((Cell(c.name, c.why), _figure(c.score), *map(Cell, costs(c.price)), kept))
    head = ("", f"{metric_name(s.metric)}, second half", "one row", "file", "within the budget")
    if not s.bounds:
        head, rows = head[:-1], [row[:-1] for row in rows]
    figures = [c.score for c in (s.teacher, *s.competitors) if c.score is not None]
    return Table("What could be put in place", head, tuple(rows), _notes(figures))


def pricing(s: Searched) -> Table | None:
    """How well prices were known before training."""
    if not s.pricing:
        return None
    rows = [
        (
            Cell(p.family),
            Cell(f"{p.exports:,}"),
            Cell(percent(p.error), f"{len(p.held_out):,} held out" if p.held_out else ""),
            Cell("yes" if p.trusted else "no", "" if p.trusted else "each was measured"),
            Cell(minutes(p.seconds)),
        )
        for p in s.pricing
    ]
    notes = ("Error: mean |predicted ÷ measured − 1| on exports that the model was not fitted on; above 10 % it prices nothing.",)
    return Table("Prices before training", ("family", "exports", "mean error", "used", "time"), tuple(rows), notes)


def rungs(s: Searched) -> Table | None:
    """Whether an early score tells the final one."""
    if not s.correlations:
        return None
    rows = [
        (
            Cell(f"after {100 * share:.3g} % of training"),
            Cell(f"{r:.2f}" if math.isfinite(r) else NOTHING),
            Cell(f"{n:,}"),
            Cell("yes" if r >= TRUSTED else "no"),
        )
        for share, r, n in s.correlations
    ]
    note = f"Spearman’s correlation of the scores at a rung with the final ones; a rung below {TRUSTED:g} stops nobody."
    return Table("Rungs", ("", "rank correlation", "trials", "trusted"), tuple(rows), (note,))


def times(s: Searched) -> Table | None:
    """Where the time went."""
    whole = sum(s.seconds.values())
    if not whole:
        return None
    rows = [(Cell(PARTS.get(part, part)), Cell(minutes(took)), Cell(percent(took / whole))) for part, took in s.seconds.items()]
    rows.append((Cell("together"), Cell(minutes(whole)), Cell("")))
    notes = [f"Of {s.workers:,} workers together." if s.workers > 1 else ""]
    if s.serial_seconds is not None:
        here = s.seconds.get("training", 0.0) + s.seconds.get("teacher", 0.0)
        slower = f", {significant(s.serial_seconds / here, 2)} times what teacher and training took here" if here else ""
        took = minutes(s.serial_seconds)
        notes.append(f"The same trials one after another, the teacher asked in each: {took}{slower}; extrapolated from a sample.")
    return Table("Where the time went", ("", "time", "share"), tuple(rows), tuple(n for n in notes if n))


def failures(s: Searched) -> Table | None:
    """Trials that failed, by why."""
    failed = [t for t in s.trials if t.state == "failed"]
    if not failed:
        return None
    why: Mapping[str, int] = Counter(t.why or "no reason was recorded" for t in failed)
    rows = []
    for reason, count in sorted(why.items(), key=lambda item: -item[1]):
        numbers = [f"{t.number}{' on labels alone' * (t.arm == 'labels')}" for t in failed if (t.why or "no reason was recorded") == reason]
        shown = ", ".join(numbers[:12]) + (", …" if len(numbers) > 12 else "")
        rows.append((Cell(reason, f"trials {shown}" if count > 1 else f"trial {shown}"), Cell(f"{count:,}")))
    return Table("Trials that failed", ("why", "trials"), tuple(rows))


def _figure(figure: Figure | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    if figure.low is None or figure.high is None:
        return Cell(digits(figure.value))
    return Cell(digits(figure.value), f"[{digits(figure.low)}, {digits(figure.high)}]")


def _notes(figures: Iterable[Figure]) -> tuple[str, ...]:
    ways = list(dict.fromkeys(f.how for f in figures if f.how))
    return (f"Intervals are 95 %: {'; '.join(ways)}.",) if ways else ()
