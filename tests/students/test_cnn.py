"""The convolutional student reads raw pixels of any size."""

from __future__ import annotations

import pytest
import torch

from attar.errors import StudentError
from attar.signal import Column, Schema
from attar.students import cnn

DIGITS = Schema("images", shape=(1, 28, 28), pixel_mean=(33.0,), pixel_std=(78.0,), classes=tuple("0123456789"))


def test_the_number_of_weights_does_not_depend_on_the_size_of_the_image() -> None:
    small, large = (cnn()(Schema("images", shape=(3, n, n), classes=("a", "b")), 0) for n in (8, 64))
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in large.parameters())
    assert large(torch.zeros(2, 3, 64, 48, dtype=torch.uint8)).shape == (2, 2)


def test_each_convolution_halves_the_image_and_doubles_the_channels() -> None:
    student = cnn(width=4, depth=3)(DIGITS, 0).eval()
    maps = student.get_submodule("features")(torch.zeros(1, 1, 28, 28))
    assert maps.shape == (1, 16, 4, 4)


def test_the_default_student_of_digits_has_the_weights_its_page_says() -> None:
    assert 23_000 < sum(p.numel() for p in cnn()(DIGITS, 0).parameters()) < 25_000


def test_pixels_are_standardised_inside() -> None:
    student = cnn(width=4, depth=2)(DIGITS, 0)
    seen = student.get_submodule("read")(torch.full((1, 1, 28, 28), 111, dtype=torch.uint8))
    torch.testing.assert_close(seen, torch.ones(1, 1, 28, 28))


def test_a_table_is_refused_with_a_way_out() -> None:
    with pytest.raises(StudentError, match=r"mlp\(\) reads them"):
        cnn()(Schema("table", (Column("age", "number"),), classes=("no", "yes")), 0)
    with pytest.raises(StudentError, match=r"shape \(7,\)"):
        cnn()(Schema("tensor", shape=(7,), classes=("no", "yes")), 0)


@pytest.mark.parametrize("bad", [{"width": 0}, {"depth": 0}])
def test_sizes_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(StudentError, match="at least 1"):
        cnn(**bad)


def test_its_text_reads_back() -> None:
    assert repr(cnn(width=8)) == "cnn(width=8, depth=3)"
