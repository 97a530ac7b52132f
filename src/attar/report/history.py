"""The learning curves of all arms, read from history.jsonl."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Curve", "metric_of", "read_curves"]


LIKENESS = ("agreement", "root_mean_square_distance", "similarity_correlation")  # what chooses epochs where no label does


@dataclass(frozen=True)
class Curve:
    """The validation score of one training by epoch, epochs counted from 1 and rising; only finite scores."""

    arm: str
    seed: int
    epochs: tuple[int, ...]
    scores: tuple[float, ...]

    def best(self, better: int) -> int:
        """Position of the best epoch, the first of equals; better: +1 where more is better, −1 where less is."""
        return max(range(len(self.scores)), key=lambda k: (better * self.scores[k], -k))


def metric_of(path: Path, usual: str) -> str:
    """By what a history's epochs were chosen: the `usual` metric, or, where no validation row has a label, a figure of likeness."""
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(json.JSONDecodeError, KeyError, TypeError):
                found = json.loads(text)["metric"]
                return found if found in LIKENESS else usual
    return usual


def read_curves(path: Path, metric: str) -> tuple[Curve, ...]:
    """The curves of `metric` in a history, "student" first; none where there is no file.

    Lines that a kill has torn, or that hold something else, are skipped; of an epoch trained twice the last counts.
    """
    found: dict[tuple[str, int], dict[int, float]] = {}
    if not path.exists():
        return ()
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(json.JSONDecodeError, KeyError, TypeError, ValueError):
            line = json.loads(text)
            if line["metric"] == metric and math.isfinite(score := float(line["valid"])):
                found.setdefault((str(line["arm"]), int(line["seed"])), {})[int(line["epoch"])] = score
    arms = sorted({arm: None for arm, _ in found}, key=lambda arm: arm != "student")
    return tuple(
        Curve(arm, seed, tuple(sorted(scores)), tuple(scores[e] for e in sorted(scores)))
        for name in arms
        for (arm, seed), scores in found.items()
        if arm == name
    )
