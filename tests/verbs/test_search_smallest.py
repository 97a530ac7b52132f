"""How small it can be, what binds, and who is recommended: from records that are made up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attar.certificate.figures import Figure
from attar.certificate.plain import plain, whole
from attar.searched import Competitor, Finalist, Priced, SizeCurve, Trial
from attar.verbs.search.advice import advice, chance_of
from attar.verbs.search.competitors import LABELS
from attar.verbs.search.smallest import Smallest, binding, smallest

MS = 1e-4  # of a parameter


def trial(number: int, size: int, score: float | None, *, family: str = "mlp", bound: float = math.inf, **more: object) -> Trial:
    price = Priced(latency_ms=0.01 + MS * size, size_bytes=4 * size, parameters=size)
    state = "trained" if score is not None else "dear"
    within = (price.latency_ms or 0.0) <= bound
    text = f"{family}(width={size})"
    return replace(Trial(number, "student", text, "kl()", "fit()", {}, state, score, price, within), **more)  # type: ignore[arg-type]


def study(*, floor: float = 0.05, bound: float = math.inf, seed: int = 0, better: int = 1) -> list[Trial]:
    """40 mlps of 30 to 3,000 parameters; those that break the bound were not trained."""
    rng = np.random.default_rng(seed)
    found = []
    for number, size in enumerate(np.geomspace(30, 3000, 40).round().astype(int).tolist()):
        error = (floor + 0.3 * (30 / size) ** 0.7) * (1 + abs(rng.normal()) * 0.02)
        score = 1 - error if better > 0 else error
        found.append(trial(number, size, score if 0.01 + MS * size <= bound else None, bound=bound))
    return found


def told(trials: list[Trial], *, teacher: float = 0.94, margin: float = 0.02, better: int = 1) -> Smallest:
    return smallest(trials, metric="accuracy" if better > 0 else "rmse", better=better, teacher=teacher, margin=margin)


def test_the_smallest_student_is_where_the_error_meets_the_margin() -> None:
    found = told(study())
    assert found.record is not None and found.record.smallest is not None
    # 0.05 + 0.3 (30 / n)^0.7 = 0.06 + 0.02
    exact = 30 / ((0.08 - 0.05) / 0.3) ** (1 / 0.7)
    assert exact * 0.8 < found.record.smallest < exact * 2
    assert found.record.goal == pytest.approx(0.08)
    assert found.record.reach == (15, 6000)
    assert "has about" in found.words and "accuracy 0.9200 or more" in found.words
    below = [chance for n, chance in found.record.chance if n < found.record.smallest]
    assert below and max(below) < 0.91 and found.record.chance[-1][1] > 0.9
    assert whole(SizeCurve, plain(found.record)) == found.record


def test_a_loss_is_an_error_as_it_is() -> None:
    plus, minus = told(study()), told(study(better=-1), teacher=0.06, better=-1)
    assert plus.record is not None and minus.record is not None
    assert minus.record.smallest == pytest.approx(plus.record.smallest, rel=0.01)
    assert "RMSE 0.0800 or less" in minus.words


def test_trials_on_labels_alone_and_those_that_did_not_finish_are_no_points() -> None:
    trials = study()
    others = [
        replace(trial(90, 100, 0.99), arm="labels"),
        replace(trial(91, 100, 0.99), state="stopped"),
        replace(trial(92, 100, None), state="failed"),
        replace(trial(93, 100, 0.99), price=Priced(0.1)),
    ]
    assert told([*trials, *others]).record == told(trials).record


def test_families_are_not_mixed_and_the_cheaper_is_told() -> None:
    nets = study()
    trees = [
        replace(t, number=100 + t.number, student="trees()", price=replace(t.price, parameters=(t.price.parameters or 0) * 50))
        for t in study(seed=1)
    ]
    dear = [replace(t, price=replace(t.price, latency_ms=9.0)) for t in trees]
    cheap = [replace(t, price=replace(t.price, latency_ms=0.001)) for t in trees]
    assert told([*nets, *dear]).family == "mlp"
    assert told([*nets, *cheap]).family == "trees"


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([], "no trial was trained"),
        (study()[:3], "3 sizes of students tried, and a curve needs 4"),
        ([trial(n, 100 * 2**n, 0.9 - 0.05 * n) for n in range(5)], "error rises with size"),
    ],
)
def test_without_a_curve_it_says_why(trials: list[Trial], why: str) -> None:
    found = told(trials)
    assert found.record is None and why in found.words
    assert why in binding(found, trials, {}, metric="accuracy", better=1, teacher=0.9).words


def test_without_a_teachers_score_there_is_no_goal() -> None:
    assert smallest(study(), metric="accuracy", better=1, teacher=None, margin=0.01).record is None


def test_latency_binds_where_the_smallest_that_would_do_is_too_slow() -> None:
    trials = study(bound=0.06)  # 500 parameters, which are trained
    found = told(trials, margin=0.024)
    assert found.record is not None and found.record.smallest is not None and 500 < found.record.smallest < 1000
    held = binding(found, trials, {"latency_ms": 0.06, "size_mb": 1.0}, metric="accuracy", better=1, teacher=0.94)
    enough = min(t.price.latency_ms or 0 for t in trials if (t.price.parameters or 0) >= found.record.smallest)
    assert (held.name, held.needed) == ("latency_ms", enough)
    assert "What binds is latency" in held.words and f"{enough:.3g} ms" in held.words and "0.06 ms that the budget asks" in held.words


def test_the_bound_that_is_broken_most_binds_and_the_others_are_named() -> None:
    trials = study(bound=0.06)
    held = binding(told(trials, margin=0.024), trials, {"latency_ms": 0.06, "parameters": 100}, metric="accuracy", better=1, teacher=0.94)
    assert held.name == "parameters" and "latency would be over, too" in held.words


def test_where_only_larger_ones_than_were_trained_may_do_their_price_binds() -> None:
    trials = study(bound=0.06)
    found = told(trials)
    assert found.record is not None and found.record.smallest is None
    held = binding(found, trials, {"latency_ms": 0.06}, metric="accuracy", better=1, teacher=0.94)
    assert held.name == "latency_ms" and "a larger one may" in held.words
    without = [t for t in trials if t.within]
    assert binding(found, without, {"latency_ms": 0.06}, metric="accuracy", better=1, teacher=0.94).name == "margin"


def test_rows_a_second_bind_from_below() -> None:
    trials = [replace(t, price=replace(t.price, rows_per_second=1e6 / (t.price.parameters or 1))) for t in study()]
    found = told(trials)
    held = binding(found, trials, {"rows_per_second": 1e5}, metric="accuracy", better=1, teacher=0.94)
    assert held.name == "rows_per_second" and held.needed is not None and held.needed < 1e5
    assert "rows a second" in held.words and "the fastest such candidate" in held.words


def test_nothing_binds_where_candidates_of_that_size_keep_the_budget() -> None:
    held = binding(told(study()), study(), {"latency_ms": 9.0}, metric="accuracy", better=1, teacher=0.94)
    assert held.name == "" and "Nothing binds" in held.words


def test_the_space_binds_where_no_candidate_is_so_large() -> None:
    trials = [t for t in study(floor=0.02) if (t.price.parameters or 0) < 500]
    found = told(trials, teacher=0.96, margin=0.02)
    assert found.record is not None and found.record.smallest is not None and found.record.smallest > 500
    held = binding(found, trials, {}, metric="accuracy", better=1, teacher=0.96)
    assert held.name == "space" and held.needed == found.record.smallest


def test_the_margin_binds_where_the_curve_levels_out_above_it() -> None:
    trials = study(floor=0.1)
    found = told(trials)
    assert found.record is not None and found.record.smallest is None and "No mlp up to 6,000 parameters" in found.words
    held = binding(found, trials, {}, metric="accuracy", better=1, teacher=0.94)
    assert held.name == "margin" and "levels out" in held.words
    assert held.needed == pytest.approx(0.1 + 0.3 * 0.01**0.7 - 0.06, rel=0.15)
    met = told(trials, margin=(held.needed or 0) * 1.01)
    assert met.record is not None and met.record.smallest is not None


# ----------------------------------------------------------------------------------------------------------------------------- advice


def figure(value: float, half: float = 0.002) -> Figure:
    return Figure(value, value - half, value + half)


TEACHER = Competitor("teacher", figure(0.94), Priced(0.5), False, first=0.94)


def finalist(score: float, latency: float = 0.02, *, half: float = 0.002) -> Finalist:
    gap = figure(score - 0.94, half)
    return Finalist(7, "mlp(width=9)", "kl()", "fit()", (score,), figure(score), Priced(latency), True, score, difference=gap)


def rival(name: str, score: float, latency: float, *, within: bool = True) -> Competitor:
    return Competitor(name, figure(score), Priced(latency), within, difference=figure(score - 0.94))


def asked(winner: Finalist | None, *competitors: Competitor, teacher: Competitor = TEACHER, known: Smallest | None = None):
    trials = study(bound=0.06)
    return advice(
        winner, ("Trial 7 is recommended.",), teacher, competitors, told=known, trials=trials, bounds={"latency_ms": 0.06},
        metric="accuracy", better=1, margin=0.01,
    )  # fmt: skip


def test_a_student_without_a_rival_is_recommended() -> None:
    found = asked(finalist(0.938), rival("teacher in int8", 0.94, 0.3, within=False), rival("half", 0.7, 0.01))
    assert (found.winner, found.instead) == (7, "")
    assert found.sentences == ("Trial 7 is recommended.",)


def test_a_rival_that_costs_no_more_and_is_as_good_wins() -> None:
    found = asked(finalist(0.938), rival("teacher in int8", 0.9385, 0.02), rival("better but dearer", 0.94, 0.05))
    assert found.instead == "teacher in int8"
    assert found.sentences[0].startswith("Put in place: the teacher in int8.")
    assert "0.9385" in found.sentences[0] and "costs no more" in found.sentences[0]


def test_a_rival_on_labels_alone_is_called_a_student() -> None:
    found = asked(finalist(0.938), rival(LABELS, 0.9385, 0.02))
    assert found.instead == LABELS
    assert found.sentences[0].startswith("Put in place: the student on labels alone. It keeps the budget and answers at least as well as")
    assert found.sentences[0].endswith("It costs no more and needs no teacher.")


def test_a_cheaper_rival_that_meets_the_margin_wins() -> None:
    found = asked(finalist(0.938), rival("part", 0.936, 0.01))
    assert found.instead == "part" and "costs 2 times less" in found.sentences[0]
    assert asked(finalist(0.938), rival("part", 0.93, 0.01)).instead == ""  # at the margin's end: 50 %, not 90 %


def test_a_dearer_rival_within_the_budget_that_is_as_good_is_said_with_its_price() -> None:
    found = asked(finalist(0.938), teacher=replace(TEACHER, within=True, price=Priced(0.05)))
    assert found.instead == "teacher" and found.winner == 7
    assert "costs 2.5 times as much" in found.sentences[0] and not found.sentences[0].startswith("Put in place")


def test_where_less_is_better_so_it_is_here() -> None:
    ours = Finalist(7, "mlp()", "mse()", "fit()", (1.0,), figure(1.0), Priced(0.02), True, 1.0, difference=figure(-0.05))
    theirs = replace(TEACHER, score=figure(0.95), first=0.95)
    rivals = (Competitor("good", figure(0.96), Priced(0.02), True, difference=figure(-0.01)),)
    worse = (Competitor("bad", figure(1.1), Priced(0.02), True, difference=figure(-0.15)),)
    for given, wins in ((rivals, "good"), (worse, "")):
        found = advice(ours, (), theirs, given, told=None, trials=(), bounds={}, metric="rmse", better=-1, margin=0.1)
        assert found.instead == wins


def test_where_no_student_meets_the_margin_a_rival_that_does_is_named() -> None:
    for winner in (None, finalist(0.90)):
        found = asked(winner, rival("part", 0.939, 0.05))
        assert found.instead == "part" and found.sentences[0].startswith("Put in place: the part.")


def test_what_the_finalists_showed_is_not_contradicted() -> None:
    wide = finalist(0.938, half=0.0128)  # of t over five seeds: one-sided 90 % lies at 0.55 of the two-sided 95 %
    found = advice(
        wide, (), replace(TEACHER, within=True), (), told=None, trials=(), bounds={}, metric="accuracy", better=1, margin=0.01, shown=True,
    )  # fmt: skip
    assert not any("shown to meet" in sentence for sentence in found.sentences)


def test_a_rival_as_good_that_costs_no_more_is_named_where_neither_is_shown_to_meet_the_margin() -> None:
    found = asked(finalist(0.92), rival("teacher, 40 of 200 trees", 0.925, 0.01))
    assert found.instead == "teacher, 40 of 200 trees"
    assert found.sentences[0].startswith("Put in place: the teacher, 40 of 200 trees.")
    assert "Neither is shown to meet the margin" in found.sentences[0]


def test_labels_alone_need_no_teacher_but_a_search() -> None:
    found = asked(finalist(0.938), rival("labels alone", 0.9385, 0.02))
    assert "needs no teacher" in found.sentences[0] and "no search" not in found.sentences[0]


@pytest.mark.parametrize(
    ("winner", "rivals"),
    [
        (None, [rival("part", 0.939, 0.05)]),
        (finalist(0.90), [rival("part", 0.939, 0.05)]),
        (finalist(0.938), [rival("half", 0.9385, 0.02)]),
        (finalist(0.938), [rival("dear", 0.94, 0.05)]),
        (finalist(0.90), []),
    ],
)
def test_without_a_budget_none_is_spoken_of(winner: Finalist | None, rivals: list[Competitor]) -> None:
    for floor in (0.0, 0.1):
        trials = study(floor=floor)
        how: dict[str, Any] = {"metric": "accuracy", "better": 1, "margin": 0.01}
        found = advice(winner, (), TEACHER, rivals, told=told(trials), trials=trials, bounds={}, **how)
        assert found.sentences and not any("budget" in sentence for sentence in found.sentences)


def test_the_price_of_the_nearest_is_its_own_though_another_arm_has_its_number() -> None:
    trials = study()
    known = told(trials)
    assert known.record is not None and known.record.smallest is not None
    how: dict[str, Any] = {"metric": "accuracy", "better": 1, "teacher": 0.94}
    one = binding(known, trials, {"latency_ms": 0.001}, **how)
    others = [replace(t, arm="labels", price=replace(t.price, latency_ms=9.0, parameters=t.price.parameters)) for t in trials]
    assert binding(known, [*trials, *others], {"latency_ms": 0.001}, **how) == one


def test_where_nobody_does_it_is_said_what_binds() -> None:
    known = told(study(bound=0.06))
    found = asked(None, rival("part", 0.9, 0.05), known=known)
    assert found.instead == "" and found.winner is None
    assert known.words in found.sentences and "What binds is latency" in found.sentences[-1]


def test_the_chance_of_meeting_the_margin_is_that_of_a_normal_difference() -> None:
    assert chance_of(figure(-0.01, 0.002), 0.01) == pytest.approx(0.5)
    assert chance_of(Figure(-0.01 + 1.2816 * 0.001, -0.01 + 1.2816e-3 - 1.96e-3, -0.01 + 1.2816e-3 + 1.96e-3), 0.01) == pytest.approx(
        0.9, abs=1e-3
    )
    assert chance_of(Figure(0.0, 0.0, 0.0), 0.01) == 1
    assert chance_of(Figure(-0.02, -0.02, -0.02), 0.01) == 0
    assert chance_of(Figure(0.0), 0.01) is None and chance_of(None, 0.01) is None
