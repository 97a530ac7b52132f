"""What a student will cost, before it is trained: a latency model by family, learnt from exports with weights of chance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar.cost import Budget, Candidate, Cost, compare, energy_mj, machine, peak_memory_mb, working_memory_mb
from attar.data import Data
from attar.errors import EvidenceError
from attar.guards import Guard
from attar.progress import Event, Listener, silent
from attar.reading import TextFeed
from attar.searched import Priced, Pricing, Trial
from attar.signal import Batch, Student
from attar.sources.onnx import Onnx
from attar.task import Task
from attar.verbs.export.rows import Feed, take
from attar.verbs.search.drafts import GROWN, Draft, Drafts, Precision
from attar.verbs.search.law import Law, Laws, spread
from attar.verbs.search.shapes import Shape, Shapes, family_of

__all__ = ["Prices", "priced"]

EXPORTS = 24  # of a family, at most
STEP = 12  # so many at a time, after which it is seen whether the law is good enough; the worst of fewer is not yet what 90 % stay within
GOOD = 0.07  # mean error on held-out exports from which on no more are made: some of it is the machine's
TRUST = 0.10  # mean error on held-out exports up to which a law may price
SECONDS = 0.3  # of measuring, for each export
SINGLES = 64  # rows asked one by one
REFERENCE = "reference"


def priced(cost: Cost, precision: Precision) -> Priced:
    """What was measured, as a search records it; its interval is one of 95 %."""
    p95 = cost.latency_ms.p95
    return Priced(
        latency_ms=p95.value,
        p50_ms=cost.latency_ms.p50.value,
        low_ms=p95.low,
        high_ms=p95.high,
        rows_per_second=cost.rows_per_second.value,
        size_bytes=cost.size_bytes,
        parameters=cost.parameters,
        memory_mb=cost.memory_mb,
        measured=True,
        precision=precision,
    )


@dataclass(frozen=True)
class _Measured:
    """One draft measured: p50, p95 with its interval, in ms; seconds a row of many; working memory where it is bounded."""

    draft: Draft
    p50: float
    p95: float
    low: float
    high: float
    row_s: float
    memory_mb: float | None = None


@dataclass
class Prices:
    """What students of one data set and task cost on this machine. See `learn`, then `price`.

    where: the machine and the runtime. pricings: of each family how its law did on exports left out. families: their laws.
    export: seconds that the last export took by itself.
    mood: by how much, as a logarithm, the machine's own speed went up and down meanwhile, 90 % of it.
    exact: prices of students that were measured, by their texts. reference: the one that is measured beside all others, by its text, and
    its level: what it took when it was first measured, to which all others are turned.
    student: makes a student of its text, and so the reference of prices that another process has learnt.
    """

    data: Data
    task: Task
    bounds: Budget
    drafts: Drafts
    shapes: Shapes
    exports: int = EXPORTS
    export: float | None = None
    where: str = field(default_factory=lambda: f"{machine()}, ONNX Runtime {metadata.version('onnxruntime')}")
    pricings: tuple[Pricing, ...] = ()
    families: dict[str, Laws] = field(default_factory=dict, repr=False)
    mood: float = 0.0
    exact: dict[str, Priced] = field(default_factory=dict, repr=False)
    reference: str = ""
    level: float = 0.0
    student: Callable[[str], Student] | None = field(default=None, repr=False)
    _reference: Draft | None = field(default=None, repr=False)

    @classmethod
    def begun(
        cls,
        data: Data,
        task: Task,
        *,
        bounds: Budget | None = None,
        precision: Precision = "float",
        guard: Guard | None = None,
        exports: int = EXPORTS,
        seed: int = 0,
        student: Callable[[str], Student] | None = None,
    ) -> Prices:
        """Prices of which nothing is known yet. As in `learn`; student: see the class."""
        bounds, task = bounds or Budget(), task.bind(data.schema)
        drafts = Drafts(data, task, precision=precision, guard=guard, seed=seed, threads=bounds.threads)
        return cls(data, task, bounds, drafts, Shapes(data.schema, task, min(GROWN, len(data.train))), exports, student=student)

    @classmethod
    def learn(
        cls,
        students: Sequence[Student],
        data: Data,
        task: Task,
        *,
        bounds: Budget | None = None,
        precision: Precision = "float",
        guard: Guard | None = None,
        exports: int = EXPORTS,
        seed: int = 0,
        listen: Listener = silent,
    ) -> Prices:
        """Measure some of `students` with weights of chance, and learn by family what the others will cost.

        students: drawn from the spaces that will be searched, a few hundred of each family: those that lie farthest from each other are
        exported, twelve at a time until the law errs by at most 7 % on exports left out, at most `exports` of a family. A family of no more
        students than that, or of which no law is known, is measured student by student; so is one whose law errs by more than 10 %, each
        when its price is first asked.
        bounds: whose batch, many and threads are those that are measured. precision: of the file that will be deployed. guard: it has.

        Every round of measuring calls all exports of a family, a reference among them, by which each round is divided: what slows the
        machine for a while slows both.
        """
        prices = cls.begun(data, task, bounds=bounds, precision=precision, guard=guard, exports=exports, seed=seed)
        by_family: dict[str, dict[str, Student]] = {}
        for student in students:
            by_family.setdefault(family_of(student), {})[repr(student)] = student
        if not by_family:
            raise EvidenceError("no student to price", hint="a space has at least one")
        for family, them in by_family.items():
            prices._learn(family, them, listen)
        return prices

    def price(self, student: Student) -> Priced:
        """What a student costs: in microseconds where its family's law is trusted; else it is exported and measured, once."""
        if (known := self.exact.get(repr(student))) is not None:
            return known
        return self.predicted(student) if family_of(student) in self.trusted else self.measure(student)

    @property
    def trusted(self) -> frozenset[str]:
        """The families whose law prices."""
        return frozenset(pricing.family for pricing in self.pricings if pricing.trusted)

    def predicted(self, student: Student) -> Priced:
        """What the law of its family says of a student, trusted or not. Raises EvidenceError for a family that has none."""
        laws, shape = self.families.get(family_of(student)), self.shapes.of(student)
        if laws is None or shape is None:
            raise EvidenceError(f"no law says what {student!r} costs", hint="measure(student) exports it and looks")
        return self._predicted(laws, shape)

    def measure(self, student: Student) -> Priced:
        """What a student costs, measured on its own export with weights of chance; known from then on."""
        self._measure(family_of(student), {repr(student): student})
        return self.exact[repr(student)]

    def note(self, trials: Iterable[Trial]) -> None:
        """Takes over what was measured for trials, in other processes too."""
        self.exact |= {trial.student: trial.price for trial in trials if trial.price.measured}

    @property
    def measured_already(self) -> tuple[str, ...]:
        """The students, as texts, of which an export was measured."""
        return tuple(self.exact)

    def measured(self, folder: str | Path, *, macs: int | None = None) -> Priced:
        """What an exported folder costs: its certified file, measured. macs: as its price had them, for a file does not tell.

        Raises TeacherError for a damaged folder.
        """
        source = Onnx(str(folder), threads=self.bounds.threads)
        assert source.manifest is not None
        rows = self._rows(self.bounds.many)
        candidate = Candidate.of(
            source, rows, rows, size_bytes=source.size_bytes, parameters=source.parameters, batch=self.bounds.batch, singles=SINGLES
        )
        cost = compare({"": candidate}, seconds=4 * SECONDS, threads=self.bounds.threads, undisturbed=True).costs[""]
        text = source.manifest["text"]
        feed = Feed(None if text is None else TextFeed.from_json(text, source.file.parent))
        feeds = feed.arrays(take(rows, feed.pieces(rows)[0]))
        precision: Precision = "int8" if source.manifest["files"][source.file.name]["precision"] == "int8" else "float"
        return replace(
            priced(cost, precision),
            macs=macs,
            energy_mj=None if macs is None else energy_mj(macs, source.size_bytes, precision),
            peak_mb=peak_memory_mb(source.file.read_bytes(), feeds, threads=self.bounds.threads),
        )

    # ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _learn(self, family: str, students: Mapping[str, Student], listen: Listener) -> None:
        started = time.perf_counter()
        shapes = {text: shape for text, student in students.items() if (shape := self.shapes.of(student)) is not None}
        if len(students) <= self.exports or len(shapes) < len(students):
            no_law = "no law of their latency is known" if len(shapes) < len(students) else "so few need no law"
            count = f"{len(students):,} different student{'s' * (len(students) != 1)} drawn from the space"
            listen(Event("price", text=f"{family}: {count}; {no_law}: each is exported and measured when it is first asked for"))
            return
        texts = list(shapes)
        order = [texts[i] for i in spread(np.array([shapes[t].features for t in texts]), self.exports)]
        found: dict[str, _Measured] = {}
        while True:
            found |= self._measure(family, {t: students[t] for t in order[len(found) : len(found) + STEP]}, listen)
            laws = _fitted({text: shapes[text] for text in found}, found)
            needed = laws.needed(self.bounds)
            if len(found) == len(order) or all(law.error <= GOOD for law in needed.values()):
                break
        trusted = all(law.error <= TRUST for law in needed.values())
        pricing = Pricing(family, len(found), laws.p95.error, trusted, time.perf_counter() - started, laws.p95.held_out)
        self.families[family] = laws
        self.pricings = (*self.pricings, pricing)
        errors = ", ".join(f"{law.error:.2g} of {name}" for name, law in needed.items())
        verdict = "" if trusted else f", above {TRUST:g}: each candidate's own export will be measured"
        listen(Event("price", text=f"{family}: {len(found)} exports, mean held-out error {errors}{verdict}"))

    def _measure(self, family: str, students: Mapping[str, Student], listen: Listener = silent) -> dict[str, _Measured]:
        """Export with weights of chance and measure side by side; each one's price is exact from then on."""
        made: dict[str, Draft] = {}
        for i, (text, student) in enumerate(students.items(), 1):
            shape = self.shapes.of(student)
            started = time.perf_counter()
            made[text] = self.drafts.make(student, family, None if shape is None else shape.structure)
            if made[text].traced:
                self.export = time.perf_counter() - started
            if shape is not None:
                _need_equal(text, shape, made[text])
            listen(Event(f"price {family}", i, len(students)))
        if self._reference is None and self.reference and self.student is not None:
            self._reference = self._drafted(self.student(self.reference))
        first = self._reference is None
        if self._reference is None:  # of middling size
            self.reference = sorted(made, key=lambda text: made[text].size_bytes)[len(made) // 2]
            self._reference = made[self.reference]
        rows = self._rows(self.bounds.many)
        names = {text: str(i) for i, text in enumerate(made)}
        candidates = {names[text]: self._candidate(draft, rows) for text, draft in made.items()}
        candidates[REFERENCE] = self._candidate(self._reference, rows)
        compared = compare(candidates, seconds=SECONDS, threads=self.bounds.threads, undisturbed=True)
        level = compared.costs[REFERENCE].latency_ms.p50.value
        if first:
            self.level = level
        moods = np.log(np.median(compared.seconds_one[REFERENCE], axis=1))
        low, high = np.quantile(moods, (0.05, 0.95))
        self.mood = max(self.mood, float(high - low) / 2)
        found = {}
        for text, draft in made.items():
            one, many = (compared.latency(names[text], beside=REFERENCE, many=m) for m in (False, True))
            turn = self.level / level
            row_s = turn * many.p50.value / 1000 / self.bounds.many
            memory = None if self.bounds.memory_mb is None else working_memory_mb(partial(self._warmed, draft, rows))
            p50, p95 = one.p50, one.p95
            found[text] = _Measured(draft, turn * p50.value, turn * p95.value, turn * p95.low, turn * p95.high, row_s, memory)
            self.exact[text] = _exactly(found[text], self.mood)
        return found

    def _warmed(self, draft: Draft, rows: Batch) -> Callable[[], Any]:
        call = draft.prepare(rows)
        draft.prepare(take(rows, slice(0, 1)))()  # the pages of the library's code are not what a batch needs
        return call

    def _candidate(self, draft: Draft, rows: Batch) -> Candidate:
        return Candidate.of(draft, rows, rows, size_bytes=draft.size_bytes, batch=self.bounds.batch, singles=SINGLES, memory=False)

    def moved(self, student: Student) -> float:
        """How many times longer the reference takes now than it took, which it is from now on measured beside; `student` is the reference.

        Of prices that were kept: so it is seen whether they still hold.
        """
        self._reference = self._drafted(student)
        candidates = {REFERENCE: self._candidate(self._reference, self._rows(self.bounds.many))}
        compared = compare(candidates, seconds=SECONDS, threads=self.bounds.threads, undisturbed=True)
        return compared.costs[REFERENCE].latency_ms.p50.value / self.level

    def _drafted(self, student: Student) -> Draft:
        shape = self.shapes.of(student)
        return self.drafts.make(student, family_of(student), None if shape is None else shape.structure)

    def _predicted(self, laws: Laws, shape: Shape) -> Priced:
        p95, size = laws.p95(shape.features), round(laws.size(shape.bytes))
        wide = math.exp(math.hypot(laws.p95.spread, self.mood))
        parameters = shape.parameters if laws.parameters is None else round(laws.parameters(shape.bytes))
        macs, precision = parameters if shape.macs is None else shape.macs, self.drafts.precision
        return Priced(
            latency_ms=p95,
            p50_ms=min(p95, laws.p50(shape.features)),
            low_ms=p95 / wide,
            high_ms=p95 * wide,
            rows_per_second=1 / laws.row_s(shape.features) if laws.row_s.error <= TRUST else None,
            size_bytes=size,
            parameters=parameters,
            macs=macs,
            memory_mb=None if laws.memory is None else laws.memory(shape.features),
            energy_mj=None if macs is None else energy_mj(macs, size, precision),
            precision=precision,
        )

    def _rows(self, count: int) -> Batch:
        valid = self.data.valid
        return Batch(valid.batch(torch.arange(count) % len(valid)).inputs, schema=self.data.schema)


def _fitted(shapes: Mapping[str, Shape], found: Mapping[str, _Measured]) -> Laws:
    """The laws of a family, by the exports that were measured."""
    features, stored = (np.array([getattr(shapes[t], name) for t in found]) for name in ("features", "bytes"))

    def law(x: NDArray[np.float64], values: Callable[[_Measured], float]) -> Law:
        return Law.fit(x, np.array([values(each) for each in found.values()]))

    counted = all(shape.parameters is not None for shape in shapes.values())
    remembered = all(each.memory_mb is not None for each in found.values())
    return Laws(
        law(features, lambda m: m.p95),
        law(features, lambda m: m.p50),
        law(features, lambda m: m.row_s),
        law(stored, lambda m: m.draft.size_bytes),
        None if counted else law(stored, lambda m: max(1, m.draft.parameters)),
        law(features, lambda m: max(m.memory_mb or 0.0, 0.01)) if remembered else None,
    )


def _exactly(m: _Measured, mood: float) -> Priced:
    draft, wide = m.draft, math.exp(mood)
    return Priced(
        latency_ms=m.p95,
        p50_ms=m.p50,
        low_ms=min(m.low, m.p95 / wide),
        high_ms=max(m.high, m.p95 * wide),
        rows_per_second=1 / m.row_s,
        size_bytes=draft.size_bytes,
        parameters=draft.parameters,
        macs=draft.macs,
        memory_mb=m.memory_mb,
        energy_mj=energy_mj(draft.macs, draft.size_bytes, draft.precision),
        measured=True,
        precision=draft.precision,
    )


def _need_equal(text: str, shape: Shape, draft: Draft) -> None:
    for name in ("parameters", "macs"):
        said, is_ = getattr(shape, name), getattr(draft, name)
        assert said is None or said == is_, f"{text}: {said:,} {name} by its shape, {is_:,} when built"
