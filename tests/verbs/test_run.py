from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import attar
from attar.certificate import Certificate
from attar.errors import AttarError, DataError, EvidenceError, MissingExtra, RunError, TeacherError
from attar.progress import Event
from attar.report.card import MARK
from attar.verbs.run import STEPS, Job, difference, read, run_job
from attar.verbs.show import _elsewhere, _guard, show


def rows(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int64)


def small(**changes: Any) -> Job:
    parts: dict[str, Any] = {
        "data": attar.data.arrays(*rows()),
        "teacher": attar.taught(attar.lightgbm(trees=10), at="teacher.txt"),
        "student": attar.students.mlp(width=8, depth=1),
        "fit": attar.fit(epochs=2, seeds=2),
        "controls": ("labels",),
        **changes,
    }
    return Job(**parts)


def test_a_run_leaves_the_folder_and_a_certificate(tmp_path: Path) -> None:
    heard: list[Event] = []
    result = run_job(small(), out=tmp_path / "run", listen=heard.append)
    assert result.certificate is not None
    assert result.exit_code == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["conventions"]["ok"] is True
    assert manifest["rows"]["train"] + manifest["rows"]["test"] < 400
    assert {"teach", "annotate", "distill", "export", "evaluate"} <= {event.stage.split()[0] for event in heard}


def strangers() -> dict[str, Any]:
    x, _ = rows(60)
    return {"far": attar.data.arrays(100 * x, np.array(["a", "b", "c"] * 20))}


def test_a_run_with_foreign_rows_exports_features_and_tells_them_apart_by_these(tmp_path: Path) -> None:
    result = run_job(small(foreign=strangers()), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "student" / "student.json").read_text())["outputs"] == [
        "logits",
        "probabilities",
        "confidence",
        "answer",
        "features",
    ]
    assert result.certificate is not None
    assert result.certificate.foreign["far"].detectors["mahalanobis"]["auroc"].student.value is not None
    assert "Does it notice inputs that are not of the task?" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match=r"foreign 'other': .* columns are others"):
        run_job(small(foreign={"other": attar.data.arrays(rows(200)[0][:, :3], rows(200)[1])}), out=tmp_path / "other")


def test_the_rows_at_home_are_no_other_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shift 'same': all 400 rows are among those at home"):
        run_job(small(shift={"same": attar.data.arrays(*rows())}), out=tmp_path / "run")


def test_other_places_may_show_one_class_or_a_row(tmp_path: Path) -> None:
    x, y = rows(60)
    x += 0.001
    one = attar.data.arrays(x[y == 1], y[y == 1])
    job = small(shift={"one": one, "row": (x[:1], y[:1])}, foreign={"far": attar.data.arrays(x[:5] * 100, y[:5] * 0)})
    result = run_job(replace(job, fit=attar.fit(epochs=1, seeds=1), controls=()), out=tmp_path / "run")
    assert result.certificate is not None
    assert [s.rows for s in result.certificate.shift.values()] == [int((y == 1).sum()), 1]
    assert result.certificate.shift["one"].quality["accuracy"].student.value is not None
    assert result.certificate.foreign["far"].rows == 5


def test_steps_one_by_one_make_what_the_run_makes(tmp_path: Path) -> None:
    for step in STEPS:
        run_job(small(), out=tmp_path / "steps", only=step)
    run_job(small(), out=tmp_path / "whole")
    for name in ("teacher.txt", "student.safetensors", "student/student.onnx"):
        assert (tmp_path / "steps" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("step", "before"), [("annotate", "teach"), ("distill", "annotate"), ("export", "distill"), ("evaluate", "export")]
)
def test_a_step_without_the_one_before_it_names_that_one(tmp_path: Path, step: Any, before: str) -> None:
    with pytest.raises(RunError, match=f"{step} needs .* which is not there") as found:
        run_job(small(), out=tmp_path / "run", only=step)
    assert f"attar {before}" in found.value.hint


def test_a_run_is_never_overwritten_and_goes_on_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_job(small(), out=out, until="annotate")
    with pytest.raises(RunError, match="never overwritten"):
        run_job(small(), out=out)
    before = (out / "teacher.txt").stat().st_mtime_ns
    assert run_job(small(), out=out, resume=True).certificate is not None
    assert (out / "teacher.txt").stat().st_mtime_ns == before


def test_what_neither_recipe_says_is_no_difference() -> None:
    """A search's recipe says nothing of a guard, before and after."""
    assert difference("data: a\nfit: b\n", "data: a\nfit: b\n") == ""
    assert difference("data: a\n", "data: a\nguard: guard()\n") == "  guard: was unguarded()\n         now guard()"
    assert difference("data: a\n", "data: a\nguard: unguarded()\n") == ""


def test_a_folder_of_another_recipe_is_refused_naming_the_difference(tmp_path: Path) -> None:
    run_job(small(text="student: mlp(width=8)\nfit: fit(epochs=2)\n"), out=tmp_path / "run", until="teach")
    with pytest.raises(RunError, match=r"another recipe:\n  student: was mlp\(width=8\)\n +now mlp\(width=9\)"):
        run_job(small(text="student: mlp(width=9)\nfit: fit(epochs=2)\n"), out=tmp_path / "run", resume=True)


def test_a_folder_from_before_guards_goes_on_without_one_and_says_how(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_job(small(text="student: a\n"), out=out, until="teach")
    (out / "recipe.yaml").write_text("student: a\ncontrols: []\nobjective: kl()\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"guard: was unguarded\(\)\n +now guard") as found:
        run_job(small(text="student: a\nguard: guard()\ncontrols: []\nobjective: kl()\n"), out=out, until="teach", resume=True)
    assert "--set 'guard=unguarded()' goes on" in found.value.hint
    text = "student: a\nguard: unguarded()\ncontrols: []\nobjective: kl()\n"
    run_job(small(text=text, guard=attar.unguarded(), controls=(), objective=attar.kl()), out=out, until="teach", resume=True)


@pytest.mark.parametrize("name", ["report.html", "README.md"])
def test_a_page_that_a_kill_kept_from_being_written_is_written_when_the_run_goes_on(tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    run_job(small(), out=out)
    looks = (out / "manifest.json").read_text(encoding="utf-8").count('"when"')
    before = (out / name).read_text(encoding="utf-8")
    (out / name).unlink()
    run_job(small(), out=out, resume=True)
    assert (out / name).read_text(encoding="utf-8") == before
    assert (out / "manifest.json").read_text(encoding="utf-8").count('"when"') == looks, "no test row is looked at again"
    (out / name).write_text(MARK + "of an earlier certificate", encoding="utf-8")
    os.utime(out / name, (0, 0))
    run_job(small(), out=out, resume=True)
    assert (out / name).read_text(encoding="utf-8") == before


def test_a_run_that_failed_before_any_work_leaves_its_folder_free(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DataError):
        run_job(small(data=attar.data.table(str(tmp_path / "absent.csv"), label="y"), text="data: a\n"), out=out)
    assert not out.exists()
    assert run_job(small(text="data: b\n"), out=out, until="teach").certificate is None


def test_what_a_certificate_is_held_against_may_change_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_job(small(text="student: a\n"), out=out)
    assert "Rows that are lost" not in (out / "report.html").read_text(encoding="utf-8")
    changes: dict[str, Any] = {"budget": attar.budget(size_mb=1e-6), "foreign": strangers(), "show_rows": 2}
    result = run_job(small(text="student: a\nbudget: tight\nforeign: far\nshow_rows: 2\n", **changes), out=out, only="evaluate")
    assert result.exit_code == 3
    assert "Rows that are lost" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "harm.parquet").exists()
    with pytest.raises(EvidenceError, match="show_rows=-1"):
        run_job(small(text="student: a\n", show_rows=-1), out=out, only="evaluate")
    assert result.certificate is not None
    assert result.certificate.identity["look"] == 2
    assert any("shows no features (a run with foreign inputs exports them)" in note for note in result.certificate.foreign["far"].notes)
    with pytest.raises(RunError, match="another recipe"):
        run_job(small(text="student: b\n"), out=out, only="evaluate")


def test_from_python_a_finished_folder_is_not_the_answer_to_another_question(tmp_path: Path) -> None:
    teacher = attar.module(attar.students.mlp(width=4, depth=1)(attar.data.arrays(*rows()).read().schema, 0))
    ask: Any = {"fit": attar.fit(epochs=1, seeds=1), "out": tmp_path / "run", "resume": True}
    first = attar.run(teacher, attar.students.mlp(width=4, depth=1), attar.data.arrays(*rows()), **ask)
    again = attar.run(teacher, attar.students.mlp(width=4, depth=1), attar.data.arrays(*rows()), **ask)
    assert again.certificate is not None
    assert first.certificate is not None
    assert again.certificate.to_dict() == first.certificate.to_dict()
    with pytest.raises(RunError, match=r"student: was mlp\(width=4"):
        attar.run(teacher, attar.students.mlp(width=5, depth=1), attar.data.arrays(*rows()), **ask)
    with pytest.raises(RunError, match=r"other data|data: was"):
        attar.run(teacher, attar.students.mlp(width=4, depth=1), attar.data.arrays(*rows(401)), **ask)


def test_an_error_says_which_line_it_is_about(tmp_path: Path) -> None:
    job = small(data=attar.data.table(str(tmp_path / "absent.csv"), label="y"), where=lambda key: f"recipes/x.yaml:2 ({key})")
    with pytest.raises(AttarError, match=r"^recipes/x.yaml:2 \(data\): ") as found:
        run_job(job, out=tmp_path / "run")
    assert isinstance(found.value, DataError)


class Guesser:
    """What scikit-learn would bring."""

    def predict(self, x: Any) -> Any: ...


@pytest.mark.parametrize(
    ("part", "wrong", "says", "hint"),
    [
        ("teacher", Guesser(), "a Guesser is no source", "estimator"),
        ("teacher", torch.nn.Linear(2, 2), "a Linear is no source", "module"),
        ("teacher", "teacher.txt", "'teacher.txt' is no source", "words"),
        ("student", Guesser(), "a Guesser is neither", "mlp"),
        ("objective", "kl()", r"'kl\(\)' is no objective", "kl"),
        ("fit", 3, "3 is no setting", "fit"),
    ],
)
def test_a_part_of_another_kind_is_refused_before_anything_is_written(tmp_path: Path, part: str, wrong: Any, says: str, hint: str) -> None:
    parts = {"teacher": small().teacher, "student": attar.students.mlp(), "data": attar.data.arrays(*rows()), part: wrong}
    with pytest.raises(AttarError, match=f"{part}: {says}") as found:
        attar.run(**parts, out=tmp_path / "run")
    assert hint in found.value.hint
    assert not (tmp_path / "run").exists()


def test_several_label_columns_imply_several_labels(tmp_path: Path) -> None:
    x, y = rows()
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "left": y, "up": (x[:, 1] > 0).astype(int)})
    job = small(data=attar.data.frame(table, label=["left", "up"]))
    with pytest.raises(TeacherError, match="many"):
        run_job(job, out=tmp_path / "refused")
    result = run_job(replace(job, teacher=attar.taught(attar.students.mlp(width=8), at="t.safetensors")), out=tmp_path / "run")
    assert result.certificate is not None


def test_a_library_that_a_late_step_lacks_is_named_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else there(name))
    with pytest.raises(MissingExtra, match="jinja2"):
        run_job(small(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher.txt").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student": attar.students.lightgbm(), "objective": attar.jsd()}, "trees regress logits"),
        ({"controls": ("label",)}, "no control 'label'"),
        ({"objective": attar.labels(), "controls": ("hard",)}, "asks no teacher"),
    ],
)
def test_what_distill_would_refuse_is_refused_before_the_teacher_is_taught(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        run_job(small(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_required_decides_the_exit_code(tmp_path: Path) -> None:
    result = run_job(small(budget=attar.budget(size_mb=1e-6)), out=tmp_path / "run")
    assert result.exit_code == 3
    assert result.certificate is not None
    assert [r.answer for r in result.certificate.requirements] == ["not met"]


def test_the_dry_run_trains_and_writes_nothing(tmp_path: Path) -> None:
    parts = dict(show(small(budget=attar.budget(size_mb=1e-6), foreign=strangers()), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    order = ["data", "task", "teacher", "student", "taps", "objective", "conventions", "cost", "foreign", "guard", "store", "fit"]
    assert list(parts) == order
    assert parts["foreign"] == ["far"]
    assert "not taught yet" in parts["teacher"]
    assert parts["taps"] == [
        "student  hidden     (B, 8)  hidden",
        "         hidden.0   (B, 4)  hidden:in",
        "         hidden.1   (B, 8)  hidden.1",
        "         embedding  (B, 8)  head:in",
    ]
    assert any(line.startswith("✗ size_mb") for line in parts["cost"])
    assert any("equality" in line for line in parts["conventions"])
    assert not any("teacher frozen" in line or "class order" in line for line in parts["conventions"])


def test_the_dry_run_tells_the_taps_of_a_teacher_that_has_some(tmp_path: Path) -> None:
    net = attar.students.mlp(width=5, depth=2)(attar.data.arrays(*rows()).read().schema, 0)
    parts = dict(show(small(teacher=attar.module(net)), out=tmp_path / "run"))
    assert "         hidden.1 … hidden.2  (B, 5)  hidden.*" in parts["taps"]
    assert [line[:7] for line in parts["taps"] if line[0] != " "] == ["student", "teacher"]


def test_the_dry_run_asks_a_teacher_that_is_there(tmp_path: Path) -> None:
    run_job(small(), out=tmp_path / "run", until="teach")
    parts = dict(show(small(), out=tmp_path / "run"))
    assert any("class order" in line for line in parts["conventions"])


def test_corruptions_are_asked_of_what_ships_and_refused_before_anything_is_taught(tmp_path: Path) -> None:
    asked = attar.data.corruptions(kinds=["units", "missing"], severities=(1, 5), rows=40)
    job = small(shift=[asked], student=attar.students.lightgbm(trees=5), fit=attar.fit(seeds=1), controls=("labels",))
    assert _elsewhere("corruptions", asked, read(job)[0]) == "corruptions units, missing: 40 test rows, each 4 times"
    certificate = run_job(job, out=tmp_path / "run").certificate
    assert certificate is not None
    assert certificate.corrupted is not None
    assert list(certificate.corrupted.kinds) == ["units", "missing"]
    assert 'id="corrupted"' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for wrong, said in ((["blur"], "corruption 'blur' is one of images"), (["unseen"], "no column holds categories")):
        with pytest.raises(DataError, match=said):
            run_job(small(shift=[attar.data.corruptions(kinds=wrong)]), out=tmp_path / wrong[0])
        assert not (tmp_path / wrong[0]).exists()


def test_a_classification_has_a_guard_unless_it_is_told_not_to(tmp_path: Path) -> None:
    for name, guard, there in (("default", None, True), ("none", attar.unguarded(), False)):
        result = run_job(small(guard=guard, fit=attar.fit(epochs=1, seeds=1), controls=(), text="data: a\n"), out=tmp_path / name)
        assert result.certificate is not None
        assert (result.certificate.guard is not None) == there
        said = (tmp_path / name / "recipe.yaml").read_text(encoding="utf-8")
        assert ('guard: guard(epsilon=0.05, delta=0.1, target="teacher", per="decision")' in said) == there
    found = Certificate.read(tmp_path / "default" / "certificate.json").guard
    assert found is not None
    assert found.calibration_rows > 0


def test_a_dry_run_says_by_which_rows_a_floor_of_energy_is_set() -> None:
    job = small(guard=attar.guard(energy=0.9))
    data, _ = read(job)
    assert f"answers no row of less energy than 90 % of {len(data.valid):,} validation rows reach" in _guard(job, data)
    assert not any("energy" in line for line in _guard(small(guard=attar.guard()), data))


def test_a_floor_of_energy_is_refused_for_a_student_of_one_logit_before_anything_is_taught(tmp_path: Path) -> None:
    job = small(guard=attar.guard(energy=0.9), student=attar.students.lightgbm(), where=lambda key: f"r.yaml:9 ({key})")
    with pytest.raises(EvidenceError, match=r"^r.yaml:9 \(guard\): .* this student answers one log-odds"):
        run_job(job, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_guard_of_a_regression_is_refused_before_anything_is_taught(tmp_path: Path) -> None:
    x, _ = rows()
    numbers = attar.data.arrays(x, x[:, 0] * 2.5)
    job = small(data=numbers, guard=attar.guard(), where=lambda key: f"r.yaml:9 ({key})")
    with pytest.raises(EvidenceError, match=r"^r.yaml:9 \(guard\): .* a number is not right or wrong"):
        run_job(job, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
