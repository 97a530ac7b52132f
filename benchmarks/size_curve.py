"""How often the size curve's 90 % intervals hold one more student: `python benchmarks/size_curve.py` (simulated; two minutes of a core).

Students of error floor + (scale / size)^power, whose √error scatters: every number of sizes with every scatter, mean over three powers and
three floors. *Within* the sizes tried, and at *twice* the largest. The scatter is a share of the error where that is 0.12. Once it is told
from the sizes alone, once from three designs of five seeds each, as a search's finalists tell it. `--times 5` draws fewer.
"""

from __future__ import annotations

import argparse
import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from attar.errors import EvidenceError
from attar.statistics.sizes import fit_sizes

Array = NDArray[np.float64]

COUNTS, NOISES, POWERS, FLOORS = (4, 5, 6, 8, 12), (0.005, 0.02, 0.06, 0.15, 0.3), (0.3, 0.7, 1.2), (0.0, 0.05, 0.2)
SMALLEST, LARGEST, WORST = 300, 30_000, 0.3  # sizes, and the error of the smallest
NEW = 4  # students for each curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40, help="curves of each kind")
    times = parser.parse_args().times
    for known in (False, True):
        print(f"\nScatter {'told by seeds' if known else 'told by the sizes alone'}; within / at twice the largest.\n")
        print("| sizes |" + "".join(f" scatter {noise:g} |" for noise in NOISES) + "\n|---|" + "---|" * len(NOISES))
        worst: list[tuple[float, tuple[float, ...]]] = []
        for count in COUNTS:
            cells = []
            for noise in NOISES:
                found = []
                for power, floor in product(POWERS, FLOORS):
                    found.append(covered(count, noise, power, floor, times, known=known))
                    worst.append((found[-1][0], (count, noise, power, floor)))
                cells.append(" / ".join(f"{100 * share:.0f} %" for share in np.nanmean(found, axis=0)))
            print(f"| {count} | " + " | ".join(cells) + " |", flush=True)
        share, (count, noise, power, floor) = min(worst)
        print(f"\nLeast within: {100 * share:.0f} %, of {count} sizes, scatter {noise:g}, power {power:g}, floor {floor:g}.")


def law(size: Array | float, power: float, floor: float) -> Array:
    return floor + (WORST - floor) * (SMALLEST / np.asarray(size)) ** power


def trained(error: Array, noise: float, rng: np.random.Generator) -> Array:
    return np.maximum(np.sqrt(error) + rng.normal(size=np.shape(error)) * noise / 2 * math.sqrt(0.12), 0.0) ** 2


def covered(count: int, noise: float, power: float, floor: float, times: int, *, known: bool) -> tuple[float, float]:
    """The shares of new students in their intervals, within the sizes and at twice the largest."""
    rng = np.random.default_rng([count, round(1e4 * noise), round(100 * power), round(100 * floor)])
    sizes = np.geomspace(SMALLEST, LARGEST, count)
    within: list[bool] = []
    beyond: list[bool] = []
    for seed in range(times):
        errors = trained(law(sizes, power, floor), noise, rng)
        seeds = trained(np.full((3, 5), law(3000, power, floor)), noise, rng)
        try:
            curve = fit_sizes(sizes, errors, seed_sd=float(seeds.std(1, ddof=1).mean()) if known else None, seed=seed)
        except EvidenceError:  # errors that happen to rise: no curve, no interval
            continue
        asked = [*np.exp(rng.uniform(math.log(SMALLEST), math.log(curve.sizes[-1]), NEW)), *[curve.reach[1]] * NEW]
        for at, place in zip(asked, [within] * NEW + [beyond] * NEW, strict=True):
            low, high = curve.interval(at)
            place.append(bool(low <= trained(law(at, power, floor), noise, rng) <= high))
    return float(np.mean(within)), float(np.mean(beyond))


if __name__ == "__main__":
    main()
