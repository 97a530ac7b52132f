"""Importances: the argument that decides has the largest share, too few trials have none, conditional holes do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attar.searched import Trial
from attar.testing.searches import small_search
from attar.verbs.search.importances import FEWEST, importances

pytest.importorskip("optuna")


def trials(count: int, better: int = 1) -> list[Trial]:
    """Scores that width alone decides; lr does nothing, and momentum is there for half of the trials."""
    random, first = np.random.default_rng(0), small_search(1).trials[0]
    found = []
    for number in range(count):
        width = int(np.exp(random.uniform(0, 5)))
        point = {"width": width, "lr": float(random.uniform()), "kind": str(random.integers(2))}
        point |= {"momentum": float(random.uniform())} if point["kind"] == "1" else {}
        score = better * (math.log(width) + float(random.normal(0, 0.1)))
        found.append(replace(first, number=number, arm="student", state="trained", point=point, score=score))
    return found


@pytest.mark.parametrize("better", [1, -1])
def test_what_decides_has_the_largest_share_and_shares_add_up(better: int) -> None:
    found = importances(trials(120, better), better, log={"width"}, draws=5)
    assert next(iter(found)) == "width" and {*found} == {"width", "lr", "kind", "momentum"}
    assert sum(f.value or 0 for f in found.values()) == pytest.approx(1)
    width = found["width"]
    assert width.low is not None and width.high is not None and width.value is not None
    assert 0.5 < width.low <= width.value <= width.high <= 1
    assert width.n == 120 and "PED-ANOVA" in width.how


def test_of_too_few_trials_or_of_one_value_nothing_is_said() -> None:
    enough = trials(FEWEST)
    assert importances(enough, 1, draws=2)
    assert not importances(enough[:-1], 1)
    assert not importances([*enough[:-1], replace(enough[-1], state="failed", score=None)], 1)
    assert not importances([*enough[:-1], replace(enough[-1], score=math.nan)], 1)
    assert not importances([replace(t, point={"width": 3}) for t in enough], 1)


def test_the_same_trials_have_the_same_importances() -> None:
    some = trials(60)
    assert importances(some, 1, draws=3) == importances(some, 1, draws=3)
