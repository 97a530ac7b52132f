"""Every shipped recipe runs, on a slice of its work, and leaves the folder that the README draws."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from attar.certificate import Certificate
from attar.cli import app

ROOT = Path(__file__).parent.parent
SLICES = {  # what makes a recipe quick: fewer trees, narrower nets, one epoch, a part of large data
    "credit": ['data.path="{here}/credit.csv"', "teacher.builder.trees=20", "fit.epochs=1", "fit.seeds=1", "data.augment.rows=0.1"],
    "diagnosis": ["teacher.builder.trees=20", "fit.epochs=2", "fit.seeds=1"],
    "digits": ["teacher.builder.width=4", "teacher.folds=2", "fit.epochs=1", "fit.seeds=1", "data.views=1", "controls=[labels]"],
    "photos": ['data=images("{here}/photos")', "teacher.builder.size=32", "teacher.folds=2", "fit.epochs=1", "fit.seeds=1"],
    "sentences": ['data=text("{here}/texts", text="text")', "student.layers=1"],
    "sentiment": [
        'data=text("{here}/texts/movies.tsv", text="text", label="label", unlabelled="keep")',
        'shift=[text("{here}/texts/tweets.tsv", text="text", label="label", unlabelled="keep")]',
        'student.builder.vocabulary="{here}/texts"',
        "student.layers=1",
        "teacher.folds=2",
        "teacher.fit.epochs=1",
        "fit.epochs=1",
        "fit.seeds=1",
    ],
}
TEXT = ("sentences", "sentiment")
FOLDER = {
    "README.md", "answers", "arms", "certificate.json", "checkpoints", "history.jsonl", "manifest.json", "recipe.yaml", "report.html",
    "student", "student.safetensors",
}  # fmt: skip


def test_every_recipe_has_a_slice() -> None:
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == set(SLICES)


def prepare(here: Path) -> None:
    """Small parts of the data that are large, or that an example writes."""
    with gzip.open(ROOT / "recipes" / "data" / "credit.csv.gz", "rt", encoding="utf-8") as file:
        head, *rows = file.read().splitlines()
    (here / "credit.csv").write_text("\n".join([head, *rows[::5]]) + "\n", encoding="utf-8")
    (here / "texts").mkdir()
    for name, every in (("movies", 53), ("tweets", 83)):
        head, *rows = (ROOT / "recipes" / "data" / "vader" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        (here / "texts" / f"{name}.tsv").write_text("\n".join([head, *rows[::every]]) + "\n", encoding="utf-8")
    random_pixels = np.random.default_rng(0)
    for shade, name in ((0, "dark"), (120, "light")):
        (here / "photos" / name).mkdir(parents=True)
        for i in range(60):
            pixels = shade + random_pixels.integers(0, 120, (24, 24, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(here / "photos" / name / f"{i}.png")


def call(*arguments: str) -> Result:
    """What the command does, here: a process for each would load the libraries anew. tests/test_cli.py starts processes."""
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost is measured briefly and of small batches, and rows are resampled less often: neither is what is tested here."""
    monkeypatch.setattr("attar.verbs.evaluate.COST_SECONDS", 0.02)
    monkeypatch.setattr("attar.verbs.evaluate.MANY", 16)
    monkeypatch.setattr("attar.verbs.evaluate.scoring.RESAMPLES", 200)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", sorted(SLICES))
def test_a_recipe_runs_and_says_the_same_when_resumed(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare(tmp_path)
    settings = [part for setting in SLICES[name] for part in ("--set", setting.replace("{here}", str(tmp_path)))]
    command = ["run", str(ROOT / "recipes" / f"{name}.yaml"), "--out", str(out), *settings]
    done = call(*command)
    assert done.exit_code == 0, done.stderr[-3000:]
    assert {path.name for path in out.iterdir() if not path.name.startswith("teacher")} >= FOLDER
    beside = {"tokenizer.json"} if name in TEXT else set()
    assert {path.name for path in (out / "student").iterdir()} == {"student.onnx", "student.int8.onnx", "student.json"} | beside
    certificate = Certificate.read(out / "certificate.json")
    assert certificate.identity["look"] == 1
    assert certificate.claim["metric"] in done.stdout.lower()
    assert len(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["openings"]) == 1
    again = call(*command, "--resume")
    assert again.exit_code == 0, again.stderr[-3000:]
    assert again.stdout == done.stdout  # and the test split was not opened again
    assert len(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["openings"]) == 1
    third = call(*command)
    assert third.exit_code == 1
    assert "never overwritten" in third.stderr


TOY = """\
data: table("rows.csv", label="y")
teacher: taught({builder}, at="{at}", folds=2)
student: mlp(width=8, depth=1)
fit: fit(epochs=2, seeds=1)
controls: [labels]
"""


@pytest.mark.parametrize(("builder", "at"), [("lightgbm(trees=8)", "teacher.txt"), ("mlp(width=16, depth=1)", "teacher.safetensors")])
def test_two_processes_do_one_job_in_one_folder(builder: str, at: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(400)]
    lines = ["a,b,y", *(f"{a:.4f},{b:.4f},{'yes' if a + b > 0 else 'no'}" for a, b in rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "toy.yaml").write_text(TOY.format(builder=builder, at=at), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "attar", "run", "toy.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "--out", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FOLDER
    assert done.stdout.count("look 1 at this test split") == 1  # one process talks, and the split was opened once
    alone = [sys.executable, "-m", "attar", "run", "toy.yaml", "--out", "alone"]
    subprocess.run(alone, cwd=tmp_path, capture_output=True, timeout=300, env=environment, check=True)
    assert (tmp_path / "run" / at).read_bytes() == (tmp_path / "alone" / at).read_bytes()
