"""Progress as it happens: a live display on a terminal, plain lines elsewhere, both on stderr; results on stdout."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from attar.progress import Event

if TYPE_CHECKING:
    from attar.verbs.run import Result

__all__ = ["Display", "say", "say_result"]

QUIET_SECONDS = 10.0  # plain lines: a stage that goes on says no more than one line in this time


class Display:
    """A listener that shows what a job does; a context, so that a live display is taken down before anything else is said."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")
        self._show: _Live | _Plain = _Live(self.console) if self.console.is_terminal else _Plain(self.console)

    def __enter__(self) -> Display:
        self._show.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show.stop(whole=kind is None)

    def __call__(self, event: Event) -> None:
        self._show.hear(event)


class _Live:
    """One moving line for what is being done; what is done becomes a line that stays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[said]}", style="dim", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(),
            TextColumn("left", style="dim"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            transient=True,
            expand=True,
        )
        self.stage = ""
        self.task: TaskID | None = None
        self.last = Event("")
        self.started = time.monotonic()

    def start(self) -> None:
        self.progress.start()

    def stop(self, *, whole: bool) -> None:
        self._settle(whole=whole)
        self.progress.stop()

    def hear(self, event: Event) -> None:
        if event.stage != self.stage:
            self._settle()
            self.stage, self.started = event.stage, time.monotonic()
            self.task = self.progress.add_task(event.stage, total=event.total or None, said="")
        if event.text and not event.total:
            self.progress.console.print(Text.assemble("  ", (f"{event.stage}: {event.text}", "dim")))
            self.last = Event(event.stage)
        elif self.task is not None:
            self.last = event
            self.progress.update(self.task, completed=event.done, total=event.total or None, said=_said(event))

    def _settle(self, *, whole: bool = True) -> None:
        """Let the line of the stage that ends stay, with its last figures and its seconds."""
        if self.task is None:
            return
        self.progress.remove_task(self.task)
        self.task = None
        seconds = time.monotonic() - self.started
        if not whole or (seconds < 0.5 and not self.last.total):
            return
        mark, figures = ("✓", "green"), _said(self.last)
        line = Text.assemble(mark, f" {self.stage}", (f"  {figures}" if figures else "", "dim"))
        clock = f"{seconds:,.1f} s"
        room = self.console.width - len(clock) - 2
        line.truncate(room, overflow="ellipsis", pad=True)
        self.progress.console.print(line.append(f"  {clock}", "dim"))
        self.last = Event("")


class _Plain:
    """A line for each thing said, at most one in ten seconds while a stage goes on."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.stage = ""
        self.spoke = 0.0

    def start(self) -> None: ...

    def stop(self, *, whole: bool) -> None: ...

    def hear(self, event: Event) -> None:
        now = time.monotonic()
        news = event.stage != self.stage or (event.text and not event.total) or (event.total and event.done >= event.total)
        if not news and now - self.spoke < QUIET_SECONDS:
            return
        self.stage, self.spoke = event.stage, now
        said = _said(event)
        count = f" {event.done:,}/{event.total:,}" if event.total else ""
        line = f"{now - self.began:7.1f} s  {event.stage}{count}{': ' if said else ''}{said}"
        self.console.print(Text(line), soft_wrap=True)


def _said(event: Event) -> str:
    """The words of an event, else its figures."""
    return event.text or "  ".join(f"{name} {value:.4g}" for name, value in event.numbers.items())


def say(title: str, lines: Iterable[str]) -> None:
    """A titled block on stdout."""
    console = Console(highlight=False)
    console.print(Text(title, "bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print()


def say_result(result: Result) -> None:
    """What was found and where it lies, on stdout."""
    console = Console(highlight=False)
    if result.certificate is not None:
        console.print(result.certificate.rich(min(console.width, 100)))
        console.print()
    for line in result.summary:
        console.print(Text(line), soft_wrap=True)
