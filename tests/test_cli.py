"""The command line: what is said where, exit codes, stopping, and the display of progress."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import attar
from attar.cli import app
from attar.cli.display import Display
from attar.progress import Event
from attar.searched import board
from attar.testing.searches import small_search

RECIPE = """\
data: table("rows.csv", label="y")
task: classification(metric="auroc")
teacher: taught(lightgbm(trees=10), at="teacher.txt")
student: mlp(width=4, depth=1)
objective: blend(kl(temperature=2), labels(), weight=0.9)
fit: fit(epochs=2, seeds=2)
controls: [labels]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and 600 rows, to work in."""
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 3))
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * random.normal(size=600) > 0).astype(int)
    rows = "\n".join(f"{a:.4f},{b:.4f},{c:.4f},{label}" for (a, b, c), label in zip(x, y, strict=True))
    (tmp_path / "rows.csv").write_text(f"a,b,c,y\n{rows}\n")
    (tmp_path / "toy.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


# --- talk


def test_help_names_every_verb_and_the_exit_codes() -> None:
    said = " ".join(call("--help").stdout.split())
    for verb in ("run", "show", "teach", "annotate", "distill", "export", "evaluate", "words"):
        assert f" {verb} " in said
    for code in ("0 done", "1 an error", "2 wrong usage", "3 done, but", "130, 143 stopped"):
        assert code in said


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "scipy", "pandas", "lightgbm", "onnx", "yaml"]
    code = (
        f"import sys\nfrom attar.cli import app\ntry:\n    app(['--help'])\nfinally:\n    print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "attar", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"attar {attar.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run"], ["run", "a.yaml", "--nope"], ["run", "a.yaml", "b.yaml"], ["run", "a.yaml", "--set"]]
)
def test_wrong_usage_exits_with_two_and_says_so_on_stderr(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert not result.stdout


# --- errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.yaml"], ["error: missing.yaml: there is no such file"]),
        (["typo.yaml"], ["error: typo.yaml:5 (objective): there is no word 'kll' here", "        ^^^", "hint: did you mean 'kl'?"]),
        (
            ["toy.yaml", "--set", "student.widht=3"],
            ["error: --set student.widht=3: mlp() has no argument 'widht'", "did you mean 'width'?"],
        ),
        (
            ["toy.yaml", "--set", "student.width=3.5"],
            ["error: toy.yaml:4 (student), --set student.width=3.5: width of mlp() takes a whole"],
        ),
        (["toy.yaml", "--trust", "no_such_package"], ["error: toy.yaml:1 (data): --trust no_such_package: No module named"]),
        (["toy.yaml", "--set", 'data.path="none.csv"'], ["error: toy.yaml:1 (data), --set", "none.csv", "hint: "]),
        (["toy.yaml", "--set", "data.label=z"], ["error: toy.yaml:1 (data), --set", "z", "hint: "]),
    ],
)
def test_an_error_is_two_lines_on_stderr_and_exit_code_one(folder: Path, arguments: list[str], said: list[str]) -> None:
    (folder / "typo.yaml").write_text(RECIPE.replace("kl(", "kll("))
    result = call("run", *arguments)
    assert result.exit_code == 1
    assert not result.stdout
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize("verb", ["run", "show", "distill"])
@pytest.mark.parametrize("space", ["student.width=integer(8, 64)", "student=auto()", "objective.weight=between(0, 1)"])
def test_a_recipe_that_leaves_a_choice_is_for_a_search(folder: Path, verb: str, space: str) -> None:
    result = call(verb, "toy.yaml", "--set", space)
    assert result.exit_code == 1
    assert " is a space, of which a search takes one value" in result.stderr
    assert result.stderr.endswith("hint: attar search toy.yaml\n")
    assert not (folder / "runs").exists()


def test_debug_shows_where_an_error_was_raised(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "attar", "run", "none.yaml", "--debug"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_folder_that_cannot_be_written_is_explained(folder: Path) -> None:
    (folder / "file").write_text("")
    result = call("run", "toy.yaml", "--out", "file/run")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"error: {folder / 'file'} is a file, not a folder\nhint: choose another with --out\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "x/y"), "error: x/y: permission denied\nhint: choose another path, or ask"),
        (NotADirectoryError(20, "Not a directory", "x/y"), "error: x/y: not a directory\nhint: a file stands where a folder is wanted"),
        (OSError("the pipe is closed"), "error: the pipe is closed\n"),
    ],
)
def test_what_the_system_refuses_names_the_path_and_a_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def refuse(*of: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("attar.recipe.load", refuse)
    result = call("show", "toy.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(said)


def test_a_pickle_teacher_needs_trust(folder: Path) -> None:
    (folder / "teacher.pickle").write_bytes(pickle.dumps([1]))
    setting = ["--set", 'teacher=estimator("teacher.pickle")']
    result = call("run", "toy.yaml", *setting)
    assert result.exit_code == 1
    assert "is a pickle" in result.stderr
    assert "--trust pickle" in result.stderr
    assert "is a pickle" not in call("run", "toy.yaml", *setting, "--trust", "pickle").stderr


def test_of_several_processes_only_the_first_talks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = call("run", "missing.yaml")
    assert result.exit_code == 1
    assert not result.stderr


# --- words


def test_words_lists_every_key_and_word_within_80_columns(folder: Path) -> None:
    result = call("words")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for word in ("data", "table", "classification", "taught", "mlp", "kl", "blend", "fit", "shuffled", "int8", "budget", "require"):
        assert any(line.split()[:1] == [word] for line in lines), word
    assert max(map(len, lines)) <= 80


def test_words_of_one_word_tell_signature_key_formula_and_example(folder: Path) -> None:
    said = call("words", "kl").stdout
    assert said.startswith("kl(temperature")
    for text in ("under objective", "Σ", "arXiv:1503.02531", ">>> "):
        assert text in said
    assert max(map(len, said.splitlines())) <= 80


def test_words_of_a_key_lists_that_key_alone(folder: Path) -> None:
    said = call("words", "student").stdout
    assert "mlp" in said
    assert "classification" not in said


def test_words_of_an_unknown_word_names_near_ones(folder: Path) -> None:
    result = call("words", "kll")
    assert result.exit_code == 1
    assert "did you mean 'kl'" in result.stderr
    assert "hint: attar words lists the words; attar show RECIPE reads a recipe" in call("words", "toy.yaml").stderr


# --- the job


def test_a_run_says_what_it_found_on_stdout_and_what_it_does_on_stderr(folder: Path) -> None:
    result = call("run", "toy.yaml")
    assert result.exit_code == 0, result.stderr
    assert "student.onnx" in " ".join(p.name for p in (folder / "runs" / "toy" / "student").iterdir())
    assert "certificate.json" in result.stdout
    assert "auroc" in result.stdout.lower()
    for stage in ("teach", "annotate", "distill", "export", "evaluate"):
        assert f"  {stage}" in result.stderr
    assert " s  teach" not in result.stdout
    assert "certificate.json" not in result.stderr

    again = call("run", "toy.yaml")  # never overwritten without being asked
    assert again.exit_code == 1
    assert "--resume" in again.stderr
    assert call("run", "toy.yaml", "--resume").exit_code == 0


def test_the_steps_one_by_one_end_where_a_run_does_and_an_unmet_claim_exits_with_three(folder: Path) -> None:
    (folder / "toy.yaml").write_text(RECIPE + "require: require(min_agreement=0.999)\n")
    early = call("distill", "toy.yaml", "--out", "steps")
    assert early.exit_code == 1
    assert "attar annotate" in early.stderr
    for verb, code in {"teach": 0, "annotate": 0, "distill": 0, "export": 0, "evaluate": 3}.items():
        result = call(verb, "toy.yaml", "--out", "steps")
        assert result.exit_code == code, (verb, result.stderr)
    assert (folder / "steps" / "certificate.json").exists()
    assert call("teach", "steps/recipe.yaml").exit_code == 0  # the recipe of a run goes on in its own folder
    assert not (folder / "runs").exists()


def test_show_trains_and_writes_nothing(folder: Path) -> None:
    before = sorted(p.name for p in folder.iterdir())
    result = call("show", "toy.yaml")
    assert result.exit_code == 0, result.stderr
    assert "kl(temperature=2.0)" in result.stdout
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_with_its_code_and_says_how_to_go_on(folder: Path, number: signal.Signals, code: int) -> None:
    command = [
        sys.executable,
        "-m",
        "attar",
        "run",
        "toy.yaml",
        "--out",
        "stopped",
        "--set",
        "fit.epochs=100000",
        "--set",
        "fit.patience=100000",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job in the background begins with SIGINT ignored
    ) as job:
        deadline = time.monotonic() + 120
        while not any((folder / "stopped").glob("checkpoints/*")) and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        job.send_signal(number)
        _, err = job.communicate(timeout=120)
    assert job.returncode == code, err
    assert "stopped: " in err
    assert "go on with: attar run toy.yaml --out stopped --set fit.epochs=100000 --set fit.patience=100000 --resume" in err
    assert "Traceback" not in err


# --- display


def events() -> list[Event]:
    return [
        Event("data", text="35 duplicate rows lie in one split"),
        Event("teach"),
        *(Event("teach", k, 5, f"member {k} of 5") for k in range(1, 6)),
        *(Event("distill student seed 0", e, 40, numbers={"loss": 1 / e, "valid": 0.77}) for e in range(1, 8)),
        Event("distill", 1, 2),
        *(Event("distill labels seed 0", e, 40, numbers={"loss": 1 / e}) for e in range(1, 8)),
        Event("distill", 2, 2, "labels seed 0: auroc 0.7 on validation rows"),
        Event("export", text="writing the graph"),
    ]


def test_plain_lines_tell_notes_starts_and_ends_but_not_every_epoch() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=80)) as display:
        for event in events():
            display(event)
    lines = [line.split(" s  ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "data: 35 duplicate rows lie in one split",
        "teach",
        "teach: member 5 of 5",
        "distill student seed 0 7/40: loss 0.1429  valid 0.77",
        "distill labels seed 0: auroc 0.7 on validation rows",
        "export: writing the graph",
    ]


def test_a_live_display_leaves_one_line_for_each_stage_and_is_gone_in_the_end() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)) as display:
        for event in events():
            display(event)
    text = out.getvalue()
    assert "35 duplicate rows lie in one split" in text
    assert "✓ teach: member 5 of 5" in text
    assert "✓ distill student seed 0 7/40: loss 0.1429  valid 0.77" in text
    assert "✓ distill labels seed 0: auroc 0.7 on validation rows" in text
    assert "✓ distill labels seed 0 7/40" not in text
    assert "✓ distill 2/2" in text
    assert text.rstrip("\r\n").endswith(("\x1b[2K", "\x1b[?25h"))  # the moving part is erased, the cursor is back


def test_a_live_display_of_what_failed_claims_no_success() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="no"), Display(Console(file=out, width=80, force_terminal=True, color_system=None)) as display:
        display(Event("teach", 1, 5, "member 1 of 5"))
        raise ValueError("no")
    assert "✓" not in out.getvalue()


def test_a_search_shows_its_front_in_place_of_the_one_before_and_the_time_that_is_left() -> None:
    search = small_search(40)
    rows = [board(search.trials[:k], search.metric, search.better) for k in (10, 40)]
    told = [
        Event("search", 10, 40, seconds_left=90.2, rows=rows[0]),
        Event("search", 40, 40, "5 on the front", seconds_left=61.0, rows=rows[1]),
    ]
    live, plain = io.StringIO(), io.StringIO()
    with Display(Console(file=live, width=100, force_terminal=True, color_system=None, legacy_windows=False)) as display:
        for event in told:
            display(event)
        display._show.bars.refresh()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    with Display(Console(file=plain, width=100)) as display:
        for event in told:
            display(event)
    assert "AUROC" in live.getvalue() and "temperature" in live.getvalue()
    assert str(rows[1][0]["student"]) in live.getvalue()
    assert "0:01:01 left for candidates" in live.getvalue()
    assert "✓ search: 5 on the front" in live.getvalue()
    assert plain.getvalue().split(" s  ")[-1] == "search: 5 on the front  0:01:01 left for candidates\n"


def test_of_a_search_with_only_a_time_the_bar_is_the_time() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100)) as display:
        display(Event("search", 3, seconds_left=2.0, numbers={"best": 0.9}))
    assert out.getvalue().split(" s  ")[1] == "search 3: best 0.9  0:00:02 left for candidates\n"
