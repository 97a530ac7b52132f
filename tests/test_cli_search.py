"""`attar search` and the run of its winner: options, exit codes, what is said, and folders that are not what they should be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import attar.verbs.search
from attar.cli import app
from attar.cli.search import _lines, carried, seconds_of, with_winner
from attar.errors import RunError
from attar.notation import write
from attar.recipe import Recipe, load
from attar.searched import Searched
from attar.testing.searches import small_search

RECIPE = """\
data: table("rows.csv", label="y")
task: classification(metric="auroc")
teacher: taught(lightgbm(trees=10), at="teacher.txt")
student: mlp(width=integer(2, 32), depth=choice(1, 2))
fit: fit(epochs=2)
budget: budget(size_mb=0.1)
"""
WINNER = """\
data: table("../../../rows.csv", label="y", unlabelled="refuse", valid=0.1, calibration=0.1, test=0.2, seed=0)
task: classification(metric="auroc")
teacher: taught(lightgbm(trees=10), at="teacher.txt")
student: mlp(width=4, depth=1)
objective: 0.5 * kl(temperature=2.0) + 0.5 * labels()
fit: fit(epochs=9, lr=0.01)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and the search of it that has come to its end."""
    rows = "".join(f"{k % 7},{k % 5},{k % 2}\n" for k in range(60))
    (tmp_path / "rows.csv").write_text(f"a,b,y\n{rows}")
    (tmp_path / "toy.yaml").write_text(RECIPE)
    finish(tmp_path / "runs" / "search" / "toy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def finish(search: Path, found: Searched | None = None) -> Searched:
    found = found or small_search(20)
    found.write(search / "search.json")
    if found.winner is not None:
        (search / "winner.yaml").write_text(WINNER)
    return found


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def toy(**changes: str) -> Recipe:
    return load(Path("toy.yaml")).with_overrides([f"{key}={text}" for key, text in changes.items()])


# --- options


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("90s", 90), ("1h30m", 5400), ("0.5h", 1800), ("2min", 120), (" 1H ", 3600)])
def test_a_time_is_read_as_it_is_said(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"), [("90", "90s or 90m"), ("", "30m, 90s"), ("soon", "30m"), ("0s", "no time"), ("-3m", "30m"), ("1m1h", "30m")]
)
def test_what_is_no_time_is_wrong_usage_that_says_how_to_write_one(text: str, said: str, folder: Path) -> None:
    result = call("search", "toy.yaml", "--time", text)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert not result.stdout


@pytest.mark.parametrize("options", [["--trials", "0"], ["--workers", "0"], ["--trials", "many"]])
def test_fewer_than_one_trial_or_worker_is_wrong_usage(options: list[str], folder: Path) -> None:
    assert call("search", "toy.yaml", *options).exit_code == 2


class Desk:
    """Stands where a search is done: keeps what it was asked, and leaves a search that has come to its end."""

    def __init__(self, found: Searched) -> None:
        self.found, self.asked = found, dict[str, Any]()

    def __call__(self, job: Any, *, out: Path, **options: Any) -> Searched:
        self.asked = {"job": job, "out": out, **options}
        out.mkdir(parents=True, exist_ok=True)
        return finish(out, self.found)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    pytest.importorskip("optuna")
    desk = Desk(small_search(60))
    monkeypatch.setattr(attar.verbs.search, "search_job", desk)
    return desk


def test_the_search_is_asked_what_the_options_say_and_its_finding_is_told(folder: Path, desk: Desk) -> None:
    options = ["--time", "2m", "--trials", "7", "--workers", "2", "--join", "postgresql://me@host/attar", "--out", "elsewhere"]
    result = call("search", "toy.yaml", *options, "--set", "student.depth=2")
    assert result.exit_code == 0, result.stderr
    asked: Mapping[str, Any] = {k: v for k, v in desk.asked.items() if k not in ("job", "listen")}
    assert asked == {
        "out": Path("elsewhere"), "time": 120, "trials": 7, "workers": 2, "study": "postgresql://me@host/attar", "resume": False,
    }  # fmt: skip
    assert "depth=2" in desk.asked["job"].recipe.text("elsewhere")
    said = " ".join(result.stdout.split())
    for words in (*desk.found.recommendation, "attar run toy.yaml --from elsewhere", "optuna-dashboard sqlite:///elsewhere/study.db"):
        assert words in said
    for finalist in desk.found.finalists:
        assert finalist.student in said
    assert "second half, mean" in said and "predicted on the test rows" in said
    assert "exported file at most 100 kB" in said and "teacher, int8" in said and "dropped unpaid" in said
    assert max(map(len, result.stdout.splitlines())) <= 110


@pytest.mark.parametrize("student", ["auto()", 'auto("mlp")', 'choice(auto("mlp"), forest(trees=integer(1, 5)))'])
def test_what_the_data_settle_is_searched(student: str, folder: Path, desk: Desk) -> None:
    (folder / "toy.yaml").write_text(RECIPE.replace("mlp(width=integer(2, 32), depth=choice(1, 2))", student))
    result = call("search", "toy.yaml")
    assert result.exit_code == 0, result.stderr
    assert "auto(" in desk.asked["job"].recipe.text("elsewhere")


def test_a_joined_worker_whose_final_another_has_says_so_and_leaves_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves(job: Any, **options: Any) -> Searched:
        raise attar.verbs.search.Elsewhere("another worker has the finalists")

    monkeypatch.setattr(attar.verbs.search, "search_job", leaves)
    result = call("search", "toy.yaml", "--join", "x.journal", "--out", "elsewhere")
    assert (result.exit_code, result.stdout) == (0, "another worker has the finalists\n")


def test_where_no_student_is_recommended_the_exit_code_is_three(folder: Path, desk: Desk) -> None:
    desk.found = replace(desk.found, winner=None, finalists=(), recommendation=("latency_ms binds: 0.05 ms would be needed.",))
    result = call("search", "toy.yaml")
    assert result.exit_code == 3
    assert "NO STUDENT IS RECOMMENDED" in result.stdout and "latency_ms binds" in result.stdout
    assert "--from" not in result.stdout
    assert desk.asked["out"] == Path("runs/search/toy")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (RECIPE.replace("integer(2, 32)", "integer(32, 2)"), "toy.yaml:4 (student)"),
        (RECIPE.replace("width=", "widht="), "width"),
        (RECIPE.replace("student: mlp(", 'student: choice(auto("mlpp"), mlp(').replace("(1, 2))", "(1, 2)))"), "did you mean 'mlp'"),
        (RECIPE.replace("teacher:", "# teacher:"), "no teacher"),
    ],
)
def test_a_recipe_that_cannot_be_searched_is_one_message(recipe: str, said: str, folder: Path, desk: Desk) -> None:
    (folder / "toy.yaml").write_text(recipe)
    result = call("search", "toy.yaml")
    assert result.exit_code == 1
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not desk.asked


# --- the run of a winner


def test_the_winner_takes_the_place_of_what_was_searched_and_all_else_stays(folder: Path) -> None:
    recipe = with_winner(toy(**{"require.margin": "0.02"}), Path("runs/search/toy"), Path("runs/toy"))
    texts = {key: write(entry.node) for key, entry in recipe.entries.items()}
    assert texts["student"] == "mlp(width=4, depth=1)" and texts["fit"] == "fit(epochs=9, lr=0.01)"
    assert texts["objective"] == "0.5 * kl(temperature=2.0) + 0.5 * labels()"
    assert texts["data"] == 'table("rows.csv", label="y")' and texts["require"] == "require(margin=0.02)"
    assert repr(recipe.resolve("runs/toy").values["student"]).startswith("mlp(width=4, depth=1")


def test_paths_of_the_winner_lead_where_they_led(folder: Path) -> None:
    path = folder / "runs" / "search" / "toy" / "winner.yaml"
    path.write_text(WINNER.replace("mlp(width=4, depth=1)", 'hf("../../../models/small")'))
    recipe = with_winner(toy(), Path("runs/search/toy"), Path("runs/toy"))
    assert write(recipe.entries["student"].node) == 'hf("models/small")'


def refused(recipe: Recipe, search: str = "runs/search/toy") -> str:
    with pytest.raises(RunError) as caught:
        with_winner(recipe, Path(search), Path("runs/toy"))
    return str(caught.value)


def test_a_folder_that_is_no_finished_search_with_a_winner_is_refused_saying_why(folder: Path) -> None:
    assert "there is no such folder" in refused(toy(), "nowhere")
    assert "holds no search.json" in refused(toy(), "runs")
    search = folder / "runs" / "search" / "toy"
    (search / "winner.yaml").unlink()
    assert "winner.yaml" in refused(toy())
    finish(search, replace(small_search(20), winner=None, recommendation=()))
    assert "has not come to its end: 20 trials so far" in refused(toy()) and "--resume" in refused(toy())
    finish(search, replace(small_search(20), winner=None, recommendation=("size_mb binds.",)))
    assert "recommends no student. size_mb binds." in refused(toy())
    (search / "search.json").write_text("{")
    assert "does not read" in refused(toy())


@pytest.mark.parametrize(
    ("setting", "said"),
    [("data.seed=3", "seed=3"), ('task=classification(metric="accuracy")', "accuracy"), ("teacher.folds=2", "folds=2")],
)
def test_a_search_of_another_question_is_refused_naming_the_difference(setting: str, said: str, folder: Path) -> None:
    key, _, text = setting.partition("=")
    message = refused(toy(**{key: text}))
    assert "another recipe" in message and said in message.split("now", 1)[1]


def test_a_change_of_the_winner_is_made_after_it_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, Any]()

    def run_job(job: Any, **options: Any) -> Any:
        asked.update(options, job=job, teacher=(folder / "runs" / "toy" / "teacher.txt").read_text())
        raise RunError("enough")

    monkeypatch.setattr("attar.verbs.run.run_job", run_job)
    (folder / "runs" / "search" / "toy" / "teacher.txt").write_text("a booster")
    result = call("run", "toy.yaml", "--from", "runs/search/toy", "--set", "student.width=6", "--set", "require.margin=0.3")
    assert "enough" in result.stderr, result.stderr
    assert repr(asked["job"].student).startswith("mlp(width=6, depth=1") and asked["job"].require.margin == 0.3
    assert asked["resume"] and asked["teacher"] == "a booster"
    assert not (folder / "runs" / "toy").exists(), "refused before its first step, it leaves its folder to the corrected one"


def test_teacher_and_answers_come_along_once_and_the_search_keeps_its_own(folder: Path) -> None:
    search, out = folder / "runs" / "search" / "toy", folder / "runs" / "toy"
    files = {
        "teacher.txt": "t",
        "teacher.txt.json": "{}",
        "answers/manifest.jsonl": "m",
        "answers/output.1.bin": "o",
        "answers/.lock.0": "",
    }
    for name, text in files.items():
        (search / name).parent.mkdir(exist_ok=True)
        (search / name).write_text(text)
    recipe = with_winner(toy(), search, out)
    assert carried(search, out, recipe, resume=False)
    there = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert there == {name: text for name, text in files.items() if ".lock" not in name}
    with open(out / "answers" / "manifest.jsonl", "a") as file:
        file.write("more")
    assert (search / "answers" / "manifest.jsonl").read_text() == "m"
    assert os.path.samefile(search / "answers" / "output.1.bin", out / "answers" / "output.1.bin")
    with pytest.raises(RunError, match="is there already"):
        carried(search, out, recipe, resume=False)
    (out / "manifest.json").write_text("{}")
    assert carried(search, out, recipe, resume=True)
    assert (out / "answers" / "manifest.jsonl").read_text() == "mmore"


def test_a_run_with_a_budget_and_no_student_searches_first(folder: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "toy.yaml").write_text(RECIPE.replace("student:", "# student:"))
    desk.found = replace(desk.found, winner=None, finalists=(), recommendation=("size_mb binds.",))
    result = call("run", "toy.yaml")
    assert (result.exit_code, desk.asked["out"]) == (3, Path("runs/toy/search"))
    assert "NO STUDENT IS RECOMMENDED" in result.stdout
    asked = dict[str, Any]()

    def run_job(job: Any, **options: Any) -> Any:
        asked.update(options, job=job)
        raise RunError("enough")

    monkeypatch.setattr("attar.verbs.run.run_job", run_job)
    desk.found = small_search(60)
    call("run", "toy.yaml")
    assert asked["out"] == Path("runs/toy") and repr(asked["job"].student).startswith("mlp(width=4")
    desk.asked = {}
    call("run", "toy.yaml", "--resume")
    assert not desk.asked  # the search is complete: it is not done again


def test_without_a_budget_a_student_has_to_be_named(folder: Path, desk: Desk) -> None:
    lines = [line for line in RECIPE.splitlines() if not line.startswith(("student", "budget"))]
    (folder / "toy.yaml").write_text("\n".join(lines))
    result = call("run", "toy.yaml")
    assert result.exit_code == 1 and "no student" in result.stderr and "budget" in result.stderr
    assert not desk.asked


def test_how_small_it_can_be_is_told_once(tmp_path: Path) -> None:
    found = small_search()
    assert found.curve is not None
    for said in (found.recommendation, (*found.recommendation, found.curve.words)):
        lines = _lines(replace(found, recommendation=said), tmp_path, Path("recipe.yaml"), 10_000)
        assert sum(found.curve.words in line.plain for line in lines) == 1
