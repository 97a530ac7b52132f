"""Principal components against a singular value decomposition, and their own rules."""

from __future__ import annotations

import numpy as np
import pytest

from attar.errors import EvidenceError
from attar.statistics.components import principal_components

ROWS = np.random.default_rng(0).normal(size=(60, 5)) * [3, 1, 2, 0.1, 0.5] + [1, 2, 3, 4, 5]


def test_components_are_right_singular_vectors_of_the_centred_rows() -> None:
    found = principal_components(ROWS, 3)
    _, singular, right = np.linalg.svd(ROWS - ROWS.mean(0))
    np.testing.assert_allclose(np.abs(found.directions @ right[:3].T), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.explained, (singular**2 / (singular**2).sum())[:3])
    np.testing.assert_allclose(found.mean, ROWS.mean(0))


def test_directions_are_orthonormal_and_their_largest_coordinate_is_positive() -> None:
    directions = principal_components(ROWS, 5).directions
    np.testing.assert_allclose(directions @ directions.T, np.eye(5), atol=1e-12)
    assert all(row[np.abs(row).argmax()] > 0 for row in directions)
    np.testing.assert_allclose(principal_components(2 * ROWS.mean(0) - ROWS, 5).directions, directions, atol=1e-9)  # mirrored rows


def test_all_components_explain_all() -> None:
    assert principal_components(ROWS, 5).explained.sum() == pytest.approx(1)


def test_rows_that_do_not_differ_have_directions_that_explain_nothing() -> None:
    found = principal_components(np.ones((4, 3)), 2)
    assert found.explained.tolist() == [0, 0]
    assert np.isfinite(found.directions).all()


@pytest.mark.parametrize("count", [0, 6])
def test_more_components_than_there_can_be_are_refused(count: int) -> None:
    with pytest.raises(EvidenceError, match="5 at most"):
        principal_components(ROWS, count)
