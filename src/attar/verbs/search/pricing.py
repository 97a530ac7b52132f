"""What a student will cost, before it is trained: a latency model by family, learnt from exports with weights of chance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from attar.cost import Budget, Candidate, Compared, Cost, compare, energy_mj, machine, peak_memory_mb, working_memory_mb
from attar.data import Data
from attar.errors import EvidenceError
from attar.guards import Guard
from attar.progress import Event, Listener, silent
from attar.reading import TextFeed
from attar.searched import Priced, Pricing
from attar.signal import Batch, Student
from attar.sources.onnx import Onnx
from attar.task import Task
from attar.verbs.export.rows import Feed, take
from attar.verbs.search.drafts import GROWN, Draft, Drafts, Precision, identity
from attar.verbs.search.shapes import Shape, Shapes, family_of

__all__ = ["Law", "Prices", "priced", "spread"]

EXPORTS = 24  # of a family
FEWEST = 8  # exports from which on a law is worth fitting
TRUST = 0.10  # mean error on held-out exports up to which a law may price
SECONDS = 0.3  # of measuring, for each export
SINGLES = 64  # rows asked one by one
IDENTITY, REFERENCE = "identity", "reference"


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
class Law:
    """y = Σ price · feature, no price negative; its error is that on exports left out, one after another.

    error: mean |predicted / measured − 1|. spread: of |log(measured / predicted)|, what 90 % of one more export's stay within (split
    conformal, Lei et al. 2018, arXiv:1604.04173, over exports left out). held_out: (predicted, measured).
    """

    prices: NDArray[np.float64]
    error: float
    spread: float
    held_out: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, features: NDArray[np.float64], y: NDArray[np.float64]) -> Law:
        """features: (n, k), not negative. y: (n,) positive. By least squares of relative errors (Lawson and Hanson's NNLS)."""
        predicted = np.array([float(features[i] @ _prices(np.delete(features, i, 0), np.delete(y, i))) for i in range(len(y))])
        ratio = predicted / y
        off = np.sort(np.abs(np.log(np.maximum(ratio, 1e-9))))
        rank = min(len(off), math.ceil(0.9 * (len(off) + 1)))
        return cls(
            _prices(features, y),
            float(np.abs(ratio - 1).mean()),
            float(off[rank - 1]),
            tuple(zip(predicted.tolist(), y.tolist(), strict=True)),
        )

    def __call__(self, features: Sequence[float]) -> float:
        return float(np.dot(self.prices, features))


def _prices(features: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.maximum(features.max(0), 1e-12)
    found, _ = nnls(features / scale / y[:, None], np.ones(len(y)))
    return found / scale


def spread(features: NDArray[np.float64], count: int) -> list[int]:
    """Positions of `count` rows that lie far from each other, the extremes among them: farthest first, after logarithms (Gonzalez 1985)."""
    scores = np.log1p(features)
    scores = (scores - scores.mean(0)) / np.maximum(scores.std(0), 1e-9)
    chosen = [int(np.argmax(np.abs(scores).sum(1)))]
    distance = np.full(len(scores), np.inf)
    while len(chosen) < min(count, len(scores)):
        distance = np.minimum(distance, np.linalg.norm(scores - scores[chosen[-1]], axis=1))
        if distance.max() <= 0:
            break
        chosen.append(int(distance.argmax()))
    return chosen


@dataclass(frozen=True)
class _Laws:
    """A family's laws. size: bytes of the file. parameters: where shapes do not say them (of trees, which grow as they like)."""

    p95: Law
    p50: Law
    row_s: Law
    size: Law
    parameters: Law | None = None
    memory: Law | None = None

    def needed(self, bounds: Budget) -> dict[str, Law]:
        """Those that must hold: of latency and bytes, and of what else is bounded."""
        laws = {
            "latency_ms": self.p95,
            "rows_per_second": self.row_s,
            "size_mb": self.size,
            "parameters": self.parameters,
            "memory_mb": self.memory,
        }
        asked = {name: law for name, law in laws.items() if law is not None and getattr(bounds, name) is not None}
        return {"latency_ms": self.p95, "size_mb": self.size} | asked


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

    where: the machine and the runtime. pricings: of each family how its law did on exports left out.
    floor: (ms at p95, bytes) of the exported identity function: no student costs less here.
    mood: by how much, as a logarithm, the machine's own speed went up and down meanwhile, 90 % of it.
    """

    data: Data
    task: Task
    bounds: Budget
    drafts: Drafts
    shapes: Shapes
    exports: int = EXPORTS
    where: str = field(default_factory=lambda: f"{machine()}, ONNX Runtime {metadata.version('onnxruntime')}")
    pricings: tuple[Pricing, ...] = ()
    floor: tuple[float, int] = (0.0, 0)
    mood: float = 0.0
    _trusted: set[str] = field(default_factory=set, repr=False)
    _families: dict[str, _Laws] = field(default_factory=dict, repr=False)
    _exact: dict[str, Priced] = field(default_factory=dict, repr=False)
    _reference: Draft | None = field(default=None, repr=False)
    _level: float = field(default=0.0, repr=False)

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
        exported, at most `exports` of a family. A family of no more students than that, or of which no law is known, is measured student
        by student; so is one whose law errs by more than 10 % on exports left out, each when its price is first asked.
        bounds: whose batch, many and threads are those that are measured. precision: of the file that will be deployed. guard: it has.

        Every round of measuring calls all exports of a family, a reference among them, by which each round is divided: what slows the
        machine for a while slows both. Raises EvidenceError where the bounds ask for less than the identity function takes.
        """
        bounds = bounds or Budget()
        task = task.bind(data.schema)
        drafts = Drafts(data, task, precision=precision, guard=guard, seed=seed, threads=bounds.threads)
        prices = cls(data, task, bounds, drafts, Shapes(data.schema, task, min(GROWN, len(data.train))), exports)
        by_family: dict[str, dict[str, Student]] = {}
        for student in students:
            by_family.setdefault(family_of(student), {})[repr(student)] = student
        if not by_family:
            raise EvidenceError("no student to price", hint="a space has at least one")
        for family, them in by_family.items():
            prices._learn(family, them, listen)
        if prices._reference is None:  # else a budget that admits nothing would be found out only when the first price is asked
            text, student = next(iter(next(iter(by_family.values())).items()))
            prices._measure(family_of(student), {text: student}, listen)
        return prices

    def price(self, student: Student) -> Priced:
        """What a student costs: in microseconds where its family's law is trusted; else it is exported and measured, once."""
        if (known := self._exact.get(repr(student))) is not None:
            return known
        return self.predicted(student) if family_of(student) in self._trusted else self.measure(student)

    def predicted(self, student: Student) -> Priced:
        """What the law of its family says of a student, trusted or not. Raises EvidenceError for a family that has none."""
        laws, shape = self._families.get(family_of(student)), self.shapes.of(student)
        if laws is None or shape is None:
            raise EvidenceError(f"no law says what {student!r} costs", hint="measure(student) exports it and looks")
        return self._predicted(laws, shape)

    def measure(self, student: Student) -> Priced:
        """What a student costs, measured on its own export with weights of chance; known from then on."""
        self._measure(family_of(student), {repr(student): student})
        return self._exact[repr(student)]

    @property
    def measured_already(self) -> tuple[str, ...]:
        """The students, as texts, of which an export was measured."""
        return tuple(self._exact)

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
            return  # each is measured when it is asked for
        texts = list(shapes)
        chosen = [texts[i] for i in spread(np.array([shapes[t].features for t in texts]), self.exports)]
        found = self._measure(family, {t: students[t] for t in chosen}, listen)
        features, stored = (np.array([getattr(shapes[t], name) for t in chosen]) for name in ("features", "bytes"))

        def law(x: NDArray[np.float64], values: Callable[[_Measured], float]) -> Law:
            return Law.fit(x, np.array([values(found[t]) for t in chosen]))

        p95 = law(features, lambda m: m.p95)
        counted = all(shapes[t].parameters is not None for t in chosen)
        remembered = all(found[t].memory_mb is not None for t in chosen)
        laws = _Laws(
            p95,
            law(features, lambda m: m.p50),
            law(features, lambda m: m.row_s),
            law(stored, lambda m: m.draft.size_bytes),
            None if counted else law(stored, lambda m: max(1, m.draft.parameters)),
            law(features, lambda m: max(m.memory_mb or 0.0, 0.01)) if remembered else None,
        )
        needed = laws.needed(self.bounds)
        trusted = all(law.error <= TRUST for law in needed.values())
        pricing = Pricing(family, len(chosen), p95.error, trusted, time.perf_counter() - started, p95.held_out)
        self._families[family] = laws
        if trusted:
            self._trusted.add(family)
        self.pricings = (*self.pricings, pricing)
        errors = ", ".join(f"{law.error:.2g} of {name}" for name, law in needed.items())
        verdict = "" if trusted else f", above {TRUST:g}: each candidate's own export will be measured"
        listen(Event("price", text=f"{family}: {len(chosen)} exports, mean held-out error {errors}{verdict}"))

    def _measure(self, family: str, students: Mapping[str, Student], listen: Listener = silent) -> dict[str, _Measured]:
        """Export with weights of chance and measure side by side; each one's price is exact from then on."""
        made: dict[str, Draft] = {}
        for i, (text, student) in enumerate(students.items(), 1):
            shape = self.shapes.of(student)
            made[text] = self.drafts.make(student, family, None if shape is None else shape.structure)
            if shape is not None:
                _need_equal(text, shape, made[text])
            listen(Event(f"price {family}", i, len(students)))
        first = self._reference is None
        if self._reference is None:  # of middling size
            self._reference = sorted(made.values(), key=lambda draft: draft.size_bytes)[len(made) // 2]
        rows = self._rows(self.bounds.many)
        names = {text: str(i) for i, text in enumerate(made)}
        candidates = {names[text]: self._candidate(draft, rows) for text, draft in made.items()}
        candidates[REFERENCE] = self._candidate(self._reference, rows)
        if first:
            candidates[IDENTITY] = self._candidate(identity(self._reference, rows), rows)
        compared = compare(candidates, seconds=SECONDS, threads=self.bounds.threads, undisturbed=True)
        level = compared.costs[REFERENCE].latency_ms.p50.value
        if first:
            self._level = level
            self._bound(compared, candidates[IDENTITY].size_bytes or 0)
        moods = np.log(np.median(compared.seconds_one[REFERENCE], axis=1))
        low, high = np.quantile(moods, (0.05, 0.95))
        self.mood = max(self.mood, float(high - low) / 2)
        found = {}
        for text, draft in made.items():
            one, many = (compared.latency(names[text], beside=REFERENCE, many=m) for m in (False, True))
            turn = self._level / level
            row_s = turn * many.p50.value / 1000 / self.bounds.many
            memory = None if self.bounds.memory_mb is None else working_memory_mb(partial(self._warmed, draft, rows))
            p50, p95 = one.p50, one.p95
            found[text] = _Measured(draft, turn * p50.value, turn * p95.value, turn * p95.low, turn * p95.high, row_s, memory)
            self._exact[text] = _exactly(found[text], self.mood)
        return found

    def _warmed(self, draft: Draft, rows: Batch) -> Callable[[], Any]:
        call = draft.prepare(rows)
        draft.prepare(take(rows, slice(0, 1)))()  # the pages of the library's code are not what a batch needs
        return call

    def _candidate(self, draft: Draft, rows: Batch) -> Candidate:
        return Candidate.of(draft, rows, rows, size_bytes=draft.size_bytes, batch=self.bounds.batch, singles=SINGLES, memory=False)

    def _bound(self, compared: Compared, size_bytes: int) -> None:
        """Raise EvidenceError for bounds that no exported graph can keep, not even one that does nothing."""
        cost = compared.costs[IDENTITY]
        self.floor = (cost.latency_ms.p95.value, size_bytes)
        bounds = self.bounds
        if bounds.latency_ms is not None and bounds.latency_ms < (least := cost.latency_ms.p50.low):
            raise EvidenceError(
                f"a budget of latency_ms={bounds.latency_ms:g}: the exported identity function alone takes {least:.2g} ms here",
                hint=f"no student answers sooner; latency_ms={_up(2 * cost.latency_ms.p95.value):g} leaves room for one",
            )
        if bounds.size_mb is not None and bounds.size_mb * 1e6 < size_bytes:
            raise EvidenceError(
                f"a budget of size_mb={bounds.size_mb:g}: the exported identity function alone is {size_bytes / 1e6:.2g} MB",
                hint=f"no student is smaller; size_mb={_up(4 * size_bytes / 1e6):g} leaves room for one",
            )
        if bounds.rows_per_second is not None and bounds.rows_per_second > (most := cost.rows_per_second.high):
            raise EvidenceError(
                f"a budget of rows_per_second={bounds.rows_per_second:g}: the exported identity function alone answers {most:.2g}",
                hint=f"no student answers more; rows_per_second={most / 10:.1g} leaves room for one",
            )

    def _predicted(self, laws: _Laws, shape: Shape) -> Priced:
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


def _up(value: float) -> float:
    """Rounded up to one digit.

    >>> _up(0.0132)
    0.02
    """
    unit = 10 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.1g}")
