"""How far a search goes: its trials, its epochs, and how the time that was allowed is divided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attar.loop import Fit
from attar.searched import Trial
from attar.verbs.search.design import Spaces
from attar.verbs.search.worker import Limits

__all__ = ["SEEDS", "Timing", "limits"]

SHARE, STEPS, EPOCHS = 0.25, 1000, 3  # a trial has at most so much of the epochs of a whole training, about so many steps, so many epochs
LEAST, BATCH, BATCHES = 4, 8, 12  # candidates asked at a time, from and to; and batches, each of one architecture, that there should be
SEARCHING = 0.65  # of the time that was allowed: the rest is the finalists'
SEEDS = 5  # of a finalist at least


@dataclass(frozen=True)
class Timing:
    """The time that was allowed, in seconds; None for as long as it takes. clock: which says how much has passed since `begun`."""

    allowed: float | None
    clock: Callable[[], float] = time.monotonic
    begun: float = field(default_factory=time.monotonic)

    def left(self, share: float = 1.0) -> float:
        """Seconds that are left of a share of the time allowed."""
        assert self.allowed is not None
        return max(1.0, share * self.allowed - (self.clock() - self.begun))

    def epochs(self, asked: Sequence[Trial], fit: Fit, there: int | None, least: int, workers: int) -> int:
        """Of a finalist: those of a whole training, or as many as there is time for; those that finalists have had already, where there
        is not time for twice as many.
        """
        if self.allowed is None or not asked:
            return fit.epochs
        each = sum(trial.seconds / max(1, trial.epochs) for trial in asked) * max(SEEDS, fit.seeds) / workers
        epochs = max(least, min(fit.epochs, int(self.left() / max(each, 1e-6))))
        return there if there is not None and epochs < 2 * there else epochs


def limits(timing: Timing, spaces: Spaces, rows: int, trials: int | None) -> Limits:
    """How far candidates go. rows: to learn from. trials: of each arm."""
    fit = spaces.design(spaces.middle()).fit
    enough = math.ceil(STEPS / math.ceil(rows / fit.rows_a_step(rows)))
    epochs = min(math.ceil(SHARE * fit.epochs), max(EPOCHS, enough))
    batch = BATCH if trials is None else min(trials, max(LEAST, min(BATCH, trials // BATCHES)))
    return Limits(trials, None if timing.allowed is None else timing.left(SEARCHING), batch, epochs)
