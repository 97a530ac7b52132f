"""Corruptions of tensors of numbers, such as signals: noise, and a stretch that is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.draws import normals, uniform

__all__ = ["KINDS", "changes"]

Change = Callable[[Tensor, np.ndarray, int], Tensor]

NOISE = (0.1, 0.2, 0.4, 0.6, 1.0)  # standard deviation, as a share of that of each place over the training rows
OCCLUSION = (0.1, 0.2, 0.3, 0.4, 0.5)  # share of the last axis

KINDS = {
    "noise": "Gaussian noise on each number",
    "occlusion": "a stretch of the last axis is the training rows' mean",
}


def changes(reference: Tensor) -> dict[str, Change | str]:
    """What does each kind to rows like these training rows, (R, ...)."""
    rows = reference.numpy().astype(np.float64)
    made = _Reference(rows.mean(0).astype(np.float32), rows.std(0).astype(np.float32))
    return {"noise": made.noise, "occlusion": made.occlusion}


@dataclass(frozen=True)
class _Reference:
    """Mean and standard deviation of each place over the training rows."""

    mean: np.ndarray
    std: np.ndarray

    def noise(self, inputs: Tensor, keys: np.ndarray, severity: int) -> Tensor:
        drawn = normals(keys, inputs[0].numel()).reshape(inputs.shape)
        return torch.from_numpy(inputs.numpy() + np.float32(NOISE[severity - 1]) * self.std * drawn)

    def occlusion(self, inputs: Tensor, keys: np.ndarray, severity: int) -> Tensor:
        """With severity the stretch grows about one place."""
        length = inputs.shape[-1]
        off = np.abs(np.arange(length) + 0.5 - uniform(keys, 0)[:, None] * length)  # (B, last)
        hidden = (off <= OCCLUSION[severity - 1] * length / 2).reshape(len(off), *(1,) * (inputs.ndim - 2), length)
        return torch.from_numpy(np.where(hidden, self.mean, inputs.numpy()))
