"""Certificates side by side: every figure of theirs run under run, and loudly why they may not be compared."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.certificate.certificate import Certificate
from attar.certificate.figures import Figure, Verdict, interval, metric_name, number, shortened, size, span, visible
from attar.certificate.terminal import STYLES
from attar.errors import EvidenceError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Comparison", "compare"]

NAME = 24  # characters of a run's name
COSTS = ("latency_p95_ms", "batch_ms", "size_mb", "parameters", "memory_mb")


@dataclass(frozen=True)
class Comparison:
    """Certificates by the name of their run, in the order in which they were named. See `compare`.

    apart: why figures of one must not be held against those of another; empty where they may. notes: what else differs.
    """

    certificates: Mapping[str, Certificate]
    apart: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """3 where they are not comparable; 0 otherwise."""
        return 3 if self.apart else 0

    def lines(self, width: int = 80) -> list[str]:
        """The comparison as text, readable without colour."""
        return [text for text, _ in self._styled(width)]

    def rich(self, width: int = 80) -> RenderableType:
        """The same with colour, for a rich console."""
        from rich.text import Text

        page = Text()
        for text, style in self._styled(width):
            page.append(text + "\n", style=style)
        return page

    def _styled(self, width: int) -> list[tuple[str, str]]:
        out: list[tuple[str, str]] = []
        for why in self.apart:
            out += [(line, "bold red") for line in textwrap.wrap(f"NOT COMPARABLE: {why}", width, subsequent_indent="  ")]
        if self.apart:
            out.append(("", ""))
        for head, lines in self._tables():
            out += [(head, "bold"), *lines, ("", "")]
        for note in (*self.notes, "intervals are of each run by itself: whether one student beats another was not tested"):
            out += [(line, "dim") for line in textwrap.wrap(note, width, initial_indent="  - ", subsequent_indent="    ")]
        return [(visible(line).replace("\n", "␊"), style) for line, style in out]

    def _tables(self) -> Iterable[tuple[str, list[tuple[str, str]]]]:
        """(heading, lines with their styles) of each table that has something in it."""
        runs = self.certificates.items()
        yield "no worse than the teacher", [self._line(n, _verdict(c.non_inferior, c), STYLES[c.non_inferior.answer]) for n, c in runs]
        yield "distillation helped", [line for name, c in runs for line in self._helped(name, c)]
        if any(c.requirements for c in self.certificates.values()):
            yield "required", [self._line(name, *_required(c)) for name, c in self.certificates.items()]
        metrics = dict.fromkeys(metric for c in self.certificates.values() for metric in c.quality)
        for metric in metrics:
            primary = " (primary)" if all(c.claim["metric"] == metric for c in self.certificates.values()) else ""
            head = f"{metric_name(metric) + primary:<{NAME + 4}}{'teacher':>9}{'student':>9}  student − teacher [95 %]"
            yield head, self._each(lambda c, metric=metric: c.quality.get(metric), lambda q: _beside(q.teacher, q.student, q.difference))
        alike = dict.fromkeys(first for c in self.certificates.values() if (first := next(iter(c.fidelity), None)))
        for name in alike:
            yield (
                f"{metric_name(name).strip() + ' with the teacher':<{NAME + 4}}{'':>9}{'':>9}  [95 %]",
                self._each(lambda c, name=name: c.fidelity.get(name), lambda f: f"{'':>9}{number(f):>9}  {span(f)}"),
            )
        if any(c.guard is not None for c in self.certificates.values()):
            head = f"{'behind its guard':<{NAME + 4}}{'answered':>9}{'wrong':>9}  [95 %]"
            yield head, [self._line(name, _guarded(c)) for name, c in self.certificates.items()]
        for cost in COSTS:
            found = [c.cost.get("student", {}).get(cost) for c in self.certificates.values()]
            there = [f for f in found if f is not None and f.value is not None]
            if there:
                unit = f", {there[0].unit}" if there[0].unit else ""
                yield f"{metric_name(cost) + unit:<{NAME + 4}}{'teacher':>9}{'student':>9}  [95 %]", self._costs(cost)
        yield f"{'judged on':<{NAME + 4}}{'rows':>9}{'look':>9}  file", [self._line(n, _judged(c)) for n, c in self.certificates.items()]

    def _helped(self, name: str, c: Certificate) -> list[tuple[str, str]]:
        """The answer, and below it the control that decides."""
        style, control = STYLES[c.helped.answer], c.deciding
        if control is None:
            return [self._line(name, c.helped.answer, style)]
        others = "" if len(c.against) == 1 else f", the least favourable of {len(c.against)} controls"
        answer = Verdict(c.helped.answer, "", c.against[control].difference)
        return [self._line(name, _verdict(answer, c), style), self._line("", f"over {control}{others}", style)]

    def _each(self, of: Callable[[Certificate], Any], write: Callable[[Any], str]) -> list[tuple[str, str]]:
        return [self._line(name, "-" if (found := of(c)) is None else write(found)) for name, c in self.certificates.items()]

    def _costs(self, name: str) -> list[tuple[str, str]]:
        lines = []
        for run, c in self.certificates.items():
            theirs, mine = (c.cost.get(who, {}).get(name, Figure(None)) for who in ("teacher", "student"))
            ends = "" if mine.low is None or mine.high is None else f"[{size(Figure(mine.low))}, {size(Figure(mine.high))}]"
            lines.append(self._line(run, f"{size(theirs):>9}{size(mine):>9}  {ends}"))
        return lines

    def _line(self, name: str, text: str, style: str = "") -> tuple[str, str]:
        return f"  {shortened(name, NAME):<{NAME + 2}}{text}".rstrip(), style


def compare(*runs: str | Path) -> Comparison:
    """The certificates of two or more run folders side by side.

    They may be held against each other only where they speak of the same rows, task, metric and margin; where they do not, `apart` says so.
    Raises EvidenceError where one is missing, damaged or of another schema version, naming its folder, and for fewer than two.
    """
    if len(runs) < 2:
        raise EvidenceError(f"{len(runs)} certificate{'s' if len(runs) != 1 else ''}: it takes two to compare", hint="name two run folders")
    found: dict[str, Certificate] = {}
    for run, name in zip(runs, _names([Path(run) for run in runs]), strict=True):
        try:
            found[name] = Certificate.read(Path(run) / "certificate.json")
        except EvidenceError as error:
            raise EvidenceError(f"not comparable: {error.message}", hint=error.hint) from error
    return Comparison(found, tuple(_apart(found)), tuple(_notes(found)))


def _names(runs: list[Path]) -> list[str]:
    """The folders' own names where these differ; else as they were named, and where even these repeat, with a number."""
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    return [name if names.index(name) == k else f"{name} ({k + 1})" for k, name in enumerate(names)]


def _apart(found: Mapping[str, Certificate]) -> Iterable[str]:
    """Why the figures do not speak of the same."""
    yield from _differing(found, "other data were asked", lambda c: str(c.identity["data"])[:12])
    yield from _differing(found, "other tasks", lambda c: c.identity["task"])
    yield from _differing(found, "other primary metrics", lambda c: metric_name(c.claim["metric"]))
    yield from _differing(
        found, "other margins were claimed", lambda c: "none" if c.claim.get("margin") is None else f"{c.claim['margin']:.3g}"
    )


def _notes(found: Mapping[str, Certificate]) -> Iterable[str]:
    yield from _differing(found, "other teachers: “student − teacher” does not speak of the same", _teacher)
    yield from _differing(found, "costs were measured on other machines", lambda c: c.identity["machine"])
    yield from _differing(found, "made by other versions of attar", lambda c: c.identity["versions"].get("attar", "unknown"))
    fingerprints = [c.identity["student"]["fingerprint"] for c in found.values()]
    if len(set(fingerprints)) < len(fingerprints):
        yield "the same student stands in more than one of them"


def _margin(c: Certificate) -> str:
    return "none" if c.claim.get("margin") is None else f"{c.claim['margin']:.3g}"


def _teacher(c: Certificate) -> str:
    return str(c.identity["teacher"]["fingerprint"])[:12]


def _differing(found: Mapping[str, Certificate], what: str, of: Callable[[Certificate], str]) -> Iterable[str]:
    values = {name: of(c) for name, c in found.items()}
    if len(set(values.values())) > 1:
        yield f"{what}: " + "; ".join(f"{name} {value}" for name, value in values.items())


def _verdict(verdict: Verdict, c: Certificate) -> str:
    """The answer, and the difference that it rests on with the sign of its metric."""
    q = c.quality.get(c.claim["metric"])
    if verdict.difference is None or verdict.difference.value is None or q is None:
        return verdict.answer
    return f"{verdict.answer:<22}{interval(verdict.difference.turned(q.better))}"


def _required(c: Certificate) -> tuple[str, str]:
    if not c.requirements:
        return "nothing", ""
    missed = [f"{r.what}: {r.answer}" for r in c.requirements if r.answer != "met"]
    return ("; ".join(missed), STYLES["not met"]) if missed else (f"all {len(c.requirements)} met", STYLES["met"])


def _guarded(c: Certificate) -> str:
    """The share of test rows that it answers, and of those the share that is wrong by what its guard counts."""
    if c.guard is None or not c.guard.certified:
        return "no guard" if c.guard is None else c.guard.state
    kept = c.guard.whole
    return f"{number(kept.answered):>9}{number(kept.errors):>9}  {span(kept.errors)}{'  not kept' if c.guard.broken else ''}"


def _beside(teacher: Figure, student: Figure, difference: Figure) -> str:
    return f"{number(teacher):>9}{number(student):>9}  {interval(difference)}"


def _judged(c: Certificate) -> str:
    student = c.identity["student"]
    return f"{c.identity['rows']['labelled']:>9,}{c.identity.get('look') or '-':>9}  {student.get('file') or student['text']}"
