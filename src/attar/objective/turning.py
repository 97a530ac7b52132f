"""An objective whose temperatures and weights are tensors, so that a cohort gives each of its students others."""

from __future__ import annotations

import torch
from torch import Tensor

from attar.objective.algebra import Objective, Term
from attar.objective.tempered import Tempered
from attar.objective.weights import Dial, Knob, Number

__all__ = ["knobs", "turned"]


def turned(objective: Objective) -> Objective:
    """The same objective, in which each plain weight and each temperature is a tensor; it has its parts anew, and no projectors.

    A weight that follows the training stays as it is. Values are those of float32.

    >>> from attar.objective import blend, kl, labels
    >>> turned(blend(kl(temperature=3), labels(), weight=0.75))
    0.75 * kl(temperature=3.0) + 0.25 * labels(smoothing=0.0)
    """
    parts = []
    for weight, term in zip(objective.weights, objective.terms, strict=True):
        assert isinstance(term, Term)
        if isinstance(weight, Number):
            weight = Dial(Knob(torch.tensor(weight.value)))
        if isinstance(term, Tempered) and not isinstance(term.temperature, Tensor):
            term = term.at(torch.tensor(term.temperature))
        parts.append((weight, term))
    return Objective(parts)


def knobs(objective: Objective) -> list[Knob]:
    """The tensors that may differ from student to student."""
    return [part for part in objective.modules() if isinstance(part, Knob)]
