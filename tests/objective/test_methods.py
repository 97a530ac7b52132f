"""A paper is one line: what each method's line is, that it reads back, and that its unit is what its docstring says."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div, log_softmax, mse_loss, softmax

from attar import notation, objective
from attar.objective import Objective, as_objective, ramp
from attar.objective.methods import (
    at,
    decoupled_kd,
    dist_kd,
    distilbert,
    fitnets,
    hinton,
    logit_standardisation,
    rkd,
    simkd,
    sp,
    srrl,
    tinybert,
)
from attar.testing import Example, golden, tapped

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
EVERY = {
    "at": lambda: at(["stage1", "stage2"], ["stage1", "stage3"]),
    "decoupled_kd": lambda: decoupled_kd(),
    "dist_kd": lambda: dist_kd(),
    "distilbert": lambda: distilbert(),
    "fitnets": lambda: fitnets(),
    "hinton": lambda: hinton(temperature=4, weight=0.9),
    "logit_standardisation": lambda: logit_standardisation(),
    "rkd": lambda: rkd(),
    "simkd": lambda: simkd(),
    "sp": lambda: sp(),
    "srrl": lambda: srrl(),
    "tinybert": lambda: tinybert(3, blocks=2),
}


def total(goal: Objective, on: Example, progress: float = 1.0) -> float:
    return float(goal.build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch, progress).total)


@pytest.mark.parametrize("name", EVERY)
def test_a_method_is_an_objective_whose_text_reads_back(name):
    goal = EVERY[name]()
    assert isinstance(goal, Objective)
    assert notation.read(repr(goal), WORDS) == goal


def test_every_method_is_tried_here():
    from attar.objective import methods

    assert set(EVERY) == set(methods.__all__)


def test_a_recipe_writes_a_method_by_its_name():
    goal = notation.read("hinton(temperature=4, weight=0.9)", WORDS)
    assert repr(goal) == "0.9 * kl(temperature=4.0) + 0.1 * labels(smoothing=0.0)"
    warmed = notation.read("fitnets(weight=ramp(100, 0, until=0.5))", WORDS)
    assert "ramp(start=100.0, stop=0.0, until=0.5) * hint" in repr(warmed)


# --- units


def test_hinton_is_the_loss_of_repdistiller():
    on = golden()
    z, t, y = on.student.output, on.teacher.output, on.batch.labels
    assert y is not None
    theirs = 0.9 * kl_div(log_softmax(z / 4, 1), softmax(t / 4, 1), reduction="sum") * 16 / 3 + 0.1 * cross_entropy(z, y)
    assert math.isclose(total(hinton(), on), float(theirs), rel_tol=1e-5)


def test_deit_and_takd_weigh_by_one_over_the_outcomes():
    on = golden()
    z, t, y = on.student.output, on.teacher.output, on.batch.labels
    assert y is not None
    theirs = 0.9 * kl_div(log_softmax(z / 4, 1), softmax(t / 4, 1), reduction="none").mean() * 16 + 0.1 * cross_entropy(z, y)
    ours = 0.9 / 4 * objective.kl(temperature=4) + 0.1 * objective.labels()
    assert math.isclose(total(ours, on), float(theirs), rel_tol=1e-5)


def test_dkd_is_warmed_up_over_twenty_of_two_hundred_and_forty_epochs():
    on, ce = golden(), total(as_objective(objective.labels()), golden())
    assert math.isclose(total(decoupled_kd(), on), ce + 9.524446, rel_tol=1e-4)
    assert math.isclose(total(decoupled_kd(), on, progress=10 / 240), ce + 9.524446 / 2, rel_tol=1e-3)
    assert math.isclose(total(decoupled_kd(), on, progress=0.0), ce, rel_tol=1e-6)


def test_dist_and_standardised_logits_have_their_golden_values():
    on, ce = golden(), total(as_objective(objective.labels()), golden())
    assert math.isclose(total(dist_kd(), on), ce + 2.627388, rel_tol=1e-4)
    assert math.isclose(total(logit_standardisation(), on), 9 * 0.791200 + 0.1 * ce, rel_tol=1e-4)


def test_distilbert_is_five_of_batchmean_two_of_labels_one_of_cosine():
    on = tapped({"hidden": (4, 3)}, {"hidden": (4, 3)})
    z, t, y = on.student.output, on.teacher.output, on.batch.labels
    h, g = on.student.taps["hidden"].reshape(-1, 3), on.teacher.taps["hidden"].reshape(-1, 3)
    assert y is not None
    theirs = 5 * kl_div(log_softmax(z / 2, -1), softmax(t / 2, -1), reduction="batchmean") * 4 + 2 * cross_entropy(z, y)
    theirs = theirs + cosine_embedding_loss(h, g, torch.ones(len(h)), reduction="mean")
    assert math.isclose(total(distilbert(), on), float(theirs), rel_tol=1e-6)


def test_tinyberts_answers_are_a_mean_over_outcomes_less_the_teachers_entropy():
    taps = {"hidden.0": (4, 6), "hidden.1": (4, 6), "attention.1": (2, 4, 4)}
    deep = {"hidden.0": (4, 6), "hidden.2": (4, 6), "attention.2": (2, 4, 4)}
    on = tapped(taps, deep)
    z, t = on.student.output, on.teacher.output
    soft = (-softmax(t, -1) * log_softmax(z, -1)).mean()  # soft_cross_entropy(...).mean() of task_distill.py
    entropy = (-softmax(t, -1) * log_softmax(t, -1)).mean()
    hidden = sum(mse_loss(on.student.taps[a], on.teacher.taps[b]) for a, b in (("hidden.0", "hidden.0"), ("hidden.1", "hidden.2")))
    theirs = hidden + mse_loss(on.student.taps["attention.1"], on.teacher.taps["attention.2"]) + soft - entropy
    assert math.isclose(total(tinybert(2, blocks=1, answers=1 / 4), on), float(theirs), rel_tol=1e-6)


def test_tinyberts_stages_are_ramps():
    goal = tinybert(2, blocks=1, answers=ramp(0, 1))
    assert "ramp(start=0.0, stop=1.0, until=1.0) * kl" in repr(goal)


@pytest.mark.parametrize(("distance", "angle", "names"), [(25, 50, 3), (25, 0, 2), (0, 50, 2), (0, 0, 1)])
def test_a_relation_of_weight_zero_is_left_out(distance, angle, names):
    assert len(rkd(distance=distance, angle=angle).names) == names
