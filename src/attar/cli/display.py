"""Progress as it happens: a live display on a terminal, plain lines elsewhere, both on stderr; results on stdout."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from attar.progress import Event

if TYPE_CHECKING:
    from attar.certificate import Comparison
    from attar.verbs.check import Checked
    from attar.verbs.run import Result

__all__ = ["Display", "say", "say_checked", "say_comparison", "say_result"]

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


class _Bars(Progress):
    """A bar, and below it the figures or words that go with it."""

    said = ""
    rows: Sequence[Mapping[str, float | str]] = ()

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.said:
            yield Text(f"  {self.said}", "dim", no_wrap=True, overflow="ellipsis")
        if self.rows:
            yield _board(self.rows[: max(1, self.console.height - 6)])


class _Live:
    """One moving bar for what is being done; what is done becomes a line that stays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = _Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.fields[count]}", style="dim"),
            TimeRemainingColumn(),
            TextColumn("left", style="dim"),
            console=console,
            transient=True,
            expand=True,
        )
        self.stages: list[_Stage] = []  # the last is at work, those before it wait for it: distill, distill student seed 0

    def start(self) -> None:
        self.bars.start()

    def stop(self, *, whole: bool) -> None:
        while self.stages:
            self._settle(self.stages.pop(), whole=whole)
        self.bars.stop()

    def hear(self, event: Event) -> None:
        while self.stages and not _within(event.stage, self.stages[-1].last.stage):
            done = self.stages.pop()
            ends = bool(self.stages) and self.stages[-1].last.stage == event.stage and _ends(event, done.last.stage)
            self._settle(done, words=f"{event.stage} {event.text}" if ends else "")
        if not self.stages or self.stages[-1].last.stage != event.stage:
            for stage in self.stages:
                stage.parts = True
            self.stages.append(_Stage(self.bars.add_task(event.stage, total=event.total or None, count=""), Event(event.stage)))
        stage = self.stages[-1]
        if event.rows:
            self.bars.rows = event.rows
        if event.total:
            stage.last = event
            self.bars.said = _said(event)
            self.bars.update(stage.bar, completed=event.done, total=event.total, count=f"{event.done:,}/{event.total:,}")
        elif event.seconds_left is not None:  # the time allowed is what there is to be done
            stage.last = event
            self.bars.said = _said(event)
            passed = time.monotonic() - stage.began
            self.bars.update(stage.bar, completed=passed, total=passed + event.seconds_left, count=f"{event.done:,} done")
        elif event.text:
            self.bars.console.print(Text.assemble("  ", (f"{event.stage}: {event.text}", "dim")))

    def _settle(self, stage: _Stage, *, words: str = "", whole: bool = True) -> None:
        """Let the line of a stage that ends stay, with its last figures and its seconds."""
        self.bars.remove_task(stage.bar)
        self.bars.said = ""
        if stage.last.rows:
            self.bars.rows = ()
        seconds = time.monotonic() - stage.began
        if not whole or (seconds < 0.5 and not _measured(stage.last)):
            return
        last = replace(stage.last, seconds_left=None)
        last = replace(last, text="", numbers={}) if stage.parts else last
        line = Text.assemble(("✓", "green"), f" {words or _told(last)}")
        clock = f"{seconds:,.1f} s"
        line.truncate(self.console.width - len(clock) - 2, overflow="ellipsis", pad=True)
        self.bars.console.print(line.append(f"  {clock}", "dim"))


@dataclass
class _Stage:
    """A stage at work: its bar, the last that was heard, when it began, whether it was done in parts."""

    bar: TaskID
    last: Event
    began: float = field(default_factory=time.monotonic)
    parts: bool = False


def _within(stage: str, whole: str) -> bool:
    return bool(whole) and (stage == whole or stage.startswith(whole + " "))


def _ends(event: Event, part: str) -> bool:
    """Whether an event sums up the part of its stage that has just ended: distill says "student seed 0: ..."."""
    return f"{event.stage} {event.text}".startswith(f"{part}: ")


def _measured(event: Event) -> bool:
    """Whether an event says how far its stage has come, rather than one thing more."""
    return bool(event.total) or event.seconds_left is not None


def _board(rows: Sequence[Mapping[str, float | str]]) -> Table:
    """The rows of an event as a table: numbers at the right, texts cut where there is no room."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        text = any(isinstance(row.get(name), str) for row in rows)
        table.add_column(name, justify="left" if text else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(value if isinstance(value, str) else f"{value:.4g}") for value in (row.get(n, "") for n in names)))
    return table


class _Plain:
    """A line for each thing said, at most one in ten seconds while a stage goes on, and the last of each stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.spoke = time.monotonic()
        self.stage = ""
        self.waiting: Event | None = None

    def start(self) -> None: ...

    def stop(self, *, whole: bool) -> None:
        self._flush()

    def hear(self, event: Event) -> None:
        new, ends = event.stage != self.stage, _ends(event, self.stage)
        if ends or (new and _within(event.stage, self.stage)):
            self.waiting = None  # said better by the event, or of a whole whose next part begins
        elif new or not _measured(event):
            self._flush()
        if ends:
            self._say(Event(f"{event.stage} {event.text}"))
        elif not _measured(event) or time.monotonic() - self.spoke >= QUIET_SECONDS:
            self._say(event)
        else:
            self.waiting = event
        self.stage = event.stage

    def _flush(self) -> None:
        if self.waiting is not None:
            self._say(self.waiting)

    def _say(self, event: Event) -> None:
        self.spoke, self.waiting = time.monotonic(), None
        self.console.print(Text(f"{self.spoke - self.began:7.1f} s  {_told(event)}"), soft_wrap=True)


def _told(event: Event) -> str:
    """Stage, count, words or figures on one line."""
    count = f" {event.done:,}/{event.total:,}" if event.total and not event.text else ""
    count = f" {event.done:,}" if event.done and event.seconds_left is not None and not event.total else count
    said = _said(event)
    return f"{event.stage}{count}{': ' if said else ''}{said}"


def _said(event: Event) -> str:
    """The words of an event, else its figures."""
    said = event.text or "  ".join(f"{name} {value:.4g}" for name, value in event.numbers.items())
    left = "" if event.seconds_left is None else f"{timedelta(seconds=round(max(0.0, event.seconds_left)))} left for candidates"
    return "  ".join(part for part in (said, left) if part)


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
    for line in result.summary:
        console.print(Text(line), soft_wrap=True)


def say_comparison(comparison: Comparison) -> None:
    """Certificates side by side, on stdout."""
    console = Console(highlight=False)
    console.print(comparison.rich(min(console.width, 100)))


def say_checked(checked: Checked) -> None:
    """Each requirement with its answer, then what a reader must know, on stdout."""
    from attar.certificate import STYLES

    console = Console(highlight=False)
    for r in checked.requirements:
        words = f"{r.what}. {r.sentence}" if r.sentence else r.what
        console.print(Text.assemble((f"{r.answer:<23}", STYLES[r.answer]), words), soft_wrap=True)
    if not checked.requirements:
        console.print(Text("nothing is required: the recipe has neither require nor budget"), soft_wrap=True)
    for note in checked.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), note), soft_wrap=True)
