"""Check: what a certificate shows of what is required, as evaluate would have said it, and what was asked too late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attar.certificate import Certificate, Figure, Require, Verdict, require
from attar.cost import budget
from attar.errors import EvidenceError
from attar.identity import digest_file
from attar.statistics import non_inferiority
from attar.testing.certificates import small_certificate
from attar.verbs.check import check


def written(folder: Path, certificate: Certificate) -> Path:
    certificate.write(folder / "certificate.json")
    return folder


def answers(folder: Path, asked: Require) -> list[str]:
    return [r.answer for r in check(folder, require=asked).requirements]


def test_the_claimed_margin_has_the_claimed_answer_and_no_note(tmp_path: Path) -> None:
    run = written(tmp_path, small_certificate())
    found = check(run, require=require(margin=0.005))
    (met,) = found.requirements
    assert (met.what, met.answer) == ("worse by less than 0.005", "met")
    assert "accuracy −0.0012 [−0.0034, +0.0009], student − teacher" in met.sentence
    assert (found.notes, found.exit_code) == ((), 0)
    assert check(run, require=require()).requirements == found.requirements  # no margin is the claimed one


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.0034, 0.0009, "met"), (-0.03, -0.012, "not met"), (-0.012, -0.004, "insufficient evidence")],
)
def test_another_margin_is_held_against_the_bounds_and_said_to_be_chosen_late(tmp_path: Path, low: float, high: float, answer: str) -> None:
    rests = Figure((low + high) / 2, low, high, n=6000)
    run = written(tmp_path, small_certificate(non_inferior=Verdict("insufficient evidence", "", rests, 0.005)))
    found = check(run, require=require(margin=0.01))
    assert [r.answer for r in found.requirements] == [answer]
    assert found.exit_code == (0 if answer == "met" else 3)
    assert found.notes == ("margin changed after the test split was opened: 0.005 was claimed, 0.01 is asked",)


def test_every_margin_has_the_answer_that_the_test_itself_would_give(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = {"yes": "met", "no": "not met", "insufficient evidence": "insufficient evidence"}
    claim, seen = {**small_certificate().claim, "margin": 0.03}, set()
    for _ in range(60):
        value, se, margin = float(rng.normal(0, 0.01)), float(rng.choice([0.0, 0.001, 0.01])), float(rng.choice([0.001, 0.005, 0.02]))
        rows = int(rng.choice([20, 200, 5000]))
        low, high = value - 1.6449 * se, value + 1.6449 * se
        verdict = Verdict("yes", "", Figure(value, low, high, n=rows), 0.03)
        run = written(tmp_path, small_certificate(non_inferior=verdict, claim=claim))
        expected = words[non_inferiority(value, low, high, se, margin=margin, rows=rows).answer]
        assert answers(run, require(margin=margin)) == [expected]
        seen.add(expected)
    assert seen == set(words.values())


def test_a_metric_of_which_less_is_better_is_told_with_its_own_sign(tmp_path: Path) -> None:
    claim = {**small_certificate().claim, "metric": "log_loss"}
    (found,) = check(written(tmp_path, small_certificate(claim=claim)), require=require(margin=0.01)).requirements
    assert "log-loss, nats +0.0012 [−0.0009, +0.0034]" in found.sentence


def test_a_verdict_without_a_difference_meets_no_margin(tmp_path: Path) -> None:
    run = written(tmp_path, small_certificate(non_inferior=Verdict("insufficient evidence", "no label")))
    assert answers(run, require(margin=0.5)) == ["insufficient evidence"]


@pytest.mark.parametrize(("least", "answer"), [(0.99, "met"), (0.993, "insufficient evidence"), (0.999, "not met")])
def test_agreement_is_held_against_its_interval(tmp_path: Path, least: float, answer: str) -> None:
    found = check(written(tmp_path, small_certificate()), require=require(min_agreement=least))
    assert [r.answer for r in found.requirements] == ["met", answer]
    assert found.notes == (f"asked for after the test split was opened: agreement ≥ {least}",)


def test_help_is_answered_as_the_certificate_answers_it(tmp_path: Path) -> None:
    run = written(tmp_path, small_certificate())
    assert answers(run, require(helped=True)) == ["met", "met"]
    hurt = small_certificate(helped=replace(small_certificate().helped, answer="hurt"))
    assert answers(written(tmp_path, hurt), require(helped=True)) == ["met", "not met"]


def test_a_budget_is_held_against_the_cost_and_is_no_look_at_the_test_split(tmp_path: Path) -> None:
    found = check(written(tmp_path, small_certificate()), budget=budget(latency_ms=0.02, size_mb=0.01, parameters=9000, memory_mb=1))
    assert [(r.what.split()[0], r.answer) for r in found.requirements] == [
        ("latency_ms", "met"),
        ("size_mb", "not met"),
        ("parameters", "met"),
        ("memory_mb", "insufficient evidence"),
    ]
    assert (found.notes, found.exit_code) == ((), 3)


def test_nothing_required_is_nothing_to_miss(tmp_path: Path) -> None:
    found = check(written(tmp_path, small_certificate()))
    assert (found.requirements, found.exit_code) == ((), 0)


def test_agreement_of_numbers_is_refused(tmp_path: Path) -> None:
    run = written(tmp_path, small_certificate(fidelity={"correlation": Figure(0.9, 0.8, 0.95)}))
    with pytest.raises(EvidenceError, match="holds no agreement"):
        check(run, require=require(min_agreement=0.9))


def test_a_certificate_of_another_file_than_the_one_that_lies_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    file = tmp_path / "student" / "student.onnx"
    file.write_bytes(b"a graph")
    identity = small_certificate().identity
    student = {**identity["student"], "files": {"student.onnx": {"digest": digest_file(file)}}}
    run = written(tmp_path, small_certificate(identity={**identity, "student": student}))
    assert answers(run, require()) == ["met"]
    file.write_bytes(b"another graph")
    with pytest.raises(EvidenceError, match="another file than this certificate is about"):
        check(run, require=require())


def test_a_budget_about_other_calls_is_held_against_what_was_measured_of_such(tmp_path: Path) -> None:
    certificate = small_certificate()
    special = {"latency_p95_ms": Figure(0.5, 0.4, 0.6), "rows_per_second": Figure(9e5), "batch": Figure(8), "many": Figure(64)}
    cost = {**certificate.cost, "budget": special | {"threads": Figure(2)}}
    run = written(tmp_path, replace(certificate, cost=cost))
    found = check(run, budget=budget(latency_ms=1, rows_per_second=1e6, batch=8, many=64, threads=2)).requirements
    assert [(r.what, r.answer) for r in found] == [("latency_ms ≤ 1", "met"), ("rows_per_second ≥ 1e+06", "not met")]
    other = check(run, budget=budget(latency_ms=1, size_mb=1e6, batch=9)).requirements
    assert [(r.what, r.answer) for r in other] == [("latency_ms ≤ 1", "insufficient evidence"), ("size_mb ≤ 1e+06", "met")]
