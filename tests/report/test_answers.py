"""What the sections of a certificate add to the four answers; what is absent is said to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attar.certificate import Figure, Quality, Requirement, Verdict, compare
from attar.certificate.corrupted import Corrupted, Corruption, Severity
from attar.certificate.foreign import Foreign
from attar.certificate.guarding import Guarding, Kept
from attar.certificate.harm import Cell, Family, Harm
from attar.report.answers import Reply, replies
from attar.testing.certificates import small_certificate


def figure(value: float, spread: float = 0.01) -> Figure:
    return Figure(value, value - spread, value + spread, n=900)


def guarding(state: str = "certified") -> Guarding:
    kept = Kept(6000, figure(0.83), figure(0.03), figure(0.1))
    sentence = (
        "at most 5 % of what it answers; and more" if state == "certified" else "NOT CERTIFIED, infeasible: none shows it; at best 9 %"
    )
    cascade = {"accuracy": {"cascade": figure(0.8), "difference": figure(-0.002, 0.001)}}
    return Guarding("guard()", state, sentence, 0.05, 0.1, "teacher", "decision", {}, 900, kept, cascade=cascade)


def corrupted() -> Corrupted:
    none = Figure(None)
    clean = Severity(figure(0.9), figure(0.8), figure(0.9))
    kinds = {
        name: Corruption({"1": clean}, none, none, none, figure(ratio, 0.1), none) for name, ratio in (("fog", 1.2), ("motion_blur", 2))
    }
    return Corrupted("corruptions()", 900, 900, "accuracy", 1, "agreement", clean, kinds, figure(1.6, 0.1), none, {}, none, none, 0, 0)


def harm() -> Harm:
    cell = Cell("age", "35–52", 300, None, figure(0.9), figure(0.8), figure(-0.1), 0.001, 0.002, "worse")
    return Harm({"group": Family("group", "accuracy", 1, (cell,), 1, "age 35–52", figure(0.1))})


def foreign() -> dict[str, Foreign]:
    by = {"auroc": Quality(1, figure(0.95), figure(0.91), figure(-0.04))}
    return {"x-rays": Foreign("f", 900, 6000, 0, detectors={"confidence": by}), "few": Foreign("g", 3, 6000, 0, rows_needed=30)}


def differs(**changes: Any) -> Reply:
    return replies(small_certificate(**changes))[1]


def replaces(**changes: Any) -> Reply:
    return replies(small_certificate(**changes))[3]


def test_a_guard_says_what_it_promises_and_what_it_kept() -> None:
    told = replaces(guard=guarding())
    assert told.word == "Yes: worse by less than 0.005"
    told_of_rows = "on test rows it answers 83.0 % [82.0, 84.0], with a disagreement of 3.0 % [2.0, 4.0]."
    assert told_of_rows in told.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "With the teacher for the rest, accuracy is −0.0020 [−0.0030, −0.0010] against the teacher alone." in told.text


@pytest.mark.parametrize("answer", ["no", "insufficient evidence"])
def test_what_may_not_stand_alone_may_stand_behind_a_certified_guard(answer: Any) -> None:
    verdict = Verdict(answer, "INFERIOR to the teacher: accuracy 0.7", figure(-0.1), 0.005)
    told = replaces(non_inferior=verdict, requirements=(), guard=guarding())
    assert (told.tone, told.word) == ("unsure", "Only behind its guard")
    assert told.text.startswith("Accuracy 0.7.")


def test_a_certified_guard_does_not_help_where_the_cascade_itself_is_worse_by_the_margin() -> None:
    verdict = Verdict("no", "INFERIOR to the teacher: accuracy 0.7", figure(-0.1), 0.005)
    guard = replace(guarding(), cascade={"accuracy": {"cascade": figure(0.7), "difference": figure(-0.03, 0.01)}})
    told = replaces(non_inferior=verdict, requirements=(), guard=guard)
    assert (told.tone, told.word) == ("no", "No: worse by more than 0.005")


def test_nothing_stands_behind_a_guard_that_test_rows_contradict_or_where_more_is_required_than_a_guard_gives() -> None:
    verdict = Verdict("no", "INFERIOR to the teacher: accuracy 0.7", figure(-0.1), 0.005)
    told = replaces(non_inferior=verdict, requirements=(), guard=replace(guarding(), broken=("all",)))
    assert (told.tone, told.word) == ("no", "No: worse by more than 0.005")
    assert "The guard’s promise is not kept on test rows" in told.text
    missed = (Requirement("worse by less than 0.005", "not met", ""), Requirement("latency_ms ≤ 1", "not met", ""))
    assert replaces(non_inferior=verdict, requirements=missed, guard=guarding()).word == "No: worse by more than 0.005"
    assert replaces(non_inferior=verdict, requirements=missed[:1], guard=guarding()).word == "Only behind its guard"


def test_a_guard_that_is_not_certified_promises_nothing() -> None:
    verdict = Verdict("no", "INFERIOR to the teacher: accuracy 0.7", figure(-0.1), 0.005)
    told = replaces(non_inferior=verdict, requirements=(), guard=guarding("infeasible"))
    assert told.word == "No: worse by more than 0.005"
    assert told.text.endswith("of the single answer nothing is guaranteed.")


def test_where_it_differs_tells_of_groups_corruptions_and_foreign_rows() -> None:
    told = differs(harm=harm(), corrupted=corrupted(), foreign=foreign())
    assert "1 of 1 groups are served worse, at a false discovery rate of 5\N{NO-BREAK SPACE}%: “age 35–52”." in told.text
    assert "Under corruptions its errors are 1.6× the teacher’s [1.5, 1.7], most under motion blur." in told.text
    assert "(“x-rays”) with an AUROC of 0.9100 [0.9000, 0.9200], the teacher’s with 0.9500 [0.9400, 0.9600]." in told.text
    assert "few" not in told.text  # of which nothing could be said
    assert told.text.endswith("Not asked: rows from elsewhere.")


def test_what_was_not_asked_is_named() -> None:
    assert differs().text.endswith("Not asked: rows from elsewhere, corruptions, foreign rows, groups.")


def test_runs_side_by_side_show_what_each_answers_behind_its_guard(tmp_path: Any) -> None:
    for name, guard in (("a", guarding()), ("b", guarding("infeasible")), ("c", None)):
        (tmp_path / name).mkdir()
        small_certificate(guard=guard).write(tmp_path / name / "certificate.json")
    lines = compare(*(tmp_path / name for name in "abc")).lines()
    at = next(k for k, line in enumerate(lines) if line.startswith("behind its guard"))
    said = [line.split(maxsplit=1)[1] for line in lines[at + 1 : at + 4]]
    assert said[0].split() == ["0.8300", "0.0300", "[0.0200,", "0.0400]"]
    assert said[1:] == ["infeasible", "no guard"]
