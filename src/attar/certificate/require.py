"""What must be so for a run to end well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from attar.errors import EvidenceError
from attar.notation import say

__all__ = ["MARGIN", "MARGIN_SHARE", "Require", "Requirement", "require"]

MARGIN = 0.005  # of a share (accuracy, AUROC, R² …); half a point is what the owners of such models call the same
MARGIN_SHARE = 0.01  # of the teacher's own figure, for an error that has a unit (RMSE, MAE)


@dataclass(frozen=True)
class Requirement:
    """One thing that was asked for with `require` or `budget`, and whether it is so."""

    what: str
    answer: Literal["met", "not met", "insufficient evidence"]
    sentence: str


@dataclass(frozen=True)
class Require:
    """What must be so for a run to end well. See `require`."""

    margin: float | None = None
    min_agreement: float | None = None
    helped: bool = False

    def __repr__(self) -> str:
        return say("require", margin=self.margin, min_agreement=self.min_agreement, helped=True if self.helped else None)


def require(margin: float | None = None, min_agreement: float | None = None, helped: bool = False) -> Require:
    """What must be shown, at 95 % confidence, or the run ends with exit code 3.

    margin: the student's primary metric is at most so much worse than the teacher's, in the metric's unit. None is 0.005; of an error
        with a unit (rmse, mae) 1 % of the teacher's.
    min_agreement: student and teacher decide alike on at least this share of rows, 0..1; None asks for nothing.
    helped: the procedure beats every control that was trained.

    >>> require(margin=0.005)
    require(margin=0.005)
    """
    if margin is not None and not (margin > 0 and math.isfinite(margin)):
        raise EvidenceError(f"margin={margin:g}: no number of rows can show that two models differ by nothing", hint="margin=0.005")
    if min_agreement is not None and not 0 < min_agreement < 1:
        raise EvidenceError(f"min_agreement={min_agreement:g} is not between 0 and 1", hint="min_agreement=0.95")
    return Require(margin, min_agreement, helped)
