"""The command line: a recipe in, a folder out. Data goes to stdout, talk to stderr; nothing heavy is imported before a verb runs."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

import attar
from attar.errors import AttarError

if TYPE_CHECKING:
    from attar.recipe import Recipe
    from attar.searched import Searched
    from attar.verbs.run import Job, Step

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 done · 1 an error that is explained · 2 wrong usage · "
    "3 done, but what `require` or `budget` asks is not met, or the evidence for it does not suffice · "
    "130, 143 stopped by Ctrl-C or SIGTERM."
)

app = typer.Typer(
    name="attar",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/credit.yaml.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.ARG=TEXT", help="Change the recipe: --set student.width=32. May be repeated.", show_default=False),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="The run's folder; runs/NAME by default.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", metavar="", help="Go on with what is there already.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="PACKAGE",
        help="Take words from an installed package, which runs its code; 'pickle' lets pickles be read. May be repeated.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")]


def main() -> None:
    """What the `attar` command runs."""
    app()


@app.callback(invoke_without_command=True, epilog=EXIT_CODES)
def attar_command(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and stop.")] = False,
) -> None:
    """Put in a teacher, your data and a budget. Get the smallest student that still behaves like the teacher, with a certificate."""
    if version:
        print(f"attar {attar.__version__}")
        raise typer.Exit


# --- the whole job, and its steps --------------------------------------------------------------------------------------------------


@app.command(epilog=EXIT_CODES)
def run(
    recipe: RecipeFile,
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = None,
    debug: Debug = False,
    winner_of: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Build what the search in this folder recommends.", show_default=False),
    ] = None,
) -> None:
    """Do the whole job: teach, annotate, distill, export, evaluate; with a budget and no student, search for one first."""
    _work(recipe, settings, out, trust, debug, resume=resume, only=None, winner_of=winner_of)


@app.command(epilog=EXIT_CODES)
def search(
    recipe: RecipeFile,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The search's folder; runs/search/NAME by default.", show_default=False)
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="30m", help="For all that follows the teacher: 90s, 30m, 1h30m.", show_default=False)
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", min=1, help="Candidates to train of each arm; 100 without --time.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Processes at a time.")] = 1,
    join: Annotated[
        str | None,
        typer.Option(
            "--join", metavar="URL", help="Share a study: postgresql://…, or a .journal file on a shared disk.", show_default=False
        ),
    ] = None,
    resume: Resume = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Search for the smallest student that keeps the budget: its architecture, temperature, weights and learning rate."""
    from attar.cli.search import exit_code, say_searched, seconds_of, without_password

    shared = None if join is None else without_password(join)
    limits = {"--time": time, "--trials": trials, "--workers": workers if workers > 1 else None, "--join": shared}
    given = [part for name, value in limits.items() if value is not None for part in (name, str(value))]
    seconds = None if time is None else seconds_of(time)
    folder = out or _search_folder(recipe)
    with _explained(debug, resume=_again("search", recipe, settings, out, trust, given)):
        from attar.verbs.search import Elsewhere

        try:
            found = _searched(_loaded(recipe, settings, trust), folder, seconds, trials, workers, join, resume=resume)
        except Elsewhere as other:
            typer.echo(str(other))
            return
        say_searched(found, folder, recipe)
    raise typer.Exit(exit_code(found))


@app.command(epilog=EXIT_CODES)
def show(recipe: RecipeFile, settings: Settings = None, out: Out = None, trust: Trust = None, debug: Debug = False) -> None:
    """Dry run: shapes, objective, conventions, cost, size; nothing is trained or written."""
    with _explained(debug):
        folder, job = _resolved(recipe, settings, out, trust)
        from attar.cli.display import Display, say
        from attar.verbs.show import show as dry_run

        with Display() as display:
            parts = dry_run(job, out=folder, listen=display)
        for title, lines in parts:
            say(title, lines)


@app.command(epilog=EXIT_CODES)
def teach(
    recipe: RecipeFile, settings: Settings = None, out: Out = None, resume: Resume = False, trust: Trust = None, debug: Debug = False
) -> None:
    """Step 1: teach the teacher, if it is to be taught."""
    _work(recipe, settings, out, trust, debug, resume=resume, only="teach")


@app.command(epilog=EXIT_CODES)
def annotate(
    recipe: RecipeFile, settings: Settings = None, out: Out = None, resume: Resume = False, trust: Trust = None, debug: Debug = False
) -> None:
    """Step 2: store the teacher's answers to every row."""
    _work(recipe, settings, out, trust, debug, resume=resume, only="annotate")


@app.command(epilog=EXIT_CODES)
def distill(
    recipe: RecipeFile, settings: Settings = None, out: Out = None, resume: Resume = False, trust: Trust = None, debug: Debug = False
) -> None:
    """Step 3: train the student and its controls, over the seeds."""
    _work(recipe, settings, out, trust, debug, resume=resume, only="distill")


@app.command(epilog=EXIT_CODES)
def export(
    recipe: RecipeFile, settings: Settings = None, out: Out = None, resume: Resume = False, trust: Trust = None, debug: Debug = False
) -> None:
    """Step 4: write the folder that ships, and check that it answers alike."""
    _work(recipe, settings, out, trust, debug, resume=resume, only="export")


@app.command(epilog=EXIT_CODES)
def evaluate(
    recipe: Annotated[
        list[Path], typer.Argument(metavar="RECIPE", help="A recipe; with --compare two run folders or more.", show_default=False)
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="The run's folder; with --compare a page, compare.html.", show_default=False),
    ] = None,
    resume: Resume = False,
    trust: Trust = None,
    debug: Debug = False,
    compare: Annotated[bool, typer.Option("--compare", metavar="", help="Set the certificates of run folders side by side.")] = False,
) -> None:
    """Step 5: measure what ships, and write the certificate and its page; or --compare certificates that are there."""
    if not compare:
        if len(recipe) > 1:
            raise typer.BadParameter(f"one recipe, not {len(recipe)}; --compare takes run folders", param_hint="RECIPE")
        _work(recipe[0], settings, out, trust, debug, resume=resume, only="evaluate")
        return
    if len(recipe) < 2 or settings or resume or trust:
        raise typer.BadParameter("it takes two run folders or more, and no other option than --out", param_hint="--compare")
    with _explained(debug):
        from attar.certificate import compare as side_by_side
        from attar.cli.display import say_comparison

        comparison = side_by_side(*recipe)
        say_comparison(comparison)
        if out is not None:
            from attar.report import write_comparison

            print(f"page         {write_comparison(comparison, out)}")
    raise typer.Exit(comparison.exit_code)


@app.command(epilog=EXIT_CODES)
def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/credit.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.ARG=TEXT", help="Ask for more or less: --set require.margin=0.01.", show_default=False),
    ] = None,
    require: Annotated[
        str | None,
        typer.Option("--require", metavar="TEXT", help="Instead of what its recipe requires: 'require(margin=0.01)'.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Hold `require` and `budget` against the certificate of a run, for use in CI; no model is asked."""
    with _explained(debug):
        from attar.cli.display import say_checked
        from attar.recipe import judged_by
        from attar.verbs.check import check as checked

        asked = judged_by(run, [*([f"require={require}"] if require else []), *(settings or [])])
        found = checked(run, **asked)
        say_checked(found)
    raise typer.Exit(found.exit_code)


@app.command()
def words(
    word: Annotated[str | None, typer.Argument(metavar="WORD", help="A word, or a key of a recipe.", show_default=False)] = None,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """List the words a recipe may use; of one word its signature, formula, paper and example."""
    with _explained(debug):
        from attar.cli.words import tell, tell_all

        tell(word, trust or []) if word else tell_all(trust or [])


def _work(
    path: Path,
    settings: list[str] | None,
    out: Path | None,
    trust: list[str] | None,
    debug: bool,
    *,
    resume: bool,
    only: Step | None,
    winner_of: Path | None = None,
) -> None:
    """Do a job or one step of it, show it, and leave with its exit code."""
    given = [] if winner_of is None else ["--from", str(winner_of)]
    with _explained(debug, resume=_again(only or "run", path, settings, out, trust, given)):
        from attar.cli.search import carried, nothing_left, parted, with_winner

        folder = out or _folder(path)
        asked, chosen = (settings or [], []) if winner_of is None else parted(settings or [])
        recipe = _loaded(path, asked, trust)
        if only is None and winner_of is None and "student" not in recipe.entries and "budget" in recipe.entries:
            winner_of = _searched_first(recipe, folder, resume)
        with nothing_left(folder, carries=winner_of is not None):
            if winner_of is not None:
                recipe = with_winner(recipe, winner_of, folder).with_overrides(chosen)
                resume = carried(winner_of, folder, recipe, resume=resume)
            job = _job(recipe, folder)
            from attar.cli.display import Display, say_result
            from attar.verbs.run import run_job

            with Display() as display:
                result = run_job(job, out=folder, only=only, resume=resume, listen=display)
        if _first():
            say_result(result)
            if winner_of is not None:
                print(f"search       {winner_of / 'search.html'}")
    raise typer.Exit(result.exit_code)


def _searched_first(recipe: Recipe, folder: Path, resume: bool) -> Path:
    """The folder of the search that a run begins with, where no student is named; leaves where none is recommended."""
    from attar.cli.search import complete, exit_code, refuse_begun, say_searched

    search = folder / "search"
    refuse_begun(folder, resume=resume)
    if not complete(search):
        found = _searched(recipe, search, None, None, 1, None, resume=search.exists())
        if code := exit_code(found):
            say_searched(found, search, recipe.path)
            raise typer.Exit(code)
    return search


def _searched(
    recipe: Recipe, folder: Path, seconds: float | None, trials: int | None, workers: int, join: str | None, *, resume: bool
) -> Searched:
    from attar.cli.search import job_of

    job = job_of(recipe, folder)
    from attar.cli.display import Display
    from attar.progress import Event
    from attar.verbs.search import search_job

    with Display() as display:
        if job.budget is not None:
            display(Event("search", text=repr(job.budget)))
        return search_job(job, out=folder, time=seconds, trials=trials, workers=workers, study=join, resume=resume, listen=display)


def _again(verb: str, path: Path, settings: list[str] | None, out: Path | None, trust: list[str] | None, given: list[str]) -> str:
    """The command that goes on with what was stopped."""
    again = ["attar", verb, str(path), *(["--out", str(out)] if out else []), *given]
    again += [part for option, values in (("--set", settings), ("--trust", trust)) for value in values or [] for part in (option, value)]
    return shlex.join([*again, "--resume"])


def _loaded(path: Path, settings: list[str] | None, trust: list[str] | None) -> Recipe:
    from attar.recipe import load

    return load(path, trust=trust or []).with_overrides(settings or [])


def _resolved(path: Path, settings: list[str] | None, out: Path | None, trust: list[str] | None) -> tuple[Path, Job]:
    folder = out or _folder(path)
    return folder, _job(_loaded(path, settings, trust), folder)


def _job(recipe: Recipe, folder: Path) -> Job:
    resolved = recipe.resolve(folder)
    from attar.verbs.run import Job

    return Job(**resolved.values, text=resolved.text(), where=recipe.where)


def _folder(path: Path) -> Path:
    """runs/NAME; a recipe that lies in a run's folder already goes on there."""
    return path.parent if (path.parent / "manifest.json").exists() else Path("runs") / path.stem


def _search_folder(path: Path) -> Path:
    """runs/search/NAME; a recipe that lies in a search's folder already goes on there."""
    return path.parent if (path.parent / "search.json").exists() else Path("runs") / "search" / path.stem


# --- errors ------------------------------------------------------------------------------------------------------------------------


class _Terminated(KeyboardInterrupt):
    signal = signal.SIGTERM


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


@contextmanager
def _explained(debug: bool, *, resume: str = "") -> Iterator[None]:
    """Turn errors that are the user's into a message and exit code 1, a stop into 130 or 143; `debug` shows where they were raised."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (AttarError, OSError) as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        _talk("error", *((error.message, error.hint) if isinstance(error, AttarError) else _of_system(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt as stop:
        if debug:
            raise
        _talk("stopped", str(stop) or "nothing that was complete is lost", f"go on with: {resume}" if resume else "")
        raise typer.Exit(128 + vars(stop).get("signal", vars(type(stop)).get("signal", signal.SIGINT))) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _of_system(error: OSError) -> tuple[str, str]:
    """What the system refused in words that name the path, and what to do about it."""
    if error.filename is None or error.strerror is None:
        return str(error), ""
    hints = {
        NotADirectoryError: "a file stands where a folder is wanted; name another path",
        IsADirectoryError: "a folder stands where a file is wanted; name another path",
        FileNotFoundError: "look whether the path is spelt right, and may be made there",
        PermissionError: "choose another path, or ask whoever owns this one",
    }
    return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}", hints.get(type(error), "")


def _talk(head: str, message: str, hint: str) -> None:
    if not _first():
        return
    from rich.console import Console
    from rich.text import Text

    from attar.certificate.figures import visible

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble((f"{head}: ", "bold red"), visible(message)))
    if hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), visible(hint)))


def _first() -> bool:
    """Whether this is the process that talks: of several under torchrun only the first does."""
    return os.environ.get("RANK", "0") == "0"
