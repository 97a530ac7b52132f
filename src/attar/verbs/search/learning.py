"""Prices that are learnt in a process of their own, while the first candidates train in this one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any

import torch

from attar.errors import AttarError
from attar.progress import Event, Listener
from attar.verbs.distill.processes import can_fork, cores, die_with_parent
from attar.verbs.search.kept import content_of, prices_from
from attar.verbs.search.pricing import Prices

__all__ = ["Learning", "room_beside"]


def room_beside(workers: int) -> bool:
    """Whether a process may measure beside so many that train: each has a core."""
    return cores() > workers and can_fork()


@dataclass
class Learning:
    """Prices to come. learn: makes them, and says what it found. empty: prices of which nothing is known yet.

    Whoever is forked from this process may ask for them as well: they lie in a file without a
    name, and a pipe that closes says that they are there.
    """

    learn: Callable[[Listener], Prices]
    empty: Prices
    listen: Listener
    _process: BaseProcess | None = field(default=None, init=False, repr=False)
    _pipe: Connection | None = field(default=None, init=False, repr=False)
    _prices: Prices | None = field(default=None, init=False, repr=False)
    _owner: int = field(default=0, init=False, repr=False)
    _file: IO[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> Learning:
        context = multiprocessing.get_context("fork")
        self._owner, self._file = os.getpid(), tempfile.TemporaryFile()  # noqa: SIM115 closed by `stop`
        self._pipe, there = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(self.learn, self._file, self._owner), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, such as those of a display: none is used
            self._process.start()
        there.close()  # the other process has it until it ends
        return self

    @property
    def ready(self) -> bool:
        """Whether `get` answers at once."""
        return self._prices is not None or self._pipe is None or self._pipe.poll()

    def get(self) -> Prices:
        """The prices; waits for them. Where the process was lost they are learnt here. Raises the error that learning raised."""
        if self._prices is None:
            found: Any = None
            if self._pipe is not None:
                self._pipe.poll(None)
                found = self._read()
                self.stop()
            if isinstance(found, AttarError):
                raise found
            if found is None:
                self._prices = self.learn(self.listen)
            else:
                content, said = found
                for event in said if os.getpid() == self._owner else ():
                    self.listen(event)
                self._prices = prices_from(content, self.empty)
        return self._prices

    def _read(self) -> Any:
        """What was learnt; None where the process was lost before it had written all of it."""
        assert self._file is not None
        place = self._file.fileno()
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            return pickle.loads(os.pread(place, os.fstat(place).st_size, 0))  # all who were forked share one position in it
        return None

    def stop(self) -> None:
        """Ends the process, where it still runs; one that was forked from here leaves it to whoever started it."""
        if self._process is None or self._pipe is None:
            return
        self._pipe.close()
        if os.getpid() == self._owner:
            self._process.terminate()
            self._process.join()
        if self._file is not None:
            self._file.close()
        self._process = self._pipe = self._file = None


def _child(learn: Callable[[Listener], Prices], file: IO[bytes], parent: int) -> None:
    """In the forked process: its words are kept until they can be said beside nobody else's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it comes to all; the parent ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(parent)
    torch.set_num_threads(1)
    said: list[Event] = []
    found: Any
    try:
        found = (content_of(learn(lambda event: said.append(event) if event.text else None)), said)
    except AttarError as error:
        found = error
    file.write(pickle.dumps(found))
    file.flush()
