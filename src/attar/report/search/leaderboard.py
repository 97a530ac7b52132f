"""leaderboard.csv: one line for each trial, with its price and every argument that was searched."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from attar.files import write_atomic
from attar.searched import Priced, Searched, Trial, front

__all__ = ["ranked", "write_leaderboard"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a text that begins so, a spreadsheet would calculate
STATES = ("trained", "stopped", "dear", "failed")
OWN = ("number", "arm", "state", "score", "within", "front", "student", "objective", "fit", "epochs", "seconds", "together", "why")
PRICE = tuple(f.name for f in fields(Priced))


def ranked(s: Searched) -> list[Trial]:
    """All trials, the best first: trained ones that keep the budget, then trained ones, then those that stopped, were dear or failed."""

    def place(t: Trial) -> tuple[int, bool, float, int]:
        return STATES.index(t.state), not t.within, -s.better * t.score if t.score is not None else 0.0, t.number

    return sorted(s.trials, key=place)


def write_leaderboard(s: Searched, out: Path) -> Path:
    """Write `out`/leaderboard.csv, the best trial first, and say where it is.

    Columns: those of a trial, `front` (whether no other is better and cheaper), those of its price, each hole of a space as "at NAME", and
    `rungs`, the scores on the way: "0.1: 0.8412; 0.3: 0.861". What is not known is empty. A text that a spreadsheet would take
    for a formula has an apostrophe before it.
    """
    holes = list(dict.fromkeys(name for t in s.trials for name in t.point))
    ahead = front(s.trials, s.better)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")  # as RFC 4180 has it
    lines.writerow(_safe(name) for name in (*OWN, *PRICE, *(f"at {name}" for name in holes), "rungs"))
    for t in ranked(s):
        lines.writerow(_safe(value) for value in _values(t, t in ahead, holes))
    write_atomic(out / "leaderboard.csv", text.getvalue())
    return out / "leaderboard.csv"


def _values(t: Trial, ahead: bool, holes: list[str]) -> Iterator[object]:
    for name in OWN:
        yield ahead if name == "front" else getattr(t, name)
    for name in PRICE:
        yield getattr(t.price, name)
    for name in holes:
        yield t.point.get(name)
    yield "; ".join(f"{share:.4g}: {score:.5g}" for share, score in t.rungs)


def _safe(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str):
        text = " ".join(value.split("\x00"))
        return f"'{text}" if text.startswith(FORMULA) else text
    return value
