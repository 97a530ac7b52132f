"""Work shared among forked processes: for what trains at one thread each, and asks nobody who has threads of his own."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from attar.errors import RunError
from attar.loop import Signals, Stopped
from attar.progress import Event, Listener

__all__ = ["can_fork", "cores", "die_with_parent", "shared"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LOOK = 0.2  # seconds between two looks at signals


def cores() -> int:
    """How many processes this one may run at a time."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def can_fork() -> bool:
    """Whether work may be shared: on Linux, from the main thread, and where a child can learn, which is tried.

    A child has all that its parent has in memory, and no other thread. It cannot learn where its parent's automatic differentiation has
    threads for devices, as with an accelerator, or where something was exported in it before it first learnt.
    """
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread() and _learns()


def _learns() -> bool:
    """Whether a child of this process can differentiate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        child = os.fork()
    if child == 0:
        with suppress(RuntimeError):
            torch.zeros((), requires_grad=True).backward()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def shared(work: Sequence[Callable[[Listener], Any]], listen: Listener, *, losses: bool = False) -> list[Any]:
    """Each piece in a process of its own, at one thread; their results in order. What they say is said here.

    SIGINT and SIGTERM are passed on, and a piece that fails stops the others, which finish their step and keep what they have; the first
    error is raised here. Children die with their parent, whatever it dies of.
    losses: a process that is killed is told of and its result is None; the others go on. Where all are killed it is an error even so.
    """
    context = multiprocessing.get_context("fork")
    children = []
    with Signals() as signals:  # before the first is started: while a process is forked, nobody hears what a handler raises
        for piece in work:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(piece, there, os.getpid()), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, such as those of a display: none is used
                process.start()
            there.close()
            children.append(_Child(process, here, spared=losses))
        _hear(children, listen, signals)
    errors = [child.error for child in sorted(children, key=lambda child: child.at) if child.error is not None]
    first = errors[0] if errors else Stopped("distill", 0, signals.caught, None) if signals.caught else None  # all may have ended before
    if isinstance(first, Stopped) and signals.caught:
        raise Stopped(first.stage, first.epoch, signals.caught, first.checkpoint)  # of the signal that came here, not that passed on
    if errors:
        raise errors[0]
    if children and all(child.lost is not None for child in children):
        raise next(child.lost for child in children if child.lost is not None)
    return [child.result for child in children]


@dataclass
class _Child:
    """One process and what came of it."""

    process: BaseProcess
    pipe: Connection
    done: bool = False
    result: Any = None
    error: BaseException | None = None
    at: float = 0.0  # when it ended
    told: bool = False  # to stop
    spared: bool = False  # whether the others go on where this one is killed
    lost: RunError | None = None  # how it was

    def stop(self) -> None:
        self.told = True
        if not self.done and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)


def _hear(children: Sequence[_Child], listen: Listener, signals: Signals) -> None:
    told = False
    while not all(child.done for child in children):
        ready = wait([child.pipe for child in children if not child.done], timeout=_LOOK)
        for child in children:
            if child.pipe in ready:
                _take(child, listen)
        if not told and (signals.caught or any(child.error is not None for child in children)):
            told = True
            for child in children:
                child.stop()
    for child in children:
        child.process.join()


def _take(child: _Child, listen: Listener) -> None:
    try:
        kind, value = child.pipe.recv()
    except (EOFError, OSError):  # killed between two messages, or in the middle of one
        child.process.join()
        child.done, child.at = True, time.monotonic()
        if child.told and child.process.exitcode == -signal.SIGTERM:  # before it had begun to train
            child.error = Stopped("distill", 0, signal.SIGTERM, None)
            return
        what = f"a process that trained students ended with exit code {child.process.exitcode}"
        killed = RunError(what, hint='is there memory enough? --resume goes on; fit(way="one") takes one process')
        if child.spared and child.process.exitcode is not None and child.process.exitcode < 0:
            child.lost = killed
            listen(Event("search", text=f"{what}: the others go on, and repeat what it held"))
        else:
            child.error = killed
        return
    if kind == "event":
        listen(value)
    else:
        child.done, child.at = True, time.monotonic()
        child.result, child.error = (value, None) if kind == "result" else (None, value)


def die_with_parent(parent: int) -> None:
    """In a process forked by `parent`: it ends as soon as that one does, and at once where it has. Linux, as `can_fork` asks for."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _child(piece: Callable[[Listener], Any], pipe: Connection, parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)

    def say(event: Event) -> None:
        pipe.send(("event", event))

    try:
        found = ("result", piece(say))
    except BaseException as error:  # whatever it is, the parent has to hear of it
        found = ("error", _portable(error))
    pipe.send(found)


def _portable(error: BaseException) -> BaseException:
    """The error as it can be sent; one that cannot be made again from its words is told by them."""
    try:
        pickle.loads(pickle.dumps(error))
    except (TypeError, AttributeError, pickle.PicklingError):
        return RunError(f"{type(error).__name__}: {error}")
    return error
