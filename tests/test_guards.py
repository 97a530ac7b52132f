"""The guard: what it promises of which rows, and what it says where it can promise nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attar.errors import EvidenceError
from attar.guards import Guard, Promise, Rows, guard, unguarded

NAMES = ("no", "yes")
LABELLED = {"valid": 10, "calibration": 10}


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
        guard().check(kind, LABELLED, ())
    guard().check("classification", LABELLED, ())


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
    assert "teacher decides 'yes' there are 3, at least 45 are needed" in promise.sentence


def test_a_class_that_is_missing_from_calibration_is_said_to_be() -> None:
    some = rows(400, 1)
    none = Rows(some.confidence, some.probability, some.decision, np.zeros_like(some.right))
    promise = guard(target="labels").fit(rows(400, 0), none, NAMES)
    assert promise.state == "too few rows"
    assert "the label is 'yes' there are 0, at least 45 are needed" in promise.sentence


def test_no_calibration_row_at_all_is_a_finding_too() -> None:
    nobody = Rows(np.zeros(0, np.float32), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    for per in ("decision", "answer", "all"):
        promise = guard(per=per).fit(nobody, nobody, NAMES)  # pyright: ignore[reportArgumentType] one of the three
        assert promise.state == "too few rows"
        assert "there are 0, at least" in promise.sentence


def test_a_teacher_that_is_never_right_is_infeasible_with_the_bound_that_shows_it() -> None:
    valid, calibration = rows(500, 0), rows(500, 1)
    a, b = (Rows(r.confidence, r.probability, r.decision, 1 - r.decision) for r in (valid, calibration))
    promise = guard(target="labels", per="all").fit(a, b, NAMES)
    assert promise.state == "infeasible"
    assert "answered rows are wrong: up to 100 %" in promise.sentence
    assert "leave 100 % of them to the teacher" in promise.sentence


def test_neither_the_confidence_nor_the_rate_is_rounded_to_what_was_not_asked() -> None:
    promise = guard(epsilon=0.3, delta=1e-6, per="all").fit(rows(500, 0), rows(500, 1), NAMES)
    assert promise.certified
    assert "CERTIFIED at 99.9999 % confidence" in promise.sentence
    assert "CERTIFIED at 90 % confidence: of the rows it answers, the student decides otherwise than the teacher on at most 30.0005 %" in (
        guard(epsilon=0.300005, per="all").fit(rows(500, 0), rows(500, 1), NAMES).sentence
    )


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


# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SEXES = (("sex", "F"), ("sex", "M"))


def parted(count: int, seed: int, *, rare: float = 0.3) -> Rows:
    """Rows of two sexes; of the second, a share `rare` of all, the right answer is a coin where the student is less than 90 % sure."""
    some, rng = rows(count, seed), np.random.default_rng([seed, 1])
    sex = (rng.random(count) < rare).astype(np.int64)
    coin = (sex == 1) & (some.confidence < 0.9)
    right = np.where(coin, rng.integers(0, 2, count), some.right)
    return replace(some, right=right, group=sex[:, None])


def test_in_each_group_the_promise_is_kept_as_often_as_it_says_and_without_being_asked_it_is_not() -> None:
    fresh = parted(40_000, 999)
    assert fresh.group is not None
    wrong, second = fresh.decision != fresh.right, fresh.group[:, 0] == 1
    broken = {True: np.zeros(2, int), False: np.zeros(2, int)}
    certified = 0
    for seed in range(120):
        valid, calibration = parted(1500, 2 * seed), parted(1500, 2 * seed + 1)
        for asked in (True, False):
            promise = guard(0.2, per="all", groups=asked).fit(valid, calibration, NAMES, groups=SEXES if asked else ())
            certified += asked and promise.certified
            if promise.certified:
                here = answered(promise, fresh)
                broken[asked] += [wrong[here & (second == g)].mean() > 0.2 for g in (False, True)]
    assert certified > 90
    allowed = 120 * (0.1 + 3 * math.sqrt(0.1 * 0.9 / 120))
    assert (broken[True] <= allowed).all()
    assert broken[False][1] > allowed


def test_the_cells_of_groups_count_their_own_rows_beside_those_of_decisions() -> None:
    calibration = parted(1500, 1)
    assert calibration.group is not None
    promise = guard(0.3, groups=True).fit(parted(1500, 0), calibration, NAMES, groups=SEXES)
    assert promise.certified
    assert [(cell.of, cell.name) for cell in promise.cells] == [("", "no"), ("", "yes"), *SEXES]
    here, wrong = answered(promise, calibration), calibration.decision != calibration.right
    for code, cell in enumerate(promise.cells[2:]):
        mine = calibration.group[:, 0] == code
        found = (cell.rows, cell.wrong, cell.answered, cell.answered_wrong)
        assert found == (mine.sum(), wrong[mine].sum(), (mine & here).sum(), wrong[mine & here].sum())
        assert cell.bound <= 0.3
    assert "for each decision of the teacher by itself, and in each group by 'sex'" in promise.sentence


def test_a_group_of_three_rows_says_how_many_it_takes() -> None:
    calibration = parted(1500, 1)
    assert calibration.group is not None
    few = np.where(np.cumsum(calibration.group == 1)[:, None] <= 3, calibration.group, 0)
    promise = guard(groups=True).fit(parted(1500, 0), replace(calibration, group=few), NAMES, groups=SEXES)
    assert promise.state == "too few rows"
    assert promise.thresholds == (None, None)
    said = "where 'sex' is 'M' there are 3, at least 45 are needed"
    assert promise.sentence.endswith(said)
    site = np.concatenate([few, few], axis=1)
    site[:, 1] = np.where(site[:, 1] == 1, 5, np.arange(len(site)) % 40 == 0) + 2  # 38 rows of one, 3 of another, none of two more
    both = (*SEXES, *(("site", name) for name in "abcdef"))
    many = guard(groups=True).fit(parted(1500, 0), replace(calibration, group=site), NAMES, groups=both)
    assert many.sentence.endswith("where 'site' is 'c' there are 0, at least 45 are needed; 5 more cells have too few")


def test_a_group_that_validation_rows_lack_is_tested_all_the_same() -> None:
    valid, calibration = parted(1500, 0, rare=0), parted(1500, 1)
    promise = guard(0.3, groups=True).fit(valid, calibration, NAMES, groups=SEXES)
    assert promise.certified
    assert promise.cells[3].rows > 300
    assert calibration.group is not None
    never = np.where(calibration.group[:, 0] == 1, 1 - calibration.decision, calibration.right)
    strict = guard(0.3, groups=True).fit(valid, replace(calibration, right=never), NAMES, groups=SEXES)
    assert not strict.certified
    assert "where 'sex' is 'M'" in strict.sentence


def test_a_group_that_calibration_rows_lack_is_promised_nothing_and_so_nothing_is() -> None:
    promise = guard(0.3, groups=True).fit(parted(1500, 0), parted(1500, 1, rare=0), NAMES, groups=SEXES)
    assert promise.state == "too few rows"
    assert "where 'sex' is 'M' there are 0, at least 7 are needed" in promise.sentence


def test_rows_whose_group_is_unknown_belong_to_none() -> None:
    calibration = parted(1500, 1)
    assert calibration.group is not None
    some = np.where(np.arange(1500)[:, None] < 900, calibration.group, -1)
    promise = guard(0.3, groups=True).fit(parted(1500, 0), replace(calibration, group=some), NAMES, groups=SEXES)
    assert sum(cell.rows for cell in promise.cells if cell.of) == 900
    assert sum(cell.rows for cell in promise.cells if not cell.of) == 1500


def test_groups_need_declared_ones_and_labels_need_rows_that_have_one() -> None:
    with pytest.raises(EvidenceError, match="the data declare no groups") as found:
        guard(groups=True).check("classification", LABELLED, [])
    assert "age_band" in found.value.hint
    guard(groups=True).check("classification", LABELLED, ["sex"])
    with pytest.raises(EvidenceError, match="no row of calibration has a label") as found:
        guard(target="labels").check("classification", {"valid": 9, "calibration": 0}, [])
    assert 'target="teacher"' in found.value.hint
    guard().check("classification", {"valid": 0, "calibration": 0}, [])
    with pytest.raises(EvidenceError, match="groups only all together"):
        guard(per="answer", groups=True)


def test_a_promise_of_groups_reads_back_and_so_does_one_from_before_there_were_any() -> None:
    import json

    promise = guard(0.3, groups=True).fit(parted(500, 0), parted(500, 1), NAMES, groups=SEXES)
    said = json.loads(json.dumps(promise.to_json()))
    assert Promise.from_json(said) == promise
    for cell in said["cells"]:
        del cell["of"]
    assert [cell.of for cell in Promise.from_json(said).cells] == [""] * 4
    assert repr(guard(groups=True)) == 'guard(epsilon=0.05, delta=0.1, target="teacher", per="decision", groups=True)'


def test_groups_that_nobody_asked_for_change_nothing() -> None:
    valid, calibration = parted(1500, 0), parted(1500, 1)
    bare = [replace(r, group=None) for r in (valid, calibration)]
    for per in ("decision", "all"):
        asked = guard(0.2, per=per)  # pyright: ignore[reportArgumentType] one of the three
        assert asked.fit(valid, calibration, NAMES) == asked.fit(bare[0], bare[1], NAMES)


# ── a floor of energy ─────────────────────────────────────────────────────────────────────────────────────────────────


def floored(count: int, seed: int, *, odd: float = 0.1) -> Rows:
    """Rows with an energy; a share `odd` of all has little of it, and there the student is sure and a coin decides."""
    some, rng = rows(count, seed), np.random.default_rng([seed, 2])
    strange = rng.random(count) < odd
    sure = np.where(strange, 1, some.confidence).astype(np.float32)
    p = np.where(some.decision[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None]).astype(np.float64)
    right = np.where(strange, rng.integers(0, 2, count), some.right)
    energy = (rng.normal(size=count) + np.where(strange, 0, 8)).astype(np.float32)
    return Rows(sure, p, some.decision, right, energy=energy)


def answered_with_floor(promise: Promise, r: Rows) -> np.ndarray:
    assert r.energy is not None
    assert promise.floor is not None
    return answered(promise, r) & (r.energy >= np.float32(promise.floor))


@pytest.mark.parametrize("energy", [0.0, 1.01, -0.5, math.nan])
def test_a_share_that_no_floor_can_keep_is_refused(energy: float) -> None:
    with pytest.raises(EvidenceError, match=f"guard\\(energy={energy:g}\\) is not a share above 0 and up to 1"):
        guard(energy=energy)


@pytest.mark.parametrize(("share", "stopped"), [(1.0, 0), (0.99, 5), (0.5, 250), (0.001, 499)])
def test_the_floor_is_the_energy_that_the_share_of_validation_rows_reaches(share: float, stopped: int) -> None:
    valid = floored(500, 0)
    promise = guard(0.3, energy=share).fit(valid, floored(500, 1), NAMES)
    assert valid.energy is not None
    assert promise.floor == np.sort(valid.energy)[stopped]
    assert (valid.energy < np.float32(promise.floor)).sum() == stopped
    assert promise == guard(0.3, energy=share).fit(valid, floored(500, 1), NAMES)


def test_the_floor_does_not_depend_on_calibration_rows() -> None:
    valid = floored(500, 0)
    assert len({guard(energy=0.9).fit(valid, floored(300, seed), NAMES).floor for seed in range(5)}) == 1


def test_rows_below_the_floor_are_never_answered_and_stay_among_the_rows_of_their_cells() -> None:
    calibration = floored(2000, 1)
    promise = guard(0.2, energy=0.85).fit(floored(2000, 0), calibration, NAMES)
    assert promise.certified
    here, wrong = answered_with_floor(promise, calibration), calibration.decision != calibration.right
    assert calibration.energy is not None
    assert promise.floor is not None
    below = calibration.energy < np.float32(promise.floor)
    assert (promise.answered, promise.rows, promise.below) == (here.sum(), 2000, below.sum())
    assert answered(promise, calibration)[below].any()  # whose confidence would do
    for c, cell in enumerate(promise.cells):
        mine = calibration.right == c
        found = (cell.rows, cell.wrong, cell.answered, cell.answered_wrong)
        assert found == (mine.sum(), wrong[mine].sum(), (mine & here).sum(), wrong[mine & here].sum())
        assert cell.bound <= 0.2
    assert promise.sentence.endswith(f"; {below.sum():,} of 2,000 lie below its floor of energy")


@pytest.mark.parametrize("per", ["decision", "answer", "all"])
def test_with_a_floor_the_promise_is_kept_by_fresh_rows_as_often_as_it_says(per: str) -> None:
    """Of the rows that are answered, which are not below the floor; 150 calibrations, each with validation rows of its own."""
    asked = guard(0.1, 0.1, per=per, energy=0.9)  # pyright: ignore[reportArgumentType] one of the three
    fresh, broken, certified = floored(40_000, 999), 0, 0
    wrong = fresh.decision != fresh.right
    cell = {"decision": fresh.right, "answer": fresh.decision, "all": np.zeros_like(fresh.right)}[per]
    for seed in range(150):
        promise = asked.fit(floored(600, 2 * seed), floored(600, 2 * seed + 1), NAMES)
        if promise.certified:
            certified += 1
            here = answered_with_floor(promise, fresh)
            broken += any(wrong[here & (cell == c)].mean() > 0.1 for c in np.unique(cell[here]))
    assert certified > 100
    assert broken / 150 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 150)


def test_what_the_floor_stops_may_be_what_kept_a_guard_from_being_certified() -> None:
    valid, calibration = floored(1000, 0), floored(1000, 1)
    assert not guard(0.1, per="all").fit(valid, calibration, NAMES).certified
    assert guard(0.1, per="all", energy=0.9).fit(valid, calibration, NAMES).certified


def test_a_floor_that_leaves_too_few_rows_is_told_by_the_rows_it_leaves() -> None:
    promise = guard(0.1, per="all", energy=0.01).fit(floored(1000, 0), floored(1000, 1), NAMES)
    assert promise.state == "infeasible"
    assert promise.cells[0].rows == 1000
    assert promise.cells[0].answered < 22
    assert "lie below its floor of energy" in promise.sentence


def test_a_floor_goes_with_groups() -> None:
    valid, calibration = (replace(floored(1500, s), group=parted(1500, s).group) for s in (0, 1))
    promise = guard(0.3, per="all", groups=True, energy=0.95).fit(valid, calibration, NAMES, groups=SEXES)
    assert promise.certified
    here = answered_with_floor(promise, calibration)
    assert calibration.group is not None
    assert [cell.answered for cell in promise.cells[1:]] == [int((here & (calibration.group[:, 0] == g)).sum()) for g in (0, 1)]


def test_energies_that_are_no_numbers_and_no_validation_rows_are_refused() -> None:
    bad = floored(100, 1)
    assert bad.energy is not None
    bad.energy[3] = np.inf
    with pytest.raises(EvidenceError, match="1 of 100 energies of calibration rows"):
        guard(energy=0.9).fit(floored(100, 0), bad, NAMES)
    with pytest.raises(EvidenceError, match="no validation row to set the floor by"):
        guard(energy=0.9).fit(floored(0, 0), floored(100, 1), NAMES)


def test_a_student_whose_energy_says_what_its_confidence_says_is_refused() -> None:
    z = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    odds, asked = z[:, :1], guard(energy=0.9)
    for logits in (np.concatenate([0 * odds, odds], 1), np.concatenate([-odds / 2, odds / 2], 1)):
        with pytest.raises(EvidenceError, match="answers one log-odds, whose energy says no more"):
            asked.check_energy(logits)
    with pytest.raises(EvidenceError, match="answers log-probabilities"):
        asked.check_energy(z - np.log(np.exp(z).sum(1, keepdims=True)))
    for free in (z, z[:, :2], np.zeros((40, 2))):  # the last is a net that begins at 0
        asked.check_energy(free)
    guard().check_energy(np.concatenate([0 * odds, odds], 1))


def test_the_words_of_a_floor_read_back_and_a_promise_from_before_there_were_any() -> None:
    import json

    assert repr(guard(energy=0.99)) == 'guard(epsilon=0.05, delta=0.1, target="teacher", per="decision", energy=0.99)'
    promise = guard(0.3, energy=0.9).fit(floored(500, 0), floored(500, 1), NAMES)
    assert Promise.from_json(json.loads(json.dumps(promise.to_json()))) == promise
    old = {k: v for k, v in promise.to_json().items() if k not in ("floor", "below")}
    assert Promise.from_json(old).floor is None
