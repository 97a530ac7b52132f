"""Search for the smallest student that fits: its architecture, temperature, weights and learning rate, under a budget."""

from __future__ import annotations

import socket
import time as clock
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from attar.certificate import Require
from attar.cost import Budget
from attar.errors import AttarError, MissingExtra, RunError
from attar.guards import Guard, Unguarded
from attar.loop import Fit
from attar.progress import Event, Listener, silent
from attar.recipe import of_texts
from attar.searched import Arm, Searched
from attar.signal import Source
from attar.task import Task
from attar.verbs.distill.processes import can_fork, shared
from attar.verbs.search.affordable import keep_prices, need_some_within, prices_of
from attar.verbs.search.beginning import begin, claim
from attar.verbs.search.ending import Ending
from attar.verbs.search.job import SearchJob
from attar.verbs.search.learning import Learning
from attar.verbs.search.leaving import Elsewhere, leave, ship, tell, trials_of
from attar.verbs.search.pricing import Prices
from attar.verbs.search.storage import reach
from attar.verbs.search.study import Told, told
from attar.verbs.search.timing import Timing, limits
from attar.verbs.search.worker import Limits, Worker

__all__ = ["Elsewhere", "SearchJob", "search", "search_job"]

TRIALS = 100  # of each arm, where neither trials nor time are named
PAUSE = 5.0  # seconds between two writings of search.json while candidates train


def search(
    teacher: Source,
    student: str,
    data: Any,
    objective: str | None = None,
    *,
    task: Task | None = None,
    fit: str | Fit | None = None,
    budget: Budget | None = None,
    require: Require | None = None,
    deploy: Literal["float", "int8"] = "float",
    guard: Guard | Unguarded | None = None,
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    """The smallest student that keeps `budget` and is worse than the teacher by less than the margin of `require`, and all that was tried.

    student, objective, fit: texts of the notation, with spaces in them: "mlp(width=integer(8, 128), depth=choice(1, 2, 3))". Left out,
        objective and fit are searched over the task's own.
    trials: candidates to train, in each of two arms: those that learn from the teacher, and those that learn from labels alone. time:
        seconds in all; whichever ends first. Neither: 100 trials.
    workers: processes at a time, of this machine. out: the folder of the search, by default `runs/search`; it is never overwritten:
        `resume` goes on with it.
    seed: of what is drawn, and of which half of the validation rows a row is in.

    The teacher is asked once. Epochs and candidates are chosen on one half of the validation rows, finalists are trained anew over five
    seeds and compared on the other half; test rows are not read.
    Raises RunError for a folder of another search and for a budget that no student of the space keeps, NotationError for spaces that are
    none, Stopped on a signal, after which `resume` goes on; and the errors of teaching, training and exporting.

    >>> found = attar.search(teacher, "mlp(width=integer(4, 64))", data, time=300)     # doctest: +SKIP
    >>> print(*found.recommendation)                                                   # doctest: +SKIP
    """
    lines = {"student": student, "objective": objective, "fit": fit if fit is None or isinstance(fit, str) else repr(fit)}
    texts = {key: text for key, text in lines.items() if text is not None}
    said = {"teacher": teacher, "task": task, "budget": budget, "require": require, "deploy": deploy, "guard": guard}
    lines = {key: value if isinstance(value, str) else " ".join(repr(value).split()) for key, value in said.items() if value is not None}
    job = SearchJob(
        of_texts(texts),
        data,
        teacher,
        task,
        budget,
        require,
        deploy,
        guard,
        text="".join(f"{key}: {text}\n" for key, text in lines.items()),
    )
    folder = Path(out or "runs/search")
    return search_job(job, out=folder, trials=trials, time=time, workers=workers, resume=resume, seed=seed, listen=listen)


def search_job(
    job: SearchJob,
    *,
    out: Path,
    trials: int | None = None,
    time: float | None = None,
    workers: int = 1,
    study: str | None = None,
    resume: bool = False,
    seed: int = 0,
    listen: Listener = silent,
) -> Searched:
    """`search` for a job already resolved. study: where it is kept; left out, in the folder.

    Raises Elsewhere where another worker of a study that is shared has its final.
    """
    if trials is None and time is None:
        trials = TRIALS
    return _Searching(job, out, trials, time, workers, study, resume, seed, listen).run()


def _need_libraries() -> None:
    """Raise MissingExtra before a search begins, not when it ends."""
    for library, extra in (("optuna", "search"), ("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx"), ("jinja2", "report")):
        if find_spec(library) is None:
            raise MissingExtra(library, extra)


class _Searching:
    """One call of `search`: its phases, one after another. Each adds to what search.json says."""

    def __init__(
        self,
        job: SearchJob,
        out: Path,
        trials: int | None,
        time: float | None,
        workers: int,
        study: str | None,
        resume: bool,
        seed: int,
        listen: Listener,
    ) -> None:
        self.job, self.out, self.trials, self.workers = job, out, trials, workers
        self.resume, self.seed, self.heard = resume, seed, listen
        self.study = study or str(out / "study.db")
        self.time = time
        self.written = clock.monotonic()
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.prices: Prices | None = None
        self.told: dict[Arm, list[Told]] = {}

    def run(self) -> Searched:
        _need_libraries()
        if "://" in self.study:
            reach(self.study)  # before anything is taught
        free = claim(self.out, self.study, resume=self.resume)
        if self.resume and (before := self.out / "search.json").exists():
            try:
                self.seconds = dict(Searched.read(before).seconds)
            except RunError as error:  # all in it but the seconds is in the study as well
                self.heard(Event("search", text=f"written anew, and its seconds are counted from here: {error.message}"))
        with self._part("teacher"):
            self.begun = begin(self.job, self.out, self.study, seed=self.seed, free=free, resume=self.resume, listen=self.listen)
            timing = Timing(self.time)
            self.ending = Ending(self.begun, timing, self.listen, None if self.time is None else timing.shares())
        try:
            return self._phases(timing)
        except KeyboardInterrupt:
            self._stopped()
            raise

    def _phases(self, timing: Timing) -> Searched:
        """What follows the teacher."""
        with ExitStack() as learning:  # what learns prices ends with whatever ends this
            with self._part("pricing"):
                prices = prices_of(self.begun, self.seed, self.listen, self.workers)
                if isinstance(prices, Prices):
                    self.prices = prices
                    need_some_within(self.begun, prices, self.seed)
                    keep_prices(self.begun, prices)
                else:
                    learning.callback(prices.stop)
            if self.ending.shares is not None:
                self.ending.shares = timing.shares(None if self.prices is None else self.prices.export)
                self.listen(Event("time", text=self.ending.shares.words))
            with self._part("training"):
                self._search(prices)
                self.prices = known = prices if isinstance(prices, Prices) else prices.get()
        if not self.begun.shared:  # there, another machine may have measured them
            known.note(trials_of(self.told))
        keep_prices(self.begun, known)
        self._tell_so_far()
        with self._final():
            with self._part("finalists"):
                self.ending.final(trials_of(self.told), known, self.limits, self.workers)
            with self._part("competitors"):
                self.ending.compete(trials_of(self.told))
            ship(self.begun, self.told, self.ending.winner)
            found = self._write()
            tell(found, self.out)
        return found

    @contextmanager
    def _final(self) -> Iterator[None]:
        """The final of a study that is shared is made by one of its workers; the others leave. Raises Elsewhere."""
        if not self.begun.shared:
            yield
            return
        about = {"host": socket.gethostname(), "folder": str(self.out.resolve()), "trials": len(trials_of(self.told))}
        with self.begun.place.open("student", trials=None, seconds=None) as ledger:
            if (other := ledger.take("final", about)) is not None:
                at = f"in {other['folder']} on {other['host']}"
                if other["done"]:
                    raise Elsewhere(f"another worker has trained and compared the finalists of this study: the result is {at}")
                raise Elsewhere(f"another worker makes the final of this study: the result will be {at}; if that dies, --resume makes it")
            yield
            ledger.did("final", about)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """One part of the search, its seconds counted over all starts; search.json is written at its end."""
        start = clock.monotonic()
        self.listen(Event(name, text=""))
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + clock.monotonic() - start, 3)
        if self.told or not self.resume:  # else the study is not read yet, and may turn out to be another: what was found stays
            self._write()

    def _stopped(self) -> None:
        """Leaves what is known by now, as of a search that has not come to its end."""
        with suppress(AttarError):  # where the study does not answer there is what it said last
            self._look()
        self.ending.winner, self.ending.words = None, ()  # of finalists that nothing was put beside
        self._tell_so_far()

    def _tell_so_far(self) -> None:
        """The page and the table before the end, and where they are; no winner.yaml, for nobody is recommended yet."""
        if count := len(trials_of(self.told)):
            tell(self._write(), self.out)
            ship(self.begun, self.told, None)
            where = f"{self.out / 'search.html'}, leaderboard.csv and search.json beside it"
            self.heard(Event("search", text=f"what is known after {count:,} trials is in {where}"))

    @cached_property
    def limits(self) -> Limits:
        return limits(self.begun.spaces, len(self.begun.data.train), self.trials)

    def _search(self, prices: Prices | Learning) -> None:
        begun = self.begun
        _ = begun.room.judge, self.limits  # before processes part
        if self.workers > 1 and not can_fork():
            self.workers = 1
            self.listen(Event("search", text="one worker: what is forked from this process cannot learn"))
        shares, timing = self.ending.shares, self.ending.timing
        most = self.limits if shares is None else replace(self.limits, seconds=max(1.0, timing.asking(shares)))
        workers = [
            Worker(begun.place, begun.spaces, begun.room, prices, begun.budget, most, begun.arms, self.seed + at, self.listen)
            for at in range(self.workers)
        ]
        if self.workers == 1:
            workers[0].run()
        else:
            shared([lambda say, worker=worker: replace(worker, listen=say).run() for worker in workers], self.listen, losses=True)
        self._look()

    def listen(self, event: Event) -> None:
        """What is said goes on to who listens; while candidates train search.json follows every few seconds."""
        self.heard(event)
        if event.stage == "search" and clock.monotonic() - self.written > PAUSE:
            self._look()
            self._write()

    def _look(self) -> None:
        """What the studies know by now."""
        for arm in self.begun.arms:
            with self.begun.place.open(arm, trials=None, seconds=None) as ledger:
                self.told[arm] = told(ledger, arm, self.told.get(arm, ()))

    def _write(self) -> Searched:
        self.written = clock.monotonic()
        how = {"epochs": self.limits.epochs, "seconds": self.seconds, "workers": self.workers, "notes": self.notes}
        return leave(self.begun, self.told, self.ending, self.prices, **how)
