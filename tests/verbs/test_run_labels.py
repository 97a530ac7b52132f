"""Whole runs on data with few labels or none, on texts and vectors, and with other data sets beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attar
from attar.data import Data
from attar.errors import DataError, ObjectiveError, RunError, TapError, TeacherError
from attar.objective import cosine, hint, kl, mse
from attar.progress import Event
from attar.recipe import load
from attar.signal import NOTHING, Batch, Signal, Source
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher, small_texts
from attar.verbs.run import Job, run_job
from attar.verbs.show import show

FIT = attar.fit(epochs=3, lr=0.02, batch=32, seeds=1, threads=1)


def written(path: Path, data: Data, *, label: str | None = None, keep: int = 10**6) -> str:
    """All rows of toy texts as a TSV; of the labels the first `keep` alone."""
    names = data.schema.texts
    lines = ["\t".join([*names, *([label] if label else [])])]
    for split in data.splits.values():
        batch = split.batch(torch.arange(len(split)))
        assert not isinstance(batch.inputs, torch.Tensor)
        assert batch.labels is not None
        for row, y in zip(zip(*(batch.inputs[name] for name in names), strict=True), batch.labels.tolist(), strict=True):
            said = data.schema.classes[y] if data.schema.classes else f"{y:.3f}"
            lines.append("\t".join([*row, *([said if len(lines) <= keep else ""] if label else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


class Knowing:
    """A teacher of the toy texts, made for whatever columns the data have; it counts the rows it is asked."""

    def __init__(self, data: Data, **how: Any) -> None:
        self.source, self.rows = attar.module(small_text_teacher(data.schema, **how)), 0

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        self.rows += len(batch)
        return self.source(batch, taps)

    def prepare(self, batch: Batch) -> Any:
        return self.source.prepare(batch)


def chosen(out: Path) -> dict[str, set[str]]:
    """By arm, the metrics by which its epochs were chosen."""
    found: dict[str, set[str]] = {}
    for line in map(json.loads, (out / "history.jsonl").read_text().splitlines()):
        found.setdefault(line["arm"], set()).add(line["metric"])
    return found


def test_texts_without_any_label(tmp_path: Path) -> None:
    data = attar.data.text(written(tmp_path / "rows.tsv", small_texts(240)), classes=["sea", "wood"])
    job = Job(data=data, teacher=Knowing(data.read()), student=small_text_model, fit=FIT, require=attar.require(min_agreement=0.01))
    assert ("fit", [repr(FIT), "controls: hard"]) in show(job)
    result = run_job(replace(job, text="data: x\n"), out=tmp_path / "run")
    c = result.certificate
    assert c is not None
    assert result.exit_code == 0
    assert chosen(tmp_path / "run") == {"student": {"agreement"}, "hard": {"agreement"}}
    assert (tmp_path / "run" / "recipe.yaml").read_text() == f'data: x\nobjective: {kl()!r}\ncontrols: ["hard"]\nguard: {attar.guard()!r}\n'
    assert c.guard is not None  # of the teacher's decisions, which need no label
    assert c.quality == {}
    assert c.fidelity["agreement"].value is not None
    assert [r.answer for r in c.requirements] == ["met"]
    assert {c.non_inferior.answer, c.helped.answer} == {"insufficient evidence"}
    assert any("nothing is claimed" in limit for limit in c.limits)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No test row has a label" in page
    strict = run_job(replace(job, text="data: x\n", require=attar.require(min_agreement=0.999)), out=tmp_path / "run", only="evaluate")
    assert strict.exit_code == 3


def test_a_table_without_any_label_from_a_recipe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    rows = [f"{a:.4f},{b:.4f},{c:.4f}" for a, b, c in x]
    known = [f"{row},{'yes' if v[0] > v[1] else 'no'}" for row, v in zip(rows, x, strict=True)]
    (tmp_path / "labelled.csv").write_text("a,b,c,y\n" + "\n".join(known))
    (tmp_path / "rows.csv").write_text("a,b,c\n" + "\n".join(rows))
    (tmp_path / "later.csv").write_text("c,a,b\n" + "\n".join(f"{a:.4f},{b:.4f},{c:.4f}" for a, b, c in rng.normal(size=(150, 3))))
    data = attar.data.table(str(tmp_path / "labelled.csv"), label="y").read()
    net = attar.students.mlp(width=8, depth=1)(data.schema, 0)
    attar.export(net, data, attar.classification().bind(data.schema), at=tmp_path / "teacher")
    (tmp_path / "recipe.yaml").write_text(
        'data: table("rows.csv", classes=["no", "yes"])\n'
        "task: classification()\n"
        'teacher: onnx("teacher")\n'
        "student: mlp(width=4, depth=1)\n"
        'shift: \'[table("later.csv", classes=["no", "yes"])]\'\n'
        "fit: fit(epochs=3, seeds=1, threads=1)\n"
    )
    resolved = load(tmp_path / "recipe.yaml").resolve(tmp_path / "run")
    job = Job(**resolved.values, text=resolved.text())
    result = run_job(job, out=tmp_path / "run")
    assert result.exit_code == 0
    assert result.certificate is not None
    assert result.certificate.shift["later"].rows == 150
    assert result.certificate.shift["later"].fidelity["agreement"].value is not None
    again = load(tmp_path / "run" / "recipe.yaml").resolve(tmp_path / "run")  # what was filled in is there, and reads back
    assert again.values["controls"] == ["hard"]
    assert again.values["objective"] == kl()
    before = (tmp_path / "run" / "certificate.json").read_bytes()
    run_job(job, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "certificate.json").read_bytes() == before


def test_numbers_without_any_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{a:.4f},{b:.4f}" for a, b in rng.normal(size=(200, 2))))
    data = attar.data.table(str(tmp_path / "rows.csv"))
    net = attar.students.mlp(width=8, depth=1)(data.read("regression").schema, 3)
    job = Job(data=data, teacher=attar.module(net), student=attar.students.mlp(width=4, depth=1), task=attar.regression(), fit=FIT)
    result = run_job(job, out=tmp_path / "run")
    assert chosen(tmp_path / "run") == {"student": {"root_mean_square_distance"}}
    assert result.certificate is not None
    assert "apart, root mean square" in result.certificate.non_inferior.sentence
    assert "No control was trained" not in (tmp_path / "run" / "report.html").read_text()


def test_vectors_of_pairs_and_of_sentences_alone(tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.tsv", small_pairs(240), label="score")
    more = Path(written(tmp_path / "x.tsv", small_pairs(120, seed=4))).read_text().splitlines()[1:]
    (tmp_path / "more.txt").write_text("\n".join(sorted({row.split("\t")[0] for row in more})))
    data = attar.data.text(pairs, text=["one", "two"], label="score") + attar.data.unlabelled(str(tmp_path / "more.txt"))
    read = data.read("embedding")
    assert read.train.mask is not None
    assert not read.train.mask.all()
    job = Job(data=data, teacher=Knowing(read), student=partial(small_text_model, answers=5), task=attar.embedding(), fit=FIT)
    result = run_job(job, out=tmp_path / "run")
    c = result.certificate
    assert c is not None
    assert chosen(tmp_path / "run") == {"student": {"spearman"}, "labels": {"spearman"}}
    assert list(c.quality) == ["spearman", "pearson"]
    assert c.quality["spearman"].teacher.value is not None
    assert c.quality["spearman"].teacher.value > 0.4
    assert c.identity["student"]["file"] == "student.onnx"
    assert "Similarity by similarity" in (tmp_path / "run" / "report.html").read_text()


def test_sentences_alone_are_distilled_by_likeness(tmp_path: Path) -> None:
    lines = {text for row in Path(written(tmp_path / "x.tsv", small_pairs(160))).read_text().splitlines()[1:] for text in row.split("\t")}
    (tmp_path / "lines.txt").write_text("\n".join(sorted(lines)))
    data = attar.data.text(str(tmp_path / "lines.txt"))
    job = Job(data=data, teacher=Knowing(data.read("embedding")), student=small_text_model, task=attar.embedding(), fit=FIT)
    result = run_job(job, out=tmp_path / "run")
    assert chosen(tmp_path / "run") == {"student": {"similarity_correlation"}}
    assert result.certificate is not None
    assert "rank-correlated by" in result.certificate.non_inferior.sentence
    with pytest.raises(DataError, match="control 'labels' needs labels"):
        run_job(replace(job, controls=("labels",)), out=tmp_path / "other")


def test_few_labels_and_many_texts_without(tmp_path: Path) -> None:
    few = attar.data.text(written(tmp_path / "few.tsv", small_texts(160), label="about"), label="about")
    data = few + attar.data.unlabelled(written(tmp_path / "many.tsv", small_texts(200, seed=7)))
    read = data.read()
    assert 0 < read.train.labelled < len(read.train)
    held = read.train.batch(torch.arange(len(read.train)))
    assert not isinstance(held.inputs, torch.Tensor)
    assert held.labels is not None
    known = {text for text, y in zip(held.inputs["text"], held.labels.tolist(), strict=True) if y >= 0}
    shown: list[list[bool]] = []

    class Noting(torch.nn.Module):
        """A student that notes whether what it is shown in training has a label."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net, self.seen = net, list[bool]()
            shown.append(self.seen)

        def forward(self, inputs: Any) -> torch.Tensor:
            if self.training:
                self.seen.extend(text in known for text in inputs["text"])
            return self.net(inputs)

    how = replace(FIT, epochs=1, way="one")  # nothing is timed beforehand
    attar.distill(Knowing(read), lambda schema, seed: Noting(small_text_model(schema, seed)), data, fit=how, controls=("labels",))
    student, control = [seen for seen in shown if len(seen) >= len(read.train)]
    assert not all(student)
    assert all(control)
    assert len(control) == len(student)
    job = Job(data=data, teacher=Knowing(read), student=small_text_model, fit=FIT, controls=("labels",))
    result = run_job(job, out=tmp_path / "run")
    assert result.certificate is not None
    assert chosen(tmp_path / "run") == {"student": {"accuracy"}, "labels": {"accuracy"}}
    assert result.certificate.quality["accuracy"].gains.keys() == {"labels"}


def test_a_folder_of_texts_is_a_data_set_for_each_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "domains").mkdir()
    for name, seed in (("books", 5), ("films", 6)):
        written(tmp_path / "domains" / f"{name}.tsv", small_texts(80, seed=seed), label="about")
    home = attar.data.text(written(tmp_path / "home.tsv", small_texts(200), label="about"), label="about")
    away = attar.data.text(str(tmp_path / "domains"), label="about")
    more = attar.data.text(written(tmp_path / "more.tsv", small_texts(80, seed=7), label="about"), label="about")
    job = Job(
        data=home,
        teacher=Knowing(home.read()),
        student=small_text_model,
        fit=FIT,
        shift=[away, more],
        controls=("labels",),
        text="data: x\n",
    )
    assert [line.split()[0] for line in dict(show(job))["shift"]] == ["books", "films", "more"]
    job = replace(job, shift=[away])
    result = run_job(job, out=tmp_path / "run")
    c = result.certificate
    assert c is not None
    assert list(c.shift) == ["books", "films"]
    assert c.shift["books"].quality["accuracy"].teacher.value is not None
    assert "On rows from elsewhere" in (tmp_path / "run" / "report.html").read_text()
    films = attar.data.text(str(tmp_path / "domains" / "films.tsv"), label="about")
    (tmp_path / "run" / "README.md").write_text("# Mine\n")
    heard: list[Event] = []
    named = run_job(replace(job, shift={"only": films}), out=tmp_path / "run", only="evaluate", listen=heard.append)
    assert (tmp_path / "run" / "README.md").read_text() == "# Mine\n"
    assert any("README.md is not attar's own: it is left as it is" in event.text for event in heard)
    assert named.certificate is not None
    assert list(named.certificate.shift) == ["only"]


def test_what_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    home = attar.data.text(written(tmp_path / "home.tsv", small_texts(120), label="about"), label="about")
    other = small_texts(80, seed=5)
    strange = replace(other, schema=replace(other.schema, classes=("lake", "wood")))
    away = attar.data.text(written(tmp_path / "away.tsv", strange, label="about"), label="about")
    teacher: Source = Knowing(home.read())
    job = Job(data=home, teacher=teacher, student=small_text_model, fit=FIT, shift=[away], where=lambda key: f"recipe.yaml:5 ({key})")
    with pytest.raises(DataError, match=r"recipe.yaml:5 \(shift\): shift 'away' has the classes 'lake', 'wood', the data at home have"):
        run_job(job, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_came_later_make_it_another_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    job = Job(
        data=attar.data.text(written(path, small_texts(160)), classes=["sea", "wood"]),
        teacher=Knowing(small_texts(8)),
        student=small_text_model,
        fit=FIT,
        text="data: x\n",
    )
    run_job(job, out=tmp_path / "run", until="annotate")
    written(path, small_texts(160), label="about")
    with pytest.raises(RunError, match="other data"):
        run_job(replace(job, data=attar.data.text(str(path), label="about")), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("objective", [kl(), None])
def test_the_teacher_is_asked_each_row_once(tmp_path: Path, objective: Any) -> None:
    data = attar.data.text(written(tmp_path / "rows.tsv", small_texts(160)), classes=["sea", "wood"])
    teacher = Knowing(data.read())
    run_job(Job(data=data, teacher=teacher, student=small_text_model, objective=objective, fit=FIT), out=tmp_path / "run", until="annotate")
    assert teacher.rows == sum(map(len, data.read().splits.values()))


def test_terms_that_need_as_many_coordinates_say_so_before_training(tmp_path: Path) -> None:
    pairs = attar.data.text(written(tmp_path / "pairs.tsv", small_pairs(120), label="score"), text=["one", "two"], label="score")
    read = pairs.read("embedding")
    job = Job(data=pairs, teacher=Knowing(read), student=partial(small_text_model, answers=3), task=attar.embedding(), fit=FIT)
    with pytest.raises(ObjectiveError, match="the student answers 3 coordinates, the teacher 8"):
        run_job(replace(job, objective=mse()), out=tmp_path / "run")
    assert run_job(replace(job, objective=cosine()), out=tmp_path / "other", until="distill").exit_code == 0


def test_token_taps_are_asked_as_the_student_trains_and_it_is_said(tmp_path: Path) -> None:
    data, heard = small_texts(160), list[Event]()
    goal = kl() + 0.1 * hint(student="net.words", teacher="net.words")
    student = partial(small_text_model, buckets=4096)  # tokens as the teacher's
    run_job(
        Job(data=data, teacher=Knowing(data), student=student, objective=goal, fit=FIT),
        out=tmp_path / "run",
        until="distill",
        listen=heard.append,
    )
    assert any("net.words: as long as the longest row of a batch" in event.text for event in heard)
    assert {"kl", "hint"} <= json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[0])["parts"].keys()


def test_nets_that_are_taught_by_folds_have_no_common_space(tmp_path: Path) -> None:
    job = Job(data=small_pairs(120), teacher=attar.taught(small_text_model, at="t.safetensors"), student=small_text_model, fit=FIT)
    with pytest.raises(TeacherError, match="each with a space of its own"):
        run_job(job, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    one = replace(job, teacher=attar.taught(small_text_model, at="t.safetensors", folds=1))
    assert run_job(one, out=tmp_path / "run", until="distill").exit_code == 0


def test_a_tap_that_is_not_there_is_found_before_anything_is_taught_and_the_line_is_the_objective_s(tmp_path: Path) -> None:
    job = Job(
        data=small_texts(120),
        teacher=attar.taught(small_text_model, at="t.safetensors", folds=1),
        student=small_text_model,
        objective=kl() + hint(student="net.boddy", teacher="net.body"),
        fit=FIT,
        where=lambda key: f"recipe.yaml ({key})",
    )
    with pytest.raises(TapError, match=r"recipe.yaml \(objective\): no module at 'net.boddy'"):
        run_job(job, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    folds = replace(job, teacher=attar.taught(small_text_model, at="t.safetensors"), objective=kl(), data=small_pairs(120))
    with pytest.raises(TeacherError, match=r"recipe.yaml \(teacher\): .* each with a space of its own"):
        run_job(replace(folds, objective=cosine()), out=tmp_path / "run")
