"""The guard: what it promises of which rows, and what it says where it can promise nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attar.errors import EvidenceError
from attar.guards import Guard, Promise, Rows, guard, unguarded

NAMES = ("no", "yes")


def rows(count: int, seed: int, *, prior: float = 0.5, sharpness: float = 3.0) -> Rows:
    """A student of two outcomes that knows its probabilities, before a teacher who decides by them and a coin."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=count) * sharpness + math.log(prior / (1 - prior))
    p = 1 / (1 + np.exp(-z))
    right = (rng.random(count) < p).astype(np.int64)
    probability = np.stack([1 - p, p], 1)
    return Rows(probability.max(1).astype(np.float32), probability, probability.argmax(1), right)


def answered(promise: Promise, r: Rows) -> np.ndarray:
    return r.confidence >= promise.limits[r.decision]


@pytest.mark.parametrize(("name", "value"), [("epsilon", 0.0), ("epsilon", 1.0), ("delta", -0.1), ("delta", 1.5)])
def test_a_share_outside_0_and_1_is_refused(name: str, value: float) -> None:
    with pytest.raises(EvidenceError, match=f"guard\\({name}={value:g}\\) is not between 0 and 1"):
        guard(**{name: value})  # pyright: ignore[reportArgumentType] a number for a number


@pytest.mark.parametrize(("name", "value"), [("target", "student"), ("per", "class")])
def test_an_unknown_choice_names_the_known_ones(name: str, value: str) -> None:
    with pytest.raises(EvidenceError, match=name) as found:
        guard(**{name: value})  # pyright: ignore[reportArgumentType] this is what is refused
    assert '"' in found.value.hint


@pytest.mark.parametrize("kind", ["regression", "embedding", "multilabel"])
def test_what_decides_nothing_or_several_things_has_no_guard(kind: str) -> None:
    with pytest.raises(EvidenceError, match=kind):
        guard().check(kind)
    guard().check("classification")


def test_a_certified_promise_says_how_many_it_answers_and_its_cells_keep_the_bound() -> None:
    promise = guard(epsilon=0.1).fit(rows(1000, 0), rows(1000, 1), NAMES)
    assert promise.certified
    calibration = rows(1000, 1)
    here = answered(promise, calibration)
    assert promise.answered == here.sum()
    for cell, name in zip(promise.cells, NAMES, strict=True):
        mine = calibration.right == NAMES.index(name)
        assert (cell.name, cell.rows, cell.answered) == (name, mine.sum(), (mine & here).sum())
        assert cell.answered_wrong == (calibration.decision != calibration.right)[mine & here].sum()
        assert cell.wrong == (calibration.decision != calibration.right)[mine].sum()
        assert cell.bound <= 0.1
    assert f"answers {promise.answered:,} of 1,000" in promise.sentence
    assert "10 %" in promise.sentence


@pytest.mark.parametrize("per", ["decision", "answer", "all"])
def test_each_kind_of_promise_is_kept_by_fresh_rows_as_often_as_it_says(per: str) -> None:
    """200 calibrations, each tried on 40,000 fresh rows; what is promised of, differs."""
    asked, broken, certified = Guard(0.1, 0.1, "teacher", per), 0, 0  # pyright: ignore[reportArgumentType] one of the three
    fresh = rows(40_000, 999)
    wrong = fresh.decision != fresh.right
    for seed in range(200):
        promise = asked.fit(rows(500, 2 * seed), rows(500, 2 * seed + 1), NAMES)
        if not promise.certified:
            continue
        certified += 1
        here = answered(promise, fresh)
        cell = {"decision": fresh.right, "answer": fresh.decision, "all": np.zeros_like(fresh.right)}[per]
        broken += any(wrong[here & (cell == c)].mean() > 0.1 for c in np.unique(cell[here]))
    assert certified > 150
    assert broken / 200 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 200)


def test_where_one_decision_is_rare_its_own_threshold_lets_it_be_certified() -> None:
    """One threshold for both would have to be as strict with a rare yes as with a no that hides one."""
    valid, calibration = rows(4000, 5, prior=0.05), rows(4000, 6, prior=0.05)
    promise = guard(epsilon=0.3).fit(valid, calibration, NAMES)
    assert promise.certified
    no, yes = promise.limits
    assert no > yes + 0.1


def test_too_few_rows_of_a_decision_say_how_many_it_takes() -> None:
    few = rows(400, 1)
    keep = (few.right == 0) | (np.cumsum(few.right == 1) <= 3)
    few = Rows(few.confidence[keep], few.probability[keep], few.decision[keep], few.right[keep])
    promise = guard().fit(rows(400, 0), few, NAMES)
    assert promise.state == "too few rows"
    assert promise.thresholds == (None, None)
    assert not answered(promise, few).any()
    assert "teacher decides 'yes' there are 3 calibration rows, and it takes at least 45 without an error" in promise.sentence


def test_a_class_that_is_missing_from_calibration_is_said_to_be() -> None:
    some = rows(400, 1)
    none = Rows(some.confidence, some.probability, some.decision, np.zeros_like(some.right))
    promise = guard(target="labels").fit(rows(400, 0), none, NAMES)
    assert promise.state == "too few rows"
    assert "the label is 'yes' there are 0 calibration rows" in promise.sentence


def test_no_calibration_row_at_all_is_a_finding_too() -> None:
    nobody = Rows(np.zeros(0, np.float32), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    for per in ("decision", "answer", "all"):
        promise = guard(per=per).fit(nobody, nobody, NAMES)  # pyright: ignore[reportArgumentType] one of the three
        assert promise.state == "too few rows"
        assert "0 calibration rows" in promise.sentence


def test_a_teacher_that_is_never_right_is_infeasible_with_the_bound_that_shows_it() -> None:
    valid, calibration = rows(500, 0), rows(500, 1)
    a, b = (Rows(r.confidence, r.probability, r.decision, 1 - r.decision) for r in (valid, calibration))
    promise = guard(target="labels", per="all").fit(a, b, NAMES)
    assert promise.state == "infeasible"
    assert "bounds the rate at 1.000" in promise.sentence
    assert "leave 100 % of such rows to the teacher" in promise.sentence


def test_neither_the_confidence_nor_the_rate_is_rounded_to_what_was_not_asked() -> None:
    promise = guard(epsilon=0.3, delta=1e-6, per="all").fit(rows(500, 0), rows(500, 1), NAMES)
    assert promise.certified
    assert "CERTIFIED at 99.9999 % confidence" in promise.sentence
    assert "at most 0.12345 % at 90 % confidence" in guard(epsilon=0.0012345).fit(rows(50, 0), rows(50, 1), NAMES).sentence


def test_of_an_outcome_that_the_student_never_says_no_number_of_rows_is_promised_to_do() -> None:
    valid, calibration = rows(500, 0), rows(500, 1)
    a, b = (Rows(r.confidence, r.probability, np.zeros_like(r.decision), r.right) for r in (valid, calibration))
    promise = guard().fit(a, b, NAMES)
    assert promise.state == "infeasible"
    yes = promise.cells[1]
    assert (yes.answered, yes.answered_wrong, yes.needed) == (yes.rows, yes.rows, None)
    assert f"{yes.rows} of {yes.rows} answered rows are wrong" in promise.sentence
    assert "would do" not in promise.sentence


def test_a_student_whose_confidence_says_nothing_is_infeasible_by_its_base_rate() -> None:
    valid, calibration = rows(1000, 0, sharpness=1.5), rows(1000, 1, sharpness=1.5)
    rng = np.random.default_rng(0)
    a, b = (Rows(rng.random(1000).astype(np.float32), r.probability, r.decision, r.right) for r in (valid, calibration))
    promise = guard(per="all").fit(a, b, NAMES)
    assert promise.state == "infeasible"
    rate = (calibration.decision != calibration.right).mean()
    assert promise.cells[0].abstains(0.05) == pytest.approx((rate - 0.05) / 0.95)
    assert "any guard would have to leave" in promise.sentence


def test_by_answer_what_cannot_be_certified_is_never_answered_and_the_rest_is() -> None:
    valid, calibration = rows(1000, 0, prior=0.03), rows(1000, 1, prior=0.03)
    promise = guard(per="answer").fit(valid, calibration, NAMES)
    assert promise.certified
    assert promise.thresholds[1] is None
    assert promise.thresholds[0] is not None
    assert "it never answers 'yes'" in promise.sentence
    assert not answered(promise, calibration)[calibration.decision == 1].any()


def test_confidences_that_are_no_numbers_are_refused() -> None:
    bad = rows(100, 1)
    bad.confidence[3] = np.nan
    with pytest.raises(EvidenceError, match="1 of 100 confidences"):
        guard().fit(rows(100, 0), bad, NAMES)


def test_a_promise_reads_back_from_its_json() -> None:
    import json

    promise = guard(epsilon=0.1, per="answer").fit(rows(500, 0), rows(500, 1), NAMES, (0.3, -1.25))
    assert Promise.from_json(json.loads(json.dumps(promise.to_json()))) == promise
    with pytest.raises(EvidenceError, match="not whole"):
        Promise.from_json({"guard": "guard()"})


def test_the_words_read_back() -> None:
    assert repr(guard(0.02)) == 'guard(epsilon=0.02, delta=0.1, target="teacher", per="decision")'
    assert repr(unguarded()) == "unguarded()"
