"""The time allowed bounds all that follows the teacher, by a clock that is set by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest

from attar.loop import Fit
from attar.searched import Priced, Trial
from attar.verbs.search.storage import Left
from attar.verbs.search.timing import Timing
from attar.verbs.search.worker import Worker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def trial(seconds: float, epochs: int) -> Trial:
    return Trial(0, "student", "mlp()", "kl()", "fit()", {}, "trained", 0.8, Priced(0.1), True, epochs=epochs, seconds=seconds)


@pytest.mark.parametrize("allowed", [10.0, 30.0, 120.0, 600.0])
@pytest.mark.parametrize("export", [0.5, 4.0])
def test_each_phase_that_keeps_its_share_ends_the_search_in_time(allowed: float, export: float) -> None:
    clock = Clock()
    timing = Timing(allowed, clock, 0.0)
    shares = timing.shares(export)
    assert shares.candidates >= 0.4 * allowed - 1e-9
    assert shares.candidates + shares.training + shares.measuring + shares.competitors == pytest.approx(allowed)
    assert f"{allowed:.0f} s after the teacher" in shares.words
    clock.now = 0.1 * allowed  # prices
    assert timing.asking(shares) == pytest.approx(shares.candidates - clock.now)
    clock.now = shares.candidates
    asked, fit = [trial(0.01 * allowed, 5)] * 4, Fit(epochs=1000, seeds=5)
    epochs = timing.epochs(asked, fit, None, 1, 1, shares)
    spent = epochs * 4 * 5 * 0.002 * allowed
    assert shares.training - 4 * 5 * 0.002 * allowed <= spent <= shares.training + 1e-9 or epochs == 1
    clock.now += shares.training + shares.measuring
    assert timing.looking(shares, 2.0) <= max(0.3, shares.competitors / 6) + 1e-9
    clock.now = 2 * allowed
    assert timing.epochs(asked, fit, None, 3, 1, shares) == 3
    assert timing.looking(shares, 2.0) == 0.3


def test_without_a_limit_everything_takes_as_long_as_it_takes() -> None:
    timing = Timing(None, Clock(), 0.0)
    assert timing.epochs([trial(9.0, 1)], Fit(epochs=40), None, 1, 1, None) == 40
    assert timing.looking(None, 2.0) == 2.0


def test_no_candidate_is_asked_for_that_would_not_end_in_time() -> None:
    worker = cast(Any, object.__new__(Worker))
    worker.took, worker.known, worker.limits = {"student": 5.0}, {"student": []}, None

    class Asking:
        arm = "student"

        class ledger:  # noqa: N801 stands for the attribute of a worker
            @staticmethod
            def left() -> Left:
                return Left(None, 4.0, 1, 0)

    assert not worker._open(Asking())
    worker.took = {"student": 3.0}
    assert worker._open(Asking())
