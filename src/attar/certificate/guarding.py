"""What the guard promised on calibration rows, and what it kept on test rows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from attar.certificate.figures import Figure, digits, interval, metric_name, number, shortened, size, span

__all__ = ["Guarding", "Kept", "Passing", "lines"]

WIDTH = 78
MOST = 10  # cells that a terminal lists; the page has all of them


@dataclass(frozen=True)
class Kept:
    """Test rows of one cell, and what is promised of it.

    rows: test rows. answered: the share of them that the student answers. errors: the share of those on which it is wrong, by the guard's
    target. unguarded: the share of all of them on which it would be.
    calibration_rows, needed: of this cell; bound: of its error rate, by those. None where nothing is promised of this cell alone.
    """

    rows: int
    answered: Figure
    errors: Figure
    unguarded: Figure
    calibration_rows: int | None = None
    bound: float | None = None
    needed: int | None = None


@dataclass(frozen=True)
class Passing:
    """Rows of any origin, all counting alike, and how many of them the guard has the student answer; right or wrong is not asked.

    rows: how many. answered: the share that the student answers. confident: the share that it would answer by its confidence alone, at the
    same thresholds. below: the share below the floor of energy, whatever its confidence; no value where there is no floor.
    """

    rows: int
    answered: Figure
    confident: Figure
    below: Figure


@dataclass(frozen=True)
class Guarding:
    """The guard of the file that ships, and the cascade that obeys it.

    asked: the word. state, sentence: what is promised, or why nothing is. target: "teacher" or "labels", what an error is counted against.
    thresholds: by class, of the student's confidence in its decision; None: that is never answered.
    calibration_rows: how many decided. whole: all test rows. cells: by what the target says of them, whether or not the promise is by it.
    said: by what the student says, where the promise is of that; empty otherwise.
    groups: by column and part, of every declared group, whether or not it is promised anything; "missing" never is.
    files: of every other exported graph, whose guard is its own.
    cascade: the figures of teacher, student, cascade and "difference", cascade − teacher, by metric; of latency in ms and of how often the
    teacher is asked. better: by metric, +1 where more is better.
    broken: cells of the promise ("all" where it is of all rows together) whose rate on test rows is shown to be above ε, at 95 % together.
    curve: points of a guard that is ever laxer, on test rows: share answered, share of those wrong, and its 95 % interval. Rows
    below a floor come last.
    floor: of energy, below which nothing is answered; None: there is none. home: all test rows. foreign: by name, rows that are not of the
    task and that neither student nor teacher has seen. Nothing is promised of those.
    """

    asked: str
    state: str
    sentence: str
    epsilon: float
    delta: float
    target: str
    per: str
    thresholds: Mapping[str, float | None]
    calibration_rows: int
    whole: Kept
    cells: Mapping[str, Kept] = field(default_factory=dict)
    said: Mapping[str, Kept] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Kept]] = field(default_factory=dict)
    files: Mapping[str, Kept] = field(default_factory=dict)
    cascade: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    better: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    curve: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    floor: float | None = None
    home: Passing | None = None
    foreign: Mapping[str, Passing] = field(default_factory=dict)

    @property
    def certified(self) -> bool:
        return self.state == "certified"

    @property
    def error(self) -> str:
        """What an error is called."""
        return "disagreement" if self.target == "teacher" else "error"

    @property
    def contradicted(self) -> str:
        """What test rows show against the promise, as a sentence; "" where they show nothing."""
        if not self.broken:
            return ""
        where = "" if self.broken == ("all",) else f" ({', '.join(self.broken)})"
        return f"the guard's promise is not kept on test rows{where}: they are not like the calibration rows, or these were kind by chance"


def lines(g: Guarding) -> list[str]:
    """The guard and its cascade, for a terminal."""
    head = f"guard on {g.whole.rows:,} test rows"
    who = "teacher decides" if g.target == "teacher" else "label is"
    out = [f"{head:<26}{'answered [95 %]':<20}  {f'{g.error} [95 %]':<23}  bound"]
    named: list[tuple[str, Kept | None]] = [("all", g.whole), *_worst({f"{who} {name}": kept for name, kept in g.cells.items()})]
    named += _worst({f"it says {name}": kept for name, kept in g.said.items()})
    named += [(f"{of} {name}", kept) for of, parts in g.groups.items() for name, kept in parts.items() if kept.bound is not None]
    for name, kept in [*named, *g.files.items()]:
        if kept is None:
            out.append(f"  {name}")
            continue
        bound = "" if kept.bound is None else digits(kept.bound)
        out.append(f"  {shortened(name, 23):<24}{_share(kept.answered, 3):<20}  {_share(kept.errors, 4):<23}  {bound}".rstrip())
    out.append(f"  {'if it answered all rows':<24}{1:<20.3f}  {_share(g.whole.unguarded, 4)}")
    out += _passing(g)
    if g.cascade:
        out.append(f"  {'cascade':<22}{'teacher':>9}{'student':>9}{'cascade':>9}  cascade − teacher [95 %]")
    for name, figures in g.cascade.items():
        ms = name == "latency_ms"
        write = size if ms else number
        what = "one row expected, ms" if ms else "asks the teacher" if name == "teacher_asked" else metric_name(name)
        cells = "".join(f"{write(figures[who]) if who in figures else '':>9}" for who in ("teacher", "student", "cascade"))
        last = interval(figures["difference"]) if "difference" in figures else span(figures["cascade"])
        out.append(f"  {what:<22}{cells}  {last}")
    sentences = [f"guard: {g.sentence}.", *([f"BUT {g.contradicted}."] if g.broken else [])]
    return out + [line for said in sentences for line in textwrap.wrap(said, WIDTH, initial_indent="  ", subsequent_indent="  ")]


def _passing(g: Guarding) -> list[str]:
    """Who is answered: test rows and foreign ones; without a floor of energy or foreign rows it is all told already."""
    if g.home is None or (g.floor is None and not (g.foreign and g.certified)):
        return []
    floored = g.floor is not None
    out = [f"  {'who it answers':<15}{'share [95 %]':<21}" + (f"{'by confidence alone':<21}below the floor" if floored else "")]
    for name, rows in (("test rows", g.home), *g.foreign.items()):
        shares = (rows.answered, rows.confident, rows.below) if floored else (rows.answered,)
        out.append(f"  {shortened(name, 14):<15}{''.join(f'{_share(share, 3):<21}' for share in shares)}")
    return [line.rstrip() for line in out]


def _worst(cells: Mapping[str, Kept]) -> list[tuple[str, Kept | None]]:
    """All of few cells; of many those with the most errors, and a line that says how many there are beside."""
    if len(cells) <= MOST:
        return [*cells.items()]
    order = sorted(cells, key=lambda name: -(cells[name].errors.value or 0.0))
    return [*((name, cells[name]) for name in order[:MOST]), (f"… and {len(cells) - MOST} more, with fewer errors", None)]


def _share(figure: Figure, decimals: int) -> str:
    """A share and its interval, which is narrower than a table's would be with the decimals of `digits`."""
    if figure.value is None:
        return "-"
    ends = "" if figure.low is None or figure.high is None else f" [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"
    return f"{figure.value:.{decimals}f}{ends}"
