"""Augmentation: a pure function of (id, view), and each word does what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from attar.data import Augmentation, arrays, crop, flip, noise, rotate, shift
from attar.data.augment import Views, augmented
from attar.errors import DataError

WORDS = [shift(pixels=2), crop(pixels=3), flip(), flip(axis="vertical"), rotate(degrees=25), noise(std=0.1)]


def pictures(count: int = 40, channels: int = 3, height: int = 9, width: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=g)
    return images, torch.randint(-(2**62), 2**62, (count,), generator=g)


def view(images: Tensor, ids: Tensor, number: int, words: Sequence[Augmentation]) -> Tensor:
    return augmented(images, ids, torch.full_like(ids, number), words)


@pytest.mark.parametrize("words", [[w] for w in WORDS] + [WORDS], ids=repr)
def test_a_view_is_the_same_bits_in_any_batch(words: list[Augmentation]) -> None:
    images, ids = pictures(100)
    views = torch.arange(100) % 7
    whole = augmented(images, ids, views, words)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augmented(images[order], ids[order], views[order], words), whole[order])
    for size in (1, 3, 17):
        parts = [augmented(images[i : i + size], ids[i : i + size], views[i : i + size], words) for i in range(0, 100, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[views == 0], images[views == 0])
    assert (whole[views > 0] != images[views > 0]).any()
    assert whole.dtype == torch.uint8


def test_a_view_does_not_depend_on_the_number_of_threads() -> None:
    images, ids = pictures(64, height=40, width=40)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            answers.append(view(images, ids, 3, WORDS))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # the global state is what is looked at
    state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
    images, ids = pictures(8)
    view(images, ids, 1, WORDS)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(np.random.get_state()) == numpy_state


def test_views_of_one_row_and_rows_of_one_view_differ() -> None:
    images = torch.randint(0, 256, (1, 1, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).expand(30, -1, -1, -1)
    ids = torch.arange(30)
    by_row = {view(images, ids, 1, [rotate(degrees=40)])[i].numpy().tobytes() for i in range(30)}
    by_view = {view(images[:1], ids[:1], v, [rotate(degrees=40)]).numpy().tobytes() for v in range(30)}
    assert len(by_row) == len(by_view) == 30


def test_the_same_word_twice_draws_twice() -> None:
    images, ids = pictures(30, channels=1)
    once, twice = view(images, ids, 1, [shift(pixels=1)]), view(images, ids, 1, [shift(pixels=1), shift(pixels=1)])
    assert not torch.equal(once, twice)


def test_shift_moves_by_each_whole_offset_equally_often_and_lets_black_in() -> None:
    images, _ = pictures(1, channels=2)
    count = 5000
    out = view(images.expand(count, -1, -1, -1), torch.arange(count), 1, [shift(pixels=1)])
    found = np.zeros((3, 3), dtype=int)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            expected = torch.zeros_like(images)
            h, w = images.shape[-2:]
            expected[..., max(0, -y) : h - max(0, y), max(0, -x) : w - max(0, x)] = images[
                ..., max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)
            ]
            found[y + 1, x + 1] = int((out == expected).flatten(1).all(1).sum())
    assert found.sum() == count, "every view is the image moved by whole pixels"
    assert ((found - count / 9) ** 2 / (count / 9)).sum() < 26.1, "χ² with 8 degrees of freedom, p = 0.001"


def test_flip_mirrors_about_half_of_the_images() -> None:
    images, ids = pictures(600)
    for word, axis in ((flip(), -1), (flip(axis="vertical"), -2)):
        out = view(images, ids, 2, [word])
        same = (out == images).flatten(1).all(1)
        assert (same ^ (out == images.flip(axis)).flatten(1).all(1)).all()
        assert 230 < int(same.sum()) < 370


def test_rotate_equals_scipys_interpolation_about_the_centre() -> None:
    images, ids = pictures(12, channels=1, height=8, width=11)
    out = view(images, ids, 1, [rotate(degrees=60)])
    y, x = np.meshgrid(np.arange(8) - 3.5, np.arange(11) - 5.0, indexing="ij")
    angles = np.radians(np.linspace(-60, 60, 2401))  # the angle that was drawn is not told: the nearest twentieth of a degree
    used = []
    for image, turned in zip(images[:, 0].numpy(), out[:, 0].numpy(), strict=True):
        errors = []
        for angle in angles:
            rows, columns = math.sin(angle) * x + math.cos(angle) * y + 3.5, math.cos(angle) * x - math.sin(angle) * y + 5
            expected = map_coordinates(image.astype(float), [rows, columns], order=1, mode="grid-constant", cval=0)
            errors.append(np.abs(expected - turned).max())
        assert min(errors) < 2.5, "half a twentieth of a degree moves a corner by 0.003 pixels, and rounding adds a half"
        used.append(float(angles[int(np.argmin(errors))]))
    assert min(used) < -0.3 < 0.3 < max(used), "both ways"


def test_crop_equals_scaling_up_a_window() -> None:
    images, ids = pictures(20, channels=1, height=7, width=7)
    out = view(images, ids, 1, [crop(pixels=3)])
    # The window's corners lie inside the image, so that nothing black comes in: the mean of a white image stays white.
    assert (view(torch.full_like(images, 255), ids, 1, [crop(pixels=3)]) == 255).all()
    # A ramp stays a ramp, half as steep, 3 of 6 steps wide.
    ramp = (torch.arange(7, dtype=torch.uint8) * 30).expand(20, 1, 7, 7)
    steps = view(ramp, ids, 1, [crop(pixels=3)]).float().diff(dim=-1)
    assert ((steps >= 14) & (steps <= 16)).all()
    assert out.shape == images.shape


def test_noise_has_the_spread_it_says_and_stays_within_the_range() -> None:
    images = torch.full((40, 1, 50, 50), 128, dtype=torch.uint8)
    drawn = view(images, torch.arange(40), 1, [noise(std=0.1)]).double() - 128
    n = drawn.numel()
    assert abs(float(drawn.mean())) < 4 * 25.5 / math.sqrt(n)
    assert abs(float(drawn.std()) - math.hypot(25.5, 1 / math.sqrt(12))) < 4 * 25.5 / math.sqrt(2 * n)
    pairs = torch.corrcoef(torch.stack([drawn[:, 0, :, :-1].flatten(), drawn[:, 0, :, 1:].flatten()]))[0, 1]
    assert abs(float(pairs)) < 4 / math.sqrt(n), "neighbours are drawn apart, though four share one draw"
    white = view(torch.full_like(images, 255), torch.arange(40), 1, [noise(std=0.1)])
    assert int(white.max()) == 255
    assert 0.4 < float((white == 255).float().mean()) < 0.6


def test_neighbouring_moves_are_one_mapping() -> None:
    # Taken one after the other, what the first shift has pushed out would stay black when the second brings it back.
    images, _ = pictures(1, channels=1, height=16, width=16)
    many, ids = images.expand(4000, -1, -1, -1), torch.arange(4000)
    back = (view(many, ids, 1, [shift(pixels=9), shift(pixels=9)]) == many).flatten(1).all(1)
    assert 1 <= int(back.sum()) <= 30, "there and back again, one in 361, loses no pixel"


def test_kept_views_are_the_views_computed_anew() -> None:
    images, ids = pictures(50)
    words = [shift(pixels=1), noise(std=0.05)]
    kept = Views(lambda index: images[index], words, 50, 3)
    g = torch.Generator().manual_seed(0)
    for turn in range(30):
        at, views = torch.randint(0, 50, (16,), generator=g), torch.randint(0, 4 + turn % 2, (16,), generator=g)
        assert torch.equal(kept(at, ids[at], views), augmented(images[at], ids[at], views, words))
    assert kept._kept is not None  # pyright: ignore[reportPrivateUsage] else the test has tested nothing


def test_views_too_many_to_keep_are_computed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.data.augment.MEMO_BYTES", 1000)
    images, ids = pictures(50)
    lean = Views(lambda index: images[index], [flip()], 50, 3)
    at = torch.arange(50)
    assert torch.equal(lean(at, ids, at % 4), augmented(images, ids, at % 4, [flip()]))
    assert lean._kept is None  # pyright: ignore[reportPrivateUsage] memory cannot be seen from outside


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: shift(pixels=0), r"shift\(pixels=0\) changes nothing"),
        (lambda: rotate(degrees=-5), r"rotate\(degrees=-5\) changes nothing"),
        (lambda: noise(std=12), r"noise\(std=12\) is not a share"),
        (lambda: flip(axis="diagonal"), "flip"),  # pyright: ignore[reportArgumentType] a wrong word is what is tested
    ],
)
def test_words_that_make_no_sense_are_refused(make, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make()


def test_a_crop_of_the_whole_image_is_refused() -> None:
    images, ids = pictures(2)
    with pytest.raises(DataError, match=r"leaves nothing of 9 × 12 pixels"):
        view(images, ids, 1, [crop(pixels=9)])


def test_the_augmentation_and_the_number_of_views_are_in_the_fingerprint() -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (80, 6, 6), dtype=np.uint8), np.arange(80) % 2
    prints = {
        arrays(x, y, augment=augment, views=views).read().fingerprint
        for augment, views in ((None, None), ([flip()], 4), ([flip()], 5), ([shift(pixels=1)], 4), ([shift(pixels=2)], 4))
    }
    assert len(prints) == 5


def test_views_without_augmentation_and_the_reverse_are_refused() -> None:
    x, y = np.zeros((80, 6, 6), dtype=np.uint8), np.arange(80) % 2
    with pytest.raises(DataError, match="views=4, but no augmentation is declared"):
        arrays(x, y, views=4)
    with pytest.raises(DataError, match="views=0"):
        arrays(x, y, augment=[flip()], views=0)
    with pytest.raises(DataError, match="augment holds 'flip'"):
        arrays(x, y, augment=["flip"])  # pyright: ignore[reportArgumentType] a wrong type is what is tested


def test_some_rows_of_a_split_are_a_split_of_their_own() -> None:
    images, _ = pictures(40)
    data = arrays(images.numpy(), np.arange(40) % 2, weight=np.arange(40.0) + 1, augment=[flip()]).read()
    whole, at = data.train, torch.tensor([5, 0, 3])
    some = whole.take(at)
    assert len(some) == 3
    for views in (None, torch.tensor([1, 0, 2])):
        index = torch.tensor([2, 0, 1])
        got, expected = some.batch(index, views), whole.batch(at[index], views)
        for name in ("inputs", "labels", "weight", "ids"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), name
    again, expected = some.take(torch.tensor([2])).batch(torch.tensor([0])), whole.batch(at[2:])
    for name in ("inputs", "labels", "weight", "ids"):
        assert torch.equal(getattr(again, name), getattr(expected, name)), name
