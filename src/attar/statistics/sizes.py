"""How small it can be: error against size as a curve with prediction intervals, and the smallest size that meets a goal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from attar.errors import EvidenceError

__all__ = ["FEWEST_SIZES", "REACH", "Curve", "best_of_each", "error_of", "fit_sizes", "score_of"]

Array = NDArray[np.float64]

FEWEST_SIZES = 4  # three numbers make the curve; a fourth size is the least by which it can be wrong
REACH = 2.0  # how many times beyond the largest, and below the smallest size tried, the curve speaks
MOST_SIZES = 12  # of a search that tried more: neighbours share a place on the curve
EACH = 4  # trials for each place, where there are enough of them
WORSE = 1.1  # times the best error: from there on a larger size is worse, and not only unlucky

DRAWS = 4000
LEAST = 0.05  # of the middle error: what a smaller one is taken for where its scatter is judged
POWERS, NOISES, EACH_POINT = 41, 27, 96  # of the grid, and draws at each of its points
POWER, POWER_SPREAD = 0.6, 0.8  # of log power: 0.12 to 3 with 95 %
NOISE, NOISE_SPREAD = 0.02, 1.8  # of √error relative to its level: an error off by 4 %, 0.1 % to more than itself with 95 %
KNOWN_SPREAD = 0.5  # where seeds have told the noise: of how its logarithm is off
FREEDOM = 10  # of the seeds that tell it: two or three finalists of five seeds each


def error_of(score: float, better: int) -> float:
    """A metric as an error, 0 where nothing is wrong: 1 − score where more is better, the score itself where less is.

    So accuracy 0.9 is an error of 0.1, AUROC 0.78 one of 0.22, R² and rank correlations may be above 1, and rmse, mae, log-loss and
    Brier score are errors already, in their unit. Raises EvidenceError for a score that is no number, or better than perfect.

    >>> error_of(0.75, better=1), error_of(3.2, better=-1)
    (0.25, 3.2)
    """
    error = 1 - score if better > 0 else score
    if not math.isfinite(error) or error < -1e-9:
        best = "1, or less" if better > 0 else "0, or more"
        raise EvidenceError(f"a score of {score:g} is no error: the best is {best}", hint="which metric is this?")
    return max(error, 0.0)


def score_of(error: float, better: int) -> float:
    """The metric back from `error_of`."""
    return 1 - error if better > 0 else error


def best_of_each(sizes: ArrayLike, errors: ArrayLike) -> tuple[Array, Array]:
    """Trials (n,) of many sizes → (K,) sizes in order, and the error that a student of that size reaches once it is tuned.

    What is asked is not what a trial of that size does on average, for most have a poor rate or temperature: it is the best of its size.
    Where there are more than twelve sizes, neighbours compete: in at most twelve spans of equal ratio, fewer where there are not four
    trials for each, and each gives its best trial at that trial's own size. The best of several is a little lucky; by how much is nearly
    the same for all spans, is part of the scatter about the curve, and is why a finalist is trained anew on other seeds.
    """
    n, e = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    _check(n, e)
    each = np.unique(n)
    if len(each) <= MOST_SIZES:
        return each, np.array([e[n == size].min() for size in each])
    logs, spans = np.log(n), min(MOST_SIZES, max(FEWEST_SIZES, len(n) // EACH))
    span = np.minimum(((logs - logs.min()) / (logs.max() - logs.min()) * spans).astype(int), spans - 1)
    best = [min(np.flatnonzero(span == k), key=lambda i: (e[i], n[i])) for k in np.unique(span)]
    return n[best], e[best]


@dataclass(frozen=True, eq=False)
class Curve:
    """error = floor + (scale / size)^power, as far as these sizes tell it. See `fit_sizes`.

    sizes, errors: (K,) it was fitted to. floor, scale, power: the most probable curve. tried: the smallest and the largest size tried.
    reach: the sizes that it speaks about, twice as far.
    notes: sentences on what was left out.
    """

    sizes: Array
    errors: Array
    floor: float
    scale: float
    power: float
    tried: tuple[float, float]
    reach: tuple[float, float]
    drawn: tuple[Array, Array, Array] = field(repr=False)  # (D,) each: floor, error above it at the smallest size, power
    noise: Array = field(repr=False)  # (D,) of √error
    moods: Array = field(repr=False)  # (2, D): of the student, by Student's t; of the rows, standard normal
    notes: tuple[str, ...] = ()

    def errors_at(self, size: float, *, rows_sd: float = 0.0) -> Array:
        """(D,) errors that one more student of this size may have, equally probable. Raises EvidenceError out of reach.

        rows_sd: how far the error is off because of which rows it is told by, as a standard deviation: of a claim about other rows than the
        trials' that of both; 0 for one more trial on the same rows.
        """
        low, high = self.reach
        if not low * (1 - 1e-9) <= size <= high * (1 + 1e-9):
            raise EvidenceError(
                f"sizes from {self.tried[0]:,.0f} to {self.tried[1]:,.0f} were tried, and the curve is asked about {size:,.0f}",
                hint=f"it speaks about {low:,.0f} to {high:,.0f}; train a student nearer to that size",
            )
        return self._errors(size, rows_sd)

    def error(self, size: float) -> float:
        """The middle of what is probable at this size."""
        return float(np.median(self.errors_at(size)))

    def interval(self, size: float, level: float = 0.9, *, rows_sd: float = 0.0) -> tuple[float, float]:
        """Where the error of one more tuned student of this size lies with this probability."""
        low, high = np.quantile(self.errors_at(size, rows_sd=rows_sd), ((1 - level) / 2, (1 + level) / 2))
        return max(0.0, float(low)), float(high)

    def chance(self, size: float, goal: float, *, rows_sd: float = 0.0) -> float:
        """How probably one more tuned student of this size has at most the error `goal`, 0..1."""
        return float(np.mean(self.errors_at(size, rows_sd=rows_sd) <= goal))

    def smallest(self, goal: float, *, chance: float = 0.9, rows_sd: float = 0.0) -> int | None:
        """The smallest size, from the smallest tried to the end of the reach, that meets `goal` with this chance; None if none does."""
        low, high = self.tried[0], self.reach[1]
        if self.chance(high, goal, rows_sd=rows_sd) < chance:
            return None
        if self.chance(low, goal, rows_sd=rows_sd) >= chance:
            return math.ceil(low)
        for _ in range(40):  # the draws are the same at every size, and each falls with it: so does the chance
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.chance(middle, goal, rows_sd=rows_sd) >= chance else (middle, high)
        return math.ceil(high)

    def floor_chance(self, goal: float) -> float:
        """How probably no size whatever would meet the goal: the floor itself lies above it."""
        return float(np.mean(self.drawn[0] > goal))

    def _errors(self, size: float, rows_sd: float) -> Array:
        floor, rise, power = self.drawn
        root = np.sqrt(np.maximum(floor + rise * (self.sizes[0] / size) ** power, 0.0))
        return np.maximum(root + self.noise * self.moods[0], 0.0) ** 2 + rows_sd * self.moods[1]


def fit_sizes(sizes: ArrayLike, errors: ArrayLike, *, seed_sd: float | None = None, seed: int = 0) -> Curve:
    """error = floor + (scale / size)^power through the best of (n,) trials of each size, as `best_of_each` tells them.

    The form is that of the scaling laws (Busbridge et al. 2025, arXiv:2502.08606, whose law it is where data and teacher stay the same).
    Four to twelve sizes fix three numbers badly, so no best fit is told: the curve is a distribution, its posterior, and an
    interval counts all curves that the sizes allow with the scatter of one more student. √error scatters alike at every size, as it does
    where errors are counted. Before the sizes are seen, any level is as probable; log power is normal about log 0.6 with spread 0.8, and
    the scatter is about 4 % of the error, and may be a fortieth of that or forty times as much. That is a guess, and where seeds scatter
    more it holds the curve too near to its points: one more student lies off by Student's t of two degrees of freedom less than there are
    sizes. The floor of a curve that is drawn may lie below 0, as long as no error does within reach: curves that end at 0 would else have
    none on their other side. `python benchmarks/size_curve.py` tells how often 90 % intervals hold one more student.

    seed_sd: standard deviation of the error over seeds of one design, where it is known, by some ten degrees of freedom; the scatter is
        then taken to be near it.

    Sizes beyond the best that do clearly worse, as students do that are trained too short, are left out, and a note says so.
    Raises EvidenceError for fewer than four sizes, for errors that rise with size, and where all of them are 0.
    """
    n, e = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    _check(n, e)
    tried = (float(n.min()), float(n.max())) if len(n) else (0.0, 0.0)
    n, e = best_of_each(n, e)
    if len(n) < FEWEST_SIZES:
        what = f"{len(n)} size{'s' * (len(n) != 1)} of student{'s' * (len(n) != 1)}"
        raise EvidenceError(f"{what} tried, and a curve needs {FEWEST_SIZES}", hint="a wider space of widths, or more trials")
    if not e.any():
        raise EvidenceError(
            f"all {len(n)} sizes, from {n[0]:,.0f} on, make no error at all: there is no curve", hint="smaller students, or harder rows"
        )
    if _rises(n, e):
        raise EvidenceError(
            f"error rises with size, from {e[0]:.4g} at {n[0]:,.0f} to {e[-1]:.4g} at {n[-1]:,.0f}: no curve falls through that",
            hint="larger students want longer training, or a lower rate",
        )
    best = int(e.argmin())
    if FEWEST_SIZES <= best + 1 < len(n):
        first = _fit(n[: best + 1], e[: best + 1], tried, seed_sd, seed)
        if all(e[i] > max(WORSE * e[best], np.quantile(first._errors(n[i], 0.0), 0.995)) for i in range(best + 1, len(n))):
            note = (
                f"beyond {n[best]:,.0f} error rises again, to {e[-1]:.4g} at {n[-1]:,.0f}: those sizes are left out of the curve "
                "(larger students want longer training)"
            )
            return Curve(**{**first.__dict__, "reach": (first.reach[0], float(n[best])), "notes": (note,)})
    return _fit(n, e, tried, seed_sd, seed)


def _check(n: Array, e: Array) -> None:
    if n.shape != e.shape or n.ndim != 1:
        raise EvidenceError(f"{n.shape} sizes and {e.shape} errors", hint="one error for each size")
    if not (np.isfinite(n).all() and np.isfinite(e).all() and (n > 0).all() and (e >= 0).all()):
        raise EvidenceError("sizes are above 0, and errors not below it", hint="leave out trials that diverged")


def _rises(n: Array, e: Array) -> bool:
    """Whether a straight line through √error over log size goes up, one-sided at 5 %."""
    z = np.sqrt(e)
    if np.ptp(z) == 0:
        return False
    found: Any = stats.linregress(np.log(n), z)
    if found.stderr == 0:
        return bool(found.slope > 0)
    return bool(found.slope / found.stderr > stats.t.ppf(0.95, len(n) - 2))


@dataclass(frozen=True)
class _Lines:
    """For each power P the errors at the largest and the smallest size that fit best, by weighted least squares.

    weight: (K,). best: (P, 2). covariance: (P, 2, 2) of these, in units of the squared scatter. fitted: (P, K). squares: (P,) what is left.
    """

    weight: Array
    best: Array
    covariance: Array
    fitted: Array
    squares: Array

    @classmethod
    def through(cls, columns: Array, e: Array, middle: Array) -> _Lines:
        """columns: (P, K, 2). middle: (K,) what errors there are, by which those that are seen scatter."""
        weight = 1 / (4 * middle)
        covariance = np.linalg.inv(np.einsum("pki,pkj,k->pij", columns, columns, weight))
        best = np.einsum("pij,pkj,k,k->pi", covariance, columns, weight, e)
        fitted = np.einsum("pki,pi->pk", columns, best)
        return cls(weight, best, covariance, fitted, (weight * (e - fitted) ** 2).sum(1))


def _fit(n: Array, e: Array, tried: tuple[float, float], seed_sd: float | None, seed: int) -> Curve:
    """The posterior of a curve: a grid over power and scatter, and at each of its points draws of the errors at both ends."""
    far = np.log(n / n[0])
    log_power = math.log(POWER) + POWER_SPREAD * np.linspace(-3, 3, POWERS)
    powers = np.exp(log_power)
    ends = np.exp(-powers * far[-1])  # (P,) what is left of the rise at the largest size
    share = (np.exp(-powers[:, None] * far) - ends[:, None]) / (
        1 - ends[:, None]
    )  # (P, K) of the smallest size's error, the rest the largest's
    columns = np.stack((1 - share, share), -1)  # (P, K, 2)
    level = float(np.median(e)) or float(e.max())
    found = _Lines.through(columns, e, np.maximum(e, LEAST * level))
    for _ in range(2):  # the scatter of an error goes with its root: weights by the curve, not by what happened
        found = _Lines.through(columns, e, np.maximum(found.fitted[found.squares.argmin()], LEAST * level))
    centre, spread = math.log(NOISE * math.sqrt(level)), NOISE_SPREAD
    if seed_sd is not None and seed_sd > 0:
        centre, spread = math.log(seed_sd / (2 * math.sqrt(level))), KNOWN_SPREAD
    log_noise = centre + spread * np.linspace(-3, 3, NOISES)
    noises = np.exp(log_noise)
    luck = stats.t(FREEDOM if seed_sd is not None and seed_sd > 0 else len(n) - 2)
    rng = np.random.default_rng(seed)
    roots = np.linalg.cholesky(found.covariance)
    spots = rng.standard_normal((EACH_POINT, 2)) @ roots.transpose(0, 2, 1)  # (P, M, 2)
    at = found.best[:, None, None] + noises[:, None, None] * spots[:, None]  # (P, S, M, 2)
    largest, smallest = at[..., 0], at[..., 1]
    rise = (smallest - largest) / (1 - ends[:, None, None])
    floor = largest - rise * ends[:, None, None]
    end = (tried[1] * REACH / n[0]) ** -powers  # what is left of the rise where the curve ends
    there = (rise >= 0) & (floor + rise * end[:, None, None] >= 0)
    log_p = (2 - len(n)) * log_noise - found.squares[:, None] / (2 * noises**2) + np.log(np.linalg.det(found.covariance))[:, None] / 2
    log_p = log_p - ((log_noise - centre) / spread) ** 2 / 2 - ((log_power - math.log(POWER)) / POWER_SPREAD)[:, None] ** 2 / 2
    p = np.where(there, np.exp(log_p - log_p[there.any(2)].max(initial=-np.inf))[..., None], 0.0)
    if not p.any():
        raise EvidenceError("no curve of a floor and a power falls through these sizes", hint="more sizes, or more trials of each")
    total = p.cumsum()
    drawn = np.searchsorted(total, (np.arange(DRAWS) + rng.random()) / DRAWS * total[-1])
    i, j, m = np.unravel_index(np.minimum(drawn, p.size - 1), p.shape)
    return Curve(
        n,
        e,
        *_most_probable(n, e, found.weight),
        tried=tried,
        reach=(tried[0] / REACH, tried[1] * REACH),
        drawn=(floor[i, j, m], rise[i, j, m], powers[i]),
        noise=noises[j],
        moods=rng.permuted(
            np.stack([luck.ppf((np.arange(DRAWS) + 0.5) / DRAWS), stats.norm.ppf((np.arange(DRAWS) + 0.5) / DRAWS)]), axis=1
        ),
    )


def _most_probable(n: Array, e: Array, weight: Array) -> tuple[float, float, float]:
    """Floor, scale and power of least squares, power held near what is probable beforehand: one curve to draw and to write down."""
    log_n, prior = np.log(n / n[0]), math.log(POWER)
    level = math.sqrt(float((weight * e**2).sum()))

    def off(x: Array) -> Array:
        floor, rise, log_power = x
        fitted = floor + rise * np.exp(-np.exp(log_power) * log_n)
        return np.append(np.sqrt(weight) * (fitted - e) / level, NOISE * (log_power - prior) / POWER_SPREAD)

    top = float(e.max())
    near: Any = optimize.least_squares(
        off, (0.5 * float(e.min()), top, prior), bounds=((0, 0, prior - 3), (top + 1e-12, 10 * top, prior + 3)), x_scale=(top, top, 1)
    )
    floor, rise, log_power = map(float, near.x)
    power = math.exp(log_power)
    return floor, float(n[0]) * rise ** (1 / power), power
