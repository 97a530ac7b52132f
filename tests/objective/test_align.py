"""Projectors: what a student holds inside comes into the shape of what the teacher holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError
from attar.objective import Distiller, Term
from attar.objective.align import Align, Aligned, aligned
from attar.signal import Batch, Signal
from attar.task import Task


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(how: Align, student: Tensor, teacher: Tensor) -> Aligned:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return aligned(how, student, teacher, "hint()")


@pytest.mark.parametrize(
    ("ours", "theirs", "shape", "said"),
    [
        ((4, 6), (4, 6), (4, 6), "identity"),
        ((4, 6), (4, 9), (4, 9), "linear 6 → 9"),
        ((4, 5, 6), (4, 5, 9), (4, 5, 9), "linear 6 → 9"),
        ((4, 6, 8, 8), (4, 9, 8, 8), (4, 9, 8, 8), "mean to the smaller grid, conv 1×1 6 → 9"),
        ((4, 6, 8, 8), (4, 6, 4, 4), (4, 6, 4, 4), "mean to the smaller grid"),
        ((4, 6, 4, 8), (4, 9, 8, 4), (4, 9, 4, 4), "mean to the smaller grid, conv 1×1 6 → 9"),
        ((4, 6, 8, 8), (4, 9), (4, 9), "mean over positions, linear 6 → 9"),
        ((4, 9), (4, 6, 8, 8), (4, 6), "mean over positions, linear 9 → 6"),
        ((4, 5, 6), (4, 6), (4, 6), "mean over positions"),
        ((4, 6), (4, 5, 9), (4, 9), "mean over positions, linear 6 → 9"),
        ((4, 6, 7, 7), (4, 50, 9), (4, 9, 7, 7), "mean to the smaller grid, conv 1×1 6 → 9"),
        ((4, 17, 6), (4, 9, 8, 8), (4, 9, 4, 4), "mean to the smaller grid, conv 1×1 6 → 9"),
    ],
)
def test_auto_does_the_least_that_makes_shapes_agree(ours: Any, theirs: Any, shape: Any, said: str) -> None:
    student, teacher = draw(*ours), draw(*theirs, seed=1)
    align = made("auto", student, teacher)
    one, other = align(student, teacher)
    assert one.shape == other.shape == shape
    assert repr(align) == said


@pytest.mark.parametrize(
    ("how", "ours", "theirs", "shape", "said"),
    [
        ("linear", (4, 6), (4, 6), (4, 6), "linear 6 → 6"),
        ("conv", (4, 6, 8, 8), (4, 6, 8, 8), (4, 6, 8, 8), "mean to the smaller grid, conv 1×1 6 → 6"),
        ("pool", (4, 5, 6), (4, 7, 9), (4, 9), "mean over positions, linear 6 → 9"),
        ("pool", (4, 6, 8, 8), (4, 6, 4, 4), (4, 6), "mean over positions"),
        ("tokens", (4, 17, 6), (4, 50, 9), (4, 9, 4, 4), "mean to the smaller grid, conv 1×1 6 → 9"),
        ("identity", (4, 5, 6), (4, 5, 6), (4, 5, 6), "identity"),
    ],
)
def test_the_others_do_what_they_are_called(how: Align, ours: Any, theirs: Any, shape: Any, said: str) -> None:
    student, teacher = draw(*ours), draw(*theirs, seed=1)
    align = made(how, student, teacher)
    one, other = align(student, teacher)
    assert one.shape == other.shape == shape
    assert repr(align) == said


def test_the_teacher_is_only_averaged_and_a_projector_is_only_linear() -> None:
    student, teacher = draw(2, 3, 4, 4), draw(2, 5, 8, 8, seed=1)
    align = made("auto", student, teacher)
    one, other = align(student, teacher)
    for r in range(4):
        for c in range(4):
            patch = teacher[0, 2, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
            assert other[0, 2, r, c].item() == pytest.approx(sum(patch.flatten().tolist()) / 4, abs=1e-6)
    assert align.project is not None
    weight = align.project.weight[:, :, 0, 0]
    assert torch.allclose(one[1, :, 2, 3], weight @ student[1, :, 2, 3], atol=1e-6)


def test_patches_lie_on_the_grid_in_reading_order_and_class_tokens_are_left_out() -> None:
    student = draw(2, 3, 2, 3)
    for prefix in (0, 1, 2, 5):
        tokens = torch.cat((torch.full((2, prefix, 3), 99.0), student.flatten(2).transpose(1, 2)), 1)
        one, other = made("auto", student, tokens)(student, tokens)
        assert torch.equal(one, other)


def test_padded_tokens_are_not_averaged_whatever_they_hold() -> None:
    tokens, teacher = draw(2, 4, 3), draw(2, 3, seed=1)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    padded = torch.where(mask[..., None], tokens, torch.nan).requires_grad_()
    one, _ = made("auto", tokens, teacher)(padded, teacher, student_mask=mask)
    assert torch.allclose(one, torch.stack((tokens[0, :2].mean(0), tokens[1].mean(0))))
    one.sum().backward()
    assert padded.grad is not None
    assert not padded.grad[0, 2:].any()
    _, other = made("auto", teacher, tokens)(teacher, padded.detach(), teacher_mask=mask)
    assert torch.allclose(other, one)


def test_a_row_without_a_real_token_is_zero() -> None:
    one, _ = made("pool", draw(2, 4, 3), draw(2, 3))(draw(2, 4, 3), draw(2, 3), student_mask=torch.zeros(2, 4, dtype=torch.bool))
    assert torch.equal(one, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("how", "ours", "theirs", "hint"),
    [
        ("auto", (4, 5, 6), (4, 7, 9), "one tokenizer"),
        ("auto", (4, 5, 6), (3, 5, 6), "the same rows"),
        ("auto", (4,), (4, 3), "tap"),
        ("auto", (4, 2, 3, 4, 5), (4, 2, 3), "tap"),
        ("auto", (4, 6, 7, 7), (4, 48, 9), "no square of patches"),
        ("identity", (4, 5), (4, 6), 'align="auto"'),
        ("linear", (4, 5, 6), (4, 7, 6), "all axes but the last"),
        ("linear", (4, 6, 7, 7), (4, 6), "all axes but the last"),
        ("conv", (4, 5, 6), (4, 5, 6), "(B, C, H, W)"),
        ("tokens", (4, 8, 8, 8), (4, 8, 8, 8), "(B, L, D)"),
        ("tokens", (4, 12, 8), (4, 16, 8), "12 tokens"),
        ("pool", (4, 2, 3, 4, 5), (4, 2), "(B, D)"),
    ],
)
def test_what_cannot_be_aligned_shows_both_shapes(how: Align, ours: Any, theirs: Any, hint: str) -> None:
    with pytest.raises(ObjectiveError, match=r"hint\(\)") as caught:
        aligned(how, torch.zeros(ours), torch.zeros(theirs), "hint()")
    assert str(ours) in caught.value.message
    assert str(theirs) in caught.value.message
    assert hint in caught.value.hint


def test_an_unknown_way_names_the_known_ones() -> None:
    with pytest.raises(ObjectiveError, match="align='mlp'") as caught:
        aligned("mlp", torch.zeros(1, 2), torch.zeros(1, 2), "hint()")  # pyright: ignore[reportArgumentType]  what a recipe may say
    assert "linear" in caught.value.hint


def test_lengths_that_part_after_the_first_batch_are_refused() -> None:
    align = made("auto", draw(2, 5, 6), draw(2, 5, 9))
    with pytest.raises(ObjectiveError, match=r"\(2, 4, 9\) meets one of \(2, 5, 9\)"):
        align(draw(2, 4, 6), draw(2, 5, 9))


def test_a_projector_begins_by_keeping_distances_or_variance() -> None:
    wide = made("auto", draw(4, 6), draw(4, 24))
    assert wide.project is not None
    weight = wide.project.weight
    assert torch.allclose(weight.T @ weight, 4 * torch.eye(6), atol=1e-5)  # √(24/6) times an isometry: coordinates keep their size
    narrow = made("auto", draw(4, 24), draw(4, 6))
    assert narrow.project is not None
    weight = narrow.project.weight
    assert torch.allclose(weight @ weight.T, torch.eye(6), atol=1e-5)
    assert narrow.project.bias is not None
    assert not narrow.project.bias.any()


def test_one_seed_makes_one_projector_and_another_seed_another() -> None:
    def weight(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            align = aligned("auto", draw(4, 6).to(dtype), draw(4, 9).to(dtype), "hint()")
        assert align.project is not None
        return align.project.weight.detach()

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))
    assert torch.equal(weight(0, torch.float64), weight(0).double())


def test_half_precision_is_compared_in_single() -> None:
    student, teacher = draw(4, 6).bfloat16(), draw(4, 9).half()
    align = made("auto", student, teacher)
    one, other = align(student, teacher)
    assert one.dtype == other.dtype == torch.float32
    assert align.project is not None
    assert align.project.weight.dtype == torch.float32


class Hint(Term):
    """The squared distance of two taps, with a projector."""

    student_taps, teacher_taps = frozenset({"0"}), frozenset({"2"})

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        assert teacher is not None
        self.align = aligned("auto", student.taps["0"], teacher.taps["2"], repr(self))

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        one, other = self.align(student.taps["0"], teacher.taps["2"])
        return (one - other).square().mean(-1)

    def __repr__(self) -> str:
        return "hint()"


def built() -> tuple[Distiller, Batch, Signal]:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    batch = Batch(draw(8, 3), labels=torch.arange(8) % 2)
    teacher = Signal(draw(8, 2, seed=1), {"2": draw(8, 7, seed=2)})
    return Distiller(student, Hint()).build(batch, teacher), batch, teacher


def test_a_projector_is_the_objectives_and_not_the_students() -> None:
    distiller, _, _ = built()
    assert {name.partition("align.")[2] for name in distiller.objective.state_dict()} == {"project.weight", "project.bias"}
    assert set(distiller.student.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert len(list(distiller.parameters())) == 6


def test_a_projector_trains_with_the_student() -> None:
    distiller, batch, teacher = built()
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    first = distiller(batch, teacher).total
    for _ in range(30):
        optimizer.zero_grad()
        distiller(batch, teacher).total.backward()
        optimizer.step()
    assert distiller(batch, teacher).total < 0.8 * first
    still = {name for name, value in distiller.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"student.2.weight", "student.2.bias"}  # behind the tap, where nothing is asked


def test_a_projector_moves_with_the_distiller() -> None:
    distiller, _, _ = built()
    distiller.to(torch.device("meta"))
    assert {p.device.type for p in distiller.objective.parameters()} == {"meta"}
    made_there = aligned("auto", torch.zeros(2, 3, device="meta"), torch.zeros(2, 4, device="meta"), "hint()")
    assert {p.device.type for p in made_there.parameters()} == {"meta"}
