"""Arrays in, numbers out: metrics, intervals, tests, calibration, conformal sets. No state, no files, no torch."""

from attar.statistics.calibration import Reliability, calibration_error, fit_temperature, reliability
from attar.statistics.conformal import conformal_rows, conformal_sets, conformal_spread, conformal_thresholds
from attar.statistics.delong import AurocDifference, auroc_difference, delong
from attar.statistics.inference import PredictionPowered, prediction_powered
from attar.statistics.intervals import Draws, bootstrap, clopper_pearson, newcombe, paired_proportions, unanimous, wilson
from attar.statistics.multiplicity import benjamini_hochberg
from attar.statistics.tests import Effect, NonInferiority, discordance_rows, mcnemar, non_inferiority, seed_effect

__all__ = [
    "AurocDifference",
    "Draws",
    "Effect",
    "NonInferiority",
    "PredictionPowered",
    "Reliability",
    "auroc_difference",
    "benjamini_hochberg",
    "bootstrap",
    "calibration_error",
    "clopper_pearson",
    "conformal_rows",
    "conformal_sets",
    "conformal_spread",
    "conformal_thresholds",
    "delong",
    "discordance_rows",
    "fit_temperature",
    "mcnemar",
    "newcombe",
    "non_inferiority",
    "paired_proportions",
    "prediction_powered",
    "reliability",
    "seed_effect",
    "unanimous",
    "wilson",
]
