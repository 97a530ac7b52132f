"""What a search tries first: points that experience says are good, before its sampler has learnt anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attar.notation import Hole, Node, Space, Vocabulary, calls, write
from attar.notation.annotations import parameters_of
from attar.notation.tree import is_number, literal
from attar.students.spaces import rates

__all__ = ["priors"]

TEMPERATURES = (1.0, 2.0, 4.0)  # tried first: what suits many outcomes, the default, and what suits few of them and much capacity


@dataclass(frozen=True)
class _Way:
    """How a first point differs from the defaults: all temperatures, all shares of the teacher, every size of the student."""

    temperature: float | None = None
    weight: float | None = None
    size: Literal["smallest", "largest"] | None = None


_WAYS = (
    _Way(),
    *(_Way(temperature=t) for t in TEMPERATURES),
    _Way(weight=1.0),
    _Way(temperature=min(TEMPERATURES), size="smallest"),
    _Way(temperature=max(TEMPERATURES), size="largest"),
)


def priors(spaces: Mapping[str, Space], student: Node, words: Callable[[str], Vocabulary]) -> tuple[dict[str, Any], ...]:
    """Points that a search tries first, for each of the student's families: by the default of every word where its space has it.

    Then at other temperatures, on the teacher alone, and the smallest and the largest student at the temperature that is likely to
    suit it: the best one grows with capacity. A point is there once.
    spaces: by key. student: the student's line. words: key → its vocabulary.
    """
    holes = [hole for space in spaces.values() for hole in space.holes]
    known = {name: word for key in spaces for name, word in words(key).items()}
    line = next((hole for hole in holes if hole.name == "student" and hole.kind == "choice"), None)
    found: list[dict[str, Any]] = []
    for family in line.items if line else (student,):
        suited = rates([call.name for call in calls(family, words("student"))])
        for way in _WAYS:
            point: dict[str, Any] = {}
            for hole in holes:
                if hole.asked(point):
                    point[hole.name] = write(family) if hole is line else _first(hole, way, known, suited)
            if point and point not in found:
                found.append(point)
    return tuple(found)


def _first(hole: Hole, way: _Way, words: Vocabulary, rates: tuple[float, float] | None) -> Any:
    """What a first point has in a hole: what the way asks for, else the default of the word, else half way.

    rates: that suit the student; where the default rate is none of them, the one half way between them by ratio.
    """
    parameter = parameters_of(words[hole.word]).get(hole.argument) if hole.word in words else None
    default = None if parameter is None else parameter.default
    asked: list[Any] = [literal(default) if hole.kind == "choice" else default]
    if hole.argument == "temperature" and way.temperature is not None:
        asked.insert(0, literal(way.temperature) if hole.kind == "choice" else way.temperature)
    if hole.word == "blend" and hole.argument == "weight" and way.weight is not None:
        asked.insert(0, literal(way.weight) if hole.kind == "choice" else way.weight)
    if way.size is not None and hole.name.startswith("student.") and (hole.kind != "choice" or all(map(is_number, hole.items))):
        asked.insert(0, hole.ends[0 if way.size == "smallest" else -1])
    if (hole.word, hole.argument) == ("fit", "lr") and rates and isinstance(default, float) and not rates[0] <= default <= rates[1]:
        asked.insert(0, float(f"{math.sqrt(rates[0] * rates[1]):.4g}"))
    return next((value for value in asked if hole.holds(value)), hole.middle)
