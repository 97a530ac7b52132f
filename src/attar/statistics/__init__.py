"""Arrays in, numbers out: metrics, intervals, tests, calibration. No state, no files, no torch."""
