"""Which of the searched arguments made trials good: PED-ANOVA over the trials, with an interval from resampling them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.certificate.figures import Figure
from attar.errors import MissingExtra
from attar.searched import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["FEWEST", "importances"]

TOP = 0.1  # the share of trials that count as good
FEWEST = 50  # trials: of fewer, the best tenth is less than the five that the method asks for


def importances(trials: Sequence[Trial], better: int, *, log: Container[str] = (), draws: int = 20, seed: int = 0) -> dict[str, Figure]:
    """By hole of a space its share in what sets the best tenth of the students apart, the largest first; the shares add up to 1.

    trials: those of the arm "student" that have a score count; fewer than `FEWEST` of them, or no hole that takes two values: empty.
    log: names of holes that were searched on a logarithmic scale. draws: bootstrap samples of trials behind the 95 % interval.
    Watanabe, Bansal, Hutter, PED-ANOVA, arXiv:2304.10255; of holes that not every trial has, its conditional form, arXiv:2601.20800.
    """
    scored = [t for t in trials if t.arm == "student" and t.state in ("trained", "stopped") and _is_number(t.score)]
    spaces = _distributions(scored, log)
    if len(scored) < FEWEST or not spaces:
        return {}
    random = np.random.default_rng(seed)
    whole = _shares(scored, better, spaces)
    samples = [_shares([scored[i] for i in random.integers(0, len(scored), len(scored))], better, spaces) for _ in range(draws)]
    ends = {name: np.quantile([sample[name] for sample in samples], (0.025, 0.975)).tolist() for name in whole}
    how = f"PED-ANOVA of {len(scored):,} trials, bootstrap over trials"
    found = {n: Figure.of(v, min(v, ends[n][0]), max(v, ends[n][1]), n=len(scored), how=how) for n, v in whole.items()}
    return dict(sorted(found.items(), key=lambda item: -(item[1].value or 0.0)))


def _is_number(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _distributions(trials: Sequence[Trial], log: Container[str]) -> dict[str, BaseDistribution]:
    """What each hole that takes two values or more was drawn from, as far as the trials tell."""
    try:
        from optuna import distributions
    except ModuleNotFoundError as error:
        raise MissingExtra("optuna", "search") from error
    seen: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.point.items():
            seen.setdefault(name, set()).add(value)
    found: dict[str, BaseDistribution] = {}
    for name, values in seen.items():
        if len(values) < 2:
            continue
        if any(isinstance(v, str | bool) for v in values):
            found[name] = distributions.CategoricalDistribution(sorted(values, key=str))
        elif all(isinstance(v, int) for v in values):
            found[name] = distributions.IntDistribution(min(values), max(values), log=name in log and min(values) >= 1)
        else:
            found[name] = distributions.FloatDistribution(min(values), max(values), log=name in log and min(values) > 0)
    return found


def _shares(trials: Sequence[Trial], better: int, spaces: Mapping[str, BaseDistribution]) -> dict[str, float]:
    import optuna

    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would say of every sample that a study was created
    try:
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="minimize")
    finally:
        optuna.logging.set_verbosity(said)
    for trial in trials:
        own = {name: space for name, space in spaces.items() if name in trial.point}
        params = {name: trial.point[name] for name in own}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=own, value=-better * (trial.score or 0.0)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TOP)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in spaces}
