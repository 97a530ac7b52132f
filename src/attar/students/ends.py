"""What the nets of this room share: how pixels come in, how answers go out, and how a seed makes weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attar.ends import Head, at_least, seeded
from attar.signal import Schema

__all__ = ["Head", "Pixels", "at_least", "seeded"]


class Pixels(nn.Module):
    """(B, channels, height, width) uint8 → standard scores by channel, float32."""

    mean: Tensor
    scale: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        mean = torch.tensor(schema.pixel_mean or (127.5,) * schema.shape[0])
        std = torch.tensor(schema.pixel_std or (127.5,) * schema.shape[0])
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("scale", (1 / torch.where(std > 0, std, 1.0)).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self.mean) * self.scale
