"""Divergences: golden values, plain-Python references, limits, identities, gradients, absent outcomes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attar.functional import (
    alpha_beta,
    jsd,
    kl,
    kl_to_finite,
    log_probabilities,
    power_sum,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    standardise,
    total_variation,
)
from attar.testing import golden

ALL = {
    "kl": kl,
    "kl_to_finite": kl_to_finite,
    "reverse_kl": reverse_kl,
    "jsd .1": lambda p, q: jsd(p, q, 0.1),
    "jsd .5": lambda p, q: jsd(p, q, 0.5),
    "jsd .999": lambda p, q: jsd(p, q, 0.999),
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "alpha_beta (.2, .7)": lambda p, q: alpha_beta(p, q, 0.2, 0.7),
    "alpha_beta (.9, .2)": lambda p, q: alpha_beta(p, q, 0.9, 0.2),
    "alpha_beta (0, .5)": lambda p, q: alpha_beta(p, q, 0.0, 0.5),
    "alpha_beta (.5, 0)": lambda p, q: alpha_beta(p, q, 0.5, 0.0),
    "alpha_beta (.5, -.5)": lambda p, q: alpha_beta(p, q, 0.5, -0.5),
    "alpha_beta (-.5, .5)": lambda p, q: alpha_beta(p, q, -0.5, 0.5),
    "alpha_beta (0, 0)": lambda p, q: alpha_beta(p, q, 0.0, 0.0),
    "total_variation": total_variation,
}
PER_POSITION = pytest.mark.parametrize("divergence", ALL.values(), ids=ALL)


def pair(shape: tuple[int, ...] = (5, 4), seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    p, q = (log_probabilities(scale * torch.randn(shape, generator=g, dtype=torch.float64)) for _ in range(2))
    return p, q


def golden_pair() -> tuple[Tensor, Tensor]:
    rows = golden()
    return log_probabilities(rows.teacher.output), log_probabilities(rows.student.output)


def paper_jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """As TRL and the GKD paper have it."""
    p, q = log_p.exp(), log_q.exp()
    m = beta * p + (1 - beta) * q
    return (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(-1)


def paper_alpha_beta(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    p, q = log_p.exp(), log_q.exp()
    return -(p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)).sum(-1) / (a * b)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (kl, 1.173122),
        (reverse_kl, 1.489661),
        (skew_kl, 0.843824),
        (skew_reverse_kl, 0.882125),
        (total_variation, 0.596823),
        (lambda p, q: 0.1 * 0.9 * jsd(p, q, 0.1), 0.098727),
        (lambda p, q: 0.25 * jsd(p, q, 0.5), 0.256609),
        (lambda p, q: 0.9 * 0.1 * jsd(p, q, 0.9), 0.110509),
        (lambda p, q: jsd(p, q, 0.1), 1.097),
        (lambda p, q: jsd(p, q, 0.5), 1.026),
        (lambda p, q: jsd(p, q, 0.9), 1.228),
        (lambda p, q: jsd(p, q, 0.0), 1.173122),
        (lambda p, q: jsd(p, q, 1.0), 1.489661),
        (lambda p, q: alpha_beta(p, q, 0.2, 0.7), 1.476061),
        (lambda p, q: alpha_beta(p, q, 0.5, 0.5), 1.148713),
        (lambda p, q: alpha_beta(p, q, 1.0, 0.0), 1.173122),
        (lambda p, q: alpha_beta(p, q, 0.0, 1.0), 1.489661),
    ],
)
def test_a_divergence_equals_the_value_of_its_reference(found, expected):
    digits = 5e-4 if expected in (1.097, 1.026, 1.228) else 1e-4  # the former are printed with four digits
    assert float(found(*golden_pair()).mean()) == pytest.approx(expected, rel=digits)


def test_cross_entropy_less_the_teachers_entropy_is_kl():
    log_p, log_q = golden_pair()
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    cross = -(log_p.exp() * log_q).sum(-1).mean()
    assert float(entropy) == pytest.approx(0.867920, rel=1e-4)
    assert float(cross) == pytest.approx(2.041042, rel=1e-4)
    assert float(kl(log_p, log_q).mean()) == pytest.approx(float(cross - entropy), rel=1e-5)


@PER_POSITION
def test_positions_are_kept_and_independent(divergence):
    p, q = pair((2, 3, 4))
    whole = divergence(p, q)
    assert whole.shape == (2, 3)
    assert float(divergence(p[1, 2], q[1, 2])) == pytest.approx(float(whole[1, 2]))


@PER_POSITION
def test_a_divergence_is_zero_at_equality_and_positive_elsewhere(divergence):
    p, q = pair()
    assert divergence(p, p).abs().max() < 1e-12
    assert (divergence(p, q) > 0).all()


@PER_POSITION
def test_gradients_of_both_sides_are_those_of_the_value(divergence):
    def of_logits(z: Tensor, w: Tensor) -> Tensor:
        return divergence(torch.log_softmax(z, -1), torch.log_softmax(w, -1))

    p, q = (t.clone().requires_grad_() for t in pair((3, 4)))
    assert torch.autograd.gradcheck(of_logits, (p, q))


@PER_POSITION
def test_an_outcome_absent_on_both_sides_adds_nothing_and_has_no_gradient(divergence):
    if divergence is kl_to_finite:
        pytest.skip("for students that exclude nothing")
    p, q = pair()
    gone = torch.full((5, 1), -math.inf, dtype=torch.float64)
    z = torch.cat((q, gone), -1).requires_grad_()
    value = divergence(torch.cat((p, gone), -1), torch.log_softmax(z, -1))
    value.sum().backward()
    assert torch.allclose(value, divergence(p, q))
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert (z.grad[:, -1] == 0).all()


@pytest.mark.parametrize("divergence", [kl, kl_to_finite, skew_kl, skew_reverse_kl, total_variation, jsd, alpha_beta])
def test_an_outcome_that_only_the_teacher_excludes_gives_a_finite_value_and_gradient(divergence):
    p, q = pair()
    p = torch.log_softmax(torch.cat((p, torch.full((5, 1), -math.inf, dtype=torch.float64)), -1), -1)
    z = torch.cat((q, torch.zeros(5, 1, dtype=torch.float64)), -1).requires_grad_()
    value = divergence(p, torch.log_softmax(z, -1))
    value.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(z.grad).all()
    expected = divergence(p.clamp(min=-700.0), torch.log_softmax(z.detach(), -1))
    assert torch.allclose(value, expected)


def test_kl_is_infinite_where_the_student_excludes_what_the_teacher_allows():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    assert kl(p, q) == math.inf
    assert reverse_kl(q, p) == math.inf
    assert float(skew_kl(p, q)) == pytest.approx(0.5 * math.log(0.5 / 0.95) + 0.5 * math.log(0.5 / 0.05))


@PER_POSITION
def test_half_precision_logits_of_sixty_stay_finite(divergence):
    negative = (ALL["alpha_beta (.5, -.5)"], ALL["alpha_beta (-.5, .5)"])  # p to a negative power is exponential in the logits
    limit = 8.0 if divergence in negative else 60.0
    for dtype in (torch.bfloat16, torch.float16):
        z = torch.tensor([[limit, -limit, 0.0], [-limit, limit, 1.0]], dtype=dtype, requires_grad=True)
        value = divergence(log_probabilities(-z.detach()), log_probabilities(z))
        value.sum().backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
        assert z.grad is not None
        assert torch.isfinite(z.grad).all()


def test_the_tempered_kl_tends_to_half_the_centred_mean_square():
    """T² KL → 1/(2C) ‖c(z_s) − c(z_t)‖², value and gradient: 8.1165 against 8.1172 in the pilot, 1e-3 at T = 1000 here."""
    from attar.functional import mse

    g = torch.Generator().manual_seed(0)
    theirs = 4 * torch.randn(5, 4, generator=g, dtype=torch.float64)
    ours = (4 * torch.randn(5, 4, generator=g, dtype=torch.float64)).requires_grad_()
    hot = 1000**2 * kl(log_probabilities(theirs, 1000.0), log_probabilities(ours, 1000.0)).mean()
    limit = 0.5 * mse(theirs, ours).mean()
    (pull,), (straight,) = torch.autograd.grad(hot, ours), torch.autograd.grad(limit, ours)
    assert float(hot.detach()) == pytest.approx(float(limit.detach()), rel=5e-3)
    assert float(pull.norm() / straight.norm()) == pytest.approx(1, rel=5e-3)


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5, 0.8, 0.97])
def test_jsd_times_beta_times_its_rest_is_the_papers(beta):
    p, q = pair()
    assert torch.allclose(beta * (1 - beta) * jsd(p, q, beta), paper_jsd(p, q, beta))


def test_jsd_is_continuous_and_smooth_at_both_ends_even_in_float32():
    p, q = (t.float() for t in pair())
    exact = [jsd(*pair(), beta) for beta in (0.0, 1.0)]
    for distance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        assert torch.allclose(jsd(p, q, distance).double(), exact[0], rtol=12 * distance + 1e-5)
        assert torch.allclose(jsd(p, q, 1 - distance).double(), exact[1], rtol=12 * distance + 1e-4)
    slopes = [(jsd(*pair(), h) - exact[0]) / h for h in (1e-3, 1e-4)]
    assert torch.allclose(slopes[0], slopes[1], rtol=0.1)


def test_jsd_reversed_is_jsd_with_the_sides_exchanged():
    p, q = pair()
    assert torch.allclose(jsd(p, q, 0.3), jsd(q, p, 0.7))


def test_the_divergence_from_distillm_uses_the_opposite_share():
    """DistiLLM's lam 0.9 is beta 0.1 here: both 0.098727 in the paper's unit."""
    p, q = golden_pair()
    lam = 0.9
    m = (1 - lam) * p.exp() + lam * q.exp()
    theirs = (1 - lam) * (p.exp() * (p - m.log())).sum(-1) + lam * (q.exp() * (q - m.log())).sum(-1)
    assert float(theirs.mean()) == pytest.approx(0.098727, rel=1e-4)
    assert torch.allclose(lam * (1 - lam) * jsd(p, q, 1 - lam), theirs, rtol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.7), (0.5, 0.5), (1.5, -0.3), (-0.4, 1.2), (0.8, 0.3), (2.0, 1.0), (-0.5, -0.5)])
def test_alpha_beta_is_the_papers_sum(a, b):
    p, q = pair(scale=1.0)
    assert torch.allclose(alpha_beta(p, q, a, b), paper_alpha_beta(p, q, a, b), rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.0, 0.4), (0.5, -0.5), (-0.7, 0.7)])
def test_alpha_beta_reaches_its_limits_without_a_jump(a, b):
    p, q = pair(scale=1.0)
    limit = alpha_beta(p, q, a, b)
    for h in (1e-4, -1e-4):
        assert torch.allclose(paper_alpha_beta(p, q, a + h, b + h / 2), limit, rtol=2e-3), "our limit is not that of the formula"
    for h in (1e-3, 1e-5, 1e-8, -1e-8):
        near = alpha_beta(p.float(), q.float(), a + h, b + h / 2).double()
        assert torch.allclose(near, limit, rtol=10 * abs(h) + 2e-4), "float32 loses digits near the limit"


def test_alpha_beta_of_nothing_is_half_the_squared_log_ratio():
    p, q = pair(scale=1.0)
    assert torch.allclose(alpha_beta(p, q, 0.0, 0.0), 0.5 * (p - q).square().sum(-1))
    assert torch.allclose(alpha_beta(p, q, 2e-3, 1e-3), alpha_beta(p, q, 0.0, 0.0), rtol=2e-2)


def test_alpha_beta_at_one_half_is_four_squared_hellinger_distances():
    p, q = pair()
    hellinger = 0.5 * ((0.5 * p).exp() - (0.5 * q).exp()).square().sum(-1)
    assert torch.allclose(alpha_beta(p, q, 0.5, 0.5), 4 * hellinger)


def test_the_skew_divergence_bounds_the_derivative_by_the_share():
    """(1−a)/a = 9 at a = 0.1, where plain KL has p/q = 4.5e5 on the same pair."""
    p = torch.tensor([0.45, 0.55], dtype=torch.float64)
    q = torch.tensor([1e-6, 1 - 1e-6], dtype=torch.float64, requires_grad=True)
    (skewed,) = torch.autograd.grad(skew_kl(p.log(), q.log(), 0.1), q)
    (plain,) = torch.autograd.grad(kl(p.log(), q.log()), q)
    assert skewed.abs().max() <= 9
    assert plain.abs().max() == pytest.approx(4.5e5)


def test_a_skew_of_nothing_is_kl():
    p, q = pair()
    assert torch.equal(skew_kl(p, q, 0.0), kl(p, q))
    assert torch.equal(skew_reverse_kl(p, q, 0.0), reverse_kl(p, q))


def test_kl_to_finite_is_kl():
    p, q = pair((4, 5, 3))
    assert torch.allclose(kl_to_finite(p, q), kl(p, q))


def test_the_temperature_may_be_a_tensor():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(log_probabilities(z, torch.tensor(4.0)), log_probabilities(z, 4.0))


def test_a_vocabulary_padded_with_minus_infinity_keeps_its_mass():
    """Padded with 0, two slots beside logits around −5 take 96 % of the student's mass (Liger's defect)."""
    z = torch.full((1, 4), -5.0)
    padded = torch.cat((z, torch.full((1, 2), -math.inf)), -1)
    assert torch.equal(log_probabilities(padded)[:, :4], log_probabilities(z))
    assert float(log_probabilities(torch.cat((z, torch.zeros(1, 2)), -1)).exp()[:, 4:].sum()) > 0.96


def test_standardised_logits_have_mean_nothing_and_spread_one():
    z = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 7
    for row, found in zip(z.tolist(), standardise(z).tolist(), strict=True):
        mean = sum(row) / 4
        std = math.sqrt(sum((v - mean) ** 2 for v in row) / 3)  # unbiased, as the authors'
        assert found == pytest.approx([(v - mean) / std for v in row])


def test_standardising_takes_shift_and_scale_off_and_bounds_what_is_left():
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(standardise(2.5 * z - 7), standardise(z))
    one = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(standardise(one).max()) == pytest.approx(3 / math.sqrt(4))  # (C−1)/√C, which nothing exceeds


def test_standardising_leaves_absent_outcomes_out():
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = standardise(torch.cat((z, torch.full((5, 1), -math.inf, dtype=torch.float64)), -1))
    assert torch.allclose(found[:, :4], standardise(z))
    assert (found[:, 4] == -math.inf).all()


@pytest.mark.parametrize("height", [0.0, 0.1, 1e4])
def test_logits_that_do_not_vary_standardise_to_nothing_without_a_gradient(height):
    """The authors' division by std + 1e-7 gives a head that starts at zero a gradient of 1e7."""
    z = torch.full((1, 7), height, requires_grad=True)
    found = standardise(z)
    (found * torch.arange(7.0)).sum().backward()
    assert z.grad is not None
    assert not found.detach().any()
    assert not z.grad.any()


def test_the_gradient_of_standardising_is_that_of_its_value():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardise, z)


def test_the_power_sum_normalises_the_power_transform_which_is_temperature():
    p, _ = pair()
    for power in (0.1, 0.5, 0.9):
        total = power_sum(p, power)
        assert torch.allclose(total, (p.exp() ** power).sum(-1))
        assert torch.allclose((p.exp() ** power / total[:, None]).log(), log_probabilities(p, 1 / power))


def test_the_power_sum_runs_from_one_to_that_of_the_uniform():
    sure, even = torch.tensor([0.0, -math.inf, -math.inf]), torch.full((3,), -math.log(3))
    assert float(power_sum(sure, 0.3)) == pytest.approx(1.0)
    assert float(power_sum(even, 0.3)) == pytest.approx(3**0.7)
