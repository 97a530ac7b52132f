"""Where a search keeps its study, and how many workers share it: none of its trials lost, none counted twice, the budget kept.

A study is Optuna's, in one of three places: an SQLite file (the run folder's, for workers of one machine), a journal file (for machines
that share a disk) or a PostgreSQL database. Beside Optuna's trials it holds attar's notes, as user attributes: what it is a study of, what
it may spend, who works on it, whose each trial is.

What Optuna leaves open is closed here, alike for all three. Optuna's own heartbeat knows databases only, beats for one trial at a time,
never finds a trial whose worker died before its first beat, and loses one whose rescuer dies between failing and repeating it. Here a
worker beats once for all that it holds, and what is owed is never an action half done: it is read off the trials each time.

Whoever claims, tells or rescues does so in turn: one lock for each storage, which the kernel or the server frees when its holder dies.
"""

from __future__ import annotations

import abc
import fcntl
import importlib.util
import math
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attar
from attar.errors import DiskFull, MissingExtra, RunError, near
from attar.files import explain_disk
from attar.identity import digest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Asked

__all__ = ["DEATHS", "Ledger", "Left", "open_study", "reach", "shown", "tried"]

DEATHS = 3
"""How often a trial is repeated whose worker died; one that takes its worker down each time is given up after that."""
BEAT = 5.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds of silence after which a worker of another machine is taken for dead
_TURN = 60.0  # seconds to wait for one's turn: a turn takes milliseconds
_LOOK = 0.25  # seconds between two looks at what others hold
_CONNECT = 10  # seconds for a database to answer

_FILES = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".journal": "journal"}
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "sqlite")

# Keys of user attributes: of the study …
_IDENTITY, _LIMITS, _WORKERS, _KEPT = "attar:identity", "attar:limits", "attar:worker:", "attar:kept:"
# … and of a trial: whose it is; why its worker does not finish it; the trial that it repeats; deaths before it; whether the budget pays
_OWNER, _DEAD, _AGAIN, _DIED, _FREE = "attar:owner", "attar:dead", "attar:again", "attar:died", "attar:free"


@dataclass(frozen=True)
class Left:
    """What a study has left: trials and seconds of its limits (None: no such limit), trials owed a repetition, trials that others hold."""

    trials: int | None
    seconds: float | None
    owed: int
    elsewhere: int

    @property
    def spent(self) -> bool:
        """Whether there is nothing to claim, though trials that others hold may still come back."""
        out = self.seconds is not None and self.seconds <= 0
        return out or (self.trials is not None and self.trials <= 0 and not self.owed)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, here or elsewhere."""
        return self.spent and not self.elsewhere


def open_study(
    where: str | Path,
    identity: Mapping[str, str],
    directions: Sequence[str],
    *,
    name: str = "search",
    sampler: BaseSampler | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    beat: float = BEAT,
    patience: float = PATIENCE,
) -> Ledger:
    """The study `name` at `where`, made if it is not there; enter the ledger (`with`) to work on it.

    where: a file that ends in .db, .sqlite or .sqlite3 (SQLite), one that ends in .journal, or the URL of a PostgreSQL database.
    identity: what it is a study of, by name ("recipe", "data", "teacher"), as digests; attar's version is added.
    directions: "minimize" or "maximize", for each value.
    trials, seconds: what all workers together may spend; None leaves what the study says. Seconds pass while anyone works on it.
    beat: seconds between two signs of life; patience: of silence, after which a worker is taken for dead. A dead one of this machine is
        known at once.

    Raises RunError for a place that does not answer, is none of these or refuses; and for a study of something else, which it names. One
    that has no trial yet is of nothing so far.
    Raises MissingExtra without optuna, or without psycopg for PostgreSQL.
    """
    optuna = _optuna()
    place = _place(where)
    with ExitStack() as stack:
        with _explained(place):
            place.open(stack)
            with place.turn():
                storage = place.storage()
                stack.callback(place.end_thread)
                study = optuna.create_study(
                    study_name=name, storage=storage, sampler=sampler, directions=list(directions), load_if_exists=True
                )
                new = _same(study, {**identity, "attar": attar.__version__}, directions, place.shown)
                limits = {**study.user_attrs.get(_LIMITS, {})}
                limits |= {key: value for key, value in (("trials", trials), ("seconds", seconds)) if value is not None}
                study.set_user_attr(_LIMITS, limits)
                ours = study.user_attrs[_IDENTITY]
        return Ledger(study, storage, place, stack.pop_all(), identity=ours, new=new, beat=beat, patience=patience)


def reach(where: str | Path) -> None:
    """Nothing, where the place of a study answers; the errors of `open_study` where it does not. Nothing is made there."""
    _optuna()
    place = _place(where)
    with ExitStack() as stack, _explained(place):
        place.open(stack)


def tried(where: str | Path) -> bool:
    """Whether any study at `where` has a trial; what is not there has none. Raises as `reach` does."""
    _optuna()
    place = _place(where)
    if isinstance(place, _File) and not place.path.exists():
        return False
    with ExitStack() as stack, _explained(place):
        place.open(stack)
        storage = place.storage()
        stack.callback(place.end_thread)
        return any(storage.get_n_trials(study._study_id) for study in storage.get_all_studies())


class Ledger:
    """One worker's hold on a study: it claims trials, tells what came of them and repeats those of the dead. See `open_study`.

    A trial counts once: as it was told, or as given up after its worker died more than `DEATHS` times. In Optuna's terms: COMPLETE with
    values, PRUNED without; FAIL is a trial that its worker did not finish, which another repeats.
    The limit on trials is kept exactly: a trial is taken from it when it is claimed, and a repetition takes nothing. Time is looked at
    when trials are claimed: those in flight when it ends are finished.
    """

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        place: _Place,
        opened: ExitStack,
        *,
        identity: Mapping[str, str],
        new: bool,
        beat: float,
        patience: float,
    ) -> None:
        self.study, self.new = study, new
        self._identity = dict(identity)
        self.where = place.shown
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._storage, self._place, self._opened = storage, place, opened
        self._id = storage.get_study_id_from_name(study.study_name)
        self._held: set[int] = set()  # numbers of trials
        self._seen: dict[str, tuple[int, float]] = {}  # a worker's beats, and since when they stand there, by the clock of this process
        self._record = {**_process(), "beats": 0}
        self._working = False  # who only reads is no worker
        self._beat, self._patience = beat, patience
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="beats", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Gives back what it holds: another worker, or the next one, repeats it; that is no death. A storage's errors are explained."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        with self._opened:
            if self._working:
                self._stop.set()
                self._thread.join()
                # Where the storage does not answer the others learn it from silence; but the first error is the one to tell.
                with suppress(*((RunError,) if error else ())), _explained(self._place):
                    self._leave()
        if isinstance(error, StorageInternalError | SQLAlchemyError):
            raise _told(error, self._place) from None

    # ---- what a search does

    def claim(self, count: int = 1) -> list[Asked]:
        """Up to `count` new trials, with no parameters yet: enqueued ones first; fewer, or none, where the limits say so.

        Each is asked of the study's sampler as it is now.
        """
        with self._turn():
            self._work()
            left = self._left(self._mend())
            found = []
            if left.seconds is None or left.seconds > 0:
                for _ in range(count if left.trials is None else min(count, left.trials)):
                    asked = self.study.ask()
                    asked.set_user_attr(_OWNER, self.worker)
                    self._held.add(asked.number)
                    found.append(asked)
            return found

    def again(self, count: int = 1) -> list[Asked]:
        """Up to `count` trials that their workers did not finish, to be repeated: each as a new trial that has the parameters already."""
        with self._turn():
            self._work()
            trials = self._mend()
            if self._out():
                return []
            return [self._repeat(trial) for trial in _owed(trials)[:count]]

    def tell(
        self,
        asked: Asked,
        values: Sequence[float] | None,
        *,
        attributes: Mapping[str, Any] | None = None,
        constraints: Mapping[str, float] | None = None,
        counted: bool = True,
    ) -> bool:
        """What came of a trial: its values; None for one that has none, as one that diverged or was not trained.

        attributes: kept as its user attributes, of JSON. constraints: by name, at most 0 where kept. counted: False gives it back to the
            limit, as for one dropped before training.
        Returns whether it counts. It does not where this worker had been silent for so long that it was taken for dead: another repeats it.
        """
        with self._turn():
            if not self._mine(self._frozen(asked.number)):
                self._held.discard(asked.number)
                return False
            for key, value in (attributes or {}).items():
                asked.set_user_attr(key, value)
            for key, value in (constraints or {}).items():
                asked.set_constraint(key, value)
            if not counted:
                asked.set_user_attr(_FREE, True)
            if values is None or not all(math.isfinite(value) for value in values):
                self.study.tell(asked, state=_optuna().trial.TrialState.PRUNED)
            else:
                self.study.tell(asked, list(values))
            self._held.discard(asked.number)
            return True

    def left(self) -> Left:
        """What there is left to do; trials of workers that died are owed from here on."""
        with self._turn():
            return self._left(self._mend())

    def wait(self, stop: Callable[[], bool] = lambda: False) -> Left:
        """`left`, once there is something to claim, or to repeat, or nothing left at all; or `stop` says so. Looks four times a second."""
        while True:
            left = self.left()
            if left.over or not left.spent or stop():
                return left
            time.sleep(_LOOK)

    def finished(self) -> list[FrozenTrial]:
        """Each trial that counts, once, by number: told, or (in state FAIL) given up, whose worker died too often."""
        with self._turn():
            trials = self._mend()
        return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED") or _given_up(trial)]

    def gave_up(self, trial: FrozenTrial) -> bool:
        """Whether a trial counts as failed because its worker died too often."""
        return _given_up(trial)

    # ---- what belongs to the study, not to a trial

    def keep(self, name: str, value: Mapping[str, Any]) -> None:
        """Keeps something beside the trials, of JSON, for all workers; what was kept by that name before is gone."""
        with self._turn():
            self._storage.set_study_user_attr(self._id, _KEPT + name, dict(value))

    def kept(self, name: str) -> Mapping[str, Any] | None:
        with self._turn():
            return self._storage.get_study_user_attrs(self._id).get(_KEPT + name)

    def take(self, name: str, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Takes something that one worker of all does, such as the final: None where it is this one's from here on, until it leaves.

        about: "host", "folder" and "trials", which the others are told. Returns what whoever has it said of itself, and whether it is
        "done": a worker that is seen to live, or one that did it of as many trials elsewhere. One that died, or left it undone, has lost
        it. A sign of life is waited for, up to the patience of the study. What is done of it is no time of the study's.
        """
        first: int | None = None
        while True:
            with self._turn():
                there = self._storage.get_study_user_attrs(self._id).get(_KEPT + name)
                workers = self._workers()
                if there is None or self._gone(there["owner"], workers):
                    here = there is not None and all(there[key] == about[key] for key in ("host", "folder"))
                    if there is not None and there["done"] and there["trials"] == about["trials"] and not here:
                        return there
                    self._record["apart"] = True
                    self._work()
                    self._storage.set_study_user_attr(self._id, _KEPT + name, {**about, "owner": self.worker, "done": False})
                    return None
                beats = workers[there["owner"]]["beats"]
                if first is not None and beats != first:
                    return there
                first = beats
            time.sleep(_LOOK)

    def did(self, name: str, about: Mapping[str, Any]) -> None:
        """Says that what was taken is done."""
        self.keep(name, {**about, "owner": self.worker, "done": True})

    # ---- whose turn it is

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with _explained(self._place), self._place.turn():
            yield

    def _mend(self) -> list[FrozenTrial]:
        """All trials, after those that nobody will finish have been failed. In turn only.

        The reason is written before the state, and what is owed follows from both: whoever dies in between is mended by the next.
        """
        from optuna.trial import TrialState

        trials = self._trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING and not self._mine(trial)]
        if not running:
            return trials
        workers = self._workers()
        for trial in running:
            owner = trial.user_attrs.get(_OWNER)
            # its own that it does not hold were claimed as the storage failed, before it knew of them
            why = "left" if owner == self.worker else self._gone(owner, workers)
            if why:
                self._fail(trial, why)
        return self._trials()

    def _gone(self, owner: str | None, workers: Mapping[str, Any]) -> str:
        """Why a worker will not finish its trials: "died" or "left"; "" while it may."""
        record = workers.get(owner) if owner else None
        if owner is None or record is None:
            return "died"  # killed while it claimed: owners are written in turn, and this is another turn
        if record["left"]:
            return "left"
        here = self._record
        if all(record[key] == here[key] for key in ("host", "boot", "space")) and _born(record["pid"]) != record["born"]:
            return "died"
        beats, since = self._seen.get(owner, (-1, 0.0))
        if beats != record["beats"]:
            self._seen[owner] = (record["beats"], time.monotonic())
            return ""
        return "died" if time.monotonic() - since > self._patience else ""

    def _fail(self, trial: FrozenTrial, why: str) -> None:
        from optuna.trial import TrialState

        place = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
        self._storage.set_trial_user_attr(place, _DEAD, why)
        self._storage.set_trial_state_values(place, TrialState.FAIL)

    def _repeat(self, trial: FrozenTrial) -> Asked:
        import optuna

        attributes = {
            _OWNER: self.worker,
            _AGAIN: trial.number,
            _DIED: trial.user_attrs.get(_DIED, 0) + (trial.user_attrs[_DEAD] == "died"),
        }
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
            system_attrs={key: value for key, value in trial.system_attrs.items() if key == "fixed_params"},
        )
        asked = optuna.trial.Trial(self.study, self._storage.create_new_trial(self._id, template))
        self._held.add(asked.number)
        return asked

    def _mine(self, trial: FrozenTrial) -> bool:
        return trial.state.name == "RUNNING" and trial.user_attrs.get(_OWNER) == self.worker and trial.number in self._held

    def _left(self, trials: Sequence[FrozenTrial]) -> Left:
        limits = self.study.user_attrs.get(_LIMITS, {})
        claimed = [t for t in trials if t.state.name != "WAITING" and _AGAIN not in t.user_attrs]
        repeated = {t.user_attrs[_AGAIN]: t for t in trials if _AGAIN in t.user_attrs}
        free = 0
        for trial in claimed:
            while trial.number in repeated:
                trial = repeated[trial.number]
            free += bool(trial.user_attrs.get(_FREE))
        most, time_limit = limits.get("trials"), limits.get("seconds")
        return Left(
            None if most is None else max(0, most - len(claimed) + free),
            None if time_limit is None else time_limit - self.seconds(),
            len(_owed(trials)),
            sum(t.state.name == "RUNNING" and not self._mine(t) for t in trials),
        )

    def _out(self) -> bool:
        limit = self.study.user_attrs.get(_LIMITS, {}).get("seconds")
        return limit is not None and limit <= self.seconds()

    # ---- signs of life

    def seconds(self) -> float:
        """Seconds during which anyone has worked on this study, those of all its workers laid over each other."""
        spans = [
            (record["start"], record["at"]) for name, record in self._workers().items() if name != self.worker and not record.get("apart")
        ]
        if self._working and not self._record.get("apart"):
            spans.append((self._record["start"], self._place.now()))
        total, until = 0.0, -math.inf
        for start, end in sorted(spans):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total

    def _workers(self) -> dict[str, Any]:
        attributes = self._storage.get_study_user_attrs(self._id)
        return {key.removeprefix(_WORKERS): value for key, value in attributes.items() if key.startswith(_WORKERS)}

    def _work(self) -> None:
        """Registers with the first trial, and beats from there on."""
        if not self._working:
            if self._storage.get_study_user_attrs(self._id)[_IDENTITY] != self._identity:
                hint = "go on with what it is of now, or begin another study elsewhere"
                raise RunError(f"the study at {self.where} was begun as another's, before anything was tried in it", hint=hint)
            self._working, self._record["start"] = True, self._place.now()
            self._sign()
            self._thread.start()

    def _sign(self, left: bool = False) -> None:
        self._record |= {"at": self._place.now(), "beats": self._record["beats"] + 1, "left": left}
        self._storage.set_study_user_attr(self._id, _WORKERS + self.worker, self._record)

    def _beats(self) -> None:
        while not self._stop.wait(self._beat):
            with suppress(RunError), _explained(self._place):  # the next one may get through; what asks for an answer will tell
                self._sign()
        self._place.end_thread()

    def _leave(self) -> None:
        with self._place.turn():
            for trial in self._trials():
                if trial.state.name == "RUNNING" and trial.user_attrs.get(_OWNER) == self.worker:
                    self._fail(trial, "left")
            self._held.clear()
            self._sign(left=True)

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))


def _given_up(trial: FrozenTrial) -> bool:
    return trial.state.name == "FAIL" and trial.user_attrs.get(_DEAD) == "died" and trial.user_attrs.get(_DIED, 0) >= DEATHS


def _owed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that nobody finished, that are not repeated yet and not given up."""
    repeated = {trial.user_attrs.get(_AGAIN) for trial in trials}
    return [t for t in trials if t.state.name == "FAIL" and _DEAD in t.user_attrs and t.number not in repeated and not _given_up(t)]


def _same(study: Study, identity: Mapping[str, str], directions: Sequence[str], where: str) -> bool:
    """Whether the study is new: it has no trial. Raises RunError where it is of something else."""
    there = study.user_attrs.get(_IDENTITY)
    goals = [direction.name.lower() for direction in study.directions]
    some = bool(study.get_trials(deepcopy=False))
    if there is None or not some:
        if some:
            raise RunError(f"the study {study.study_name!r} at {where} was not made by attar search", hint="choose another place for it")
        there = dict(identity)
        study.set_user_attr(_IDENTITY, there)
        new = True
    else:
        new = False
    differ = [key for key in sorted({*there, *identity}) if there.get(key) != identity.get(key)]
    if differ:
        values = "; ".join(f"{key} {there.get(key, 'none')} there, {identity.get(key, 'none')} here" for key in differ)
        what = " and ".join(filter(None, [", ".join(differ[:-1]), differ[-1]]))
        hint = "go on with what it began with, or begin another study elsewhere"
        hint = "take the same attar everywhere" if differ == ["attar"] else hint
        raise RunError(f"the study {study.study_name!r} at {where} has another {what}: {values}", hint=hint)
    if goals != list(directions):
        raise RunError(
            f"the study {study.study_name!r} at {where} has other goals: {', '.join(goals)} there, {', '.join(directions)} here",
            hint="begin another study elsewhere",
        )
    return new


# ---- who lives


def _process() -> dict[str, Any]:
    """This process, so that others on the same machine can see whether it lives: processes are told apart by when they began.

    space: of process ids, for containers on one machine may share its name.
    """
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else uuid.uuid4().hex,  # where there is no /proc, silence alone tells
        "space": space.stat().st_ino if space.exists() else 0,
        "pid": os.getpid(),
        "born": _born(os.getpid()),
    }


def _born(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None for one that is not there, or is a corpse. proc(5), fields 3, 22."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


# ---- places


def shown(where: str | Path) -> str:
    """A place as it may be printed and kept: without its password."""
    return _place(where).shown


@dataclass
class _Place(abc.ABC):
    """Where a study lies: what opens it, whose turn it is there, and its clock."""

    shown: str
    secrets: tuple[str, ...] = ()

    @abc.abstractmethod
    def open(self, stack: ExitStack) -> None: ...

    @abc.abstractmethod
    def storage(self) -> BaseStorage: ...

    @abc.abstractmethod
    def turn(self) -> AbstractContextManager[None]: ...

    def now(self) -> float:
        """Seconds since 1970, by a clock that all workers share."""
        return time.time()

    def end_thread(self) -> None:
        """What a thread that used the storage does last; nothing, where a storage keeps nothing for each."""
        return


@dataclass
class _File(_Place):
    """A file beside which another is locked: SQLite and the journal."""

    path: Path = Path()

    def open(self, stack: ExitStack) -> None:
        if self.path.is_dir():
            raise RunError(f"{self.path} is a folder", hint="name a file in it")
        if not self.path.parent.is_dir():
            raise RunError(f"{self.path.parent} is not there", hint="make it first: a study is not put where nobody looks for it")
        self._turns = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._turns, _locked(self.path.with_name(self.path.name + ".turn")):
            yield


@dataclass
class _SQLite(_File):
    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        from sqlalchemy import create_engine, event
        from sqlalchemy.engine import URL

        self._engine = create_engine(URL.create("sqlite", database=str(self.path)), connect_args={"timeout": _TURN})
        event.listen(self._engine, "connect", _write_ahead)
        stack.callback(self._engine.dispose)

    def storage(self) -> BaseStorage:
        self._database = _tables(self._engine, self.shown)
        return _optuna().storages.get_storage(self._database)

    def end_thread(self) -> None:
        self._database.remove_session()


def _write_ahead(connection: Any, _: Any) -> None:
    """Readers do not stop writers, and no write waits for the disk: a killed process loses nothing, a power cut the last moments."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",):  # not on every disk
        connection.execute("PRAGMA synchronous = NORMAL")


@dataclass
class _Journal(_File):
    def storage(self) -> BaseStorage:
        journal = _optuna().storages
        try:
            return journal.JournalStorage(journal.journal.JournalFileBackend(str(self.path), lock_obj=_Appending(self.path)))
        except (ValueError, KeyError, TypeError, AssertionError):
            raise RunError(f"{self.path} is no journal of a study", hint="name one of attar search, or a new file") from None


@dataclass
class _PostgreSQL(_Place):
    url: Any = None  # sqlalchemy's

    def open(self, stack: ExitStack) -> None:
        import sqlalchemy

        if importlib.util.find_spec("psycopg") is None:
            raise MissingExtra("psycopg", "postgresql")
        self._sql = sqlalchemy
        # A server that was restarted is found again, and one whose machine vanished is given up within a minute.
        alive = {"connect_timeout": _CONNECT, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
        how = {key: value for key, value in alive.items() if key not in self.url.query}
        self._engine = sqlalchemy.create_engine(self.url, pool_pre_ping=True, connect_args=how)
        stack.callback(self._engine.dispose)
        with self._engine.connect() as connection:
            there = connection.scalar(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp())"))
        self._ahead = float(there) - time.time()

    def storage(self) -> BaseStorage:
        self._database = _tables(self._engine, self.shown)
        return _optuna().storages.get_storage(self._database)

    @contextmanager
    def turn(self) -> Iterator[None]:
        # A lock of the transaction, not of the session: it holds behind a pool of connections, too, and ends with the connection.
        # A database holds few studies: one turn for all of them.
        key = int(digest("attar search", size=7), 16)
        with self._engine.connect() as connection, connection.begin():
            connection.execute(self._sql.text(f"SET LOCAL lock_timeout = {int(1000 * _TURN)}"))
            connection.execute(self._sql.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    def now(self) -> float:
        return time.time() + self._ahead

    def end_thread(self) -> None:
        self._database.remove_session()


def _tables(engine: Any, where: str) -> Any:
    """Optuna's storage in a database, its tables made if they are not there; its connections are those of `engine`, which closes them."""
    url = engine.url.render_as_string(hide_password=False)
    try:  # it fills braces in a URL, which are doubled against that
        return _optuna().storages.RDBStorage(url.replace("{", "{{").replace("}", "}}"), engine_kwargs={"pool": engine.pool})
    except RuntimeError as error:  # of tables that another version of Optuna made
        raise RunError(f"{where} does not open: {' '.join(str(error).split())}", hint="take the same Optuna everywhere") from None


class _Appending:
    """The lock under which a line is appended to a journal; Optuna's own outlives a killed holder by half a minute.

    What a killed writer left of a line is cut off: no reader has taken it, and the next line would be lost with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()

    def acquire(self) -> bool:
        self._stack.enter_context(_locked(self._path.with_name(self._path.name + ".lock")))
        with open(self._path, "rb+") as file:
            at = file.seek(0, os.SEEK_END)
            while at:
                start = max(0, at - 4096)
                file.seek(start)
                cut = start + file.read(at - start).rfind(b"\n") + 1
                if cut > start or not start:
                    if cut < os.fstat(file.fileno()).st_size:
                        file.truncate(cut)
                    break
                at = start
        return True

    def release(self) -> None:
        self._stack.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with a file, which the kernel sees to: it ends with its holder. Raises RunError where another holds it for a minute."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        until, pause = time.monotonic() + _TURN, 0.001
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RunError(
                        f"another process holds {path} for more than {_TURN:.0f} s", hint="is a worker stopped? let it go on, or end it"
                    ) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
        yield
    finally:
        # Said, not left to closing: a process forked meanwhile has the same handle.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _place(where: str | Path) -> _Place:
    text = str(where)
    if "://" not in text:
        kind = _FILES.get(Path(text).suffix)
        if kind is None:
            raise RunError(
                f"{text} says not what a study is kept in", hint="a file that ends in .db or .journal, or postgresql://user@host/database"
            )
        return _SQLite(text, path=Path(text)) if kind == "sqlite" else _Journal(text, path=Path(text))
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES:
        close = near(scheme, ["postgresql", "sqlite"])
        hint = f"{close} " * close.endswith("?") + "a study is kept in a .db or .journal file, or at postgresql://user@host/database"
        raise RunError(f"a study is not kept at {scheme}://…", hint=hint)
    if scheme == "sqlite":
        return _place(rest.removeprefix("/")) if Path(rest).suffix in _FILES else _SQLite(rest.removeprefix("/"), path=Path(rest[1:]))
    return _database(text)


def _database(text: str) -> _PostgreSQL:
    _optuna()  # which brings sqlalchemy
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # whose words may hold a piece of the password
        raise RunError(
            "the URL of the database does not read",
            hint="postgresql://user@host:5432/database; write @ : / in a password as %40 %3A %2F, or keep it in ~/.pgpass",
        ) from None
    asked = url.query.get("password", ())
    secrets = [secret for secret in (url.password, *((asked,) if isinstance(asked, str) else asked)) if secret]
    url = url.set(drivername="postgresql+psycopg")
    safe = url.set(drivername="postgresql", query={key: value for key, value in url.query.items() if "password" not in key})
    return _PostgreSQL(safe.render_as_string(hide_password=True), secrets=tuple(secrets), url=url)


@contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """What a storage raises, as one message that holds no password."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with explain_disk(place.shown):
            yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise _told(error, place) from None
    except PermissionError as error:
        raise RunError(f"{place.shown} may not be written: {error.strerror} ({error.filename})", hint="see who owns it") from None


def _driver(error: BaseException) -> BaseException:
    """What the driver of the database raised."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return error


def _told(error: BaseException, place: _Place) -> RunError | DiskFull:
    driver = _driver(error)
    words = " ".join(str(driver).split())
    for secret in place.secrets:
        words = words.replace(secret, "***")
    if "disk is full" in words:
        return DiskFull(f"the disk is full while writing {place.shown}", hint="what was told is kept; free some space and go on")
    state = getattr(driver, "sqlstate", None)
    file = isinstance(driver, sqlite3.Error)
    verb = "refuses" if state else "does not open" if file else "does not answer"
    return RunError(f"{place.shown} {verb}: {words[:300]}", hint=_way_out(words, state, file))


def _way_out(words: str, state: str | None, file: bool) -> str:
    if "locked" in words:
        return "is a worker stopped? let it go on, or end it"
    if file:
        return "is it a study of attar search, and may it be written?"
    if state in ("42501", "25006"):
        return "its owner can: GRANT USAGE, CREATE ON SCHEMA public TO the user; or give it a database of its own"
    if "database" in words and "does not exist" in words:
        return "createdb makes it"
    if "password" in words or "authentication" in words:
        return "a password is read from ~/.pgpass or PGPASSWORD, too"
    return "is the server up, and may this machine reach it?"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
