"""Divergences of normal distributions: against torch's, an integral, and what they become."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from attar.functional import gaussian_kl, squared_error


def drawn(seed: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b, c, d = (torch.randn(n, generator=g, dtype=torch.float64) for _ in range(4))
    return a, 0.5 * b, c, 0.5 * d


def test_it_is_torchs():
    m, s, n, r = drawn(0)
    assert torch.allclose(gaussian_kl(m, s, n, r), kl_divergence(Normal(m, s.exp()), Normal(n, r.exp())))


def test_it_is_the_integral():
    def density(x: float, mean: float, std: float) -> float:
        return math.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))

    step = 0.001
    total = 0.0
    for i in range(-8000, 8000):
        p, q = density(i * step, 0.3, 0.7), density(i * step, -0.2, 1.4)
        total += step * p * (math.log(p) - math.log(q)) if p > 0 else 0.0
    one = [torch.tensor(v, dtype=torch.float64) for v in (0.3, math.log(0.7), -0.2, math.log(1.4))]
    assert float(gaussian_kl(*one)) == pytest.approx(total, rel=1e-6)


def test_of_one_spread_it_is_half_the_squared_error():
    m, _, n, _ = drawn(1)
    zero = torch.zeros_like(m)
    assert torch.allclose(gaussian_kl(m, zero, n, zero), 0.5 * squared_error(m[:, None], n[:, None]))


def test_near_equality_it_keeps_its_digits_in_float32():
    s = torch.tensor([0.0])
    near = gaussian_kl(s, s, s, s + 1e-3)
    assert float(near) == pytest.approx(1e-6, rel=2e-3)  # d² − …, where the textbook's three summands leave ±1e-7 of noise


def test_gradients_are_those_of_the_value():
    assert torch.autograd.gradcheck(gaussian_kl, tuple(t.requires_grad_() for t in drawn(2)))


def test_half_precision_is_widened():
    m = torch.tensor([60.0], dtype=torch.float16)
    assert float(gaussian_kl(m, 0 * m, -m, 0 * m)) == pytest.approx(7200.0)
