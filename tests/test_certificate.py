"""Certificate: it reads back what it wrote, refuses what it does not understand, and is readable as plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attar.certificate import Certificate, Figure, Quality, Requirement, Verdict, digits, require
from attar.certificate.terminal import styled
from attar.errors import EvidenceError
from attar.testing.certificates import small_certificate


def certificate(**changes: Any) -> Certificate:
    difference = Figure(-0.0012, -0.0034, 0.0009, n=6000, how="Tango")
    quality = Quality(
        better=1,
        teacher=Figure(0.8057, 0.795, 0.816, n=6000),
        student=Figure(0.8045, 0.794, 0.815, n=6000),
        difference=difference,
        files={"student.onnx": Figure(0.8045), "student.int8.onnx": Figure(0.8031)},
        arms={"student": Figure(0.8056), "labels": Figure(0.7770)},
        gains={"labels": Figure(0.0286, 0.0194, 0.0378, n=5)},
        seeds={"student": (0.80, 0.81), "labels": (0.77, float("nan"))},
    )
    values: dict[str, Any] = {
        "identity": {
            "task": 'classification(metric="accuracy")', "data": "d" * 32, "look": 2,
            "rows": {"test": 6000, "labelled": 6000, "distinct": 6000},
            "teacher": {"text": 'lightgbm("teacher.txt")', "fingerprint": "t" * 32, "training_rows": "known"},
            "student": {"text": 'onnx("runs/credit/student")', "fingerprint": "s" * 32, "file": "student.onnx", "files": {}},
            "versions": {"attar": "0.1.0"}, "machine": "a machine",
        },
        "claim": {"metric": "accuracy", "margin": 0.005, "decision": "the likeliest outcome"},
        "non_inferior": Verdict("yes", "NON-INFERIOR to the teacher: accuracy 0.8045", difference, 0.005),
        "helped": Verdict("insufficient evidence", "INSUFFICIENT EVIDENCE that distillation helped", None, 0.005, None, 9),
        "against": {"labels": Verdict("insufficient evidence", "…", Figure(0.0286, 0.0194, 0.0378, n=5), 0.005, None, 9)},
        "quality": {"accuracy": quality},
        "fidelity": {"agreement": Figure(0.9935, 0.9911, 0.9952, n=6000), "kl": Figure(0.0002, None, None, "nats", 6000)},
        "calibration": {"teacher": {"ece": Figure(0.017)}, "student": {"ece": Figure(0.0147)}},
        "cost": {
            "teacher": {"latency_p95_ms": Figure(0.4312, unit="ms"), "size_mb": Figure(None, unit="MB")},
            "student": {"latency_p95_ms": Figure(0.00812, unit="ms"), "size_mb": Figure(0.0451, unit="MB")},
            "ratio": {"latency_p95_ms": Figure(53.1, unit="×")},
        },
        "requirements": (Requirement("agreement ≥ 0.95", "met", "It is 0.9935."),),
        "limits": ("no guard was fitted: the student answers every row, and this sentence is long enough to be wrapped",),
        "pictures": {"reliability": {}},
    }  # fmt: skip
    return Certificate(**{**values, **changes})


def test_it_reads_back_what_it_wrote(tmp_path: Path) -> None:
    certificate().write(tmp_path / "certificate.json")
    again = Certificate.read(tmp_path / "certificate.json")
    assert again.to_dict() == certificate().to_dict()
    assert again.lines() == certificate().lines()
    assert again.quality["accuracy"].difference == certificate().quality["accuracy"].difference
    assert json.loads((tmp_path / "certificate.json").read_text())["schema_version"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "schema_version": 99}, "schema version 99"),
        (lambda d: {k: v for k, v in d.items() if k != "schema_version"}, "schema version None"),
        (lambda d: {k: v for k, v in d.items() if k != "helped"}, "not whole"),
        (lambda d: {**d, "fidelity": {"agreement": {"worth": 1}}}, "not whole"),
        (lambda d: {**d, "fidelity": {"agreement": {"value": "much"}}}, "not whole: 'much' where there is to be a value of type float"),
        (lambda d: {**d, "helped": {**d["helped"], "answer": "surely"}}, "not whole: 'surely' is none of 'yes'"),
        (lambda d: {**d, "harm": []}, r"not whole: \[\] where Harm has fields"),
        (lambda d: {**d, "identity": {}}, "not whole: 'student'"),
        (lambda d: {**d, "identity": {**d["identity"], "rows": None}}, "not whole"),
        (lambda d: {**d, "claim": {}}, "not whole: 'metric'"),
        (lambda d: [d], "holds a list"),
    ],
)
def test_another_version_or_a_damaged_one_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(change(certificate().to_dict())))
    with pytest.raises(EvidenceError, match=message):
        Certificate.read(path)


def test_a_missing_or_torn_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no certificate at"):
        Certificate.read(tmp_path / "certificate.json")
    (tmp_path / "certificate.json").write_text('{"schema_version": 1, ')
    with pytest.raises(EvidenceError, match="does not read"):
        Certificate.read(tmp_path / "certificate.json")


def test_its_text_fits_a_narrow_terminal_and_says_the_verdicts_first() -> None:
    lines = certificate().lines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].startswith("NON-INFERIOR")
    assert lines[1].startswith("INSUFFICIENT EVIDENCE")
    text = str(certificate())
    for piece in ("−0.0012 [−0.0034, +0.0009]", "+0.0286 [+0.0194, +0.0378]", "student.int8.onnx", "53.1×", "look 2", "0.00812"):
        assert piece in text


def test_its_rich_text_is_the_same_text() -> None:
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(certificate().rich())
    assert [line.rstrip() for line in capture.get().rstrip().splitlines()] == [line.rstrip() for line in certificate().lines()]


def test_the_exit_code_is_three_only_where_something_required_is_not_shown() -> None:
    assert certificate(requirements=()).exit_code == 0
    assert certificate().exit_code == 0
    for answer in ("not met", "insufficient evidence"):
        assert certificate(requirements=(Requirement("agreement ≥ 0.999", answer, ""),)).exit_code == 3


def test_a_figure_that_is_no_number_is_none() -> None:
    assert Figure.of(float("nan"), 0.1, float("inf")) == Figure(None, 0.1, None)


def test_require_writes_as_it_was_read_and_refuses_what_nobody_can_show() -> None:
    assert repr(require()) == "require()"
    assert repr(require(margin=0.01, min_agreement=0.9, helped=True)) == "require(margin=0.01, min_agreement=0.9, helped=True)"
    with pytest.raises(EvidenceError, match="margin=0"):
        require(margin=0.0)
    with pytest.raises(EvidenceError, match="between 0 and 1"):
        require(min_agreement=95)


@pytest.mark.parametrize(
    ("value", "text"), [(-1e-17, "0.0000"), (-0.00004, "0.0000"), (0.5, "0.5000"), (-0.00006, "-0.0001"), (61.7, "61.70")]
)
def test_what_rounds_to_nothing_has_no_sign(value: float, text: str) -> None:
    assert digits(value) == text


def test_each_control_that_decides_has_lines_of_its_own_on_the_terminal() -> None:
    each = {name: Verdict("insufficient evidence", f"INSUFFICIENT EVIDENCE over {name}.") for name in ("labels", "smooth")}
    whole = Verdict("insufficient evidence", " ".join(v.sentence for v in each.values()))
    lines = [line for line, _ in styled(small_certificate(helped=whole, against=each), 80)]
    assert {v.sentence for v in each.values()} <= set(lines)
