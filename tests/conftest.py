"""One thread per worker, no hub, a place for runs that is not the repository, and a collector that leaves the libraries alone."""

from __future__ import annotations

import gc
import os

# Before torch is imported: several xdist workers with many threads each are many times slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_finish() -> None:
    """What was imported stays: measuring a cost collects garbage, in forked children as well, and need not walk through all of it."""
    gc.collect()
    gc.freeze()
