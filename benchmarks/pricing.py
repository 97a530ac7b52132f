"""What a student costs, said before it is trained: `python benchmarks/pricing.py [--families mlp,cnn] [--precision int8]`.

By family: exports with weights of chance and the seconds that they took; the law's mean error on exports left out, in turn; its mean error
on students drawn afterwards, each exported and measured by itself, and how many of these lie in its 90 % interval; milliseconds to price
1,000 students. Tables are 23 columns of made-up numbers, images MNIST-5k.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping

import numpy as np

from attar.cost import machine
from attar.data import Data, arrays, mnist5k
from attar.signal import Student
from attar.students import cnn, forest, lightgbm, mlp
from attar.task import task_for
from attar.verbs.search.drafts import Precision
from attar.verbs.search.pricing import Prices


def tables() -> Data:
    """30,000 rows of 23 numbers; two classes."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30_000, 23)).astype(np.float32)
    return arrays(rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) > 1).astype(np.int64)).read()


def log(chance: random.Random, low: float, high: float) -> int:
    """A whole number, its logarithm evenly spread."""
    return round(np.exp(chance.uniform(np.log(low), np.log(high))))


FAMILIES: Mapping[str, tuple[Callable[[], Data], Callable[[random.Random], Student]]] = {
    "mlp": (tables, lambda c: mlp(width=log(c, 4, 256), depth=c.randint(1, 4))),
    "cnn": (lambda: mnist5k().read(), lambda c: cnn(width=log(c, 2, 32), depth=c.randint(1, 4))),
    "lightgbm": (tables, lambda c: lightgbm(trees=log(c, 5, 400), leaves=log(c, 4, 63))),
    "forest": (tables, lambda c: forest(trees=log(c, 1, 64), depth=c.randint(3, 10))),
}


def told(family: str, precision: Precision, exports: int, later: int, seed: int) -> str:
    """One line of the table."""
    read, draw = FAMILIES[family]
    data, chance = read(), random.Random(seed)
    drawn = [draw(chance) for _ in range(400)]
    prices = Prices.learn(drawn, data, task_for(data.schema), precision=precision, exports=exports, seed=seed)
    (pricing,) = prices.pricings
    before = set(prices.measured_already)
    fresh = list({repr(s): s for s in (draw(chance) for _ in range(10 * later)) if repr(s) not in before}.values())[:later]
    predicted = [prices.predicted(student) for student in fresh]
    real = [prices.measure(student) for student in fresh]
    off = [abs(p.latency_ms / r.latency_ms - 1) for p, r in zip(predicted, real, strict=True) if p.latency_ms and r.latency_ms]
    inside = sum(p.low_ms <= r.latency_ms <= p.high_ms for p, r in zip(predicted, real, strict=True))  # type: ignore[operator]
    size = max(abs(p.size_bytes / r.size_bytes - 1) for p, r in zip(predicted, real, strict=True))  # type: ignore[operator]
    thousand = [draw(chance) for _ in range(1000)]
    start = time.perf_counter()
    for student in thousand:
        prices.predicted(student)
    ms = 1000 * (time.perf_counter() - start)
    verdict = "yes" if pricing.trusted else "no"
    return (
        f"| {family}, {precision} | {pricing.exports} | {pricing.seconds:.0f} | {pricing.error:.1%} | {verdict} "
        f"| {np.mean(off):.1%} of {len(off)} | {inside} | {size:.1%} | {ms:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--precision", default="float", choices=("float", "int8"))
    parser.add_argument("--exports", type=int, default=24)
    parser.add_argument("--later", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(machine())
    print("| family | exports | seconds | held-out error | trusted | error on later ones | in 90 % | bytes, largest error | ms for 1,000 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for family in asked.families.split(","):
        print(told(family, asked.precision, asked.exports, asked.later, asked.seed), flush=True)


if __name__ == "__main__":
    main()
