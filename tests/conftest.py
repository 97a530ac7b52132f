"""One thread per worker, no hub, and a place for runs that is not the repository."""

from __future__ import annotations

import os

# Before torch is imported: several xdist workers with many threads each are many times slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
