"""How the page says things: names of arms, sentences, and numbers with their units and intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from attar.certificate import Certificate, Figure, digits, signed

__all__ = [
    "ARMS",
    "by_class",
    "bytes_of",
    "control",
    "interval",
    "milliseconds",
    "one",
    "percent",
    "percents",
    "rounded",
    "sentence_case",
    "sentences",
    "significant",
    "unit_row",
]

ARMS = {  # what the arms are called beside their picture
    "student": "distilled student",
    "labels": "labels only",
    "smooth": "label smoothing",
    "hard": "hard teacher labels",
    "shuffled": "shuffled teacher",
}
UNITS = {"ms": (("µs", 1e3), ("ms", 1.0), ("s", 1e-3)), "MB": (("bytes", 1e6), ("kB", 1e3), ("MB", 1.0), ("GB", 1e-3))}


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


def rounded(share: float) -> float:
    """The share as `percent` writes it: what it leaves of the whole then adds up to 100 %."""
    return round(float(f"{share * 100:.{_decimals(share)}f}") / 100, 9)


def percents(figure: Figure) -> str:
    """A share and its interval as per cent in one line.

    >>> percents(Figure(0.9936, 0.9912, 0.9953)), percents(Figure(0.5))
    ('99.4\\xa0% [99.1, 99.5]', '50.0\\xa0%')
    """
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return percent(figure.value)
    decimals = max(1, _decimals(figure.value))
    return f"{percent(figure.value)} [{figure.low * 100:.{decimals}f}, {figure.high * 100:.{decimals}f}]"


def interval(figure: Figure, *, difference: bool = False) -> str:
    """A figure and its interval in one line."""
    write = signed if difference else digits
    if figure.value is None:
        return "–"
    text = write(figure.value).strip()
    return text if figure.low is None or figure.high is None else f"{text} [{write(figure.low).strip()}, {write(figure.high).strip()}]"


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


def _in_unit(value: float, low: float | None, high: float | None, unit: str) -> str:
    name, factor = unit_row([value], unit, 1.0)
    ends = "" if low is None or high is None else f" [{significant(low * factor, 3)}, {significant(high * factor, 3)}]"
    return f"{significant(value * factor, 3)} {name}{ends}"


def milliseconds(value: float, low: float | None = None, high: float | None = None) -> str:
    """A time in the unit that suits it, with its interval where it has one.

    >>> milliseconds(0.0134), milliseconds(16.54, 16.1, 17.2)
    ('13.4\\xa0µs', '16.5\\xa0ms [16.1, 17.2]')
    """
    return _in_unit(value, low, high, "ms")


def bytes_of(megabytes: float) -> str:
    """A size in the unit that suits it.

    >>> bytes_of(0.046855)
    '46.9\\xa0kB'
    """
    return _in_unit(megabytes, None, None, "MB")


def significant(value: float, figures: int) -> str:
    """So many significant digits, whole numbers whole.

    >>> significant(6.518, 2), significant(145.003, 2), significant(10626.0, 3)
    ('6.5', '145', '10,626')
    """
    if value == 0 or (value == int(value) and abs(value) >= 1):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, figures - 1 - math.floor(math.log10(abs(value))))}f}"
