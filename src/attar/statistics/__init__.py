"""Arrays in, numbers out: metrics, intervals, tests, calibration. No state, no files, no torch."""

from attar.statistics.calibration import Reliability, calibration_error, fit_temperature, reliability
from attar.statistics.intervals import Draws, bootstrap, clopper_pearson, paired_proportions, wilson
from attar.statistics.tests import Effect, NonInferiority, discordance_rows, mcnemar, non_inferiority, seed_effect

__all__ = [
    "Draws",
    "Effect",
    "NonInferiority",
    "Reliability",
    "bootstrap",
    "calibration_error",
    "clopper_pearson",
    "discordance_rows",
    "fit_temperature",
    "mcnemar",
    "non_inferiority",
    "paired_proportions",
    "reliability",
    "seed_effect",
    "wilson",
]
