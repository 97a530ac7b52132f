"""What a search recommends in the end: its student, or what could be had without one; and where nothing will do, what binds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from attar.certificate.figures import Figure, digits, metric_name, signed
from attar.searched import Competitor, Finalist, Priced, Trial
from attar.verbs.search.competitors import LABELS
from attar.verbs.search.smallest import SURE, Smallest, binding

__all__ = ["Advice", "advice", "chance_of"]

SAME = 1.05  # times the price: within it two cost the same


@dataclass(frozen=True)
class Advice:
    """winner: number of the trial that is recommended; None where none is. instead: the name of a competitor that wins; "" where none does.
    sentences: all of it in words, what to put in place first."""

    winner: int | None
    instead: str
    sentences: tuple[str, ...]


def chance_of(difference: Figure | None, margin: float) -> float | None:
    """How probably something is worse than the teacher by less than the margin, from its difference, more is better, with a 95 % interval.

    Normal; None where the difference or its interval is not known.

    >>> round(chance_of(Figure(0.0, -0.0196, 0.0196), margin=0.01), 3)
    0.841
    """
    if difference is None or difference.value is None or difference.low is None or difference.high is None:
        return None
    spread = (difference.high - difference.low) / (2 * special.ndtri(0.975))
    over = difference.value + margin
    return float(special.ndtr(over / spread)) if spread > 0 else float(over > 0)


def advice(
    winner: Finalist | None,
    words: Sequence[str],
    teacher: Competitor,
    competitors: Sequence[Competitor],
    *,
    told: Smallest | None,
    trials: Sequence[Trial],
    bounds: Mapping[str, float],
    metric: str,
    better: int,
    margin: float,
    rows_sd: float = 0.0,
    shown: bool | None = None,
) -> Advice:
    """Puts the winner of the finalists beside what could be had without a search.

    winner, words: of the finalists, and why. told: of `smallest`. shown: whether the winner is shown to meet the margin, as the words say;
        None: that is told from its difference. A competitor wins that keeps the budget and
    - meets the margin with 90 % and costs less than the winner, or there is no winner, or the winner does not meet it;
    - or answers the second half of the validation rows at least as well as the winner, whatever it costs within the budget: what it costs
      more is said. Where neither is shown to meet the margin it wins if it costs no more.
    Of several that cost no more the best by the metric wins; else the cheapest that meets the margin; else the best within the budget.
    Where nobody meets the margin within the budget the last sentences say which constraint binds, and what it would take. Without bounds
    everything keeps the budget, and nothing is said of it.
    """
    there = [each for each in (teacher, *competitors) if each.within and each.score is not None and each.score.value is not None]
    sure = [each for each in there if each is teacher or (chance_of(each.difference, margin) or 0.0) >= SURE]
    said: list[str] = []
    instead = ""
    if shown is None and winner is not None and (ours := chance_of(winner.difference, margin)) is not None:
        shown = ours >= SURE
    value = -math.inf if winner is None else better * (winner.score.value or 0.0)
    as_good = [] if winner is None else [each for each in there if better * _score(each) >= value]
    free = [] if winner is None else [each for each in as_good if _dear(each.price)[0] <= SAME * _dear(winner.price)[0]]
    lacking = winner is None or shown is False
    if winner is None or shown is False:
        if sure:
            rival = min(sure, key=lambda each: _dear(each.price))
            instead = rival.name
            shy = f"No student is shown to meet the margin{' within the budget' * bool(bounds)}"
            nobody = shy if winner is not None else "No student is recommended"
            keeps = "keeps the budget and " * bool(bounds)
            said.append(f"Put in place: the {_called(rival)}. It {keeps}needs {_spared(rival)}: {_of(rival, metric)}. {nobody}.")
        elif winner is not None and free:
            rival = max(free, key=lambda each: (better * _score(each), -_dear(each.price)[0]))
            instead = rival.name
            said.append(f"{_as_good(rival, winner, metric, bounds, dearer=False)} Neither is shown to meet the margin.")
    else:
        cheaper = [each for each in sure if _dear(each.price)[0] * SAME < _dear(winner.price)[0]]
        rival = None
        if free or (as_good and not cheaper):
            rival = max(free or as_good, key=lambda each: (better * _score(each), -_dear(each.price)[0]))
            said.append(_as_good(rival, winner, metric, bounds, dearer=not free))
        elif cheaper:
            rival = min(cheaper, key=lambda each: _dear(each.price))
            times = _dear(winner.price)[0] / _dear(rival.price)[0]
            said.append(
                f"Put in place: the {_called(rival)}. It meets the margin with {SURE:.0%}, costs {times:.2g} times less than the student "
                f"and needs {_spared(rival)}: {_of(rival, metric)}."
            )
        instead = "" if rival is None else rival.name
    said += words
    if told is not None:
        said.append(told.words)
        if lacking and not sure and teacher.first is not None:
            said.append(binding(told, trials, bounds, metric=metric, better=better, teacher=teacher.first, rows_sd=rows_sd).words)
    return Advice(None if winner is None else winner.trial, instead, tuple(each for each in said if each))


def _as_good(rival: Competitor, winner: Finalist, metric: str, bounds: Mapping[str, float], *, dearer: bool) -> str:
    times = _dear(rival.price)[0] / _dear(winner.price)[0] if _dear(winner.price)[0] > 0 else math.nan
    student = "the student of the teacher" if rival.name == LABELS else "the student"
    head = "It" if not dearer else f"The {_called(rival)}"
    head += f" {'keeps the budget and ' * bool(bounds)}answers at least as well as {student}: {_of(rival, metric)}, {student}"
    head += f" {digits(winner.score.value or 0.0)}{_took(winner.price)}."
    if not dearer:
        return f"Put in place: the {_called(rival)}. {head} It costs no more and needs {_spared(rival)}."
    return f"{head} It needs {_spared(rival)}, and costs {times:.2g} times as much: unless that counts, put it in place."


def _called(rival: Competitor) -> str:
    """What a competitor is called in a sentence."""
    return f"student on {LABELS}" if rival.name == LABELS else rival.name


def _spared(rival: Competitor) -> str:
    return "no teacher" if rival.name == LABELS else "no search"


def _of(rival: Competitor, metric: str) -> str:
    """What a competitor has to show."""
    gap = rival.difference
    beside = ""
    if gap is not None and gap.value is not None and gap.low is not None and gap.high is not None:
        beside = f" (to the teacher {signed(gap.value).strip()} [{signed(gap.low).strip()}, {signed(gap.high).strip()}], more is better)"
    return f"{metric_name(metric)} {digits(_score(rival))}{beside}{_took(rival.price)}"


def _took(price: Priced) -> str:
    return "" if price.latency_ms is None else f" at {price.latency_ms:.3g} ms"


def _score(each: Competitor) -> float:
    return each.score.value if each.score is not None and each.score.value is not None else math.nan


def _dear(price: Priced) -> tuple[float, float]:
    return price.latency_ms or 0.0, float(price.size_bytes or 0)
