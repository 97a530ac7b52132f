"""What a search found: every trial with its quality and its price, the finalists, the competitors, how small a student can be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attar.certificate.figures import Figure, metric_name
from attar.certificate.plain import plain, whole
from attar.errors import RunError
from attar.files import write_json

__all__ = [
    "SCHEMA_VERSION",
    "Competitor",
    "Finalist",
    "Priced",
    "Pricing",
    "Searched",
    "SizeCurve",
    "Trial",
    "board",
    "front",
    "temperature",
]

SCHEMA_VERSION = 1

State = Literal["trained", "dear", "stopped", "failed"]
Arm = Literal["student", "labels"]


@dataclass(frozen=True)
class Priced:
    """What a student costs, or will: known before it is trained, for weights change no price.

    latency_ms: 95th percentile of one row on one thread (or as the budget says); p50_ms: the median. low_ms, high_ms: where the 95th
        percentile lies, with 90 % where it is predicted, with 95 % where it was measured. size_bytes: of the exported file. macs:
        multiply-adds of one row. energy_mj: an estimate in millijoules of one row. memory_mb: that a call adds; peak_mb: that a process
        holds which does nothing else. measured: of the exported file, not predicted.
    None: not known.
    """

    latency_ms: float | None
    p50_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    rows_per_second: float | None = None
    size_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    memory_mb: float | None = None
    energy_mj: float | None = None
    measured: bool = False
    precision: Literal["float", "int8"] = "float"
    peak_mb: float | None = None


@dataclass(frozen=True)
class Trial:
    """One candidate.

    number: of the study. arm: whether it learnt from the teacher by the objective, or from labels alone. student, objective, fit: as a
        recipe says them. point: what each space came to, by name.
    state: trained to its end; "dear", dropped before training by its price; "stopped" at a rung; "failed", with `why`.
    score: the metric on the first half of the validation rows, as it is (not turned); None where it has none.
    rungs: (share of training, score) as it went. within: whether its price keeps the budget. seconds: its share of training.
    together: how many students trained as one program with it, 1 for none.
    """

    number: int
    arm: Arm
    student: str
    objective: str
    fit: str
    point: Mapping[str, Any]
    state: State
    score: float | None
    price: Priced
    within: bool
    rungs: tuple[tuple[float, float], ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    together: int = 1
    why: str = ""


@dataclass(frozen=True)
class Finalist:
    """A candidate trained anew over seeds and compared on the second half of the validation rows, which no choice had seen.

    scores: the metric of each seed there. score: their mean with its 95 % confidence interval, seeds and rows combined: of the design's
    quality, which decisions rest on. predicted: its exported file's score on the test rows, with the 95 % prediction interval, wider by
    what one training and those rows add; None in a search before there was one. optimism: by how much the middle of that is worse than
    the mean, for the rows that the mean is of chose among the finalists.
    price: of the exported file, measured. before: the score that it was chosen by; what it loses on the second half is the selection's
    bias.
    """

    trial: int
    student: str
    objective: str
    fit: str
    scores: tuple[float, ...]
    score: Figure
    price: Priced
    within: bool
    before: float
    arm: Arm = "student"
    difference: Figure | None = None  # to the teacher on the same rows, more is better; paired
    predicted: Figure | None = None
    optimism: float = 0.0


@dataclass(frozen=True)
class Competitor:
    """What could be put in place without a search: the teacher, its int8 file, a part of it, a student on labels alone.

    score: on the second half of the validation rows. why: what it is, in a sentence; or why it has no figure. difference: to the teacher
        on the same rows, more is better; paired. first: its score on the first half, which trials are scored on, so that both can be
        drawn in one picture; None: not asked.
    """

    name: str
    score: Figure | None
    price: Priced
    within: bool
    why: str = ""
    difference: Figure | None = None
    first: float | None = None


@dataclass(frozen=True)
class Pricing:
    """The latency model of one family of students: from how many measured exports, and its mean error on held-out ones.

    error: mean |predicted / measured − 1| on exports that it was not fitted on. trusted: whether that is at most 10 %; else each
    candidate's own export was measured. seconds: what measuring took.
    """

    family: str
    exports: int
    error: float
    trusted: bool
    seconds: float
    held_out: tuple[tuple[float, float], ...] = ()  # (predicted, measured), ms


@dataclass(frozen=True)
class SizeCurve:
    """error = floor + (scale / parameters)^power, fitted to the best trial of each size; and what it says.

    points: (parameters, error) it was fitted to. line: (parameters, error, low, high): 90 % prediction intervals of one more student.
    goal: the error that the margin allows. smallest: parameters of the smallest student that meets the goal with 90 %, None if none does.
    chance: by parameters of each size of the line, how probably it meets the goal. words: what is recommended, and why.
    family: of students, the only one on the curve. reach: the least and most parameters that the curve speaks about.
    """

    points: tuple[tuple[int, float], ...]
    line: tuple[tuple[int, float, float, float], ...]
    floor: float
    scale: float
    power: float
    goal: float
    smallest: int | None
    chance: tuple[tuple[int, float], ...] = ()
    words: str = ""
    family: str = ""
    reach: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Searched:
    """What a search leaves in its folder as search.json. See `read`.

    metric, better: +1 where more is better, −1 where less. bounds: the budget's, by name. margin: how much worse than the teacher counts
        as
        no worse. winner: number of the trial that is recommended, None where none is. recommendation: in sentences, which of student and
        competitors, and why; where the budget admits none, what binds and what it would take.
    correlations: (share of training, Spearman's correlation of the rung's scores with the final ones, trials behind it).
    seconds: by part ("teacher", "pricing", "training", "finalists", "competitors"). serial_seconds: what the trials would take one after
        another with the teacher asked in each, extrapolated from a sample; None where that was not measured.
    importances: by hole of a space, its share in what makes a trial one of the best tenth (PED-ANOVA); empty where trials are too few.
    study: what optuna-dashboard opens: "sqlite:///study.db", relative to the folder, or a URL without its password; "" if nothing.
    """

    metric: str
    better: int
    bounds: Mapping[str, float]
    margin: float
    teacher: Competitor
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...]
    competitors: tuple[Competitor, ...]
    curve: SizeCurve | None
    pricing: tuple[Pricing, ...]
    winner: int | None
    recommendation: tuple[str, ...]
    notes: tuple[str, ...] = ()
    correlations: tuple[tuple[float, float, int], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    serial_seconds: float | None = None
    workers: int = 1
    rows: Mapping[str, int] = field(default_factory=dict)
    data: str = ""
    machine: str = ""
    recipe: str = ""
    importances: Mapping[str, Figure] = field(default_factory=dict)
    study: str = ""
    schema_version: int = SCHEMA_VERSION

    def write(self, path: str | Path) -> None:
        """As JSON; the file appears whole or not at all."""
        write_json(Path(path), plain(self))

    @classmethod
    def read(cls, path: str | Path) -> Searched:
        """What `write` wrote. Raises RunError for a file that is not there, is no such JSON or of another version."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{path} is not there", hint="attar search makes it") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunError(f"{path} does not read: {error}", hint="attar search makes it anew") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise RunError(f"{path} is of version {version}, this attar reads {SCHEMA_VERSION}", hint="attar search makes it anew")
        try:
            return whole(cls, content)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}", hint="attar search makes it anew") from None


def front(trials: Iterable[Trial], better: int, costs: Sequence[str] = ("latency_ms", "size_bytes")) -> tuple[Trial, ...]:
    """The trained students that no other beats: none is at least as good and as cheap, and better or cheaper; the cheapest first.

    better: as in Searched. costs: fields of Priced, less of each is better; who lacks one, or a score, is left out, and so is what learnt
    from labels alone. Of equals the first trial stays.
    """

    def known(trial: Trial) -> bool:
        return trial.score is not None and all(getattr(trial.price, name) is not None for name in costs)

    def of(trial: Trial) -> tuple[float, ...]:
        return (*(getattr(trial.price, name) for name in costs), -better * (trial.score or 0.0))

    found: list[tuple[tuple[float, ...], Trial]] = []
    candidates = [(of(t), t) for t in trials if t.state == "trained" and t.arm == "student" and known(t)]
    for values, trial in sorted(candidates, key=lambda c: (c[0], c[1].number)):  # who beats another stands before it
        if not any(all(a <= b for a, b in zip(other, values, strict=True)) for other, _ in found):
            found.append((values, trial))
    return tuple(trial for _, trial in found)


def board(trials: Iterable[Trial], metric: str, better: int, most: int = 8) -> tuple[dict[str, float | str], ...]:
    """The front so far as rows for a live display (`Event.rows`), the best first.

    most: so many at most; of those that keep the budget, where any does.
    """
    shown = front(trials, better)
    shown = tuple(t for t in shown if t.within) or shown
    best = sorted(shown, key=lambda t: -better * (t.score or 0.0))[:most]
    return tuple(
        {
            "trial": t.number,
            metric_name(metric): t.score or 0.0,
            "p95 ms": t.price.latency_ms or 0.0,
            "kB": (t.price.size_bytes or 0) / 1e3,
            **({"temperature": value} if (value := temperature(t)) is not None else {}),
            "student": t.student,
        }
        for t in best
    )


def temperature(trial: Trial) -> float | None:
    """The temperature that the search chose for a trial; None where it was not searched."""
    found = [v for name, v in trial.point.items() if name.split(".")[-1].startswith("temperature") and isinstance(v, int | float)]
    return float(found[0]) if found else None
