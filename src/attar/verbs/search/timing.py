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

__all__ = ["SEEDS", "Shares", "Timing", "limits"]

SHARE, STEPS, EPOCHS = 0.25, 1000, 3  # a trial has at most so much of the epochs of a whole training, about so many steps, so many epochs
LEAST, BATCH, BATCHES = 4, 8, 12  # candidates asked at a time, from and to; and batches, each of one architecture, that there should be
TRAINED = 0.2  # of the time that was allowed: the training of finalists
MOST = 0.6  # of it at most for all that comes after the candidates
FINALISTS, FORMS = 4, 6  # that are exported and measured; and what could be put in place without a search
MEASURING, LOOKING = 1.5, 2.0  # seconds of measuring each finalist, each form
GLANCE = 0.3  # seconds of measuring below which a form is not known
EXPORTING = 3.0  # seconds that exporting takes where none was seen
SEEDS = 5  # of a finalist at least


@dataclass(frozen=True)
class Shares:
    """Seconds for each phase after the teacher. measuring: of finalists, their export with it."""

    candidates: float
    training: float
    measuring: float
    competitors: float

    @property
    def words(self) -> str:
        """How the time is divided."""
        whole = self.candidates + self.training + self.measuring + self.competitors
        return (
            f"{whole:.0f} s after the teacher: {self.candidates:.0f} for prices and candidates, {self.training:.0f} for training "
            f"finalists, {self.measuring:.0f} for measuring them, {self.competitors:.0f} for what could be had without a search"
        )


@dataclass(frozen=True)
class Timing:
    """The time that was allowed for all that follows the teacher, in seconds; None for as long as it takes.

    clock: says how much has passed since `begun`.
    """

    allowed: float | None
    clock: Callable[[], float] = time.monotonic
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left of the time allowed."""
        assert self.allowed is not None
        return self.allowed - (self.clock() - self.begun)

    def shares(self, export: float | None = None) -> Shares:
        """How the time is divided. export: seconds that one export takes, where it was seen.

        What follows the candidates has what measuring takes, and a fifth for training; in all not more than three fifths.
        """
        assert self.allowed is not None
        export = EXPORTING if export is None else export
        after = (TRAINED * self.allowed, FINALISTS * (export + MEASURING), 2 * export + FORMS * LOOKING)
        scale = min(1.0, MOST * self.allowed / sum(after))
        training, measuring, competitors = (scale * each for each in after)
        return Shares(self.allowed - training - measuring - competitors, training, measuring, competitors)

    def asking(self, shares: Shares) -> float:
        """Seconds for which candidates may still be asked for."""
        return self.left - (shares.training + shares.measuring + shares.competitors)

    def epochs(self, asked: Sequence[Trial], fit: Fit, there: int | None, least: int, workers: int, shares: Shares | None) -> int:
        """Of a finalist: those of a whole training, or as many as there is time for; those that finalists have had already, where there
        is not time for twice as many.

        least: so many it has, whatever is left: those of a trial, of which its choice was made.
        """
        if shares is None or not asked:
            return fit.epochs
        each = sum(trial.seconds / max(1, trial.epochs) for trial in asked) * max(SEEDS, fit.seeds) / workers
        time_left = max(0.0, self.left - shares.measuring - shares.competitors)
        epochs = max(least, min(fit.epochs, int(time_left / max(each, 1e-6))))
        return there if there is not None and epochs < 2 * there else epochs

    def looking(self, shares: Shares | None, usual: float) -> float:
        """Seconds of measuring for each form that could be had without a search: as usual, or fewer where the time runs out."""
        if shares is None:
            return usual
        making = shares.competitors * (1 - FORMS * LOOKING / max(shares.competitors, FORMS * LOOKING))
        return max(GLANCE, min(usual, (self.left - making) / FORMS))


def limits(spaces: Spaces, rows: int, trials: int | None) -> Limits:
    """How far candidates go, but for time. rows: to learn from. trials: of each arm."""
    fit = spaces.design(spaces.middle()).fit
    enough = math.ceil(STEPS / math.ceil(rows / fit.rows_a_step(rows)))
    epochs = min(math.ceil(SHARE * fit.epochs), max(EPOCHS, enough))
    batch = BATCH if trials is None else min(trials, max(LEAST, min(BATCH, trials // BATCHES)))
    return Limits(trials, None, batch, epochs)
