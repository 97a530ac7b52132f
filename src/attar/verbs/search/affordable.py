"""What the students of a space cost, and whether any of them keeps the budget: asked before anything is trained."""

from __future__ import annotations

import random

from attar.errors import RunError
from attar.progress import Listener
from attar.verbs.search.beginning import Begun
from attar.verbs.search.pricing import Prices
from attar.verbs.search.worker import over

__all__ = ["need_some_within", "prices_of"]

DRAWN = 256  # students by which it is seen what the space costs
MEASURABLE = 24  # of them where each has to be exported and measured


def prices_of(begun: Begun, seed: int, listen: Listener) -> Prices:
    """What students of the space will cost, learnt from some of them."""
    chance, spaces = random.Random(seed), begun.spaces
    students = [spaces.design(spaces.drawn(chance)).student for _ in range(DRAWN)]
    how = {"precision": begun.job.deploy, "seed": seed, "listen": listen}
    return Prices.learn(students, begun.data, begun.task, bounds=begun.job.budget, guard=begun.guard, **how)


def need_some_within(begun: Begun, prices: Prices, seed: int) -> None:
    """Raise RunError where none of many students drawn from the space keeps the budget: what the cheapest would cost is said."""
    chance, spaces = random.Random(seed), begun.spaces
    count = DRAWN if all(pricing.trusted for pricing in prices.pricings) else MEASURABLE
    points = [*spaces.priors("student"), *(spaces.drawn(chance) for _ in range(count))]  # the smallest is among the first
    excess: dict[str, dict[str, float]] = {}
    for design in map(spaces.design, points):
        if design.text not in excess:
            excess[design.text] = over(begun.budget, prices.price(design.student))
            if all(value <= 0 for value in excess[design.text].values()):
                return
    text = min(excess, key=lambda text: max(excess[text].values()))
    worst = ", ".join(f"{name} {getattr(begun.budget, name) * (1 + value):.3g}" for name, value in excess[text].items() if value > 0)
    raise RunError(
        f"none of {len(excess)} students drawn from the space keeps {begun.budget!r}; the one nearest to it, {text}, has {worst}",
        hint="a larger budget, or a space that reaches smaller students",
    )
