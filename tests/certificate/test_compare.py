"""Certificates side by side: what is shown of each, and what is loudly not comparable."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from attar.certificate import Certificate, Comparison, Figure, Requirement, compare
from attar.errors import EvidenceError
from attar.testing.certificates import small_certificate


def run(folder: Path, certificate: Certificate) -> Path:
    folder.mkdir(parents=True)
    certificate.write(folder / "certificate.json")
    return folder


def identity(**changes: Any) -> dict[str, Any]:
    return {**small_certificate().identity, **changes}


def against(tmp_path: Path, **changes: Any) -> Comparison:
    """The comparison of one run with another in which `changes` differ."""
    return compare(run(tmp_path / "a", small_certificate()), run(tmp_path / "b", small_certificate(**changes)))


def test_every_figure_stands_under_that_of_the_other_with_its_interval(tmp_path: Path) -> None:
    q = small_certificate().quality
    better = replace(q["accuracy"], student=Figure(0.8101, n=6000), difference=Figure(0.0044, 0.0021, 0.0067, n=6000))
    found = against(tmp_path, quality={**q, "accuracy": better})
    lines = found.lines()
    head = next(k for k, line in enumerate(lines) if line.startswith("accuracy (primary)"))
    assert lines[head + 1].split() == ["a", "0.8057", "0.8045", "−0.0012", "[−0.0038,", "+0.0014]"]
    assert lines[head + 2].split() == ["b", "0.8057", "0.8101", "+0.0044", "[+0.0021,", "+0.0067]"]
    for heading in ("no worse than the teacher", "distillation helped", "log-loss", "agreement with the teacher", "one row", "file, MB"):
        assert any(line.startswith(heading) for line in lines), heading
    assert max(map(len, lines)) <= 80
    assert (found.exit_code, found.apart) == (0, ())
    assert "whether one student beats another was not tested" in " ".join(" ".join(lines).split())


def test_its_rich_text_is_the_same_text(tmp_path: Path) -> None:
    found = against(tmp_path)
    out = io.StringIO()
    Console(file=out, width=200).print(found.rich())
    assert out.getvalue().splitlines() == [*found.lines(), ""]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identity": identity(data="e" * 32)}, "other data were asked: a dddddddddddd; b eeeeeeeeeeee"),
        ({"identity": identity(task="multilabel()")}, "other tasks"),
        ({"claim": {**small_certificate().claim, "metric": "log_loss"}}, "other primary metrics: a accuracy; b log-loss"),
        ({"claim": {**small_certificate().claim, "margin": 0.01}}, "other margins were claimed: a 0.005; b 0.01"),
    ],
)
def test_what_is_not_comparable_is_said_first_and_exits_with_three(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = against(tmp_path, **changes)
    assert found.lines(200)[0].startswith(f"NOT COMPARABLE: {said}")
    assert found.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identity": identity(machine="a phone")}, "costs were measured on other machines: a a machine; b a phone"),
        ({"identity": identity(teacher={"text": "t", "fingerprint": "u" * 32})}, "other teachers"),
        ({"identity": identity(versions={"attar": "0.2.0"})}, "made by other versions of attar: a 0.1.0; b 0.2.0"),
        ({}, "the same student stands in more than one of them"),
    ],
)
def test_what_else_differs_is_noted_and_forbids_nothing(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = against(tmp_path, **changes)
    assert any(said in line for line in found.lines(200))
    assert found.exit_code == 0


def test_a_verdict_has_the_sign_of_its_metric(tmp_path: Path) -> None:
    claim = {**small_certificate().claim, "metric": "log_loss"}
    found = compare(*(run(tmp_path / name, small_certificate(claim=claim)) for name in "ab"))
    assert found.lines()[1].split() == ["a", "yes", "+0.0012", "[−0.0009,", "+0.0034]"]


def test_the_control_that_decides_is_named_and_its_gain_shown(tmp_path: Path) -> None:
    c = small_certificate()
    least = replace(c.helped, difference=Figure(0.0112, 0.0031, 0.0193, n=5))
    assert c.deciding == "labels"
    two = replace(c, against={**c.against, "hard": least})
    assert two.deciding == "hard"
    lines = compare(run(tmp_path / "a", two), run(tmp_path / "b", c)).lines()
    at = lines.index("distillation helped")
    assert lines[at + 1].split() == ["a", "helped", "+0.0112", "[+0.0031,", "+0.0193]"]
    assert lines[at + 2].strip() == "over hard, the least favourable of 2 controls"
    assert lines[at + 3].split()[:3] == ["b", "helped", "+0.0286"]
    assert lines[at + 4].strip() == "over labels"
    assert max(map(len, lines)) <= 80
    none = replace(c, against={}, helped=replace(c.helped, answer="insufficient evidence", difference=None))
    assert none.deciding is None
    assert compare(run(tmp_path / "c", none), run(tmp_path / "d", c)).lines()[at + 1].split() == ["c", "insufficient", "evidence"]


def test_what_is_required_and_not_met_is_named(tmp_path: Path) -> None:
    lines = against(tmp_path, requirements=(Requirement("size_mb ≤ 0.02", "not met", ""),)).lines()
    at = lines.index("required")
    assert [line.split(maxsplit=1)[1] for line in lines[at + 1 : at + 3]] == ["all 1 met", "size_mb ≤ 0.02: not met"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path / where / "credit", small_certificate()) for where in ("x", "y")]
    assert list(compare(*runs).certificates) == [str(path) for path in runs]
    assert list(compare(runs[0], runs[0]).certificates) == [str(runs[0]), f"{runs[0]} (2)"]


def test_one_of_another_schema_version_is_named_and_so_is_one_that_is_missing(tmp_path: Path) -> None:
    a, b = (run(tmp_path / name, small_certificate()) for name in "ab")
    value = json.loads((b / "certificate.json").read_text())
    (b / "certificate.json").write_text(json.dumps({**value, "schema_version": 2}))
    with pytest.raises(EvidenceError, match=f"not comparable: {b / 'certificate.json'}: a certificate of schema version 2"):
        compare(a, b)
    with pytest.raises(EvidenceError, match=f"no certificate at {tmp_path / 'c'}"):
        compare(a, tmp_path / "c")
    with pytest.raises(EvidenceError, match="it takes two"):
        compare(a)
