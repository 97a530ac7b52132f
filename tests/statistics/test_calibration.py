"""Calibration against brute force, scipy and probabilities known to be right."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from attar.statistics import calibration, metrics


def test_the_temperature_is_the_one_that_minimises_the_log_loss() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 5)) * 3
    labels = np.array([rng.choice(5, p=p) for p in np.exp(metrics.log_softmax(logits / 2.5))])
    weight = rng.random(2000)

    epsilon = 1 / (weight.sum() ** 2 / (weight**2).sum() + 2)

    def loss(t: float) -> float:
        each = [metrics.log_loss_rows(logits / t, np.full(len(labels), k)) for k in range(5)]
        others = [np.mean([each[k][i] for k in range(5) if k != y]) for i, y in enumerate(labels)]
        own = metrics.log_loss_rows(logits / t, labels)
        return float(np.average((1 - epsilon) * own + epsilon * np.array(others), weights=weight))

    theirs: Any = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded")
    assert calibration.fit_temperature(logits, labels, weight) == pytest.approx(theirs.x, rel=1e-4)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.08)


def test_the_temperature_scales_with_the_logits() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(500, 3)), rng.integers(0, 3, 500)
    labels[:250] = logits[:250].argmax(-1)
    assert calibration.fit_temperature(logits * 4, labels) == pytest.approx(4 * calibration.fit_temperature(logits, labels), rel=1e-6)


def test_the_temperature_of_useless_logits_is_bounded() -> None:
    assert calibration.fit_temperature([[3.0, 0.0], [0.0, 3.0]], [1, 0]) == calibration.HOTTEST
    assert calibration.fit_temperature([[1e-9, 0.0], [0.0, 1e-9]], [0, 1]) == calibration.COLDEST


@pytest.mark.parametrize(("rows", "classes"), [(2, 2), (25, 2), (25, 10), (1000, 3)])
def test_rows_without_an_error_make_a_model_as_sure_as_their_number_allows(rows: int, classes: int) -> None:
    labels = np.arange(rows) % classes
    logits = 7.0 * np.eye(classes)[labels]
    sure = np.exp(metrics.log_softmax(logits / calibration.fit_temperature(logits, labels))).max(-1)
    np.testing.assert_allclose(sure, (rows + 1) / (rows + 2), rtol=1e-8)


def test_a_wider_gap_is_never_a_colder_temperature() -> None:
    labels = np.arange(20) % 2
    found = [calibration.fit_temperature(gap * np.eye(2)[labels], labels) for gap in (7.0, 99.9, 100.1, 150.0, 600.0, 1e12)]
    assert found == sorted(found)
    assert found[2] == pytest.approx(found[0] * 100.1 / 7, rel=1e-6)
    assert found[-1] == calibration.HOTTEST


def test_a_label_called_impossible_is_one_at_the_floor() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, -np.inf]])
    floored = np.where(np.isneginf(logits), 1.0 + metrics.LOG_FLOOR, logits)
    labels = np.array([0, 1, 1])
    assert calibration.fit_temperature(logits, labels) == pytest.approx(calibration.fit_temperature(floored, labels), rel=1e-9)


def test_copies_by_weight_are_rows_and_a_common_factor_is_none() -> None:
    logits, labels = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), np.array([0, 1, 0])
    plain = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(logits, labels, [7.0, 7.0, 7.0]) == pytest.approx(plain, rel=1e-9)
    assert calibration.fit_temperature(logits, labels, [1.0, 1.0, 1e-12]) == pytest.approx(
        calibration.fit_temperature(logits[:2], labels[:2]), rel=1e-6
    )


def test_no_row_has_no_calibration_error() -> None:
    assert np.isnan(calibration.calibration_error([0.7, 0.9], [True, False], np.zeros(2)))


def test_rows_that_weigh_nothing_ask_for_no_temperature() -> None:
    assert calibration.fit_temperature([[2.0, 0.0], [0.0, 2.0]], [0, 1], [0.0, 0.0]) == 1.0


def test_unknown_labels_and_impossible_outcomes_do_not_disturb_the_temperature() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(300, 3)), rng.integers(0, 2, 300)
    labels[:150] = logits[:150, :2].argmax(-1)
    logits[:, 2] = -np.inf
    two = calibration.fit_temperature(logits[:, :2], labels)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(two, rel=1e-6)
    more = np.concatenate([logits, rng.normal(size=(100, 3)) * 50])
    assert calibration.fit_temperature(more, np.append(labels, np.full(100, -100))) == pytest.approx(two, rel=1e-6)
    assert calibration.fit_temperature(logits, np.full(300, -100)) == 1.0


@pytest.mark.parametrize("by", ["width", "mass"])
def test_the_calibration_error_is_that_of_a_loop_over_bins(by: calibration.Bins) -> None:
    rng = np.random.default_rng(4)
    said = rng.random(1000) ** 2
    came = rng.random(1000) < said**1.5
    edges = np.linspace(0, 1, 16) if by == "width" else np.quantile(said, np.linspace(0, 1, 16))
    error = 0.0
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (said > low) & (said <= high) | ((i == 0) & (said == low))
        if inside.any():
            error += inside.mean() * abs(said[inside].mean() - came[inside].mean())
    assert float(calibration.calibration_error(said, came, by=by)) == pytest.approx(error)
    bins = calibration.reliability(said, came, by=by)
    assert float((bins.count * np.abs(bins.said - bins.came)).sum() / 1000) == pytest.approx(error)
    counts = rng.multinomial(1000, np.full(1000, 1e-3), size=3)
    many = calibration.calibration_error(said, came, counts, by=by)
    assert many.shape == (3,)
    assert many[1] == pytest.approx(float(calibration.calibration_error(said, came, counts[1], by=by)))


def test_true_probabilities_are_calibrated_but_for_noise() -> None:
    rng = np.random.default_rng(5)
    said = rng.random(200_000)
    assert float(calibration.calibration_error(said, rng.random(200_000) < said)) < 0.005


def test_equal_probabilities_are_one_bin_of_equal_mass() -> None:
    bins = calibration.reliability(np.full(10, 0.3), np.arange(10) < 5, by="mass")
    assert bins.said.tolist() == pytest.approx([0.3])
    assert bins.came.tolist() == [0.5]
