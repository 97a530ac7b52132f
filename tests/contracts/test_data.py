"""Every word for data keeps the contract of data; the contract notices data that do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attar.data import Data, arrays, corruptions, dataset, frame, images, mnist5k, munge, noise, rotate, shift, table, text, unlabelled
from attar.testing.data import check_batches, check_corruptions, check_data, check_growth, check_inputs, check_splits, check_views
from attar.testing.small import small_images, small_table
from attar.testing.store import plain_data
from attar.testing.texts import small_pairs, small_texts


def rows(count: int, seed: int = 0):
    import pandas as pd

    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, count).astype(float),
            "colour": rng.choice(["red", "green", "blue"], count),
            "member": rng.random(count) < 0.5,
            "amount": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
            "label": rng.choice(["no", "yes"], count),
        }
    )


def pictures(root: Path, count: int) -> Path:
    for i in range(count):
        path = root / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 10, 3)).astype(np.uint8)).save(path)
    return root


def test_a_table_keeps_the_contract(tmp_path: Path) -> None:
    few, many = tmp_path / "few.csv", tmp_path / "many.csv"
    whole = rows(400)
    whole.head(300).to_csv(few, index=False)
    whole.to_csv(many, index=False)
    check_data(lambda: table(str(few), label="label").read(), lambda: table(str(many), label="label").read())


def test_a_frame_with_synthetic_rows_keeps_the_contract() -> None:
    check_data(lambda: frame(rows(200), label="label", augment=munge(rows=1)).read())


def test_a_folder_of_images_keeps_the_contract(tmp_path: Path) -> None:
    words = [shift(pixels=2), rotate(degrees=20), noise(std=0.1)]
    few = pictures(tmp_path / "few", 80)
    many = pictures(tmp_path / "many", 110)
    check_data(
        lambda: images(str(few), augment=words, views=3).read(),
        lambda: images(str(many), augment=words, views=3).read(),
    )


def test_digits_keep_the_contract() -> None:
    data = mnist5k(augment=[shift(pixels=2)], views=4).read()
    check_data(lambda: data)
    assert data.schema.shape == (1, 28, 28)
    assert sum(map(len, data.splits.values())) == 5000


def test_arrays_keep_the_contract() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 9)), rng.integers(0, 3, 300)
    check_data(lambda: arrays(x[:200], y[:200]).read(), lambda: arrays(x, y).read())
    check_data(lambda: arrays(x[:200, :6].reshape(200, 2, 3), y[:200]).read())
    pixels = rng.integers(0, 256, (120, 6, 7), dtype=np.uint8)
    check_data(lambda: arrays(pixels, y[:120], augment=[shift(pixels=1)], views=2).read())


def test_a_torch_dataset_keeps_the_contract() -> None:
    rng = np.random.default_rng(1)
    items = [(torch.from_numpy(rng.integers(0, 256, (3, 5, 5), dtype=np.uint8)), i % 2) for i in range(120)]
    check_data(lambda: dataset(items, augment=[shift(pixels=1)], views=2).read())


def sentences(path: Path, numbers: range) -> str:
    rows = [f"sentence {i}\tanother {i}\t{i / 7:.3f}\t{'no' if i % 3 else 'yes'}" for i in numbers]
    path.write_text("\n".join(["sentence1\tsentence2\tscore\ty", *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_texts_keep_the_contract(tmp_path: Path) -> None:
    few, many = sentences(tmp_path / "few.tsv", range(200)), sentences(tmp_path / "many.tsv", range(260))
    check_data(lambda: text(few, label="y").read(), lambda: text(many, label="y").read())
    check_data(lambda: text(few, "sentence1", classes=["a", "b"]).read(), lambda: text(many, "sentence1", classes=["a", "b"]).read())
    check_data(lambda: text(few, label="score").read("embedding"), lambda: text(many, label="score").read("embedding"))


def test_joined_data_keep_the_contract(tmp_path: Path) -> None:
    data = text(sentences(tmp_path / "a.tsv", range(200)), label="score")
    alone = tmp_path / "alone.txt"
    alone.write_text("".join(f"sentence {i}\n" for i in range(300)), encoding="utf-8")
    joined = data + unlabelled(str(alone))
    check_data(
        lambda: joined.read("embedding"), lambda: (joined + unlabelled(sentences(tmp_path / "b.tsv", range(300, 330)))).read("embedding")
    )


def test_a_mask_that_does_not_fit_the_texts_is_noticed(tmp_path: Path) -> None:
    data = text(sentences(tmp_path / "a.tsv", range(200)), label="score").read("embedding")
    assert data.train.mask is not None
    wrong = replace(data, train=replace(data.train, mask=~data.train.mask))
    with pytest.raises(AssertionError, match="the mask is not True where a text is"):
        check_inputs(wrong)


@pytest.mark.parametrize("make", [small_table, small_images, plain_data])
def test_the_toys_of_other_tests_keep_the_contract(make: Callable[[], Data]) -> None:
    data = make()
    check_splits(data)
    check_inputs(data)
    check_batches(make)


def test_a_row_in_two_splits_is_noticed() -> None:
    data = arrays(np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 2).read()
    with pytest.raises(AssertionError, match="is in train and in test"):
        check_splits(replace(data, test=replace(data.train, name="test")))


def test_augmentation_that_draws_anew_each_time_is_noticed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 6, 6), dtype=np.uint8)
    data = arrays(pixels, np.arange(60) % 2, augment=[shift(pixels=1)], views=2).read()
    generator = torch.Generator().manual_seed(0)

    def restless(index: torch.Tensor, ids: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        plain = data.train.rows(index)
        assert isinstance(plain, torch.Tensor)
        drawn = torch.randint(0, 255, plain.shape, generator=generator, dtype=torch.uint8)
        return torch.where((views == 0)[:, None, None, None], plain, drawn)

    with pytest.raises(AssertionError, match="another time otherwise"):
        check_views(replace(data, train=replace(data.train, seen=restless)))


def test_a_row_that_moves_as_rows_are_added_is_noticed() -> None:
    whole = rows(300)
    whole["when"] = np.arange(300)
    data, more = (frame(whole.head(n), label="label", time="when").read() for n in (200, 300))
    with pytest.raises(AssertionError, match="moves from"):
        check_growth(data, more)


@pytest.mark.parametrize("make", [small_table, small_images, small_texts, small_pairs, plain_data])
def test_every_corruption_keeps_the_contract(make: Callable[[], Data]) -> None:
    check_corruptions(make())


def test_corruptions_of_colours_and_signals_keep_the_contract() -> None:
    rng = np.random.default_rng(0)
    check_corruptions(arrays(rng.integers(0, 256, (120, 3, 9, 12), dtype=np.uint8), np.arange(120) % 2).read())
    check_corruptions(arrays(rng.normal(size=(120, 2, 20)), np.arange(120) % 2).read())


def test_a_corruption_that_depends_on_the_batch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaning(images: torch.Tensor, keys: np.ndarray, severity: int) -> torch.Tensor:
        return images.clamp(max=int(images.max()) - severity)

    monkeypatch.setattr("attar.data.corrupted.images.contrast", leaning)
    with pytest.raises(AssertionError, match="under contrast of severity 1"):
        check_corruptions(small_images(), corruptions(kinds=["contrast"]))
