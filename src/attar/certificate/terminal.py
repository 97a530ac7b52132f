"""A certificate as text for a terminal: verdicts first, then tables, then limits."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from attar.certificate import corrupted, evidence, label_free
from attar.certificate.figures import Figure, interval, metric_name, number, shortened, signed_figure, size, span, visible
from attar.certificate.foreign import lines as foreign_lines
from attar.certificate.guarding import lines as guard_lines
from attar.certificate.harm import tables as harm_tables

if TYPE_CHECKING:
    from attar.certificate.certificate import Certificate

__all__ = ["STYLES", "styled"]

STYLES: dict[str, str] = {
    "yes": "bold green",
    "helped": "bold green",
    "met": "green",
    "no": "bold red",
    "hurt": "bold red",
    "not met": "red",
    "no difference": "bold",
    "insufficient evidence": "bold yellow",
}


def styled(c: Certificate, width: int) -> list[tuple[str, str]]:
    """Its lines, each with a style of rich; "" is none."""
    out: list[tuple[str, str]] = []

    def prose(text: str, style: str = "", mark: str = "") -> None:
        wrapped = textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False)
        out.extend((line, style) for line in wrapped)

    def table(lines: Iterable[str]) -> None:
        head, *rest = lines
        out.extend([("", ""), (head, "bold"), *((line, "") for line in rest)])

    prose(c.non_inferior.sentence, STYLES[c.non_inferior.answer])
    decisive = [v.sentence for v in c.against.values() if v.answer == c.helped.answer]
    for sentence in decisive if len(decisive) > 1 else [c.helped.sentence]:
        prose(sentence, STYLES[c.helped.answer])
    for requirement in c.requirements:
        prose(f"{requirement.what}: {requirement.answer}. {requirement.sentence}", STYLES[requirement.answer], "required  ")
    if c.quality:
        table(_quality_lines(c))
    if c.quality and c.against:
        table(_control_lines(c))
    table(_fidelity_lines(c))
    if c.shift:
        for lines in _shift_tables(c):
            table(lines)
        if told := {name: s.label_free for name, s in c.shift.items() if s.label_free is not None}:
            table(label_free.lines(told))
    if c.corrupted is not None:
        table(corrupted.lines(c.corrupted))
    for name, section in c.foreign.items():
        table(foreign_lines(name, section, width))
    if c.evidence is not None:
        table(evidence.lines(c.evidence))
    for lines in harm_tables(c.harm) if c.harm else ():
        table(lines)
    if c.guard is not None:
        table(guard_lines(c.guard))
    if c.calibration:
        table(_calibration_lines(c))
    if c.cost:
        table(_cost_lines(c))
    out.extend([("", ""), ("limits", "bold")])
    for limit in c.limits:
        prose(limit, "", "  - ")
    out.extend([("", ""), *((line, "dim") for line in _identity_lines(c, width))])
    return [(visible(line).replace("\n", "␊"), style) for line, style in out]


def _quality_lines(c: Certificate) -> list[str]:
    rows = c.identity["rows"]
    head = f"quality on {rows['labelled']:,} test rows"
    lines = [f"{head:<30}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
    for name, q in c.quality.items():
        what = metric_name(name) + (" (primary)" if name == c.claim["metric"] else "")
        lines.append(f"  {what:<28}{number(q.teacher):>9}{number(q.student):>9}  {interval(q.difference)}")
        lines.extend(
            f"    {file:<26}{'':>9}{number(figure):>9}"
            for file, figure in q.files.items()
            if name == c.claim["metric"] and file != c.identity["student"]["file"]
        )
    return lines


def _control_lines(c: Certificate) -> list[str]:
    metric = c.claim["metric"]
    q = c.quality[metric]
    head = f"{metric_name(metric)} of the procedure"
    lines = [f"{head:<30}{'control':>9}{'student':>9}  student − control [95 %]"]
    for name, gain in q.gains.items():
        seeds = f"{name}, {gain.n} seed{'s' if gain.n != 1 else ''}"
        lines.append(f"  {seeds:<28}{number(q.arms[name]):>9}{number(q.arms['student']):>9}  {interval(gain)}")
    return lines


def _fidelity_lines(c: Certificate) -> list[str]:
    lines = [f"{'fidelity to the teacher':<39}{'rows':>9}  [95 %]"]
    lines += [f"  {metric_name(name):<28}{number(f):>9}{f.n:>9,}  {span(f)}" for name, f in c.fidelity.items()]
    return lines


def _shift_tables(c: Certificate) -> Iterator[list[str]]:
    """Quality elsewhere beside that at home, what is lost, and likeness to the teacher."""
    metric = c.claim["metric"]
    judged = {name: s.quality[metric] for name, s in c.shift.items() if metric in s.quality}
    if judged and metric in c.quality:
        lines = [f"{'elsewhere, ' + metric_name(metric):<26}{'rows':>8}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
        counts = {"at home": c.identity["rows"]["labelled"], **{name: c.shift[name].labelled for name in judged}}
        for name, q in {"at home": c.quality[metric], **judged}.items():
            numbers = f"{counts[name]:>8,}{number(q.teacher):>9}{number(q.student):>9}"
            lines.append(f"  {shortened(name, 24):<24}{numbers}  {interval(q.difference)}")
            for arm, figure in q.arms.items():
                if arm != "student":
                    lines.append(f"    {shortened('control ' + arm, 22):<22}{'':>8}{'':>9}{number(figure):>9}  before export")
        yield lines
        head = f"{'lost against home':<34}{'teacher':>9}{'student':>9}  student − teacher [95 %]"
        lost = {name: c.shift[name].lost for name in judged}
        yield [
            head,
            *(
                f"  {shortened(name, 32):<32}{signed_figure(f['teacher']):>9}{signed_figure(f['student']):>9}  {interval(f['difference'])}"
                for name, f in lost.items()
            ),
        ]
    first = next(iter(c.fidelity), None)
    if first is not None:
        lines = [f"{'elsewhere, ' + metric_name(first):<39}{'rows':>9}  [95 %]"]
        for name, figures in {"at home": c.fidelity, **{name: s.fidelity for name, s in c.shift.items()}}.items():
            f = figures[first]
            lines.append(f"  {shortened(name, 28):<28}{number(f):>9}{f.n:>9,}  {span(f)}")
        yield lines


def _calibration_lines(c: Certificate) -> list[str]:
    return _columns("calibration", c.calibration, number)


def _cost_lines(c: Certificate) -> list[str]:
    shown = {who: c.cost[who] for who in ("teacher", "student", "ratio") if who in c.cost}
    return _columns("cost on one thread", shown, size)


def _columns(head: str, columns: Mapping[str, Mapping[str, Figure]], write: Callable[[Figure], str]) -> list[str]:
    """One line for each figure, one column for each of those who have it."""
    lines = [f"{head:<32}" + "".join(f"{who:>16}" for who in columns)]
    for name in dict.fromkeys(name for who in columns.values() for name in who):
        figures = [who.get(name) for who in columns.values()]
        unit = next((f.unit for f in figures if f and f.unit and f.unit != "×"), "")
        what = metric_name(name) + (f", {unit}" if unit else "")
        lines.append(f"  {what:<30}" + "".join(f"{write(f) if f else '':>16}" for f in figures))
    return lines


def _identity_lines(c: Certificate, width: int) -> list[str]:
    i = c.identity
    look = f"look {i['look']} at this test split" if i["look"] else "this look at the test split was not counted"
    facts = (
        ("task", f"{i['task']}; decides {c.claim['decision']}"),
        ("teacher", f"{i['teacher']['text']} {i['teacher']['fingerprint'][:12]}"),
        ("student", f"{i['student']['text']} {i['student']['fingerprint'][:12]}"),
        ("data", f"{i['data'][:12]}; {look}"),
        ("attar", f"{i['versions']['attar']} on {i['machine']}"),
    )
    lines: list[str] = []
    for name, text in facts:
        lines += textwrap.wrap(text, width, initial_indent=f"{name:<10}", subsequent_indent=" " * 10, break_long_words=True)
    return lines
