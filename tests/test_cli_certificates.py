"""The command line on certificates that are there: check, and evaluate --compare."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attar.cli import app
from attar.testing.certificates import small_certificate


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, a and b; the recipe of a requires what it claimed and bounds its size."""
    for name in "ab":
        (tmp_path / name).mkdir()
        small_certificate().write(tmp_path / name / "certificate.json")
    (tmp_path / "a" / "recipe.yaml").write_text(
        "# A run from Python, as it was asked.\ndata: <Data of: 600 rows>\nrequire: require(margin=0.005)\nbudget: budget(size_mb=0.1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_check_holds_the_recipe_against_the_certificate(run: Path) -> None:
    result = call("check", "a")
    assert result.exit_code == 0, result.stderr
    met, size = result.stdout.splitlines()
    assert met.startswith("met                    worse by less than 0.005. accuracy −0.0012 [−0.0034, +0.0009]")
    assert size == "met                    size_mb ≤ 0.1. It is 0.0469."


def test_check_exits_with_three_where_something_is_not_met_and_says_what_was_chosen_late(run: Path) -> None:
    result = call("check", "a", "--set", "require.margin=0.001", "--set", "budget.size_mb=0.01")
    assert result.exit_code == 3
    assert "insufficient evidence  worse by less than 0.001" in result.stdout
    assert "not met                size_mb ≤ 0.01" in result.stdout
    assert "note: margin changed after the test split was opened: 0.005 was claimed, 0.001 is asked" in result.stdout


def test_check_takes_what_is_required_from_the_command_line(run: Path) -> None:
    assert "nothing is required" in call("check", "b").stdout
    result = call("check", "b", "--require", "require(min_agreement=0.999)")
    assert result.exit_code == 3
    assert "not met                agreement ≥ 0.999" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no certificate at nowhere"),
        (["a/recipe.yaml"], "a/recipe.yaml is a file, and a certificate lies in the folder of a run"),
        (["held"], "held/certificate.json is a folder, not a certificate"),
        (["a", "--set", "student.width=3"], "a certificate is held against require and budget alone"),
        (["a", "--require", "require(margin=-1)"], "margin=-1"),
        (["a", "--require", "reqire()"], "did you mean 'require'"),
    ],
)
def test_check_explains_what_it_cannot_do(run: Path, arguments: list[str], said: str) -> None:
    (run / "held" / "certificate.json").mkdir(parents=True)
    result = call("check", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "hint: " in result.stderr and "Errno" not in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("verb", [["check"], ["evaluate", "--compare", "b"]])
def test_a_certificate_of_another_version_or_a_torn_one_is_an_error(run: Path, verb: list[str]) -> None:
    path = run / "a" / "certificate.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "schema_version": 99}))
    result = call(*verb, "a")
    assert result.exit_code == 1
    assert "schema version 99" in result.stderr
    path.write_text("{")
    assert call(*verb, "a").exit_code == 1


def test_compare_sets_runs_side_by_side(run: Path) -> None:
    result = call("evaluate", "--compare", "a", "b")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("accuracy (primary)"))
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["a", "b"]
    assert max(map(len, lines)) <= 80


def test_compare_says_loudly_what_is_not_comparable(run: Path) -> None:
    small_certificate(identity={**small_certificate().identity, "data": "e" * 32}).write(run / "b" / "certificate.json")
    result = call("evaluate", "--compare", "a", "b")
    assert result.exit_code == 3
    assert result.stdout.startswith("NOT COMPARABLE: other data were asked: a dddddddddddd; b eeeeeeeeeeee")


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.yaml", "b.yaml"],
        ["--compare", "a"],
        ["--compare", "a", "b", "--resume"],
        ["--compare", "a", "b", "--set", "x=1"],
        ["--compare"],
    ],
)
def test_wrong_usage_of_evaluate_exits_with_two(run: Path, arguments: list[str]) -> None:
    result = call("evaluate", *arguments)
    assert result.exit_code == 2
    assert not result.stdout


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--out", "c"]])
def test_wrong_usage_of_check_exits_with_two(run: Path, arguments: list[str]) -> None:
    assert call("check", *arguments).exit_code == 2


def test_a_comparison_is_written_as_a_page_too(run: Path) -> None:
    result = call("evaluate", "--compare", "a", "b", "--out", "compare.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("page         compare.html\n")
    page = (run / "compare.html").read_text(encoding="utf-8")
    assert "−0.0012 [−0.0034, +0.0009]" in page  # non-inferiority, as the certificate decided it
    assert "over labels only +0.0286 [+0.0194, +0.0378]" in page  # which control decides
    assert page.count("<svg") > 2 and 'id="differences-t"' in page
    assert "whether one student beats another was not tested" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_the_page_of_what_is_not_comparable_says_so_and_draws_nothing_on_one_scale(run: Path) -> None:
    other = small_certificate()
    claim = {**other.claim, "margin": 0.01}
    replace(other, claim=claim, identity={**other.identity, "data": "<b>e</b>"}).write(run / "b" / "certificate.json")
    assert call("evaluate", "--compare", "a", "b", "--out", "compare.html").exit_code == 3
    page = (run / "compare.html").read_text(encoding="utf-8")
    assert "Not comparable" in page and "other margins were claimed" in page
    assert "<b>e</b>" not in page
    assert 'id="differences-t"' not in page


def test_a_comparison_is_no_folder(run: Path) -> None:
    result = call("evaluate", "--compare", "a", "b", "--out", "a")
    assert result.exit_code == 1
    assert "error: a is a folder, not a page\nhint: --out compare.html" in result.stderr
