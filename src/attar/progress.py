"""What a verb says while it works: events that a shell may show, and nobody needs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Event", "Listener", "silent"]


@dataclass(frozen=True)
class Event:
    """One thing said by a verb.

    stage: the verb and what it works at, "teach", "annotate train", "distill student seed 0".
    done, total: units of work finished and in all; total 0 where nobody knows.
    text: one short sentence for people, or "".
    numbers: figures by name (losses, metrics), already plain floats.
    seconds_left: of the time that was allowed; None where it has no limit.
    rows: a small table as it stands now, each row by the names of its columns; a live display shows it in place of the one before.
    """

    stage: str
    done: int = 0
    total: int = 0
    text: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    rows: Sequence[Mapping[str, float | str]] = ()


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener of those who do not listen."""
