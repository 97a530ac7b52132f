"""How the page says things: the four questions answered in words, and numbers with their units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from attar.certificate import Certificate, Figure, digits, signed

__all__ = [
    "ARMS",
    "Reply",
    "by_class",
    "bytes_of",
    "control",
    "interval",
    "milliseconds",
    "one",
    "percent",
    "replies",
    "significant",
    "unit_row",
]

Tone = Literal["yes", "no", "unsure", "fact"]

ARMS = {  # what the arms are called beside their picture
    "student": "distilled student",
    "labels": "labels only",
    "smooth": "label smoothing",
    "hard": "hard teacher labels",
    "shuffled": "shuffled teacher",
}
UNITS = {"ms": (("µs", 1e3), ("ms", 1.0), ("s", 1e-3)), "MB": (("bytes", 1e6), ("kB", 1e3), ("MB", 1.0), ("GB", 1e-3))}
LOUD = re.compile(r"^[A-Z][A-Z-]+[^:]*: ")  # "NON-INFERIOR to the teacher: ": the page says it in its own way
BUDGET = re.compile(r"^(latency_ms|size_mb|parameters|memory_mb) ≤ ")


@dataclass(frozen=True)
class Reply:
    """One question answered. tone: how it looks; word: the answer; text: the evidence; to: where the page shows more."""

    question: str
    tone: Tone
    word: str
    text: str
    to: str


def replies(c: Certificate) -> tuple[Reply, ...]:
    """The four questions that a certificate answers, in the order that a reader asks them."""
    return (_helped(c), _differs(c), _costs(c), _replaces(c))


def _helped(c: Certificate) -> Reply:
    tone, word = {
        "helped": ("yes", "Yes"),
        "no difference": ("no", "No: no difference"),
        "hurt": ("no", "No: it hurt"),
        "insufficient evidence": ("unsure", "Insufficient evidence"),
    }[c.helped.answer]
    decisive = [v.sentence for v in c.against.values() if v.answer == c.helped.answer] or [c.helped.sentence]
    return Reply("Did distillation help?", tone, word, sentences(map(_quiet, decisive)), "helped")  # pyright: ignore[reportArgumentType] a str of the tones above


def _differs(c: Certificate) -> Reply:
    question, f = "Where does the student differ?", c.fidelity
    if (alike := one(f.get("similarity_correlation"))) is not None:
        text = [f"Over pairs of texts, its cosines are rank-correlated with the teacher’s by {interval(f['similarity_correlation'])}"]
        if (shared := one(f.get("neighbour_overlap"))) is not None:
            text.append(f"of the 10 texts nearest to a text both name {percent(shared)}")
        return Reply(question, "fact", f"Similarities alike by {digits(alike)}", sentences([*text, *_elsewhere(c)]), "differs")
    if (agreement := one(f.get("agreement"))) is None:
        if (distance := one(f.get("mean_distance"))) is None:
            return Reply(question, "unsure", "Not measured", "The certificate holds no figure of fidelity.", "differs")
        text = []
        if one(f.get("correlation")) is not None:
            text.append(f"Its numbers correlate with the teacher’s by {interval(f['correlation'])}")
        if one(f.get("root_mean_square_distance")) is not None:
            text.append(f"their root mean square distance is {interval(f['root_mean_square_distance'])}")
        return Reply(question, "fact", f"By {digits(distance)} on average", sentences([", ".join(text), *_elsewhere(c)]), "differs")
    text = [f"Both decide alike in {percent(agreement)}{_percents(f['agreement'])} of cases"]
    parts = [
        f"{percent(share)} where the teacher {what}"
        for name, what in (("right", "is right"), ("wrong", "is wrong"), ("positive", "says positive"))
        if (share := one(f.get(f"agreement_teacher_{name}"))) is not None
    ]
    text[0] += (": " + ", ".join(parts)) if parts else ""
    drawn = [(entry["agreement"]["value"], entry["name"]) for entry in by_class(c) if entry["agreement"]["value"] is not None]
    if len(drawn) > 1:
        least, name = min(drawn, key=lambda pair: pair[0])
        text.append(f"They agree least on “{name}”, {percent(least)}")
    return Reply(question, "fact", f"On {percent(1 - _rounded(agreement))} of decisions", sentences([*text, *_elsewhere(c)]), "differs")


def _elsewhere(c: Certificate) -> list[str]:
    """Where it is least like the teacher among rows from elsewhere."""
    first = next(iter(c.fidelity), None)
    found = [(one(s.fidelity.get(first or "")), name) for name, s in c.shift.items()]
    known = [(value, name) for value, name in found if value is not None]
    if first not in ("agreement", "similarity_correlation", "correlation") or not known:
        return []
    least, name = min(known)
    return [f"On rows from elsewhere the least is {percent(least) if first == 'agreement' else digits(least)}, on “{name}”"]


def _costs(c: Certificate) -> Reply:
    question = "What does it cost?"
    student, teacher, ratio = (c.cost.get(who, {}) for who in ("student", "teacher", "ratio"))
    head = []
    for name, more, less, even in (("latency_p95_ms", "faster", "slower", "fast"), ("size_mb", "smaller", "larger", "large")):
        if (times := one(ratio.get(name))) and times > 0:
            alike = 0.95 < times < 1.05
            head.append(f"as {even}" if alike else f"{significant(max(times, 1 / times), 2)}× {more if times >= 1 else less}")
    text = []
    for name, what, write in (
        ("latency_p95_ms", "one row takes {} (95th percentile)", milliseconds),
        ("batch_ms", "256 rows {}", milliseconds),
        ("size_mb", "the file {}", bytes_of),
    ):
        if (mine := one(student.get(name))) is not None:
            theirs = one(teacher.get(name))
            text.append(what.format(write(mine) + (f", the teacher’s {write(theirs)}" if theirs else "")))
    if not text:
        return Reply(question, "unsure", "Not measured", "The certificate holds no figure of cost.", "cost")
    bounds = [r for r in c.requirements if BUDGET.match(r.what)]
    tone: Tone = "fact"
    if bounds:
        tone = "yes" if all(r.answer == "met" for r in bounds) else "no" if any(r.answer == "not met" for r in bounds) else "unsure"
        head = [{"yes": "Within budget", "no": "Over budget", "unsure": "Budget not measured"}[tone], *head[:1]]
    word = sentence_case(", ".join(head)) or "No figure of the teacher’s to compare with"
    return Reply(question, tone, word, sentences(["; ".join(text)]), "cost")


def _replaces(c: Certificate) -> Reply:
    tone, word = {"yes": ("yes", "Yes"), "no": ("no", "No")}.get(c.non_inferior.answer, ("unsure", "Insufficient evidence"))
    text = [_quiet(c.non_inferior.sentence)]
    if tone == "yes" and c.exit_code:
        tone, word = "no", "As good, but not as required"
        if all(r.answer != "not met" for r in c.requirements):
            tone, word = "unsure", "As good, but not all is shown that is required"
    return Reply("May it replace the teacher?", tone, word, sentences(text), "replaces")  # pyright: ignore[reportArgumentType] a str of the tones above


def by_class(c: Certificate) -> Sequence[Mapping[str, Any]]:
    """The name of each class and the agreement on it, with what `by` parts the rows; empty where classes were not compared."""
    family = None if c.harm is None else c.harm.families.get("class")
    cells = () if family is None else family.cells
    return [{"name": cell.name, "by": family.by, "agreement": asdict(cell.agreement)} for cell in cells if family and cell.agreement]


def control(name: str) -> str:
    """What an arm is called."""
    return ARMS.get(name, name)


def sentences(texts: Iterable[str]) -> str:
    """Texts as sentences: a capital at the front, a full stop at the end.

    >>> sentences(["one row takes 2 µs", "No."])
    'One row takes 2 µs. No.'
    """
    whole = " ".join(sentence_case(t) + ("" if t.endswith((".", "?", "…")) else ".") for t in texts if t)
    return whole.replace(" %", "\N{NO-BREAK SPACE}%")


def sentence_case(text: str) -> str:
    """The text with a capital at its front."""
    return text[:1].upper() + text[1:]


def _quiet(sentence: str) -> str:
    return LOUD.sub("", sentence)


def one(figure: Figure | None) -> float | None:
    """The value of a figure, None where there is none."""
    return None if figure is None or figure.value is None or not math.isfinite(figure.value) else float(figure.value)


def percent(share: float) -> str:
    """A share as per cent, finer towards the ends.

    >>> percent(0.9871), percent(0.99963), percent(1.0)
    ('98.7\\xa0%', '99.96\\xa0%', '100\\xa0%')
    """
    decimals = _decimals(share)
    return f"{share * 100:.{decimals}f}\N{NO-BREAK SPACE}%"


def _decimals(share: float) -> int:
    rest = round(min(abs(share), abs(1 - share)), 9)
    return 0 if rest == 0 else 1 if rest >= 0.001 else 2 if rest >= 0.0001 else 3


def _rounded(share: float) -> float:
    """The share as `percent` writes it: what it leaves of the whole then adds up to 100 %."""
    return round(float(f"{share * 100:.{_decimals(share)}f}") / 100, 9)


def _percents(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f" [{figure.low * 100:.1f}, {figure.high * 100:.1f}]"


def interval(figure: Figure, *, difference: bool = False) -> str:
    """A figure and its interval in one line."""
    write = signed if difference else digits
    if figure.value is None:
        return "–"
    text = write(figure.value)
    return text if figure.low is None or figure.high is None else f"{text} [{write(figure.low)}, {write(figure.high)}]"


def unit_row(values: Iterable[float | None], unit: str, least: float = 0.1) -> tuple[str, float]:
    """The largest unit in which the smallest positive value of a row is at least `least`, and the factor to it.

    >>> unit_row([0.0134, 0.0875], "ms"), unit_row([0.114, 16.5], "ms")
    (('µs', 1000.0), ('ms', 1.0))
    """
    known = [v for v in values if v]
    if unit not in UNITS or not known:
        return unit, 1.0
    fits = [(name, factor) for name, factor in UNITS[unit] if min(known) * factor >= least]
    return fits[-1] if fits else UNITS[unit][0]


def _in_unit(value: float, unit: str) -> str:
    name, factor = unit_row([value], unit, 1.0)
    return f"{significant(value * factor, 3)} {name}"


def milliseconds(value: float) -> str:
    """A time in the unit that suits it.

    >>> milliseconds(0.0134), milliseconds(16.54)
    ('13.4 µs', '16.5 ms')
    """
    return _in_unit(value, "ms")


def bytes_of(megabytes: float) -> str:
    """A size in the unit that suits it.

    >>> bytes_of(0.046855)
    '46.9 kB'
    """
    return _in_unit(megabytes, "MB")


def significant(value: float, figures: int) -> str:
    """So many significant digits, whole numbers whole.

    >>> significant(6.518, 2), significant(145.003, 2), significant(10626.0, 3)
    ('6.5', '145', '10,626')
    """
    if value == 0 or (value == int(value) and abs(value) >= 1):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, figures - 1 - math.floor(math.log10(abs(value))))}f}"
