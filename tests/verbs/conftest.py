"""What a run measures is measured briefly: cost in small batches, no memory, few resamples. Their own tests see to these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attar.verbs.evaluate.COST_SECONDS", 0.02)
        patch.setattr("attar.verbs.evaluate.MANY", 16)
        patch.setattr("attar.verbs.evaluate.scoring.RESAMPLES", 200)
        patch.setattr("attar.cost.working_memory_mb", lambda make: None)
        yield
