"""Fronts and hypervolumes against double loops, a count of cells, and Optuna."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attar.errors import EvidenceError
from attar.statistics.fronts import front, hypervolume


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_is_what_no_other_point_beats(objectives: int) -> None:
    points = np.random.default_rng(objectives).integers(0, 6, (40, objectives)).tolist()
    slow = [
        not any(all(a <= b for a, b in zip(other, one, strict=True)) and other != one for other in points)
        for one in points
    ]  # fmt: skip
    assert front(points).tolist() == slow


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_hypervolume_of_whole_numbers_is_a_count_of_cells(objectives: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, 9, (12, objectives))
    reference = (7,) * objectives
    cells = sum(
        bool((points <= np.array(cell)).all(1).any())
        for cell in itertools.product(range(7), repeat=objectives)
    )  # fmt: skip
    assert hypervolume(points, reference) == cells


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_hypervolume_is_that_of_optuna(objectives: int) -> None:
    theirs = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    points = np.random.default_rng(5).normal(size=(60, objectives))
    reference = np.full(objectives, 1.5)
    inside = points[(points < reference).all(1)]
    assert hypervolume(points, reference) == pytest.approx(theirs(inside, reference), rel=1e-12)


def test_points_beyond_the_reference_and_points_that_are_beaten_add_nothing() -> None:
    assert hypervolume([[1.0, 1.0]], [2.0, 2.0]) == hypervolume([[1.0, 1.0], [1.5, 1.5], [0.0, 2.0], [5.0, 0.0]], [2.0, 2.0]) == 1.0
    assert hypervolume([[3.0, 0.0]], [2.0, 2.0]) == 0.0


def test_what_is_no_point_is_refused() -> None:
    with pytest.raises(EvidenceError, match="shape"):
        hypervolume([1.0, 2.0], [3.0])
    with pytest.raises(EvidenceError, match="finite"):
        front([[np.nan, 1.0]])
    with pytest.raises(EvidenceError, match="reference"):
        hypervolume([[1.0, 2.0]], [3.0])
    with pytest.raises(EvidenceError, match="4 objectives"):
        hypervolume(np.ones((2, 4)), np.ones(4))
