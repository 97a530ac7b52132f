"""What terms with a temperature have in common: the number or tensor itself, and the power of it that keeps their unit."""

from __future__ import annotations

import abc
import math

from torch import Tensor

from attar.errors import ObjectiveError
from attar.objective.algebra import Term
from attar.objective.weights import Knob

__all__ = ["Tempered"]


class Tempered(Term):
    """A term that divides logits by a temperature T > 0, and multiplies what it finds by T^order.

    temperature: a number or a 0-dimensional tensor, which becomes a buffer that a cohort replaces, one value for each student.
    order: such that far above the logits the gradient no longer depends on T: 2 for what is quadratic near equality, 1 for what is
        linear, 0 for what does not see scale. The self-test at the start of a run tries it.
    """

    order: int = 2

    def __init__(self, word: str, temperature: float | Tensor) -> None:
        super().__init__()
        self._word = word
        if isinstance(temperature, Tensor):
            self._temperature: float | Knob = Knob(temperature)
        elif 0 < temperature < math.inf:
            self._temperature = float(temperature)
        else:
            raise ObjectiveError(f"{word}(temperature={temperature:g})", hint="0 < temperature < ∞; 1 leaves logits as they are")

    @property
    def temperature(self) -> float | Tensor:
        """T: the number, or the tensor behind the buffer `_temperature.value`."""
        return self._temperature.value if isinstance(self._temperature, Knob) else self._temperature

    @abc.abstractmethod
    def at(self, temperature: float | Tensor) -> Tempered:
        """The same comparison at another temperature."""

    def in_unit(self, measured: Tensor) -> Tensor:
        """What was measured of tempered probabilities, times T^order."""
        temperature = self.temperature
        if isinstance(temperature, float) and temperature == 1.0:
            return measured
        return measured * temperature**self.order if self.order else measured
