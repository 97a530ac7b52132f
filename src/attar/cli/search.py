"""The search from the command line: what its options mean, the job that a recipe makes, what was found, and the run of its winner."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attar.errors import AttarError, RecipeError, RunError

if TYPE_CHECKING:
    from rich.text import Text

    from attar.recipe import Recipe
    from attar.report.tables import Cell, Table
    from attar.searched import Searched
    from attar.verbs.search import SearchJob

__all__ = [
    "carried",
    "complete",
    "exit_code",
    "job_of",
    "nothing_left",
    "parted",
    "refuse_begun",
    "say_searched",
    "seconds_of",
    "with_winner",
    "without_password",
]

TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
SHARDS = (".bin", ".safetensors")  # never changed once they are written
BEFORE = frozenset({"search", "recipe.yaml", "manifest.json"})  # what may lie in a run's folder before the run


def seconds_of(text: str) -> float:
    """A time as it is written after --time, in seconds. Raises BadParameter, which is wrong usage.

    >>> seconds_of("30m"), seconds_of("90s"), seconds_of("1h30m")
    (1800.0, 90.0, 5400.0)
    """
    found = TIME.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        hint = f"{text}s or {text}m" if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else "30m, 90s or 1h30m"
        raise typer.BadParameter(f"{text!r} is no time: {hint}")
    seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} leaves no time: 30m, 90s or 1h30m")
    return seconds


def without_password(url: str) -> str:
    """What a terminal may show of where a study is shared, before anybody has looked whether it is such a place.

    >>> without_password("postgresql://attar:tell@nobody@db/attar")
    'postgresql://attar:***@db/attar'
    """
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


def job_of(recipe: Recipe, out: Path) -> SearchJob:
    """What a recipe asks to be searched, with its spaces checked; without a student every family that suits the data is searched.

    Raises RecipeError without data or a teacher, and the errors of `Recipe.spaces` and of its words.
    """
    from attar.recipe import KEYS
    from attar.verbs.search import SearchJob

    if missing := [key for key in ("data", "teacher") if key not in recipe.entries]:
        raise RecipeError(f"{recipe.path}: no {' and no '.join(missing)}", hint=f"{missing[0]}: {KEYS[missing[0]].says}")
    recipe.spaces()
    return SearchJob.of(recipe, out)


# --- what was found ----------------------------------------------------------------------------------------------------------------


def exit_code(s: Searched) -> int:
    """0 where a student is recommended, 3 where none keeps the budget and comes within the margin."""
    return 0 if s.winner is not None else 3


def say_searched(s: Searched, out: Path, recipe: Path) -> None:
    """What is recommended and why, on stdout: finalists, competitors, the budget, how small it can be, and what to do next."""
    from rich.console import Console

    console = Console(highlight=False)
    for line in _lines(s, out, recipe, min(console.width, 110)):
        console.print(line, soft_wrap=True)


def _lines(s: Searched, out: Path, recipe: Path, width: int) -> Iterator[Text]:
    import textwrap

    from rich.text import Text

    from attar.report.search import commands, summary

    def prose(text: str, style: str = "", mark: str = "") -> Iterator[Text]:
        for line in textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False):
            yield Text(line, style)

    head = "RECOMMENDED" if s.winner is not None else "NO STUDENT IS RECOMMENDED"
    yield Text(head, "bold green" if s.winner is not None else "bold red")
    for sentence in s.recommendation:
        yield from prose(sentence, mark="  ")
    for table in summary(s):
        yield Text()
        yield from _table(table, width)
    if s.curve is not None and s.curve.words and s.curve.words not in s.recommendation:
        yield Text()
        yield Text("how small it can be", "bold")
        yield from prose(s.curve.words, mark="  ")
    if s.notes:
        yield Text()
        yield Text("notes", "bold")
        for note in s.notes:
            yield from prose(note, mark="  - ")
    yield Text()
    yield Text(f"page         {out / 'search.html'}")
    yield Text(f"leaderboard  {out / 'leaderboard.csv'}")
    for what, command in commands(s, out, str(recipe)):
        yield Text(f"to {what}:", "dim")
        yield Text(f"  {command}", "bold")


def _table(table: Table, width: int) -> Iterator[Text]:
    """A table of the page as lines, intervals beside their figures; names that are too long for that stand above their figures."""
    from rich.text import Text

    def told(cell: Cell) -> str:
        return f"{cell.text} {cell.under}" if cell.under.startswith("[") else cell.text

    names = [table.caption, *(f"  {row[0].text}" for row in table.rows)]
    rows = [table.head[1:], *(tuple(map(told, row[1:])) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(width - sum(w + 2 for w in widths), len(table.caption))
    left = min(room, max(map(len, names)))
    for k, (name, cells) in enumerate(zip(names, rows, strict=True)):
        figures = "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        style = "bold" if k == 0 else ""
        if len(name) > left:
            yield Text(name, style)
            name = ""
        yield Text(f"{name:<{left}}{figures}".rstrip(), style)


# --- the run of its winner ---------------------------------------------------------------------------------------------------------


def parted(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--set` texts of what a search was given, and of what it chose: these change its winner, not the question.

    >>> parted(["student.width=8", "require.margin=0.01"])
    (['require.margin=0.01'], ['student.width=8'])
    """
    from attar.recipe import SEARCHED

    chosen = [text for text in settings if re.split("[.=]", text, maxsplit=1)[0].strip() in SEARCHED]
    return [text for text in settings if text not in chosen], chosen


def with_winner(recipe: Recipe, search: Path, out: Path) -> Recipe:
    """The recipe with student, objective and fit of what a search recommends; all else, paths too, as the recipe has it.

    search: its folder. out: that of the run. Raises RunError where the folder holds no search, one that has not come to its end, one that
    recommends nothing, or one of other data or another teacher or task.
    """
    from attar.notation import map_paths
    from attar.recipe import SEARCHED, Entry, load, vocabulary
    from attar.searched import Searched

    if not (search / "search.json").exists():
        what = "there is no such folder" if not search.exists() else "it holds no search.json"
        raise RunError(f"--from {search}: {what}", hint="attar search makes one; its folder is runs/search/NAME")
    found = Searched.read(search / "search.json")
    going = f"attar search {recipe.path} --out {search} --resume goes on with it"
    if found.winner is None and not found.recommendation:
        raise RunError(f"--from {search}: this search has not come to its end: {len(found.trials):,} trials so far", hint=going)
    if found.winner is None:
        said = " ".join(found.recommendation)
        hint = f"{'a larger budget' if found.bounds else 'a space that reaches other students'}, or a wider margin in require"
        raise RunError(f"--from {search}: this search recommends no student. {said}", hint=hint)
    if not (search / "winner.yaml").exists():
        raise RunError(f"--from {search}: winner.yaml, which says how trial {found.winner} is built, is not there", hint=going)
    winner = load(search / "winner.yaml", trust=recipe.trust)
    _same_question(recipe, winner, search, out)
    entries = dict(recipe.entries)
    for key in SEARCHED:
        entries.pop(key, None)
        if key in winner.entries:
            node = map_paths(winner.entries[key].node, vocabulary(key, recipe.trust), lambda path, of: _moved(path, of, search, recipe))
            entries[key] = Entry(key, 0, node)
    return replace(recipe, entries=entries)


def _moved(path: str, of: str, search: Path, recipe: Recipe) -> str:
    """A path that is relative to the search's folder, relative to the recipe."""
    return path if of == "run" or os.path.isabs(path) else os.path.relpath(search / path, recipe.path.parent)


def _same_question(recipe: Recipe, winner: Recipe, search: Path, out: Path) -> None:
    """Raise RunError where data, teacher or task of the recipe are others than those of the search."""
    changes = []
    for key in ("data", "task", "teacher"):
        now, was = (_line(each, key, out) for each in (recipe, winner))
        if now != was:
            changes.append(f"  {key}: was {was}\n  {' ' * len(key)}  now {now}")
    if changes:
        hint = "search again, or run the recipe that was searched"
        raise RunError(f"--from {search}: it was a search of another recipe:\n" + "\n".join(changes), hint=hint)


def _line(recipe: Recipe, key: str, out: Path) -> str:
    """What a recipe says of a key, as the run's folder would have it."""
    if key not in recipe.entries:
        return "absent"
    text = replace(recipe, entries={key: recipe.entries[key]}).text(out)
    return text.rstrip("\n").rsplit("\n", 1)[-1].partition(": ")[2]


def complete(search: Path) -> bool:
    """Whether a search has come to its end and recommends a student."""
    return (search / "winner.yaml").exists() and (search / "search.json").exists()


def refuse_begun(out: Path, *, resume: bool) -> None:
    """Raise RunError, as a run does, where its folder holds one already; a search alone is none."""
    if not resume and out.is_dir() and not {path.name for path in out.iterdir()} <= BEFORE:
        raise RunError(f"{out} is there already, and a run is never overwritten", hint="--resume goes on with it; --out names another")


def carried(search: Path, out: Path, recipe: Recipe, *, resume: bool) -> bool:
    """Bring what a search has of the teacher into the folder of a run that has not begun; whether the run goes on with what is there."""
    refuse_begun(out, resume=resume)
    if (out / "manifest.json").exists():
        return resume
    return carry(search, out, recipe.value("teacher", out)) or resume


@contextmanager
def nothing_left(out: Path, *, carries: bool) -> Iterator[None]:
    """What a run carries into a folder of its own goes with it where it is refused before its first step: the corrected one may begin."""
    fresh = carries and not out.exists()
    try:
        yield
    except AttarError:
        if fresh and not (out / "manifest.json").exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def carry(search: Path, out: Path, teacher: object) -> bool:
    """Take the taught teacher and the stored answers of a search into the folder of a run, so that nobody is taught or asked twice.

    Whether anything was taken. Shards of answers never change and are linked where that is possible; everything else is copied.
    """
    from attar.sources import Taught
    from attar.sources.taught import ids_of, record_of

    names = [at, record_of(at), ids_of(at)] if isinstance(teacher, Taught) and (at := Path(teacher.at)) else []
    files = [search / name for name in names if (search / name).is_file()]
    stored = [path for path in (search / "answers").rglob("*") if path.is_file() and not path.name.startswith(".")]
    files += sorted(stored, key=lambda path: (path.suffix not in SHARDS, path))  # what a manifest names is there before it
    for path in files:
        to = out / path.relative_to(search)
        to.parent.mkdir(parents=True, exist_ok=True)
        _take(path, to)
    return bool(files)


def _take(path: Path, to: Path) -> None:
    from attar.files import replacing

    if to.exists():
        return
    if path.suffix in SHARDS:
        try:
            os.link(path, to)
            return
        except OSError:  # another disk, or one that has no links
            pass
    with replacing(to) as temporary:
        shutil.copyfile(path, temporary)
