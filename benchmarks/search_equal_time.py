"""What a search finds in a given time, beside plain Optuna and random search: `python benchmarks/search_equal_time.py` (some ten minutes).

Three ways over one space of students, temperatures, weights and learning rates, each with the same seconds on one worker, on the rows and
with the teacher of the first of `search_studies.py`. The teacher is given ready; its making is no part of any.
- *attar*: the search without a budget: answers stored, prices learnt, batches of candidates as one program, rungs, and half of its
  candidates on labels alone, which are no points here. Its finalists and competitors come after the clock, as they would with the others.
- *Optuna*: its TPE sampler of error and latency, one trial after another: each student is trained by itself, asks the teacher at every
  step, and its export is measured afterwards.
- *random*: the same, by the random sampler, whose first ten points of a seed are those of TPE, too.
All train as many epochs as the search gives its trials, and score on the first half of the validation rows.

The front is of error (1 − AUROC) and latency; its hypervolume is taken with the logarithm of the latency, up to the teacher's error + .05
and the latency of the space's largest student, as a share of the hypervolume of all runs' points together. Latencies are of one law for
all, learnt once outside the clock, so that no way gains by a measurement in a good moment. Who tries more is flattered more by its
choice among noisy scores: so the students of each last front are trained anew, with another seed, and scored on the test rows.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from search_studies import OBJECTIVE, TASK, TEACHER, described

import attar
from attar.cost import machine
from attar.data import Data
from attar.notation import Hole
from attar.progress import Event
from attar.recipe import of_texts
from attar.report.drawing import LEFT, WIDTH, Axis, Drawing, ladder, legend
from attar.signal import Source
from attar.sources import module
from attar.statistics.fronts import front, hypervolume
from attar.verbs.evaluate.models import Model
from attar.verbs.search.design import Spaces
from attar.verbs.search.pricing import Prices
from attar.verbs.search.protocol import halved
from attar.verbs.search.training import Candidate, Classroom

STUDENT = "mlp(width=integer(4, 256, log=True), depth=integer(1, 4))"
WAYS = ("attar", "Optuna", "random")
AT = (0.25, 0.5, 1.0)  # of the time
MANY = 100_000  # trials: time ends the search
BEYOND = 0.05  # the teacher's error: where the reference lies
ANEW = 1000  # the seed of the students that are scored on test rows
STYLE = (
    "svg{background:#fffdfb;font:11px system-ui,sans-serif}text{fill:#231d1f}.small{fill:#665a5e}.grid{stroke:#ebe4e1}"
    ".curve,.one{fill:none;stroke:var(--c);stroke-width:2}.one{stroke-width:1;opacity:.4}"
    ".attar{--c:#b0285f}.Optuna{--c:#2f5d8c}.random{--c:#6b6b6b}"
)

Line = Mapping[str, Any]


class Enough(Exception):
    """The time is over: what a search does after its candidates is after the clock."""


@dataclass(frozen=True)
class Lesson:
    """What all ways have: the rows, the teacher, the space."""

    data: Data
    teacher: Source
    spaces: Spaces
    seconds: float
    fit: str
    out: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each way and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24, help="of a whole training; a trial has at most a quarter")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search-equal-time"))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lesson = prepared(asked)
    told = asked.out / "runs.jsonl"
    for seed in range(asked.seeds):
        for way in WAYS:
            if any((line["way"], line["seed"]) == (way, seed) for line in known(told)):
                continue
            points = searched(lesson, seed) if way == "attar" else scripted(lesson, seed, way, epochs_of(known(told)))
            with told.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"way": way, "seed": seed, "points": points}) + "\n")
            print(f"{way}, seed {seed}: {len(points)} students trained in {asked.seconds:g} s", flush=True)
    lines = [line for line in known(told) if line["seed"] < asked.seeds]
    print(f"\npython {' '.join(sys.argv)} · {machine()}\n")
    print(report(lesson, lines))


def prepared(asked: argparse.Namespace) -> Lesson:
    asked.out.mkdir(parents=True, exist_ok=True)
    data, fit = described(0).read(), f"fit(epochs={asked.epochs}, lr=log(1e-3, 2e-2))"
    teacher = attar.teach(attar.taught(TEACHER, at="teacher.txt"), data, TASK, at=asked.out / "teacher.txt")
    spaces = Spaces(of_texts({"student": STUDENT, "objective": OBJECTIVE, "fit": fit}), asked.out)
    return Lesson(data, teacher, spaces, asked.seconds, fit, asked.out)


def known(told: Path) -> list[Line]:
    """The runs that are finished."""
    return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []


def epochs_of(lines: Iterable[Line]) -> int:
    return max(point["epochs"] for line in lines if line["way"] == "attar" for point in line["points"])


# ---- the ways: of each student (seconds since the start, point, score)


def searched(lesson: Lesson, seed: int) -> list[dict[str, Any]]:
    out = lesson.out / f"attar-{seed}" / "search"  # no other search beside it: prices are measured anew
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    begun = time.time()

    def listen(_: Event) -> None:
        if time.time() - begun > lesson.seconds:
            raise Enough

    with suppress(Enough):
        attar.search(
            lesson.teacher,
            STUDENT,
            described(0),
            OBJECTIVE,
            task=TASK,
            fit=lesson.fit,
            trials=MANY,
            out=out,
            seed=seed,
            listen=listen,
        )
    study = optuna.load_study(study_name="student", storage=f"sqlite:///{out / 'study.db'}")
    found = []
    for trial in study.trials:
        told = json.loads(trial.user_attrs.get("attar:trial", "{}"))
        if told.get("state") == "trained" and told["score"] is not None and trial.datetime_complete is not None:
            after = trial.datetime_complete.timestamp() - begun
            found.append({"after": after, "point": told["point"], "score": told["score"], "epochs": told["epochs"]})
    return [each for each in found if each["after"] <= lesson.seconds]


def scripted(lesson: Lesson, seed: int, way: str, epochs: int) -> list[dict[str, Any]]:
    """One trial after another, the teacher asked live: a loop such as one writes around a training script."""
    begun, found = time.perf_counter(), []
    sampler = optuna.samplers.TPESampler(seed=seed) if way == "Optuna" else optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    room = Classroom(halved(lesson.data).first, TASK.bind(lesson.data.schema), lesson.teacher)
    prices: Prices | None = None
    while time.perf_counter() - begun < lesson.seconds:
        trial = study.ask()
        point = {hole.name: suggested(trial, hole) for hole in lesson.spaces.holes("student")}
        score = trained(lesson, room, point, epochs, trial.number)
        student = lesson.spaces.design(point).student
        prices = prices or Prices.learn([student], lesson.data, TASK)  # of one student no law is learnt: it is measured
        latency = prices.price(student).latency_ms
        after = time.perf_counter() - begun
        if score is None or latency is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, (1 - score, latency))
            found.append({"after": after, "point": point, "score": score, "epochs": epochs})
    return [each for each in found if each["after"] <= lesson.seconds]


def trained(lesson: Lesson, room: Classroom, point: Mapping[str, Any], epochs: int, seed: int) -> float | None:
    (outcome,) = room.train([Candidate(short(lesson, point, epochs), seed)])
    return outcome.score


def short(lesson: Lesson, point: Mapping[str, Any], epochs: int) -> Any:
    design = lesson.spaces.design(point)
    return replace(design, fit=replace(design.fit, epochs=epochs))


def suggested(trial: optuna.Trial, hole: Hole) -> float | int:
    assert hole.low is not None
    assert hole.high is not None
    if hole.kind == "integer":
        return trial.suggest_int(hole.name, int(hole.low), int(hole.high), log=hole.log)
    return trial.suggest_float(hole.name, hole.low, hole.high, log=hole.log)


# ---- one ruler for all


class Ruler:
    """Points as (error, log latency), and what a front of them is worth."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson, chance = lesson, random.Random(0)
        drawn = [lesson.spaces.design(lesson.spaces.drawn(chance)).student for _ in range(400)]
        self.prices = Prices.learn(drawn, lesson.data, TASK)
        answers = attar.annotate(lesson.teacher, lesson.data, at=lesson.out / "answers", task=TASK)
        self.room = Classroom(halved(lesson.data).first, TASK.bind(lesson.data.schema), answers)
        ends = {hole.name: hole.high for hole in lesson.spaces.holes("student") if hole.name.startswith("student.")}
        largest = self.latency({**lesson.spaces.middle(), **ends})
        self.reference = (1 - self.room.judge.of(answers) + BEYOND, largest)
        self.test_reference = (1 - self.metric(answers) + BEYOND, largest)

    def latency(self, point: Mapping[str, Any]) -> float:
        """The logarithm of the milliseconds that the law says."""
        return math.log(self.prices.predicted(self.lesson.spaces.design(point).student).latency_ms or math.nan)

    def metric(self, source: Source) -> float:
        """On the test rows."""
        test, task = self.lesson.data.test, self.room.task
        assert test.labels is not None
        figures = task.figures(Model("a student", source, task).ask(test), test.labels)
        return float(figures[task.metric](np.ones(len(test))))

    def of(self, points: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
        return [(1 - each["score"], self.latency(each["point"])) for each in points]

    def anew(self, points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
        """The students of the front trained anew and scored on test rows."""
        found, ahead = [], front(self.of(points)) if points else ()
        for each in (point for point, first in zip(points, ahead, strict=True) if first):
            (outcome,) = self.room.train([Candidate(short(self.lesson, each["point"], each["epochs"]), ANEW)])
            if outcome.model is not None:
                found.append((1 - self.metric(module(outcome.model)), self.latency(each["point"])))
        return found


def worth(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    return hypervolume(points, reference) if points else 0.0


# ---- what is told


def report(lesson: Lesson, lines: Sequence[Line]) -> str:
    ruler = Ruler(lesson)
    whole = worth(ruler.of(point for line in lines for point in line["points"]), ruler.reference)
    anew = [ruler.anew(line["points"]) for line in lines]
    whole_anew = worth([point for each in anew for point in each], ruler.test_reference)
    ends = [worth(each, ruler.test_reference) / whole_anew for each in anew]

    def at(line: Line, seconds: float) -> float:
        return worth(ruler.of(p for p in line["points"] if p["after"] <= seconds), ruler.reference) / whole

    shares = " | ".join(f"at {share:.0%} of the time" for share in AT)
    said = [
        f"Up to AUROC {1 - ruler.reference[0]:.4f} and {1000 * math.exp(ruler.reference[1]):.1f} µs; {lesson.seconds:g} s for each way and "
        f"seed; means over seeds, in brackets the least and the most. The law of latency errs by {ruler.prices.pricings[0].error:.1%}.",
        "",
        f"| way | students trained | the first after, s | {shares} | the last front anew, on test rows |",
        f"|---|---|---|{'---|' * len(AT)}---|",
    ]
    for way in WAYS:
        own = [(line, end) for line, end in zip(lines, ends, strict=True) if line["way"] == way]
        cells = [spread([len(line["points"]) for line, _ in own], "{:.0f}")]
        cells.append(spread([min((p["after"] for p in line["points"]), default=math.inf) for line, _ in own], "{:.1f}"))
        cells += [spread([at(line, share * lesson.seconds) for line, _ in own]) for share in AT]
        said.append(f"| {way} | {' | '.join(cells)} | {spread([end for _, end in own])} |")
    picture = lesson.out / "equal_time.svg"
    picture.write_text(drawn(lines, lesson.seconds, at), encoding="utf-8")
    return "\n".join([*said, "", f"{picture}"])


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    mean, low, high = (form.format(f(values)) for f in (np.mean, min, max))
    return f"{mean} [{low}, {high}]"


def drawn(lines: Sequence[Line], seconds: float, at: Callable[[Line, float], float]) -> str:
    """Hypervolume over time: each seed thin, the mean of a way bold."""
    times = np.linspace(0, seconds, 121).tolist()
    curves = {id(line): [at(line, t) for t in times] for line in lines}
    d = Drawing("equal-time", "Hypervolume over time", "Share of all runs' hypervolume that each way has found, by seconds", WIDTH, 280)
    places, top = legend(WAYS)
    across, down = Axis(0, seconds, LEFT, WIDTH - 10), Axis(0, 1, 238, top + 8)
    d.add("style", inside=STYLE)
    ladder(d, down, LEFT, WIDTH - 10, "hypervolume, of all runs'")
    for tick in across.ticks(6):
        d.text(across(tick), 254, f"{tick:g}", "tick", "middle")
    d.text((LEFT + WIDTH - 10) / 2, 272, "seconds", "small", "middle")
    for way, (x, y) in zip(WAYS, places, strict=True):
        own = [curves[id(line)] for line in lines if line["way"] == way]
        d.line(x, y, x + 16, y, f"curve {way}")
        d.text(x + 20, y + 4, way)
        for values in own:
            d.path([(across(t), down(v)) for t, v in zip(times, values, strict=True)], f"one {way}")
        d.path([(across(t), down(float(v))) for t, v in zip(times, np.mean(own, axis=0), strict=True)], f"curve {way}")
    return d.svg().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


if __name__ == "__main__":
    main()
