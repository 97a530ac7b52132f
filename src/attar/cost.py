"""What a model costs where it runs: latency, throughput, bytes, parameters, memory; and the budget that bounds them."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import EvidenceError
from attar.notation import say
from attar.signal import Batch, Source

__all__ = [
    "Budget",
    "Candidate",
    "Compared",
    "Cost",
    "Figure",
    "Latency",
    "Limit",
    "budget",
    "compare",
    "energy_mj",
    "machine",
    "measure",
    "multiply_adds",
    "peak_memory_mb",
    "working_memory_mb",
]

Call = Callable[[], Any]

SLOW_S = 0.05  # of a call so long the neighbour's caches are the least part: it need not be called twice
ROUND_S = 0.004  # what one candidate is called for in one round: long against the clock, short against the machine's moods
WARM_S = 0.03
BLOCK_S = 0.0003  # calls between two looks at the clock of the processor: short against a slice of it, some 4 ms
AWAY, AWAY_S = 1.1, 20e-6  # times its computing, and seconds beside, that a block may take
TRIES = 20
SLICE_S = 0.003  # calls so long are tried twice
ENOUGH = 0.01  # half the width of the median's interval, relative, at which measuring stops
ROUNDS = (12, 400)  # at least, at most
FEWEST = 5  # rounds of calls so slow that even these take twice the time there is
DRAWS = 400  # bootstrap
MANY = 256  # rows in one call, where many are asked at once
BOUNDS = ("latency_ms", "size_mb", "parameters", "memory_mb", "rows_per_second")
LEAST = frozenset({"rows_per_second"})  # bounds from below
SINGLES = 256  # different rows that latency is measured on


ALONE = """
import sys, numpy, onnxruntime
folder, threads = sys.argv[1], int(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
session = onnxruntime.InferenceSession(folder + "/graph.onnx", options, providers=["CPUExecutionProvider"])
session.run(None, dict(numpy.load(folder + "/feeds.npz")))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""  # what a process does whose peak is wanted


class Prepares(Protocol):
    """Whatever makes a ready call for given rows, as a source does."""

    def prepare(self, batch: Batch) -> Call: ...


class Figure(NamedTuple):
    """A measured number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: the median, the 95th percentile, and the number of calls they come from."""

    p50: Figure
    p95: Figure
    calls: int


@dataclass(frozen=True)
class Cost:
    """What one model costs on this machine, on one thread.

    latency_ms: of one row, a different one each time, by the cheapest call that a deployment would make (`Source.prepare`);
        the reading of the row is left out.
    latency_many_ms: of `rows` rows in one call; rows_per_second follows from its median.
    size_bytes: of the file that ships; parameters: numbers learnt; None where nobody can say.
    memory_mb: working memory of one call with `rows` rows (the model itself left out); None where the machine does not tell.
    """

    latency_ms: Latency
    latency_many_ms: Latency
    rows: int
    rows_per_second: Figure
    size_bytes: int | None
    parameters: int | None
    memory_mb: float | None
    threads: int
    machine: str
    batch: int = 1

    @property
    def size_mb(self) -> float | None:
        """Megabytes (10⁶ bytes) on disk."""
        return None if self.size_bytes is None else self.size_bytes / 1e6


@dataclass(frozen=True)
class Candidate:
    """A model whose cost is wanted, as ready calls.

    one: each answers one row, all reading done beforehand; they are called in turn. A single row asked again and again would teach the
        processor its way through a tree: six hundred trees then answer in 9 µs what takes them 27 µs (p95 48) on rows as they come.
    batch: rows of such a call, where it is not one. many: answers `rows` rows.
    memory: makes the call whose working memory is measured, in a process of its own; None measures none.
    """

    one: Sequence[Call]
    many: Call
    rows: int
    size_bytes: int | None = None
    parameters: int | None = None
    memory: Callable[[], Call] | None = None
    batch: int = 1

    @classmethod
    def of(
        cls,
        source: Prepares,
        one: Batch,
        many: Batch,
        *,
        size_bytes: int | None = None,
        parameters: int | None = None,
        batch: int = 1,
        singles: int = SINGLES,
        memory: bool = True,
    ) -> Candidate:
        """The candidate that answers each row of `one` by itself, and the whole batch `many`, as `source` would deployed.

        batch: rows of `one` in a call, not one by one; the last ones are made up from the first. singles: calls that differ, at most.
        memory: whether the working memory is to be measured.
        """
        if not len(one) or not len(many):
            raise EvidenceError("latency needs at least one row to ask")
        count = min(-(-len(one) // batch), singles)
        asked = [_taken(one, torch.arange(i * batch, (i + 1) * batch) % len(one)) for i in range(count)]

        def alone() -> Call:
            call = source.prepare(many)
            source.prepare(asked[0])()  # the pages of the library's code are not what a batch needs
            return call

        ready = [source.prepare(rows) for rows in asked]
        return cls(ready, source.prepare(many), len(many), size_bytes, parameters, alone if memory else None, batch)


@dataclass(frozen=True)
class Compared:
    """Costs measured in one run, call beside call, so that their ratios are paired.

    costs: by name. seconds: (rounds, calls) of each candidate by name, for one row and for many.
    """

    costs: Mapping[str, Cost]
    seconds_one: Mapping[str, np.ndarray] = field(repr=False)
    seconds_many: Mapping[str, np.ndarray] = field(repr=False)

    def ratio(self, slow: str, fast: str, *, share: float = 0.95, many: bool = False) -> Figure:
        """How many times longer `slow` takes than `fast` at the percentile `share`, with its interval over the same rounds."""
        seconds = self.seconds_many if many else self.seconds_one
        a, b = seconds[slow], seconds[fast]
        draws = _draws(len(a))
        ratios = np.array([np.quantile(a[d], share) / np.quantile(b[d], share) for d in draws])
        return Figure(float(np.quantile(a, share) / np.quantile(b, share)), *_interval(ratios))

    def latency(self, name: str, beside: str, *, many: bool = False) -> Latency:
        """Of one row, or of many, as if the machine had been in the same mood in all rounds: the one whose median round `beside` had.

        Each round is divided by how long `beside` took in it, so that what slows the whole machine for a while is in no latency.
        """
        seconds = self.seconds_many if many else self.seconds_one
        moods = np.median(seconds[beside], axis=1)
        return _latency(seconds[name] * (np.median(moods) / moods)[:, None])


def measure(
    source: Source,
    one: Batch,
    many: Batch,
    *,
    size_bytes: int | None = None,
    parameters: int | None = None,
    seconds: float = 3.0,
    batch: int = 1,
    threads: int = 1,
) -> Cost:
    """The cost of one source on the rows of `one`, each asked by itself in turn, and on the batch `many` (256 rows, say).

    seconds: about this long; it stops earlier when the medians are known to 1 %, and takes longer for very slow calls, as `compare` says.
    batch: rows of `one` in a call, not one by one. threads: on which the source answers.
    Two sources to be compared belong into one `compare`, which interleaves their calls.
    """
    candidate = Candidate.of(source, one, many, size_bytes=size_bytes, parameters=parameters, batch=batch)
    return compare({"": candidate}, seconds=seconds, threads=threads).costs[""]


def compare(candidates: Mapping[str, Candidate], *, seconds: float = 3.0, threads: int = 1, undisturbed: bool = False) -> Compared:
    """The costs of all candidates, measured in rounds in which each is called in turn, collector off.

    seconds: for each candidate, at most about this long; but at least twelve rounds, and of calls so slow that these take far longer, five.
    threads: that each may use. PyTorch is told; a graph of ONNX Runtime was opened with its own number.
    undisturbed: calls during which the processor was given to another program, so that they took longer than they computed, are made
        again: what a model needs on a machine that is busy with other things, not what these do to it.
    Memory is measured first, each in a forked child, before warming fills the allocators.
    An interval is a bootstrap over rounds, not calls: neighbouring calls share the mood of the machine.
    """
    if not candidates:
        raise EvidenceError("nothing to measure: no candidates")
    before = torch.get_num_threads()
    collecting = gc.isenabled()
    torch.set_num_threads(threads)  # a source sets its own threads where it has any; PyTorch is the one that must be told
    try:
        memory = {n: working_memory_mb(c.memory) if c.memory else None for n, c in candidates.items()}
        gc.collect()
        gc.disable()
        one = _interleaved({n: c.one for n, c in candidates.items()}, seconds / 2, undisturbed)
        many = _interleaved({n: [c.many] for n, c in candidates.items()}, seconds / 2, undisturbed)
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
    costs = {}
    for name, c in candidates.items():
        latency_many = _latency(many[name])
        p50 = latency_many.p50
        costs[name] = Cost(
            latency_ms=_latency(one[name]),
            latency_many_ms=latency_many,
            rows=c.rows,
            rows_per_second=Figure(*(1000 * c.rows / ms for ms in (p50.value, p50.high, p50.low))),
            size_bytes=c.size_bytes,
            parameters=c.parameters,
            memory_mb=memory[name],
            threads=threads,
            machine=machine(),
            batch=c.batch,
        )
    return Compared(costs, one, many)


def working_memory_mb(make: Callable[[], Call], *, limit_s: float = 60.0) -> float | None:
    """Megabytes by which the resident set grows, at its peak, during one call of what `make` makes; None where it cannot be told.

    Both run in a forked child (Linux), which first hands free memory back to the system, so that what the parent
    warmed does not hide what the call needs. A child that takes longer than `limit_s` is ended.
    """
    if platform.system() != "Linux":
        return None
    out, into = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns that a fork of a process with threads may deadlock; here such a child is ended after limit_s.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(out)
        try:
            os.write(into, repr(_peak_growth_mb(make)).encode())
        finally:  # whatever was raised, it must not escape into a copy of the caller
            os._exit(0)
    os.close(into)
    try:
        ready, _, _ = select.select([out], [], [], limit_s)
        text = os.read(out, 64).decode() if ready else ""
    finally:
        os.close(out)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return float(text) if text not in ("", "None") else None


def peak_memory_mb(graph: bytes, feeds: Mapping[str, np.ndarray], *, threads: int = 1, limit_s: float = 60.0) -> float | None:
    """Megabytes that a process holds at its peak which does nothing but open an ONNX graph and answer these arrays.

    None where it cannot be told. A fresh interpreter with NumPy and ONNX Runtime, whose own share, some 60 MB, is in it: what has to be
    there on a device.
    `working_memory_mb` is the part of it that one call adds.
    """
    if platform.system() != "Linux":
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "graph.onnx").write_bytes(graph)
        np.savez(Path(folder) / "feeds.npz", **feeds)  # pyright: ignore[reportArgumentType] names of inputs, not of its options
        command = [sys.executable, "-c", ALONE, folder, str(threads)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
    return int(done.stdout) * 1024 / 1e6


def multiply_adds(model: nn.Module, rows: Batch) -> int:
    """Multiply-adds (MACs) of one call with these rows: of matrix products, convolutions and attention; all else is left out.

    Counted by PyTorch as the operations are called (`torch.utils.flop_counter`, two operations to a multiply-add).
    """
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(rows.inputs)
    finally:
        model.train(training)
    return counter.get_total_flops() // 2


def energy_mj(macs: int, size_bytes: int, precision: Literal["float", "int8"] = "float") -> float:
    """Millijoules of one row, an ESTIMATE from below: the multiply-adds, and reading each byte of the model once from a cache of 1 MB.

    Picojoules of M. Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9 (45 nm, 0.9 V): a 32-bit multiplication 3.7 and
    addition 0.9 in floating point; an 8-bit multiplication 0.2 with a 32-bit addition 0.1; 64 bits out of a cache of 1 MB 100. What a
    processor spends to fetch and schedule instructions, some 70 each there, is left out, and nothing was measured: good to compare
    students by, not to pay a bill.

    >>> round(energy_mj(1_000_000, 4_000_000), 4)
    0.0546
    """
    each_pj = 3.7 + 0.9 if precision == "float" else 0.2 + 0.1
    return (macs * each_pj + size_bytes / 8 * 100) * 1e-9


def machine() -> str:
    """The machine in one line: processor, cores, system, interpreter."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cores = os.cpu_count() or 1
    return f"{processor}, {cores} core{'s' * (cores != 1)}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


class Limit(NamedTuple):
    """One line of a budget held against a cost: limit is the most, of rows_per_second the least.

    value None: not measured, which is not ok.
    """

    name: str
    limit: float
    value: float | None
    ok: bool

    @property
    def sign(self) -> str:
        """≤, or ≥ for a bound from below."""
        return "≥" if self.name in LEAST else "≤"


@dataclass(frozen=True)
class Budget:
    """What a student may cost; None bounds nothing. See `budget`."""

    latency_ms: float | None = None
    size_mb: float | None = None
    parameters: int | None = None
    memory_mb: float | None = None
    rows_per_second: float | None = None
    batch: int = 1
    many: int = MANY
    threads: int = 1

    def __repr__(self) -> str:
        bounds = {name: getattr(self, name) for name in BOUNDS}
        usual = Budget()
        where = {
            name: None if getattr(self, name) == getattr(usual, name) else getattr(self, name) for name in ("batch", "many", "threads")
        }
        return say("budget", **bounds, **where)

    @property
    def usual(self) -> bool:
        """Whether it is about one row, 256 rows and one thread, as every certificate is unless asked otherwise."""
        return (self.batch, self.many, self.threads) == (1, MANY, 1)

    def check(self, cost: Cost) -> list[Limit]:
        """Each bound that is set, with the value measured and whether it is kept.

        What was measured of other batches or another number of threads than the budget names is not measured.
        """
        one = (cost.batch, cost.threads) == (self.batch, self.threads)
        many = (cost.rows, cost.threads) == (self.many, self.threads)
        return self.hold(
            {
                "latency_ms": cost.latency_ms.p95.value if one else None,
                "size_mb": cost.size_mb,
                "parameters": cost.parameters,
                "memory_mb": cost.memory_mb if many else None,
                "rows_per_second": cost.rows_per_second.value if many else None,
            }
        )

    def hold(self, values: Mapping[str, float | None]) -> list[Limit]:
        """The same for values that were measured earlier, by the names of the bounds; None: not measured."""
        limits = {name: getattr(self, name) for name in values}
        return [Limit(n, limits[n], v, v is not None and _kept(n, v, limits[n])) for n, v in values.items() if limits[n] is not None]


def budget(
    latency_ms: float | None = None,
    size_mb: float | None = None,
    parameters: int | None = None,
    memory_mb: float | None = None,
    rows_per_second: float | None = None,
    batch: int = 1,
    many: int = MANY,
    threads: int = 1,
) -> Budget:
    """What the deployed student may cost, measured on the exported file.

    latency_ms: 95th percentile of a call with `batch` rows, milliseconds. size_mb: the file, in 10⁶ bytes.
    parameters: numbers learnt. memory_mb: working memory of a call with `many` rows. rows_per_second: at least so many, in such calls.
    threads: on which it answers.

    >>> budget(latency_ms=0.02, size_mb=0.1)
    budget(latency_ms=0.02, size_mb=0.1)
    >>> budget(rows_per_second=1e6, many=4096, threads=2)
    budget(rows_per_second=1000000.0, many=4096, threads=2)
    """
    found = Budget(latency_ms, size_mb, parameters, memory_mb, rows_per_second, batch, many, threads)
    for name in BOUNDS:
        if (value := getattr(found, name)) is not None and not (value > 0 and math.isfinite(value)):
            raise EvidenceError(f"a budget of {name}={value} admits nothing", hint="name a positive bound, or leave it out")
    for name in ("batch", "many", "threads"):
        if (value := getattr(found, name)) < 1:
            raise EvidenceError(f"a budget with {name}={value}: there is no such call", hint=f"{name}=1 is the least")
    return found


def _kept(name: str, value: float, limit: float) -> bool:
    return value >= limit if name in LEAST else value <= limit


def _interleaved(calls: Mapping[str, Sequence[Call]], seconds: float, undisturbed: bool = False) -> dict[str, np.ndarray]:
    """Seconds of each call, (rounds, calls per round) by name; rounds go on until the medians are known or time is up."""
    clock = _time_undisturbed if undisturbed else _time
    spans = {name: _seconds_a_call(them) for name, them in calls.items()}
    each = {name: max(1, min(500, round(ROUND_S / span))) for name, span in spans.items()}
    taken: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    names = list(calls)
    whole = seconds * len(names)
    end = time.perf_counter() + whole
    for done in range(ROUNDS[1]):
        over = time.perf_counter() - end
        if done >= ROUNDS[0] and (over > 0 or (done % 10 == 0 and all(_known(t) for t in taken.values()))):
            break
        if done >= FEWEST and over > whole:
            break
        for name in names[done % len(names) :] + names[: done % len(names)]:  # nobody always comes after the same neighbour
            taken[name].append(clock(calls[name], done * each[name], each[name], warm=spans[name] < SLOW_S))
    return {name: np.stack(rounds) for name, rounds in taken.items()}


def _seconds_a_call(calls: Sequence[Call]) -> float:
    """The median over a short while, after which everything is warm."""
    calls[0]()
    start, taken = time.perf_counter(), []
    while len(taken) < 3 or time.perf_counter() - start < WARM_S:
        before = time.perf_counter()
        calls[len(taken) % len(calls)]()
        taken.append(time.perf_counter() - before)
        if time.perf_counter() - start > 1:  # a call of a second needs no more warming
            break
    return float(np.median(taken))


def _time(calls: Sequence[Call], first: int, count: int, *, warm: bool) -> np.ndarray:
    """Seconds of `count` calls, taken in turn from the one numbered `first` on."""
    taken = np.empty(count, np.int64)
    clock = time.perf_counter_ns
    turn = [calls[(first + i) % len(calls)] for i in range(count)]
    if warm:  # the caches are the neighbour's: one call that does not count
        calls[(first - 1) % len(calls)]()
    for i, call in enumerate(turn):
        start = clock()
        call()
        taken[i] = clock() - start
    return taken * 1e-9


def _time_undisturbed(calls: Sequence[Call], first: int, count: int, *, warm: bool) -> np.ndarray:
    """The same, in short blocks, each made again while another program ran in between.

    A call longer than the machine leaves alone never comes through: after some tries it is the time for which it computed that counts,
    unless it waits for something else meanwhile, such as other threads, a device or a server, which is part of what it takes.
    """
    taken, span = np.empty(0), 0.0
    while len(taken) < count:
        size = min(count - len(taken), max(1, round(BLOCK_S / span))) if span else 1
        tries = TRIES if span < SLICE_S else 2
        while True:
            lost, waits = _switches()
            computed, start = time.thread_time(), time.perf_counter()
            block = _time(calls, first + len(taken), size, warm=warm and not len(taken))
            computed, passed = time.thread_time() - computed, time.perf_counter() - start
            lost, waits = (now - before for now, before in zip(_switches(), (lost, waits), strict=True))
            tries -= 1
            if not lost or passed <= AWAY * computed + AWAY_S:
                break
            if not tries:
                block *= 1.0 if waits else computed / passed
                break
        taken, span = np.concatenate((taken, block)), float(np.median(block))
    return taken


def _switches() -> tuple[int, int]:
    """How often the processor was taken from this thread so far, and how often the thread gave it away to wait; never where nobody counts.

    A thread that waits computes nothing either, so that the clock of its computing alone does not tell the two apart.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0, 0
    used = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return used.ru_nivcsw, used.ru_nvcsw


def _known(rounds: list[np.ndarray]) -> bool:
    medians = np.array([np.median(r) for r in rounds])
    error = 1.253 * medians.std(ddof=1) / np.sqrt(len(medians))  # of a median of medians, were they normal
    return bool(1.96 * error <= ENOUGH * np.median(medians))


def _latency(seconds: np.ndarray) -> Latency:
    ms = 1000 * seconds
    draws = _draws(len(ms))
    shares = (0.5, 0.95)
    values = np.array([np.quantile(ms[d], shares) for d in draws])  # (draws, shares); both of one sorting, which is what takes long
    p50, p95 = (Figure(float(found), *_interval(values[:, k])) for k, found in enumerate(np.quantile(ms, shares)))
    return Latency(p50, p95, ms.size)


def _draws(rounds: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, rounds, (DRAWS, rounds))  # the same rounds for all: paired


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _taken(batch: Batch, at: Tensor) -> Batch:
    """The rows at these positions, as a batch."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[at]

    inputs = batch.inputs
    rows = inputs[at] if isinstance(inputs, Tensor) else {n: v[at] for n, v in inputs.items()}
    rest = {n: cut(getattr(batch, n)) for n in ("labels", "mask", "weight", "ids", "views")}
    return replace(batch, inputs=rows, **rest)


def _peak_growth_mb(make: Callable[[], Call]) -> float | None:
    call = make()
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc: free pages stay, and hide a little
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew at what is resident now
    before = _resident_kb("VmRSS")
    call()
    return max(0.0, (_resident_kb("VmHWM") - before) * 1024 / 1e6)


def _resident_kb(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
