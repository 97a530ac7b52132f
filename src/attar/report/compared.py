"""The page of a comparison: certificates side by side, a row for each run, every figure with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attar.certificate import Certificate, Comparison, Figure, digits, metric_name, signed, visible
from attar.errors import EvidenceError
from attar.files import write_atomic
from attar.report import pictures
from attar.report.answers import Reply, replies
from attar.report.pages import drawn, environment
from attar.report.tables import NOTHING, Cell, Table
from attar.report.words import bytes_of, control, interval, milliseconds, one, percent

__all__ = ["write_comparison"]

COSTS: Mapping[str, Callable[[float], str]] = {
    "latency_p95_ms": milliseconds,
    "batch_ms": milliseconds,
    "size_mb": bytes_of,
    "parameters": lambda count: f"{count:,.0f}",
    "memory_mb": bytes_of,
}
SHARES = ("agreement",)


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write certificates side by side as `path`, one page that needs nothing else, and say where it is.

    Whatever is shown is escaped. Raises EvidenceError where `path` is a folder, MissingExtra without jinja2.
    """
    if path.is_dir():
        raise EvidenceError(f"{path} is a folder, not a page", hint="--out compare.html")
    runs = found.certificates
    metrics = {c.claim["metric"] for c in runs.values()}
    metric = metric_name(next(iter(metrics))) if len(metrics) == 1 else "each run’s primary metric"
    margins = {c.claim.get("margin") for c in runs.values()}
    alike = len(metrics) == 1 and not found.apart
    page = (
        environment()
        .get_template("compare.html")
        .render(
            name=names if len(names := " and ".join(runs)) <= 40 else f"{len(runs)} runs",
            facts=[("runs", f"{len(runs)}"), ("primary metric", metric)],
            replies=[_reply(run, c) for run, c in runs.items()],
            apart=found.apart,
            notes=found.notes,
            pictures={
                "differences": drawn(
                    pictures.beside(
                        "differences",
                        "The student against the teacher",
                        [(run, _difference(c), _better(c)) for run, c in runs.items()],
                        f"difference in {metric}",
                        next(iter(margins)) if len(margins) == 1 else None,
                    )
                ),
                "gains": drawn(
                    pictures.beside(
                        "gains",
                        "The gain over the control that decides",
                        [(run, gain, _better(c)) for run, c in runs.items() if (gain := _gain(c)) is not None],
                        f"gain in {metric}",
                        None,
                    )
                ),
            }
            if alike
            else {},
            tables=_tables(runs),
        )
    )
    write_atomic(path, visible(page))
    return path


def _reply(run: str, c: Certificate) -> Reply:
    """What the page of one certificate answers to its last question, under the name of its run."""
    *_, last = replies(c)
    return Reply(run, last.tone, last.word, last.figure, last.of, "", "verdicts")


def _difference(c: Certificate) -> Figure:
    q = c.quality.get(c.claim["metric"])
    return Figure(None) if q is None else q.difference


def _better(c: Certificate) -> int:
    q = c.quality.get(c.claim["metric"])
    return 1 if q is None else q.better


def _gain(c: Certificate) -> Figure | None:
    return None if c.deciding is None else c.against[c.deciding].difference


def _tables(runs: Mapping[str, Certificate]) -> list[Table]:
    """Each subject that a certificate says something of, with a row for each run."""
    found = [_verdicts(runs)]
    for metric in dict.fromkeys(metric for c in runs.values() for metric in c.quality):
        qualities = {run: c.quality.get(metric) for run, c in runs.items()}
        less = any(q.better < 0 for q in qualities.values() if q is not None)
        figures = {run: () if q is None else (q.teacher, q.student, q.difference) for run, q in qualities.items()}
        rows = [
            (Cell(run), *(_cell(f, w) for f, w in zip(of, (digits, digits, signed), strict=True)))
            if of
            else (Cell(run), *(Cell(NOTHING) for _ in range(3)))
            for run, of in figures.items()
        ]
        caption = metric_name(metric) + (", less is better" if less else "")
        found.append(Table(caption, ("", "teacher", "student", "student − teacher"), tuple(rows)))
    for name in dict.fromkeys(first for c in runs.values() if (first := next(iter(c.fidelity), None))):
        write = percent if name in SHARES else digits
        rows = [(Cell(run), _cell(c.fidelity.get(name), write)) for run, c in runs.items()]
        found.append(Table(f"{metric_name(name).strip()} with the teacher", ("", "student"), tuple(rows)))
    if any(c.guard is not None for c in runs.values()):
        found.append(_guards(runs))
    costs = [name for name in COSTS if any(one(c.cost.get("student", {}).get(name)) is not None for c in runs.values())]
    if costs:
        rows = [(Cell(run), *(_cell(c.cost.get("student", {}).get(name), COSTS[name]) for name in costs)) for run, c in runs.items()]
        found.append(Table("Cost of the student", ("", *(metric_name(name) for name in costs)), tuple(rows)))
    rows = [(Cell(run), *_judged(c)) for run, c in runs.items()]
    return [*found, Table("Judged on", ("", "labelled rows", "look", "file"), tuple(rows))]


def _verdicts(runs: Mapping[str, Certificate]) -> Table:
    rows = []
    for run, c in runs.items():
        worse, gain = c.non_inferior.difference, _gain(c)
        ends = "" if one(worse) is None or worse is None else interval(worse.turned(_better(c)), difference=True)
        over = "" if c.deciding is None else f"over {control(c.deciding)}"
        if gain is not None and one(gain) is not None:
            over += f" {interval(gain.turned(_better(c)), difference=True)}"
        missed = [f"{r.what}: {r.answer}" for r in c.requirements if r.answer != "met"]
        required = "; ".join(missed) if missed else f"all {len(c.requirements)} met" if c.requirements else "nothing"
        rows.append((Cell(run), Cell(c.non_inferior.answer, ends), Cell(c.helped.answer, over), Cell(required)))
    notes = (
        "No worse than the teacher: each end of its interval is a bound of 95 % confidence.",
        "Helped: beside the control that decides, the least favourable of those that have this answer.",
    )
    return Table("Verdicts", ("", "no worse than the teacher", "distillation helped", "required"), tuple(rows), notes)


def _guards(runs: Mapping[str, Certificate]) -> Table:
    rows = []
    for run, c in runs.items():
        if c.guard is None or not c.guard.certified:
            rows.append((Cell(run), Cell("no guard" if c.guard is None else c.guard.state), Cell(NOTHING), Cell(NOTHING)))
            continue
        state = "not kept on test rows" if c.guard.broken else "certified"
        whole = c.guard.whole
        rows.append((Cell(run), Cell(state, c.guard.asked), _cell(whole.answered, percent), _cell(whole.errors, percent)))
    return Table("Behind its guard", ("", "guard", "answered", "wrong where it answers"), tuple(rows))


def _judged(c: Certificate) -> Iterable[Cell]:
    student, look = c.identity["student"], c.identity.get("look")
    return Cell(f"{c.identity['rows']['labelled']:,}"), Cell(str(look or NOTHING)), Cell(str(student.get("file") or student["text"]))


def _cell(figure: Figure | None, write: Callable[[float], str]) -> Cell:
    if figure is None or (value := one(figure)) is None:
        return Cell(NOTHING)
    ends = [write(end).strip() for end in (figure.low, figure.high) if end is not None]
    return Cell(write(value).strip(), f"[{', '.join(ends)}]" if len(ends) == 2 else "")
